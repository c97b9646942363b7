"""Killing an export that replaces a bundle."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from kills import Scenario

_OLD, _NEW = "1000000000", "2000000000"  # SOURCE_DATE_EPOCH of the bundle that is replaced, and of the new one


def prepare(folder: Path) -> None:
    """Write tiny checkpoints of the real architectures, and the bundle that is replaced."""
    from tiny_models import save_checkpoints
    from wise_edge.export.options import ExportOptions
    from wise_edge.export.pipeline import export_bundle

    policy, sam = save_checkpoints(folder)
    os.environ["SOURCE_DATE_EPOCH"] = _OLD
    export_bundle(
        str(policy), str(sam), folder / "old", ExportOptions(samples=1), verify=None, progress=lambda text: None
    )


def reset(inputs: Path, run: Path) -> None:
    """Put the old bundle in place."""
    shutil.copytree(inputs / "old", run / "bundle", copy_function=os.link)


def command(inputs: Path, run: Path) -> list[str]:
    """Return the arguments of an export whose int8 segmenter has intermediate files."""
    checkpoints = ["--policy", str(inputs / "policy"), "--sam", str(inputs / "sam"), "--out", str(run / "bundle")]
    return ["export", *checkpoints, "--sam-precision", "int8", "--samples", "1", "--no-verify", "--force"]


def check(inputs: Path, run: Path) -> list[str]:
    """Return whether there is no bundle, or one that is neither the old one nor the new one."""
    from wise_edge.bundle.store import load
    from wise_edge.errors import WiseEdgeError

    try:
        bundle = load(run / "bundle", verify_hashes=True)
    except WiseEdgeError as error:
        return [str(error)]
    problems = [f"{file.name} is no part of it" for file in bundle.unlisted_files()]
    return problems if bundle.manifest.created[:4] in ("2001", "2033") else [*problems, "it is of another time"]


def result(inputs: Path, run: Path) -> Any:
    """Return the new bundle's manifest."""
    return (run / "bundle" / "bundle.json").read_text()


SCENARIO = Scenario(
    imports=("wise_edge.export.pipeline", "torch.onnx", "onnxscript", "onnxruntime"),
    prepare=prepare,
    reset=reset,
    command=command,
    then=command,
    check=check,
    result=result,
    environment={"SOURCE_DATE_EPOCH": _NEW},
)
