"""What a policy expects of pictures and what its answers mean: facts of its family, or of how it was trained.

Our trainings write `policy.json` beside the weights. Older ones did not: their policies are known by an image processor
of one square, saw pictures as that and answer in pixels of it. Every other checkpoint without that file is taken for
a stock one, which keeps to its family's facts. What an export is told counts more than all of that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError
from wise_edge.files.documents import read_json, to_json
from wise_edge.mapping import from_mapping, without_version
from wise_edge.policy.answers.form import AnswerForm
from wise_edge.policy.answers.frame import PER_MILLE, PIXELS_XY, Coordinates
from wise_edge.policy.answers.named import find_form
from wise_edge.policy.picture import ASPECT, SQUARE, Grid, PictureGeometry
from wise_edge.policy.processor import ImageSettings
from wise_edge.ranges import Checked

FILE = "policy.json"
VERSION = 1
FAMILY_COORDINATES = {
    "qwen2_vl": Coordinates(PER_MILLE),  # https://arxiv.org/abs/2409.12191, section 2.2
    "qwen2_5_vl": PIXELS_XY,  # https://arxiv.org/abs/2502.13923, section 2.2
    "qwen3_vl": Coordinates(PER_MILLE),  # https://github.com/QwenLM/Qwen3-VL, cookbooks/2d_grounding.ipynb
    "qwen3_5": Coordinates(PER_MILLE),  # https://github.com/QwenLM/Qwen3.8-Flash-Next/issues/4
}
"""How stock checkpoints of a family write coordinates, by transformers' name."""
_PICTURE = re.compile(rf"({SQUARE})(?::(\d{{1,9}}))?|({ASPECT})(?::(\d{{1,9}})-(\d{{1,9}}))?")
_GRID = re.compile(r"(\d{1,5})x(\d{1,5})")


