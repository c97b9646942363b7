"""Writes test scenes as people have their own data: as COCO JSON of four tools, and as tables with mask files.

The keys and folders of each tool are those that it wrote when it was run: label-studio-sdk 2.1.2, Datumaro 1.13.12
(which CVAT exports with) and fiftyone 1.22.1; Roboflow's are of its exports of data sets that it hosts.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_files import compressed_runs, image_bytes, plain_runs, polygons_of
from wise_edge.scenes import Sample, sample

TOOLS = ("label-studio", "cvat", "roboflow", "fiftyone")


def write_coco(folder: Path, tool: str, count: int) -> Path:
    """Write scenes as a tool exports them, every object an annotation of its shape; return the JSON file.

    Only CVAT and FiftyOne export text of an annotation: there the target has the scene's query as its caption.
    """
    items = [sample("test", index) for index in range(count)]
    file, image_folder, prefix = {
        "label-studio": (folder / "result.json", folder / "images", "images/"),
        "cvat": (folder / "annotations" / "instances_default.json", folder / "images" / "default", ""),
        "roboflow": (folder / "train" / "_annotations.coco.json", folder / "train", ""),
        "fiftyone": (folder / "labels.json", folder / "data", ""),
    }[tool]
    image_folder.mkdir(parents=True)
    file.parent.mkdir(exist_ok=True)
    shapes = sorted({each.shape for item in items for each in item.scene.objects})
    first = 1 if tool in ("cvat", "roboflow") else 0
    categories = [{"id": first + place, "name": name} for place, name in enumerate(shapes)]
    images, annotations = [], []
    for index, item in enumerate(items):
        name = f"scene {index}.jpg"
        (image_folder / name).write_bytes(image_bytes(item.scene.image, "JPEG"))
        side = item.scene.side
        images.append({"id": index, "file_name": prefix + name, "width": side, "height": side})
        for place, (each, mask) in enumerate(zip(item.scene.objects, item.scene.masks, strict=True)):
            x1, y1, x2, y2 = each.box
            annotation = {
                "id": len(annotations),
                "image_id": index,
                "category_id": first + shapes.index(each.shape),
                "segmentation": polygons_of(mask),
                "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
                "area": float(mask.sum()),
                "iscrowd": 0,
            }
            caption = item.query.text if place == item.query.target else None
            annotations.append(annotation | _own_keys(tool, place, mask, caption))
    content = {"info": {}, "licenses": [], "images": images, "categories": categories, "annotations": annotations}
    if tool == "roboflow":
        categories.insert(0, {"id": 0, "name": "objects", "supercategory": "none"})
        for image in images:
            image |= {"license": 1, "date_captured": "2026-11-30T10:00:00+00:00", "extra": {"name": image["file_name"]}}
    file.write_text(json.dumps(content))
    return file


def _own_keys(tool: str, place: int, mask: NDArray[np.bool_], caption: str | None) -> dict[str, Any]:
    """Return what a tool writes of an annotation besides, or instead of, what all of them write."""
    if tool == "label-studio":
        return {"ignore": 0}
    if tool == "roboflow":
        return {"segmentation": compressed_runs(mask)} if place % 2 else {}
    if tool == "fiftyone":
        return {"score": 0.9} if caption is None else {"caption": caption}
    attributes = {"occluded": False} | ({} if caption is None else {"caption": caption})
    painted = {"segmentation": plain_runs(mask), "iscrowd": 1} if place % 2 else {}  # as of every painted mask
    return {"attributes": attributes} | painted


def write_table(folder: Path, count: int, suffix: str = ".csv") -> tuple[Path, list[Sample]]:
    """Write scenes as pictures, masks (0 and 255) and a table of them."""
    items = [sample("test", index) for index in range(count)]
    (folder / "masks").mkdir(parents=True)
    rows = []
    for index, item in enumerate(items):
        (folder / f"{index}.png").write_bytes(image_bytes(item.scene.image, "PNG"))
        (folder / "masks" / f"{index}.png").write_bytes(image_bytes(item.mask, "PNG"))
        rows.append({"picture": f"{index}.png", "mask": f"masks/{index}.png", "sentence": item.query.text})
    return write_rows(folder / f"table{suffix}", rows), items


def write_rows(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write a table as its name says, and return it."""
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if file.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return file
