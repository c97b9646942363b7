"""The best policy of a run by held-out figures; the last one is often worse."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wise_edge.files.writing import atomic_write
from wise_edge.training.wise.checkpoints import publish, staging_folder
from wise_edge.training.wise.validation import Figures, mean_ciou, mean_tokens

_FOLDER = "best"


class BestPolicy:
    """The best policy so far, by cIoU, then by tokens; both are means over variants.

    Args:
        out: folder of the run.
        tolerance: a cIoU this far below the highest one so far counts as equal to it.
    """

    def __init__(self, out: Path, tolerance: float) -> None:
        self._out = out
        self._tolerance = tolerance
        self._file = out / "best.json"

    @property
    def folder(self) -> Path:
        """The kept policy: an adapter, or a complete checkpoint if all parameters are trained."""
        return self._out / _FOLDER

    @property
    def staged(self) -> Path:
        """Folder to write a better policy to before `keep`."""
        return staging_folder(self._out) / _FOLDER

    def beats(self, figures: Mapping[str, Figures]) -> bool:
        """Return whether a policy with these figures is better than the kept one, or the first."""
        kept, ciou = self._read(), mean_ciou(figures)
        if kept is None:
            return True
        least = self._highest(figures) - self._tolerance
        if ciou < least or kept["ciou"] < least:
            return ciou > float(kept["ciou"])
        return (-mean_tokens(figures), ciou) > (-kept["rationale_tokens"], kept["ciou"])

    def keep(self, step: int, figures: Mapping[str, Figures]) -> None:
        """Publish the staged policy with its figures."""
        publish(self._out, _FOLDER)
        record = {
            "step": step,
            "ciou": mean_ciou(figures),
            "rationale_tokens": mean_tokens(figures),
            "variants": {name: dataclasses.asdict(item) for name, item in figures.items()},
            "highest_ciou": self._highest(figures),
        }
        self._write(record)

    def reject(self, figures: Mapping[str, Figures]) -> None:
        """Record the cIoU of a policy that is not kept, which may be the highest so far."""
        self._write({**(self._read() or {}), "highest_ciou": self._highest(figures)})

    def _highest(self, figures: Mapping[str, Figures]) -> float:
        kept = self._read()
        return max(mean_ciou(figures), -1.0 if kept is None else kept["highest_ciou"])

    def _read(self) -> dict[str, Any] | None:
        if not self._file.exists():
            return None
        record: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
        return record

    def _write(self, record: dict[str, Any]) -> None:
        atomic_write(self._file, (json.dumps(record, indent=2) + "\n").encode(), force=True)
