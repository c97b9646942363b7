"""Supervised training of the embedded policy, from nothing to answers.

Phases run in order: dense heads alone (see `dense`), then text tasks in a mixture that changes slowly. Muon moves the
hidden matrices, AdamW the rest, in float32 on the CPU. A checkpoint holds all that the next step depends on, so a
resumed run takes the same steps; SIGTERM and SIGINT stop it after the current step with a checkpoint.
"""

from __future__ import annotations

import copy
import json
import math
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
from wise_edge.training.dense import LAYERS, build_heads, dense_loss
from wise_edge.training.muon import Muon
from wise_edge.training.policy_folder import save_policy
from wise_edge.training.policy_model import (
    build_policy,
    embed,
    encode_images,
    logits_of,
    patchify_batch,
    run_layer,
    text_rotary,
)
from wise_edge.training.sft_config import SftConfig
from wise_edge.training.sft_data import Batch, make_prefix, mixture_at, phase_at, stream_batches
from wise_edge.training.sft_validation import load_validation, validate_dense, validate_text
from wise_edge.training.tokenizer import scene_texts, special_ids, train_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

_LOG_EVERY = 50


def train_sft(config: SftConfig, out: Path, resume: bool) -> None:
    """Train a policy and write its folder, log, curves and checkpoints.

    Args:
        config: the recipe.
        out: folder of the run; the policy goes to its `policy` folder.
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
        ids = special_ids(tokenizer)
        self.model = build_policy(config.model, tokenizer.get_vocab_size(), ids, config.seed)
        self._average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self._heads = build_heads(config.model.hidden_size, config.seed)
        self._rotary = text_rotary(self.model, self._prefix.positions(config.model.max_positions))
        matrices = [p for p in self._layer_parameters() if p.ndim == 2]
        chosen = {id(p) for p in matrices}
        rest = [p for p in [*self.model.parameters(), *self._heads.parameters()] if id(p) not in chosen]
        options = config.optimizer
        self._muon = Muon(matrices, options.momentum, options.weight_decay)
        self._adamw = torch.optim.AdamW(rest, lr=0.0, betas=options.betas, weight_decay=0.0, fused=True)
        self._step = 0
        self._seconds = 0.0
        self._stopped = False

    def _layer_parameters(self) -> list[Any]:
        inner = self.model.model
        return [*inner.visual.blocks.parameters(), *inner.visual.merger.parameters()] + [
            *inner.language_model.layers.parameters()
        ]

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
            window = _Window(self._out / "train.jsonl", self._seconds)
            for batch in stream_batches(config, self._tokenizer, self._step):
                parts = self._train_step(batch)
                self._step += 1
                self._seconds = window.add(self._step, config, parts, len(batch.images))
                if self._step % config.validate_every == 0 and self._step < config.total_steps:
                    self._validate(config.validate_samples)
                if self._stopped or self._step % config.checkpoint_every == 0:
                    self._checkpoint()
                if self._stopped:
                    print(f"stopped after step {self._step}; go on with --resume", file=sys.stderr)
                    return
            self._checkpoint()
        self._validate(config.final_samples)

    def _train_step(self, batch: Batch) -> dict[str, float]:
        torch, options = self._torch, self._config.optimizer
        with torch.autocast("cpu", torch.bfloat16, enabled=self._config.bfloat16):
            losses = self._losses(batch)
        total = sum(weight * loss for weight, loss in losses.values())
        total.backward()
        groups = [*self.model.parameters(), *self._heads.parameters()]
        norm = torch.nn.utils.clip_grad_norm_(groups, options.clip_norm)
        if not math.isfinite(float(norm)):
            raise WiseEdgeError(
                f"the loss is not finite at step {self._step + 1}; lower the learning rates and go on with --resume"
            )
        share = lr_share(self._config, self._step)
        for group in self._adamw.param_groups:
            group["lr"] = options.adamw_lr * share
        self._muon.step(options.muon_lr * share)
        self._adamw.step()
        for parameter in groups:
            parameter.grad = None
        self._update_average()
        return {name: float(loss.detach()) for name, (_, loss) in losses.items()} | {"lr": share, "norm": float(norm)}

    def _update_average(self) -> None:
        decay = min(self._config.ema_decay, (1 + self._step) / (10 + self._step))
        with self._torch.no_grad():
            self._torch._foreach_lerp_(list(self._average.parameters()), list(self.model.parameters()), 1 - decay)

    def _losses(self, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        torch = self._torch
        ids, weights = torch.from_numpy(batch.ids), torch.from_numpy(batch.weights)
        classes, boxes = torch.from_numpy(batch.classes), torch.from_numpy(batch.boxes)
        text = bool(mixture_at(self._config, batch.step))
        dense_weight = dense_weight_at(self._config, batch.step)
        losses: dict[str, tuple[float, Tensor]] = {}
        image_embeds, middle, last = self._forward(self.model, torch.from_numpy(batch.images), ids, text)
        if dense_weight > 0:
            states = (image_embeds, middle[:, self._prefix.image_slice])
            for name, head, state in zip(("tower", "language"), self._heads, states, strict=True):
                losses[name] = (dense_weight, dense_loss(head(state), classes, boxes))
        if text:
            losses["text"] = (1.0, self._text_loss(last, ids, weights))
        return losses

    def _forward(self, model: Any, images: Tensor, ids: Tensor, whole: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return image tokens, states after the lower language layers, and after the last one if `whole`."""
        image_embeds = encode_images(model, patchify_batch(images))
        hidden = embed(model, ids, image_embeds, self._prefix)
        cos, sin = (table[: ids.shape[1]] for table in self._rotary)
        middle = hidden
        for i, layer in enumerate(model.model.language_model.layers):
            if i == LAYERS:
                middle = hidden
                if not whole:
                    break
            hidden = run_layer(layer, hidden, cos, sin)
        return image_embeds, middle, hidden

    def _text_loss(self, hidden: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        torch = self._torch
        target = weights[:, 1:] > 0
        logits = logits_of(self.model, hidden[:, :-1][target])
        losses = torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][target], reduction="none")
        share = weights[:, 1:][target]
        return (losses * share).sum() / share.sum()

    def _checkpoint(self) -> None:
        state = {name: part.state_dict() for name, part in self._parts().items()}
        save_checkpoint(self._out, self._step, {**state, "seconds": self._seconds})
        save_policy(self._average, self._tokenizer, self._config, self._out / "policy")

    def _validate(self, count: int) -> None:
        started = time.monotonic()
        samples = load_validation(count)
        record: dict[str, Any] = {"step": self._step, "samples": count, "dense": validate_dense(self._dense, samples)}
        if mixture_at(self._config, self._step - 1):
            for variant in self._config.validate_variants:
                record[variant] = validate_text(
                    self._average, self._tokenizer, self._prefix, self._config, samples, variant
                )
        record["seconds"] = round(time.monotonic() - started, 1)
        _append(self._out / "validation.jsonl", record)
        print(f"validation {json.dumps(record)}", file=sys.stderr, flush=True)
        draw_curves(self._out)

    def _dense(self, images: Tensor) -> list[Tensor]:
        ids = self._torch.tensor(self._prefix.ids).expand(len(images), -1)
        image_embeds, middle, _ = self._forward(self._average, images, ids, whole=False)
        return [head(state) for head, state in zip(self._heads, (image_embeds, middle[:, self._prefix.image_slice]))]


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


class _Window:
    """Means over the last steps, appended to the log and shown as a line."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._sums: dict[str, float] = {}
        self._steps = self._samples = 0
        self._origin = time.monotonic() - seconds
        self._started = time.monotonic()

    def add(self, step: int, config: SftConfig, parts: dict[str, float], samples: int) -> float:
        """Count one step in; returns the seconds of training so far."""
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1
        self._samples += samples
        now = time.monotonic()
        if step % _LOG_EVERY == 0:
            means = {name: round(value / self._steps, 4) for name, value in self._sums.items()}
            record = {
                "step": step,
                "stage": config.phases[phase_at(config, step - 1)[0]].name,
                **means,
                "samples_per_s": round(self._samples / (now - self._started), 1),
                "seconds": round(now - self._origin, 1),
            }
            _append(self._path, record)
            figures = " ".join(f"{key} {value}" for key, value in record.items() if key != "step")
            print(f"step {step}/{config.total_steps} {figures}", file=sys.stderr, flush=True)
            self._sums, self._steps, self._samples, self._started = {}, 0, 0, now
        return now - self._origin


def _append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
