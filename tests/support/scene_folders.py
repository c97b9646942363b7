"""Write a split as a data set on disk, in the two forms that other projects of this kind read.

- ReasonSeg (https://github.com/dvlab-research/LISA): ``0.jpg`` beside ``0.json`` with queries and polygons. Its
  readers paint each polygon with its outline, so vertices are centers of the mask's own outermost pixels.
- refCOCOg_2k_840 (https://huggingface.co/datasets/Ricky06662/refCOCOg_2k_840): one parquet file of images stretched
  to 840 x 840 pixels, with box and points as text.

A folder appears whole or not at all.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from scene_outlines import trace_polygons
from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.geometry import scale_box, scale_point
from wise_edge.scenes.sampling import SIDE_PX, SPLITS, Sample, sample

REFERENCE_SIDE_PX = 840
JPEG_QUALITY = 95

_ROWS_AT_ONCE = 64


def export_reasonseg(split: str, count: int, folder: str | Path, side: int = SIDE_PX) -> None:
    """Write the first samples of a split in ReasonSeg's form.

    A query that is more than a noun phrase ("where is the red ring?") counts as a sentence.

    Args:
        split: a key of `SPLITS`.
        count: how many samples.
        folder: where to write; it must not exist. Its parent must.
        side: height and width of the images, px.

    Raises:
        UsageError: the folder exists, its parent does not, or there is no such split.
    """
    with _whole_folder(folder) as inner:
        for index, item in enumerate(_samples(split, count, side)):
            (inner / f"{index}.jpg").write_bytes(_jpeg(item, side))
            text = json.dumps(reasonseg_annotation(item, f"{index}.jpg"), ensure_ascii=False)
            (inner / f"{index}.json").write_text(text, encoding="utf-8")


def export_refcocog(split: str, count: int, folder: str | Path, side: int = SIDE_PX) -> None:
    """Write the first samples of a split in refCOCOg_2k_840's form, as ``data/SPLIT-00000-of-00001.parquet``.

    Args:
        split: a key of `SPLITS`.
        count: how many samples.
        folder: where to write; it must not exist. Its parent must. ``datasets.load_dataset(folder)`` reads it.
        side: height and width of the images before they are stretched, px.

    Raises:
        UsageError: the folder exists, its parent does not, or there is no such split.
        MissingExtraError: pyarrow is not installed.
    """
    pyarrow, parquet = require("pyarrow", extra="train"), require("pyarrow.parquet", extra="train")
    picture = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    columns = {"id": "string", "problem": "string", "solution": "string", "img_height": "int64", "img_width": "int64"}
    fields = [(name, pyarrow.type_for_alias(kind)) for name, kind in columns.items()]
    features = {name: {"dtype": kind, "_type": "Value"} for name, kind in columns.items()}
    features["image"] = {"_type": "Image"}
    # The metadata in which the datasets package keeps its own types.
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pyarrow.schema([*fields, ("image", picture)], metadata=metadata)
    with _whole_folder(folder) as inner:
        (inner / "data").mkdir()
        with parquet.ParquetWriter(inner / "data" / f"{split}-00000-of-00001.parquet", schema) as writer:
            rows: list[dict[str, Any]] = []
            for index, item in enumerate(_samples(split, count, side)):
                rows.append(refcocog_row(item, f"{split}_{index}"))
                if len(rows) == _ROWS_AT_ONCE or index == count - 1:
                    writer.write_table(pyarrow.Table.from_pylist(rows, schema))
                    rows = []


def reasonseg_annotation(item: Sample, image_name: str) -> dict[str, Any]:
    """Return the content of a sample's JSON file in ReasonSeg's form; points are (x, y) px of the image."""
    shapes: list[dict[str, Any]] = [
        {
            "label": "target",
            "labels": ["target"],
            "shape_type": "polygon",
            "image_name": image_name,
            "points": [[float(x), float(y)] for x, y in polygon],
            "group_id": None,
            "group_ids": [None],
            "flags": {},
        }
        for polygon in trace_polygons(item.mask)
    ]
    return {"text": [item.request], "is_sentence": item.request != item.query.text, "shapes": shapes}


def refcocog_row(item: Sample, name: str) -> dict[str, Any]:
    """Return a sample as a row in refCOCOg_2k_840's form; box and points are px of the stretched image."""
    side = item.scene.side
    source, target = (side, side), (REFERENCE_SIDE_PX, REFERENCE_SIDE_PX)
    x1, y1, x2, y2 = scale_box(item.box, source, target)
    (ax, ay), (bx, by) = (scale_point(point, source, target) for point in item.points)
    return {
        "id": name,
        "problem": item.query.text,
        "solution": f"<box>({x1},{y1}),({x2},{y2})</box><points>({ax},{ay}),({bx},{by})</points>",
        "img_height": side,
        "img_width": side,
        "image": {"bytes": _jpeg(item, REFERENCE_SIDE_PX), "path": f"{name}.jpg"},
    }


def _samples(split: str, count: int, side: int) -> Iterator[Sample]:
    if split not in SPLITS:
        raise UsageError(f"there is no split '{split}'; choose one of {', '.join(SPLITS)}")
    return (sample(split, index, side) for index in range(count))


def _jpeg(item: Sample, side: int) -> bytes:
    picture = Image.fromarray(item.scene.image)
    if picture.width != side:
        picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


@contextmanager
def _whole_folder(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary neighbor of `folder` that is renamed to it at the end and removed after an error."""
    target = Path(folder)
    if target.exists():
        raise UsageError(f"{target} exists; name a new folder")
    if not target.parent.is_dir():
        raise UsageError(f"the folder {target.parent} does not exist; create it first")
    inner = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield inner
        inner.chmod(0o755)  # mkdtemp gives 0700
        inner.rename(target)
    except BaseException:
        shutil.rmtree(inner, ignore_errors=True)
        raise
