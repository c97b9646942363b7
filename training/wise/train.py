"""WISE: a policy that reasons at length learns to say the same in a few tokens (arXiv 2604.02040).

An optional warm start teaches the form of the completions. Then TRL's GRPO rewards rollouts of concise rationale,
answer and detailed explanation. The policy that is best on held-out data is kept, as a Hugging Face folder.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import accelerate
import safetensors
import torch
import transformers

from wise_edge.bundle.store import resolve_checkpoint
from wise_edge.errors import DeviceError, UsageError, WiseEdgeError, first_line
from wise_edge.files.targets import make_folder, refuse_input
from wise_edge.training.common.run import identify_run
from wise_edge.training.common.step_log import drop_records_after
from wise_edge.training.common.stopping import stop_signals_call
from wise_edge.training.wise.arguments import grpo_arguments, lora_config, quantization_config
from wise_edge.training.wise.best import BestPolicy
from wise_edge.training.wise.checkpoints import checkpoint_step, newest_checkpoint
from wise_edge.training.wise.config import WiseConfig
from wise_edge.training.wise.data import Selection, training_rows
from wise_edge.training.wise.final_policy import write_policy
from wise_edge.training.wise.policy import StartPolicy, open_policy
from wise_edge.training.wise.rewards import RewardFunctions
from wise_edge.training.wise.similarity import TransformerEncoder, load_encoder
from wise_edge.training.wise.trainer import WiseTrainer
from wise_edge.training.wise.validation import Validator
from wise_edge.training.wise.warm_start import warm_start

_Parts = tuple[RewardFunctions, Any, Validator]
"""Rewards, the rows that are trained on, and the validation."""


def train_wise(config: WiseConfig, out: Path, resume: bool, accept_changes: bool = False) -> None:
    """Train a policy and write its folder, adapter, log, samples, curves and checkpoints.

    Args:
        config: the recipe.
        out: folder of the run; the best policy is written to its `policy` folder.
        resume: continue from the newest complete checkpoint in `out`, or start if there is none.
        accept_changes: continue although the recipe has changed.

    Raises:
        UsageError: `out` already holds a run and `resume` is not set, or the recipe's model or data cannot be used.
        DeviceError: too little GPU memory; the message names the settings to lower.
        WiseEdgeError: the loss is not finite, or the disk is full; the last checkpoint is kept.
    """
    check_processes(config)
    if not resume and (out / "recipe.yaml").exists():
        raise UsageError(f"{out} holds a training run; pass --resume to continue it, or choose another --out")
    refuse_input(out / "policy", [resolve_checkpoint(config.model, "policy")])
    with quiet_libraries():  # before a run is made that a corrected recipe could not continue
        start = open_policy(config)
        parts = _open_parts(config, start)
    checkpoint = _prepare(config, out, accept_changes)
    try:
        with quiet_libraries():
            _train(config, start, parts, out, checkpoint)
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            "the GPU has too little memory; lower rollouts_at_once (generation), rollouts_per_device (training), "
            "validation.batch_size, max_completion_tokens or vllm_memory_share, or set lora and load_in_4bit, and "
            "continue with --resume"
        ) from error
    except _write_errors() as error:
        if isinstance(error, RuntimeError) and not _is_write_error(error):
            raise
        reason = getattr(error, "strerror", None) or first_line(error)
        raise WiseEdgeError(f"{out} cannot be written: {reason}; the last checkpoint is kept") from error


def _write_errors() -> tuple[type[Exception], ...]:
    """Return the errors of a full disk: Python's, safetensors', and torch's, which is a RuntimeError."""
    return OSError, RuntimeError, safetensors.SafetensorError


def _is_write_error(error: RuntimeError) -> bool:
    return any(name in str(error) for name in ("PytorchStreamWriter", "inline_container"))


