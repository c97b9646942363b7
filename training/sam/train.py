"""Training of a small segmenter from scratch; every object of a scene is a prompt.

Everything runs in float32 on the CPU. The learning rates stay constant after the warm-up and fall to 0 over the last
steps, so a run can be extended.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wise_edge.bundle.store import resolve_checkpoint
from wise_edge.files.writing import replacing_folder
from wise_edge.training.common.loop import Optimizers, TrainingLoop, open_run
from wise_edge.training.common.precision import product_dtype
from wise_edge.training.common.step_log import StepLog
from wise_edge.training.sam.config import SamConfig
from wise_edge.training.sam.data import SamBatch, stream_batches
from wise_edge.training.sam.segmenters import (
    build_segmenter,
    half_precision,
    losses,
    read_padded_spec,
    save_segmenter,
    trained_parameters,
)
from wise_edge.training.sam.validation import validate_sam

if TYPE_CHECKING:
    from wise_edge.training.distill.config import DistillConfig


def train_sam(config: SamConfig, out: Path, resume: bool, accept_changes: bool = False) -> Path | None:
    """Train a segmenter and write its folder, log, curves and checkpoints.

    Args:
        config: the recipe.
        out: folder of the run; the model is written to its `sam` folder.
        resume: continue from the newest checkpoint in `out`, or start if there is none.
        accept_changes: continue although the recipe has changed.

    Returns:
        The model's folder; None if the training was stopped.

    Raises:
        UsageError: `out` already holds a run and `resume` is not set, or it began with another recipe.
        WiseEdgeError: the loss is not finite; the last checkpoint is kept.
    """
    inputs = {}
    if config.start is not None:
        read_padded_spec(config.start, "start")  # before the folder of the run is made
        inputs["start"] = resolve_checkpoint(config.start, "sam")
    with open_run(config, out, resume, accept_changes, inputs) as checkpoint:
        complete = SamTrainer(config, out).run(checkpoint)
    return out / "sam" if complete else None


class SamTrainer(TrainingLoop[SamBatch]):
    """Training of a segmenter; ends with a test of the weights as they are saved, in half precision."""

    def __init__(self, config: SamConfig, out: Path) -> None:
        torch.manual_seed(config.seed)
        self._config = config
        self.model = build_segmenter(config.model, config.start)
        optimizers = Optimizers(*trained_parameters(self.model), config, product_dtype(config.bfloat16))
        super().__init__(out, config, {"model": self.model}, optimizers)

    def _batches(self) -> Iterator[SamBatch]:
        return stream_batches(self._config, self._step)

    def _train_step(self, batch: SamBatch) -> dict[str, float]:
        found = losses(self.model, batch)
        torch.stack(list(found.values())).sum().backward()
        parts = {name: float(loss.detach()) for name, loss in found.items()}
        return parts | self._update(lr_share(self._config, self._step))

    def _log_step(self, log: StepLog, batch: SamBatch, parts: dict[str, float]) -> None:
        log.add(self._step, parts, len(batch.masks))

    def _validate(self, final: bool) -> dict[str, Any]:
        if final:
            return validate_sam(half_precision(self.model), "test", self._config.final_scenes)
        return validate_sam(self.model, "validation", self._config.validate_scenes)

    def _save_model(self) -> None:
        with replacing_folder(self._out / "sam") as fresh:
            save_segmenter(self.model, self._config.model, fresh)


def lr_share(config: DistillConfig | SamConfig, step: int) -> float:
    """Return the share of the learning rates at a step: linear warm-up, constant, linear decay to 0."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    left = min(1.0, (config.steps - step) / max(1, config.decay_steps))
    return warm * left
