"""ReasonSeg in its own folder form: X.jpg next to X.json with queries and polygons.

Polygons mean what they mean in LISA's reader (https://github.com/dvlab-research/LISA, utils/data_processing.py): shapes
labeled "flag" are skipped, "ignore" marks pixels that count neither for nor against, and everything else is target.
Shapes are painted from the largest to the smallest, outline included, each over the earlier ones. LISA paints with
OpenCV, we with Pillow: outlines of random shapes of 300 px differ by single pixels (IoU 0.999, no bias).

Files that labelme (https://github.com/wkentaro/labelme) has written may hold rectangles, circles and masks too, which
are painted as labelme does. Its lines and points have no area, so a row with one is unusable.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wise_edge.datasets.base import Example, RowDataset, from_mask, read_image
from wise_edge.errors import UsageError
from wise_edge.files.documents import parse_json, read_bytes
from wise_edge.images import SUFFIXES, load_image

_KINDS = {"True": "long", "False": "short"}
_TARGET, _IGNORE = 1, 255
_MAX_COORDINATE = 100_000
_MOST_BYTES = 64_000_000
"""Of a file; labelme's holds the image too."""
_POLYGONS = ("polygon", "oriented_rectangle", "rotation")
"""Types of shapes whose points are corners; labelme's, and X-AnyLabeling's name of the second."""


@dataclass(frozen=True)
class Region:
    """One painted shape.

    Attributes:
        ignored: whether its pixels count neither for nor against.
        corners: (x, y) of pixels, possibly outside the image: of a polygon; two opposite ones of a rectangle or mask;
            the center of a circle and a point on it.
        form: "polygon", "rectangle", "circle" or "mask".
        stencil: PNG file of a mask, not 0 inside.
    """

    ignored: bool
    corners: tuple[tuple[float, float], ...]
    form: str = "polygon"
    stencil: bytes = b""


@dataclass(frozen=True)
class _Row:
    id: str
    query: str
    image: Path
    regions: tuple[Region, ...]
    kind: str | None


class ReasonSegFolder(RowDataset[_Row]):
    """One split of ReasonSeg; ids are "X-PLACE", kinds "long" (a sentence) and "short" (a phrase).

    In the train split every query is an example, in other splits only the first of an image, as in LISA's evaluation.

    Args:
        folder: the split's images and JSON files.
        split: its name.

    Raises:
        UsageError: there is no usable JSON file.
    """

    def __init__(self, folder: Path, split: str) -> None:
        rows: list[_Row] = []
        problems: list[str] = []
        images = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES}
        annotations = {path.stem: path for path in folder.glob("*.json")}
        for stem in sorted(images.keys() | annotations.keys()):
            try:
                rows += _read_row(stem, images, annotations, every_query=split == "train")
            except ValueError as error:
                problems.append(f"{stem}: {error}")
        super().__init__("reasonseg", split, folder, rows, (row.id for row in rows), problems)

    def __getitem__(self, index: int) -> Example:
        """Read one example."""
        row = self._rows[index]
        image = read_image(row.image, row.id)
        mask, ignore = paint_regions(row.regions, (image.shape[0], image.shape[1]))
        return from_mask(row.id, row.query, image, mask, ignore if ignore.any() else None, row.kind)

    def _files_of(self, row: _Row) -> Sequence[Path]:
        return row.image.with_suffix(".json"), row.image


def find_folder(data: Path, split: str) -> Path:
    """Return the folder of a split: DATA/SPLIT, DATA/ReasonSeg/SPLIT, or DATA itself if it has the split's name.

    Raises:
        UsageError: none of them has a JSON file.
    """
    candidates = [data / split, data / "ReasonSeg" / split, *([data] if data.name == split else [])]
    for folder in candidates:
        if folder.is_dir() and any(folder.glob("*.json")):
            return folder
    looked = ", ".join(map(str, candidates))
    raise UsageError(
        f"found no ReasonSeg files for split '{split}'; looked for X.json in {looked}, and for parquet files"
    )


