"""A segment-anything model as ONNX graphs: the image encoder, and the decoder with its prompt encoder.

The decoder takes any number of points; a box is two points with the labels 2 and 3, as in segment-anything's own
`utils/onnx.py`. It gives the single-mask output at low resolution; the runtime upsamples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wise_edge.extras import require

if TYPE_CHECKING:
    from torch import Tensor, nn


def build_decoder(sam: Any) -> nn.Module:
    """Wrap prompt encoder and mask decoder of segment-anything's `Sam`.

    Returns:
        A module from image_embeddings float32 [1, C, G, G], point_coords float32 [1, N, 2] (pixels of the encoder's
        frame) and point_labels float32 [1, N] (1 inside, 0 outside, 2 and 3 a box's corners) to low_res_masks float32
        [1, 1, 4 * G, 4 * G] and iou_predictions float32 [1, 1].
    """
    torch = require("torch", "export")
    stock = require("segment_anything.utils.onnx", "export").SamOnnxModel(sam, return_single_mask=False)

    class Decoder(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.stock = stock
            self.register_buffer("image_pe", sam.prompt_encoder.get_dense_pe().detach())

        def forward(
            self, image_embeddings: Tensor, point_coords: Tensor, point_labels: Tensor
        ) -> tuple[Tensor, Tensor]:
            masks, scores = sam.mask_decoder.predict_masks(
                image_embeddings=image_embeddings,
                image_pe=self.image_pe,
                sparse_prompt_embeddings=stock._embed_points(point_coords, point_labels),
                dense_prompt_embeddings=sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1),
            )
            return masks[:, :1], scores[:, :1]

    return Decoder().eval()
