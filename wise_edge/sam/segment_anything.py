"""A Segment Anything model: its architecture as data, built from segment-anything's own modules.

A checkpoint is a folder with `config.json` (the architecture) and `model.safetensors` (segment-anything's own weight
names, half precision), a file as published or as trainings wrap it, or transformers' folder of `SamModel`. Torch is
imported only when it is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.files.documents import read_json
from wise_edge.mapping import from_mapping
from wise_edge.ranges import ChannelDeviation, ChannelMean, Checked, Depth, Index, Side, Width
from wise_edge.sam.decoder import DECODER_HEADS, DecoderWidths, build_mask_decoder, build_prompt_encoder
from wise_edge.sam.families import OWN, TRANSFORMERS
from wise_edge.sam.folder import read_architecture_entry, save_folder
from wise_edge.sam.kinds import UNUSED, find_kind
from wise_edge.sam.names import name_in_sam_model, share_positions
from wise_edge.sam.processor import read_normalization
from wise_edge.sam.published import infer_architecture
from wise_edge.sam.spec import SamSpec
from wise_edge.sam.weights import fill_model, read_weights

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import nn

MODEL_TYPE = "segment_anything"


@dataclass(frozen=True)
class SamArchitecture(Checked):
    """Widths and sizes of a model; the defaults are those of the embedded model."""

    input_size: Side = 224
    """Side of the square input, px."""
    patch_size: Side = 14
    """Side of a patch, px; the low-resolution mask has four pixels per patch side."""
    encoder_dim: Width = 128
    """Width of the image encoder."""
    encoder_depth: Depth = 5
    """Blocks of the image encoder."""
    encoder_heads: Depth = 4
    """Attention heads of the image encoder."""
    encoder_mlp_dim: Width | None = None
    """Feed-forward width of the image encoder; None: four times `encoder_dim`."""
    window_size: Side = 8
    """Side of an attention window, patches."""
    global_attention: tuple[Index, ...] = (1, 4)
    """Blocks that attend to the entire image instead of a window."""
    relative_positions: bool = False
    """Whether attention in the image encoder adds relative positions, as the published models do."""
    prompt_dim: Width = 128
    """Channels of the image embedding, and width of the mask decoder."""
    decoder_depth: Depth = 2
    """Blocks of the mask decoder's two-way transformer."""
    decoder_heads: Depth = 4
    """Attention heads of the mask decoder."""
    decoder_mlp_dim: Width = 512
    """Feed-forward width of the mask decoder."""
    mask_input_channels: Width = 16
    """Hidden channels of the mask prompt's encoder."""
    pixel_mean: tuple[ChannelMean, ChannelMean, ChannelMean] = (123.675, 116.28, 103.53)
    """Mean of R, G, B from 0 to 255, which is subtracted."""
    pixel_std: tuple[ChannelDeviation, ChannelDeviation, ChannelDeviation] = (58.395, 57.12, 57.375)
    """Standard deviation of R, G, B from 0 to 255, by which they are divided."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input_size % self.patch_size:
            raise ValueError(f"patch_size: {self.patch_size} does not divide input_size {self.input_size}")
        if self.encoder_dim % self.encoder_heads:
            raise ValueError(f"encoder_heads: {self.encoder_heads} does not divide encoder_dim {self.encoder_dim}")
        if self.prompt_dim % (2 * self.decoder_heads) or self.prompt_dim % 8:
            raise ValueError(f"prompt_dim: must be a multiple of 8 and of twice decoder_heads, is {self.prompt_dim}")
        if any(block >= self.encoder_depth for block in self.global_attention):
            raise ValueError(f"global_attention: blocks are 0 to {self.encoder_depth - 1}")

    @property
    def grid(self) -> int:
        """Side of the image embedding, patches."""
        return self.input_size // self.patch_size

    @property
    def low_res_size(self) -> int:
        """Side of the low-resolution masks, px."""
        return 4 * self.grid

    @property
    def largest(self) -> int:
        """Numbers of a global attention."""
        return self.encoder_heads * self.grid**4

    @property
    def decoder(self) -> DecoderWidths:
        """Architecture of the prompt encoder and the mask decoder."""
        return DecoderWidths(*(getattr(self, name) for name in DecoderWidths._fields))


def build_sam(architecture: SamArchitecture) -> Sam:
    """Build a model with random weights.

    Args:
        architecture: widths and sizes.

    Returns:
        segment-anything's `Sam`, float32, on the CPU, in evaluation mode. Its encoder maps normalized images, float32
        [B, 3, S, S], to image embeddings, float32 [B, prompt_dim, grid, grid]; its decoder returns low-resolution
        logits, float32 [N, 1, 4 * grid, 4 * grid], and predicted IoUs, float32 [N, 1]. Use only the single-mask
        output (mask token 0, `multimask_output=False`).

    Raises:
        MissingExtraError: torch or segment-anything is not installed.
    """
    modeling = require("segment_anything.modeling", "export")
    a = architecture
    sam: Sam = modeling.Sam(
        image_encoder=build_encoder(modeling, a),
        prompt_encoder=build_prompt_encoder(modeling, a.decoder, a.grid, a.input_size),
        mask_decoder=build_mask_decoder(modeling, a.decoder),
        pixel_mean=list(a.pixel_mean),
        pixel_std=list(a.pixel_std),
    )
    return sam.eval()


def build_encoder(modeling: Any, architecture: SamArchitecture) -> nn.Module:
    """Return an image encoder with random weights, of segment-anything's `modeling` or of a library that copied it."""
    torch = require("torch", "export")
    a = architecture
    encoder: nn.Module = modeling.ImageEncoderViT(
        img_size=a.input_size,
        patch_size=a.patch_size,
        embed_dim=a.encoder_dim,
        depth=a.encoder_depth,
        num_heads=a.encoder_heads,
        mlp_ratio=((a.encoder_mlp_dim or 4 * a.encoder_dim) + 0.5) / a.encoder_dim,  # the class rounds down
        out_chans=a.prompt_dim,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        use_rel_pos=a.relative_positions,
        window_size=a.window_size,
        global_attn_indexes=a.global_attention,
    )
    return encoder


