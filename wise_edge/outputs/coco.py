"""Results as one COCO document, as pycocotools, supervision and FiftyOne read it.

https://cocodataset.org/#format-data
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from wise_edge import __version__
from wise_edge.geometry import Size, mask_box
from wise_edge.rle import compressed_runs
from wise_edge.runtimes.mask.generated import GeneratedMasks
from wise_edge.runtimes.objects import SegmentedObject
from wise_edge.runtimes.results import Findings


class CocoDocument:
    """A COCO document that grows by one result after another, of which it keeps no mask.

    An object's category is its label, or the query where the policy's answers have no labels. Its area and box are the
    mask's; without a pixel in the mask, the area is 0 and the box the policy's. A picture in which nothing was found,
    or whose answer could not be read, is listed without an annotation.
    """

    def __init__(self) -> None:
        self._images: dict[str, dict[str, Any]] = {}
        self._categories: dict[str, int] = {}
        self._annotations: list[dict[str, Any]] = []

    def add(self, file_name: str | Path, result: Findings) -> None:
        """Add a result on the picture of a file; a picture with several results is listed once."""
        image = self._list_image(file_name, result.image_size)
        for item in result.objects:
            self._annotate(image, item.label or result.query, _describe(item) | {"query": result.query})

    def add_masks(self, file_name: str | Path, result: GeneratedMasks) -> None:
        """Add masks that nobody asked for by name: their category is "object", their score the predicted IoU."""
        image = self._list_image(file_name, result.image_size)
        for item in result.masks:
            self._annotate(image, "object", item.to_dict() | {"iscrowd": 0, "score": item.predicted_iou})

    def _list_image(self, file_name: str | Path, size: Size) -> int:
        """Return the number of an image, which is listed once."""
        entry = {"id": len(self._images) + 1, "file_name": str(file_name), "width": size[0], "height": size[1]}
        number: int = self._images.setdefault(str(file_name), entry)["id"]
        return number

    def _annotate(self, image: int, category: str, content: dict[str, Any]) -> None:
        number = self._categories.setdefault(category, len(self._categories) + 1)
        self._annotations.append({"id": len(self._annotations) + 1, "image_id": image, "category_id": number} | content)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data.

        It has "info", "licenses", "images", "categories" and "annotations", whose "segmentation" is compressed run
        lengths, "bbox" XYWH in pixels, "area" in pixels, "score" the segmenter's estimate of the IoU or None, "query"
        the query.
        """
        categories = self._categories.items()
        return {
            "info": {"description": f"Made by wise-edge {__version__}", "version": __version__},
            "licenses": [],
            "images": list(self._images.values()),
            "categories": [{"id": number, "name": name, "supercategory": ""} for name, number in categories],
            "annotations": self._annotations,
        }


def to_coco(results: Iterable[tuple[str | Path, Findings]]) -> dict[str, Any]:
    """Return pictures' file names and their results as one COCO document, see `CocoDocument`."""
    document = CocoDocument()
    for file_name, result in results:
        document.add(file_name, result)
    return document.to_dict()


def _describe(item: SegmentedObject) -> dict[str, Any]:
    # FiftyOne 1.22 cuts a mask to its box, so the policy's own, which may be smaller, will not do.
    x1, y1, x2, y2 = mask_box(item.mask) if item.mask.any() else item.box
    return {
        "segmentation": compressed_runs(item.mask),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": int(np.count_nonzero(item.mask)),
        "iscrowd": 0,
        "score": item.score,
    }
