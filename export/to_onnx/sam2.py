"""SAM 2, or a model like it, as ONNX graphs: the inputs and outputs of segment-anything's, and two more features.

The encoder computes the high-resolution features and adds the "no memory" embedding, once per image, as transformers'
`get_image_embeddings` does. The decoder's first mask is what `multimask_output=False` returns: the single mask, or the
best of the others if the single one is unstable.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wise_edge.extras import require
from wise_edge.sam.checkpoint import load_segmenter, read_sam_spec


class Sam2Graphs:
    """The parts of a checkpoint that become graphs, and its own forward passes to compare them with.

    Args:
        checkpoint: of a family with the layout `STRETCHED`.

    Attributes:
        spec: the segmenter.
        features: names of the encoder's outputs: the embedding [1, C, G, G] and two finer ones.
        encoder: image float32 [1, 3, S, S], normalized, to the features.
        decoder: see `MaskDecoder`.

    Raises:
        UsageError: it is something else, or damaged.
    """

    features = ("image_embeddings", "high_res_0", "high_res_1")

    def __init__(self, checkpoint: Path) -> None:
        self.spec = read_sam_spec(checkpoint)
        self._model = load_segmenter(checkpoint)
        self.encoder = ImageEncoder(self._model)
        self.decoder = MaskDecoder(self._model)

    def embed(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the features of an image; see `SegmenterGraphs`."""
        fine, middle, embeddings = self._model.get_image_embeddings(image)
        return embeddings, fine, middle

    def predict(
        self, features: tuple[Tensor, ...], points: Tensor, box: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return masks and scores of two stock forward passes; see `SegmenterGraphs`."""
        embeddings, fine, middle = (feature.expand(len(box), -1, -1, -1) for feature in features)
        points = points[:, None]
        outputs = [
            self._model(
                image_embeddings=[fine, middle, embeddings],
                input_points=points if points.numel() else None,
                input_labels=torch.ones(points.shape[:3], dtype=torch.int32) if points.numel() else None,
                input_boxes=box.reshape(-1, 1, 4),
                input_masks=mask,
                multimask_output=many,
            )
            for many in (False, True)
        ]
        masks = torch.cat([output.pred_masks[:, 0] for output in outputs], dim=1)
        scores = torch.cat([output.iou_scores[:, 0] for output in outputs], dim=1)
        return masks, scores


class ImageEncoder(nn.Module):
    """The vision encoder of transformers' `Sam2Model`, or of another class built like it.

    Maps image float32 [1, 3, S, S] to image_embeddings float32 [1, C, G, G], high_res_0 float32
    [1, C / 8, 4 * G, 4 * G] and high_res_1 float32 [1, C / 4, 2 * G, 2 * G].

    Args:
        model: transformers' model.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision_encoder = _fold(model.vision_encoder)
        self.no_memory_embedding = model.no_memory_embedding
        self.conv_s0, self.conv_s1 = model.mask_decoder.conv_s0, model.mask_decoder.conv_s1
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the features of a normalized image."""
        maps = self.vision_encoder(image, return_dict=True).fpn_hidden_states
        embeddings = maps[-1] + self.no_memory_embedding.reshape(1, -1, 1, 1)
        return embeddings, self.conv_s0(maps[0]), self.conv_s1(maps[1])


def _fold(vision_encoder: Any) -> Any:
    """Return an encoder whose parallel convolutions, which only training needs, are one each.

    EdgeTAM's trunk has them (https://arxiv.org/abs/2307.09283); the others are returned as they are.
    """
    if not hasattr(vision_encoder.backbone, "timm_model"):
        return vision_encoder
    folded = copy.deepcopy(vision_encoder)
    folded.backbone.timm_model = require("timm.utils", "segmenters").reparameterize_model(folded.backbone.timm_model)
    return folded


class MaskDecoder(nn.Module):
    """Prompt encoder and mask decoder of transformers' `Sam2Model`.

    Maps the encoder's features, then point_coords, point_labels, mask_input and has_mask_input, to low_res_masks and
    iou_predictions; all as in `to_onnx.sam.MaskDecoder`.

    Args:
        model: transformers' model.
    """

    image_pe: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.prompt = model.prompt_encoder
        self.mask_decoder = _returning_all_masks(model.mask_decoder)
        self.register_buffer("image_pe", model.get_image_wide_positional_embeddings().detach())
        self.eval()

    def forward(
        self,
        image_embeddings: Tensor,
        high_res_0: Tensor,
        high_res_1: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return masks and scores."""
        no_mask = self.prompt.no_mask_embed.weight.reshape(1, -1, 1, 1)
        # One padding point follows box and points, as in the model's training.
        points = self.prompt._embed_points(point_coords[:, None], point_labels[:, None].int(), pad=True)
        has_mask = has_mask_input[:, None, None, None]
        dense = has_mask * self.prompt.mask_embed(mask_input) + (1 - has_mask) * no_mask
        prompts = dense.shape[0]  # a batch of images, since one image takes one mask as prompt
        masks, scores, _, visible = self.mask_decoder(
            image_embeddings=image_embeddings.expand(prompts, -1, -1, -1),
            image_positional_embeddings=self.image_pe.expand(prompts, -1, -1, -1),
            sparse_prompt_embeddings=points,
            dense_prompt_embeddings=dense,
            multimask_output=False,
            high_resolution_features=[each.expand(prompts, -1, -1, -1) for each in (high_res_0, high_res_1)],
        )
        return self.finish(masks[:, 0], scores[:, 0], visible[:, 0])

    def finish(self, masks: Tensor, scores: Tensor, visible: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs: masks [P, 4, L, L] and scores [P, 4], of prompts whose objects have scores [P, 1]."""
        return masks, scores


def _returning_all_masks(mask_decoder: Any) -> Any:
    """Return a decoder with the same weights that returns the single mask followed by the three others."""
    decoder = copy.copy(mask_decoder)
    falls_back = mask_decoder.dynamic_multimask_via_stability

    def choose(masks: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        if not falls_back:
            return masks, scores
        single, its_score = mask_decoder._dynamic_multimask_via_stability(masks, scores)
        return torch.cat([single, masks[:, :, 1:]], dim=2), torch.cat([its_score, scores[:, :, 1:]], dim=2)

    decoder.dynamic_multimask_via_stability = True
    decoder._dynamic_multimask_via_stability = choose
    return decoder
