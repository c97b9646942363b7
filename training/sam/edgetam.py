"""A small EdgeTAM for images: its widths, transformers' class for it, and its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wise_edge.extras import require
from wise_edge.files.documents import to_json
from wise_edge.files.writing import atomic_write
from wise_edge.ranges import Checked, Depth, Side, Width
from wise_edge.sam.folder import half_state

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of R, G, B from 0 to 1."""


@dataclass(frozen=True)
class EdgeTamArchitecture(Checked):
    """Widths and sizes of a model; the defaults are those of the published one."""

    input_size: Side = 1024
    """Side of the square input, px."""
    encoder_dims: tuple[Width, Width, Width, Width] = (48, 96, 192, 384)
    """Widths of RepViT's stages."""
    encoder_depths: tuple[Depth, Depth, Depth, Depth] = (2, 2, 14, 2)
    """Blocks of each stage."""
    prompt_dim: Width = 256
    """Channels of the image embedding, and width of the mask decoder."""
    decoder_depth: Depth = 2
    """Blocks of the mask decoder's two-way transformer."""
    decoder_heads: Depth = 8
    """Attention heads of the mask decoder."""
    decoder_mlp_dim: Width = 2048
    """Feed-forward width of the mask decoder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input_size % 32:
            raise ValueError(f"input_size: must be a multiple of 32, is {self.input_size}")
        if self.prompt_dim % (2 * self.decoder_heads) or self.prompt_dim % 8:
            raise ValueError(f"prompt_dim: must be a multiple of 8 and of twice decoder_heads, is {self.prompt_dim}")

    @property
    def grid(self) -> int:
        """Side of the image embedding, patches."""
        return self.input_size // 16


def build_edgetam(a: EdgeTamArchitecture) -> Any:
    """Build transformers' `EdgeTamModel` with random weights, float32, in evaluation mode."""
    transformers = require("transformers", "train")
    require("timm", "segmenters")
    backbone = {
        "model_type": "timm_wrapper",
        "architecture": "repvit_m1",
        "num_classes": 0,
        "model_args": {
            "in_chans": 3,
            "features_only": True,
            "out_indices": [0, 1, 2, 3],
            "embed_dim": list(a.encoder_dims),
            "depth": list(a.encoder_depths),
        },
    }
    config = transformers.EdgeTamConfig(
        vision_config={
            "backbone_config": backbone,
            "backbone_channel_list": list(a.encoder_dims[::-1]),
            "backbone_feature_sizes": [[a.grid * scale] * 2 for scale in (4, 2, 1)],
            "fpn_hidden_size": a.prompt_dim,
        },
        prompt_encoder_config={"hidden_size": a.prompt_dim, "image_size": a.input_size, "patch_size": 16},
        mask_decoder_config={
            "hidden_size": a.prompt_dim,
            "mlp_dim": a.decoder_mlp_dim,
            "num_hidden_layers": a.decoder_depth,
            "num_attention_heads": a.decoder_heads,
            "iou_head_hidden_dim": a.prompt_dim,
        },
    )
    config._attn_implementation = "eager"
    model = transformers.EdgeTamModel(config)
    # The published models share one set of frequencies between image and prompts; a new model draws two.
    model.prompt_encoder.shared_embedding = model.shared_image_embedding
    return model.eval()


def save_edgetam(model: Any, folder: Path) -> None:
    """Write transformers' folder; the file holds weights in half precision, and what batch norms counted as it is."""
    safetensors = require("safetensors.torch", "train")
    model.config.save_pretrained(folder)
    atomic_write(
        folder / "model.safetensors", safetensors.save(half_state(model), metadata={"format": "pt"}), force=True
    )
    side = model.config.prompt_encoder_config.image_size
    settings = {
        "image_processor_type": "Sam2ImageProcessor",
        "size": {"height": side, "width": side},
        "image_mean": MEAN,
        "image_std": STD,
    }
    atomic_write(folder / "preprocessor_config.json", (to_json(settings, indent=2) + "\n").encode(), force=True)
