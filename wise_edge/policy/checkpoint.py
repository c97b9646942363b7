"""Reading a policy's checkpoint folder: its description as a `PolicySpec`, and the model itself.

Export writes the description into a bundle and the model into graphs, and the torch backend runs them; all of them read
a checkpoint here. Torch is imported only when the model is loaded.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wise_edge.arguments import is_count
from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.files.documents import TOKENIZER_BYTES, read_json
from wise_edge.mapping import from_mapping
from wise_edge.native.pretrained import load_pretrained
from wise_edge.native.weight_files import check_finite, list_tensors
from wise_edge.policy.answers.conventions import Told, complete_entries
from wise_edge.policy.answers.form import BOX_POINTS
from wise_edge.policy.architecture import CLASSES, load_config
from wise_edge.policy.folder import check_policy_folder
from wise_edge.policy.processor import read_image_settings
from wise_edge.policy.prompts import IMAGE_TOKEN, MARKUP, TURN_END, PromptSet, fit_wording, read_prompts
from wise_edge.policy.spec import PolicySpec
from wise_edge.policy.wording import named_form, refuse_other_form
from wise_edge.ranges import shorten

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Types of stored weights as safetensors names them, and as torch does."""


def read_policy_spec(folder: Path, prompts: PromptSet | None = None, told: Told | None = None) -> PolicySpec:
    """Read the config, processor, tokenizer, prompts and conventions of a Hugging Face folder.

    Args:
        folder: has config.json, weights, tokenizer.json, prompts.json and the image processor's settings;
            generation_config.json may be missing.
        prompts: the wording, if the folder's does not count.
        told: what counts more than what the folder says of pictures and answers.

    Raises:
        UsageError: it is no checkpoint that can be used, see `check_policy_folder`, or a file is missing or malformed;
            the message names the file.
    """
    config = check_policy_folder(folder)
    prompts = prompts or read_prompts(folder)
    images = read_image_settings(folder, config.get("vision_config") or {})
    known = complete_entries(folder, config["model_type"], images, told or Told())
    form = known.setdefault("form", named_form(prompts) or BOX_POINTS)
    prompts = fit_wording(prompts, known["coordinates"], form)
    refuse_other_form(prompts, form)
    tokens = _TokenNames(folder)
    text = config.get("text_config") or config  # older folders keep the language model's entries at the top
    try:
        tokens.check_size(text["vocab_size"])
        entries = {
            "family": config["model_type"],
            "patch_size": images.patch_size,
            "merge_size": images.merge_size,
            "temporal_patch_size": images.temporal_patch_size,
            "image_mean": images.mean,
            "image_std": images.std,
            "prompts": prompts,
            "default_variant": prompts.default_variant,
            "image_token": tokens.image_token(config["image_token_id"]),
            "eos_tokens": tokens.end_tokens(config, text),
            "hidden_size": text["hidden_size"],
            "num_layers": text["num_hidden_layers"],
            "num_kv_heads": text["num_key_value_heads"],
            "head_dim": text.get("head_dim") or _divide(text["hidden_size"], text["num_attention_heads"]),
            "max_positions": text["max_position_embeddings"],
            "deepstack_layers": _count_deepstack(folder),
            **known,
        }
    except KeyError as error:
        raise UsageError(f"{folder / 'config.json'} lacks the entry {error}; copy the complete checkpoint") from error
    spec = from_mapping(PolicySpec, entries, f"{folder / 'config.json'}: ")
    if (image_tokens := spec.max_image_tokens) >= spec.max_positions:
        raise UsageError(
            f"{folder}: an image takes up to {image_tokens} positions and the model has {spec.max_positions}; lower "
            "max_pixels in the settings of its image processor, or export with fewer --pixels"
        )
    return spec


def load_policy(folder: Path, device: str = "cpu") -> Any:
    """Load a checkpoint folder's weights.

    Args:
        folder: a Hugging Face folder.
        device: "cpu", or "cuda" for half the memory and fused attention.

    Returns:
        transformers' model of the folder's family in evaluation mode: float32 with eager attention on the CPU, bfloat16
        with scaled dot-product attention on a GPU. Its generation config is transformers' default: the folder's may ask
        for sampling and penalties, which no runtime applies.

    Raises:
        UsageError: it is no checkpoint that can be used, see `check_policy_folder`, or the weights do not fit or are
            not finite.
        MissingExtraError: torch or transformers is not installed.
    """
    torch, transformers = require("torch", "export"), require("transformers", "export")
    # transformers 5.24 warns at every call about an argument name, the only one that 5.23 accepts.
    warnings.filterwarnings("ignore", r"`past_key_values` is deprecated", FutureWarning)
    on_cpu = device == "cpu"
    if on_cpu:  # Qwen3.5 advises packages that need a GPU, in four lines
        logging.getLogger("transformers.integrations.hub_kernels").setLevel(logging.ERROR)
    model = load_pretrained(
        CLASSES[check_policy_folder(folder)["model_type"]],
        folder,
        dtype=torch.float32 if on_cpu else torch.bfloat16,
        attention="eager" if on_cpu else "sdpa",
    )
    check_finite(folder, dict(model.named_parameters()))
    model.generation_config = transformers.GenerationConfig()
    return model.to(device)


