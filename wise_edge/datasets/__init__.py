"""Labeled data, all in one form: scenes, the paper's training set, RefCOCO/+/g and ReasonSeg."""

from __future__ import annotations

from pathlib import Path

from wise_edge.datasets.base import Dataset, Example
from wise_edge.datasets.labeled_tables import MaskTable, RefCocog2k
from wise_edge.datasets.reasonseg import ReasonSegFolder, find_folder
from wise_edge.datasets.refcoco import RefCocoDataset
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.datasets.tables import find_table
from wise_edge.errors import UsageError

__all__ = ["NAMES", "Dataset", "Example", "open_dataset"]

NAMES = ("scenes", "refcocog-2k", "refcoco", "refcoco+", "refcocog", "reasonseg")
"""What `open_dataset` opens."""

_TABLE_PREFIXES = {
    "refcoco": "refcoco",
    "refcoco+": "refcocoplus",
    "refcocog": "refcocog",
    "reasonseg": "ReasonSeg",
}
"""Data set to the prefix of its tables on the hub; the split follows."""


def open_dataset(name: str, data: Path | None, split: str) -> Dataset:
    """Open a labeled data set.

    Args:
        name: one of `NAMES`.
        data: its folder; None for "scenes", which are drawn. RefCOCO/+/g are read from the refer API's files, ReasonSeg
            from its folders, and both from tables with masks if `tables.find_table` finds any.
        split: by the data set's own name ("test", "testA", "val", ...).

    Raises:
        UsageError: the data set or split is unknown, or its files are missing or unreadable.
        MissingExtraError: the packages of the extra "data" are not installed.
    """
    if name not in NAMES:
        raise UsageError(f"unknown dataset '{name}'; choose one of {', '.join(NAMES)}")
    if name == "scenes":
        if data is not None:
            raise UsageError("scenes are drawn, not read; leave out --data")
        return SceneDataset(split)
    if data is None:
        raise UsageError(f"{name} is read from a folder; name it with --data")
    if not data.exists():
        raise UsageError(f"{data} does not exist; name the folder of {name} with --data")
    if name == "refcocog-2k":
        return RefCocog2k(data, split)
    table = find_table(data, split, (f"{_TABLE_PREFIXES[name]}_{split}",))
    if table is not None:
        return MaskTable(name, split, table)
    return (
        ReasonSegFolder(find_folder(data, split), split) if name == "reasonseg" else RefCocoDataset(name, data, split)
    )
