"""Labelled data, all in one form: scenes, the paper's training set, RefCOCO/+/g and ReasonSeg."""

from __future__ import annotations

from pathlib import Path

from wise_edge.datasets.base import Dataset, Example
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.errors import UsageError

__all__ = ["NAMES", "Dataset", "Example", "open_dataset"]

NAMES = ("scenes", "refcocog-2k", "refcoco", "refcoco+", "refcocog", "reasonseg")
"""What `open_dataset` opens."""


def open_dataset(name: str, data: Path | None, split: str) -> Dataset:
    """Open a labelled data set.

    Args:
        name: one of `NAMES`.
        data: where it lies; None for "scenes", which lie nowhere.
        split: which part of it, by the data set's own name ("test", "testA", "val", ...).

    Raises:
        UsageError: there is no such data set or split, or its files are missing or unreadable.
        MissingExtraError: the packages of the extra "data" are not installed.
    """
    if name not in NAMES:
        raise UsageError(f"unknown dataset '{name}'; choose one of {', '.join(NAMES)}")
    if name == "scenes":
        if data is not None:
            raise UsageError("scenes are drawn, not read; leave out --data")
        return SceneDataset(split)
    raise UsageError(f"unknown dataset '{name}'; choose one of {', '.join(NAMES)}")
