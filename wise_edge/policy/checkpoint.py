"""Reading a policy's checkpoint folder: what it says about the policy, and the model itself.

Export writes the one into a bundle and the other into graphs, the torch backend runs both; all must read the same.
Torch is imported only when the model is loaded.
"""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError, first_line
from wise_edge.extras import require
from wise_edge.policy.prompts import PromptSet
from wise_edge.policy.spec import PolicySpec

DEFAULT_VARIANT = "wise-s"
LARGE_INPUT_SIZE = 840
"""Side of the square for a checkpoint whose processor takes images of many sizes: the setting of WISE
(https://github.com/mrazhou/WISE) and Seg-Zero for Qwen2.5-VL; for Qwen3-VL the next multiple of its larger tokens."""
_CLASSES = {
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
}


def read_policy_spec(folder: Path) -> PolicySpec:
    """Read config, processor, tokenizer and prompts of a Hugging Face folder.

    Args:
        folder: holds config.json, generation_config.json, preprocessor_config.json, tokenizer.json and prompts.json.

    Raises:
        UsageError: a file is missing or malformed, or the architecture is none of the three; the line names the file.
    """
    config = _read_json(folder, "config.json")
    family = _family(folder, config)
    processor = _read_json(folder, "preprocessor_config.json")
    prompts = PromptSet.from_dict(_read_json(folder, "prompts.json"))
    eos = _read_json(folder, "generation_config.json").get("eos_token_id")
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
        raise UsageError(f"{folder}: its config files have no entry {error}") from error
    if spec.input_size % (spec.patch_size * spec.merge_size):
        unit = spec.patch_size * spec.merge_size
        raise UsageError(f"{folder}: the image's side of {spec.input_size} px is not a multiple of {unit}")
    return spec


def load_policy(folder: Path, device: str = "cpu") -> Any:
    """Load a checkpoint folder's weights.

    Args:
        folder: an ordinary Hugging Face folder.
        device: "cpu", or "cuda" for half the memory and fused attention.

    Returns:
        transformers' model of the folder's family in evaluation mode: float32 with eager attention on the CPU, bfloat16
        with scaled dot-product attention on a GPU.

    Raises:
        UsageError: the weights are missing or do not fit the config.
        MissingExtraError: torch or transformers is not installed.
    """
    torch = require("torch", "export")
    transformers = require("transformers", "export")
    damaged = require("safetensors", "export").SafetensorError
    model_class = getattr(transformers, _CLASSES[_family(folder, _read_json(folder, "config.json"))])
    # 5.24 warns of a name at every call that 5.23 knows alone.
    warnings.filterwarnings("ignore", r"`past_key_values` is deprecated", FutureWarning)
    logs = transformers.utils.logging
    had_bars = logs.is_progress_bar_enabled()
    logs.disable_progress_bar()
    try:
        model, report = model_class.from_pretrained(
            folder,
            dtype=torch.float32 if device == "cpu" else torch.bfloat16,
            attn_implementation="eager" if device == "cpu" else "sdpa",
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError, damaged) as error:
        raise UsageError(f"{folder} cannot be loaded: {first_line(error)}") from error
    finally:
        if had_bars:
            logs.enable_progress_bar()
    if missing := sorted(report["missing_keys"]):  # transformers would go on with random numbers
        raise UsageError(f"{folder} lacks the weight {missing[0]}")
    return model.eval().to(device)


def _family(folder: Path, config: dict[str, Any]) -> str:
    family = config.get("model_type")
    if family not in _CLASSES:
        raise UsageError(f"{folder / 'config.json'}: model_type is {family!r}; this runs {', '.join(_CLASSES)}")
    return str(family)


class _TokenNames:
    def __init__(self, folder: Path) -> None:
        self._file = folder / "tokenizer.json"
        self._names: dict[int, str] = {
            entry["id"]: entry["content"] for entry in _read_json(folder, self._file.name).get("added_tokens", [])
        }

    def name(self, token: Any) -> str:
        if token not in self._names:
            raise UsageError(f"{self._file} has no special token {token}, which the config names")
        return self._names[token]


def _input_size(processor: dict[str, Any]) -> int:
    size = processor.get("size", {})
    least = size.get("shortest_edge", processor.get("min_pixels"))
    most = size.get("longest_edge", processor.get("max_pixels"))
    if least is None or least != most:
        unit = int(processor["patch_size"]) * int(processor["merge_size"])
        return math.ceil(LARGE_INPUT_SIZE / unit) * unit
    return math.isqrt(least)


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    file = folder / name
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{file} is not JSON") from error
    if not isinstance(data, dict):
        raise UsageError(f"{file} does not hold a JSON object")
    return data
