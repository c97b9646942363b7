"""WISE: a policy that reasons at length learns to say the same in a few tokens (arXiv 2604.02040).

An optional warm start teaches the form of the completions. Then TRL's GRPO rewards rollouts of concise rationale,
answer and detailed explanation. The policy that is best on held-out data is kept, as a Hugging Face folder.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers

from wise_edge.bundle.store import resolve_checkpoint
from wise_edge.errors import DeviceError, WiseEdgeError
from wise_edge.files.refusals import explain_refusal
from wise_edge.files.targets import refuse_input
from wise_edge.native.stopping import stop_signals_call
from wise_edge.training.common.run import hold_run, refuse_begun
from wise_edge.training.wise.arguments import grpo_arguments, lora_config, quantization_config, tensorboard
from wise_edge.training.wise.best import best_folder
from wise_edge.training.wise.checkpoints import checkpoint_step, staging_folder
from wise_edge.training.wise.config import WiseConfig
from wise_edge.training.wise.data import Selection, training_rows
from wise_edge.training.wise.policy import StartPolicy, hub_revision, open_policy
from wise_edge.training.wise.processes import check_processes, leave_group, on_first_process
from wise_edge.training.wise.rewards import RewardFunctions
from wise_edge.training.wise.run_folder import finish_run, prepare_run, start_folder
from wise_edge.training.wise.similarity import TransformerEncoder, load_encoder
from wise_edge.training.wise.trainer import WiseTrainer
from wise_edge.training.wise.validation import Validator
from wise_edge.training.wise.warm_start import warm_start

_Parts = tuple[RewardFunctions, Selection, Validator]
"""Rewards, the samples that are trained on, and the validation."""


def train_wise(config: WiseConfig, out: Path, resume: bool, accept_changes: bool = False) -> Path | None:
    """Train a policy and write its folder, adapter, log, samples, curves and checkpoints.

    Args:
        config: the recipe.
        out: folder of the run; the best policy is written to its `policy` folder.
        resume: continue from the newest sound checkpoint in `out`, or start if there is none.
        accept_changes: continue although the recipe, or the policy or data that it names, has changed.

    Returns:
        The best policy's folder; None if the training was stopped, and on all processes but the first.

    Raises:
        UsageError: `out` already holds a run and `resume` is not set, or one that began otherwise or is damaged, or
            another process trains into it; or the recipe's model or data cannot be used.
        DeviceError: too little GPU memory; the message names the settings to lower.
        WiseEdgeError: the loss is not finite, or the disk is full; the last checkpoint is kept.
    """
    check_processes(config)
    refuse_input(out / "policy", [resolve_checkpoint(config.model, "policy")])
    refuse_begun(out, resume)
    with quiet_libraries():  # before a run is made that a corrected recipe could not continue
        start = open_policy(config)
        parts = _open_parts(config, start)
    with ExitStack() as held, _explained(out):
        on_first_process(lambda: held.enter_context(_hold_place(out, resume)))
        checkpoint = on_first_process(lambda: prepare_run(config, out, _inputs(config, *parts[1:]), accept_changes))
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        with quiet_libraries():
            if config.warm_start is not None:
                start = dataclasses.replace(start, name=str(warm_start(config, start, start_folder(out))))
            complete = True
            if checkpoint is None or checkpoint_step(checkpoint) < config.steps or not best_folder(out).exists():
                complete = _train(config, start, parts, out, checkpoint)
            leads = accelerate.PartialState().is_main_process
            leave_group()
            if leads:  # the others end, and nothing waits for minutes
                finish_run(config, start, out)
    return out / "policy" if leads and complete else None


@contextmanager
def _hold_place(out: Path, resume: bool) -> Iterator[None]:
    """Hold the folder of a run, and leave nothing half-written in it, however the run ends."""
    with hold_run(out, resume):
        try:
            yield
        finally:
            shutil.rmtree(staging_folder(out), ignore_errors=True)


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    """Tell the errors of a full device or disk as what they are."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            "the GPU has too little memory; lower rollouts_at_once (generation), rollouts_per_device (training), "
            "validation.batch_size or vllm_memory_share and continue with --resume; or lower max_completion_tokens, or "
            "set lora and load_in_4bit, in a new run"
        ) from error
    except Exception as error:
        if _is_peer_error(error):
            raise WiseEdgeError(
                f"another process of the run in {out} has ended, see its message; continue with --resume"
            ) from error
        reason = None if isinstance(error, WiseEdgeError) else explain_refusal(error)
        if reason is None:
            raise
        raise WiseEdgeError(f"{out} cannot be written: {reason}; the last checkpoint is kept") from error


