"""The prompt encoder and the mask decoder of segment-anything, which families with other encoders share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

DECODER_HEADS = 8
"""Attention heads of the mask decoder in every published model; no shape depends on it."""


class DecoderWidths(NamedTuple):
    """The architecture of both parts; fields are those of `SamArchitecture`."""

    prompt_dim: int
    decoder_depth: int
    decoder_heads: int
    decoder_mlp_dim: int
    mask_input_channels: int


def infer_decoder(shape: Callable[[str], tuple[int, ...]], count: Callable[[str], int]) -> DecoderWidths:
    """Return the architecture of a published model by the shapes of its tensors.

    Args:
        shape: segment-anything's name of a tensor to its shape; raises KeyError.
        count: the beginning of names that a number follows to how many numbers there are.
    """
    return DecoderWidths(
        prompt_dim=shape("mask_decoder.transformer.layers.0.norm1.weight")[0],
        decoder_depth=count("mask_decoder.transformer.layers."),
        decoder_heads=DECODER_HEADS,
        decoder_mlp_dim=shape("mask_decoder.transformer.layers.0.mlp.lin1.weight")[0],
        mask_input_channels=shape("prompt_encoder.mask_downscaling.3.weight")[0],
    )


def build_prompt_encoder(modeling: Any, widths: DecoderWidths, grid: int, side: int) -> Any:
    """Return a prompt encoder with random weights.

    Args:
        modeling: segment-anything's module `modeling`, or that of a library that copied it.
        widths: the architecture.
        grid: side of the image embedding.
        side: side of the square of the prompts, px.
    """
    return modeling.PromptEncoder(
        embed_dim=widths.prompt_dim,
        image_embedding_size=(grid, grid),
        input_image_size=(side, side),
        mask_in_chans=widths.mask_input_channels,
    )


def build_mask_decoder(modeling: Any, widths: DecoderWidths, name: str = "MaskDecoder", **further: Any) -> Any:
    """Return a mask decoder with random weights.

    Args:
        modeling: as in `build_prompt_encoder`.
        widths: the architecture.
        name: the decoder's class in `modeling`.
        further: arguments that only this class has.
    """
    transformer = modeling.TwoWayTransformer(
        depth=widths.decoder_depth,
        embedding_dim=widths.prompt_dim,
        num_heads=widths.decoder_heads,
        mlp_dim=widths.decoder_mlp_dim,
    )
    return getattr(modeling, name)(
        transformer_dim=widths.prompt_dim, transformer=transformer, iou_head_hidden_dim=widths.prompt_dim, **further
    )