def stored_dtype(folder: Path) -> str:
    """Return torch's name of the type that a folder's weights are kept in: its config's, else that of most numbers.

    Raises:
        UsageError: the config or the weights are missing or damaged.
    """
    config = read_json(folder / "config.json")
    for entries in (config, config.get("text_config") or {}):
        for key in ("dtype", "torch_dtype"):  # older versions of transformers write the second
            if (name := str(entries.get(key)).removeprefix("torch.")) in _DTYPES.values():
                return name
    numbers: Counter[str] = Counter()
    for tensor in list_tensors(folder):
        numbers[tensor.dtype] += math.prod(tensor.shape)
    return _DTYPES.get(max(numbers, key=numbers.__getitem__), "float32")


def _divide(width: Any, heads: Any) -> int | None:
    return int(width) // int(heads) if is_count(width) and is_count(heads) else None


def _count_deepstack(folder: Path) -> int:
    """Return how many layers of the vision tower hand features to the language model."""
    vision = load_config(folder).vision_config
    handing = getattr(vision, "deepstack_visual_indexes", ())
    return sum(layer in handing for layer in range(vision.depth))


class _TokenNames:
    """The tokens of a folder's tokenizer.json by their numbers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "tokenizer.json"
        if not self._file.is_file() and (folder / "vocab.json").is_file():
            write = f"T.from_pretrained('{folder}').save_pretrained('{folder}')"
            raise UsageError(
                f"{folder} has vocab.json and merges.txt but no tokenizer.json, which is needed; write it: python -c "
                f'"from transformers import AutoTokenizer as T; {write}"'
            )
        content = read_json(self._file, TOKENIZER_BYTES)
        try:
            self._names: dict[int, str] = {index: token for token, index in content["model"]["vocab"].items()}
            self._names |= {entry["id"]: entry["content"] for entry in content.get("added_tokens") or ()}
            if not all(type(index) is int and isinstance(token, str) for index, token in self._names.items()):
                raise TypeError("a token is not text, or its number is none")
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{self._file} is not a tokenizer with a vocabulary; copy it again") from error
        if missing := sorted({*MARKUP}.difference(self._names.values())):
            raise UsageError(f"{self._file} lacks the token {missing[0]} of Qwen's chat markup; copy it again")

    def check_size(self, rows: Any) -> None:
        """Raise `UsageError` if a token has no row in the embedding."""
        if not is_count(rows):
            raise UsageError(f"{self._folder / 'config.json'}: vocab_size is {shorten(rows)}; copy it again")
        if (largest := max(self._names)) >= rows:
            raise UsageError(
                f"{self._file} has the token {largest}, the model ends at {rows - 1}; they do not belong together"
            )

    def image_token(self, number: Any) -> str:
        """Return the placeholder of an image token, given its number in the config."""
        if (name := self._name(number)) != IMAGE_TOKEN:
            raise UsageError(
                f"{self._folder / 'config.json'}: image_token_id is {number}, which is {name!r} in tokenizer.json and "
                f"not {IMAGE_TOKEN!r}; they do not belong together"
            )
        return name

    def end_tokens(self, config: Mapping[str, Any], text: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the tokens that end a completion: the folder's own, and the end of a turn in the chat markup."""
        file = self._folder / "generation_config.json"
        generation = read_json(file) if file.is_file() else {}
        named = (source.get("eos_token_id") for source in (generation, config, text))
        found: Any = next((numbers for numbers in named if numbers not in (None, [])), [])
        names = map(self._name, found if isinstance(found, list) else [found])
        return tuple(dict.fromkeys((*names, TURN_END)))

    def _name(self, number: Any) -> str:
        if not isinstance(number, int) or number not in self._names:
            raise UsageError(f"{self._file} lacks the token {number} that the config names; copy the whole checkpoint")
        return self._names[number]
