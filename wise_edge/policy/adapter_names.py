"""Which tensors a LoRA adapter must hold for a base, and where each stored tensor belongs in PEFT's model of it.

PEFT adds the adapter to the base's architecture without memory, which gives every name and shape that it expects; the
adapter's file must hold these and no others. Adapters come with names of several origins: transformers before 4.52
had `model.layers` and `visual` where today's base has `model.language_model.layers` and `model.visual`, trainers leave
PEFT's own prefix out or repeat it, and a state saved by hand keeps the adapter's name. All are mapped, and so are
patterns of the adapter's config that were written for the older names.
"""

from __future__ import annotations

import copy
import dataclasses
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.files.documents import read_json
from wise_edge.native.weight_files import StoredTensor, list_tensors
from wise_edge.policy.architecture import Difference, build_skeleton, normalize_name, normalize_tensors

CONFIG = "adapter_config.json"
"""The file by which PEFT's folder of an adapter is known."""
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_KIND = "LORA"
_EVERY_LINEAR = "all-linear"
_WITHOUT_A_PART = ("training_args.bin", "optimizer*.bin", "scheduler*.bin", "value_head.*")
"""Files of a training beside an adapter that hold nothing of the policy; `value_head` is a critic's."""
_BY_CHANCE = "pissa_niter_"
"""How a start begins that takes a part out of the base by a random projection."""
_WRAPPERS = re.compile(r"^(?:base_model\.model\.|base_model\.|module\.|_orig_mod\.)+")
_NAMED_MATRIX = re.compile(
    r"\.(lora_A|lora_B|lora_magnitude_vector)(?:\.(?!(?:weight|bias)$)[^.]+)?(?:\.(weight|bias))?$"
)
_NAMED_VALUES = re.compile(r"\.(lora_embedding_A|lora_embedding_B|trainable_tokens_delta)\.[^.]+$")
_NAMED_MODULE = re.compile(r"\.modules_to_save\.(?:default\.)?")
_BASE_COPY = ".original_module."  # the base's own weights, in a state that was saved by hand


@dataclass(frozen=True)
class FittedAdapter:
    """An adapter whose tensors all have a place in a base, and whose places all have a tensor.

    Attributes:
        folder: PEFT's folder.
        config: `peft.LoraConfig` for the names of today's transformers.
        tensors: the stored tensors under the names that PEFT loads them by.
    """

    folder: Path
    config: Any
    tensors: Mapping[str, StoredTensor]


def fit_adapter(folder: Path, base_config: Any, *, base: str | Path) -> FittedAdapter:
    """Find the place of every tensor of an adapter, from the headers of the files alone.

    Args:
        folder: PEFT's folder of a LoRA adapter.
        base_config: transformers' config of the policy to merge it into.
        base: that policy's name, for messages.

    Raises:
        UsageError: the folder holds no LoRA adapter, or its tensors are not those that its config asks for in this
            base; the message names the first three of each kind.
        MissingExtraError: peft is not installed.
    """
    config = read_adapter_config(folder)
    stored = [tensor for tensor in list_tensors(folder, WEIGHTS) if _BASE_COPY not in tensor.name]
    if not stored:
        raise UsageError(f"{folder} holds no weights of an adapter; it needs {WEIGHTS[0]}, copy the whole folder")
    _refuse_other_weights(folder)
    found = normalize_tensors(stored, _canonical)
    attempts: list[tuple[Difference, Any, Mapping[str, str]]] = []
    reasons = []
    for layout in (_todays, _older):
        skeleton = build_skeleton(base_config, source=base)
        try:
            adapted = layout(config, skeleton)
            expected, spare = _expected(skeleton, adapted)
        except Exception as error:  # PEFT compiles patterns of the config, and asks it for whatever it needs
            reasons.append(whole_reason(error))
            continue
        names = {_canonical(name): name for name in (*spare, *expected)}
        shapes = {_canonical(name): shape for name, shape in (spare | expected).items()}
        may_lack = shapes.keys() - {_canonical(name) for name in expected}
        difference = Difference.between(shapes, found, may_lack)
        if not difference:
            return FittedAdapter(folder, adapted, {names[name]: tensor for name, tensor in found.items()})
        attempts.append((difference, adapted, names))
    if not attempts:
        raise UsageError(f"{folder} does not fit {base}: {reasons[0]}")
    difference = min((attempt[0] for attempt in attempts), key=len)
    raise UsageError(f"{folder} does not fit {base}: it {difference}; {_remedy(difference)}")


def read_adapter_config(folder: Path) -> Any:
    """Return `peft.LoraConfig` of an adapter's folder.

    Raises:
        UsageError: there is none, it is malformed, or the adapter is of another kind.
        MissingExtraError: peft is not installed.
    """
    file = folder / CONFIG
    if not file.is_file():
        below = sorted(folder.glob(f"*/{CONFIG}"), key=lambda found: found.stat().st_mtime)
        remedy = f"; pass the folder of one in it, for example {below[-1].parent}" if below else ""
        raise UsageError(f"{folder} holds no adapter: it has no {CONFIG}{remedy}")
    entries = read_json(file)
    kind = str(entries.get("peft_type")).upper()
    if kind != _KIND:
        raise UsageError(
            f"{folder} is a {kind} adapter, and only {_KIND} (DoRA and rsLoRA too) is merged here; merge it with the "
            "library that trained it and pass the result as --policy, or train a LoRA"
        )
    peft = require("peft", "train")
    known = {field.name for field in dataclasses.fields(peft.LoraConfig)}
    known.discard("runtime_config")  # of the run that saved it
    kept = {key: value for key, value in entries.items() if key in known or value}  # an empty entry asks for nothing
    try:
        config = peft.LoraConfig.from_peft_type(**kept)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise UsageError(f"{file} is not the config of a LoRA adapter: {whole_reason(error)}") from error
    if str(config.init_lora_weights).startswith(_BY_CHANCE):
        # https://huggingface.co/docs/peft/developer_guides/lora#pissa: PEFT repeats the start when it loads one.
        raise UsageError(
            f"{file}: init_lora_weights is {config.init_lora_weights!r}: training took a random part out of the base, "
            "which is not stored; save the adapter with path_initial_model_for_weight_conversion"
        )
    return config


