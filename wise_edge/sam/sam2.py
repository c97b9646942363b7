"""SAM 2 and 2.1 checkpoints: Hugging Face folders of transformers' `Sam2Model` or `Sam2VideoModel`, and Meta's files.

The published ones (https://huggingface.co/facebook/sam2.1-hiera-tiny and others, `sam2.1_hiera_tiny.pt`) hold the video
model, whose image part is the same; its memory is skipped. Torch is imported only when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wise_edge.arguments import is_count
from wise_edge.errors import UsageError, first_line
from wise_edge.extras import require
from wise_edge.files.documents import read_json
from wise_edge.mapping import from_mapping
from wise_edge.native.pretrained import load_pretrained
from wise_edge.native.weight_files import check_finite
from wise_edge.sam.names import IMAGE_PARTS, share_positions, to_sam2_model
from wise_edge.sam.processor import IMAGENET, PerChannel, read_normalization
from wise_edge.sam.spec import SamSpec
from wise_edge.sam.weights import fill_model, read_weights

if TYPE_CHECKING:
    from torch import Tensor

_INPUT_SIZE, _PATCH_SIZE = 1024, 16
"""Of every published model; no shape depends on the input's size."""
_GLOBAL_STRIDE, _MOST_HEADS = 16, 8
"""The stage of the encoder that attends globally: side of a cell in px, and heads, those of hiera-large."""
_TRUNK = "vision_encoder.backbone."


@dataclass(frozen=True)
class _Size:
    """What the shapes of a published size's tensors do not tell.

    Source: https://github.com/facebookresearch/sam2/tree/main/sam2/configs/sam2.1.
    """

    heads: int
    global_blocks: tuple[int, ...]
    windows: tuple[int, int, int, int]


_SIZES = {
    (96, 12): _Size(1, (5, 7, 9), (8, 4, 14, 7)),
    (96, 16): _Size(1, (7, 10, 13), (8, 4, 14, 7)),
    (112, 24): _Size(2, (12, 16, 20), (8, 4, 14, 7)),
    (144, 48): _Size(2, (23, 33, 43), (8, 4, 16, 8)),
}
"""Tiny, small, base plus and large, by width and number of blocks."""


def read_spec(checkpoint: Path) -> SamSpec:
    """Return the description of a checkpoint.

    Args:
        checkpoint: a folder with config.json and, if its normalization is not ImageNet's, a processor's settings; or a
            file, which is of a published model's input size.

    Raises:
        UsageError: the input is not square, or an entry is missing or malformed.
    """
    config = {} if checkpoint.is_file() else read_json(checkpoint / "config.json")
    return describe(checkpoint, "sam2", config)


def describe(
    checkpoint: Path,
    family: str,
    config: Mapping[str, Any],
    size: int = _INPUT_SIZE,
    patch: int = _PATCH_SIZE,
    normalization: Mapping[str, PerChannel] = IMAGENET,
) -> SamSpec:
    """Return the description of a checkpoint of SAM 2 or of a family built like it.

    Args:
        checkpoint: file or folder.
        family: name of a row of `wise_edge.sam.families`.
        config: holds prompt_encoder_config; empty for a file.
        size: side of the published models' input, px.
        patch: px of that side for a cell of the embedding.
        normalization: of checkpoints without a processor's settings; see `read_normalization`.

    Raises:
        UsageError: the input is not square, or an entry is malformed.
    """
    found = config.get("prompt_encoder_config")
    prompt = found if isinstance(found, Mapping) else {}
    size, patch = prompt.get("image_size", size), prompt.get("patch_size", patch)
    if not is_count(size) or not is_count(patch):
        raise UsageError(f"{checkpoint / 'config.json'}: image_size is {size}; only square inputs can be exported")
    mean, std = read_normalization(checkpoint, normalization)
    entries = {
        "family": family,
        "input_size": size,
        "low_res_size": 4 * size // patch,
        "pixel_mean": mean,
        "pixel_std": std,
        "multimask": True,
    }
    return from_mapping(SamSpec, entries, f"{checkpoint / 'config.json'}: ")


