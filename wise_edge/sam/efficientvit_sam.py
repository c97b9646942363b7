"""EfficientViT-SAM: segment-anything's prompt encoder and mask decoder behind an EfficientViT image encoder.

The published files are `efficientvit_sam_l0.pt` and others, L0 to L2 of 512 px, XL0 and XL1 of 1024 px; prompts and
masks are in a square of 1024 px for all (https://github.com/mit-han-lab/efficientvit/tree/master/applications). The
classes are in the package `efficientsam`. Torch is imported only when it is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from wise_edge.sam.decoder import DecoderWidths, build_mask_decoder, build_prompt_encoder, infer_decoder
from wise_edge.sam.families import import_library
from wise_edge.sam.kinds import UNUSED
from wise_edge.sam.processor import read_normalization
from wise_edge.sam.published import Count, Shape, infer
from wise_edge.sam.spec import SamSpec
from wise_edge.sam.weights import fill_model, read_weights

TITLE = "EfficientViT-SAM"
_PROMPT_SIZE, _GRID = 1024, 64
"""Sides of the square of the prompts, px, and of the image embedding; the library has no others."""
_NORM_EPS = 1e-6
"""What the authors give to every norm of a model that they built, instead of torch's 1e-5."""
_STAGES, _NECK = "image_encoder.backbone.stages.", "image_encoder.neck."
_AGGREGATION = "context_module.main.aggreg.0."
_KINDS = {"conv1": "res", "spatial_conv": "fmb", "inverted_conv": "mb"}
"""The first convolution of a block, which widens, to what the library calls the block."""


class _Block(NamedTuple):
    """A block's kind, by how much it widens, and whether its first convolution has a bias instead of a norm."""

    kind: str
    expansion: float
    has_bias: bool


class _Architecture(NamedTuple):
    """A model's architecture.

    Attributes:
        backbone: arguments of the library's `EfficientViTLargeBackbone`.
        neck: arguments of its `SamNeck`.
        decoder: widths of the prompt encoder and the mask decoder.
        input_size: side of the encoder's square input, px.
    """

    backbone: dict[str, Any]
    neck: dict[str, Any]
    decoder: DecoderWidths
    input_size: int


def read_spec(checkpoint: Path) -> SamSpec:
    """Return what a runtime must know about a file; see `FamilyModule`."""
    mean, std = read_normalization(checkpoint)
    return SamSpec(
        family="efficientvit_sam",
        input_size=_read(checkpoint).input_size,
        low_res_size=4 * _GRID,
        pixel_mean=mean,
        pixel_std=std,
        multimask=True,
        prompt_size=_PROMPT_SIZE,
    )


def load(checkpoint: Path) -> Any:
    """Return efficientsam's `EfficientViTSam` with a file's weights; see `FamilyModule`."""
    model = _build(_read(checkpoint))
    weights = read_weights(checkpoint)
    fill_model(model, {n: tensor for n, tensor in weights.items() if n not in UNUSED}, checkpoint, TITLE)
    return model


def count_largest(checkpoint: Path) -> int:
    """Return the numbers within the widest block, at half the resolution of its input; see `FamilyModule`."""
    found = _read(checkpoint)
    widths, expansions = found.backbone["width_list"], found.backbone["expand_list"]
    return max(
        int(4 * expansions[stage] * widths[stage - 1]) * (found.input_size >> (stage + 1)) ** 2
        for stage in range(1, len(widths))
    )


def _build(architecture: _Architecture) -> Any:
    library = import_library("efficientsam.models.efficientvit.sam")
    norms = import_library("efficientsam.models.nn.norm")
    widths = architecture.decoder
    backbone = library.EfficientViTLargeBackbone(**architecture.backbone)
    encoder = library.EfficientViTSamImageEncoder(backbone, library.SamNeck(**architecture.neck))
    encoder.norm = norms.build_norm("ln2d", widths.prompt_dim)  # the library has 256 alone
    model = library.EfficientViTSam(
        encoder,
        build_prompt_encoder(library, widths, _GRID, _PROMPT_SIZE),
        build_mask_decoder(library, widths),
        image_size=(_PROMPT_SIZE, architecture.input_size),
    )
    norms.set_norm_eps(model, _NORM_EPS)
    encoder.img_size = _PROMPT_SIZE  # where segment-anything's own graph of the decoder finds the prompts' square
    return model


