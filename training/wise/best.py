"""The best policy of a run by held-out figures: the last one is often worse."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wise_edge.files import atomic_write
from wise_edge.training.wise.checkpoints import publish, staging_folder
from wise_edge.training.wise.validation import Figures, mean_ciou, mean_tokens

_FOLDER = "best"


class BestPolicy:
    """The policy kept so far, by cIoU, then tokens, each the mean over variants.

    Args:
        out: folder of the run.
        tolerance: cIoU this far below the highest one seen counts as equal to it.
    """

    def __init__(self, out: Path, tolerance: float) -> None:
        self._out = out
        self._tolerance = tolerance
        self._file = out / "best.json"

    @property
    def folder(self) -> Path:
        """The kept policy: an adapter, or a whole checkpoint where all parameters are trained."""
        return self._out / _FOLDER

    @property
    def staged(self) -> Path:
        """Where a better policy is written before `keep`."""
        return staging_folder(self._out) / _FOLDER

    def beats(self, figures: Mapping[str, Figures]) -> bool:
        """Whether a policy of these figures is better than the kept one, or there is none."""
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
        """Remember how high cIoU was of a policy that is not kept."""
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
