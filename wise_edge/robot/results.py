"""The results that a node publishes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.arguments import check_size
from wise_edge.geometry import Point, Size
from wise_edge.mapping import from_mapping
from wise_edge.rle import compressed_runs, mask_of_runs
from wise_edge.robot.frames import Frame, Place
from wise_edge.runtimes.objects import HiddenObject, SegmentedObject
from wise_edge.runtimes.results import Findings, SegmentationResult
from wise_edge.runtimes.tracking import Tracked


@dataclass(frozen=True, eq=False)
class PlacedObject(SegmentedObject):
    """An object, and where it is.

    Attributes:
        place: in the camera's frame; None without depth and intrinsics.
    """

    place: Place | None = None

    @classmethod
    def of(cls, item: SegmentedObject, place: Place | None = None) -> PlacedObject:
        """Return an object with its place."""
        return cls(**{name: getattr(item, name) for name in SegmentedObject.__dataclass_fields__}, place=place)

    def to_facts(self) -> dict[str, Any]:
        """Return JSON-ready data without the mask."""
        return super().to_facts() | {"place": None if self.place is None else asdict(self.place)}


@dataclass(frozen=True, eq=False)
class NodeResult(Findings):
    """A query's objects on one frame.

    Attributes:
        stamp_ns: stamp of the frame.
        frame_id: frame id of the frame.
        image_size: (width, height) of the frame in pixels.
        query: the query.
        standing: True for the standing query, False for a one-shot query.
        objects: in pixels of the frame; empty if nothing was found.
        rationale: the policy's rationale of the last grounding.
        variant: prompt variant of the last grounding.
        reason: why there is no answer; None if there is one.
        grounded_stamp_ns: stamp of the frame that the policy saw.
        dropped: frames before this one that got no result.
        delay_ms: time from the frame's arrival to this result.
        latency_ms: phase to ms, of the last grounding.
        hidden: objects that are followed and not visible on the frame; None without a memory.
    """

    stamp_ns: int
    frame_id: str
    image_size: Size
    query: str
    standing: bool
    objects: tuple[PlacedObject, ...]
    rationale: str | None
    variant: str
    reason: str | None
    grounded_stamp_ns: int
    dropped: int
    delay_ms: float
    latency_ms: dict[str, float]
    hidden: tuple[HiddenObject, ...] | None = None

    @classmethod
    def of(
        cls,
        frame: Frame,
        answer: SegmentationResult,
        tracked: Tracked | None = None,
        find_place: Callable[[npt.NDArray[np.bool_]], Place | None] = lambda mask: None,
    ) -> NodeResult:
        """Return the result of a query on a frame that did not wait.

        Args:
            frame: what the result is about.
            answer: the query's answer, on this frame or an earlier one.
            tracked: what the segmenter found on this frame; the answer's own objects if omitted.
            find_place: mask to place.
        """
        height, width, _ = frame.image.shape
        return cls(
            stamp_ns=frame.stamp_ns,
            frame_id=frame.frame_id,
            image_size=(width, height),
            query=answer.query,
            standing=tracked is not None,
            objects=tuple(PlacedObject.of(item, find_place(item.mask)) for item in (tracked or answer).objects),
            rationale=answer.rationale,
            variant=answer.variant,
            reason=answer.reason,
            grounded_stamp_ns=frame.stamp_ns,
            dropped=0,
            delay_ms=answer.latency_ms.total,
            latency_ms=asdict(answer.latency_ms),
            hidden=None if tracked is None else tracked.hidden,
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
            objects=(),
            rationale=None,
            variant=variant,
            reason=reason,
            grounded_stamp_ns=stamp_ns,
            dropped=0,
            delay_ms=0.0,
            latency_ms={},
        )

    @classmethod
    def from_record(cls, data: Mapping[str, Any]) -> NodeResult:
        """Return the result of which `to_record` made the data.

        Raises:
            UsageError, ValueError, TypeError, KeyError: it did not.
        """
        fields = {name: data[name] for name in cls.__dataclass_fields__}
        result = from_mapping(cls, fields | {"objects": ()})
        if result.image_size != (0, 0):
            check_size(result.image_size, "the image")
        return replace(result, objects=tuple(_read_object(item, result.image_size) for item in data["objects"]))

    @property
    def points(self) -> tuple[Point, ...]:
        """The first object's points; empty without an object."""
        return super().points or ()

    @property
    def place(self) -> Place | None:
        """The first object's place; None without an object, and without depth and intrinsics."""
        return self.objects[0].place if self.objects else None

    @property
    def stale(self) -> bool:
        """Whether the policy saw an earlier frame than this one."""
        return self.grounded_stamp_ns != self.stamp_ns

    @property
    def age_ms(self) -> float:
        """How much older the frame that the policy saw is."""
        return (self.stamp_ns - self.grounded_stamp_ns) / 1e6

    def to_record(self) -> dict[str, Any]:
        """Return JSON-ready data of the fields alone."""
        return self._fields() | {"objects": [item.to_dict() for item in self.objects]}

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data, with masks as COCO's compressed run lengths."""
        return self.to_facts() | {
            "objects": [item.to_dict() for item in self.objects],
            "mask": None if self.mask is None else compressed_runs(self.mask),
        }

    def to_facts(self) -> dict[str, Any]:
        """Return JSON-ready data without masks, for transports that send them separately."""
        return (self._fields() | self._facts()) | {
            "place": None if self.place is None else asdict(self.place),
            "stale": self.stale,
            "age_ms": self.age_ms,
        }

    def _fields(self) -> dict[str, Any]:
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return data | {"hidden": None if self.hidden is None else [asdict(item) for item in self.hidden]}


def _read_object(data: Mapping[str, Any], size: Size) -> PlacedObject:
    mask = mask_of_runs(data["mask"])
    if mask.shape != size[::-1]:
        raise ValueError(f"the mask has {mask.shape} rows and columns, the image {size[::-1]}")
    fields = {name: data[name] for name in PlacedObject.__dataclass_fields__}
    return from_mapping(PlacedObject, fields | {"mask": mask})