def _read(checkpoint: Path) -> _Architecture:
    return _Architecture(**infer(checkpoint, TITLE, read_weights(checkpoint), _infer))


def _infer(shape: Shape, count: Count) -> dict[str, Any]:
    stem = shape(f"{_STAGES}0.op_list.0.conv.weight")[0]
    stages = range(1, count(_STAGES))
    widths = [shape(f"{_STAGES}{stage}.op_list.0.main.point_conv.conv.weight")[0] for stage in stages]
    depths = [count(f"{_STAGES}{stage}.op_list.") - 1 for stage in (0, *stages)]
    # A stage begins with a block that halves the sides, four times as wide as those behind it; the first with the stem.
    halving = [_read_block(shape, f"{_STAGES}{stage}.op_list.0.main.") for stage in stages]
    first = _read_block(shape, f"{_STAGES}0.op_list.1.main.") if depths[0] else _Block("res", 1.0, False)
    repeated = [
        _read_repeated(shape, f"{_STAGES}{stage}.op_list.1.") if depths[stage] else block.kind
        for stage, block in zip(stages, halving, strict=True)
    ]
    inputs = [shape(f"{_NECK}input_ops.{place}.op_list.0.conv.weight") for place in range(count(f"{_NECK}input_ops."))]
    middle = _read_block(shape, f"{_NECK}middle.op_list.0.main.")
    last = len(widths)
    return {
        "backbone": {
            "width_list": [stem, *widths],
            "depth_list": depths,
            "block_list": [first.kind, *repeated],
            "expand_list": [first.expansion, *(block.expansion / 4 for block in halving)],
            "fewer_norm_list": [first.has_bias, *(block.has_bias for block in halving)],
            "qkv_dim": shape(f"{_STAGES}{last}.op_list.1.{_AGGREGATION}1.weight")[1],
        },
        "neck": {
            "fid_list": [f"stage{last - place}" for place in range(len(inputs))],
            "in_channel_list": [channels for _, channels, *_ in inputs],
            "head_width": inputs[0][0],
            "head_depth": count(f"{_NECK}middle.op_list."),
            "expand_ratio": middle.expansion,
            "middle_op": middle.kind,
            "out_dim": shape(f"{_NECK}output_ops.0.op_list.0.conv.weight")[0],
        },
        "decoder": infer_decoder(shape, count),
        # The finest stage that the neck takes has the resolution of the image embedding.
        "input_size": _GRID << (2 + last - len(inputs)),
    }


def _read_block(shape: Shape, stem: str) -> _Block:
    """Return what the first convolution of a block tells."""
    for convolution, kind in _KINDS.items():
        if (found := _find(shape, f"{stem}{convolution}.conv.weight")) is not None:
            return _Block(kind, found[0] / found[1], _find(shape, f"{stem}{convolution}.conv.bias") is not None)
    raise KeyError(f"{stem}inverted_conv.conv.weight")


def _read_repeated(shape: Shape, stem: str) -> str:
    """Return what the library calls the block that repeats in a stage; attention, by the side of its kernels."""
    kernel = _find(shape, f"{stem}{_AGGREGATION}0.weight")
    if kernel is None:
        return _read_block(shape, f"{stem}main.").kind
    return "att" if kernel[-1] == 5 else f"att@{kernel[-1]}"


def _find(shape: Shape, name: str) -> tuple[int, ...] | None:
    """Return the shape of a tensor that may be missing."""
    try:
        return shape(name)
    except KeyError:
        return None
