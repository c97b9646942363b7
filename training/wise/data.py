"""Rows for TRL, made on access: prompt, image, and truth in the frame of the policy's answers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
from PIL import Image

from wise_edge.datasets import Dataset, Example, open_dataset
from wise_edge.errors import UsageError
from wise_edge.files.hashing import fingerprint
from wise_edge.policy.answers.answer import AnsweredObject, object_in_frame
from wise_edge.policy.answers.form import AnswerForm
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.policy.answers.reading import MAX_OBJECTS
from wise_edge.policy.image import resize
from wise_edge.training.wise.config import DataConfig
from wise_edge.training.wise.policy import StartPolicy

_NAMED_PROBLEMS = 20
_CACHED_ROWS = 64  # each rollout of a prompt reads its row


class Selection:
    """The samples of a dataset that a config selects.

    Args:
        config: selects the data.
        where: key in the recipe, for error messages.

    Raises:
        UsageError: the data does not exist, or is too small.
    """

    def __init__(self, config: DataConfig, where: str) -> None:
        self._first = config.first
        self._data: Dataset = open_dataset(
            config.name, None if config.path is None else Path(config.path), config.split
        )
        left = len(self._data) - config.first
        if left < (config.samples or 1):
            raise UsageError(f"{where}.samples: {config.name} has only {left} samples from index {config.first} on")
        self._count = config.samples or left
        _report(where, self._data.problems)

    def __len__(self) -> int:
        """Return the number of samples."""
        return self._count

    def __getitem__(self, index: int) -> Example:
        """Load one sample."""
        return self._data[self._first + index]

    def fingerprint(self) -> str:
        """Return a hash of the annotations, or of the selected samples' files where each has its own."""
        return fingerprint(self._data.sources(0) or self._data.sources(self._first + self._count))


def _report(where: str, problems: Sequence[str]) -> None:
    """Report the number of unusable rows, and the first of them, on stderr."""
    if problems:
        more = [f"and {len(problems) - _NAMED_PROBLEMS} more"] if len(problems) > _NAMED_PROBLEMS else []
        lines = [f"{where}: {len(problems)} rows are skipped:", *problems[:_NAMED_PROBLEMS], *more]
        print("\n  ".join(lines), file=sys.stderr)


def true_objects(example: Example, frame: AnswerFrame, form: AnswerForm) -> tuple[AnsweredObject, ...]:
    """Return what a sample means in a frame, with as many points as a form has.

    Raises:
        UsageError: it is not known, or more or less than the form holds.
    """
    if example.objects is None or (not example.objects and not form.many):
        raise UsageError(f"sample {example.id} has no box or no points to train on; choose other data")
    most, count = MAX_OBJECTS if form.many else 1, len(example.objects)
    if count > most:
        raise UsageError(f"sample {example.id} means {count} objects; an answer of the form {form.name} holds {most}")
    size, points = (example.image.shape[1], example.image.shape[0]), len(form.point_keys)
    return tuple(object_in_frame(item.box, item.points[:points], size, frame) for item in example.objects)


def training_rows(data: Selection, start: StartPolicy, order: str, count: int, seed: int) -> Any:
    """Return the rows of GRPO as a `datasets.Dataset` with the columns prompt, image, box, points and sample.

    If answers are lists, the column `objects` stands for box and points, see `RewardFunctions.functions`.

    Args:
        data: training data, in an order that is drawn again for each round. A row depends on its index alone, so a
            resumed run reads the same rows.
        start: the policy that is trained.
        order: one of `ORDERS`.
        count: number of rows.
        seed: seed of the order.
    """

    @lru_cache(2)
    def round_order(number: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng((seed, number)).permutation(len(data))

    @lru_cache(_CACHED_ROWS)
    def row(index: int) -> dict[str, Any]:
        number, place = divmod(index, len(data))
        example, truth = _load(data, int(round_order(number)[place]), start)
        objects = [{"box": list(item.box), "points": [list(point) for point in item.points]} for item in truth]
        return {
            "prompt": start.training_messages(example.query, order),
            "image": square_image(example, start.input_size),
            **({"objects": objects} if start.form.many else objects[0]),
            "sample": example.id,
        }

    return lazy_rows(count, row)


def _load(data: Selection, index: int, start: StartPolicy) -> tuple[Example, tuple[AnsweredObject, ...]]:
    """Load a sample and its truth; if it is damaged, name it on stderr and load the next one."""
    for place in range(index, index + len(data)):
        try:
            example = data[place % len(data)]
            return example, true_objects(example, start.frame, start.form)
        except UsageError as error:
            print(f"warning: {error}; the next sample is used instead", file=sys.stderr)
    raise UsageError("data: no sample can be loaded; choose other data")


def lazy_rows(count: int, row: Callable[[int], dict[str, Any]]) -> Any:
    """Return a `datasets.Dataset` whose rows a function makes from their index."""

    def make(batch: dict[str, Sequence[int]]) -> dict[str, list[Any]]:
        rows = [row(index) for index in batch["index"]]
        return {name: [item[name] for item in rows] for name in rows[0]}

    return datasets.Dataset.from_dict({"index": range(count)}).with_transform(make)


def square_image(example: Example, size: int) -> Image.Image:
    """Return a sample's image stretched to the square that the policy sees."""
    return Image.fromarray(resize(example.image, (size, size)))
