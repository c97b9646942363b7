"""Published segment-anything checkpoints (`sam_vit_b_01ec64.pth` and others): one pickled dictionary of tensors.

The architecture is inferred from the tensors' shapes, so renamed files and finetuned models load too
(https://github.com/facebookresearch/segment-anything#model-checkpoints).
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wise_edge.errors import UsageError, first_line
from wise_edge.extras import require

if TYPE_CHECKING:
    from torch import Tensor

_DECODER_HEADS = 8  # in every published model; no shape depends on it
_PARTS = ("image_encoder.", "prompt_encoder.", "mask_decoder.")
_BUFFERS = ("pixel_mean", "pixel_std")
_PATCH = "image_encoder.patch_embed.proj.weight"


def read_weights(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint, memory-mapped; a pickle that contains anything else is rejected.

    Raises:
        UsageError: the file cannot be read, holds something other than segment-anything's weights, or a weight is not
            finite; the message names it.
        MissingExtraError: torch is not installed.
    """
    torch = require("torch", "export")
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = first_line(error)
        raise UsageError(
            f"{file} holds no weights that can be read safely ({reason[:160]}); download it again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UsageError(f"{file} is not a dictionary of tensors; pass a checkpoint of segment-anything")
    weights = {name: tensor for name, tensor in state.items() if name not in _BUFFERS}
    if _PATCH not in weights or not all(str(name).startswith(_PARTS) for name in weights):
        strange = next((name for name in weights if not str(name).startswith(_PARTS)), _PATCH)
        raise UsageError(f"{file} does not hold segment-anything's weights alone (see {strange!r}); pass another file")
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise UsageError(f"{file}: {name} holds values that are not finite; download it again")
    return weights


def infer_architecture(file: Path, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of `SamArchitecture` that match these weights.

    Args:
        file: the checkpoint, for the message.
        weights: its tensors.

    Raises:
        UsageError: a tensor whose shape is needed is missing, or the encoder has no relative positions.
    """
    try:
        return _infer({name: tuple(tensor.shape) for name, tensor in weights.items()})
    except (KeyError, StopIteration) as error:
        raise UsageError(f"{file} lacks {error}; it is not a complete checkpoint of segment-anything") from error


def _infer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    width, _, patch, _ = shapes[_PATCH]
    depth = _count(shapes, "image_encoder.blocks.")
    # Relative positions have length 2 * side - 1, of the window in most blocks and of the entire image in the others.
    reach = [shapes[f"image_encoder.blocks.{block}.attn.rel_pos_h"] for block in range(depth)]
    sides = [(length + 1) // 2 for length, _ in reach]
    grid, head_dim = max(sides), reach[0][1]
    prompt_dim = shapes["image_encoder.neck.0.weight"][0]
    return {
        "input_size": grid * patch,
        "patch_size": patch,
        "encoder_dim": width,
        "encoder_depth": depth,
        "encoder_heads": width // head_dim,
        "window_size": min(sides),
        "global_attention": tuple(block for block, side in enumerate(sides) if side == grid),
        "relative_positions": True,
        "prompt_dim": prompt_dim,
        "decoder_depth": _count(shapes, "mask_decoder.transformer.layers."),
        "decoder_heads": _DECODER_HEADS,
        "decoder_mlp_dim": shapes["mask_decoder.transformer.layers.0.mlp.lin1.weight"][0],
        "mask_input_channels": shapes["prompt_encoder.mask_downscaling.3.weight"][0],
    }


def _count(shapes: Mapping[str, Any], stem: str) -> int:
    return 1 + max(int(name.removeprefix(stem).split(".")[0]) for name in shapes if name.startswith(stem))
