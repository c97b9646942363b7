"""Data sets stored as tables: training sets with a solution in each row, evaluation sets with a mask in each row."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wise_edge.datasets.base import Example, ExampleObject, RowDataset, from_mask, make_unique, read_image
from wise_edge.datasets.tables import Table, check_columns, find_table
from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.files.documents import parse_json_list
from wise_edge.geometry import Box, Point, clip_box, clip_point

_NUMBER = r"\s*(\d{1,6})\s*"
_PAIR = rf"\({_NUMBER},{_NUMBER}\)"
_MOST_OBJECTS = 1000
_MOST_PX = 1_000_000  # no image is wider
_SOLUTION = re.compile(rf"\s*<box>\s*{_PAIR}\s*,\s*{_PAIR}\s*</box>\s*<points>\s*{_PAIR}\s*,\s*{_PAIR}\s*</points>\s*")


class MaskTable(RowDataset[tuple[int, str]]):
    """A table with the columns image, text and mask; ids are image_id and ann_id, or the row's number.

    The form of https://huggingface.co/datasets/Ricky06662/ReasonSeg_test and its neighbors. The mask is a list of
    rows or an image; nonzero values are target. The form has neither ignored regions nor kinds.

    Args:
        name: of the data set.
        split: of the data set.
        table: its rows.

    Raises:
        UsageError: a column is missing or no row is usable.
    """

    def __init__(self, name: str, split: str, table: Table) -> None:
        check_columns(table, ("image", "text", "mask"))
        self._table = table
        rows, names, problems = [], [], []
        id_columns = [column for column in ("image_id", "ann_id") if column in table.columns]
        for number, row in enumerate(table.scan(["text", *id_columns])):
            if not isinstance(row["text"], str) or not row["text"].strip():
                problems.append(f"{table.where}, row {number}: there is no text")
                continue
            rows.append((number, row["text"].strip()))
            names.append("-".join(str(row[column]) for column in id_columns) or str(number))
        super().__init__(name, split, table.where, rows, make_unique(names), problems, table.files)

    def __getitem__(self, index: int) -> Example:
        """Read one example."""
        number, query = self._rows[index]
        name = self.ids[index]
        row = self._table.read(number)
        image = _read_image(row.column("image")[0], name)
        mask = _read_mask(row.column("mask")[0], name)
        if mask.shape != image.shape[:2]:
            raise UsageError(f"{name}: the mask has {mask.shape} rows and columns, the image {image.shape[:2]}")
        return from_mask(name, query, image, mask)


class SolutionTable(RowDataset[tuple[int, str, tuple[ExampleObject, ...]]]):
    """A training set with boxes and points and without masks: that of the paper, Seg-Zero or VisionReasoner.

    Columns image, problem and solution (see `read_objects`, px of the image); ids come from an id column, or are the
    row's number.

    Args:
        name: of the data set.
        data: see `find_table`.
        split: "train" there.
        folders: its names on the hub.

    Raises:
        UsageError: the table or a column is missing, or no row is usable.
    """

    def __init__(self, name: str, data: Path, split: str, folders: Sequence[str]) -> None:
        table = find_table(data, split, folders)
        if table is None:
            raise UsageError(
                f"{data} has no parquet file and no dataset saved to disk; pass the folder of {' or '.join(folders)}"
            )
        check_columns(table, ("image", "problem", "solution"))
        self._table = table
        rows, names, problems = [], [], []
        id_columns = ["id"] if "id" in table.columns else []
        for number, row in enumerate(table.scan(["problem", "solution", *id_columns])):
            try:
                rows.append((number, _read_problem(row["problem"]), read_objects(row["solution"])))
            except ValueError as error:
                problems.append(f"{table.where}, row {number}: {error}")
            else:
                names.append(str(row["id"] if id_columns else number))
        super().__init__(name, split, table.where, rows, make_unique(names), problems, table.files)

    def __getitem__(self, index: int) -> Example:
        """Read one example."""
        number, query, solution = self._rows[index]
        name = self.ids[index]
        image = _read_image(self._table.read(number).column("image")[0], name)
        size = (image.shape[1], image.shape[0])
        objects = []
        for item in solution:
            if item.box[0] >= size[0] or item.box[1] >= size[1]:
                raise UsageError(f"{name}: the box {item.box} is outside its image of {size[0]} x {size[1]} pixels")
            first, second = (clip_point(point, size) for point in item.points)
            objects.append(ExampleObject(clip_box(item.box, size), (first, second), None))
        return Example(name, query, image, tuple(objects), None, None, None)


def read_objects(solution: Any) -> tuple[ExampleObject, ...]:
    """Read the objects of a solution.

    Args:
        solution: text in the paper's form of one object, see `read_solution`, or VisionReasoner's of any number
            (https://github.com/JIA-Lab-research/VisionReasoner): a list of {"bbox_2d": [x1, y1, x2, y2],
            "point_2d": [x, y]}, as JSON or as the table's own list; empty if nothing is meant.

    Raises:
        ValueError: it has another form, or a box has no area.
    """
    items = solution
    if isinstance(solution, str) and solution.lstrip().startswith("["):
        try:
            items = parse_json_list(solution, "the solution", "write it again")
        except UsageError as error:
            raise ValueError(str(error)) from error
    if not isinstance(items, list):
        return (ExampleObject(*read_solution(solution), None),)
    if len(items) > _MOST_OBJECTS:
        raise ValueError(f"the solution has {len(items)} objects; {_MOST_OBJECTS:,} are read at most")
    return tuple(map(_read_object, items))


def _read_object(item: Any) -> ExampleObject:
    fields = item if isinstance(item, dict) else {}
    box, point = (_whole_numbers(fields.get(key), count) for key, count in (("bbox_2d", 4), ("point_2d", 2)))
    if box is None or point is None:
        raise ValueError('the solution is not a list of {"bbox_2d": [x1, y1, x2, y2], "point_2d": [x, y]}')
    x1, y1, x2, y2 = box
    _check_area((x1, y1, x2, y2))
    place = point[0], point[1]
    return ExampleObject((x1, y1, x2, y2), (place, place), None)


def _whole_numbers(value: Any, count: int) -> list[int] | None:
    """Return a list of pixels, rounded half up; None if it is anything else."""
    if not isinstance(value, list) or len(value) != count:
        return None
    if not all(type(number) in (int, float) and 0 <= number <= _MOST_PX for number in value):
        return None
    return [math.floor(number + 0.5) for number in value]


def _check_area(box: Box) -> None:
    if box[0] >= box[2] or box[1] >= box[3]:
        raise ValueError(f"the solution's box {box} has no area")


def read_solution(text: Any) -> tuple[Box, tuple[Point, Point]]:
    """Read a solution's box and points.

    Raises:
        ValueError: the text has another form, or the box has no area.
    """
    found = _SOLUTION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("the solution is not <box>(x1,y1),(x2,y2)</box><points>(x,y),(x,y)</points>")
    x1, y1, x2, y2, ax, ay, bx, by = map(int, found.groups())
    _check_area((x1, y1, x2, y2))
    return (x1, y1, x2, y2), ((ax, ay), (bx, by))


def _read_problem(text: Any) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ValueError("there is no problem text")
    return text.strip()


def _read_image(cell: Any, name: str) -> NDArray[np.uint8]:
    """Read a cell that holds the bytes of an image file, plain or as {"bytes", "path"}."""
    value = cell.as_py()
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise UsageError(f"{name}: the table does not hold the image itself; save the table with embedded images")
    return read_image(content, name)


def _read_mask(cell: Any, name: str) -> NDArray[np.bool_]:
    """Read a cell that holds a list of rows of numbers, or an image."""
    types = require("pyarrow", extra="data").types
    if not types.is_list(cell.type) and not types.is_large_list(cell.type):
        return np.asarray(_read_image(cell, f"{name}, mask").any(axis=2))
    rows = cell.values
    if rows is None or len(rows) == 0 or not (types.is_list(rows.type) or types.is_large_list(rows.type)):
        raise UsageError(f"{name}: the mask is not a list of rows")
    values, widths = rows.flatten(), set(rows.value_lengths().to_pylist())
    if len(widths) != 1 or values.null_count or not (types.is_boolean(values.type) or types.is_integer(values.type)):
        raise UsageError(f"{name}: the mask's rows are not integers of one length")
    shape: tuple[int, int] = (len(rows), widths.pop())
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.bool_).reshape(shape)
