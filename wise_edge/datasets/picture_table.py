"""One's own pictures in a table: a picture, a mask and a sentence in each row of a CSV, TSV or JSON-lines file.

    picture,mask,sentence
    kitchen.jpg,masks/kitchen-mug.png,the mug behind the keyboard

Paths are relative to the table's folder. Rows of one picture with one sentence are the objects that it means; a mask
may also number its objects, see `split_levels`. A mask without a pixel says that the sentence means nothing there.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wise_edge.arguments import check_size
from wise_edge.datasets.base import Example, RowDataset, check_name, count_kind, make_unique, masked_objects, read_image
from wise_edge.datasets.coco_masks import MOST_MASKED_PIXELS, Segmentation, read_segmentation
from wise_edge.errors import UsageError
from wise_edge.files.documents import parse_json, read_lines, read_text
from wise_edge.geometry import Size, unite
from wise_edge.images.levels import load_levels, split_levels
from wise_edge.policy.answers.reading import MAX_OBJECTS
from wise_edge.ranges import shorten

SUFFIXES = (".csv", ".tsv", ".jsonl")
COLUMNS = {
    "picture": ("picture", "image", "img", "file_name", "filename", "image_path"),
    "mask": ("mask", "mask_path", "mask_file", "segmentation"),
    "sentence": ("sentence", "query", "caption", "phrase", "text", "prompt"),
    "id": ("id",),
    "kind": ("kind",),
}
"""What a row holds to the names that its column may have, in any case; the last two may be missing."""
_NEEDED = ("picture", "mask", "sentence")
_MOST_BYTES = 100_000_000
_MOST_COLUMNS = 1000
_LONGEST_KIND = 40
_REMEDY = "write it again as CSV, TSV or JSON lines in UTF-8"

_Mask = Path | Segmentation


@dataclass(frozen=True)
class _Row:
    id: str
    query: str
    picture: Path
    masks: tuple[_Mask, ...]
    kind: str | None


class PictureTable(RowDataset[_Row]):
    """The rows of a table; ids are those of its column `id`, or the numbers of the rows as a spreadsheet shows them.

    Kinds are those of its column `kind`, or "none", "one" and "several" by the number of objects.

    Args:
        file: the table; in JSON lines a mask may also be COCO's run lengths ({"size": [H, W], "counts": ...}).

    Raises:
        UsageError: the table is missing, damaged or lacks a column, or no row is usable.
    """

    def __init__(self, file: Path) -> None:
        rows: dict[tuple[Path, str], _Row] = {}
        problems: list[str] = []
        for where, cells in _read_lines(file) if file.suffix.lower() == ".jsonl" else _read_cells(file):
            try:
                row = _read_row(cells, file.parent)
            except ValueError as error:
                problems.append(f"{file.name}, {where}: {error}")
                continue
            row = _Row(row.id or where.rpartition(" ")[2], row.query, row.picture, row.masks, row.kind)
            first = rows.setdefault((row.picture, row.query), row)
            if first is not row:
                masks = tuple(dict.fromkeys((*first.masks, *row.masks)))
                rows[row.picture, row.query] = _Row(first.id, first.query, first.picture, masks, first.kind)
        found = list(rows.values())
        ids = make_unique(row.id for row in found)
        super().__init__("table", file.stem, file, found, ids, problems, (file,))

    def __getitem__(self, index: int) -> Example:
        """Read one example."""
        row, name = self._rows[index], self.ids[index]
        image = read_image(row.picture, name)
        size = (image.shape[1], image.shape[0])
        masks: list[NDArray[np.bool_]] = []
        for source in row.masks:
            masks += _read_mask(source, size, name)
            if len(masks) * size[0] * size[1] > MOST_MASKED_PIXELS:
                raise UsageError(f"{name}: the masks of its objects have more than {MOST_MASKED_PIXELS:,} pixels")
        objects = masked_objects(masks)
        kind = row.kind or count_kind(len(objects))
        return Example(name, row.query, image, objects, unite(masks, size), None, kind)

    def _files_of(self, row: _Row) -> Sequence[Path]:
        return [row.picture, *(mask for mask in row.masks if isinstance(mask, Path))]


def _read_mask(source: _Mask, size: Size, name: str) -> list[NDArray[np.bool_]]:
    """Return the masks of the objects in a mask."""
    if isinstance(source, Segmentation):
        _check_equal(source.size, size, f"{name}: its mask")
        return [source.paint()]
    try:
        levels = load_levels(source)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None
    _check_equal((levels.shape[1], levels.shape[0]), size, f"{name}: its mask {source}")
    return split_levels(levels, min(MAX_OBJECTS, MOST_MASKED_PIXELS // levels.size))


def _check_equal(size: Size, picture: Size, what: str) -> None:
    if size != picture:
        has, wanted = (" x ".join(map(str, sides)) for sides in (size, picture))
        raise UsageError(f"{what} has {has} pixels and its picture {wanted}; save both in one size")


def _read_cells(file: Path) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Yield the place of each row of a CSV or TSV file, and what its columns hold or what is wrong with it."""
    text = read_text(file, _MOST_BYTES, _REMEDY)
    head = text.partition("\n")[0]
    separator = "\t" if file.suffix.lower() == ".tsv" else max(",;\t", key=head.count)  # Excel's depends on the country
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    columns: dict[str, int] = {}
    number = width = 0
    try:
        for number, cells in enumerate(lines, 1):
            if not columns:
                columns = {what: cells.index(name) for what, name in _choose_columns(cells, file).items()}
                width = len(cells)
            elif len(cells) == width:
                yield f"row {number}", {what: cells[place].strip() for what, place in columns.items()}
            elif any(cell.strip() for cell in cells):
                yield (
                    f"row {number}",
                    f"it has {len(cells)} cells and not {width}; put quotes around cells with a separator",
                )
    except csv.Error as error:
        raise UsageError(f"{file}, row {number + 1}, cannot be read ({error}); {_REMEDY}") from error
    if not columns:
        raise UsageError(f"{file} is empty; its first row names the columns {', '.join(_NEEDED)}")


