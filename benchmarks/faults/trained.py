"""What the scenarios that kill a training share: its folder, its command, and what is compared."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from kills import Scenario

_NO_TWO_HAVE = ("seconds", "samples_per_s")


def scenario(stage: str, model: str, recipe: str) -> Scenario:
    """Return the scenario of a training.

    Args:
        stage: of the recipe.
        model: name of the model's folder in the folder of the run.
        recipe: YAML. Without bfloat16, since two processes may find another type the faster one.
    """
    return Scenario(
        imports=(f"wise_edge.training.{stage}.train", "wise_edge.training.common.curves"),
        prepare=partial(prepare, recipe),
        reset=lambda inputs, run: None,
        command=partial(train, ()),
        then=partial(train, ("--resume",)),
        check=partial(_check, model),
        result=_result,
        unfinished=r"run/out/checkpoint-\d+\.pt(\.sha256)?",
    )


def prepare(recipe: str, folder: Path) -> None:
    """Write the recipe."""
    (folder / "recipe.yaml").write_text(recipe)


def train(more: tuple[str, ...], inputs: Path, run: Path) -> list[str]:
    """Return the arguments that train from it."""
    return ["train", "--recipe", str(inputs / "recipe.yaml"), "--out", str(run / "out"), *more]


def _check(model: str, inputs: Path, run: Path) -> list[str]:
    """Return which checkpoint lacks its hash, and whether the model's folder is torn."""
    import safetensors

    from wise_edge.files.hashing import hash_file

    wrong = []
    for file in run.glob("out/checkpoint-*.pt"):
        if file.with_name(f"{file.name}.sha256").read_text().split() != [hash_file(file), file.name]:
            wrong.append(f"{file.name} and its hash differ")
    folder = run / "out" / model
    if folder.exists():
        try:
            with safetensors.safe_open(folder / "model.safetensors", "pt") as weights:
                wrong += [] if weights.keys() and (folder / "config.json").read_bytes() else ["no weights"]
        except (OSError, safetensors.SafetensorError) as error:
            wrong.append(f"the model's folder is torn: {error}")
    return wrong


def _result(inputs: Path, run: Path) -> Any:
    """Return the newest checkpoint and all other files, without times."""
    from wise_edge.training.common.checkpoints import load_checkpoint
    from wise_edge.training.common.step_log import read_log

    state = load_checkpoint(run / "out") or {}
    log = {name: value for name, value in state.pop("log", {}).items() if not name.endswith("seconds")}
    found: dict[str, Any] = {"checkpoint": plain({**state, "log": log})}
    for file in sorted((run / "out").rglob("*")):
        name = str(file.relative_to(run / "out"))
        if file.suffix == ".jsonl":
            found[name] = [{k: v for k, v in record.items() if k not in _NO_TWO_HAVE} for record in read_log(file)]
            if len(found[name]) != len(file.read_text().splitlines()):
                found[name] = "has a torn line"
        elif file.is_file() and not name.startswith("checkpoint-"):
            found[name] = file.read_bytes()
    return found


def plain(value: Any) -> Any:
    """Return a state with the bytes of its tensors and arrays, which can be compared."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if not hasattr(value, "__array__"):
        return value
    array = np.asarray(value)
    return str(array.dtype), array.shape, array.tobytes()
