"""The results that a node publishes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.arguments import check_size
from wise_edge.geometry import Box, Point, Size
from wise_edge.mapping import from_mapping
from wise_edge.rle import mask_of_runs, run_lengths
from wise_edge.robot.frames import Frame, Place
from wise_edge.runtimes.results import SegmentationResult, explain_empty
from wise_edge.runtimes.tracking import Tracked


@dataclass(frozen=True, eq=False)
class NodeResult:
    """A query's object on one frame.

    Attributes:
        stamp_ns: stamp of the frame.
        frame_id: frame id of the frame.
        image_size: (width, height) of the frame in pixels.
        query: the query.
        standing: True for the standing query, False for a one-shot query.
        box: XYXY, half-open, pixels of the frame; None if nothing was found.
        points: XY pixels inside the object.
        mask: bool [H, W] of the frame.
        score: the segmenter's own estimate of the mask's IoU; None without a pixel in the mask.
        place: where the object is, in the camera's frame; None without depth and intrinsics.
        rationale: the policy's rationale of the last grounding.
        variant: prompt variant of the last grounding.
        reason: why there is no answer; None if there is one.
        grounded_stamp_ns: stamp of the frame that the policy saw.
        dropped: frames before this one that got no result.
        delay_ms: time from the frame's arrival to this result.
        latency_ms: phase to ms, of the last grounding.
    """

    stamp_ns: int
    frame_id: str
    image_size: Size
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

    @classmethod
    def of(cls, frame: Frame, answer: SegmentationResult, tracked: Tracked | None = None) -> NodeResult:
        """Return the result of a query on a frame that did not wait, without its place.

        Args:
            frame: what the result is about.
            answer: the query's answer, on this frame or an earlier one.
            tracked: what the segmenter found on this frame; the answer's own box and mask if omitted.
        """
        found = tracked or answer
        height, width, _ = frame.image.shape
        return cls(
            stamp_ns=frame.stamp_ns,
            frame_id=frame.frame_id,
            image_size=(width, height),
            query=answer.query,
            standing=tracked is not None,
            box=found.box,
            points=found.points or (),
            mask=found.mask,
            score=found.score,
            place=None,
            rationale=answer.rationale,
            variant=answer.variant,
            reason=answer.reason,
            grounded_stamp_ns=frame.stamp_ns,
            dropped=0,
            delay_ms=answer.latency_ms.total,
            latency_ms=asdict(answer.latency_ms),
        )

    @classmethod
    def unreadable(cls, stamp_ns: int, frame_id: str, query: str, variant: str, reason: str) -> NodeResult:
        """Return the result of a query on an image that could not be read, of 0 x 0 pixels."""
        return cls(
            stamp_ns=stamp_ns,
            frame_id=frame_id,
            image_size=(0, 0),
            query=query,
            standing=False,
            box=None,
            points=(),
            mask=None,
            score=None,
            place=None,
            rationale=None,
            variant=variant,
            reason=reason,
            grounded_stamp_ns=stamp_ns,
            dropped=0,
            delay_ms=0.0,
            latency_ms={},
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NodeResult:
        """Return the result of which `to_dict` made the data.

        Raises:
            UsageError, ValueError, TypeError, KeyError: it did not.
        """
        fields = {name: data[name] for name in cls.__dataclass_fields__}
        result = from_mapping(cls, fields | {"mask": None})
        if result.image_size != (0, 0):
            check_size(result.image_size, "the image")
        mask = None if fields["mask"] is None else mask_of_runs(fields["mask"])
        if mask is not None and mask.shape != result.image_size[::-1]:
            raise ValueError(f"the mask has {mask.shape} rows and columns, the image {result.image_size[::-1]}")
        return replace(result, mask=mask)

    @property
    def stale(self) -> bool:
        """Whether the policy saw an earlier frame than this one."""
        return self.grounded_stamp_ns != self.stamp_ns

    @property
    def age_ms(self) -> float:
        """How much older the frame that the policy saw is."""
        return (self.stamp_ns - self.grounded_stamp_ns) / 1e6

    def mask_image(self) -> npt.NDArray[np.uint8]:
        """Return the mask as uint8 [H, W] of the frame: 255 inside, 0 elsewhere; all 0 without a mask."""
        width, height = self.image_size
        return np.zeros((height, width), np.uint8) if self.mask is None else self.mask.astype(np.uint8) * np.uint8(255)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data, with the mask as COCO's uncompressed run lengths."""
        return self.to_facts() | {"mask": None if self.mask is None else run_lengths(self.mask)}

    def to_facts(self) -> dict[str, Any]:
        """Return JSON-ready data without the mask, for transports that send it separately."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "mask"}
        return data | {
            "place": None if self.place is None else asdict(self.place),
            "mask_px": None if self.mask is None else int(self.mask.sum()),
            "mask_reason": explain_empty(self.mask),
            "stale": self.stale,
            "age_ms": self.age_ms,
        }
