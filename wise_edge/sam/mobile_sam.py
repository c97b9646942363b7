"""MobileSAM: segment-anything's prompt encoder and mask decoder behind a TinyViT image encoder.

The encoder is the class of https://github.com/ChaoningZhang/MobileSAM, from the package `mobilesam-mirror`; widths,
depths and the input's size are data here, where the package has 1024 px alone. Torch is imported only when needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from wise_edge.extras import require
from wise_edge.mapping import from_mapping
from wise_edge.ranges import ChannelDeviation, ChannelMean, Checked, Depth, Range, Side, Width
from wise_edge.sam.decoder import DecoderWidths, build_mask_decoder, build_prompt_encoder, infer_decoder
from wise_edge.sam.families import OWN, import_library
from wise_edge.sam.folder import read_architecture_entry, save_folder
from wise_edge.sam.kinds import UNUSED, find_kind
from wise_edge.sam.published import Count, Shape, infer
from wise_edge.sam.spec import SamSpec
from wise_edge.sam.weights import fill_model, read_weights

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import nn

MODEL_TYPE, TITLE = "mobile_sam", "MobileSAM"
PATCH_SIZE = 16
"""Side of the patch of an image embedding, px: the encoder halves the image four times."""

_STAGES, _NO_ATTENTION = 4, 1
CLASSIFIER = ("image_encoder.head.", "image_encoder.norm_head.")
"""What the published file holds of the classifier that the encoder was trained from."""
_Ratio = Annotated[float, Range(0, 64, above=True)]


@dataclass(frozen=True)
class MobileSamArchitecture(Checked):
    """Widths and sizes of a model; the defaults are those of the published one."""

    input_size: Side = 1024
    """Side of the square input, px."""
    encoder_dims: tuple[Width, Width, Width, Width] = (64, 128, 160, 320)
    """Widths of the encoder's stages: convolutions at a quarter of the input's size, then three of attention."""
    encoder_depths: tuple[Depth, Depth, Depth, Depth] = (2, 2, 6, 2)
    """Blocks of each stage."""
    encoder_heads: tuple[Depth, Depth, Depth, Depth] = (2, 4, 5, 10)
    """Attention heads of each stage; the first has no attention."""
    window_sizes: tuple[Side, Side, Side, Side] = (7, 7, 14, 7)
    """Side of an attention window in each stage, positions; the first has no attention."""
    conv_expansion: _Ratio = 4.0
    """Hidden channels of the first stage's blocks, as a multiple of their width."""
    mlp_ratio: _Ratio = 4.0
    """Feed-forward width of the encoder, as a multiple of a stage's width."""
    prompt_dim: Width = 256
    """Channels of the image embedding, and width of the mask decoder."""
    decoder_depth: Depth = 2
    """Blocks of the mask decoder's two-way transformer."""
    decoder_heads: Depth = 8
    """Attention heads of the mask decoder."""
    decoder_mlp_dim: Width = 2048
    """Feed-forward width of the mask decoder."""
    mask_input_channels: Width = 16
    """Hidden channels of the mask prompt's encoder."""
    pixel_mean: tuple[ChannelMean, ChannelMean, ChannelMean] = (123.675, 116.28, 103.53)
    """Mean of R, G, B from 0 to 255, which is subtracted."""
    pixel_std: tuple[ChannelDeviation, ChannelDeviation, ChannelDeviation] = (58.395, 57.12, 57.375)
    """Standard deviation of R, G, B from 0 to 255, by which they are divided."""
    multimask: bool = False
    """Whether it was trained to return three masks, as the published one, and not the single one alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input_size % PATCH_SIZE:
            raise ValueError(f"input_size: must be a multiple of {PATCH_SIZE}, is {self.input_size}")
        if self.encoder_dims[0] % 2:
            raise ValueError(f"encoder_dims: the first must be even, is {self.encoder_dims[0]}")
        for width, heads in list(zip(self.encoder_dims, self.encoder_heads, strict=True))[1:]:
            if width % heads:
                raise ValueError(f"encoder_heads: {heads} does not divide the stage's width, {width}")
        if self.prompt_dim % (2 * self.decoder_heads) or self.prompt_dim % 8:
            raise ValueError(f"prompt_dim: must be a multiple of 8 and of twice decoder_heads, is {self.prompt_dim}")

    @property
    def grid(self) -> int:
        """Side of the image embedding, patches."""
        return self.input_size // PATCH_SIZE

    @property
    def low_res_size(self) -> int:
        """Side of the low-resolution masks, px."""
        return 4 * self.grid

    @property
    def largest(self) -> int:
        """Numbers within a block of the first stage, more than in all windows."""
        return (self.input_size // 4) ** 2 * int(self.encoder_dims[0] * self.conv_expansion)

    @property
    def decoder(self) -> DecoderWidths:
        """Architecture of the prompt encoder and the mask decoder."""
        return DecoderWidths(*(getattr(self, name) for name in DecoderWidths._fields))


def build_mobile_sam(architecture: MobileSamArchitecture) -> Sam:
    """Build a model with random weights.

    Args:
        architecture: widths and sizes.

    Returns:
        segment-anything's `Sam` with a `TinyViT` as its image encoder, float32, on the CPU, in evaluation mode, with
        the inputs and outputs of `build_sam`.

    Raises:
        MissingExtraError: torch, segment-anything or mobilesam-mirror is not installed.
    """
    modeling = import_library("segment_anything.modeling")
    a = architecture
    sam: Sam = modeling.Sam(
        image_encoder=build_encoder(a),
        prompt_encoder=build_prompt_encoder(modeling, a.decoder, a.grid, a.input_size),
        mask_decoder=build_mask_decoder(modeling, a.decoder),
        pixel_mean=list(a.pixel_mean),
        pixel_std=list(a.pixel_std),
    )
    return sam.eval()


def save_mobile_sam(sam: Sam, architecture: MobileSamArchitecture, folder: Path) -> None:
    """Write a checkpoint folder of a model of `build_mobile_sam`; see `wise_edge.sam.folder.save_folder`."""
    save_folder(sam, MODEL_TYPE, architecture, folder)


def load(checkpoint: Path) -> Sam:
    """Load a checkpoint: a folder of `save_mobile_sam`, or a file as the authors publish it or trainings wrap it.

    Returns:
        The model of `build_mobile_sam` with the checkpoint's weights.

    Raises:
        UsageError: a file is missing or does not fit; the message names it.
        MissingExtraError: torch, safetensors, segment-anything or mobilesam-mirror is not installed.
    """
    sam = build_mobile_sam(read_architecture(checkpoint))
    weights = read_weights(checkpoint).items()
    fill_model(sam, {n: t for n, t in weights if n not in UNUSED and not n.startswith(CLASSIFIER)}, checkpoint, TITLE)
    return sam


def read_architecture(checkpoint: Path) -> MobileSamArchitecture:
    """Read the architecture of a checkpoint that `load` loads; a file's input is of the published size.

    Raises:
        UsageError: it is something else, or damaged.
        MissingExtraError: torch, which reads files, is not installed.
    """
    if find_kind(checkpoint).form == OWN:
        return read_architecture_entry(MobileSamArchitecture, checkpoint)
    return infer_published(checkpoint, TITLE)


def infer_published(checkpoint: Path, title: str) -> MobileSamArchitecture:
    """Return the architecture of a file of a model called `title`, by the shapes of its tensors."""
    found = infer(checkpoint, title, read_weights(checkpoint), _infer)
    return from_mapping(MobileSamArchitecture, found, f"{checkpoint}: ")


def read_spec(checkpoint: Path) -> SamSpec:
    """Return what a runtime must know about a checkpoint that `load` loads; see `FamilyModule`."""
    architecture = read_architecture(checkpoint)
    return SamSpec.describe(MODEL_TYPE, architecture, multimask=architecture.multimask)


def count_largest(checkpoint: Path) -> int:
    """Return the numbers of the encoder's largest array; see `FamilyModule`."""
    return read_architecture(checkpoint).largest


