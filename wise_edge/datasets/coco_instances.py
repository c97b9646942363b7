"""One's own pictures with COCO's instances, in one JSON file, as tools for annotation export it.

Read in the layouts that were looked at: of Label Studio (`result.json`), CVAT (`annotations/instances_NAME.json`),
Roboflow (`_annotations.coco.json`) and FiftyOne (`labels.json`), and COCO's own.

An annotation may hold what it is called in a sentence: as text, or a list of texts, in one of `SENTENCES`, of itself or
of its `attributes`, where CVAT puts what people have added. Annotations of one picture that share a sentence are the
objects that it means. Without a sentence the name of the category is the query, and means all its instances.

Pixels of a crowd (`iscrowd`) count neither for nor against the query, as in COCO's own evaluation. Datumaro, which
writes CVAT's files, sets `iscrowd` of every mask that was painted, and writes `attributes` with it
(https://github.com/openvinotoolkit/datumaro, plugins/data_formats/coco/exporter.py): such a mask is an object.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path, PureWindowsPath
from shlex import quote
from typing import Any

from wise_edge.arguments import check_size
from wise_edge.datasets.base import Example, RowDataset, check_name, count_kind, make_unique, masked_objects, read_image
from wise_edge.datasets.coco_masks import MOST_MASKED_PIXELS, Segmentation, read_segmentation
from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.files.documents import read_json
from wise_edge.geometry import Size, unite
from wise_edge.images import open_image
from wise_edge.ranges import shorten

SENTENCES = ("sentence", "caption", "query", "phrase")
"""Fields of an annotation, or of its `attributes`, that may hold a sentence; the first that there is counts."""
_MOST_BYTES = 1_000_000_000
"""COCO's own largest file has 450 MB."""
_MOST_SENTENCES = 1000
"""Of one annotation."""
_FOLDERS = (".", "images", "data")
"""Where images are looked for, below the file's folder and the one above it."""
_REMEDY = "pass the file of images, annotations and categories that was exported as COCO JSON"


@dataclass(frozen=True)
class _Row:
    id: str
    query: str
    image: Path
    size: Size
    meant: tuple[Segmentation, ...]
    crowds: tuple[Segmentation, ...]


class CocoInstances(RowDataset[_Row]):
    """The queries of a file: each sentence of a picture, and each category whose instances have none.

    Ids are "IMAGE-PLACE": the id of the image, and the place of the query among its queries. Kinds are "one" and
    "several", by the number of objects.

    Args:
        file: the JSON file.
        images: folder of the images; None looks in and beside the file's folder.

    Raises:
        UsageError: the file is missing, damaged or of another form, or no query is usable.
        MissingExtraError: there are polygons and pycocotools is not installed.
    """

    def __init__(self, file: Path, images: Path | None = None) -> None:
        content = read_json(file, _MOST_BYTES, _REMEDY)
        found = _Images(_by_id(content, "images", file), _bases(file, images))
        categories = _by_id(content, "categories", file) if "categories" in content else {}
        rows: list[_Row] = []
        problems: list[str] = []
        by_image: dict[str, list[_Annotation]] = {key: [] for key in found.items}
        for place, item in enumerate(_dicts(content, "annotations", file)):
            known = by_image.get(_key(item.get("image_id")) or "")
            if known is None:
                wanted = shorten(item.get("image_id"))
                problems.append(f"{file.name}, {_named(item, place)}: its image {wanted} is not in 'images'")
            else:
                known.append(_Annotation.read(item, place, categories))
        for key, own in by_image.items():
            if not own:
                continue
            try:
                check_name(key)
                path, size = found.find(key)
            except (ValueError, UsageError) as error:
                problems.append(f"{file.name}, image {shorten(key)}: {error}")
                continue
            read = cache(partial(_read_mask, size=size))
            for place, (query, meant) in enumerate(_queries(own).items()):
                try:
                    rows.append(_Row(f"{key}-{place}", query, path, size, *_split_crowds(query, meant, size, read)))
                except ValueError as error:
                    problems.append(f"{file.name}, image {shorten(path.name)}, {shorten(query)}: {error}")
        if any(part.polygons for row in rows for part in (*row.meant, *row.crowds)):
            require("pycocotools.mask", extra="data")  # fails now and not at the first example
        super().__init__("coco", file.stem, file, rows, make_unique(row.id for row in rows), problems, (file,))

    def __getitem__(self, index: int) -> Example:
        """Read one example."""
        row, name = self._rows[index], self.ids[index]
        image = read_image(row.image, name)
        size = (image.shape[1], image.shape[0])
        if size != row.size:
            turned = " (sides swapped; does an EXIF orientation turn it?)" if size == row.size[::-1] else ""
            raise UsageError(
                f"{name}: {row.image} has {size[0]} x {size[1]} pixels{turned}; its annotations are for "
                f"{row.size[0]} x {row.size[1]}"
            )
        objects = masked_objects(part.paint() for part in row.meant)
        if not objects:
            raise UsageError(f"{name}: its annotations cover no pixel")
        mask = unite((item.mask for item in objects if item.mask is not None), size)
        crowd = unite((part.paint() for part in row.crowds), size) & ~mask
        return Example(name, row.query, image, objects, mask, crowd if crowd.any() else None, count_kind(len(objects)))

    def _files_of(self, row: _Row) -> Sequence[Path]:
        return (row.image,)