def _refuse_other_weights(folder: Path) -> None:
    """Reject trained weights beside an adapter, for example of the vision tower, which a merge would lose.

    Trainers save parts that are trained whole so: `non_lora_state_dict.bin` (Qwen-VL-Series-Finetune),
    `non_lora_trainables.bin` (LLaVA), `vit.safetensors` (ms-swift).
    """
    for file in sorted(folder.iterdir()):
        known = file.name in WEIGHTS or any(file.match(pattern) for pattern in _WITHOUT_A_PART)
        if file.suffix in (".safetensors", ".bin") and not known and file.is_file():
            raise UsageError(
                f"{file} holds weights that belong to no LoRA and would be lost; merge adapter and file with the "
                "library that trained them and pass the result as --policy, or remove the file if it is not needed"
            )


def _todays(config: Any, skeleton: Any) -> Any:
    """Return a config whose targets are spelled out if it has a pattern for them."""
    adapted = copy.deepcopy(config)  # PEFT writes into the one it is given
    if isinstance(config.target_modules, str) and config.target_modules != _EVERY_LINEAR:
        _set_targets(adapted, _find_targets(config, skeleton))
    return adapted


def _older(config: Any, skeleton: Any) -> Any:
    """Return a config that means in today's names what it meant in those of transformers before 4.52."""
    from peft.utils.other import get_pattern_key

    adapted = copy.deepcopy(config)
    if config.target_modules != _EVERY_LINEAR:  # which PEFT itself spells out
        targets = _find_targets(config, skeleton, normalize_name)
        _set_targets(adapted, targets)
        for entry in ("rank_pattern", "alpha_pattern"):
            pattern = getattr(config, entry)
            keys = {name: get_pattern_key(pattern, normalize_name(name)) for name in targets}
            setattr(adapted, entry, {name: pattern[key] for name, key in keys.items() if key in pattern})
    if config.modules_to_save:
        ends = tuple(config.modules_to_save)
        names = [name for name, _ in skeleton.named_modules() if name]
        adapted.modules_to_save = [name for name in names if normalize_name(name).endswith(ends)]
    return adapted


def _find_targets(config: Any, skeleton: Any, rename: Callable[[str], str] = str) -> set[str]:
    """Return today's names of the modules that a config adapts, its names and patterns being those of `rename`.

    A pattern may name whole parts of the model, of which ms-swift and Unsloth adapt the layers alone, and PEFT refuses.
    """
    from peft.tuners.tuners_utils import check_target_module_exists

    layers = require("torch", "train").nn
    kinds = (layers.Linear, layers.Embedding, layers.Conv1d, layers.Conv2d, layers.Conv3d)
    any_kind = not isinstance(config.target_modules, str)
    return {
        name
        for name, module in skeleton.named_modules()
        if name and (any_kind or isinstance(module, kinds)) and check_target_module_exists(config, rename(name))
    }


def _set_targets(config: Any, targets: set[str]) -> None:
    if targets:  # none is an error, which PEFT words by what the config has
        config.target_modules = targets
        config.exclude_modules = config.layers_to_transform = config.layers_pattern = None


def _expected(skeleton: Any, config: Any) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Return the tensors that PEFT saves for a config, and those of the base that it may save beside them."""
    torch, peft = require("torch", "train"), require("peft", "train")
    plain = copy.deepcopy(config)
    plain.init_lora_weights = False  # other ways to start compute with the base's numbers
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(skeleton, plain)
        own, all_of_them = (
            peft.get_peft_model_state_dict(model, save_embedding_layers=embeddings) for embeddings in (False, True)
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in all_of_them.items()}
    return {name: shapes[name] for name in own}, {name: shapes[name] for name in shapes if name not in own}


def _canonical(name: str) -> str:
    """Return a tensor's name without wrappers and adapter's name, in the one layout of names."""
    name = _WRAPPERS.sub("", name)
    name = _NAMED_MATRIX.sub(lambda match: f".{match[1]}.{match[2] or 'weight'}", name)
    name = _NAMED_MODULE.sub(".", _NAMED_VALUES.sub(r".\1", name))
    return normalize_name(name)


def whole_reason(error: Exception) -> str:
    """Return an error's message on one line, without the description of a module, whose lines are indented."""
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith(" "))


def _remedy(difference: Difference) -> str:
    """Return what to do about an adapter that does not fit."""
    if difference.empty:
        return "DeepSpeed ZeRO-3 saved them without gathering: convert its checkpoint, or save the adapter again"
    if any(name.endswith(("embed_tokens.weight", "lm_head.weight")) for name, *_ in difference.reshaped):
        return "it was trained with added tokens: resize the base's vocabulary, save it with the adapter's tokenizer"
    return "name the base it was trained on, and copy the whole adapter"
