"""Results as one COCO document, as pycocotools, FiftyOne and other tools of data sets read it.

https://cocodataset.org/#format-data
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from wise_edge import __version__
from wise_edge.geometry import mask_box
from wise_edge.rle import compressed_runs
from wise_edge.runtimes.results import Findings, SegmentedObject


def to_coco(results: Iterable[tuple[str, Findings]]) -> dict[str, Any]:
    """Return the objects of results as one JSON-ready COCO document.

    An object's category is its label, or the query where the policy's answers have no labels. Its area and box are the
    mask's; without a pixel in the mask, the area is 0 and the box the policy's. A picture in which nothing was found,
    or whose answer could not be read, is listed without an annotation.

    Args:
        results: a picture's file name and its result; a picture with several results is listed once.

    Returns:
        "info", "licenses", "images", "categories" and "annotations", whose "segmentation" is compressed run lengths,
        "bbox" XYWH in pixels, "area" in pixels, "score" the segmenter's estimate of the IoU or None, "query" the query.
    """
    images: dict[str, dict[str, Any]] = {}
    categories: dict[str, int] = {}
    annotations: list[dict[str, Any]] = []
    for file_name, result in results:
        width, height = result.image_size
        image = images.setdefault(
            file_name, {"id": len(images) + 1, "file_name": file_name, "width": width, "height": height}
        )
        for item in result.objects:
            category = categories.setdefault(item.label or result.query, len(categories) + 1)
            place = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": category}
            annotations.append(place | _describe(item) | {"query": result.query})
    return {
        "info": {"description": f"Made by wise-edge {__version__}", "version": __version__},
        "licenses": [],
        "images": list(images.values()),
        "categories": [{"id": number, "name": name, "supercategory": ""} for name, number in categories.items()],
        "annotations": annotations,
    }


def _describe(item: SegmentedObject) -> dict[str, Any]:
    x1, y1, x2, y2 = mask_box(item.mask) if item.mask.any() else item.box
    return {
        "segmentation": compressed_runs(item.mask),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": int(np.count_nonzero(item.mask)),
        "iscrowd": 0,
        "score": item.score,
    }
