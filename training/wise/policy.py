"""The policy that a WISE training starts from: its processor, its prompts and the size of its images.

Checkpoints are Hugging Face folders of Qwen2-VL, Qwen2.5-VL or Qwen3-VL. Our own folders hold `prompts.json`, the
wording that the policy was trained with. Other policies are prompted with `prompts.DEFAULT`, which is then saved with
them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from wise_edge.bundle.store import resolve_checkpoint
from wise_edge.errors import UsageError, first_line
from wise_edge.policy.checkpoint import LARGE_INPUT_SIZE
from wise_edge.policy.prompts import DEFAULT, PromptSet
from wise_edge.training.wise.config import WiseConfig

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
_PROMPTS = "prompts.json"
_DETAILED_FIRST = (
    "First explain in detail inside <d_think> </d_think> how the candidates compare, then state the key reason "
    "concisely inside <think> </think>, then give the answer."
)
_VARIANTS = {"concise-first": "wise", "detailed-first": "wise", "no-detailed": "wise-infer"}


@dataclass(frozen=True)
class StartPolicy:
    """A policy before training.

    Attributes:
        name: its folder, or its name on the hub.
        processor: transformers' processor, which pads on the left.
        prompts: wording of its prompts.
        input_size: side of the square that images are stretched to, px.
        dtype: torch's name of the type of its weights.
    """

    name: str
    processor: Any
    prompts: PromptSet
    input_size: int
    dtype: str

    def messages(self, query: str, variant: str) -> list[dict[str, str]]:
        """Return the prompt as chat messages; the processor puts the image before the user's text."""
        return [
            {"role": "system", "content": self.prompts.system},
            {"role": "user", "content": self.prompts.user_text(query, variant)},
        ]

    def training_messages(self, query: str, order: str) -> list[dict[str, str]]:
        """Return the prompt of a rollout with its parts in one of `ORDERS`."""
        messages = self.messages(query, _VARIANTS[order])
        if order == "detailed-first" and self.prompts == DEFAULT:
            messages[1]["content"] = f"{query} {_DETAILED_FIRST}"
        return messages


def open_policy(config: WiseConfig) -> StartPolicy:
    """Read everything but the weights.

    Raises:
        UsageError: the checkpoint does not exist, has no vision tower or belongs to another family, or its patches do
            not divide the requested image size.
    """
    name = str(resolve_checkpoint(config.model, "policy"))
    try:
        settings = transformers.AutoConfig.from_pretrained(name)
        _check_family(config.model, settings)
        processor = transformers.AutoProcessor.from_pretrained(name, padding_side="left")
    except (OSError, ValueError) as error:
        raise UsageError(f"model {config.model}: {first_line(error)}") from error
    size = config.input_size or _fixed_size(processor) or LARGE_INPUT_SIZE
    unit = processor.image_processor.patch_size * processor.image_processor.merge_size
    if size % unit:
        raise UsageError(f"input_size: {size} is not a multiple of {unit}, the side of this model's image tokens")
    processor.image_processor.size = {
        "shortest_edge": size * size,
        "longest_edge": size * size,
    }  # as it arrives
    dtype = str(settings.dtype or "float32").removeprefix("torch.")
    return StartPolicy(name, processor, _read_prompts(Path(name)), size, dtype)


def _check_family(model: str, settings: Any) -> None:
    if getattr(settings, "vision_config", None) is None:
        raise UsageError(f"model {model}: {settings.model_type} reads no images; choose a Qwen-VL checkpoint")
    if settings.model_type not in FAMILIES:
        raise UsageError(f"model {model}: {settings.model_type} is not one of {', '.join(FAMILIES)}")


def save_processor_and_prompts(start: StartPolicy, folder: Path) -> None:
    """Write what a policy's folder holds in addition to the weights: tokenizer, image processor and prompts."""
    start.processor.tokenizer.save_pretrained(folder)
    start.processor.image_processor.save_pretrained(folder)
    (folder / _PROMPTS).write_text(json.dumps(start.prompts.to_dict(), indent=2) + "\n", encoding="utf-8")


def _read_prompts(folder: Path) -> PromptSet:
    file = folder / _PROMPTS
    if not file.is_file():
        return DEFAULT
    try:
        return PromptSet.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UsageError(f"{file} is not JSON") from error


def _fixed_size(processor: Any) -> int | None:
    """Return the side to which the processor resizes every image, or None if it keeps their proportions."""
    size = processor.image_processor.size
    least, most = (size.get(key) for key in ("shortest_edge", "longest_edge"))
    return math.isqrt(least) if least is not None and least == most else None
