"""TRL's arguments for GRPO and PEFT's config of the adapter, from a recipe."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import accelerate
import peft
import torch
import transformers
import trl
from transformers.integrations.integration_utils import TensorBoardCallback

from wise_edge.extras import check_packages
from wise_edge.training.wise.checkpoints import staging_folder
from wise_edge.training.wise.config import LoraOptions, WiseConfig

_TENSORBOARD = "tensorboard"


def grpo_arguments(config: WiseConfig, out: Path, reward_weights: list[float], validate_first: bool) -> Any:
    """Return TRL's `GRPOConfig`.

    Args:
        config: the recipe.
        out: folder of the run.
        reward_weights: weight of each reward function.
        validate_first: whether to validate before the first step, since no policy is kept yet.
    """
    return trl.GRPOConfig(
        output_dir=str(staging_folder(out)),
        seed=config.seed,
        shuffle_dataset=False,  # the rows are already in their order
        use_cpu=not torch.cuda.is_available(),
        ddp_backend="gloo" if config.processes > 1 and not torch.cuda.is_available() else None,
        bf16=config.bf16,
        model_init_kwargs={"dtype": config.dtype},
        activation_checkpointing=config.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        remove_unused_columns=False,
        dataloader_num_workers=0,
        **_optimization(config),
        **_rollouts(config),
        reward_weights=reward_weights,
        **_schedule(config, validate_first),
        report_to=[name for name in trackers(config.report_to) if name != _TENSORBOARD],
        disable_tqdm=not sys.stderr.isatty(),
    )


def tensorboard(requested: tuple[str, ...], out: Path, step: int | None) -> list[Any]:
    """Return transformers' callback that writes TensorBoard's events, if it is requested and installed.

    Args:
        requested: the recipe's trackers.
        out: folder of the run.
        step: the step that the run goes on from, if it does; TensorBoard then hides later events of the folder, which
            the run repeats. transformers' own writer does not tell it.
    """
    if _TENSORBOARD not in trackers(requested) or not accelerate.PartialState().is_main_process:
        return []
    from torch.utils.tensorboard import SummaryWriter

    folder = str(out / _TENSORBOARD)
    writer: Any = SummaryWriter(folder, purge_step=None if step is None else step + 1)
    return [TensorBoardCallback(writer)]


def lora_config(options: LoraOptions) -> Any:
    """Return PEFT's config of an adapter on the language model; the vision tower is not adapted."""
    return peft.LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,  # type: ignore[arg-type]  # PEFT only divides it by the rank
        lora_dropout=options.dropout,
        target_modules=adapted_modules(options),
        task_type="CAUSAL_LM",
    )


def adapted_modules(options: LoraOptions) -> str:
    """Return the pattern of the names of the adapted modules: those of the language model."""
    return rf"^(?!.*visual).*\.({'|'.join(options.targets)})$"


def quantization_config(config: WiseConfig) -> Any:
    """Return transformers' config for 4-bit weights (NF4, doubly quantized), or None."""
    if not config.load_in_4bit:
        return None
    check_packages("qlora", "bitsandbytes")
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype="bfloat16" if config.bf16 else "float32",
    )


def trackers(requested: tuple[str, ...]) -> list[str]:
    """Return the trackers that are installed."""
    return [name for name in requested if importlib.util.find_spec(name)]


def _optimization(config: WiseConfig) -> dict[str, Any]:
    return {
        "max_steps": config.steps,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.schedule,
        "warmup_steps": config.warmup_steps,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.clip_norm,
        "beta": config.kl_weight,
        "loss_type": "grpo",
        "scale_rewards": "group",
        "num_iterations": 1,
    }


def _rollouts(config: WiseConfig) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": config.rollouts_per_device,
        "per_device_eval_batch_size": config.rollouts,
        "gradient_accumulation_steps": config.accumulation_steps,
        "steps_per_generation": config.steps_per_generation,
        "num_generations": config.rollouts,
        "max_completion_length": config.max_completion_tokens,
        "mask_truncated_completions": True,
        "temperature": config.temperature,
        **_vllm(config),
    }


def _vllm(config: WiseConfig) -> dict[str, Any]:
    if config.vllm == "off":
        return {}
    if not importlib.util.find_spec("vllm"):
        print("vLLM is not installed; transformers generates the rollouts, which is slower", file=sys.stderr)
        return {}
    return {
        "use_vllm": True,
        "vllm_mode": config.vllm,
        "vllm_gpu_memory_utilization": config.vllm_memory_share,
        "vllm_server_base_url": config.vllm_server if config.vllm == "server" else None,
    }


def _schedule(config: WiseConfig, validate_first: bool) -> dict[str, Any]:
    return {
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": config.checkpoint_every,
        "eval_strategy": "steps",
        "eval_steps": config.validation.every,
        "eval_on_start": validate_first,
    }