def load(checkpoint: Path) -> Any:
    """Load a checkpoint's weights.

    Args:
        checkpoint: a folder or file of `read_spec`.

    Returns:
        transformers' `Sam2Model`, float32 with eager attention, on the CPU, in evaluation mode.

    Raises:
        UsageError: weights are missing, not finite or do not fit the config; the message names the first.
        MissingExtraError: torch or transformers is not installed.
    """
    torch = require("torch", "export")
    if checkpoint.is_file():
        return _load_file(checkpoint)
    model = load_pretrained("Sam2Model", checkpoint, dtype=torch.float32, attention="eager", partial=True)
    check_finite(checkpoint, dict(model.named_parameters()))
    return model


def count_largest(checkpoint: Path) -> int:
    """Return the numbers of a global attention; see `FamilyModule`."""
    return int(_MOST_HEADS * (read_spec(checkpoint).input_size // _GLOBAL_STRIDE) ** 4)


def _load_file(file: Path) -> Any:
    transformers = require("transformers", "export")
    weights = read_weights(file)
    named = any(name.startswith(_TRUNK) for name in weights)
    image = {name: tensor for name, tensor in weights.items() if name.startswith(IMAGE_PARTS)}
    state = share_positions(image) if named else to_sam2_model(weights)
    config = transformers.Sam2Config(vision_config=_vision_config(file, state))
    return build("Sam2Model", config, state, file, "SAM 2")


def build(class_name: str, config: Any, state: Mapping[str, Tensor], checkpoint: Path, title: str) -> Any:
    """Build a model of transformers and give it tensors that already have its names.

    Args:
        class_name: name of transformers' model class.
        config: the config of that class.
        state: all of its tensors, in any type of floats.
        checkpoint: the checkpoint, for the message.
        title: what people call the family, for the message.

    Returns:
        The model, float32 with eager attention, on the CPU, in evaluation mode.

    Raises:
        UsageError: a tensor is missing, too many, not finite or of another shape; the message names the first.
    """
    config._attn_implementation = "eager"
    try:
        model = getattr(require("transformers", "export"), class_name)(config)
    except Exception as error:  # a config of other types fails anywhere in a model
        raise UsageError(f"{checkpoint} cannot be loaded: {first_line(error)}") from error
    fill_model(model, state, checkpoint, title)
    return model


def _vision_config(file: Path, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the image encoder's config of one of the published sizes."""
    try:
        width = len(state[f"{_TRUNK}patch_embed.projection.weight"])
        background = state[f"{_TRUNK}pos_embed"].shape[2:]
    except KeyError as error:
        raise UsageError(f"{file} lacks {error}; it is not a complete checkpoint of SAM 2") from error
    blocks = {int(name.removeprefix(f"{_TRUNK}blocks.").split(".")[0]) for name in state if f"{_TRUNK}blocks." in name}
    # A stage begins with the block whose width is doubled by a projection of its own.
    starts = [0, *sorted(block for block in blocks if f"{_TRUNK}blocks.{block}.proj.weight" in state), len(blocks)]
    size = _SIZES.get((width, len(blocks)))
    if size is None or len(starts) != 5:
        raise UsageError(
            f"{file} is none of SAM 2's published sizes: its encoder has {len(blocks)} blocks, {width} wide at first; "
            "pass a folder of transformers' Sam2Model, whose config says the rest"
        )
    widths = [width << stage for stage in range(4)]
    return {
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": width,
            "num_attention_heads": size.heads,
            "blocks_per_stage": [after - start for start, after in pairwise(starts)],
            "embed_dim_per_stage": widths,
            "num_attention_heads_per_stage": [size.heads << stage for stage in range(4)],
            "window_size_per_stage": [*size.windows],
            "global_attention_blocks": [*size.global_blocks],
            "window_positional_embedding_background_size": [*background],
        },
        "backbone_channel_list": widths[::-1],
    }
