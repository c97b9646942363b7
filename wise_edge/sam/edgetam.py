"""EdgeTAM checkpoints: transformers' folders of `EdgeTamModel` or `EdgeTamVideoModel`, and Meta's file.

EdgeTAM is SAM 2 with RepViT, a network of convolutions from timm, as its image encoder
(https://github.com/facebookresearch/EdgeTAM). The published `edgetam.pt` holds the video model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.files.documents import read_json
from wise_edge.native.pretrained import load_pretrained
from wise_edge.native.weight_files import check_finite
from wise_edge.sam.families import AUTHORS
from wise_edge.sam.kinds import find_kind
from wise_edge.sam.names import IMAGE_PARTS, share_positions, to_sam2_model
from wise_edge.sam.sam2 import build, describe
from wise_edge.sam.spec import SamSpec
from wise_edge.sam.weights import read_weights

_NECK_CHANNELS, _FINEST_STRIDE = 256, 4
"""The largest array: of the neck of the published model, at its finest level."""


def read_spec(checkpoint: Path) -> SamSpec:
    """Return the description of a checkpoint; a file is of the published model's input size. See `FamilyModule`."""
    config = {} if checkpoint.is_file() else read_json(checkpoint / "config.json")
    return describe(checkpoint, "edgetam", config)


def load(checkpoint: Path) -> Any:
    """Load a checkpoint's weights.

    Returns:
        transformers' `EdgeTamModel`, float32 with eager attention, on the CPU, in evaluation mode.

    Raises:
        UsageError: weights are missing, not finite or do not fit the config; the message names the first.
        MissingExtraError: torch, transformers or timm is not installed.
    """
    torch = require("torch", "export")
    if checkpoint.is_file():
        return _load_file(checkpoint)
    model = load_pretrained("EdgeTamModel", checkpoint, dtype=torch.float32, attention="eager", partial=True)
    _check_channels(model, checkpoint / "config.json")
    check_finite(checkpoint, model.state_dict())
    return model


def count_largest(checkpoint: Path) -> int:
    """Return the numbers of the neck's largest array; see `FamilyModule`."""
    return int(_NECK_CHANNELS * (read_spec(checkpoint).input_size // _FINEST_STRIDE) ** 2)


def _load_file(file: Path) -> Any:
    transformers = require("transformers", "export")
    weights = read_weights(file)
    if find_kind(file).form == AUTHORS:
        state = to_sam2_model(weights)
    else:
        state = share_positions({name: tensor for name, tensor in weights.items() if name.startswith(IMAGE_PARTS)})
    # transformers' own default is misspelt ("archirecture") and builds a ResNet-50.
    trunk = transformers.TimmWrapperConfig(
        architecture="repvit_m1", model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    )
    config = transformers.EdgeTamConfig(vision_config=transformers.EdgeTamVisionConfig(backbone_config=trunk))
    return build("EdgeTamModel", config, state, file, "EdgeTAM")


def _check_channels(model: Any, config: Path) -> None:
    """Raise `UsageError` if a trunk gives other channels than the neck takes, which only its forward pass would say."""
    trunk = model.vision_encoder.backbone
    found, expected = trunk.timm_model.feature_info.channels()[::-1], model.config.vision_config.backbone_channel_list
    if found != expected:
        raise UsageError(
            f"{config}: the trunk {trunk.config.architecture} has {found} channels, and backbone_channel_list is "
            f"{expected}; give backbone_config the architecture of the weights, for the published EdgeTAM repvit_m1"
        )