def check_processes(config: WiseConfig) -> None:
    """Check that the number of processes is the one in the recipe.

    Raises:
        UsageError: the numbers differ.
    """
    on_cpu = not torch.cuda.is_available()  # accelerate joins CPU processes only on request
    running = accelerate.PartialState(cpu=on_cpu).num_processes
    if running != config.processes:
        raise UsageError(
            f"processes: the recipe expects {config.processes}, but {running} run; start it with 'torchrun "
            f"--nproc_per_node {config.processes} -m wise_edge train …', or --set processes={running}"
        )


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide what transformers and TRL tell developers, and their progress bars if stderr is not a terminal."""
    logs = transformers.utils.logging
    had_bars = logs.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        logs.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # TRL 1.16 uses names that transformers 5.23 deprecates.
            warnings.filterwarnings("ignore", r"`\w*gradient_checkpointing\w*` is deprecated", FutureWarning)
            yield
    finally:
        if had_bars:
            logs.enable_progress_bar()


def _prepare(config: WiseConfig, out: Path, accept_changes: bool) -> Path | None:
    """Make the folder of the run; return the checkpoint to continue from."""
    state = accelerate.PartialState()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    state.wait_for_everyone()  # no process writes before all have checked
    checkpoint = newest_checkpoint(out)
    if state.is_main_process:
        make_folder(out)
        step = None if checkpoint is None else checkpoint_step(checkpoint)
        identify_run(config, out, step, {}, accept_changes)
        for name in ("train.jsonl", "validation.jsonl"):
            drop_records_after(out / name, -1 if step is None else step)
    state.wait_for_everyone()
    return checkpoint


def _train(config: WiseConfig, start: StartPolicy, parts: _Parts, out: Path, checkpoint: Path | None) -> None:
    rewards, rows, validator = parts
    if config.warm_start is not None:
        start = dataclasses.replace(start, name=str(warm_start(config, start, out / "start")))
    trainer: Any = WiseTrainer(
        config,
        out,
        validator,
        rewards,
        model=start.name,
        processing_class=start.processor,
        args=grpo_arguments(config, out, rewards.weights(), checkpoint is not None),
        train_dataset=rows,
        eval_dataset=rows,  # required for validations, although the trainer's own use other data
        peft_config=None if config.lora is None else lora_config(config.lora),
        quantization_config=quantization_config(config),
    )
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(out / "tensorboard"))
    with stop_signals_call(trainer.stop), redirect_stdout(sys.stderr):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if trainer.stopped:
        print(f"stopped after step {trainer.state.global_step}; continue with --resume", file=sys.stderr)
    if isinstance(rewards.encoder, TransformerEncoder) and rewards.encoder.cut:
        print(rewards.encoder.describe_cut(rewards.encoder.encoded, rewards.encoder.cut), file=sys.stderr)
    if trainer.is_world_process_zero():
        _save_best(config, start, out)


def _open_parts(config: WiseConfig, start: StartPolicy) -> _Parts:
    """Return rewards, rows and validator; raises if the recipe names something that is missing here."""
    quantization_config(config)
    count = config.steps * config.prompts_per_step
    rows = training_rows(Selection(config.data, "data"), start, config.order, count, config.seed)
    return _build_rewards(config, start), rows, Validator(config.validation, start)


def _build_rewards(config: WiseConfig, start: StartPolicy) -> RewardFunctions:
    tokenizer = start.processor.tokenizer
    encoder = None
    if config.rewards.weights["distillation"] and config.order != "no-detailed":
        device = str(accelerate.PartialState().device)
        encoder = load_encoder(config.rewards.similarity_model, device, config.bf16)
    return RewardFunctions(
        config.rewards,
        start.input_size,
        config.order,
        encoder,
        lambda texts: [len(ids) for ids in tokenizer(list(texts))["input_ids"]],
        "\n".join(message["content"] for message in start.training_messages("", config.order)),
    )


def _save_best(config: WiseConfig, start: StartPolicy, out: Path) -> None:
    """Write the best policy as one folder, in the precision of the checkpoint that the run started from."""
    best = BestPolicy(out, config.validation.tolerance).folder
    write_policy(start, best, out / "policy", dtype=start.dtype, adapter=config.lora is not None)
