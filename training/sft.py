"""Supervised training of the embedded policy, from nothing to answers.

Phases run in order: dense heads alone (see `dense`), then text tasks in a mixture that changes slowly. Muon moves the
hidden matrices, AdamW the rest; products are in bfloat16 where the CPU has it, everything else in float32. A
checkpoint holds all that the next step depends on, so a resumed run takes the same steps; SIGTERM and SIGINT stop it
after the current step with a checkpoint.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.extras import require
from wise_edge.training.checkpoint import load_checkpoint, save_checkpoint
from wise_edge.training.config import save_config
from wise_edge.training.curves import draw_curves
from wise_edge.training.dense import build_heads
from wise_edge.training.muon import Muon
from wise_edge.training.policy_folder import save_policy
from wise_edge.training.policy_model import build_policy
from wise_edge.training.precision import product_dtype
from wise_edge.training.sft_config import SftConfig
from wise_edge.training.sft_data import Batch, make_prefix, mixture_at, phase_at, stream_batches
from wise_edge.training.sft_forward import Forward
from wise_edge.training.sft_validation import load_validation, validate_dense, validate_text
from wise_edge.training.step_log import StepLog, append_record
from wise_edge.training.tokenizer import scene_texts, special_ids, train_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import nn

_COPIED = ("recipe.yaml", "train.jsonl", "validation.jsonl")


def train_sft(config: SftConfig, out: Path, resume: bool) -> None:
    """Train a policy and write its folder, log, curves and checkpoints.

    Args:
        config: the recipe.
        out: folder of the run; the policy goes to its `policy` folder, at every checkpoint.
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
    trainer = Trainer(config, _load_tokenizer(config, out), out)
    if resume:
        trainer.resume()
    trainer.run()


def _load_tokenizer(config: SftConfig, out: Path) -> Tokenizer:
    path = out / "tokenizer.json"
    if path.exists():
        loaded: Tokenizer = require("tokenizers", "train").Tokenizer.from_file(str(path))
        return loaded
    texts = scene_texts(config.tokenizer_samples, config.seed, config.model.image_size)
    tokenizer = train_tokenizer(texts, config.vocab_size)
    tokenizer.save(str(path))
    return tokenizer


