"""From what a policy wrote to a place in the image and a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wise_edge.geometry import Size, scale_box, scale_point
from wise_edge.policy.answers.answer import AnsweredObject
from wise_edge.policy.answers.form import AnswerForm
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.policy.answers.reading import MAX_OBJECTS
from wise_edge.policy.answers.tolerant import objects_left_out, parse_answer
from wise_edge.runtimes.base import Finish, MaskOutput, PolicyOutput, Request
from wise_edge.runtimes.objects import SegmentedObject
from wise_edge.runtimes.results import BackendChoice, Latencies, SegmentationResult
from wise_edge.runtimes.spans import Span

ENERGY_REASON = "no sensor was read; run --energy reads one, wise-edge profile measures every part"


@dataclass(frozen=True)
class Located:
    """Where an answer points.

    Attributes:
        size: (width, height) of the original image in pixels.
        objects: in pixels of the original image; empty if the policy found nothing, and without a readable answer.
        repairs: what the tolerant parser repaired.
        reason: why there is no answer; None if there is one.
    """

    size: Size
    objects: tuple[AnsweredObject, ...]
    repairs: tuple[str, ...]
    reason: str | None


def locate(output: PolicyOutput, form: AnswerForm, frame: AnswerFrame, size: Size, most: int = MAX_OBJECTS) -> Located:
    """Read a policy's answer and map it to the original image.

    Args:
        output: what the policy wrote.
        form: how the policy answers.
        frame: what the numbers of its answer count.
        size: (width, height) of the original image in pixels.
        most: objects of an answer.
    """
    parsed = parse_answer(output.text, form, frame, output.parts, most)
    if parsed.answer is None:
        cut = "; the policy reached its token limit" if output.finish == "length" else ""
        return Located(size, (), parsed.repairs, f"{parsed.reason}{cut}")
    objects = tuple(
        AnsweredObject(
            scale_box(item.box, frame.size, size),
            tuple(scale_point(point, frame.size, size) for point in item.points),
            item.label,
        )
        for item in parsed.answer.objects
    )
    return Located(size, objects, (*parsed.repairs, *_ended_early(output.finish, form, most)), None)


def _ended_early(finish: Finish, form: AnswerForm, most: int) -> tuple[str, ...]:
    """Return what ended a list before the policy did."""
    if finish == "objects":
        return (objects_left_out(most),)
    return ("list ended by the token limit",) if finish == "length" and form.many else ()


def build_result(
    request: Request,
    output: PolicyOutput,
    located: Located,
    found: Sequence[MaskOutput],
    spans: Sequence[Span],
    total_ms: float,
    image: npt.NDArray[np.uint8],
    *,
    pixels: int | None,
    backends: Mapping[str, BackendChoice],
    frame_reused: bool,
) -> SegmentationResult:
    """Return the result of a query whose energy was not measured.

    Args:
        request: what the policy was asked.
        output: what it wrote.
        located: where its answer points.
        found: the mask of each object.
        spans: the phases that the query paid for.
        total_ms: from the image to the mask.
        image: HWC uint8 RGB, which does not change.
        pixels: most pixels of the image as the policy saw it.
        backends: what ran.
        frame_reused: whether the image was known.
    """
    return SegmentationResult(
        query=request.query,
        variant=request.variant,
        text=output.text,
        rationale=output.parts.rationale,
        objects=tuple(
            SegmentedObject(number, item.box, item.points, item.label, each.mask, each.mask_score)
            for number, (item, each) in enumerate(zip(located.objects, found, strict=True), start=1)
        ),
        reason=located.reason,
        repairs=located.repairs,
        image_size=located.size,
        tokens=output.tokens,
        latency_ms=Latencies.of(spans, total_ms),
        energy_j=None,
        energy_reason=ENERGY_REASON,
        energy_source=None,
        backends=backends,
        frame_reused=frame_reused,
        pixels=pixels,
        spans=tuple(spans),
        image=image,
    )
