"""Tables on disk, read row by row: parquet files, and folders that `datasets` wrote with `save_to_disk`.

With images and masks a row takes megabytes, so a table is never loaded completely. Parquet is read in small batches
from the start of a row group; saved tables are memory-mapped.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.files.documents import read_json
from wise_edge.files.inputs import refuse_lfs_pointer
from wise_edge.native.loading import loading

SPLITS = ("train", "val", "validation", "test", "testA", "testB")
"""Splits that a folder's name may end with."""

_TABLE, _REMEDY = "such a table", "download or write it again"
_BATCH_ROWS = 16  # rows per batch with images
_SCAN_ROWS = 1024  # and without


class Table(Protocol):
    """Rows with named columns.

    Attributes:
        columns: their names.
        where: file or folder, for errors.
        files: what the rows are read from, in order.
    """

    columns: tuple[str, ...]
    where: Path
    files: Sequence[Path]

    def __len__(self) -> int: ...

    def scan(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield some columns of all rows, in order; meant for small columns."""

    def read(self, index: int) -> Any:
        """Return one row as a pyarrow table or batch of length 1."""


def find_table(data: Path, split: str, names: Sequence[str] = ()) -> Table | None:
    """Open the table of a split, if there is one.

    A folder's name may end with a split ("ReasonSeg_val"): all its files are then of that split, whatever their names,
    since the hub's copy of ReasonSeg's validation split is called "test".

    Args:
        data: a parquet file; a folder of `save_to_disk`; a folder with parquet files in itself or in "data", or in one
            named after the split; or a folder that contains one of `names`.
        split: name of the split.
        names: subfolders to search first.

    Returns:
        The table; None if there is no table of any split.

    Raises:
        UsageError: there are tables but none of this split, or they are damaged.
        MissingExtraError: pyarrow is not installed.
    """
    if data.is_file():
        return _ParquetTable(data, [data])
    for folder in (*(data / name for name in names), data):
        if folder.is_dir() and (table := _open_folder(folder, split)) is not None:
            return table
    return None


def check_columns(table: Table, needed: Sequence[str]) -> None:
    """Raise an error if a table lacks a column.

    Raises:
        UsageError: a column is missing; the message names the missing and the existing columns.
    """
    missing = [name for name in needed if name not in table.columns]
    if missing:
        have = ", ".join(table.columns)[:200] or "none"
        raise UsageError(f"{table.where} has no column {', '.join(missing)}; it has {have}; rename or convert them")


def _open_folder(folder: Path, split: str) -> Table | None:
    named = next((name for name in SPLITS if folder.name.endswith(f"_{name}")), split)
    saved = (folder / "dataset_dict.json").is_file()
    files = sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet"), *folder.glob(f"{split}/*.parquet")])
    if not (saved or files or (folder / "state.json").is_file()):
        return None
    if named != split:
        raise UsageError(f"{folder} holds the split {named}; use --split {named} or another folder")
    if saved:
        parts = sorted(path.parent.name for path in folder.glob("*/state.json"))
        alone = parts[0] if len(parts) == 1 and folder.name.endswith(f"_{split}") else split
        if alone not in parts:
            raise UsageError(f"{folder} has no split '{split}'; choose one of {', '.join(parts)}")
        return _SavedTable(folder / alone)
    if not files:
        return _SavedTable(folder)
    chosen = files if folder.name.endswith(f"_{split}") else [file for file in files if _is_of_split(file, split)]
    if not chosen:
        names = ", ".join(str(file.relative_to(folder)) for file in files[:5])
        raise UsageError(f"{folder} has no parquet file of split '{split}'; it has {names}; name one of them")
    return _ParquetTable(folder, chosen)


def _is_of_split(file: Path, split: str) -> bool:
    return file.stem == split or file.stem.startswith(f"{split}-") or file.parent.name == split


class _SavedTable:
    """A folder that `datasets.Dataset.save_to_disk` wrote."""

    def __init__(self, folder: Path) -> None:
        pyarrow = require("pyarrow", extra="data")
        self.where = folder
        state = read_json(folder / "state.json")
        with loading(folder, _TABLE, _REMEDY):
            self.files: Sequence[Path] = [folder / Path(item["filename"]).name for item in state["_data_files"]]
            for file in self.files:
                refuse_lfs_pointer(file)
            maps = [pyarrow.memory_map(str(file)) for file in self.files]
            self._table = pyarrow.concat_tables([pyarrow.ipc.open_stream(part).read_all() for part in maps])
            self._table.validate(full=True)  # Arrow itself believes offsets, and reads past the end by damaged ones
        self.columns = tuple(self._table.column_names)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def scan(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        for batch in self._table.select(list(columns)).to_batches(max_chunksize=_SCAN_ROWS):
            yield from batch.to_pylist()

    def read(self, index: int) -> Any:
        return self._table.slice(index, 1)


class _ParquetTable:
    """Consecutive parquet files."""

    def __init__(self, where: Path, files: Sequence[Path]) -> None:
        self.where = where
        self.files = files
        self._groups: list[tuple[Path, int]] = []
        self._starts = [0]
        columns: list[str] = []
        for file in files:
            refuse_lfs_pointer(file)
            with loading(file, _TABLE, _REMEDY):
                opened = self._open(file)
                columns = columns or opened.schema_arrow.names
                if opened.schema_arrow.names != columns:
                    raise UsageError(f"{file} has other columns than {files[0]}; pass a single file")
                for group in range(opened.num_row_groups):
                    self._groups.append((file, group))
                    self._starts.append(self._starts[-1] + opened.metadata.row_group(group).num_rows)
        self.columns = tuple(columns)
        self._group = -1
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = None
        self._batch_start = 0

    def __len__(self) -> int:
        return self._starts[-1]

    def scan(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        for file in self.files:
            with loading(file, _TABLE, _REMEDY):
                for batch in self._open(file).iter_batches(_SCAN_ROWS, columns=list(columns), use_threads=False):
                    yield from batch.to_pylist()

    def read(self, index: int) -> Any:
        group = bisect_right(self._starts, index) - 1
        with loading(self._groups[group][0], _TABLE, _REMEDY):
            if group != self._group or index < self._batch_start:
                self._rewind(group)
            while index >= self._batch_start + self._batch.num_rows:
                following = next(self._batches)
                self._batch_start += self._batch.num_rows
                self._batch = following
        return self._batch.slice(index - self._batch_start, 1)

    def _rewind(self, group: int) -> None:
        file, number = self._groups[group]
        self._group = -1  # stays so if the next line fails
        self._batches = self._open(file).iter_batches(_BATCH_ROWS, row_groups=[number], use_threads=False)
        self._batch = next(self._batches)
        self._batch_start = self._starts[group]
        self._group = group

    @staticmethod
    def _open(file: Path) -> Any:
        parquet = require("pyarrow.parquet", extra="data")
        return parquet.ParquetFile(file, memory_map=True, pre_buffer=False)
