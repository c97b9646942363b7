"""Validation of the policy during training: dense heads, and greedily decoded boxes under some variants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from wise_edge.geometry import box_iou
from wise_edge.policy.answers.form import BOX_POINTS
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.policy.answers.strict import parse_answer_strict
from wise_edge.policy.image import resize
from wise_edge.policy.prompts import EMBEDDED
from wise_edge.scenes import Sample, sample, target_answer
from wise_edge.training.sft.config import SftConfig
from wise_edge.training.sft.data import dense_targets
from wise_edge.training.sft.generate import generate
from wise_edge.training.sft.heads import dense_scores
from wise_edge.training.sft.layers import Prefix
from wise_edge.training.sft.tokenizer import token_id

_CHUNK = 64


def load_validation(count: int) -> list[Sample]:
    """Return the first `count` samples of the validation split."""
    return [sample("validation", index) for index in range(count)]


def validate_dense(run: Callable[[Tensor], list[Tensor]], samples: list[Sample], size: int) -> dict[str, Any]:
    """Score the dense heads.

    Args:
        run: maps uint8 images [B, S, S, 3] to the outputs of both heads.
        samples: samples to score them on.
        size: side of the resized square S, px.

    Returns:
        For each head: presence, the accuracy of each attribute, and the box error as a fraction of the side.
    """
    images = torch.from_numpy(np.stack([resize(item.scene.image, (size, size)) for item in samples]))
    with torch.inference_mode():
        outputs = run(images)
    side = int(outputs[0].shape[1] ** 0.5)
    targets = [dense_targets(item, side) for item in samples]
    classes = torch.from_numpy(np.stack([target[0] for target in targets]))
    boxes = torch.from_numpy(np.stack([target[1] for target in targets]))
    result = {}
    for name, output in zip(("tower", "language"), outputs, strict=True):
        scores = dense_scores(output, classes, boxes)
        figures = {"presence": scores.presence, **scores.attributes, "box_error": scores.box_error}
        result[name] = {key: round(value, 4) for key, value in figures.items()}
    return result


def validate_text(
    model: Any, tokenizer: Tokenizer, prefix: Prefix, config: SftConfig, samples: list[Sample], variant: str
) -> dict[str, Any]:
    """Decode every sample under one variant and score the boxes.

    Returns:
        Fractions valid_rate, iou (mean box IoU; 0 without a valid answer), iou_50 (share above 0.5) and by_kind (iou_50
        for each kind of query), and tokens (mean length of a response).
    """
    ious: list[float] = []
    valid = tokens = 0
    for start in range(0, len(samples), _CHUNK):
        chunk = samples[start : start + _CHUNK]
        responses = _respond(model, tokenizer, prefix, config, chunk, variant)
        for item, response in zip(chunk, responses, strict=True):
            iou = _score(tokenizer.decode(response), item, config.model.image_size)
            valid += iou is not None
            tokens += len(response)
            ious.append(iou or 0.0)
    kinds = [item.query.kind for item in samples]
    by_kind = {
        kind: round(float(np.mean([iou > 0.5 for iou, k in zip(ious, kinds, strict=True) if k == kind])), 3)
        for kind in sorted(set(kinds))
    }
    return {
        "valid_rate": round(valid / len(samples), 4),
        "iou": round(float(np.mean(ious)), 4),
        "iou_50": round(float(np.mean([iou > 0.5 for iou in ious])), 4),
        "tokens": round(tokens / len(samples), 1),
        "by_kind": by_kind,
    }


def _respond(
    model: Any, tokenizer: Tokenizer, prefix: Prefix, config: SftConfig, samples: list[Sample], variant: str
) -> list[list[int]]:
    side = config.model.image_size
    images = torch.from_numpy(np.stack([resize(item.scene.image, (side, side)) for item in samples]))
    prompts = [[*prefix.ids, *tokenizer.encode(EMBEDDED.parts(item.request, variant).rest).ids] for item in samples]
    end = token_id(tokenizer, "<|im_end|>")
    return generate(model, prefix, images, prompts, end, config.max_new_tokens)


def _score(text: str, item: Sample, size: int) -> float | None:
    try:
        answer = parse_answer_strict(text, BOX_POINTS, AnswerFrame((size, size))).objects[0]
    except ValueError:
        return None
    return box_iou(answer.box, target_answer(item, AnswerFrame((size, size))).box)
