"""Killing an export of a merged checkpoint that replaces another: seconds instead of the minutes of a bundle."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from kills import Scenario


def prepare(folder: Path) -> None:
    """Write a tiny policy, two adapters, and the policy merged with each: what is replaced, and what replaces it."""
    import peft
    import torch

    from tiny_models import save_policy
    from wise_edge.export.pipeline import export_merged
    from wise_edge.policy.checkpoint import load_policy

    save_policy(folder / "policy")
    for seed, name in enumerate(("old", "new")):
        torch.manual_seed(seed)
        lora = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        peft.get_peft_model(load_policy(folder / "policy"), lora).save_pretrained(folder / f"{name}-adapter")
        target = folder / name
        export_merged(
            str(folder / "policy"), folder / f"{name}-adapter", target, force=False, progress=lambda text: None
        )


def reset(inputs: Path, run: Path) -> None:
    """Put the old checkpoint in place."""
    shutil.copytree(inputs / "old", run / "merged")


def command(inputs: Path, run: Path) -> list[str]:
    """Return the arguments of an export that replaces it."""
    read = ["--policy", str(inputs / "policy"), "--adapter", str(inputs / "new-adapter")]
    return ["export", "--target", "hf", *read, "--out", str(run / "merged"), "--force"]


def check(inputs: Path, run: Path) -> list[str]:
    """Return whether the checkpoint is neither the old one nor the new one."""
    found = _content(run / "merged")
    return (
        [] if found in (_content(inputs / "old"), _content(inputs / "new")) else ["it is neither the old nor the new"]
    )


def result(inputs: Path, run: Path) -> Any:
    """Return the content of the new checkpoint."""
    return _content(run / "merged")


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


SCENARIO = Scenario(
    imports=("wise_edge.export.pipeline", "peft", "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl"),
    prepare=prepare,
    reset=reset,
    command=command,
    then=command,
    check=check,
    result=result,
)
