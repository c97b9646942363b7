"""Synthetic scenes as a data set: nothing is read; examples are drawn on demand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

from wise_edge.datasets.base import Example, ExampleObject, masked_objects
from wise_edge.errors import UsageError
from wise_edge.geometry import unite
from wise_edge.scenes import SPLITS, sample, sample_group

GENERALIZED_SCENES = "scenes-generalized"
"""The data set whose queries mean any number of objects."""


class _DrawnDataset:
    """What both data sets of scenes share.

    Args:
        name: of the data set.
        split: a key of `wise_edge.scenes.SPLITS`.

    Raises:
        UsageError: the split is unknown.
    """

    def __init__(self, name: str, split: str) -> None:
        if split not in SPLITS:
            raise UsageError(f"unknown split '{split}'; choose one of {', '.join(SPLITS)}")
        self.name = name
        self.split = split
        self.problems: tuple[str, ...] = ()

    @property
    def ids(self) -> Sequence[str]:
        """Ids of the examples ("test-0"), in order, made on demand."""
        return _Ids(self.split, range(len(self)))

    def __len__(self) -> int:
        return len(SPLITS[self.split])

    def sources(self, count: int) -> list[Path]:
        """Return no files."""
        return []


class SceneDataset(_DrawnDataset):
    """One split of the scenes; an example's kind is its kind of query."""

    def __init__(self, split: str) -> None:
        super().__init__("scenes", split)

    def __getitem__(self, index: int) -> Example:
        """Draw one example."""
        item = sample(self.split, range(len(self))[index])
        name = self.ids[index]
        target = ExampleObject(item.box, item.points, item.mask)
        return Example(name, item.request, item.scene.image, (target,), item.mask, None, item.query.kind)


class GroupSceneDataset(_DrawnDataset):
    """One split of scenes whose queries mean none, one or several objects, which is an example's kind."""

    def __init__(self, split: str) -> None:
        super().__init__(GENERALIZED_SCENES, split)

    def __getitem__(self, index: int) -> Example:
        """Draw one example."""
        item = sample_group(self.split, range(len(self))[index])
        size = (item.scene.side, item.scene.side)
        objects = masked_objects(item.masks)
        return Example(
            self.ids[index], item.request, item.scene.image, objects, unite(item.masks, size), None, item.query.kind
        )


class _Ids(Sequence[str]):
    def __init__(self, split: str, numbers: range) -> None:
        self._split = split
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return _Ids(self._split, self._numbers[index])
        return f"{self._split}-{self._numbers[index]}"
