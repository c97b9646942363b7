"""Writes test scenes in the forms of published data sets, for tests of what reads and evaluates them.

- RefCOCO, as the refer API's files (https://github.com/lichengunc/refer), and gRefCOCO, as its own
  (https://github.com/henghuiding/gRefCOCO).
- ReasonSeg (https://github.com/dvlab-research/LISA): `0.jpg` next to `0.json` with queries and polygons.
- refCOCOg_2k_840 (https://huggingface.co/datasets/Ricky06662/refCOCOg_2k_840): a parquet file of images stretched to
  840 x 840 pixels, with box and points as text.
- Tables with a mask in each row (https://huggingface.co/datasets/Ricky06662/ReasonSeg_test).
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from polygons import trace_polygons
from wise_edge.geometry import scale_box, scale_point
from wise_edge.scenes import Sample, sample

REFERENCE_SIDE_PX = 840


def write_refcoco(
    folder: Path, count: int, name: str = "refcoco", split: str = "testA", partition: str = "unc"
) -> list[Sample]:
    """Write scenes as DIR/NAME/refs(...).p, DIR/NAME/instances.json and DIR/images/mscoco/images/train2014.

    The first ref of every three has polygons, the next plain and the next compressed run lengths; each has two
    sentences, the query and the request. All of them describe the scenes' masks exactly.
    """
    items = [sample("test", index) for index in range(count)]
    files = folder / "images" / "mscoco" / "images" / "train2014"
    files.mkdir(parents=True)
    (folder / name).mkdir()
    images, annotations, refs = [], [], []
    for index, item in enumerate(items):
        file = f"COCO_train2014_{index:012d}.jpg"
        (files / file).write_bytes(image_bytes(item.scene.image, "JPEG"))
        side = item.scene.side
        images.append({"id": index, "file_name": file, "height": side, "width": side})
        segmentation = (polygons_of, plain_runs, compressed_runs)[index % 3](item.mask)
        annotations.append({"id": 100 + index, "image_id": index, "segmentation": segmentation, "iscrowd": 0})
        sentences = [
            {"sent": text, "raw": text, "sent_id": 0, "tokens": []} for text in (item.query.text, item.request)
        ]
        refs.append(
            {"ref_id": 7 + index, "ann_id": 100 + index, "image_id": index, "split": split, "sentences": sentences}
        )
    write_refcoco_files(folder / name, partition, refs, {"images": images, "annotations": annotations})
    return items


def write_refcoco_files(folder: Path, partition: str, refs: Any, instances: Any) -> None:
    """Write refs(...).p and instances.json."""
    (folder / f"refs({partition}).p").write_bytes(pickle.dumps(refs, protocol=2))  # as the published files are
    (folder / "instances.json").write_text(json.dumps(instances))


def write_grefcoco(folder: Path, count: int, split: str = "val") -> list[Sample]:
    """Write scenes as DIR/grefcoco/grefs(unc).json, DIR/grefcoco/instances.json and DIR/images/train2014.

    Every object of a scene is an annotation, and so is a crowd over all of the image. By turns, a ref means nothing,
    the scene's query, or all objects and the crowd. The fields are those of the published files: file names end with
    the id of RefCOCO's annotation.
    """
    items = [sample("test", index) for index in range(count)]
    files = folder / "images" / "train2014"
    files.mkdir(parents=True)
    (folder / "grefcoco").mkdir()
    images, annotations, refs = [], [], []
    for index, item in enumerate(items):
        file, side = f"COCO_train2014_{index:012d}", item.scene.side
        (files / f"{file}.jpg").write_bytes(image_bytes(item.scene.image, "JPEG"))
        images.append({"id": index, "file_name": f"{file}.jpg", "height": side, "width": side})
        first = 100 * (index + 1)
        crowd = {"size": [side, side], "counts": [0, side * side]}
        own = [
            {"id": first + place, "image_id": index, "segmentation": polygons_of(mask), "iscrowd": 0}
            for place, mask in enumerate(item.scene.masks)
        ]
        annotations += [*own, {"id": first + 99, "image_id": index, "segmentation": crowd, "iscrowd": 1}]
        meant = ([-1], [first + item.query.target], [each["id"] for each in own] + [first + 99])[index % 3]
        sentence = {
            "sent": item.query.text,
            "raw": item.query.text,
            "sent_id": index,
            "tokens": [],
            "exist": index % 3 > 0,
        }
        refs.append(
            {
                "image_id": index,
                "split": split,
                "sentences": [sentence],
                "file_name": f"{file}_{first}.jpg",
                "category_id": [-1 if number == -1 else 1 for number in meant],
                "ann_id": meant,
                "sent_ids": [index],
                "ref_id": 7 + index,
                "no_target": meant == [-1],
            }
        )
    write_grefcoco_files(folder / "grefcoco", refs, {"images": images, "annotations": annotations})
    return items


def write_grefcoco_files(folder: Path, refs: Any, instances: Any) -> None:
    """Write grefs(unc).json and instances.json."""
    (folder / "grefs(unc).json").write_text(json.dumps(refs))
    (folder / "instances.json").write_text(json.dumps(instances))


def polygons_of(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Return a mask as one rectangle for each run of its rows, in COCO's form."""
    polygons = []
    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
        for x1, x2 in edges.reshape(-1, 2).tolist():
            polygons.append([float(value) for value in (x1, y, x2, y, x2, y + 1, x1, y + 1)])
    return polygons


