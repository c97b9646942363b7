"""Rewards of the WISE policy: the reference's six terms and one for an ablation, each a function for TRL.

They score as the reference does (https://github.com/mrazhou/WISE, verl/utils/reward_score/seg_restrict.py): texts and
their token counts include the tags, and boxes are compared with inclusive pixels, +1 on each side. A completion that
repeats the prompt's placeholders is read as an empty one, which scores 0 in all terms.

We differ in two points: pixel thresholds follow the input size, and a negative cosine counts as 0, because otherwise a
longer concise text would score more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from wise_edge.errors import UsageError
from wise_edge.policy.answers.answer import AnsweredObject
from wise_edge.training.wise.reading import CompletionReader, FloatBox, Reading, find_placeholders, is_formatted
from wise_edge.training.wise.reward_config import ORDERS, RewardConfig
from wise_edge.training.wise.similarity import SentenceEncoder, cosine_similarities

Term = Callable[[list[Reading], list[AnsweredObject]], list[float]]


class RewardFunctions:
    """The terms of a config as functions for TRL's `GRPOTrainer`.

    Args:
        config: weights and thresholds.
        size: width and height of the resized square image in pixels.
        order: one of `ORDERS`.
        encoder: compares texts; `None` if `distillation` has no weight or the order no detailed text.
        count_tokens: returns the number of the policy's tokens of each text, without special tokens.
        template_text: wording of the prompt; completions must not repeat what it shows between tags and as the answer.

    Attributes:
        reader: reads the completions of a batch once for all terms.
        encoder: as passed.

    Raises:
        UsageError: the order is unknown, the size is not positive, no term is left, or the encoder is missing.
    """

    def __init__(
        self,
        config: RewardConfig,
        size: int,
        order: str,
        encoder: SentenceEncoder | None,
        count_tokens: Callable[[Sequence[str]], list[int]],
        template_text: str,
    ) -> None:
        if order not in ORDERS:
            raise UsageError(f"order: {order!r} is unknown; use one of {', '.join(ORDERS)}")
        if size < 1:
            raise UsageError(f"size: must be at least 1 px, is {size}")
        self._config, self._tags, self.encoder, self._count_tokens = config, ORDERS[order], encoder, count_tokens
        self._scale = size / config.reference_size
        self.reader = CompletionReader(find_placeholders(template_text))
        terms: dict[str, Term] = {
            "format": lambda readings, truths: [float(is_formatted(each.text, self._tags)) for each in readings],
            "answer": lambda readings, truths: [float(each.has_answer) for each in readings],
            "box_iou": lambda readings, truths: list(map(_box_iou, readings, truths)),
            "box_l1": lambda readings, truths: list(map(self._box_l1, readings, truths)),
            "points": lambda readings, truths: list(map(self._points, readings, truths)),
            "distillation": self._distillation,
            "length": self._length,
        }
        if "d_think" not in self._tags:
            del terms["distillation"]
        self._terms = {name: term for name, term in terms.items() if config.weights[name] > 0}
        if not self._terms:
            raise UsageError(f"rewards.weights: no term is left with order {order}; give another one a weight")
        if "distillation" in self._terms and encoder is None:
            raise UsageError("rewards.weights.distillation is above 0, so a sentence encoder is needed")

    def functions(self) -> list[Callable[..., list[float]]]:
        """Return one function for each term whose weight is above 0; its `__name__` is the name of the term.

        Without a detailed text there is no `distillation`.

        Each function accepts `prompts`, `completions` (texts or lists of chat messages) and the columns of the data. It
        reads the columns `box` (4 integers per row, XYXY, half-open) and `points` (2 x 2 integers per row), in pixels
        of the resized square image, and returns a number from 0 to 1 for each completion.
        """
        return [self._function(name, term) for name, term in self._terms.items()]

    def weights(self) -> list[float]:
        """Return the weights of `functions`, in the same order."""
        return [self._config.weights[name] for name in self._terms]

    def _function(self, name: str, term: Term) -> Callable[..., list[float]]:
        def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
            readings = [each.scored for each in self.reader.read(completions)]
            return term(readings, _truths(columns, len(readings)))

        reward.__name__ = reward.__qualname__ = name
        return reward

    def _box_l1(self, reading: Reading, truth: AnsweredObject) -> float:
        if reading.box is None:
            return 0.0
        difference = sum(abs(a - b) for a, b in zip(reading.box, truth.box, strict=True)) / 4
        return float(difference < self._config.box_l1_px * self._scale)

    def _points(self, reading: Reading, truth: AnsweredObject) -> float:
        if reading.box is None or reading.points is None:
            return 0.0
        x1, y1, x2, y2 = reading.box
        inside = all(x1 <= x <= x2 and y1 <= y <= y2 for x, y in reading.points)
        (a, b), (c, d) = reading.points, truth.points
        distance = min(math.dist(a, c) + math.dist(b, d), math.dist(a, d) + math.dist(b, c)) / 2
        return float(inside and distance < self._config.points_px * self._scale)

    def _distillation(self, readings: list[Reading], truths: list[AnsweredObject]) -> list[float]:
        scores = [0.0] * len(readings)
        indices = [index for index in self._right(readings, truths) if readings[index].detailed]
        savings = self._savings([readings[index] for index in indices])
        shorter = {index: saving for index, saving in zip(indices, savings, strict=True) if saving > 0}
        if not shorter or self.encoder is None:
            return scores
        concise, detailed = [readings[i].concise for i in shorter], [readings[i].detailed for i in shorter]
        similarities = np.clip(cosine_similarities(self.encoder, concise, detailed), 0.0, 1.0)
        for (index, saving), similarity in zip(shorter.items(), similarities, strict=True):
            scores[index] = float(similarity) * saving
        return scores

    def _savings(self, readings: list[Reading]) -> list[float]:
        """Return the share of tokens by which each concise text is shorter than the detailed one, at least 0."""
        if not readings:
            return []
        counts = self._count_tokens([*(each.concise for each in readings), *(each.detailed for each in readings)])
        pairs = zip(counts[: len(readings)], counts[len(readings) :], strict=True)
        return [max(0.0, 1.0 - concise / detailed) if detailed > 0 else 0.0 for concise, detailed in pairs]

    def _length(self, readings: list[Reading], truths: list[AnsweredObject]) -> list[float]:
        scores = [0.0] * len(readings)
        right = self._right(readings, truths)
        counts = self._count_tokens([readings[index].concise for index in right]) if right else []
        for index, count in zip(right, counts, strict=True):
            score = self._config.length_slope * (self._config.length_target - count) + 0.5
            scores[index] = min(max(score, 0.0), 1.0)
        return scores

    def _right(self, readings: list[Reading], truths: list[AnsweredObject]) -> list[int]:
        """Return the indices of the completions with a concise text and a box that passes the gate."""
        pairs = enumerate(zip(readings, truths, strict=True))
        return [i for i, (each, truth) in pairs if each.concise and _box_iou(each, truth) > self._config.iou_gate]


def inclusive_iou(a: FloatBox, b: FloatBox) -> float:
    """Return the IoU as the reference computes it: +1 on each side, 0 if the boxes do not overlap.

    Args:
        a: XYXY, pixels; a reversed or empty box overlaps nothing.
        b: XYXY, pixels of the same frame.

    Returns:
        A fraction from 0 to 1.
    """
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    intersection = (width + 1) * (height + 1)
    areas = sum((box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b))
    return float(min(intersection / (areas - intersection), 1.0))  # rounding may exceed 1


def _box_iou(reading: Reading, truth: AnsweredObject) -> float:
    return 0.0 if reading.box is None else inclusive_iou(reading.box, truth.box)


def _truths(columns: Mapping[str, Any], count: int) -> list[AnsweredObject]:
    for name in ("box", "points"):
        if name not in columns:
            raise UsageError(f"the training data has no column {name!r}; rewards need 'box' and 'points'")
        if len(columns[name]) != count:
            raise UsageError(f"{count} completions need as many rows of {name!r}, not {len(columns[name])}")
    return [_truth(box, points) for box, points in zip(columns["box"], columns["points"], strict=True)]


def _truth(box: Any, points: Any) -> AnsweredObject:
    try:
        x1, y1, x2, y2 = (int(edge) for edge in box)
        (first_x, first_y), (second_x, second_y) = ((int(x), int(y)) for x, y in points)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"'box' {box} is not 4 numbers, or 'points' {points} not 2 x 2") from error
    return AnsweredObject((x1, y1, x2, y2), ((first_x, first_y), (second_x, second_y)))
