"""Writes scenes in the forms of RefCOCO and of the tables with masks, for tests of what reads and evaluates them."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wise_edge.scenes import Sample, sample


def write_refcoco(
    folder: Path, count: int, name: str = "refcoco", split: str = "testA", partition: str = "unc"
) -> list[Sample]:
    """Write test scenes as DIR/NAME/refs(...).p, DIR/NAME/instances.json and DIR/images/mscoco/images/train2014.

    The first ref of every three has polygons, the next plain and the next compressed run lengths; each has two
    sentences, the query and the request. All give the scenes' masks back exactly.
    """
    items = [sample("test", index) for index in range(count)]
    pictures = folder / "images" / "mscoco" / "images" / "train2014"
    pictures.mkdir(parents=True)
    (folder / name).mkdir()
    images, annotations, refs = [], [], []
    for index, item in enumerate(items):
        file = f"COCO_train2014_{index:012d}.jpg"
        (pictures / file).write_bytes(picture_bytes(item.scene.image, "JPEG"))
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


def mask_rows(count: int) -> list[dict[str, Any]]:
    """Return test scenes as rows of the table form."""
    return [mask_row(sample("test", index), index) for index in range(count)]


def mask_row(item: Sample, index: int) -> dict[str, Any]:
    """Return a scene as a row of the table form."""
    return {
        "image": {"bytes": picture_bytes(item.scene.image, "PNG"), "path": None},
        "text": item.request,
        "mask": item.mask.tolist(),
        "image_id": f"picture_{index}",
        "ann_id": str(index),
        "img_height": item.scene.side,
        "img_width": item.scene.side,
    }


def write_parquet(path: Path, rows: Sequence[dict[str, Any]], row_group_size: int = 7) -> None:
    """Write rows as a parquet file; its folder is made."""
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, row_group_size=row_group_size)


def picture_bytes(image: NDArray[np.uint8] | NDArray[np.bool_], kind: str) -> bytes:
    """Return an image as a file's content."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=kind, quality=95)
    return buffer.getvalue()
