"""Sends the service requests that schemathesis makes from its OpenAPI document, most of them malformed.

    pip install schemathesis
    python benchmarks/service_fuzz.py [--examples 300] [--json]

Reports how many requests the service counted, their statuses, and the memory of the process before and after. Exits
with 1 if a status was a server error (except 503, the device's) or schemathesis found another failure.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter

import httpx
from figures import make_parser, print_figures, resident_mb

CHECKS = "not_a_server_error,response_schema_conformance,content_type_conformance,status_code_conformance"
MADE_BY_HAND = (
    b'{"query": "the mug", "deadline_ms": NaN}',
    b'{"query": "\\ud800"}',
    b"[" * 100_000,
    b'{"query": "' + b"x" * 1_000_000 + b'"}',
    b"\xff\xfe",
    b"",
)
"""Bodies that schemathesis does not send."""


def count_statuses(url: str) -> Counter[str]:
    """Return how many requests the service answered, by status."""
    counted: Counter[str] = Counter()
    for status, count in re.findall(r'wise_edge_requests_total{.*status="(\d+)"} ([\d.e+]+)', get(url, "metrics")):
        counted[status] += int(float(count))
    return counted


def get(url: str, path: str) -> str:
    return httpx.get(f"{url}/{path}", timeout=60).text


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--examples", type=int, default=300, help="for each path")
    parser.add_argument("--schemathesis", default=shutil.which("schemathesis"), help="its command")
    options = parser.parse_args()
    if options.schemathesis is None:
        parser.error("schemathesis is not installed: pip install schemathesis, or name its command")
    command = [sys.executable, "-m", "wise_edge", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        url = server.stderr.readline().split()[-1]
        fuzz = [options.schemathesis, "run", f"{url}/openapi.json", "--checks", CHECKS, "--continue-on-failure"]
        try:
            before_mb = resident_mb(server.pid)
            fuzzed = subprocess.run([*fuzz, "-n", str(options.examples)], stdout=sys.stderr, check=False)
            for body in MADE_BY_HAND:
                head = {"content-type": "application/json"}
                httpx.post(f"{url}/v1/frames/x/segment", content=body, headers=head, timeout=60)
            answers_still = httpx.get(f"{url}/readyz").status_code == 200
            statuses, after_mb = count_statuses(url), resident_mb(server.pid)
        finally:
            server.terminate()
            server.wait()
    errors = sum(count for status, count in statuses.items() if status.startswith("5") and status != "503")
    figures = {
        "requests": statuses.total(),
        "statuses": dict(sorted(statuses.items())),
        "server_errors": errors,
        "schemathesis_exit_code": fuzzed.returncode,
        "answers_still": answers_still,
        "memory_mb_before": before_mb,
        "memory_mb_after": after_mb,
    }
    print_figures(figures, options.json)
    return int(bool(errors or fuzzed.returncode or not answers_still))


if __name__ == "__main__":
    sys.exit(main())
