"""Results on one picture or several, as a command prints them and writes them to files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import ClassVar

from wise_edge.cli import options
from wise_edge.drawing.units import milliseconds
from wise_edge.errors import UsageError
from wise_edge.files.documents import to_json
from wise_edge.files.writing import atomic_write
from wise_edge.outputs.coco import CocoDocument


@dataclass
class PictureResults:
    """Counts results; used as a context, it writes the COCO file at the end, whatever ends it.

    Attributes:
        told: what a result can be, and how the last line says it.
        total: number of pictures.
        coco: file for the results on all pictures, or None.
        as_json: print JSON documents, one a line.
        force: replace files that exist.
        document: becomes the COCO file.
    """

    told: ClassVar[Mapping[str, str]]
    total: int
    coco: Path | None
    as_json: bool
    force: bool
    document: CocoDocument = field(default_factory=CocoDocument)
    _counts: Counter[str] = field(default_factory=Counter)
    _spent_ms: list[float] = field(default_factory=list)

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the COCO file, and say of several pictures what became of them."""
        if self.coco is not None and self._spent_ms:
            atomic_write(self.coco, f"{to_json(self.document.to_dict())}\n".encode(), force=self.force)
        if self.total > 1:
            options.say(self._summary(), err=True)

    @property
    def skipped(self) -> int:
        """Number of pictures that could not be read."""
        return self._counts["skipped"]

    def skip(self, error: UsageError) -> None:
        """Say why a picture cannot be answered."""
        self._counts["skipped"] += 1
        options.say(f"skipped: {error}", err=True)

    def count(self, what: str, spent_ms: float) -> bool:
        """Count a result, one of `told`; return whether it is the first."""
        self._counts[what] += 1
        self._spent_ms.append(spent_ms)
        return len(self._spent_ms) == 1

    def _summary(self) -> str:
        counts = {told: self._counts[what] for what, told in self.told.items()} | {"skipped": self.skipped}
        parts = [f"{count} {told}" for told, count in counts.items() if count]
        if (left := self.total - self._counts.total()) > 0:
            parts.append(f"{left} not reached")
        spent = f"; median {milliseconds(median(self._spent_ms))}" if self._spent_ms else ""
        return f"{self.total} pictures: {', '.join(parts)}{spent}"