class _Images:
    """The images of a file by their ids, and where they are on this machine."""

    def __init__(self, items: Mapping[str, dict[str, Any]], bases: Sequence[Path]) -> None:
        self.items = items
        self._bases = bases
        self._shared = Counter(_last(item.get("file_name")) for item in items.values())

    def find(self, key: str) -> tuple[Path, Size]:
        """Return an image's file and size, px; raises ValueError or `UsageError` if either cannot be known."""
        item = self.items[key]
        name = item.get("file_name")
        if not isinstance(name, str) or not name.strip():
            raise ValueError("it has no file_name")
        path = self._find(name)
        width, height = item.get("width"), item.get("height")
        if width is None and height is None:  # as of images that Label Studio could not open
            with open_image(path) as (image, _, _):
                return path, image.size
        width, height = _whole(width), _whole(height)
        if type(width) is not int or type(height) is not int:
            raise ValueError(f"its width {shorten(width)} and height {shorten(height)} are not sizes")
        check_size((width, height), "it")
        return path, (width, height)

    def _find(self, name: str) -> Path:
        # A name may be a path of the machine that exported it, or a link; alone it will do if no other image has it.
        names = [name, name.replace("\\", "/"), *([_last(name)] if self._shared[_last(name)] == 1 else [])]
        for base in self._bases:
            for each in names:
                if os.path.isfile(base / each):
                    return base / each
        holder = next((each for each in self._below if os.path.isfile(each / name)), None)
        folder = "the folder of the images with --images DIR" if holder is None else f"--images {quote(str(holder))}"
        raise ValueError(f"{shorten(name)} is not in {self._bases[0].absolute()}; pass {folder}")

    @cached_property
    def _below(self) -> list[Path]:
        """The folders in the first base, one of which may be the one that was meant."""
        base = self._bases[0]
        return sorted(each for each in base.iterdir() if each.is_dir()) if base.is_dir() else []


def _bases(file: Path, images: Path | None) -> list[Path]:
    if images is not None:
        return [images]
    split = file.stem.partition("_")[2]  # CVAT has annotations/instances_NAME.json beside images/NAME
    below = [Path(name) for name in _FOLDERS]
    below += [Path(split), Path("images", split)] if split else []
    return [root / each for root in (file.parent, file.parent.parent) for each in below]


def _last(name: Any) -> str:
    return PureWindowsPath(name).name if isinstance(name, str) else ""


def _dicts(content: dict[str, Any], key: str, file: Path) -> Iterator[dict[str, Any]]:
    items = content.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UsageError(f"{file} has no list '{key}' of objects; {_REMEDY}")
    return iter(items)


