"""An HQ-SAM model as ONNX graphs: segment-anything's with one more feature, made of an early one once for each image.

Each of the decoder's four masks is the sum of segment-anything's and of the finer mask of HQ-SAM's own token, as the
authors' predictor returns it by default (`hq_token_only=False`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from wise_edge.export.to_onnx.modules.vit import rewrite_vit
from wise_edge.export.to_onnx.sam import MaskDecoder, SegmentAnythingGraphs
from wise_edge.sam.hq_sam import add_fine_mask, find_fine_features


class HqSamGraphs(SegmentAnythingGraphs):
    """The parts of a checkpoint that become graphs, and its own forward passes to compare them with.

    Args:
        checkpoint: of a family with the layout `PADDED_HQ`.

    Attributes:
        spec: the segmenter.
        features: names of the encoder's outputs.
        encoder: see `ImageEncoder`.
        decoder: see `HqMaskDecoder`.

    Raises:
        UsageError: it is something else, or damaged.
    """

    features = ("image_embeddings", "hq_features")

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(checkpoint)
        self.encoder = ImageEncoder(self._sam)
        self.decoder = HqMaskDecoder(self._sam)

    def embed(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the features of an image; see `SegmenterGraphs`."""
        features: tuple[Tensor, ...] = self.encoder(image)
        return features

    def _decode(self, features: tuple[Tensor, ...], pe: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        embeddings, fine = features
        masks, scores = self._sam.mask_decoder.predict_masks(embeddings, pe, sparse, dense, fine)
        return add_fine_mask(masks), scores


class ImageEncoder(nn.Module):
    """Image encoder of segment-anything-hq's `Sam`, and the part of its decoder that needs no prompt.

    Maps image float32 [1, 3, S, S] to image_embeddings float32 [1, C, G, G] and hq_features float32
    [1, C / 8, 4 * G, 4 * G].

    Args:
        sam: segment-anything-hq's model.
    """

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.sam = sam
        self.vit = rewrite_vit(sam.image_encoder)
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of a normalized image."""
        embeddings, early = self.vit(image)
        return embeddings, find_fine_features(self.sam, embeddings, early)


class HqMaskDecoder(MaskDecoder):
    """Prompt encoder and mask decoder of segment-anything-hq's `Sam`.

    Maps image_embeddings, hq_features float32 [1, C / 8, 4 * G, 4 * G], and the prompts as in `to_onnx.sam.MaskDecoder`
    to the same outputs.

    Args:
        sam: segment-anything-hq's model.
    """

    def forward(  # type: ignore[override]
        self,
        image_embeddings: Tensor,
        hq_features: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return masks and scores."""
        masks, scores = self.stock.model.mask_decoder.predict_masks(
            image_embeddings=image_embeddings,
            image_pe=self.image_pe,
            sparse_prompt_embeddings=self.stock._embed_points(point_coords, point_labels),
            dense_prompt_embeddings=self.stock._embed_masks(mask_input, has_mask_input[:, None, None, None]),
            hq_features=hq_features,
        )
        return add_fine_mask(masks), scores