class Trainer:
    """The state of a training and its loop."""

    def __init__(self, config: SftConfig, tokenizer: Tokenizer, out: Path) -> None:
        self._torch = torch = require("torch", "train")
        self._config = config
        self._tokenizer = tokenizer
        self._out = out
        self._prefix = make_prefix(tokenizer, config)
        self.model = build_policy(config.model, tokenizer.get_vocab_size(), special_ids(tokenizer), config.seed)
        self._average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self._heads = build_heads(config.model.hidden_size, config.seed)
        self._forward = Forward(self.model, self._heads, self._prefix, config.model.max_positions)
        self._trained = [*self.model.parameters(), *self._heads.parameters()]
        matrices = hidden_matrices(self.model)
        chosen = {id(p) for p in matrices}
        rest = [p for p in self._trained if id(p) not in chosen]
        options = config.optimizer
        self._muon = Muon(matrices, options.momentum, options.weight_decay)
        self._adamw = torch.optim.AdamW(rest, lr=0.0, betas=options.betas, weight_decay=0.0, fused=True)
        self._bfloat16 = config.bfloat16 and product_dtype() == torch.bfloat16
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
        return {
            "model": self.model,
            "average": self._average,
            "heads": self._heads,
            "muon": self._muon,
            "adamw": self._adamw,
        }

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
        if self._step < config.total_steps:
            path = self._out / "train.jsonl"
            with StepLog(path, config.total_steps, config.log_every, self._step, self._seconds) as log:
                self._take_steps(log)
        if self._stopped:
            print(f"stopped after step {self._step}; go on with --resume", file=sys.stderr)
        else:
            self._validate(config.final_samples)
        self._checkpoint()

    def _take_steps(self, log: StepLog) -> None:
        config = self._config
        for batch in stream_batches(config, self._tokenizer, self._step):
            parts = self._train_step(batch)
            self._step += 1
            phase = config.phases[phase_at(config, batch.step)[0]].name
            self._seconds = log.add(self._step, parts, len(batch.images), stage=phase)
            if self._stopped:
                return
            if self._step == config.total_steps:
                continue
            if self._step % config.validate_every == 0:
                self._validate(config.validate_samples)
            if self._step % config.checkpoint_every == 0:
                self._checkpoint()

    def _train_step(self, batch: Batch) -> dict[str, float]:
        dense_weight = dense_weight_at(self._config, batch.step)
        with self._torch.autocast("cpu", self._torch.bfloat16, enabled=self._bfloat16):
            losses = self._forward.losses(batch, dense_weight > 0)
        total = sum(loss if name == "text" else dense_weight * loss for name, loss in losses.items())
        total.backward()  # type: ignore[union-attr]
        return {name: float(loss.detach()) for name, loss in losses.items()} | self._update()

    def _update(self) -> dict[str, float]:
        torch, options = self._torch, self._config.optimizer
        norm = float(torch.nn.utils.clip_grad_norm_(self._trained, options.clip_norm))
        if not math.isfinite(norm):
            raise WiseEdgeError(
                f"the loss is not finite at step {self._step + 1}; lower the learning rates and go on with --resume"
            )
        share = lr_share(self._config, self._step)
        for group in self._adamw.param_groups:
            group["lr"] = options.adamw_lr * share
        self._muon.step(options.muon_lr * share)
        self._adamw.step()
        for parameter in self._trained:
            parameter.grad = None
        decay = min(self._config.ema_decay, (1 + self._step) / (10 + self._step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self._average.parameters()), list(self.model.parameters()), 1 - decay)
        return {"lr": share, "norm": norm}

    def _checkpoint(self) -> None:
        state = {name: part.state_dict() for name, part in self._parts().items()}
        save_checkpoint(self._out, self._step, {**state, "seconds": self._seconds})
        save_policy(self._average, self._tokenizer, self._config, self._out / "policy")
        for name in _COPIED:
            if (self._out / name).exists():
                shutil.copy(self._out / name, self._out / "policy" / name)

    def _validate(self, count: int) -> None:
        config, started = self._config, time.monotonic()
        samples = load_validation(count)
        average = Forward(self._average, self._heads, self._prefix, config.model.max_positions)
        record: dict[str, Any] = {"step": self._step, "samples": count}
        record["dense"] = validate_dense(average.dense, samples, config.model.image_size)
        if mixture_at(config, self._step - 1):
            for variant in config.validate_variants:
                record[variant] = validate_text(self._average, self._tokenizer, self._prefix, config, samples, variant)
        record["seconds"] = round(time.monotonic() - started, 1)
        append_record(self._out / "validation.jsonl", record)
        print(f"validation {json.dumps(record)}", file=sys.stderr, flush=True)
        draw_curves(self._out)


def hidden_matrices(model: Any) -> list[nn.Parameter]:
    """Return the 2-D weights between the embeddings and the head, which Muon moves."""
    inner = model.model
    parts = (inner.visual.blocks, inner.visual.merger, inner.language_model.layers)
    return [p for part in parts for p in part.parameters() if p.ndim == 2]


def lr_share(config: SftConfig, step: int) -> float:
    """Return the share of the peak learning rate at a step: linear warm-up, then a cosine to its final share."""
    options = config.optimizer
    warm = min(1.0, (step + 1) / max(1, options.warmup_steps))
    done = min(1.0, step / config.total_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return warm * (options.final_lr_share + (1 - options.final_lr_share) * cosine)


def dense_weight_at(config: SftConfig, step: int) -> float:
    """Return the weight of the dense loss: from the last phase's final weight linearly to this phase's."""
    index, place = phase_at(config, step)
    phase = config.phases[index]
    before = config.phases[index - 1].dense_weight if index else phase.dense_weight
    return before + (phase.dense_weight - before) * place / phase.steps