def _infer(shape: Shape, count: Count) -> dict[str, Any]:
    stages = [f"image_encoder.layers.{stage}.blocks." for stage in range(_STAGES)]
    first, *others = stages
    hidden, width, *_ = shape(f"{first}0.conv1.c.weight")
    widths = [shape(f"{stage}0.attn.norm.weight")[0] for stage in others]
    # A learned bias for each distance in rows and columns within a window, so one for each of its positions.
    biases = [shape(f"{stage}0.attn.attention_biases") for stage in others]
    return {
        "encoder_dims": (width, *widths),
        "encoder_depths": tuple(count(stage) for stage in stages),
        "encoder_heads": (_NO_ATTENTION, *(heads for heads, _ in biases)),
        "window_sizes": (_NO_ATTENTION, *(math.isqrt(distances) for _, distances in biases)),
        "conv_expansion": hidden / width,
        "mlp_ratio": shape(f"{others[0]}0.mlp.fc1.weight")[0] / widths[0],
        **infer_decoder(shape, count)._asdict(),
        "multimask": True,
    }


def build_encoder(a: MobileSamArchitecture, library: str = "mobile_sam") -> nn.Module:
    """Return an image encoder with random weights.

    Args:
        a: widths and sizes.
        library: of "segment_anything_hq", it also returns the second stage's features as that library does, in a list
            of float32 [B, grid, grid, C].
    """
    torch = require("torch", "export")
    tiny_vit = import_library(f"{library}.modeling.tiny_vit_sam")
    gives_early = library == "segment_anything_hq"

    class Encoder(tiny_vit.TinyViT):  # type: ignore[misc,name-defined]
        """The package's encoder for inputs of any size; its own `forward` has a grid of 64 written into it."""

        def forward(self, x: Any) -> Any:
            stages = [self.patch_embed(x)]
            for layer in self.layers:
                stages.append(layer(stages[-1]))
            features = self.neck(stages[-1].transpose(1, 2).unflatten(2, (a.grid, a.grid)))
            return (features, [stages[2].unflatten(1, (a.grid, a.grid))]) if gives_early else features

    encoder = Encoder(
        img_size=a.input_size,
        num_classes=0,
        embed_dims=list(a.encoder_dims),
        depths=list(a.encoder_depths),
        num_heads=list(a.encoder_heads),
        window_sizes=list(a.window_sizes),
        mlp_ratio=a.mlp_ratio,
        mbconv_expand_ratio=a.conv_expansion,
        drop_path_rate=0.0,
    )
    # The package tells by the published widths which stage keeps the resolution of the one before; it is the last.
    for place, stage in enumerate(encoder.layers[:-1]):
        stage.downsample.conv2.c.stride = (2, 2) if place < 2 else (1, 1)
    del encoder.norm_head, encoder.head  # of the classifier that it was
    norm, convolution = tiny_vit.LayerNorm2d, partial(torch.nn.Conv2d, bias=False)
    encoder.neck = torch.nn.Sequential(
        convolution(a.encoder_dims[-1], a.prompt_dim, 1),
        norm(a.prompt_dim),
        convolution(a.prompt_dim, a.prompt_dim, 3, padding=1),
        norm(a.prompt_dim),
    )
    encoder.register_load_state_dict_post_hook(_read_biases)
    return encoder


def _read_biases(encoder: nn.Module, _: Any) -> None:
    """Have attention read the biases that were loaded, which it does when it is put into evaluation mode."""
    encoder.train(encoder.training)
