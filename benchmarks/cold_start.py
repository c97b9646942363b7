"""Cold start: from starting a process to the mask, `wise-edge run` on a scene's image, and to the help.

    python benchmarks/cold_start.py [--runs N] [--bundle DIR] [--json]

Each run is a fresh process; the first, which fills the page cache, does not count. Imports are measured in a separate
run (`python -X importtime`), since this slows the run down. CPU time is reported next to the wall clock, because other
work on the machine does not change it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wise_edge.images import save_png
from wise_edge.scenes import sample

TARGET_S = 1.0
SHOWN_PACKAGES = 10

_IMPORT_LINE = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \|\s*(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """What one process took, and what it printed."""

    wall_s: float
    core_s: float
    stdout: str
    stderr: str


def run_once(arguments: list[str], *flags: str) -> Run:
    """Run the command in a fresh process."""
    start, held = time.perf_counter(), _children_core_s()
    done = subprocess.run([sys.executable, *flags, "-m", "wise_edge", *arguments], capture_output=True, text=True)
    wall_s, core_s = time.perf_counter() - start, _children_core_s() - held
    if done.returncode:
        sys.exit(done.stderr.strip())
    return Run(wall_s, core_s, done.stdout, done.stderr)


def _children_core_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def import_times(stderr: str) -> dict[str, float]:
    """Sum the modules' own import times by top-level package, in ms, longest first."""
    spent: Counter[str] = Counter()
    for microseconds, module in _IMPORT_LINE.findall(stderr):
        spent[module.split(".")[0]] += int(microseconds)
    return {package: round(value / 1000, 1) for package, value in spent.most_common(SHOWN_PACKAGES)}


def measure(runs: int, bundle: Path | None) -> dict[str, Any]:
    item = sample("test", 0)
    with tempfile.TemporaryDirectory() as folder:
        picture, mask = Path(folder) / "scene.png", Path(folder) / "mask.png"
        save_png(item.scene.image, picture)
        arguments = ["run", str(picture), item.request, "--json", "--mask", str(mask), "--force"]
        arguments += ["--bundle", str(bundle)] if bundle else []
        imports = import_times(run_once(arguments, "-X", "importtime").stderr)
        done = [run_once(arguments) for _ in range(runs)]
    helped = [run_once(["--help"]).wall_s for _ in range(runs)]
    seconds = [run.wall_s for run in done]
    results = [json.loads(run.stdout) for run in done]
    phases = {name: [result["latency_ms"][name] for result in results] for name in results[0]["latency_ms"]}
    return {
        "runs": runs,
        "cores": len(os.sched_getaffinity(0)),
        "seconds_p50": round(float(np.percentile(seconds, 50)), 3),
        "seconds_p90": round(float(np.percentile(seconds, 90)), 3),
        "seconds_min": round(min(seconds), 3),
        "core_seconds_p50": round(float(np.percentile([run.core_s for run in done], 50)), 3),
        "target_seconds": TARGET_S,
        "help_seconds_p50": round(float(np.percentile(helped, 50)), 3),
        "answer_valid": all(result["answer_valid"] for result in results),
        "decode_steps": results[0]["tokens"]["decode_steps"],
        "latency_ms_p50": {name: round(float(np.percentile(times, 50)), 1) for name, times in phases.items()},
        "import_ms": imports,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the time from process start to mask.")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--bundle", type=Path, help="bundle to run; the embedded one by default")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    result = measure(options.runs, options.bundle)
    if options.json:
        print(json.dumps(result))
        return
    print(f"process start to mask, {result['runs']} fresh processes on {result['cores']} cores:")
    print(f"  p50 {result['seconds_p50']} s, p90 {result['seconds_p90']} s (target {TARGET_S} s)")
    print(f"  a core was held for {result['core_seconds_p50']} s")
    print(f"  of it, p50 in ms, with {result['decode_steps']} decode steps:")
    for name, value in result["latency_ms_p50"].items():
        print(f"    {name:<14} {value:8.1f}")
    print(f"  wise-edge --help answers after p50 {result['help_seconds_p50']} s")
    print("  imports, own time in ms (measured apart, with tracing):")
    for package, value in result["import_ms"].items():
        print(f"    {package:<14} {value:8.1f}")


if __name__ == "__main__":
    main()
