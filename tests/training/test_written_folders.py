"""Folders that a training replaces: the old one stands, complete, until the new one does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from locations import ASSETS
from wise_edge.errors import MissingExtraError
from wise_edge.policy.checkpoint import load_policy

pytest.importorskip("wise_edge.training.wise", exc_type=MissingExtraError)

from wise_edge.training.recipe import load_recipe
from wise_edge.training.sft.config import SftConfig
from wise_edge.training.sft.folder import save_policy
from wise_edge.training.wise.checkpoints import publish, staging_folder
from wise_edge.training.wise.config import WiseConfig
from wise_edge.training.wise.final_policy import write_policy
from wise_edge.training.wise.policy import open_policy

POLICY = ASSETS / "embedded-policy"
FAILURES: dict[str, tuple[Any, str]] = {"writing": (Path, "write_text"), "flushing": (os, "fsync")}


def write_supervised_policy(out: Path) -> Path:
    config = load_recipe("embedded-policy")
    assert isinstance(config, SftConfig)
    tokenizer = Tokenizer.from_file(str(POLICY / "tokenizer.json"))
    save_policy(load_policy(POLICY), tokenizer, config, out / "policy", [POLICY / "recipe.yaml", out / "none.jsonl"])
    return out / "policy"


def write_final_policy(out: Path) -> Path:
    config = load_recipe("wise-embedded", [f"model={POLICY}"])
    assert isinstance(config, WiseConfig)
    write_policy(open_policy(config), POLICY, out / "policy", dtype="float16", adapter=False)
    return out / "policy"


def write_checkpoint(out: Path) -> Path:
    staged = staging_folder(out) / "checkpoint-5"
    staged.mkdir(parents=True, exist_ok=True)
    (staged / "model.safetensors").write_bytes(b"weights")
    publish(out, staged.name)
    return out / staged.name


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("write", [write_supervised_policy, write_final_policy, write_checkpoint])
def test_old_folder_outlives_a_failure(
    write: Callable[[Path], Path], failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path)
    before = contents(folder)
    during = []

    def fail(*arguments: Any, **named: Any) -> None:
        during.append(contents(folder))
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr(*FAILURES[failure], fail)
        write(tmp_path)
    assert during == [before] and contents(folder) == before
    assert {path.name for path in tmp_path.iterdir()} <= {folder.name, staging_folder(tmp_path).name}
    write(tmp_path)
    assert contents(folder) == before
