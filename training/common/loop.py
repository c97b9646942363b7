"""The loop of all trainings from scratch: Muon updates the matrices, AdamW everything else.

A checkpoint holds everything that the next step depends on, so a resumed run takes the same steps. SIGTERM and SIGINT
stop a run after the current step, with a checkpoint. A trainer adds its models, batches and losses, and ends the run.
"""

from __future__ import annotations

import json
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import nn

from wise_edge.errors import WiseEdgeError
from wise_edge.training.common.checkpoints import load_checkpoint, save_checkpoint
from wise_edge.training.common.config import OptimizerConfig
from wise_edge.training.common.curves import draw_curves
from wise_edge.training.common.optimizers import Muon
from wise_edge.training.common.run import hold_run, identify_run
from wise_edge.training.common.step_log import StepLog, append_record, drop_records_after
from wise_edge.training.common.stopping import stop_signals_call

if TYPE_CHECKING:
    from wise_edge.training.sam.config import SamConfig
    from wise_edge.training.sft.config import SftConfig

B = TypeVar("B")


@contextmanager
def open_run(
    config: SamConfig | SftConfig,
    out: Path,
    resume: bool,
    accept_changes: bool = False,
    inputs: Mapping[str, Path] | None = None,
) -> Iterator[dict[str, Any] | None]:
    """Hold the folder of a run during the block, save its recipe and yield the checkpoint to continue from, if any.

    See `hold_run` and `identify_run` for the arguments and errors.
    """
    torch.set_num_threads(config.threads)
    with hold_run(out, resume):
        checkpoint = load_checkpoint(out)
        step = None if checkpoint is None else checkpoint["step"]
        identify_run(config, out, step, inputs or {}, accept_changes)
        yield checkpoint


class Optimizers:
    """Muon and AdamW as one optimizer.

    Args:
        trained: all trained parameters.
        matrices: those that Muon updates.
        options: learning rates, decays and the norm to clip at.
        fused: torch's flag for AdamW; it changes how sums are rounded.
    """

    def __init__(
        self,
        trained: list[nn.Parameter],
        matrices: list[nn.Parameter],
        options: OptimizerConfig,
        fused: bool | None = None,
    ) -> None:
        self._trained = trained
        self._options = options
        chosen = {id(p) for p in matrices}
        rest = [p for p in trained if id(p) not in chosen]
        self.muon = Muon(matrices, options.momentum, options.weight_decay)
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

    Args:
        out: folder of the run.
        steps: total steps of the training.
        log_every: steps between lines of the log.
        models: by name, what checkpoints hold in addition to the optimizers.
        optimizers: update the models.
    """

    def __init__(
        self, out: Path, steps: int, log_every: int, models: dict[str, nn.Module], optimizers: Optimizers
    ) -> None:
        self._out = out
        self._steps = steps
        self._log_every = log_every
        self._optimizers = optimizers
        self._parts: dict[str, Any] = {**models, "muon": optimizers.muon, "adamw": optimizers.adamw}
        self._step = 0
        self._seconds = 0.0
        self._stopped = False

    @abstractmethod
    def _batches(self) -> Iterator[B]:
        """Yield the batch of each remaining step."""

    @abstractmethod
    def _train_step(self, batch: B) -> dict[str, float]:
        """Take one step with `_update`; return the figures to log."""

    @abstractmethod
    def _log_step(self, log: StepLog, batch: B, parts: dict[str, float]) -> float:
        """Add a step to the log; return the seconds of training so far."""

    @abstractmethod
    def _between_steps(self) -> None:
        """Write a checkpoint or validate if it is `_due`."""

    @abstractmethod
    def _loop(self) -> None:
        """Take the remaining steps, then end the run; or stop early."""

    @abstractmethod
    def _save_model(self) -> None:
        """Write the folder of the model that accompanies each checkpoint."""

    def run(self, checkpoint: dict[str, Any] | None) -> None:
        """Take the remaining steps; stop early, with a checkpoint, on SIGTERM or SIGINT.

        Args:
            checkpoint: what to continue from, if not from the start.
        """
        if checkpoint is not None:
            self._load(checkpoint)
        with stop_signals_call(self._stop):
            self._loop()

    def _load(self, state: dict[str, Any]) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self._step, self._seconds = state["step"], state["seconds"]
        for name in ("train.jsonl", "validation.jsonl"):
            drop_records_after(self._out / name, self._step)

    def _stop(self) -> None:
        self._stopped = True

    def _say_stopped(self) -> None:
        print(f"stopped after step {self._step}; continue with --resume", file=sys.stderr)

    def _take_steps(self) -> None:
        with StepLog(self._out / "train.jsonl", self._steps, self._log_every, self._step, self._seconds) as log:
            for batch in self._batches():
                parts = self._train_step(batch)
                self._step += 1
                self._seconds = self._log_step(log, batch, parts)
                if self._stopped:
                    return
                self._between_steps()

    def _due(self, every: int) -> bool:
        """Return whether something is due that happens every `every` steps; at the end of a run `_loop` does it."""
        return self._step % every == 0 and self._step < self._steps

    def _update(self, share: float) -> dict[str, float]:
        """Update the parameters with a share of the learning rates; return the figures to log."""
        norm = self._optimizers.clip()
        if not math.isfinite(norm):
            raise WiseEdgeError(
                f"the loss is not finite at step {self._step + 1}; lower the learning rates and continue with --resume"
            )
        self._optimizers.step(share)
        return {"lr": share, "norm": norm}

    def _checkpoint(self) -> None:
        state = {name: part.state_dict() for name, part in self._parts.items()}
        save_checkpoint(self._out, self._step, {**state, "seconds": self._seconds})
        self._save_model()

    def _record(self, figures: dict[str, Any]) -> None:
        """Append the figures of a validation to its log, print them and draw the curves."""
        record = {"step": self._step, **figures}
        append_record(self._out / "validation.jsonl", record)
        print(f"validation {json.dumps(record)}", file=sys.stderr, flush=True)
        draw_curves(self._out)
