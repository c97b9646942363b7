"""A SAM 2 model as ONNX graphs, with the inputs and outputs of segment-anything's and two more features.

The features of high resolution and the embedding of "no memory" are computed by the encoder, once an image, as
transformers' `get_image_embeddings` does. The decoder's first mask is what `multimask_output=False` gives: the single
mask, or the best of the others where the single one is unstable.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wise_edge.extras import require
from wise_edge.sam.checkpoint import read_sam_spec
from wise_edge.sam.sam2 import load_sam2

if TYPE_CHECKING:
    from torch import Tensor, nn


class Sam2Graphs:
    """The parts of a checkpoint that become graphs, and its own forward passes to compare them with.

    Args:
        checkpoint: Hugging Face folder of `Sam2Model` or `Sam2VideoModel`.

    Attributes:
        spec: the segmenter.
        features: names of what the encoder gives: the embedding [1, C, G, G] and two finer ones.
        encoder: image float32 [1, 3, S, S], normalized, to the features.
        decoder: see `build_decoder`.

    Raises:
        UsageError: it is neither.
    """

    features = ("image_embeddings", "high_res_0", "high_res_1")

    def __init__(self, checkpoint: Path) -> None:
        self.spec = read_sam_spec(checkpoint)
        self._model = load_sam2(checkpoint)
        self.encoder = build_encoder(self._model)
        self.decoder = build_decoder(self._model)

    def embed(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the features of an image; see `SegmenterGraphs`."""
        fine, middle, embeddings = self._model.get_image_embeddings(image)
        return embeddings, fine, middle

    def predict(
        self, features: tuple[Tensor, ...], points: Tensor, box: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return masks and scores of two stock forward passes; see `SegmenterGraphs`."""
        torch = require("torch", "export")
        embeddings, fine, middle = features
        outputs = [
            self._model(
                image_embeddings=[fine, middle, embeddings],
                input_points=points[None] if points.numel() else None,
                input_labels=torch.ones(1, *points.shape[:2], dtype=torch.int32) if points.numel() else None,
                input_boxes=box.reshape(1, 1, 4),
                input_masks=mask,
                multimask_output=many,
            )
            for many in (False, True)
        ]
        masks = torch.cat([output.pred_masks[0] for output in outputs], dim=1)
        scores = torch.cat([output.iou_scores[0] for output in outputs], dim=1)
        return masks, scores


def build_encoder(model: Any) -> nn.Module:
    """Wrap the vision encoder of transformers' `Sam2Model`.

    Returns:
        A module from image float32 [1, 3, S, S] to image_embeddings float32 [1, C, G, G], high_res_0 float32
        [1, C / 8, 4 * G, 4 * G] and high_res_1 float32 [1, C / 4, 2 * G, 2 * G].
    """
    torch = require("torch", "export")

    class Encoder(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: Tensor) -> tuple[Tensor, ...]:
            maps = model.vision_encoder(image, return_dict=True).fpn_hidden_states
            embeddings = maps[-1] + model.no_memory_embedding.reshape(1, -1, 1, 1)
            return embeddings, model.mask_decoder.conv_s0(maps[0]), model.mask_decoder.conv_s1(maps[1])

    return Encoder().eval()


def build_decoder(model: Any) -> nn.Module:
    """Wrap prompt encoder and mask decoder of transformers' `Sam2Model`.

    Returns:
        A module from the encoder's features, then point_coords, point_labels, mask_input and has_mask_input, to
        low_res_masks and iou_predictions; all as in `sam_onnx.build_decoder`.
    """
    torch = require("torch", "export")
    prompt = model.prompt_encoder
    mask_decoder = _giving_all_masks(model.mask_decoder)

    class Decoder(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.prompt = prompt
            self.mask_decoder = mask_decoder
            self.register_buffer("image_pe", model.get_image_wide_positional_embeddings().detach())

        def forward(
            self,
            image_embeddings: Tensor,
            high_res_0: Tensor,
            high_res_1: Tensor,
            point_coords: Tensor,
            point_labels: Tensor,
            mask_input: Tensor,
            has_mask_input: Tensor,
        ) -> tuple[Tensor, Tensor]:
            no_mask = prompt.no_mask_embed.weight.reshape(1, -1, 1, 1)
            # Behind box and points stands one point that is none, as the model was trained.
            points = prompt._embed_points(point_coords[None], point_labels[None].int(), pad=True)
            dense = has_mask_input * prompt.mask_embed(mask_input) + (1 - has_mask_input) * no_mask
            masks, scores, *_ = mask_decoder(
                image_embeddings=image_embeddings,
                image_positional_embeddings=self.image_pe,
                sparse_prompt_embeddings=points,
                dense_prompt_embeddings=dense,
                multimask_output=False,
                high_resolution_features=[high_res_0, high_res_1],
            )
            return masks[0], scores[0]

    return Decoder().eval()


def _giving_all_masks(mask_decoder: Any) -> Any:
    """Return a decoder of the same weights that gives the single mask and, behind it, the three others."""
    torch = require("torch", "export")
    whole = copy.copy(mask_decoder)
    falls_back = mask_decoder.dynamic_multimask_via_stability

    def choose(masks: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        if not falls_back:
            return masks, scores
        single, its_score = mask_decoder._dynamic_multimask_via_stability(masks, scores)
        return torch.cat([single, masks[:, :, 1:]], dim=2), torch.cat([its_score, scores[:, :, 1:]], dim=2)

    whole.dynamic_multimask_via_stability = True
    whole._dynamic_multimask_via_stability = choose
    return whole
