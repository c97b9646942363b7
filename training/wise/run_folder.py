"""The folder of a WISE training: checked and cut back to its checkpoint when it goes on, and finished at the end."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from wise_edge.errors import UsageError
from wise_edge.files.writing import recover
from wise_edge.training.common.curves import CURVES
from wise_edge.training.common.run import identify_run
from wise_edge.training.common.step_log import STEPS, VALIDATIONS, drop_records_after
from wise_edge.training.wise.best import BestPolicy, best_folder
from wise_edge.training.wise.checkpoints import (
    checkpoint_step,
    drop_old_checkpoints,
    is_sound,
    newest_checkpoint,
    staging_folder,
)
from wise_edge.training.wise.config import WiseConfig
from wise_edge.training.wise.final_policy import write_policy
from wise_edge.training.wise.policy import StartPolicy
from wise_edge.training.wise.report import draw_wise_curves


def start_folder(out: Path) -> Path:
    """Return the folder of the policy after the warm start."""
    return out / "start"


def prepare_run(config: WiseConfig, out: Path, inputs: Mapping[str, Path | str], accept_changes: bool) -> Path | None:
    """Check what a run goes on from, and remove what was written after it; return the checkpoint, if there is one.

    Args:
        config: the recipe.
        out: folder of the run, which this process holds.
        inputs: as of `identify_run`.
        accept_changes: as of `identify_run`.

    Raises:
        UsageError: something that the run goes on from is damaged, or the run began otherwise.
    """
    recover(out)
    checkpoint, best, start = newest_checkpoint(out), best_folder(out), start_folder(out)
    kept = BestPolicy(out, config.validation.tolerance)
    if checkpoint is None and (out / "policy").exists():
        raise UsageError(f"{out} has a policy but no checkpoint to continue from; choose another --out")
    if checkpoint is not None:
        _check_sound(best, "to choose among the policies from its newest checkpoint on")
        kept.check()
    _check_sound(start, "to repeat the warm start")
    step = checkpoint_step(checkpoint) if checkpoint is not None else 0 if start.exists() else None
    identify_run(config, out, step, inputs, accept_changes)
    shutil.rmtree(staging_folder(out), ignore_errors=True)
    if checkpoint is None or step is None:
        shutil.rmtree(best, ignore_errors=True)  # of another recipe, perhaps; the start is validated again
        step = -1
    drop_records_after(out / STEPS, step)
    drop_records_after(out / VALIDATIONS, step if best.exists() else step - 1)
    if accept_changes:
        kept.judge_again_after(step)
    drop_old_checkpoints(out, step, config.checkpoints_kept)
    return checkpoint


def finish_run(config: WiseConfig, start: StartPolicy, out: Path) -> None:
    """Write what a run that has ended still lacks: the best policy as one folder, and the curves.

    Args:
        config: the recipe.
        start: the policy that the reinforcement learning began with, in whose precision the best one is written.
        out: folder of the run, which this process holds.

    Raises:
        UsageError: the best policy is damaged.
    """
    best, policy = best_folder(out), out / "policy"
    _check_sound(best, "to choose the policy of its newest checkpoint")
    if not is_sound(policy, source=best):
        write_policy(start, best, policy, dtype=start.dtype, adapter=config.lora is not None)
    if not (out / CURVES).exists():
        draw_wise_curves(out)


def _check_sound(folder: Path, purpose: str) -> None:
    if folder.exists() and not is_sound(folder):
        raise UsageError(f"{folder} is damaged; restore it from a copy, or delete it and pass --resume {purpose}")
