"""Labeled data, all in one form: one's own, scenes, training sets with solutions, RefCOCO/+/g, gRefCOCO, ReasonSeg."""

from __future__ import annotations

from pathlib import Path

from wise_edge.datasets.base import Dataset, Example, ExampleObject
from wise_edge.datasets.coco_instances import CocoInstances
from wise_edge.datasets.labeled_tables import MaskTable, SolutionTable
from wise_edge.datasets.picture_table import SUFFIXES as TABLE_SUFFIXES
from wise_edge.datasets.picture_table import PictureTable
from wise_edge.datasets.reasonseg import ReasonSegFolder, find_folder
from wise_edge.datasets.refcoco import GENERALIZED, RefCocoDataset
from wise_edge.datasets.scenes import GENERALIZED_SCENES, GroupSceneDataset, SceneDataset
from wise_edge.datasets.tables import find_table
from wise_edge.errors import UsageError

__all__ = ["DRAWN", "FILES", "NAMES", "Dataset", "Example", "ExampleObject", "name_dataset", "open_dataset"]

DRAWN = ("scenes", GENERALIZED_SCENES)
"""Data sets that are drawn, not read."""
FILES = ("coco", "table")
"""Data sets of one's own, in one file without splits."""
NAMES = (*DRAWN, *FILES, "refcocog-2k", "visionreasoner", "refcoco", "refcoco+", "refcocog", "grefcoco", "reasonseg")
"""What `open_dataset` opens."""

_SUFFIXES = {"coco": (".json",), "table": TABLE_SUFFIXES}
"""Of the files of `FILES`."""
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


def name_dataset(data: Path | None) -> str:
    """Return the name of a data set that is not named: by a file's suffix, "scenes" without data.

    Raises:
        UsageError: the suffix does not tell.
    """
    if data is None:
        return "scenes"
    for name, suffixes in _SUFFIXES.items():
        if data.suffix.lower() in suffixes:
            return name
    raise UsageError(f"the name of {data} does not say what it holds; add --dataset NAME, for example reasonseg")


def open_dataset(name: str, data: Path | None, split: str, images: Path | None = None) -> Dataset:
    """Open a labeled data set.

    Args:
        name: one of `NAMES`.
        data: its folder, of `FILES` the file; None for `DRAWN`. RefCOCO/+/g and gRefCOCO are read from
            their files of refs, ReasonSeg from its folders, and all but gRefCOCO from tables with masks if
            `tables.find_table` finds any.
        split: by the data set's own name ("test", "testA", "val", ...); of `FILES` it is the file's name, whatever
            is given.
        images: folder of the images of "coco"; None looks in and beside the folder of its file.

    Raises:
        UsageError: the data set or split is unknown, or its files are missing or unreadable.
        MissingExtraError: the packages of the extra "data" are not installed.
    """
    if name not in NAMES:
        raise UsageError(f"unknown dataset '{name}'; choose one of {', '.join(NAMES)}")
    if images is not None and name != "coco":
        raise UsageError(f"--images is of --dataset coco; {name} has its images elsewhere, remove it")
    if name in DRAWN:
        if data is not None:
            raise UsageError("scenes are generated, not read; remove --data")
        return SceneDataset(split) if name == "scenes" else GroupSceneDataset(split)
    if data is None:
        raise UsageError(f"--dataset {name} needs --data {'FILE' if name in FILES else 'DIR'}")
    if not data.exists():
        kind = "file" if name in FILES else "folder"
        raise UsageError(f"{data} does not exist; pass the {kind} of {name} with --data")
    if name in FILES:
        return _open_file(name, data, images)
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


def _open_file(name: str, file: Path, images: Path | None) -> Dataset:
    suffixes = _SUFFIXES[name]
    wanted = " or ".join(filter(None, (", ".join(suffixes[:-1]), suffixes[-1])))
    if file.is_dir():
        inside = sorted(path.name for path in file.iterdir() if path.suffix.lower() in suffixes)[:3]
        named = f", for example {file / inside[0]}" if inside else f"; it holds no {wanted} file"
        raise UsageError(f"{file} is a folder; pass a file with --data{named}")
    if images is not None and not images.is_dir():
        raise UsageError(f"--images {images} is not a folder; pass the folder of the images")
    if name == "coco":
        return CocoInstances(file, images)
    if file.suffix.lower() not in suffixes:
        raise UsageError(f"{file} is not a table; pass a {wanted} file")
    return PictureTable(file)
