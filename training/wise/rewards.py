"""Rewards of the WISE policy: the reference's six terms and one for an ablation, each a function for TRL.

They score as the reference does (https://github.com/mrazhou/WISE, verl/utils/reward_score/seg_restrict.py): texts and
their token counts include the tags, and boxes are compared with inclusive pixels, +1 on each side. A completion that
repeats the prompt's placeholders is read as an empty one, which scores 0 in all terms.

We differ in two points: pixel thresholds follow the frame of the answers, and a negative cosine counts as 0, because
otherwise a longer concise text would score more.

Of an answer that is a list, `box_iou`, `box_l1` and `points` are means over pairs of answered and true objects, see
`matching`, and `count` is 1 for the right number of objects. An answer of one object is a list of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from wise_edge.errors import UsageError
from wise_edge.policy.answers.answer import AnsweredObject
from wise_edge.policy.answers.form import BOX_POINTS, AnswerForm
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.training.wise.matching import UNREADABLE, Agreement, compare_objects, inclusive_iou
from wise_edge.training.wise.reading import CompletionReader, Reading, find_placeholders, is_formatted
from wise_edge.training.wise.reward_config import LIST_WEIGHTS, ORDERS, RewardConfig
from wise_edge.training.wise.similarity import SentenceEncoder, cosine_similarities

__all__ = ["RewardFunctions", "inclusive_iou"]

Truth = tuple[AnsweredObject, ...]
Term = Callable[[list[Reading], list[Truth]], list[float]]


class RewardFunctions:
    """The terms of a config as functions for TRL's `GRPOTrainer`.

    Args:
        config: weights and thresholds.
        frame: what the numbers of answers count.
        order: one of `ORDERS`.
        encoder: compares texts; `None` if `distillation` has no weight or the order no detailed text.
        count_tokens: returns the number of the policy's tokens of each text, without special tokens.
        template_text: wording of the prompt; completions must not repeat what it shows between tags and as the answer.
        form: how answers are written.

    Attributes:
        reader: reads the completions of a batch once for all terms.
        encoder: as passed.

    Raises:
        UsageError: the order is unknown, the frame is empty, no term is left, or the encoder is missing.
    """

    def __init__(
        self,
        config: RewardConfig,
        frame: AnswerFrame,
        order: str,
        encoder: SentenceEncoder | None,
        count_tokens: Callable[[Sequence[str]], list[int]],
        template_text: str,
        form: AnswerForm = BOX_POINTS,
    ) -> None:
        if order not in ORDERS:
            raise UsageError(f"order: {order!r} is unknown; use one of {', '.join(ORDERS)}")
        if min(frame.size) < 1:
            raise UsageError(f"frame: its sides must be at least 1, they are {frame.size}")
        self._config, self._tags, self.encoder, self._count_tokens = config, ORDERS[order], encoder, count_tokens
        self._form = form
        self._scale = frame.largest / config.reference_size
        self.reader = CompletionReader(find_placeholders(template_text, form), form, frame)
        terms: dict[str, Term] = {
            "format": lambda readings, truths: [float(is_formatted(each.text, self._tags)) for each in readings],
            "answer": lambda readings, truths: [float(each.has_answer) for each in readings],
            "box_iou": lambda readings, truths: [each.box_iou for each in self._compare(readings, truths)],
            "box_l1": lambda readings, truths: [each.box_l1 for each in self._compare(readings, truths)],
            "points": lambda readings, truths: [each.points for each in self._compare(readings, truths)],
            "count": lambda readings, truths: [each.count for each in self._compare(readings, truths)],
            "distillation": self._distillation,
            "length": self._length,
        }
        if "d_think" not in self._tags:
            del terms["distillation"]
        if not form.many:
            del terms["count"]
        if not form.point_keys:
            del terms["points"]
        self._weights = {**LIST_WEIGHTS, **config.weights}
        self._terms = {name: term for name, term in terms.items() if self._weights[name] > 0}
        if not self._terms:
            raise UsageError(f"rewards.weights: no term is left with order {order}; give another one a weight")
        if "distillation" in self._terms and encoder is None:
            raise UsageError("rewards.weights.distillation is above 0, so a sentence encoder is needed")

    def functions(self) -> list[Callable[..., list[float]]]:
        """Return one function for each term whose weight is above 0; its `__name__` is the name of the term.

        Without a detailed text there is no `distillation`, without points no `points`, and `count` is of lists alone.

        Each function accepts `prompts`, `completions` (texts or lists of chat messages) and the columns of the data. It
        reads the columns `box` (4 integers per row, XYXY, half-open) and `points` (2 x 2 integers per row), in pixels
        of the resized square image; if answers are lists, the column `objects` instead, for each row a list of such
        {"box", "points"}, with as many points as the form has. It returns a number from 0 to 1 for each completion.
        """
        return [self._function(name, term) for name, term in self._terms.items()]

    def weights(self) -> list[float]:
        """Return the weights of `functions`, in the same order."""
        return [self._weights[name] for name in self._terms]

    def _function(self, name: str, term: Term) -> Callable[..., list[float]]:
        def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
            readings = [each.scored for each in self.reader.read(completions)]
            return term(readings, _truths(columns, len(readings), self._form))

        reward.__name__ = reward.__qualname__ = name
        return reward

    def _compare(self, readings: list[Reading], truths: list[Truth]) -> list[Agreement]:
        box_l1, points = self._config.box_l1_px * self._scale, self._config.points_px * self._scale
        return [
            UNREADABLE if each.objects is None else compare_objects(each.objects, truth, box_l1, points)
            for each, truth in zip(readings, truths, strict=True)
        ]

    def _distillation(self, readings: list[Reading], truths: list[Truth]) -> list[float]:
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

    def _length(self, readings: list[Reading], truths: list[Truth]) -> list[float]:
        scores = [0.0] * len(readings)
        right = self._right(readings, truths)
        counts = self._count_tokens([readings[index].concise for index in right]) if right else []
        for index, count in zip(right, counts, strict=True):
            score = self._config.length_slope * (self._config.length_target - count) + 0.5
            scores[index] = min(max(score, 0.0), 1.0)
        return scores

    def _right(self, readings: list[Reading], truths: list[Truth]) -> list[int]:
        """Return the indices of the completions with a concise text and boxes that pass the gate."""
        pairs = enumerate(zip(readings, self._compare(readings, truths), strict=True))
        return [i for i, (each, found) in pairs if each.concise and found.box_iou > self._config.iou_gate]


def _truths(columns: Mapping[str, Any], count: int, form: AnswerForm) -> list[Truth]:
    names = ("objects",) if form.many else ("box", "points")
    for name in names:
        if name not in columns:
            needed = " and ".join(map(repr, names))
            raise UsageError(f"the training data has no column {name!r}; rewards need {needed}")
        if len(columns[name]) != count:
            raise UsageError(f"{count} completions need as many rows of {name!r}, not {len(columns[name])}")
    if form.many:
        return [tuple(_truth(item["box"], item["points"], form) for item in row) for row in columns["objects"]]
    return [(_truth(box, points, form),) for box, points in zip(columns["box"], columns["points"], strict=True)]


def _truth(box: Any, points: Any, form: AnswerForm) -> AnsweredObject:
    number = len(form.point_keys)
    try:
        x1, y1, x2, y2 = (int(edge) for edge in box)
        places = tuple((int(x), int(y)) for x, y in points)
        if len(places) != number:
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"'box' {box} is not 4 numbers, or 'points' {points} not {number} x 2") from error
    return AnsweredObject((x1, y1, x2, y2), places)
