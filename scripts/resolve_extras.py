#!/usr/bin/env python3
"""Resolve every extra for every Python and architecture, as pip would, without installing anything.

A combination must resolve to all of the extra's packages, or be one that `PYTHON_LIMITS` in `wise_edge/extras.py`
excludes. An excluded one must fail without its markers: once it resolves, the limit and the markers can go. Exits
with 1 if a combination is other than declared, with 2 if uv (of the extra `dev`) is missing or the index is silent.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from wise_edge.extras import PYTHON_LIMITS  # noqa: E402

EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
MACHINES = ("x86_64", "aarch64")
SOURCES = (
    "llama-cpp-python",
    *(f"tensorrt{part}" for part in ("", "-cu13", "-cu13-libs", "-rtx", "-rtx-cu13")),
)
"""What the index has no wheels of. NVIDIA's are stubs that fetch the wheels elsewhere or only require them."""
TIMEOUT_S = 300


def main() -> int:
    """Resolve the combinations that the command line selects, print each, and return the exit code."""
    arguments = _parse()
    if find_uv() is None:
        print("uv is missing; run: pip install uv", file=sys.stderr)
        return 2
    if failure := resolve(["rich"], "3.12", "x86_64")[1]:
        print(f"the package index does not answer: {failure}", file=sys.stderr)
        return 2
    cases = list(product(arguments.extra, arguments.python, arguments.machine))
    wrong = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for case, (outcome, fault) in zip(cases, pool.map(lambda case: judge(*case), cases), strict=True):
            print("{} {:<9} {:<5} {:<8} {}".format("WRONG" if fault else "ok   ", *case, fault or outcome), flush=True)
            wrong += fault is not None
    print(f"{len(cases)} combinations, {wrong} other than declared")
    return int(wrong > 0)


def find_uv() -> str | None:
    """Return the path of uv, of this environment if it has one."""
    return shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--extra", nargs="+", choices=EXTRAS, default=list(EXTRAS))
    parser.add_argument("--python", nargs="+", choices=PYTHONS, default=PYTHONS)
    parser.add_argument("--machine", nargs="+", choices=MACHINES, default=MACHINES)
    parser.add_argument("--jobs", type=int, default=4, help="resolutions at once")
    return parser.parse_args()


def judge(extra: str, python: str, machine: str) -> tuple[str, str | None]:
    """Return what came of a combination, and what is wrong with that; None if it is as declared."""
    major, minor = map(int, python.split("."))
    limits = PYTHON_LIMITS.get(extra, ())
    excluded = next((limit for limit in limits if not limit.allows((major, minor), machine)), None)
    if excluded is None:
        found, failure = resolve(EXTRAS[extra], python, machine)
        missing = sorted({package_name(line) for line in EXTRAS[extra]} - found)
        fault = failure or (f"its markers leave out {', '.join(missing)}" if missing else None)
        return f"{len(found)} packages", fault
    outcome = f"excluded: {excluded}"
    if excluded.instead:  # not for want of packages
        return outcome, None
    _, failure = resolve([line.partition(";")[0] for line in EXTRAS[extra]], python, machine)
    return outcome, None if failure else f"it resolves now; take {excluded} out of PYTHON_LIMITS and its marker"


def resolve(requirements: Iterable[str], python: str, machine: str) -> tuple[set[str], str | None]:
    """Return the names of the packages that satisfy requirements, or why there are none."""
    glibc = "2_35" if python == "3.10" else "2_39"  # Ubuntu 22.04 (JetPack 6) has Python 3.10, 24.04 (JetPack 7) 3.12
    command = [find_uv() or "uv", "pip", "compile", "--quiet", "--no-config", "--no-python-downloads"]
    command += ["--no-header", "--no-annotate"]
    command += ["--python-version", python, "--python-platform", f"{machine}-manylinux_{glibc}"]
    command += ["--only-binary", ":all:", *(word for name in SOURCES for word in ("--no-binary", name)), "-"]
    text = "\n".join(requirements)
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return set(), f"no answer within {TIMEOUT_S} s"
    if done.returncode:
        reason = re.search(r"cause: (.*)", done.stderr) or re.search(r"(.*\S)", done.stderr)
        return set(), reason[1] if reason else f"uv ended with {done.returncode}"
    return {package_name(line) for line in done.stdout.splitlines() if line}, None


def package_name(requirement: str) -> str:
    """Return the normalized name of the package that a requirement names."""
    match = re.match(r"[\w.-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


if __name__ == "__main__":
    sys.exit(main())
