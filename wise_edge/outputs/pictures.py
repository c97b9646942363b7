"""Results as pictures: drawn on the image, and cut out of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wise_edge.drawing.overlay import DrawnObject
from wise_edge.drawing.plain import draw_plain
from wise_edge.geometry import mask_box
from wise_edge.runtimes.results import Findings


def draw_result(
    result: Findings,
    image: npt.NDArray[np.uint8],
    *,
    boxes: bool = False,
    points: bool = False,
    labels: bool | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw a contour and a light fill for each object on a copy of the image.

    Args:
        result: on the image.
        image: HWC uint8 RGB.
        boxes: draw the policy's boxes, too.
        points: draw the policy's points, too.
        labels: write labels and, of several objects, numbers; None writes them if there are several.

    Returns:
        HWC uint8 RGB of the image's size.
    """
    labeled = len(result.objects) > 1 if labels is None else labels
    objects = [
        DrawnObject(
            item.mask,
            item.box if boxes else None,
            item.points if points else (),
            (item.label or "") if labeled else None,
            item.number,
        )
        for item in result.objects
    ]
    return draw_plain(image, objects, result.query)


def cut_out(mask: npt.NDArray[np.bool_], image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Cut a mask out of an image.

    Args:
        mask: bool [H, W] of the image: that of a result, for all objects in one picture, or of one object.
        image: HWC uint8 RGB.

    Returns:
        HWC uint8 RGBA, cropped to the mask and transparent around it; of the image's size if the mask has no pixel.
    """
    height, width = mask.shape
    left, top, right, bottom = mask_box(mask) if mask.any() else (0, 0, width, height)
    inside = mask[top:bottom, left:right, None]
    alpha = inside * np.uint8(255)
    return np.concatenate([image[top:bottom, left:right] * inside, alpha], axis=2)
