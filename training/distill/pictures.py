"""The pictures of a distillation: a folder of any, or drawn scenes; each is prepared for both encoders."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wise_edge.errors import UsageError
from wise_edge.images import load_image, open_image
from wise_edge.images.sources import find_images
from wise_edge.sam.image import fit_image, fit_prompts, normalize_image
from wise_edge.sam.spec import SamSpec
from wise_edge.scenes import sample
from wise_edge.training.common.background import stream_items
from wise_edge.training.distill.config import SCENES, DistillConfig

_NAMED = 5
_SCENE_SIDE = 224
_HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class Pictures:
    """B pictures, as both encoders read them."""

    numbers: tuple[int, ...]
    """Of the pictures in their folder, by which embeddings are kept; -1 for a scene, which is seen once."""
    student: NDArray[np.float32]
    """[B, 3, S, S], normalized."""
    teacher: NDArray[np.float32]
    """[B, 3, T, T], normalized."""
    sizes: NDArray[np.float32]
    """[B, 2], (width, height) of the picture in the square of prompts, px."""


class Folder:
    """Pictures of a folder that can be read, in a fixed order; the first ones are held out.

    Args:
        folder: holds pictures of any size.
        held_out: most pictures that are not trained on.
    """

    def __init__(self, folder: Path, held_out: int) -> None:
        self.files: list[Path] = []
        self.unreadable: list[tuple[Path, str]] = []
        for file in find_images(folder):
            try:
                with open_image(file):  # the header alone: to decode thousands of pictures would take minutes
                    self.files.append(file)
            except UsageError as error:
                self.unreadable.append((file, str(error)))
        if len(self.files) < 2:
            reason = f", for example {self.unreadable[0][1]}" if self.unreadable else ""
            raise UsageError(f"images: {folder} has {len(self.files)} pictures that can be read, 2 are needed{reason}")
        np.random.default_rng(0).shuffle(self.files)
        self.held_out = max(1, min(held_out, int(len(self.files) * _HELD_OUT_SHARE)))

    @property
    def fingerprint(self) -> str:
        """Names and sizes of all pictures, hashed: a resumed run needs the same."""
        lines = [f"{file.name} {file.stat().st_size}" for file in self.files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def describe_unreadable(self) -> str | None:
        """Say how many pictures are left out, and name the first."""
        if not self.unreadable:
            return None
        named = "; ".join(reason for _, reason in self.unreadable[:_NAMED])
        more = f"; and {len(self.unreadable) - _NAMED} more" if len(self.unreadable) > _NAMED else ""
        return f"{len(self.unreadable)} pictures cannot be read and are left out: {named}{more}"

    def read(self, number: int) -> NDArray[np.uint8]:
        """Return a picture, or the next one that can be decoded; its header could be read."""
        for place in range(number, number + len(self.files)):
            file = self.files[place % len(self.files)]
            try:
                return load_image(file)
            except UsageError as error:
                print(f"warning: {error}; the next picture takes its place", file=sys.stderr)
        raise UsageError("images: no picture of the folder can be decoded")


class PictureBatches:
    """The batches by step: a map-style dataset, each a function of (seed, step) alone.

    Args:
        config: the training.
        folder: the pictures; None: scenes.
        student: the student's spec.
        teacher: the teacher's.
    """

    def __init__(self, config: DistillConfig, folder: Folder | None, student: SamSpec, teacher: SamSpec) -> None:
        self._config = config
        self._folder = folder
        self._specs = student, teacher

    def __len__(self) -> int:
        """Return the number of steps."""
        return self._config.steps

    def __getitem__(self, step: int) -> Pictures:
        """Prepare the pictures of one step."""
        first = step * self._config.pictures_per_step
        places = range(first, first + self._config.pictures_per_step)
        if self._folder is None:
            return self._prepare([(-1, draw_scene("train", place)) for place in places])
        numbers = [self._number(place) for place in places]
        return self._prepare([(number, self._folder.read(number)) for number in numbers])

    def held_out(self) -> Iterator[Pictures]:
        """Yield the pictures that are not trained on, one by one."""
        if self._folder is None:
            for index in range(self._config.validate_pictures):
                yield self._prepare([(-1, draw_scene("validation", index))])
        else:
            for number in range(self._folder.held_out):
                yield self._prepare([(number, self._folder.read(number))])

    def _number(self, place: int) -> int:
        """The picture at a place of all epochs; each epoch has an order of its own."""
        assert self._folder is not None
        held_out = self._folder.held_out
        epoch, row = divmod(place, len(self._folder.files) - held_out)
        order = np.random.default_rng((self._config.seed, epoch)).permutation(len(self._folder.files) - held_out)
        return held_out + int(order[row])

    def _prepare(self, pictures: list[tuple[int, NDArray[np.uint8]]]) -> Pictures:
        student, teacher = self._specs
        sizes = [(image.shape[1], image.shape[0]) for _, image in pictures]
        squares = [
            np.concatenate([
                normalize_image(image, fit_image(size, spec), spec)
                for (_, image), size in zip(pictures, sizes, strict=True)
            ])
            for spec in (student, teacher)
        ]  # fmt: skip
        fitted = np.array([fit_prompts(size, student) for size in sizes], np.float32)
        return Pictures(tuple(number for number, _ in pictures), squares[0], squares[1], fitted)


def draw_scene(split: str, index: int) -> NDArray[np.uint8]:
    """Return the image of a scene, HWC uint8."""
    image: NDArray[np.uint8] = sample(split, index, _SCENE_SIDE).scene.image
    return image


def open_folder(config: DistillConfig) -> Folder | None:
    """Return the recipe's pictures, or None for scenes; raises UsageError if there are none."""
    return None if config.images == SCENES else Folder(Path(config.images), config.validate_pictures)


def stream_pictures(batches: PictureBatches, start_step: int) -> Iterator[Pictures]:
    """Yield the batch of each step from `start_step` on; one background process makes them."""
    yield from stream_items(batches, start_step, ahead=2)
