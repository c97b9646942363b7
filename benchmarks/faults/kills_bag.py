"""Killing a query on a recorded camera, whose results lie in a log until the new bag is complete."""

from __future__ import annotations

import json
import os
from pathlib import Path

from kills import Scenario
from writers import make_bag, read_results


def prepare(inputs: Path) -> None:
    """Record a camera."""
    make_bag(inputs, 10)


def command(inputs: Path, run: Path) -> list[str]:
    """Return the arguments of a new run."""
    return ["bag", str(inputs / "in"), "--query", "the red ring", "--out", str(run / "out"), "--json"]


def then(inputs: Path, run: Path) -> list[str]:
    """Return those of the run that goes on; a finished one is only looked at."""
    if (run / "out").exists() and not (run / "out.log").exists() and not (run / ".out.wise-edge").exists():
        return ["bundle", "show"]
    return [*command(inputs, run), "--resume"]


def check(inputs: Path, run: Path) -> list[str]:
    """Return what is wrong with the log, of which a killed run may leave the last line torn, or with the new bag."""
    problems = []
    if (run / "out").exists():
        try:
            read_results(run)
        except Exception as error:  # whatever a reader raises of a torn bag
            problems.append(f"the new bag cannot be read: {error!r}")
    if (run / "out.log").exists():
        lines = (run / "out.log").read_bytes().splitlines(keepends=True)
        found = [json.loads(line)["index"] for line in lines[1:] if line.endswith(b"\n")]
        if found != list(range(len(found))):
            problems.append(f"the log has the results {found}")
    elif not (run / "out").exists() and os.listdir(run) not in ([], [".out.wise-edge"]):
        problems.append(f"there is {os.listdir(run)}")
    return problems


SCENARIO = Scenario(
    imports=("wise_edge.robot.bags", "wise_edge.runtimes.session", "onnxruntime", "tokenizers", "rosbags.highlevel"),
    prepare=prepare,
    reset=lambda inputs, run: None,
    command=command,
    then=then,
    check=check,
    result=lambda inputs, run: read_results(run),
    unfinished=r"run/out\.log",
)
