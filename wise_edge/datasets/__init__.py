"""Labeled data, all in one form: scenes, training sets with solutions, RefCOCO/+/g, gRefCOCO and ReasonSeg."""

from __future__ import annotations

from pathlib import Path

from wise_edge.datasets.base import Dataset, Example, ExampleObject
from wise_edge.datasets.labeled_tables import MaskTable, SolutionTable
from wise_edge.datasets.reasonseg import ReasonSegFolder, find_folder
from wise_edge.datasets.refcoco import GENERALIZED, RefCocoDataset
from wise_edge.datasets.scenes import GENERALIZED_SCENES, GroupSceneDataset, SceneDataset
from wise_edge.datasets.tables import find_table
from wise_edge.errors import UsageError

__all__ = ["DRAWN", "NAMES", "Dataset", "Example", "ExampleObject", "open_dataset"]

DRAWN = ("scenes", GENERALIZED_SCENES)
"""Data sets that are drawn, not read."""
NAMES = (*DRAWN, "refcocog-2k", "visionreasoner", "refcoco", "refcoco+", "refcocog", "grefcoco", "reasonseg")
"""What `open_dataset` opens."""

_SOLUTION_FOLDERS = {
    "refcocog-2k": ("refCOCOg_2k_840",),
    "visionreasoner": ("VisionReasoner_multi_object_7k_840", "VisionReasoner_multi_object_1k_840", "refCOCOg_9k_840"),
}
"""Data set with solutions to its folders on the hub."""
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
        data: its folder; None for `DRAWN`. RefCOCO/+/g and gRefCOCO are read from
            their files of refs, ReasonSeg from its folders, and all but gRefCOCO from tables with masks if
            `tables.find_table` finds any.
        split: by the data set's own name ("test", "testA", "val", ...).

    Raises:
        UsageError: the data set or split is unknown, or its files are missing or unreadable.
        MissingExtraError: the packages of the extra "data" are not installed.
    """
    if name not in NAMES:
        raise UsageError(f"unknown dataset '{name}'; choose one of {', '.join(NAMES)}")
    if name in DRAWN:
        if data is not None:
            raise UsageError("scenes are drawn, not read; leave out --data")
        return SceneDataset(split) if name == "scenes" else GroupSceneDataset(split)
    if data is None:
        raise UsageError(f"{name} is read from a folder; name it with --data")
    if not data.exists():
        raise UsageError(f"{data} does not exist; name the folder of {name} with --data")
    if name in _SOLUTION_FOLDERS:
        return SolutionTable(name, data, split, _SOLUTION_FOLDERS[name])
    if name == GENERALIZED:
        return RefCocoDataset(name, data, split)
    table = find_table(data, split, (f"{_TABLE_PREFIXES[name]}_{split}",))
    if table is not None:
        return MaskTable(name, split, table)
    return (
        ReasonSegFolder(find_folder(data, split), split) if name == "reasonseg" else RefCocoDataset(name, data, split)
    )
