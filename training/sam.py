"""Training of a small Segment Anything model from scratch: every object of a scene is a prompt.

Muon moves the matrices, AdamW the rest, in float32 on the CPU. The learning rates stay constant after a warm-up and
fall to 0 over the last steps, so a run can be lengthened while it goes. A checkpoint holds all that the next step
depends on, so a resumed run takes the same steps; SIGTERM and SIGINT stop it after the current step with a checkpoint.
"""

from __future__ import annotations

import json
import math
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.extras import require
from wise_edge.sam_model import build_sam, load_sam, save_sam
from wise_edge.training.checkpoint import load_checkpoint, save_checkpoint
from wise_edge.training.config import save_config
from wise_edge.training.curves import draw_curves
from wise_edge.training.muon import Muon
from wise_edge.training.sam_config import SamConfig
from wise_edge.training.sam_data import SamBatch, stream_batches
from wise_edge.training.sam_forward import predict
from wise_edge.training.sam_loss import sam_loss
from wise_edge.training.sam_validation import validate_sam
from wise_edge.training.step_log import StepLog, append_record

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import nn


def train_sam(config: SamConfig, out: Path, resume: bool) -> None:
    """Train a SAM and write its folder, log, curves and checkpoints.

    Args:
        config: the recipe.
        out: folder of the run; the model goes to its `sam` folder.
        resume: go on from the newest checkpoint in `out`; without one, start.

    Raises:
        UsageError: `out` already holds a run and `resume` is not set.
        WiseEdgeError: the loss is not finite; the last checkpoint is kept.
    """
    if not resume and any(out.glob("checkpoint-*.pt")):
        raise UsageError(f"{out} holds a training run; pass --resume to go on with it, or another --out")
    require("torch", "train").set_num_threads(config.threads)
    out.mkdir(parents=True, exist_ok=True)
    save_config(config, out / "recipe.yaml")
    trainer = SamTrainer(config, out)
    if resume:
        trainer.resume()
    trainer.run()


class SamTrainer:
    """The state of a training and its loop."""

    def __init__(self, config: SamConfig, out: Path) -> None:
        torch = require("torch", "train")
        self._config = config
        self._out = out
        torch.manual_seed(config.seed)
        self.model = build_sam(config.model).train()
        self._trained = freeze_unused(self.model)
        matrices = [p for p in self._trained if p.ndim == 2 and len(p) > 4]  # not the 1 to 4 learned tokens
        chosen = {id(p) for p in matrices}
        rest = [p for p in self._trained if id(p) not in chosen]
        self._muon = Muon(matrices, config.momentum, config.weight_decay)
        self._adamw = torch.optim.AdamW(rest, lr=0.0, betas=config.betas, weight_decay=0.0)
        self._step = 0
        self._seconds = 0.0
        self._stopped = False

    def resume(self) -> None:
        """Take the newest checkpoint, if there is one."""
        state = load_checkpoint(self._out)
        if state is None:
            return
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self._step, self._seconds = state["step"], state["seconds"]

    def _parts(self) -> dict[str, Any]:
        return {"model": self.model, "muon": self._muon, "adamw": self._adamw}

    def run(self) -> None:
        """Take the remaining steps; stop early, with a checkpoint, on SIGTERM or SIGINT."""
        handlers = {name: signal.signal(name, self._stop) for name in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._loop()
        finally:
            for name, handler in handlers.items():
                signal.signal(name, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True

    def _loop(self) -> None:
        config = self._config
        if self._step < config.steps:
            log = StepLog(self._out / "train.jsonl", config.steps, config.log_every, self._step, self._seconds)
            with log:
                self._take_steps(log)
            self._checkpoint()
        if self._stopped:
            print(f"stopped after step {self._step}; go on with --resume", file=sys.stderr)
            return
        self._record(validate_sam(load_sam(self._out / "sam"), "test", config.final_scenes))

    def _take_steps(self, log: StepLog) -> None:
        config = self._config
        for batch in stream_batches(config, self._step):
            parts = self._train_step(batch)
            self._step += 1
            self._seconds = log.add(self._step, parts, len(batch.masks))
            if self._stopped:
                return
            if self._step % config.checkpoint_every == 0:
                self._checkpoint()
            if self._step % config.validate_every == 0 and self._step < config.steps:
                self._record(validate_sam(self.model, "validation", config.validate_scenes))

    def _train_step(self, batch: SamBatch) -> dict[str, float]:
        torch = require("torch", "train")
        losses = sam_loss(*predict(self.model, batch), torch.from_numpy(batch.masks))
        torch.stack(list(losses.values())).sum().backward()
        return {name: float(loss.detach()) for name, loss in losses.items()} | self._update()

    def _update(self) -> dict[str, float]:
        config = self._config
        norm = float(require("torch", "train").nn.utils.clip_grad_norm_(self._trained, config.clip_norm))
        if not math.isfinite(norm):
            raise WiseEdgeError(
                f"the loss is not finite at step {self._step + 1}; lower the learning rates and go on with --resume"
            )
        share = lr_share(config, self._step)
        for group in self._adamw.param_groups:
            group["lr"] = config.adamw_lr * share
        self._muon.step(config.muon_lr * share)
        self._adamw.step()
        for parameter in self._trained:
            parameter.grad = None
        return {"lr": share, "norm": norm}

    def _checkpoint(self) -> None:
        state = {name: part.state_dict() for name, part in self._parts().items()}
        save_checkpoint(self._out, self._step, {**state, "seconds": self._seconds})
        save_sam(self.model, self._config.model, self._out / "sam")

    def _record(self, figures: dict[str, Any]) -> None:
        record = {"step": self._step, **figures}
        append_record(self._out / "validation.jsonl", record)
        print(f"validation {json.dumps(record)}", file=sys.stderr, flush=True)
        draw_curves(self._out)


def freeze_unused(sam: Sam) -> list[nn.Parameter]:
    """Freeze what a single mask prompted by box and points never reaches; return the parameters that are trained."""
    unused = [sam.prompt_encoder.mask_downscaling, *sam.mask_decoder.output_hypernetworks_mlps[1:]]
    for module in unused:
        module.requires_grad_(False)
    sam.prompt_encoder.point_embeddings[0].requires_grad_(False)  # background points
    return [parameter for parameter in sam.parameters() if parameter.requires_grad]


def lr_share(config: SamConfig, step: int) -> float:
    """Return the share of the learning rates at a step: linear warm-up, constant, linear decay to 0."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    left = min(1.0, (config.steps - step) / max(1, config.decay_steps))
    return warm * left
