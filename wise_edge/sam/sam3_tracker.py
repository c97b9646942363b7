"""SAM 3's tracker, which segments by box and points: transformers' folders, and Meta's `sam3.pt`.

The published folder and file (https://huggingface.co/facebook/sam3) hold the complete model; detector and tracker share
the image encoder, and the tracker has a neck, prompt encoder and mask decoder of its own, SAM 2's. Words and memory are
skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError, first_line
from wise_edge.extras import require
from wise_edge.files.documents import read_json
from wise_edge.sam.families import AUTHORS
from wise_edge.sam.kinds import find_kind
from wise_edge.sam.names import name_sam3_tracker, to_sam3_tracker
from wise_edge.sam.processor import PerChannel
from wise_edge.sam.sam2 import build, describe
from wise_edge.sam.spec import SamSpec
from wise_edge.sam.weights import read_weights

_INPUT_SIZE, _PATCH_SIZE, _HEADS = 1008, 14, 16
"""Of the published model."""
_NORMALIZATION: Mapping[str, PerChannel] = dict.fromkeys(("image_mean", "image_std"), (0.5, 0.5, 0.5))
_PARTS = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
OWN_CODE: dict[str, Any] = {
    "vision_config": {"backbone_config": {"model_type": "sam3_vit_model", "layer_norm_eps": 1e-5}}
}
"""Meta's code differs from transformers' classes, whose default is 1e-6 (https://github.com/facebookresearch/sam3,
`sam3/model/vitdet.py`)."""


def read_spec(checkpoint: Path) -> SamSpec:
    """Return the description of a checkpoint; a file is of the published model's input size. See `FamilyModule`."""
    return describe(checkpoint, "sam3_tracker", _read_config(checkpoint), _INPUT_SIZE, _PATCH_SIZE, _NORMALIZATION)


def load(checkpoint: Path) -> Any:
    """Load a checkpoint's weights.

    transformers 5.24 has two faults here. `Sam3TrackerModel.from_pretrained` draws the mask decoder of a complete SAM 3
    at random, so tensors are named and counted here. And the model adds its embedding of "no memory" to the neck's
    last level, which is the fourth of three that are used.

    Returns:
        transformers' `Sam3TrackerModel` with the three levels of the neck that Meta's code keeps, float32 with eager
        attention, on the CPU, in evaluation mode.

    Raises:
        UsageError: weights are missing, not finite or do not fit the config; the message names the first.
        MissingExtraError: torch or transformers is not installed.
    """
    transformers = require("transformers", "export")
    weights, config = read_weights(checkpoint), _read_config(checkpoint)
    state = to_sam3_tracker(weights) if _is_own(checkpoint) else name_sam3_tracker(weights)
    try:
        entries = transformers.Sam3TrackerConfig(**{part: config[part] for part in _PARTS if part in config})
    except Exception as error:  # validators have classes of their own
        raise UsageError(f"{checkpoint / 'config.json'}: {first_line(error)}") from error
    model = build("Sam3TrackerModel", entries, state, checkpoint, "SAM 3")
    neck = model.vision_encoder.neck
    neck.fpn_layers = neck.fpn_layers[: len(model.backbone_feature_sizes)]
    return model


def count_largest(checkpoint: Path) -> int:
    """Return the numbers of a global attention; see `FamilyModule`."""
    spec = read_spec(checkpoint)
    return int(_HEADS * (spec.low_res_size // 4) ** 4)


def _is_own(checkpoint: Path) -> bool:
    """Return whether a checkpoint is a file of Meta's code."""
    return find_kind(checkpoint).form == AUTHORS


def _read_config(checkpoint: Path) -> dict[str, Any]:
    """Return the tracker's entries of a folder's config; for a file, what is not transformers' default."""
    if checkpoint.is_file():
        return OWN_CODE if _is_own(checkpoint) else {}
    config = read_json(checkpoint / "config.json")
    tracker = config.get("tracker_config", config)  # of the complete model
    return tracker if isinstance(tracker, dict) else {}
