"""The loop of all trainings from scratch: Muon updates the matrices, AdamW everything else.

A checkpoint holds everything that the next step depends on, so a resumed run takes the same steps. SIGTERM and SIGINT
stop a run after the current step, with a checkpoint. A trainer adds its models, batches, losses and validation.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import nn

from wise_edge.errors import UsageError, WiseEdgeError, first_line
from wise_edge.files.documents import to_json
from wise_edge.native.stopping import stop_signals_call
from wise_edge.training.common.checkpoints import load_checkpoint, save_checkpoint, sweep_checkpoints
from wise_edge.training.common.config import OptimizerConfig
from wise_edge.training.common.curves import CURVES, draw_curves
from wise_edge.training.common.optimizers import Muon
from wise_edge.training.common.run import hold_run, identify_run
from wise_edge.training.common.step_log import STEPS, VALIDATIONS, StepLog, append_record, drop_records_after, read_log

if TYPE_CHECKING:
    from wise_edge.training.distill.config import DistillConfig
    from wise_edge.training.sam.config import SamConfig
    from wise_edge.training.sft.config import SftConfig

B = TypeVar("B")


@contextmanager
def open_run(
    config: DistillConfig | SamConfig | SftConfig,
    out: Path,
    resume: bool,
    accept_changes: bool = False,
    inputs: Mapping[str, Path | str] | None = None,
) -> Iterator[dict[str, Any] | None]:
    """Hold the folder of a run during the block, save its recipe and yield the checkpoint to continue from, if any.

    See `hold_run` and `identify_run` for the arguments.

    Raises:
        UsageError: as those, or the run has a model and no checkpoint, or has taken more steps than the recipe has.
        WiseEdgeError: every checkpoint is damaged.
    """
    with hold_run(out, resume):
        sweep_checkpoints(out)
        checkpoint = load_checkpoint(out)
        if checkpoint is None and (out / CURVES).exists():
            raise UsageError(f"{out} holds a run without a checkpoint to continue from; choose another --out")
        step = None if checkpoint is None else checkpoint["step"]
        if step is not None and step > config.total_steps:
            raise UsageError(f"the run in {out} has taken {step} steps; let the recipe have as many")
        identify_run(config, out, step, inputs or {}, accept_changes)
        torch.set_num_threads(config.threads)
        yield checkpoint


class Optimizers:
    """Muon and AdamW as one optimizer.

    Args:
        trained: all trained parameters.
        matrices: those that Muon updates.
        options: learning rates, decays and the norm to clip at.
        products: type in which Muon multiplies matrices.
        fused: torch's flag for AdamW; it changes how sums are rounded.
    """

    def __init__(
        self,
        trained: list[nn.Parameter],
        matrices: list[nn.Parameter],
        options: OptimizerConfig,
        products: torch.dtype,
        fused: bool | None = None,
    ) -> None:
        self._trained = trained
        self._options = options
        chosen = {id(p) for p in matrices}
        rest = [p for p in trained if id(p) not in chosen]
        self.muon = Muon(matrices, options.momentum, options.weight_decay, products)
        self.adamw = torch.optim.AdamW(rest, lr=0.0, betas=options.betas, weight_decay=0.0, fused=fused)

    def clip(self) -> float:
        """Clip the gradient and return its norm before clipping."""
        return float(torch.nn.utils.clip_grad_norm_(self._trained, self._options.clip_norm))

    def step(self, share: float) -> None:
        """Update the parameters with this share of the learning rates and clear the gradient."""
        for group in self.adamw.param_groups:
            group["lr"] = self._options.adamw_lr * share
        self.muon.step(self._options.muon_lr * share)
        self.adamw.step()
        for parameter in self._trained:
            parameter.grad = None


class TrainingLoop(ABC, Generic[B]):
    """State of a training and its loop over batches.

    The newest checkpoint and the log of validations say how far a run is. All else (the other log, the curves, the
    model's folder) follows from them, and is made again when a run is continued: what a kill has left undone is done.

    Args:
        out: folder of the run.
        config: the recipe.
        models: by name, what checkpoints hold in addition to the optimizers.
        optimizers: update the models.
    """

    def __init__(
        self,
        out: Path,
        config: DistillConfig | SamConfig | SftConfig,
        models: dict[str, nn.Module],
        optimizers: Optimizers,
    ) -> None:
        self._out = out
        self._steps = config.total_steps
        self._every = config
        self._optimizers = optimizers
        self._parts: dict[str, Any] = {**models, "muon": optimizers.muon, "adamw": optimizers.adamw}
        self._step = 0
        self._stopped = False

    @abstractmethod
    def _batches(self) -> Iterator[B]:
        """Yield the batch of each remaining step."""

    @abstractmethod
    def _train_step(self, batch: B) -> dict[str, float]:
        """Take one step with `_update`; return the figures to log."""

    @abstractmethod
    def _log_step(self, log: StepLog, batch: B, parts: dict[str, float]) -> None:
        """Add a step to the log."""

    @abstractmethod
    def _validate(self, final: bool) -> dict[str, Any]:
        """Return the figures of the model during the training, or of the final one."""

    @abstractmethod
    def _save_model(self) -> None:
        """Write the folder of the model, which appears completely or not at all."""

    def _more_state(self) -> dict[str, Any]:
        """Return what checkpoints hold in addition to the models and optimizers."""
        return {}

    def run(self, checkpoint: dict[str, Any] | None) -> bool:
        """Take the remaining steps; stop early, with a checkpoint, on SIGTERM or SIGINT.

        Args:
            checkpoint: what to continue from, if not from the start.

        Returns:
            Whether all steps are taken.

        Raises:
            UsageError: it does not fit the recipe.
            WiseEdgeError: the loss is not finite; the last checkpoint is kept.
        """
        if checkpoint is not None:
            self._load(checkpoint)
        for name in (STEPS, VALIDATIONS):
            drop_records_after(self._out / name, self._step)
        with stop_signals_call(self._stop):
            if checkpoint is not None:
                self._validate_if_due()
                self._write_outputs()
            if self._step < self._steps and not self._stopped:
                self._take_steps(checkpoint or {})
            if self._stopped and self._step < self._steps:
                print(f"stopped after step {self._step}; continue with --resume", file=sys.stderr)
        return self._step == self._steps

    def _load(self, state: dict[str, Any]) -> None:
        try:
            for name, part in self._parts.items():
                part.load_state_dict(state[name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"the checkpoint in {self._out} does not fit the recipe's model: {first_line(error)}"
            ) from error
        self._step = state["step"]

    def _stop(self) -> None:
        self._stopped = True

    def _take_steps(self, state: dict[str, Any]) -> None:
        before = state.get("log", {"seconds": state.get("seconds", 0.0)})  # older ones have the seconds alone
        with StepLog(self._out / STEPS, self._steps, self._every.log_every, self._step, before) as log:
            for batch in self._batches():
                parts = self._train_step(batch)
                self._step += 1
                self._log_step(log, batch, parts)
                stops = self._stopped  # a signal that comes later waits for the next step
                saves = stops or self._step == self._steps or self._step % self._every.checkpoint_every == 0
                if saves:
                    self._save_checkpoint(log)
                if not stops:
                    self._validate_if_due()
                if saves:
                    self._write_outputs()
                if stops:
                    return

    def _update(self, share: float) -> dict[str, float]:
        """Update the parameters with a share of the learning rates; return the figures to log."""
        norm = self._optimizers.clip()
        if not math.isfinite(norm):
            raise WiseEdgeError(
                f"the loss is not finite at step {self._step + 1}; lower the learning rates and continue with --resume"
                " --accept-changes"
            )
        self._optimizers.step(share)
        return {"lr": share, "norm": norm}

    def _save_checkpoint(self, log: StepLog) -> None:
        state = {name: part.state_dict() for name, part in self._parts.items()}
        save_checkpoint(self._out, self._step, {**state, **self._more_state(), "log": log.state()})

    def _validate_if_due(self) -> None:
        """Validate where the recipe says so and after the last step, unless the log has it from before a kill."""
        final, log = self._step == self._steps, self._out / VALIDATIONS
        due = final or self._step % self._every.validate_every == 0
        if due and not any(record["step"] == self._step for record in read_log(log)):
            record = {"step": self._step, **self._validate(final)}
            append_record(log, record)
            print(f"validation {to_json(record)}", file=sys.stderr, flush=True)

    def _write_outputs(self) -> None:
        """Write what follows from the newest checkpoint and the logs; the model's folder may hold copies of these."""
        draw_curves(self._out)
        self._save_model()
