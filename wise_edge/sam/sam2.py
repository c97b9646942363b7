"""SAM 2 and 2.1 checkpoints: Hugging Face folders of transformers' `Sam2Model` or `Sam2VideoModel`.

The published ones (https://huggingface.co/facebook/sam2.1-hiera-tiny and its kin) hold the video model, whose image
part is the same; its memory is left out. Torch is imported only when the model is loaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError, first_line
from wise_edge.extras import require
from wise_edge.sam.spec import SAM2, SamSpec

MODEL_TYPES = ("sam2", "sam2_video")
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # the published processors' mean and standard deviation


def read_sam2_spec(folder: Path, config: dict[str, Any]) -> SamSpec:
    """Return what a checkpoint folder says of the segmenter.

    Args:
        folder: with config.json and, where means differ from ImageNet's, preprocessor_config.json.
        config: config.json.

    Raises:
        UsageError: images are no squares, or an entry is missing or malformed.
    """
    prompt = config.get("prompt_encoder_config") or {}
    size, patch = prompt.get("image_size", 1024), prompt.get("patch_size", 16)
    if not isinstance(size, int) or not isinstance(patch, int):
        raise UsageError(f"{folder / 'config.json'}: image_size is {size}; only squares can be exported")
    mean, std = _normalization(folder / "preprocessor_config.json")
    return SamSpec(
        family=SAM2,
        input_size=size,
        low_res_size=4 * size // patch,
        pixel_mean=tuple(round(255.0 * value, 6) for value in mean),
        pixel_std=tuple(round(255.0 * value, 6) for value in std),
        multimask=True,
    )


def _normalization(file: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if not file.exists():
        return _IMAGENET
    try:
        processor = json.loads(file.read_text(encoding="utf-8"))
        return tuple(map(float, processor["image_mean"])), tuple(map(float, processor["image_std"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} does not give image_mean and image_std ({error}); copy it again") from error


def load_sam2(folder: Path) -> Any:
    """Load a checkpoint folder's weights.

    Returns:
        transformers' `Sam2Model`, float32 with eager attention, on the CPU, in evaluation mode.

    Raises:
        UsageError: weights are missing, are no numbers or do not fit the config; the line names the first.
        MissingExtraError: torch or transformers is not installed.
    """
    torch = require("torch", "export")
    transformers = require("transformers", "export")
    damaged = require("safetensors", "export").SafetensorError
    logs = transformers.utils.logging
    had_bars, verbosity = logs.is_progress_bar_enabled(), logs.get_verbosity()
    logs.disable_progress_bar()
    logs.set_verbosity_error()  # a video model's memory is left out, which is reported otherwise
    try:
        model, report = transformers.Sam2Model.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError, damaged) as error:
        raise UsageError(f"{folder} cannot be loaded: {first_line(error)}") from error
    finally:
        logs.set_verbosity(verbosity)
        if had_bars:
            logs.enable_progress_bar()
    if missing := sorted(report["missing_keys"]):  # transformers would go on with random numbers
        raise UsageError(f"{folder} lacks the weight {missing[0]}")
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UsageError(f"{folder}: {name} holds values that are no numbers; download it again")
    return model.eval()
