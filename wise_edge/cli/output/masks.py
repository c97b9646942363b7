"""The results of `wise-edge masks`: each printed and written to its files as it comes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from rich.table import Table

from wise_edge.cli import options
from wise_edge.cli.output.pictures import PictureResults
from wise_edge.cli.output.result import printable
from wise_edge.cli.output.tables import open_console, show
from wise_edge.drawing.units import milliseconds
from wise_edge.files.documents import to_json
from wise_edge.files.writing import atomic_write
from wise_edge.images import encode_image
from wise_edge.outputs.saving import Kind
from wise_edge.runtimes.mask.generated import GeneratedMasks

_LISTED = 20
"""Masks of one picture that are shown in a table."""
_MEASURED = {"pred_iou_thresh": "predicted_iou", "stability_score_thresh": "stability_score"}


@dataclass
class MaskResults(PictureResults):
    """Prints masks and writes their files."""

    told: ClassVar = {"found": "with masks", "nothing": "without a mask"}

    def add(
        self, picture: str, image: npt.NDArray[np.uint8], result: GeneratedMasks, files: Iterable[tuple[Kind, Path]]
    ) -> None:
        """Print what was found in a picture, HWC uint8 RGB, and write its files, even if one of these fails."""
        self.count("found" if result.masks else "nothing", result.latency_ms["total"])
        with ExitStack() as ending:  # the last one happens first
            ending.callback(self._print, picture, result)
            if self.coco is not None:
                ending.callback(self.document.add_masks, picture, result)
            for kind, file in files:
                ending.callback(self._write, kind, file, picture, image, result)

    def _write(
        self, kind: Kind, file: Path, picture: str, image: npt.NDArray[np.uint8], result: GeneratedMasks
    ) -> None:
        if kind == "json":
            content = f"{_document(picture, result)}\n".encode()
        else:
            content = encode_image(result.overlay(image), file.suffix)
        atomic_write(file, content, force=self.force)

    def _print(self, picture: str, result: GeneratedMasks) -> None:
        if self.as_json:
            options.say(_document(picture, result))
            return
        facts = [_count(len(result.masks), "mask"), *_explain(result), milliseconds(result.latency_ms["total"])]
        options.say(printable(f"{picture}: {'; '.join(facts)}"))
        if self.total == 1 and result.masks:
            show(open_console(), _list_masks(result))
            if (more := len(result.masks) - _LISTED) > 0:
                options.say(f"and {more:,} more")


def _explain(result: GeneratedMasks) -> list[str]:
    """Say what became of the masks of a grid; which thresholds to lower, if nothing is left."""
    if not result.made:
        return []
    reasons = ", ".join(f"{count:,} by {_option(name)}" for name, count in result.dropped.items())
    told = [f"{result.made:,} made" + (f", dropped {reasons}" if reasons else "")]
    if not result.masks:
        best = [
            f"{_option(name)} (best {result.best[value]:.2f})"
            for name, value in _MEASURED.items()
            if name in result.dropped and value in result.best
        ]
        told += [f"lower {' or '.join(best)}"] if best else []
    return told


def _option(name: str) -> str:
    return {"empty": "having no pixel", "crop_edge": "a crop's edge"}.get(name) or f"--{name.replace('_', '-')}"


def _list_masks(result: GeneratedMasks) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("mask", "area px", "x, y", "size", "predicted IoU", "stability"):
        table.add_column(heading, justify="right")
    for number, mask in enumerate(result.masks[:_LISTED], start=1):
        x, y, width, height = mask.bbox
        stability = "" if mask.stability_score is None else f"{mask.stability_score:.3f}"
        table.add_row(
            str(number), f"{mask.area:,}", f"{x}, {y}", f"{width} x {height}", f"{mask.predicted_iou:.3f}", stability
        )
    return table


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number or 'no'} {what}s"


def _document(picture: str, result: GeneratedMasks) -> str:
    """Return a result as one line of JSON that names its picture."""
    return to_json({"image": picture} | result.to_dict())
