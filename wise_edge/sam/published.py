"""The architecture of a segment-anything checkpoint (`sam_vit_b_01ec64.pth` and others), by the shapes of its tensors.

So renamed files and finetuned models load too (https://github.com/facebookresearch/segment-anything#model-checkpoints).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wise_edge.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

DECODER_HEADS = 8
"""Attention heads of the mask decoder in every published model; no shape depends on it."""


def infer_architecture(
    checkpoint: Path, weights: Mapping[str, Tensor], rename: Callable[[str], str] = str
) -> dict[str, Any]:
    """Return the arguments of `SamArchitecture` that match these weights.

    Args:
        checkpoint: the checkpoint, for the message.
        weights: its tensors.
        rename: segment-anything's name of a tensor to the one in `weights`.

    Raises:
        UsageError: a tensor whose shape is needed is missing, or the encoder has no relative positions.
    """
    try:
        return _infer({name: tuple(tensor.shape) for name, tensor in weights.items()}, rename)
    except KeyError as error:
        raise UsageError(f"{checkpoint} lacks {error}; it is not a complete checkpoint of segment-anything") from error
    except ValueError as error:
        raise UsageError(f"{checkpoint} has tensors of other shapes than segment-anything's; pass another") from error


def _infer(shapes: Mapping[str, tuple[int, ...]], rename: Callable[[str], str]) -> dict[str, Any]:
    def shape(name: str) -> tuple[int, ...]:
        return shapes[rename(name)]

    def count(stem: str) -> int:
        start = rename(stem)
        numbers = [int(name.removeprefix(start).split(".")[0]) for name in shapes if name.startswith(start)]
        if not numbers:
            raise KeyError(start)
        return 1 + max(numbers)

    width, _, patch, _ = shape("image_encoder.patch_embed.proj.weight")
    depth = count("image_encoder.blocks.")
    # Relative positions have length 2 * side - 1, of the window in most blocks and of the entire image in the others.
    reach = [shape(f"image_encoder.blocks.{block}.attn.rel_pos_h") for block in range(depth)]
    sides = [(length + 1) // 2 for length, _ in reach]
    grid, head_dim = max(sides), reach[0][1]
    return {
        "input_size": grid * patch,
        "patch_size": patch,
        "encoder_dim": width,
        "encoder_depth": depth,
        "encoder_heads": width // head_dim,
        "window_size": min(sides),
        "global_attention": tuple(block for block, side in enumerate(sides) if side == grid),
        "relative_positions": True,
        "prompt_dim": shape("image_encoder.neck.0.weight")[0],
        "decoder_depth": count("mask_decoder.transformer.layers."),
        "decoder_heads": DECODER_HEADS,
        "decoder_mlp_dim": shape("mask_decoder.transformer.layers.0.mlp.lin1.weight")[0],
        "mask_input_channels": shape("prompt_encoder.mask_downscaling.3.weight")[0],
    }
