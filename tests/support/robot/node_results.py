"""A result of a node, for tests of what is made of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from wise_edge.robot.frames import Place
from wise_edge.robot.results import NodeResult, PlacedObject


def placed_object(**changes: Any) -> PlacedObject:
    """Return a mug on a frame of 7 x 5 pixels."""
    mask = np.zeros((5, 7), np.bool_)
    mask[1:3, 2:6] = True
    fields: dict[str, Any] = {
        "number": 1,
        "box": (2, 1, 6, 3),
        "points": ((3, 1), (4, 2)),
        "label": None,
        "mask": mask,
        "score": 0.9,
        "place": Place((0.1, 0.2, 1.5), (0.1, 0.1, 0.05), 8),
    }
    return PlacedObject(**fields | changes)


def node_result(**changes: Any) -> NodeResult:
    """Return the result of a mug on a frame of 7 x 5 pixels."""
    fields: dict[str, Any] = {
        "stamp_ns": 1_700_000_000_123_456_789,
        "frame_id": "camera",
        "image_size": (7, 5),
        "query": "the mug",
        "standing": True,
        "objects": (placed_object(),),
        "rationale": "It is the mug.",
        "variant": "wise-s",
        "reason": None,
        "grounded_stamp_ns": 1_700_000_000_123_456_789,
        "dropped": 0,
        "delay_ms": 40.0,
        "latency_ms": {"total": 40.0},
    }
    return NodeResult(**fields | changes)
