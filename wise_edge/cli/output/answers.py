"""The answers of `wise-edge run`: each printed and written to its files as it comes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import typer

from wise_edge.cli import options
from wise_edge.cli.output.pictures import PictureResults
from wise_edge.cli.output.result import (
    backend_lines,
    deadline_lines,
    energy_line,
    no_answer_line,
    result_caption,
    result_drawing,
    result_line,
    result_table,
)
from wise_edge.cli.output.tables import open_console
from wise_edge.drawing.report import overlay_card
from wise_edge.files.documents import to_json
from wise_edge.files.writing import atomic_write
from wise_edge.images import encode_image
from wise_edge.outputs.saving import Kind, encode_result
from wise_edge.runtimes.results import SegmentationResult


@dataclass(kw_only=True)
class Answers(PictureResults):
    """Prints answers and writes their files.

    Attributes:
        energy: say the energy, or why it was not measured.
        explain: say why each backend was chosen.
        panel: write overlays with query, rationale and latency below the picture.
    """

    told: ClassVar = {"found": "found", "nothing": "with nothing found", "unreadable": "without an answer"}
    energy: bool
    explain: bool
    panel: bool

    def add(
        self, picture: str, image: npt.NDArray[np.uint8], result: SegmentationResult, files: Iterable[tuple[Kind, Path]]
    ) -> None:
        """Print an answer and write its files; each of these happens, even if another one fails.

        Args:
            picture: its name.
            image: HWC uint8 RGB.
            result: on it.
            files: what to write, and where. Without an answer there is no mask, and without a pixel no cut-out; with
                `force`, an earlier answer's is removed then, so that nobody takes it for this one's.
        """
        first = self.count(result.status, result.latency_ms.total)
        with ExitStack() as ending:  # the last one happens first
            ending.callback(self._print, picture, result, first)
            if self.coco is not None:
                ending.callback(self.document.add, picture, result)
            for kind, file in files:
                ending.callback(self._write, kind, file, picture, image, result)

    def _write(
        self, kind: Kind, file: Path, picture: str, image: npt.NDArray[np.uint8], result: SegmentationResult
    ) -> None:
        nothing = result.mask is None or (kind == "cutout" and not result.mask.any())
        if kind in ("mask", "cutout") and nothing:
            if self.force:
                file.unlink(missing_ok=True)
            return
        if kind == "json":
            content = f"{_document(picture, result)}\n".encode()
        elif kind == "overlay" and self.panel:
            notes = (f"energy {energy_line(result)}",) if self.energy else ()
            card = overlay_card(result_drawing(result, image), result_caption(result, notes))
            content = encode_image(np.asarray(card), file.suffix)
        else:
            content = encode_result(result, image, kind, file.suffix, picture)
        atomic_write(file, content, force=self.force)

    def _print(self, picture: str, result: SegmentationResult, first: bool) -> None:
        if self.as_json:
            options.say(_document(picture, result))
        elif self.total > 1:
            options.say(result_line(picture, result))
        else:
            console = open_console()
            console.print(result_table(result, console, energy=self.energy, explain=self.explain))
        if self.total > 1:
            if first and self.explain and not self.as_json:
                options.say(backend_lines(result), err=True)
                if result.deadline is not None:
                    spent_ms = result.latency_ms.total
                    options.say(f"deadline {deadline_lines(result.deadline, spent_ms, explain=True)}", err=True)
            if first and self.energy and result.energy_reason is not None:
                options.note(f"energy {energy_line(result)}")
        elif not result.answer_valid:
            typer.echo(f"{no_answer_line(result)}; no mask was written", err=True)
        elif result.mask_reason is not None:
            options.note(f"the mask is empty: {result.mask_reason}")


def _document(picture: str, result: SegmentationResult) -> str:
    """Return a result as one line of JSON that names its picture."""
    return to_json({"image": picture} | result.to_dict())
