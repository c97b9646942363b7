"""Which answered object is meant for which true one, and how well they agree; for answers that are lists.

After the reward of VisionReasoner (https://github.com/JIA-Lab-research/VisionReasoner, Seg-Zero's
verl/utils/reward_score/vision_reasoner.py): an assignment that maximizes the sum of what the pairs score, divided by
the larger of the two numbers of objects. Here the IoU counts as it is and not as 0 or 1, and a list without an object
is right where nothing is meant; there it scores 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import linear_sum_assignment

from wise_edge.geometry import Box, Point
from wise_edge.policy.answers.answer import AnsweredObject

FloatBox = tuple[float, float, float, float]


@dataclass(frozen=True)
class FoundObject:
    """An object as a completion has it, in the frame of the answer, not necessarily inside.

    Attributes:
        box: XYXY, not necessarily in order.
        points: XY, as many as the form has.
    """

    box: FloatBox
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Agreement:
    """How a list of objects agrees with the truth, as fractions from 0 to 1.

    Attributes:
        box_iou: IoU of the pairs' boxes, summed, over the larger number of objects.
        box_l1: pairs whose boxes differ by less than a threshold, over the same.
        points: pairs whose points are in the answered box and nearer than a threshold, over the same.
        count: 1 if the numbers of objects are equal, else 0.
    """

    box_iou: float
    box_l1: float
    points: float
    count: float


UNREADABLE = Agreement(0.0, 0.0, 0.0, 0.0)
"""Of an answer that cannot be read."""


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


def box_difference(found: FloatBox, truth: Box) -> float:
    """Return the mean absolute difference of two boxes' edges."""
    return sum(abs(a - b) for a, b in zip(found, truth, strict=True)) / 4


def points_distance(found: Sequence[Point], truth: Sequence[Point]) -> float:
    """Return the mean distance of one or two points from as many true ones, of the better pairing."""
    pairs = list(zip(found, truth, strict=True))
    straight = sum(math.dist(a, b) for a, b in pairs)
    if len(pairs) == 2:
        (a, c), (b, d) = pairs
        straight = min(straight, math.dist(a, d) + math.dist(b, c))
    return straight / len(pairs)


def holds_points(box: FloatBox, points: Sequence[Point]) -> bool:
    """Return whether points are inside a box or on its edge."""
    x1, y1, x2, y2 = box
    return all(x1 <= x <= x2 and y1 <= y <= y2 for x, y in points)


@lru_cache(1024)  # several terms ask for the same
def compare_objects(
    found: tuple[FoundObject, ...], truth: tuple[AnsweredObject, ...], box_l1: float, points: float
) -> Agreement:
    """Pair answered and true objects so that the pairs agree best, and say how well they do.

    Args:
        found: what a completion has.
        truth: what is meant, with as many points for each object.
        box_l1: threshold of `Agreement.box_l1`, in the frame of the boxes.
        points: threshold of `Agreement.points`, likewise.
    """
    larger = max(len(found), len(truth))
    if not larger:
        return Agreement(1.0, 1.0, 1.0, 1.0)
    if not found or not truth:
        return UNREADABLE

    def scores(a: FoundObject, b: AnsweredObject) -> tuple[float, float, float]:
        near = bool(a.points) and holds_points(a.box, a.points) and points_distance(a.points, b.points) < points
        return inclusive_iou(a.box, b.box), box_difference(a.box, b.box) < box_l1, near

    pairs = np.array([[scores(a, b) for b in truth] for a in found], np.float64)
    chosen = pairs[linear_sum_assignment(pairs.sum(axis=2), maximize=True)]
    iou, l1, near = (float(total) / larger for total in chosen.sum(axis=0))
    return Agreement(iou, l1, near, float(len(found) == len(truth)))
