"""What a node hands out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.geometry import Box, Point
from wise_edge.rle import run_lengths
from wise_edge.robot.frames import Place


@dataclass(frozen=True, eq=False)
class NodeResult:
    """What is known of a query's object on one frame.

    Attributes:
        stamp_ns: the frame's own.
        frame_id: likewise.
        query: what was asked.
        standing: whether it is of a standing query, or of a one-shot.
        box: XYXY, half-open pixels of the frame; None where nothing was found.
        points: inside the object.
        mask: bool [H, W] of the frame.
        score: the segmenter's own estimate of the mask's IoU.
        place: where it is, in the camera's frame; None without depth and intrinsics.
        rationale: the policy's, of the last grounding.
        variant: its prompt variant.
        reason: why there is no answer; None where there is one.
        grounded_stamp_ns: stamp of the frame that the policy saw.
        dropped: frames before this one that got no result.
        delay_ms: from the frame's coming to this result.
        latency_ms: phase to ms, of the last grounding.
    """

    stamp_ns: int
    frame_id: str
    query: str
    standing: bool
    box: Box | None
    points: tuple[Point, ...]
    mask: npt.NDArray[np.bool_] | None
    score: float | None
    place: Place | None
    rationale: str | None
    variant: str
    reason: str | None
    grounded_stamp_ns: int
    dropped: int
    delay_ms: float
    latency_ms: dict[str, float]

    @property
    def stale(self) -> bool:
        """Whether the policy has not seen this frame but an earlier one."""
        return self.grounded_stamp_ns != self.stamp_ns

    @property
    def age_ms(self) -> float:
        """How much older the frame is that the policy saw."""
        return (self.stamp_ns - self.grounded_stamp_ns) / 1e6

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data; the mask as COCO's uncompressed run lengths."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return data | {
            "mask": None if self.mask is None else run_lengths(self.mask),
            "place": None if self.place is None else asdict(self.place),
            "stale": self.stale,
            "age_ms": self.age_ms,
        }