def save_sam(sam: Sam, architecture: SamArchitecture, folder: Path) -> None:
    """Write a checkpoint folder of a model of `build_sam`; see `wise_edge.sam.folder.save_folder`."""
    save_folder(sam, MODEL_TYPE, architecture, folder)


def load(checkpoint: Path) -> Sam:
    """Load a checkpoint.

    Args:
        checkpoint: a folder of `save_sam`, a file as segment-anything publishes them or as trainings wrap them, or
            transformers' folder of `SamModel`.

    Returns:
        The model of `build_sam` with the checkpoint's weights, float32, in evaluation mode.

    Raises:
        UsageError: a file is missing or does not fit; the message names it.
        MissingExtraError: torch, safetensors or segment-anything is not installed.
    """
    sam = build_sam(read_architecture(checkpoint))
    weights = read_weights(checkpoint)
    names = {}
    if find_kind(checkpoint).form == TRANSFORMERS:
        weights, names = share_positions(weights), {name_in_sam_model(name): name for name in sam.state_dict()}
    state = {names.get(name, name): tensor for name, tensor in weights.items() if name not in UNUSED}
    fill_model(sam, state, checkpoint, "SAM")
    return sam


def read_architecture(checkpoint: Path) -> SamArchitecture:
    """Read the architecture of a checkpoint that `load` loads.

    Raises:
        UsageError: it is something else, or damaged.
        MissingExtraError: torch, which reads files, is not installed.
    """
    kind = find_kind(checkpoint)
    if kind.family.name != MODEL_TYPE:
        raise UsageError(
            f"{checkpoint} is {kind.family.title}, which cannot be used here; pass a checkpoint of segment-anything"
        )
    if kind.form == OWN:
        return read_architecture_entry(SamArchitecture, checkpoint)
    return infer_published(checkpoint, kind.form)


def infer_published(checkpoint: Path, form: str) -> SamArchitecture:
    """Return the architecture of a file or of transformers' folder, by the shapes of its tensors."""
    rename = name_in_sam_model if form == TRANSFORMERS else str
    found = infer_architecture(checkpoint, read_weights(checkpoint), rename)
    if checkpoint.is_file():
        return from_mapping(SamArchitecture, found, f"{checkpoint}: ")
    config = checkpoint / "config.json"
    decoder = read_json(config).get("mask_decoder_config")
    mean, std = read_normalization(checkpoint)
    heads = decoder.get("num_attention_heads", DECODER_HEADS) if isinstance(decoder, dict) else DECODER_HEADS
    further = {"decoder_heads": heads, "pixel_mean": mean, "pixel_std": std}
    return from_mapping(SamArchitecture, {**found, **further}, f"{config}: ")


def read_spec(checkpoint: Path) -> SamSpec:
    """Return what a runtime must know about a checkpoint that `load` loads; see `FamilyModule`."""
    # Only the published models were trained to return three masks.
    return SamSpec.describe(MODEL_TYPE, read_architecture(checkpoint), multimask=find_kind(checkpoint).form != OWN)


def count_largest(checkpoint: Path) -> int:
    """Return the numbers of a global attention; see `FamilyModule`."""
    return read_architecture(checkpoint).largest
