"""The segmenters that are trained, by family: building, starting weights, losses, answers and saving."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn

from wise_edge.bundle.store import resolve_checkpoint
from wise_edge.errors import UsageError, first_line
from wise_edge.sam.checkpoint import load_segmenter, read_sam_spec
from wise_edge.sam.families import PADDED
from wise_edge.sam.folder import half_state
from wise_edge.sam.mobile_sam import MobileSamArchitecture, build_mobile_sam, save_mobile_sam
from wise_edge.sam.names import to_sam2_model
from wise_edge.sam.segment_anything import SamArchitecture, build_sam, save_sam
from wise_edge.sam.spec import SamSpec
from wise_edge.training.sam.config import Architecture
from wise_edge.training.sam.data import SamBatch
from wise_edge.training.sam.edgetam import build_edgetam, save_edgetam
from wise_edge.training.sam.edgetam_forward import predict_edgetam
from wise_edge.training.sam.forward import predict
from wise_edge.training.sam.loss import multimask_loss, sam_loss

_DECODER = ("prompt_encoder.", "mask_decoder.")


def build_segmenter(architecture: Architecture, start: str | None = None) -> nn.Module:
    """Build a segmenter for training, with random weights or with another's prompt encoder and mask decoder.

    Args:
        architecture: widths and sizes; its class says the family.
        start: checkpoint of a segmenter with SAM's decoder of the same widths, "embedded" or None.

    Raises:
        UsageError: `start` cannot be loaded, or its decoder does not fit.
    """
    if isinstance(architecture, SamArchitecture):
        model: nn.Module = build_sam(architecture)
    elif isinstance(architecture, MobileSamArchitecture):
        model = build_mobile_sam(architecture)
    else:
        model = build_edgetam(architecture)
    if start is not None:
        _copy_decoder(model, start)
    return model.train()


def read_padded_spec(name: str, key: str) -> SamSpec:
    """Return the spec of a checkpoint whose mask decoder is SAM's.

    Args:
        name: its file or folder, or the name of one that ships.
        key: what names it in the recipe.

    Raises:
        UsageError: it cannot be read, or its decoder is another.
    """
    path = resolve_checkpoint(name, "sam")
    spec = read_sam_spec(path)
    if spec.row.layout != PADDED:
        raise UsageError(
            f"{key}: {path} is {spec.row.title}, whose mask decoder takes more than image embeddings; "
            "pass a SAM, MobileSAM or EfficientViT-SAM"
        )
    return spec


def save_segmenter(model: Any, architecture: Architecture, folder: Path) -> None:
    """Write the checkpoint's folder, in half precision but for what batch norms have counted."""
    if isinstance(architecture, SamArchitecture):
        save_sam(model, architecture, folder)
    elif isinstance(architecture, MobileSamArchitecture):
        save_mobile_sam(model, architecture, folder)
    else:
        save_edgetam(model, folder)


def half_precision(model: nn.Module) -> nn.Module:
    """Return a float32 copy in evaluation mode with the weights as `save_segmenter` rounds them."""
    copied = copy.deepcopy(model).eval()
    copied.load_state_dict(half_state(model))
    return copied


def trained_parameters(model: Any) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Freeze what masks of box and points never use; return what is trained, and the matrices of it for Muon."""
    if isinstance(model, Sam):
        unused = [model.prompt_encoder.mask_downscaling, *model.mask_decoder.output_hypernetworks_mlps[1:]]
        unused.append(model.prompt_encoder.point_embeddings[0])  # background points
    else:
        unused = [model.prompt_encoder.mask_embed, model.mask_decoder.pred_obj_score_head]
    for module in unused:
        module.requires_grad_(False)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    # Not the 1 to 4 learned tokens, nor the biases of attention by distance, one row a head.
    matrices = [p for name, p in trained.items() if p.ndim == 2 and len(p) > 4 and "attention_biases" not in name]
    return list(trained.values()), matrices


def losses(model: Any, batch: SamBatch) -> dict[str, Tensor]:
    """Return the parts of the loss of a batch, which is their sum."""
    masks = torch.from_numpy(batch.masks)
    if isinstance(model, Sam):
        return sam_loss(*predict(model, batch), masks)
    return multimask_loss(*predict_edgetam(model, batch), masks)


def answer(model: Any, batch: SamBatch) -> tuple[Tensor, Tensor]:
    """Return the mask's logits, float32 [N, L, L], and predicted IoU, [N], of each object, as a runtime chooses it."""
    if isinstance(model, Sam):
        return predict(model, batch)
    logits, scores = predict_edgetam(model, batch)
    best = scores[:, 1:].argmax(1) + 1
    rows = torch.arange(len(best))
    return logits[rows, best], scores[rows, best]


def input_size(model: Any) -> int:
    """Return the side of the square input, px."""
    size: int = model.image_encoder.img_size if isinstance(model, Sam) else model.prompt_encoder.input_image_size
    return size


def _copy_decoder(model: Any, start: str) -> None:
    read_padded_spec(start, "start")
    source = load_segmenter(resolve_checkpoint(start, "sam")).state_dict()
    state = {name: tensor for name, tensor in source.items() if name.startswith(_DECODER)}
    if not isinstance(model, Sam):
        state = _for_edgetam(state)
    try:
        missing = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise UsageError(
            f"start: the decoder of {start} does not fit the recipe's model: {first_line(error)}"
        ) from error
    assert not missing.unexpected_keys, missing.unexpected_keys


def _for_edgetam(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name a SAM decoder's tensors as EdgeTAM does, with the single mask, which may alone be trained, for all masks."""
    single = "mask_decoder.output_hypernetworks_mlps.0."
    for mask in (1, 2, 3):
        state |= {name.replace(".0.", f".{mask}.", 1): t for name, t in state.items() if name.startswith(single)}
    tokens = "mask_decoder.mask_tokens.weight"
    state[tokens] = state[tokens][:1].repeat(4, 1)
    # A tenth of noise: equal masks would have equal gradients, and stay equal.
    state[tokens] += 0.1 * state[tokens].std() * torch.randn(state[tokens].shape)
    layers = {"lin1": "layers.0", "lin2": "layers.1"}  # the feed-forward's, as SAM 2's authors name them
    return to_sam2_model(
        {re.sub(r"\.mlp\.(lin\d)", lambda m: f".mlp.{layers[m[1]]}", name): t for name, t in state.items()}
    )
