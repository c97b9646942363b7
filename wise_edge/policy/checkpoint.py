"""Reading a policy's checkpoint folder: its description as a `PolicySpec`, and the model itself.

Export writes the description into a bundle and the model into graphs, and the torch backend runs them; all of them read
a checkpoint here. Torch is imported only when the model is loaded.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.files import read_json
from wise_edge.native.pretrained import load_pretrained
from wise_edge.policy.prompts import PromptSet
from wise_edge.policy.spec import PolicySpec

DEFAULT_VARIANT = "wise-s"
LARGE_INPUT_SIZE = 840
"""Side of the input square in px for a checkpoint whose processor accepts images of many sizes: the setting of WISE
(https://github.com/mrazhou/WISE) and Seg-Zero for Qwen2.5-VL. For Qwen3-VL it is rounded up to a multiple of its larger
image tokens."""
_CLASSES = {
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
}


def read_policy_spec(folder: Path) -> PolicySpec:
    """Read the config, processor, tokenizer and prompts of a Hugging Face folder.

    Args:
        folder: has config.json, generation_config.json, preprocessor_config.json, tokenizer.json and prompts.json.

    Raises:
        UsageError: a file is missing or malformed, or the architecture is not supported; the message names the file.
    """
    config = read_json(folder / "config.json")
    family = _family(folder, config)
    processor = read_json(folder / "preprocessor_config.json")
    prompts = PromptSet.from_dict(read_json(folder / "prompts.json"))
    eos = read_json(folder / "generation_config.json").get("eos_token_id")
    tokens = _TokenNames(folder)
    text = config.get("text_config", config)  # older folders keep the language model's entries at the top
    try:
        spec = PolicySpec(
            family=family,
            input_size=_input_size(processor),
            patch_size=processor["patch_size"],
            merge_size=processor["merge_size"],
            temporal_patch_size=processor["temporal_patch_size"],
            image_mean=tuple(processor["image_mean"]),
            image_std=tuple(processor["image_std"]),
            prompts=prompts,
            default_variant=DEFAULT_VARIANT,
            image_token=tokens.name(config["image_token_id"]),
            eos_tokens=tuple(tokens.name(token) for token in (eos if isinstance(eos, list) else [eos])),
            hidden_size=text["hidden_size"],
            num_layers=text["num_hidden_layers"],
            num_kv_heads=text["num_key_value_heads"],
            head_dim=text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"],
            max_positions=text["max_position_embeddings"],
        )
    except KeyError as error:
        raise UsageError(f"{folder}: its config files lack the entry {error}; copy the complete checkpoint") from error
    if spec.input_size % (spec.patch_size * spec.merge_size):
        unit = spec.patch_size * spec.merge_size
        raise UsageError(f"{folder}: the image side of {spec.input_size} px is not a multiple of {unit}")
    return spec


def load_policy(folder: Path, device: str = "cpu") -> Any:
    """Load a checkpoint folder's weights.

    Args:
        folder: a Hugging Face folder.
        device: "cpu", or "cuda" for half the memory and fused attention.

    Returns:
        transformers' model of the folder's family in evaluation mode: float32 with eager attention on the CPU, bfloat16
        with scaled dot-product attention on a GPU.

    Raises:
        UsageError: the weights are missing or do not fit the config.
        MissingExtraError: torch or transformers is not installed.
    """
    torch = require("torch", "export")
    # transformers 5.24 warns at every call about an argument name, the only one that 5.23 accepts.
    warnings.filterwarnings("ignore", r"`past_key_values` is deprecated", FutureWarning)
    on_cpu = device == "cpu"
    model = load_pretrained(
        _CLASSES[_family(folder, read_json(folder / "config.json"))],
        folder,
        dtype=torch.float32 if on_cpu else torch.bfloat16,
        attention="eager" if on_cpu else "sdpa",
    )
    return model.to(device)


def _family(folder: Path, config: dict[str, Any]) -> str:
    family = config.get("model_type")
    if family not in _CLASSES:
        raise UsageError(f"{folder / 'config.json'}: model_type is {family!r}; supported are {', '.join(_CLASSES)}")
    return str(family)


class _TokenNames:
    def __init__(self, folder: Path) -> None:
        self._file = folder / "tokenizer.json"
        self._names: dict[int, str] = {
            entry["id"]: entry["content"] for entry in read_json(self._file).get("added_tokens", [])
        }

    def name(self, token: Any) -> str:
        if token not in self._names:
            raise UsageError(f"{self._file} lacks the special token {token} that the config names")
        return self._names[token]


def _input_size(processor: dict[str, Any]) -> int:
    size = processor.get("size", {})
    smallest = size.get("shortest_edge", processor.get("min_pixels"))
    largest = size.get("longest_edge", processor.get("max_pixels"))
    if smallest is None or smallest != largest:
        unit = int(processor["patch_size"]) * int(processor["merge_size"])
        return math.ceil(LARGE_INPUT_SIZE / unit) * unit
    return math.isqrt(smallest)
