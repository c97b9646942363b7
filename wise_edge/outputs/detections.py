"""Results as `supervision.Detections`, for its annotators, zones, counters and metrics.

https://supervision.roboflow.com/latest/detection/core/
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wise_edge.extras import require
from wise_edge.runtimes.results import Findings
from wise_edge.runtimes.tracking import Tracked


def to_supervision(result: Findings) -> Any:
    """Return the objects of a result as detections.

    Returns:
        `supervision.Detections`: "xyxy" the policy's boxes in pixels, "mask" bool [N, H, W], "confidence" the
        segmenter's scores, 0 without a pixel in the mask, "class_id" from 0 on by name, "tracker_id" the numbers of
        objects that are followed, else None, and in "data" as "class_name" the labels, or the query without one.

    Raises:
        MissingExtraError: supervision is not installed.
    """
    supervision = require("supervision", "supervision")
    names = [item.label or result.query for item in result.objects]
    order = list(dict.fromkeys(names))
    width, height = result.image_size
    return supervision.Detections(
        xyxy=np.array([item.box for item in result.objects], np.float32).reshape(-1, 4),
        mask=np.array([item.mask for item in result.objects], np.bool_).reshape(-1, height, width),
        confidence=np.array([item.score or 0.0 for item in result.objects], np.float32),
        class_id=np.array([order.index(name) for name in names], np.int64),
        tracker_id=np.array([item.number for item in result.objects], np.int64)
        if isinstance(result, Tracked)
        else None,
        data={"class_name": np.array(names, np.str_)},
    )
