"""SAM 2 and 2.1 checkpoints: Hugging Face folders of transformers' `Sam2Model` or `Sam2VideoModel`.

The published ones (https://huggingface.co/facebook/sam2.1-hiera-tiny and others) hold the video model, whose image
part is the same; its memory is skipped. Torch is imported only when the model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.files import read_json
from wise_edge.native.pretrained import load_pretrained
from wise_edge.sam.spec import SAM2, SamSpec

_PerChannel = tuple[float, float, float]

MODEL_TYPES = ("sam2", "sam2_video")
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # the published processors' mean and standard deviation


def read_sam2_spec(folder: Path, config: dict[str, Any]) -> SamSpec:
    """Return the description of a checkpoint folder.

    Args:
        folder: folder with config.json and, if its normalization is not ImageNet's, preprocessor_config.json.
        config: content of config.json.

    Raises:
        UsageError: the input is not square, or an entry is missing or malformed.
    """
    prompt = config.get("prompt_encoder_config") or {}
    size, patch = prompt.get("image_size", 1024), prompt.get("patch_size", 16)
    if not isinstance(size, int) or not isinstance(patch, int):
        raise UsageError(f"{folder / 'config.json'}: image_size is {size}; only square inputs can be exported")
    mean, std = _normalization(folder / "preprocessor_config.json")
    return SamSpec(
        family=SAM2,
        input_size=size,
        low_res_size=4 * size // patch,
        pixel_mean=_per_channel(round(255.0 * value, 6) for value in mean),
        pixel_std=_per_channel(round(255.0 * value, 6) for value in std),
        multimask=True,
    )


def _normalization(file: Path) -> tuple[_PerChannel, _PerChannel]:
    if not file.exists():
        return _IMAGENET
    try:
        processor = read_json(file)
        return _per_channel(processor["image_mean"]), _per_channel(processor["image_std"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} has no valid image_mean and image_std ({error}); copy it again") from error


def _per_channel(values: Iterable[float]) -> _PerChannel:
    red, green, blue = map(float, values)
    return red, green, blue


def load_sam2(folder: Path) -> Any:
    """Load a checkpoint folder's weights.

    Returns:
        transformers' `Sam2Model`, float32 with eager attention, on the CPU, in evaluation mode.

    Raises:
        UsageError: weights are missing, not finite or do not fit the config; the message names the first.
        MissingExtraError: torch or transformers is not installed.
    """
    torch = require("torch", "export")
    model = load_pretrained("Sam2Model", folder, dtype=torch.float32, attention="eager", partial=True)
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UsageError(f"{folder}: {name} holds values that are not finite; download it again")
    return model