def _is_peer_error(error: Exception) -> bool:
    return isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide what transformers and TRL tell developers, and their progress bars if stderr is not a terminal.

    Nor does TensorBoard's thread show the traceback of a write that fails: it raises the error in the loop too.
    """
    show = threading.excepthook
    logs = transformers.utils.logging
    had_bars = logs.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        logs.disable_progress_bar()
    threading.excepthook = lambda failed: None if isinstance(failed.exc_value, OSError) else show(failed)
    try:
        with warnings.catch_warnings():
            # TRL 1.16 uses names that transformers 5.23 deprecates.
            warnings.filterwarnings("ignore", r"`\w*gradient_checkpointing\w*` is deprecated", FutureWarning)
            yield
    finally:
        threading.excepthook = show
        if had_bars:
            logs.enable_progress_bar()


def _train(config: WiseConfig, start: StartPolicy, parts: _Parts, out: Path, checkpoint: Path | None) -> bool:
    """Train, and return whether all steps are taken."""
    rewards, data, validator = parts
    rows = training_rows(data, start, config.order, config.steps * config.prompts_per_step, config.seed)
    step = None if checkpoint is None else checkpoint_step(checkpoint)
    trainer: Any = WiseTrainer(
        config,
        out,
        validator,
        rewards,
        model=start.name,
        processing_class=start.copy_processor(),
        args=grpo_arguments(config, out, rewards.weights(), validate_first=not best_folder(out).exists()),
        train_dataset=rows,
        eval_dataset=rows,  # required for validations, although the trainer's own use other data
        peft_config=None if config.lora is None else lora_config(config.lora),
        quantization_config=quantization_config(config),
        callbacks=tensorboard(config.report_to, out, step),
    )
    with stop_signals_call(trainer.stop), redirect_stdout(sys.stderr):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if trainer.stopped:
        print(f"stopped after step {trainer.state.global_step}; continue with --resume", file=sys.stderr)
    if isinstance(rewards.encoder, TransformerEncoder) and rewards.encoder.cut:
        print(rewards.encoder.describe_cut(rewards.encoder.encoded, rewards.encoder.cut), file=sys.stderr)
    return bool(trainer.state.global_step >= config.steps)


def _inputs(config: WiseConfig, data: Selection, validator: Validator) -> dict[str, Path | str]:
    """Return what the results depend on, or its fingerprint, by its name in the recipe."""
    folders = {
        "model": resolve_checkpoint(config.model, "policy"),
        "validation.sam": config.validation.sam and resolve_checkpoint(config.validation.sam, "sam"),
        "warm_start.data": config.warm_start and config.warm_start.data != "scenes" and Path(config.warm_start.data),
        "rewards.similarity_model": Path(config.rewards.similarity_model),
    }
    found: dict[str, Path | str] = {name: path for name, path in folders.items() if path and path.exists()}
    if revision := hub_revision(config.model):
        found["model"] = revision
    return {**found, "data": data.fingerprint(), "validation.data": validator.data.fingerprint()}


def _open_parts(config: WiseConfig, start: StartPolicy) -> _Parts:
    """Return rewards, samples and validator; raises if the recipe names something that is missing here."""
    quantization_config(config)
    return _build_rewards(config, start), Selection(config.data, "data"), Validator(config.validation, start)


def _build_rewards(config: WiseConfig, start: StartPolicy) -> RewardFunctions:
    tokenizer = start.processor.tokenizer
    encoder = None
    if config.rewards.weights["distillation"] and config.order != "no-detailed":
        device = str(accelerate.PartialState().device)
        encoder = load_encoder(config.rewards.similarity_model, device, config.bf16)
    return RewardFunctions(
        config.rewards,
        start.frame,
        config.order,
        encoder,
        lambda texts: [len(ids) for ids in tokenizer(list(texts))["input_ids"]],
        start.training_wording(config.order),
        start.form,
    )
