"""What is known of one frame, as a line of JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from wise_edge.runtimes.results import RESULT_VERSION
from wise_edge.runtimes.tracking import Tracked
from wise_edge.video.reading import number_of


def frame_record(tracked: Tracked) -> dict[str, Any]:
    """Return a result on a `NumberedFrame` as JSON-ready data, with each object's mask as COCO's run lengths."""
    answer = tracked.grounding
    return {
        "version": RESULT_VERSION,
        "frame": number_of(tracked.frame).index,
        "time_s": round(tracked.stamp_s, 6),
        "image_size": tracked.image_size,
        "query": answer.query,
        "variant": answer.variant,
        "status": tracked.status,
        "reason": tracked.reason,
        "rationale": answer.rationale,
        "objects": [item.to_dict() for item in tracked.objects],
        "hidden": None if tracked.hidden is None else [asdict(item) for item in tracked.hidden],
        "stale": tracked.stale,
        "age_s": round(tracked.age_s, 6),
        "grounded_frame": number_of(tracked.grounded_frame).index,
        "dropped": tracked.dropped,
    }
