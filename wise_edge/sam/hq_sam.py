"""HQ-SAM: segment-anything with one more token, whose mask is made from an early feature of the encoder, too.

Published are `sam_hq_vit_b.pth`, `_l`, `_h`, and `sam_hq_vit_tiny.pth` ("light"), which has MobileSAM's TinyViT
(https://github.com/SysCV/sam-hq#model-checkpoints); transformers has `SamHQModel` for the first three. All become the
class of the authors' package `segment-anything-hq`. Torch is imported only when it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wise_edge.sam import mobile_sam, segment_anything
from wise_edge.sam.decoder import build_mask_decoder, build_prompt_encoder
from wise_edge.sam.families import TRANSFORMERS, import_library
from wise_edge.sam.kinds import UNUSED, find_kind
from wise_edge.sam.mobile_sam import CLASSIFIER, MobileSamArchitecture
from wise_edge.sam.names import name_in_sam_model, share_positions
from wise_edge.sam.segment_anything import SamArchitecture
from wise_edge.sam.spec import SamSpec
from wise_edge.sam.weights import fill_model, read_weights

if TYPE_CHECKING:
    from torch import Tensor

TITLE = "HQ-SAM"
_LIBRARY = "segment_anything_hq"
_TINY_VIT = "image_encoder.patch_embed.seq."


def read_spec(checkpoint: Path) -> SamSpec:
    """Return what a runtime must know about a checkpoint that `load` loads; see `FamilyModule`."""
    return SamSpec.describe("hq_sam", read_architecture(checkpoint), multimask=True)


def load(checkpoint: Path) -> Any:
    """Return segment-anything-hq's `Sam` with a checkpoint's weights; see `FamilyModule`."""
    sam = build_hq_sam(read_architecture(checkpoint))
    weights, names = read_weights(checkpoint), {}
    if find_kind(checkpoint).form == TRANSFORMERS:
        weights, names = share_positions(weights), {name_in_sam_model(name): name for name in sam.state_dict()}
    unused = (*UNUSED, *CLASSIFIER)
    state = {names.get(name, name): tensor for name, tensor in weights.items() if not name.startswith(unused)}
    fill_model(sam, state, checkpoint, TITLE)
    return sam


def count_largest(checkpoint: Path) -> int:
    """Return the numbers of the encoder's largest array; see `FamilyModule`."""
    return read_architecture(checkpoint).largest


def read_architecture(checkpoint: Path) -> SamArchitecture | MobileSamArchitecture:
    """Read the architecture of a checkpoint that `load` loads.

    Raises:
        UsageError: it is something else, or damaged.
        MissingExtraError: torch, which reads files, is not installed.
    """
    if any(name.startswith(_TINY_VIT) for name in read_weights(checkpoint)):
        return mobile_sam.infer_published(checkpoint, TITLE)
    return segment_anything.infer_published(checkpoint, find_kind(checkpoint).form)


def build_hq_sam(architecture: SamArchitecture | MobileSamArchitecture) -> Any:
    """Build a model with random weights.

    Args:
        architecture: of SAM or of MobileSAM, whose encoder it has.

    Returns:
        segment-anything-hq's `Sam`, float32, on the CPU, in evaluation mode.

    Raises:
        MissingExtraError: torch, timm or segment-anything-hq is not installed.
    """
    modeling = import_library(f"{_LIBRARY}.modeling")
    a = architecture
    if isinstance(a, MobileSamArchitecture):
        encoder, early_dim = mobile_sam.build_encoder(a, _LIBRARY), a.encoder_dims[2]
    else:
        encoder, early_dim = segment_anything.build_encoder(modeling, a), a.encoder_dim
    sam = modeling.Sam(
        image_encoder=encoder,
        prompt_encoder=build_prompt_encoder(modeling, a.decoder, a.grid, a.input_size),
        mask_decoder=build_mask_decoder(modeling, a.decoder, "MaskDecoderHQ", vit_dim=early_dim),
        pixel_mean=list(a.pixel_mean),
        pixel_std=list(a.pixel_std),
    )
    return sam.eval()


def find_fine_features(sam: Any, embeddings: Tensor, early: Sequence[Tensor]) -> Tensor:
    """Return what the mask decoder makes of an image alone, as its `forward` does.

    Args:
        sam: of `build_hq_sam`.
        embeddings: float32 [1, C, G, G], the first output of its image encoder.
        early: the second; of it the first feature, float32 [1, G, G, E].

    Returns:
        float32 [1, C / 8, 4 * G, 4 * G], the `hq_features` of the decoder's `predict_masks`.
    """
    decoder = sam.mask_decoder
    fine: Tensor = decoder.embedding_encoder(embeddings) + decoder.compress_vit_feat(early[0].permute(0, 3, 1, 2))
    return fine


def add_fine_mask(masks: Tensor) -> Tensor:
    """Add the mask of HQ-SAM's token, the last of `predict_masks`, to each of segment-anything's before it.

    So does the decoder's `forward` by default (`hq_token_only=False`), to the single mask or to the best of three.

    Args:
        masks: logits float32 [P, 5, L, L].

    Returns:
        Logits float32 [P, 4, L, L].
    """
    return masks[:, :-1] + masks[:, -1:]