def paint_regions(regions: Sequence[Region], shape: tuple[int, int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Paint regions from the largest to the smallest; of equal ones, the first is painted last.

    Args:
        regions: what to paint.
        shape: height and width of the image, px.

    Returns:
        Target and ignored pixels, each bool, H x W; disjoint.
    """
    areas = [_paint(Image.new("L", shape[::-1]), region, _TARGET).histogram()[_TARGET] for region in regions]
    canvas = Image.new("L", shape[::-1])
    for place in sorted(range(len(regions)), key=areas.__getitem__)[::-1]:
        _paint(canvas, regions[place], _IGNORE if regions[place].ignored else _TARGET)
    painted = np.asarray(canvas)
    return painted == _TARGET, painted == _IGNORE


def _paint(canvas: Image.Image, region: Region, value: int) -> Image.Image:
    draw = ImageDraw.Draw(canvas)
    if region.form == "rectangle":
        draw.rectangle(_span(region.corners), fill=value)
    elif region.form == "circle":
        (x, y), rim = region.corners
        radius = math.dist((x, y), rim)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=value)
    elif region.form == "mask":
        left, top, _, _ = map(int, _span(region.corners))
        canvas.paste(value, (left, top), Image.fromarray(load_image(region.stencil).any(axis=2)))
    else:
        closed = [*region.corners, region.corners[0]]
        draw.polygon(closed, fill=value)
        draw.line(closed, fill=value)
    return canvas


def _span(corners: Sequence[tuple[float, float]]) -> tuple[float, float, float, float]:
    (x1, y1), (x2, y2) = corners
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _read_row(stem: str, images: dict[str, Path], annotations: dict[str, Path], every_query: bool) -> list[_Row]:
    if stem not in annotations:
        raise ValueError(f"{stem}.json is missing")
    if stem not in images:
        raise ValueError(f"{stem}.jpg is missing")
    content = _load_json(annotations[stem])
    texts = content.get("text")
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError("'text' is not a list of queries")
    shapes = content.get("shapes")
    if not isinstance(shapes, list):
        raise ValueError("'shapes' is not a list")
    regions = tuple(_read_shape(shape) for shape in shapes if not _is_flag(shape))
    kind = _KINDS.get(str(content.get("is_sentence")))
    used = texts if every_query else texts[:1]
    return [_Row(f"{stem}-{i}", text.strip(), images[stem], regions, kind) for i, text in enumerate(used)]


def _is_flag(shape: Any) -> bool:
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
        raise ValueError("a shape has no label")
    return str(shape["label"]).lower() == "flag"


def _read_shape(shape: dict[str, Any]) -> Region:
    points = shape.get("points")
    if not isinstance(points, list) or not points or not all(map(_is_point, points)):
        raise ValueError("a shape's points are not a list of x and y in or near the image")
    ignored, form = "ignore" in shape["label"].lower(), shape.get("shape_type") or "polygon"
    pixels = tuple((int(x), int(y)) for x, y in points)
    if form in _POLYGONS or (form == "rectangle" and len(points) == 4):
        return Region(ignored, pixels)
    if form not in ("rectangle", "circle", "mask"):
        raise ValueError(f"a shape of type {form!r} has no area; draw a polygon, rectangle, circle or mask instead")
    if len(points) != 2:
        raise ValueError(f"a {form} has {len(points)} points instead of 2")
    if form == "mask":
        return Region(ignored, pixels, form, _read_stencil(shape.get("mask"), pixels))
    return Region(ignored, pixels if form == "rectangle" else tuple((x, y) for x, y in points), form)


def _read_stencil(encoded: Any, corners: Sequence[tuple[int, int]]) -> bytes:
    """Return the PNG file of a mask, which covers its corners' pixels."""
    try:
        stencil = base64.b64decode(encoded, validate=True)
        height, width, _ = load_image(stencil).shape
    except (TypeError, ValueError, UsageError) as error:
        raise ValueError(f"a mask is not a PNG image in base64 ({error})") from None
    left, top, right, bottom = map(int, _span(corners))
    if (width, height) != (right - left + 1, bottom - top + 1):
        raise ValueError(f"a mask of {width} x {height} pixels does not fill its corners {corners[0]} to {corners[1]}")
    return stencil


def _is_point(point: Any) -> bool:
    return (
        isinstance(point, list)
        and len(point) == 2
        and all(type(value) in (int, float) and math.isfinite(value) for value in point)
        and max(map(abs, point)) <= _MAX_COORDINATE
    )


def _load_json(path: Path) -> dict[str, Any]:
    """Read UTF-8, or cp1252, which some of ReasonSeg's files are written in."""
    try:
        data = read_bytes(path, _MOST_BYTES)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252", "replace")
        return parse_json(text, path.name)
    except UsageError as error:
        raise ValueError(str(error)) from error