@dataclass(frozen=True)
class Conventions(Checked):
    """What a checkpoint's `policy.json` says; None leaves it to what else is known.

    Attributes:
        coordinates: what the numbers of an answer count.
        picture: how images are resized.
        form: how answers are written.
    """

    coordinates: Coordinates | None = None
    picture: PictureGeometry | None = None
    form: AnswerForm | None = None

    @classmethod
    def upgrade(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the entries of any version, of which there is one; see `from_mapping`."""
        return without_version(data, VERSION)


@dataclass(frozen=True)
class Told:
    """What an export is told of a policy; None leaves it to the checkpoint.

    Attributes:
        coordinates: "pixels" or "per-mille", with ",yx" if rows come first.
        picture: "square", "square:SIDE", "aspect" or "aspect:LEAST-MOST" (pixels).
        pixels: most pixels of an image.
        grids: the only grids of image tokens, "COLUMNSxROWS,…".
        form: a shipped form of answers, or a JSON file with one.
        fixed_grids: whether images must have a few grids alone; without `grids` those of usual aspects.

    Raises:
        UsageError: a value is none of these; the message names the option.
    """

    coordinates: str | None = None
    picture: str | None = None
    pixels: int | None = None
    grids: str | None = None
    fixed_grids: bool = False
    form: str | None = None

    def __post_init__(self) -> None:
        if self.form is not None:
            find_form(self.form, "--form ")
        if self.coordinates is not None:
            parse_coordinates(self.coordinates, "--coordinates ")
        if self.picture is not None and not _PICTURE.fullmatch(self.picture):
            raise UsageError(
                f"--picture {self.picture}: pass square, square:SIDE, aspect or aspect:LEAST-MOST (pixels), for "
                "example square:840"
            )
        if self.grids is not None and not self._grids():
            raise UsageError(f"--grids {self.grids}: pass columns and rows of image tokens, for example 30x30,40x22")

    def fit_picture(self, known: PictureGeometry, images: ImageSettings) -> PictureGeometry:
        """Return how images are resized.

        Args:
            known: what the checkpoint expects.
            images: settings of its image processor.

        Raises:
            UsageError: the values contradict one another.
        """
        unit = images.patch_size * images.merge_size
        try:
            picture = known if self.picture is None else self._picture(images)
        except ValueError as error:
            raise UsageError(f"--picture: {error}") from error
        if self.pixels is not None:
            picture = picture.with_budget(self.pixels, unit)
        if self.grids is not None:
            return self._with_grids(picture)
        if picture.kind == ASPECT and self.fixed_grids and not picture.grids:
            return replace(picture, grids=picture.usual_grids(unit))
        return picture

    def _with_grids(self, picture: PictureGeometry) -> PictureGeometry:
        if picture.kind == SQUARE:
            raise UsageError("--grids are of pictures that keep their aspect; add --picture aspect, or omit them")
        try:
            return replace(picture, grids=self._grids())
        except ValueError as error:
            raise UsageError(f"--grids: {error}") from error

    def _picture(self, images: ImageSettings) -> PictureGeometry:
        match = _PICTURE.fullmatch(self.picture or "")
        assert match is not None
        _, side, aspect, least, most = match.groups()
        if aspect:
            return PictureGeometry(ASPECT, None, int(least), int(most)) if least else images.aspect()
        return PictureGeometry.square(int(side)) if side else images.square()

    def _grids(self) -> tuple[Grid, ...]:
        """Return the grids; empty if one is malformed or none is asked for."""
        found = [_GRID.fullmatch(text.strip()) for text in (self.grids or "").split(",")]
        return tuple(dict.fromkeys((int(match[1]), int(match[2])) for match in found if match)) if all(found) else ()


def find_coordinates(folder: Path, family: str, told: str | None, *, one_square: bool) -> Coordinates:
    """Return what the numbers of a policy's answers count.

    Args:
        folder: the checkpoint's.
        family: transformers' name of its architecture.
        told: what counts more than what is known, see `Told.coordinates`.
        one_square: whether its image processor makes squares of one size, see `has_one_square`.

    Raises:
        UsageError: `told` or `policy.json` is malformed, or nobody says what the numbers count.
    """
    if told is not None:
        return parse_coordinates(told, "coordinates: ")
    known = read_conventions(folder).coordinates or (PIXELS_XY if one_square else FAMILY_COORDINATES.get(family))
    if known is None:
        raise UsageError(
            f"{folder}: it is not known whether a {family} policy answers in pixels or per mille; pass --coordinates "
            f"pixels or per-mille, or write it into {folder / FILE}"
        )
    return known


def complete_entries(folder: Path, family: str, images: ImageSettings, told: Told) -> dict[str, Any]:
    """Return the entries of a spec that are conventions.

    Args:
        folder: the checkpoint's.
        family: transformers' name of its architecture.
        images: settings of its image processor.
        told: what counts more than what is known.

    Raises:
        UsageError: as `find_coordinates` and `Told.fit_picture`.
    """
    said = read_conventions(folder)
    picture = said.picture or (images.square() if images.one_square else images.aspect())
    entries = {
        "coordinates": find_coordinates(folder, family, told.coordinates, one_square=images.one_square),
        "picture": told.fit_picture(picture, images),
    }
    form = said.form if told.form is None else find_form(told.form, "--form ")
    return entries if form is None else entries | {"form": form}


def read_conventions(folder: Path) -> Conventions:
    """Return what a checkpoint's `policy.json` says, nothing if there is none; raises `UsageError` if malformed."""
    file = folder / FILE
    return from_mapping(Conventions, read_json(file), f"{file}: ") if file.is_file() else Conventions()


def write_conventions(folder: Path, conventions: Conventions) -> None:
    """Write a checkpoint's `policy.json`."""
    said = {"version": VERSION} | {name: value for name, value in asdict(conventions).items() if value is not None}
    (folder / FILE).write_text(to_json(said, indent=2) + "\n", encoding="utf-8")


def parse_coordinates(text: str, name: str) -> Coordinates:
    """Return coordinates from "pixels" or "per-mille", with ",yx" if rows come first.

    Args:
        text: the value.
        name: of the option or setting, for messages.

    Raises:
        UsageError: it is something else.
    """
    try:
        return Coordinates(*text.split(",", 1))
    except ValueError as error:
        raise UsageError(f"{name}{text}: pass pixels or per-mille, and ,yx if rows come first") from error
