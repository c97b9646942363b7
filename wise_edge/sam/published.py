"""The architecture of a checkpoint (`sam_vit_b_01ec64.pth` and others), by the shapes of its tensors.

So renamed files and finetuned models load too (https://github.com/facebookresearch/segment-anything#model-checkpoints).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wise_edge.errors import UsageError
from wise_edge.sam.decoder import infer_decoder

if TYPE_CHECKING:
    from torch import Tensor

Shape = Callable[[str], tuple[int, ...]]
Count = Callable[[str], int]


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
    return infer(checkpoint, "segment-anything", weights, _infer_vit, rename)


def infer(
    checkpoint: Path,
    title: str,
    weights: Mapping[str, Tensor],
    read: Callable[[Shape, Count], dict[str, Any]],
    rename: Callable[[str], str] = str,
) -> dict[str, Any]:
    """Return what `read` finds in the shapes of tensors.

    Args:
        checkpoint: the checkpoint, for the message.
        title: what the model is called.
        weights: its tensors.
        read: is given two functions: a tensor's name to its shape, and the beginning of names that a number follows to
            how many numbers there are.
        rename: the name that `read` asks for to the one in `weights`.

    Raises:
        UsageError: a tensor whose shape is needed is missing or has other axes.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}

    def shape(name: str) -> tuple[int, ...]:
        return shapes[rename(name)]

    def count(stem: str) -> int:
        start = rename(stem)
        numbers = [int(name.removeprefix(start).split(".")[0]) for name in shapes if name.startswith(start)]
        if not numbers:
            raise KeyError(start)
        return 1 + max(numbers)

    try:
        return read(shape, count)
    except KeyError as error:
        raise UsageError(f"{checkpoint} lacks {error}; it is not a complete checkpoint of {title}") from error
    except (ValueError, IndexError) as error:
        raise UsageError(f"{checkpoint} has tensors of other shapes than those of {title}; pass another") from error


def _infer_vit(shape: Shape, count: Count) -> dict[str, Any]:
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
        "encoder_mlp_dim": shape("image_encoder.blocks.0.mlp.lin1.weight")[0],
        "window_size": min(sides),
        "global_attention": tuple(block for block, side in enumerate(sides) if side == grid),
        "relative_positions": True,
        **infer_decoder(shape, count)._asdict(),
    }
