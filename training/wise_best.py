"""The best policy of a run by held-out figures: the last one is often worse."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from wise_edge.files import atomic_write
from wise_edge.training.wise_checkpoints import publish, staging_folder
from wise_edge.training.wise_validation import mean_ciou, mean_tokens

if TYPE_CHECKING:
    from wise_edge.training.wise_validation import Figures

_FOLDER = "best"


class BestPolicy:
    """The policy kept so far, by cIoU, then tokens, each the mean over variants.

    Args:
        out: folder of the run.
        tolerance: cIoU is compared in steps of this size; 0 compares it exactly.
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
        if not self._file.exists():
            return True
        kept = json.loads(self._file.read_text(encoding="utf-8"))
        return self._rank(mean_ciou(figures), mean_tokens(figures)) > self._rank(kept["ciou"], kept["rationale_tokens"])

    def keep(self, step: int, figures: Mapping[str, Figures]) -> None:
        """Publish the staged policy with its figures."""
        publish(self._out, _FOLDER)
        record = {
            "step": step,
            "ciou": mean_ciou(figures),
            "rationale_tokens": mean_tokens(figures),
            "variants": {name: dataclasses.asdict(item) for name, item in figures.items()},
        }
        atomic_write(self._file, (json.dumps(record, indent=2) + "\n").encode(), force=True)

    def _rank(self, ciou: float, tokens: float) -> tuple[float, float]:
        return (math.floor(ciou / self._tolerance) if self._tolerance else ciou), -tokens
