"""Supervised training of the embedded policy, from scratch or from another policy.

Phases run in order: first the dense heads alone (see `heads`), then text tasks in a mixture that changes slowly. Matrix
products run in bfloat16 if the CPU is faster at it, everything else in float32. An average of the weights is validated
and saved.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from wise_edge.bundle.store import resolve_checkpoint
from wise_edge.errors import UsageError
from wise_edge.files.targets import refuse_input
from wise_edge.policy.folder import check_policy_folder
from wise_edge.training.common.loop import Optimizers, TrainingLoop, open_run
from wise_edge.training.common.precision import product_dtype
from wise_edge.training.common.run import RECIPE
from wise_edge.training.common.step_log import STEPS, VALIDATIONS, StepLog
from wise_edge.training.sft.config import SftConfig
from wise_edge.training.sft.data import Batch, make_prefix, mixture_at, phase_at, stream_batches
from wise_edge.training.sft.folder import load_weights, read_tokenizer, save_policy
from wise_edge.training.sft.forward import Forward
from wise_edge.training.sft.heads import build_heads
from wise_edge.training.sft.model import build_policy
from wise_edge.training.sft.tokenizer import scene_texts, special_ids, train_tokenizer
from wise_edge.training.sft.validation import load_validation, validate_dense, validate_text


def train_sft(config: SftConfig, out: Path, resume: bool, accept_changes: bool = False) -> Path | None:
    """Train a policy and write its folder, log, curves and checkpoints.

    Args:
        config: the recipe.
        out: folder of the run; each checkpoint writes the policy to its `policy` folder.
        resume: continue from the newest checkpoint in `out`, or start if there is none.
        accept_changes: continue although the recipe, or the policy that it starts from, has changed.

    Returns:
        The policy's folder; None if the training was stopped.

    Raises:
        UsageError: `out` already holds a run and `resume` is not set, it began with another recipe or policy, or the
            policy to start from has other widths.
        WiseEdgeError: the loss is not finite; the last checkpoint is kept.
    """
    inputs = {}
    if config.start:
        inputs["start"] = start = resolve_checkpoint(config.start, "policy")
        try:
            check_policy_folder(start)
        except UsageError as error:
            raise UsageError(f"start: {error}") from error
        refuse_input(out / "policy", [start])
    with open_run(config, out, resume, accept_changes, inputs) as checkpoint:
        complete = Trainer(config, _make_tokenizer(config, out, checkpoint), out).run(checkpoint)
    return out / "policy" if complete else None


def _make_tokenizer(config: SftConfig, out: Path, checkpoint: dict[str, Any] | None) -> Tokenizer:
    """Return the checkpoint's tokenizer; without a checkpoint, that of the policy to start from, or a new one."""
    if checkpoint is not None and "tokenizer" in checkpoint:
        return Tokenizer.from_str(checkpoint["tokenizer"])
    if checkpoint is not None:
        return read_tokenizer(out)  # where runs had it when checkpoints were without
    if config.start:
        return read_tokenizer(resolve_checkpoint(config.start, "policy"))
    return train_tokenizer(
        scene_texts(config.tokenizer_samples, config.seed, config.model.image_size), config.vocab_size
    )


class Trainer(TrainingLoop[Batch]):
    """Training of a policy; ends with a validation, whose record is saved with the policy."""

    def __init__(self, config: SftConfig, tokenizer: Tokenizer, out: Path) -> None:

        self._config = config
        self._tokenizer = tokenizer
        self._prefix = make_prefix(tokenizer, config)
        self.model = build_policy(config.model, tokenizer.get_vocab_size(), special_ids(tokenizer), config.seed)
        if config.start:
            load_weights(self.model, resolve_checkpoint(config.start, "policy"))
        self._average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self._heads = build_heads(config.model.hidden_size, config.seed)
        self._forward = Forward(self.model, self._heads, self._prefix, config.model.max_positions)
        trained = [*self.model.parameters(), *self._heads.parameters()]
        products = product_dtype(config.bfloat16)
        optimizers = Optimizers(trained, hidden_matrices(self.model), config.optimizer, products, fused=True)
        models = {"model": self.model, "average": self._average, "heads": self._heads}
        super().__init__(out, config, models, optimizers)

    def _more_state(self) -> dict[str, Any]:
        return {"tokenizer": self._tokenizer.to_str()}

    def _batches(self) -> Iterator[Batch]:
        return stream_batches(self._config, self._tokenizer, self._step)

    def _train_step(self, batch: Batch) -> dict[str, float]:
        dense_weight = dense_weight_at(self._config, batch.step)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._optimizers.muon.products == torch.bfloat16):
            losses = self._forward.losses(batch, dense_weight > 0)
        total = sum(loss if name == "text" else dense_weight * loss for name, loss in losses.items())
        total.backward()  # type: ignore[union-attr]
        parts = {name: float(loss.detach()) for name, loss in losses.items()}
        parts |= self._update(lr_share(self._config, self._step))
        self._move_average()
        return parts

    def _move_average(self) -> None:
        decay = min(self._config.ema_decay, (1 + self._step) / (10 + self._step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self._average.parameters()), list(self.model.parameters()), 1 - decay)

    def _log_step(self, log: StepLog, batch: Batch, parts: dict[str, float]) -> None:
        phase = self._config.phases[phase_at(self._config, batch.step)[0]].name
        log.add(self._step, parts, len(batch.images), stage=phase)

    def _save_model(self) -> None:
        records = [self._out / name for name in (RECIPE, STEPS, VALIDATIONS)]
        save_policy(self._average, self._tokenizer, self._config, self._out / "policy", records)

    def _validate(self, final: bool) -> dict[str, Any]:
        config, started = self._config, time.monotonic()
        count = config.final_samples if final else config.validate_samples
        samples = load_validation(count)
        average = Forward(self._average, self._heads, self._prefix, config.model.max_positions)
        figures: dict[str, Any] = {"samples": count}
        figures["dense"] = validate_dense(average.dense, samples, config.model.image_size)
        if mixture_at(config, self._step - 1):
            for variant in config.validate_variants:
                figures[variant] = validate_text(self._average, self._tokenizer, self._prefix, config, samples, variant)
        return {**figures, "seconds": round(time.monotonic() - started, 1)}


def hidden_matrices(model: Any) -> list[nn.Parameter]:
    """Return the 2-D weights between the embeddings and the head, which Muon updates."""
    inner = model.model
    parts = (inner.visual.blocks, inner.visual.merger, inner.language_model.layers)
    return [p for part in parts for p in part.parameters() if p.ndim == 2]


def lr_share(config: SftConfig, step: int) -> float:
    """Return the share of the peak learning rate at a step: linear warm-up times a cosine to the final share."""
    options = config.optimizer
    warm = min(1.0, (step + 1) / max(1, options.warmup_steps))
    done = min(1.0, step / config.total_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return warm * (options.final_lr_share + (1 - options.final_lr_share) * cosine)


def dense_weight_at(config: SftConfig, step: int) -> float:
    """Return the weight of the dense loss, which changes linearly from the previous phase's weight to this phase's."""
    index, place = phase_at(config, step)
    phase = config.phases[index]
    before = config.phases[index - 1].dense_weight if index else phase.dense_weight
    return before + (phase.dense_weight - before) * place / phase.steps
