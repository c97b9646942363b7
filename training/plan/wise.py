"""The plan of a WISE training: what reinforcement learning of a policy takes, part by part."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from wise_edge.drawing.units import number
from wise_edge.policy.architecture import build_skeleton, normalize_name
from wise_edge.training.plan.parts import MemoryPart, TrainingPlan
from wise_edge.training.wise.arguments import adapted_modules
from wise_edge.training.wise.config import LoraOptions, WiseConfig
from wise_edge.training.wise.policy import StartPolicy

_QUERY_TOKENS = 50
_NF4_BYTES = 0.516  # 4 bits, and a doubly quantized scale for each 64 of them
_REST_BYTES = 3e9
_ADAM_BYTES = 8  # two float32 moments


@dataclass(frozen=True)
class _Shape:
    """Sizes of a policy.

    Attributes:
        weights: all of them, a tied head counted once.
        products: those of linear layers that 4-bit loading quantizes.
        adapter: an adapter's, 0 without one.
        layers, width, inner, vocabulary: of the language model.
        cache_bytes: keys and values of a token in bfloat16.
        patch_values: numbers of a patch.
        vision_inner: widest layer of the vision tower's blocks.
    """

    weights: int
    products: int
    adapter: int
    layers: int
    width: int
    inner: int
    vocabulary: int
    cache_bytes: int
    patch_values: int
    vision_inner: int


def plan_wise(config: WiseConfig, start: StartPolicy, samples: int, out: Path) -> TrainingPlan:
    """Return the plan of a training.

    Args:
        config: the recipe.
        start: the policy before the training.
        samples: number of samples to train on.
        out: folder of the run.
    """
    shape = _measure(start.name, config.lora)
    trained = shape.adapter or shape.weights
    kind = f"an adapter of {number(shape.adapter)} weights" if shape.adapter else "all weights"
    facts = (
        ("policy", f"{config.model}, {number(shape.weights)} weights; {kind} will be trained"),
        ("data", f"{samples:,} samples of {config.data.name}"),
        ("steps", f"{config.steps}, each of {config.prompts_per_step} prompts x {config.rollouts} completions"),
        ("processes", str(config.processes)),
    )
    # A checkpoint has the trained weights and their moments, the best policy the weights alone; one more is written
    # before the oldest goes.
    checkpoints = (config.checkpoints_kept + 1) * trained * (4 + _ADAM_BYTES)
    folders = 1 + (config.warm_start is not None)
    disk = checkpoints + trained * 4 + folders * shape.weights * _bytes_of(start.dtype)
    return TrainingPlan(facts, _parts(config, start, shape), disk, str(out / "policy"), _notes(config))


def _parts(config: WiseConfig, start: StartPolicy, shape: _Shape) -> tuple[MemoryPart, ...]:
    images = start.processor.image_processor
    tokens = (start.input_size // (images.patch_size * images.merge_size)) ** 2
    patches = tokens * images.merge_size**2
    prompt = tokens + _text_tokens(config, start)
    longest = prompt + max(config.max_completion_tokens, config.validation.max_tokens)
    writing = max(config.rollouts_at_once or config.batch_size // config.processes, config.validation.batch_size)
    learning, answer = config.rollouts_per_device, config.max_completion_tokens
    sizes = (
        ("keys and values", f"{writing} completions x {longest:,} tokens x {shape.cache_bytes / 1e3:.1f} kB",
         writing * longest * shape.cache_bytes, "writing"),
        ("one layer of the prompts", f"{writing} x {prompt:,} tokens x {shape.inner:,} x 2 B x 4",
         writing * prompt * shape.inner * 8, "writing"),
        ("patches, a layer",
         f"{writing} x {patches:,} x ({shape.patch_values:,} x 4 B + {shape.vision_inner:,} x 2 B x 3)",
         writing * patches * (shape.patch_values * 4 + shape.vision_inner * 6), "vision"),
        ("layer inputs", f"{learning} completions x {longest:,} tokens x {shape.layers} x {shape.width:,} x 2 B",
         learning * longest * shape.layers * shape.width * 2, "backward"),
        ("logits", f"{learning} x {answer:,} tokens x {shape.vocabulary:,} x (2 + 4 + 4) B",
         learning * answer * shape.vocabulary * 10, "backward"),
    )  # fmt: skip
    phases = [MemoryPart(name, how, float(size), phase) for name, how, size, phase in sizes]  # type: ignore[arg-type]
    rest = MemoryPart("one layer computed again, the sentence encoder, CUDA itself", "an allowance", _REST_BYTES)
    return (*_weights(config, shape), *_vllm(config), *phases, rest)


def _weights(config: WiseConfig, shape: _Shape) -> list[MemoryPart]:
    """Return the parts that hold weights: of the policy, what is trained, and the policy at the start."""
    processes = config.processes
    shared = "" if processes == 1 else f" / {processes} processes"
    if config.lora is None:
        state = 4 + 4 + _ADAM_BYTES
        parts = [_times("weights, gradient and Adam", shape.weights, state, processes, "(4 + 4 + 8) B" + shared)]
        if config.kl_weight:
            parts.append(
                _times("the policy at the start, for the divergence", shape.weights, 4, processes, "4 B" + shared)
            )
        return parts
    each = _bytes_of(config.dtype)
    adapter = _times("adapter, gradient and Adam", shape.adapter, 4 + 4 + _ADAM_BYTES, 1, "(4 + 4 + 8) B")
    if not config.load_in_4bit:
        return [_times(f"weights, {config.dtype}", shape.weights, each, 1, f"{each} B"), adapter]
    rest = shape.weights - shape.products
    return [
        _times("layers in 4 bits", shape.products, _NF4_BYTES, 1, f"{_NF4_BYTES} B"),
        _times(f"embedding and head, {config.dtype}", rest, each, 1, f"{each} B"),
        adapter,
    ]


def _times(name: str, count: int, each: float, processes: int, how: str) -> MemoryPart:
    return MemoryPart(name, f"{count:.3g} x {how}", count * each / processes)


def _vllm(config: WiseConfig) -> list[MemoryPart]:
    if config.vllm != "colocate":
        return []
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        return [MemoryPart("vLLM", f"{config.vllm_memory_share:g} of the GPU", config.vllm_memory_share * total)]
    reason = f"{config.vllm_memory_share:g} of a GPU's memory, and there is none here"
    return [MemoryPart("vLLM", "", None, reason=reason)]


def _notes(config: WiseConfig) -> tuple[str, ...]:
    notes = []
    if not config.gradient_checkpointing:
        notes.append("without gradient_checkpointing every layer keeps its activations, which are not counted")
    if config.processes > 1 and config.lora is None:
        notes.append("weights are divided by the processes if FSDP or ZeRO-3 shards them, and whole on each otherwise")
    return tuple(notes)


def _text_tokens(config: WiseConfig, start: StartPolicy) -> int:
    """Return the tokens of a prompt without its image, with a query of a usual length."""
    return len(start.processor.tokenizer(start.training_wording(config.order))["input_ids"]) + _QUERY_TOKENS


def _measure(name: str, lora: LoraOptions | None) -> _Shape:
    settings: Any = AutoConfig.from_pretrained(name)
    model = build_skeleton(settings, source=name)
    text, vision = settings.get_text_config(), settings.vision_config
    linear = {normalize_name(name): module for name, module in model.named_modules() if hasattr(module, "in_features")}
    adapted = re.compile(adapted_modules(lora)) if lora else None
    blocks = [module.out_features for name, module in linear.items() if re.search(r"visual\.blocks\..*\.mlp\.", name)]
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return _Shape(
        weights=sum(each.numel() for each in model.parameters()),
        products=sum(module.weight.numel() for name, module in linear.items() if name != "lm_head"),
        adapter=sum(
            lora.rank * (module.in_features + module.out_features)
            for name, module in linear.items()
            if lora and adapted and adapted.fullmatch(name)
        ),
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        inner=text.intermediate_size,
        vocabulary=text.vocab_size,
        cache_bytes=2 * 2 * text.num_hidden_layers * text.num_key_value_heads * head,
        patch_values=3 * vision.temporal_patch_size * vision.patch_size**2,
        vision_inner=max(blocks),
    )


def _bytes_of(dtype: str) -> int:
    return torch.empty((), dtype=getattr(torch, dtype), device="meta").element_size()
