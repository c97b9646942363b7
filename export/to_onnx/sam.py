"""A segment-anything model as ONNX graphs: the image encoder, and the decoder with its prompt encoder.

The decoder accepts any number of prompts, and of points in each; a box is two points with the labels 2 and 3, as in
segment-anything's own `utils/onnx.py`. Its masks have low resolution; the runtime upsamples the one that it chooses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from segment_anything.utils.onnx import SamOnnxModel
from torch import Tensor, nn

from wise_edge.export.to_onnx.modules.two_way import MaskUpscaling, TwoWayTransformer
from wise_edge.export.to_onnx.modules.vit import rewrite_vit
from wise_edge.sam.checkpoint import load_segmenter, read_sam_spec


class SegmentAnythingGraphs:
    """The parts of a checkpoint that become graphs, and its own forward passes to compare them with.

    Args:
        checkpoint: of a family with the layout `PADDED`.

    Attributes:
        spec: the segmenter.
        features: names of the encoder's outputs.
        encoder: image float32 [1, 3, S, S], normalized, to image_embeddings float32 [1, C, G, G].
        decoder: see `MaskDecoder`.

    Raises:
        UsageError: it is something else, or damaged.
    """

    features: tuple[str, ...] = ("image_embeddings",)

    def __init__(self, checkpoint: Path) -> None:
        self.spec = read_sam_spec(checkpoint)
        self._sam = load_segmenter(checkpoint)
        self.encoder: nn.Module = rewrite_vit(self._sam.image_encoder)
        self.decoder: nn.Module = MaskDecoder(self._sam)

    def embed(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the features of an image; see `SegmenterGraphs`."""
        return (self._sam.image_encoder(image),)

    def predict(
        self, features: tuple[Tensor, ...], points: Tensor, box: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return masks and scores of two stock forward passes; see `SegmenterGraphs`."""
        sam = self._sam
        labeled = (points, torch.ones(points.shape[:2])) if points.numel() else None
        sparse, dense = sam.prompt_encoder(labeled, box.reshape(-1, 4), mask)
        pe = sam.prompt_encoder.get_dense_pe()
        return self._decode(features, pe, sparse, dense)

    def _decode(self, features: tuple[Tensor, ...], pe: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        decoder = self._sam.mask_decoder
        parts = [decoder(features[0], pe, sparse, dense, multimask_output=many) for many in (False, True)]
        masks, scores = (torch.cat(pair, dim=1) for pair in zip(*parts, strict=True))
        return masks, scores


class MaskDecoder(nn.Module):
    """Prompt encoder and mask decoder of segment-anything's `Sam`.

    Maps image_embeddings float32 [1, C, G, G], and of P prompts point_coords float32 [P, N, 2] (pixels of the square
    of the prompts), point_labels float32 [P, N] (1 inside, 0 outside, 2 and 3 a box's corners, -1 none), mask_input
    float32 [P, 1, 4 * G, 4 * G] (logits) and has_mask_input float32 [P] (1, or 0 to ignore it) to low_res_masks float32
    [P, 4, 4 * G, 4 * G], the single mask first, and iou_predictions float32 [P, 4].

    Args:
        sam: segment-anything's model.
    """

    image_pe: Tensor

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.stock = SamOnnxModel(sam, return_single_mask=False)
        self.transformer = TwoWayTransformer(sam.mask_decoder.transformer)
        self.upscaling = MaskUpscaling(sam.mask_decoder.output_upscaling)
        self.register_buffer("image_pe", sam.prompt_encoder.get_dense_pe().detach())
        self.eval()

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return masks and scores."""
        decoder = self.stock.mask_decoder
        sparse = self.stock._embed_points(point_coords, point_labels)
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        image = image_embeddings + self.stock._embed_masks(mask_input, has_mask_input[:, None, None, None])
        tokens, image = self.transformer(
            image.flatten(2).transpose(1, 2),
            self.image_pe.flatten(2).transpose(1, 2),
            torch.cat([own.expand(sparse.shape[0], -1, -1), sparse], dim=1),
        )
        heads = enumerate(decoder.output_hypernetworks_mlps, start=1)
        wanted = torch.stack([head(tokens[:, place]) for place, head in heads], dim=1)
        return self.upscaling(image, wanted), decoder.iou_prediction_head(tokens[:, 0])