def _by_id(content: dict[str, Any], key: str, file: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for item in _dicts(content, key, file):
        name = _key(item.get("id"))
        if name is None:
            raise UsageError(f"{file}: an entry of '{key}' has the id {shorten(item.get('id'))}; give it a number")
        if name in found:
            raise UsageError(f"{file}: two entries of '{key}' have the id {shorten(name)}; give each its own")
        found[name] = item
    return found


def _key(value: Any) -> str | None:
    """Return an id as text, since some files have 1 in one place and "1" in another; None for anything else."""
    value = _whole(value)
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else None


def _whole(value: Any) -> Any:
    """Return 640 for 640.0, as some programs write whole numbers; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True, eq=False)
class _Annotation:
    """What is read of an annotation.

    Attributes:
        named: what messages call it.
        sentences: what it is called, possibly nothing.
        category: name of its category; "" if it has none.
        segmentation: as in the file.
        crowd: whether it is of many objects together.
    """

    named: str
    sentences: tuple[str, ...]
    category: str
    segmentation: Any
    crowd: bool

    @classmethod
    def read(cls, item: Mapping[str, Any], place: int, categories: Mapping[str, Mapping[str, Any]]) -> _Annotation:
        category = categories.get(_key(item.get("category_id")) or "", {}).get("name")
        painted = isinstance(item.get("attributes"), dict)  # by Datumaro, see the module's docstring
        return cls(
            _named(item, place),
            _sentences(item),
            _one_line(category),
            item.get("segmentation"),
            item.get("iscrowd") in (1, "1") and not painted,
        )


def _named(item: Mapping[str, Any], place: int) -> str:
    return f"annotation {shorten(item['id'])}" if "id" in item else f"the annotation at place {place}"


def _sentences(item: Mapping[str, Any]) -> tuple[str, ...]:
    attributes = item.get("attributes")
    for fields in (item, attributes if isinstance(attributes, dict) else {}):
        for name in SENTENCES:
            value = fields.get(name)
            texts = value[:_MOST_SENTENCES] if isinstance(value, list) else [value]
            if found := [text for text in map(_one_line, texts) if text]:
                return tuple(dict.fromkeys(found))
    return ()


def _one_line(text: Any) -> str:
    return " ".join(text.split()) if isinstance(text, str) else ""


def _queries(annotations: Sequence[_Annotation]) -> dict[str, list[_Annotation]]:
    """Return the queries of one image, each with all that it means."""
    meant: dict[str, dict[_Annotation, None]] = {}
    by_category: dict[str, list[_Annotation]] = {}
    for each in annotations:
        by_category.setdefault(each.category, []).append(each)
        for query in each.sentences or (each.category,):
            meant.setdefault(query, {})[each] = None
    for category in {each.category for each in annotations if not each.sentences}:
        meant[category] = dict.fromkeys(by_category[category]) | meant[category]  # also those with a sentence
    return {query: list(found) for query, found in meant.items()}


def _read_mask(annotation: _Annotation, size: Size) -> Segmentation:
    if not annotation.segmentation:
        raise ValueError(f"{annotation.named} has no segmentation, only a box; draw its outline, or delete it")
    try:
        return read_segmentation(annotation.segmentation, size)
    except ValueError as error:
        raise ValueError(f"{annotation.named}: {error}") from error


def _split_crowds(
    query: str, meant: Sequence[_Annotation], size: Size, read: Callable[[_Annotation], Segmentation]
) -> tuple[tuple[Segmentation, ...], tuple[Segmentation, ...]]:
    """Return the objects and the crowds that a query means; raises ValueError if one of them cannot be read."""
    if not query:
        raise ValueError(f"{meant[0].named} has neither a sentence nor a category with a name")
    if len(meant) * size[0] * size[1] > MOST_MASKED_PIXELS:
        raise ValueError(f"the masks of its {len(meant)} objects have more than {MOST_MASKED_PIXELS:,} pixels")
    objects = tuple(read(each) for each in meant if not each.crowd)
    if not objects:
        raise ValueError("all its annotations are crowds")
    return objects, tuple(read(each) for each in meant if each.crowd)
