"""The loop of a distillation: embeddings first, then masks too; the decoder is the teacher's throughout."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from wise_edge.files.hashing import fingerprint_model
from wise_edge.files.writing import replacing_folder
from wise_edge.sam.mobile_sam import save_mobile_sam
from wise_edge.training.common.loop import Optimizers, TrainingLoop, open_run
from wise_edge.training.common.precision import product_dtype
from wise_edge.training.common.step_log import StepLog
from wise_edge.training.distill.config import DistillConfig
from wise_edge.training.distill.embeddings import Embeddings
from wise_edge.training.distill.masks import compare_masks, draw_points, grid_points, make_targets, mask_loss
from wise_edge.training.distill.pictures import Folder, PictureBatches, Pictures, open_folder, stream_pictures
from wise_edge.training.distill.student import (
    build_student,
    choose_device,
    describe_student,
    design_student,
    load_teacher,
    read_teacher_spec,
    teacher_path,
)
from wise_edge.training.sam.segmenters import half_precision, trained_parameters
from wise_edge.training.sam.train import lr_share
from wise_edge.training.sam.validation import summarize_ious

_GRID = 4  # points a side of a held-out picture


def train_distill(config: DistillConfig, out: Path, resume: bool, accept_changes: bool = False) -> Path | None:
    """Distill a teacher into a MobileSAM and write its folder, log, curves and checkpoints.

    Args:
        config: the recipe.
        out: folder of the run; the model is written to its `sam` folder.
        resume: continue from the newest checkpoint in `out`, or start if there is none.
        accept_changes: continue although the recipe, the teacher or the pictures have changed.

    Returns:
        The model's folder; None if the training was stopped.

    Raises:
        UsageError: teacher or pictures cannot be used, `out` already holds a run and `resume` is not set, or it began
            with another recipe, teacher or pictures.
        WiseEdgeError: the loss is not finite; the last checkpoint is kept.
    """
    choose_device(config)
    read_teacher_spec(config)
    folder = open_folder(config)
    if folder is not None and (note := folder.describe_unreadable()):
        print(f"note: {note}", file=sys.stderr, flush=True)
    inputs: dict[str, Path | str] = {"teacher": fingerprint_model(teacher_path(config))}
    if folder is not None:
        inputs["images"] = folder.fingerprint
    with open_run(config, out, resume, accept_changes, inputs) as checkpoint:
        complete = DistillTrainer(config, out, folder, str(inputs["teacher"])).run(checkpoint)
    return out / "sam" if complete else None


class DistillTrainer(TrainingLoop[Pictures]):
    """A distillation; ends with the figures of the weights as they are saved, in half precision."""

    def __init__(self, config: DistillConfig, out: Path, folder: Folder | None, teacher_sha256: str) -> None:
        torch.manual_seed(config.seed)
        self._config = config
        device, spec = choose_device(config), read_teacher_spec(config)
        self._teacher = load_teacher(config).to(device)
        self._architecture = design_student(config, self._teacher, spec)
        self.model = build_student(self._architecture, self._teacher).to(device)
        self._data = PictureBatches(config, folder, describe_student(self._architecture), spec)
        self._embeddings = Embeddings(self._teacher, out / f"embeddings-{teacher_sha256[:12]}", config.cache_gb * 1e9)
        products = product_dtype(config.bfloat16) if device.type == "cpu" else torch.float32
        optimizers = Optimizers(*trained_parameters(self.model), config, products)
        super().__init__(out, config, {"model": self.model}, optimizers)

    def _batches(self) -> Iterator[Pictures]:
        return stream_pictures(self._data, self._step)

    def _train_step(self, batch: Pictures) -> dict[str, float]:
        wanted = self._embeddings.find(batch)
        found = self.model.image_encoder(torch.from_numpy(batch.student).to(wanted.device))
        losses = {"embedding": functional.mse_loss(found, wanted)}
        if self._step >= self._config.steps - self._config.mask_steps:
            rng = np.random.default_rng((self._config.seed, self._step))
            points = draw_points(batch.sizes, self._config.prompts_per_picture, rng)
            losses["mask"] = mask_loss(self.model, found, make_targets(self._teacher, wanted, points))
        torch.stack(list(losses.values())).sum().backward()
        parts = {name: float(loss.detach()) for name, loss in losses.items()}
        return parts | self._update(lr_share(self._config, self._step))

    def _log_step(self, log: StepLog, batch: Pictures, parts: dict[str, float]) -> None:
        log.add(self._step, parts, len(batch.numbers))

    def _validate(self, final: bool) -> dict[str, Any]:
        """Compare the student with its teacher on the pictures that were held out."""
        student: Any = half_precision(self.model) if final else self.model.eval()
        errors, ious = [], []
        with torch.no_grad():
            for pictures in self._data.held_out():
                wanted = self._embeddings.find(pictures)
                found = student.image_encoder(torch.from_numpy(pictures.student).to(wanted.device))
                errors.append(float(functional.mse_loss(found, wanted)))
                targets = make_targets(self._teacher, wanted, grid_points(pictures.sizes, _GRID))
                ious += compare_masks(student, found, targets)
        self.model.train()
        record = {"split": "held out", "pictures": len(errors), "embedding": round(float(np.mean(errors)), 5)}
        return record | ({"masks": summarize_ious(np.array(ious))} if ious else {})

    def _save_model(self) -> None:
        with replacing_folder(self._out / "sam") as fresh:
            save_mobile_sam(self.model, self._architecture, fresh)