def _read_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each line of a JSON-lines file, likewise."""
    needed: Sequence[str] = _NEEDED
    for number, line in enumerate(read_lines(file, remedy=_REMEDY), 1):
        if line.strip():
            found = parse_json(line, f"{file}, line {number},", _REMEDY)
            chosen = _choose_columns(list(found), file, f", line {number},", needed)
            needed = ()  # a later line that lacks something is left out
            yield f"line {number}", {what: found[name] for what, name in chosen.items()}


def _choose_columns(
    names: Sequence[str], file: Path, where: str = "", needed: Sequence[str] = _NEEDED
) -> dict[str, str]:
    """Return what a row holds to the name of its column."""
    if len(names) > _MOST_COLUMNS:
        raise UsageError(f"{file}{where} has {len(names):,} columns; at most {_MOST_COLUMNS:,} are read")
    chosen = {}
    for what, known in COLUMNS.items():
        found = [name for name in names if name.strip().lower().replace(" ", "_").replace("-", "_") in known]
        if len(found) > 1:
            both = " and ".join(map(shorten, found[:2]))
            raise UsageError(f"{file}{where} has the columns {both}, which both name the {what}; rename one of them")
        if found:
            chosen[what] = found[0]
    missing = [what for what in needed if what not in chosen]
    if missing:
        have = ", ".join(map(shorten, names[:10])) or "none"
        raise UsageError(
            f"{file}{where} has no column for the {missing[0]} ({', '.join(COLUMNS[missing[0]])}); it has {have}"
        )
    return chosen


def _read_row(cells: Mapping[str, Any] | str, folder: Path) -> _Row:
    if isinstance(cells, str):
        raise ValueError(cells)
    query = cells.get("sentence")
    if not isinstance(query, str) or not query.strip():
        raise ValueError("there is no sentence")
    name, kind = cells.get("id", ""), cells.get("kind") or None
    name = str(name) if isinstance(name, int | str) else ""
    if name:
        check_name(name)
    if kind is not None and (not isinstance(kind, str) or len(kind) > _LONGEST_KIND or not kind.isprintable()):
        raise ValueError(f"its kind {shorten(kind)} is not text of at most {_LONGEST_KIND} printable characters")
    mask = cells.get("mask")
    found = _read_runs(mask) if isinstance(mask, dict) else _find_file(mask, "mask", folder)
    return _Row(name, " ".join(query.split()), _find_file(cells.get("picture"), "picture", folder), (found,), kind)


def _read_runs(raw: dict[str, Any]) -> Segmentation:
    size = raw.get("size")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int for side in size):
        raise ValueError("its mask has no size [height, width]")
    try:
        check_size((size[1], size[0]), "it")
        return read_segmentation(raw, (size[1], size[0]))
    except (ValueError, UsageError) as error:
        raise ValueError(f"its mask: {error}") from error


def _find_file(cell: Any, column: str, folder: Path) -> Path:
    if not isinstance(cell, str) or not cell.strip():
        black = (
            "; for a sentence that means nothing in the picture, use a mask that is all black"
            if column == "mask"
            else ""
        )
        raise ValueError(f"its {column} is {shorten(cell)} and not the path of a file{black}")
    for name in (cell.strip(), cell.strip().replace("\\", "/")):
        if os.path.isfile(folder / name):
            return folder / name
    raise ValueError(f"its {column} {shorten(cell)} is not a file in {folder}")
