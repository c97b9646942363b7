"""What a completion is rewarded for: terms, their weights and thresholds, and the order of the parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from wise_edge.ranges import Checked, Name, NotNegative, Positive, Range, label
from wise_edge.training.wise.similarity import DEFAULT_MODEL

TERMS = ("format", "answer", "box_iou", "box_l1", "points", "distillation")
"""The terms of the reference, by our names."""
DEFAULT_WEIGHTS = {**dict.fromkeys(TERMS, 1.0), "length": 0.0}
LIST_WEIGHTS = {"count": 1.0}
"""Further terms of answers that are lists, with their default weights."""

ORDERS: dict[str, tuple[str, ...]] = {
    "concise-first": ("think", "answer", "d_think"),
    "detailed-first": ("d_think", "think", "answer"),
    "no-detailed": ("think", "answer"),
}
"""Order of the parts of a completion -> their tags."""


@dataclass(frozen=True)
class RewardConfig(Checked):
    """What a completion is rewarded for; the mapping `rewards:` of a recipe."""

    weights: dict[str, NotNegative] = field(default_factory=dict)
    """Weight of each term; default 1, for `length` 0. A term of weight 0 is not computed, nor is `count`, the number of
    objects, unless answers are lists."""
    iou_gate: Annotated[float, Range(-1e12, 1)] = 0.5
    """`distillation` and `length` count if the box IoU is above it; a negative gate lets every completion pass."""
    box_l1_px: Positive = 10.0
    """`box_l1` is 1 if the mean absolute difference of the edges is below it, px at `reference_size`."""
    points_px: Positive = 100.0
    """`points` is 1 if the mean distance of the points is below it, px at `reference_size`."""
    reference_size: Annotated[int, Range(1, 16_384)] = 840
    """Side of the square image for which the two thresholds are meant, px."""
    similarity_model: Name = DEFAULT_MODEL
    """Sentence encoder of `distillation`: the default package, or a folder or name for sentence-transformers."""
    length_target: Annotated[int, Range(1, 10**6)] = 20
    """`length` is 0.5 at this many tokens of the concise text, including tags."""
    length_slope: Positive = 3e-4
    """Increase of `length` per token less. The default is that of L1-max (https://arxiv.org/abs/2503.04697) and of the
    reference, for thousands of tokens; with 0.01 the term reaches 0 at 50 tokens above the target."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = (*DEFAULT_WEIGHTS, *LIST_WEIGHTS)
        if unknown := [name for name in self.weights if name not in known]:
            raise ValueError(f"weights.{label(unknown[0])}: unknown term; terms are {', '.join(known)}")
        object.__setattr__(self, "weights", {**DEFAULT_WEIGHTS, **self.weights})
        if not any(self.weights.values()):
            raise ValueError("weights: at least one must be above 0")
        if self.iou_gate == 1:
            raise ValueError("iou_gate: must be below 1 (negative switches it off)")
