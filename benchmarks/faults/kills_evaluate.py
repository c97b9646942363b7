"""Killing an evaluation, whose records are appended to a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kills import Scenario


def command(inputs: Path, run: Path) -> list[str]:
    """Return the arguments of a new run."""
    return ["evaluate", "--limit", "10", "--out", str(run / "r.jsonl"), "--json"]


def then(inputs: Path, run: Path) -> list[str]:
    """Return those of the run that goes on."""
    return [*command(inputs, run), "--resume"]


def check(inputs: Path, run: Path) -> list[str]:
    """Return what is wrong with the file of records, of which a killed run may leave the last line torn."""
    from wise_edge.errors import WiseEdgeError
    from wise_edge.evaluation.record_log import read_log

    file = run / "r.jsonl"
    if not file.exists() or b"\n" not in file.read_bytes():
        return []
    try:
        _, records = read_log(file)
    except WiseEdgeError as error:
        return [str(error)]
    found = [record.index for record in records]
    return [] if found == list(range(len(found))) else [f"it has the records {found}"]


def result(inputs: Path, run: Path) -> Any:
    """Return all lines without the latencies, which no two runs share."""
    lines = [json.loads(line) for line in (run / "r.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "latency_ms"} for line in lines]


SCENARIO = Scenario(
    imports=("wise_edge.evaluation.evaluate", "wise_edge.runtimes.session", "onnxruntime", "tokenizers"),
    prepare=lambda inputs: None,
    reset=lambda inputs, run: None,
    command=command,
    then=then,
    check=check,
    result=result,
)