def plain_runs(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return a mask as COCO's plain run lengths."""
    runs = [(value, len(list(run))) for value, run in groupby(mask.T.ravel().tolist())]
    counts = [count for _, count in runs]
    return {"size": list(mask.shape), "counts": [0, *counts] if runs[0][0] else counts}


def compressed_runs(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return a mask as COCO's compressed run lengths, by COCO's own code."""
    from pycocotools import mask as coco

    runs = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": runs["counts"].decode()}


def write_reasonseg(folder: Path, count: int) -> None:
    """Write scenes as a split of ReasonSeg.

    Its readers paint each polygon with its outline, so vertices are centers of the mask's own outermost pixels. A query
    that is more than a noun phrase ("where is the red ring?") counts as a sentence.
    """
    folder.mkdir(parents=True)
    for index in range(count):
        item = sample("test", index)
        (folder / f"{index}.jpg").write_bytes(image_bytes(item.scene.image, "JPEG"))
        shapes = [{"label": "target", "points": polygon} for polygon in trace_polygons(item.mask)]
        content = {"text": [item.request], "is_sentence": item.request != item.query.text, "shapes": shapes}
        (folder / f"{index}.json").write_text(json.dumps(content), encoding="utf-8")


def write_refcocog_2k(folder: Path, split: str, count: int) -> Path:
    """Write scenes of a split as refCOCOg_2k_840, and return its file, data/SPLIT-00000-of-00001.parquet."""
    file = folder / "data" / f"{split}-00000-of-00001.parquet"
    features: dict[str, Any] = {name: {"dtype": "string", "_type": "Value"} for name in ("id", "problem", "solution")}
    features |= {name: {"dtype": "int64", "_type": "Value"} for name in ("img_height", "img_width")}
    features["image"] = {"_type": "Image"}
    # The metadata in which the datasets package keeps its own types.
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    rows = [_refcocog_2k_row(sample(split, index), f"{split}_{index}") for index in range(count)]
    write_parquet(file, rows, metadata=metadata)
    return file


def _refcocog_2k_row(item: Sample, name: str) -> dict[str, Any]:
    side = item.scene.side
    source, target = (side, side), (REFERENCE_SIDE_PX, REFERENCE_SIDE_PX)
    x1, y1, x2, y2 = scale_box(item.box, source, target)
    (ax, ay), (bx, by) = (scale_point(point, source, target) for point in item.points)
    stretched = np.asarray(Image.fromarray(item.scene.image).resize(target, Image.Resampling.BICUBIC))
    return {
        "id": name,
        "problem": item.query.text,
        "solution": f"<box>({x1},{y1}),({x2},{y2})</box><points>({ax},{ay}),({bx},{by})</points>",
        "img_height": side,
        "img_width": side,
        "image": {"bytes": image_bytes(stretched, "JPEG"), "path": f"{name}.jpg"},
    }


def mask_rows(count: int) -> list[dict[str, Any]]:
    """Return scenes as rows of a table with masks."""
    return [mask_row(sample("test", index), index) for index in range(count)]


def mask_row(item: Sample, index: int) -> dict[str, Any]:
    """Return a scene as a row of a table with masks."""
    return {
        "image": {"bytes": image_bytes(item.scene.image, "PNG"), "path": None},
        "text": item.request,
        "mask": item.mask.tolist(),
        "image_id": f"image_{index}",
        "ann_id": str(index),
        "img_height": item.scene.side,
        "img_width": item.scene.side,
    }


def write_parquet(
    path: Path, rows: Sequence[dict[str, Any]], row_group_size: int = 7, metadata: Mapping[str, str] | None = None
) -> None:
    """Write rows as a parquet file and create its folder."""
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(list(rows), metadata=metadata)
    parquet.write_table(table, path, row_group_size=row_group_size)


def image_bytes(image: NDArray[np.uint8] | NDArray[np.bool_], kind: str) -> bytes:
    """Return an image as the content of a file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=kind, quality=95)
    return buffer.getvalue()
