"""The best policy of a run by held-out figures; the last one is often worse.

`best/` holds the policy and its figures, and takes its place in one step, so a kill never leaves one policy under the
figures of another. `best.json` repeats them and adds what was seen since.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError
from wise_edge.files.documents import read_json, to_json
from wise_edge.files.writing import atomic_write
from wise_edge.training.wise.checkpoints import publish, staging_folder
from wise_edge.training.wise.validation import Figures, mean_ciou, mean_tokens

_FOLDER = "best"
_FIGURES = "figures.json"
_COMPARED = ("step", "ciou", "rationale_tokens", "highest_ciou", "judged")


def best_folder(out: Path) -> Path:
    """Return the folder of a run's best policy."""
    return out / _FOLDER


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
        return best_folder(self._out)

    @property
    def staged(self) -> Path:
        """Folder to write a better policy to before `keep`."""
        return staging_folder(self._out) / _FOLDER

    def beats(self, step: int, figures: Mapping[str, Figures]) -> bool:
        """Return whether the policy of a step with these figures is better than the kept one, or the first.

        A resumed run repeats the steps since its checkpoint. Policies that were judged before are not judged again:
        another one may have been kept since, and the order of the judgements matters.
        """
        kept, ciou = self._read(), mean_ciou(figures)
        if kept is None:
            return True
        if step <= kept["judged"]:
            return False
        least = self._highest(figures) - self._tolerance
        if ciou < least or kept["ciou"] < least:
            return ciou > float(kept["ciou"])
        return (-mean_tokens(figures), ciou) > (-kept["rationale_tokens"], kept["ciou"])

    def keep(self, step: int, figures: Mapping[str, Figures]) -> None:
        """Publish the staged policy with its figures."""
        record = {
            "step": step,
            "ciou": mean_ciou(figures),
            "rationale_tokens": mean_tokens(figures),
            "variants": {name: dataclasses.asdict(item) for name, item in figures.items()},
            "highest_ciou": self._highest(figures),
            "judged": step,
        }
        (self.staged / _FIGURES).write_bytes(_to_json(record))
        publish(self._out, _FOLDER)
        self._write(record)

    def reject(self, step: int, figures: Mapping[str, Figures]) -> None:
        """Record the cIoU of a policy that is not kept, which may be the highest so far."""
        kept = self._read()
        assert kept is not None  # the first one is kept
        self._write({**kept, "highest_ciou": self._highest(figures), "judged": max(step, kept["judged"])})

    def check(self) -> None:
        """Raise `UsageError` if a record of the kept policy cannot be used."""
        self._read()

    def judge_again_after(self, step: int) -> None:
        """Judge the policies after a step again, which a change of the recipe makes other ones."""
        if (kept := self._read()) is not None:
            self._write({**kept, "judged": min(step, kept["judged"])})

    def _highest(self, figures: Mapping[str, Figures]) -> float:
        kept = self._read()
        return max(mean_ciou(figures), -1.0 if kept is None else kept["highest_ciou"])

    def _read(self) -> dict[str, Any] | None:
        """Return the record of the kept policy; `best.json` is older if a kill came before it was written."""
        if not self.folder.exists():
            return None
        kept, seen = _read_record(self.folder / _FIGURES), _read_record(self._file) if self._file.exists() else None
        return seen if seen is not None and seen["step"] == kept["step"] else kept

    def _write(self, record: dict[str, Any]) -> None:
        atomic_write(self._file, _to_json(record), force=True)


def _read_record(file: Path) -> dict[str, Any]:
    record = read_json(file)
    if lacking := [name for name in _COMPARED if type(record.get(name)) not in (int, float)]:
        raise UsageError(f"{file} is damaged: its {lacking[0]} is not a number; restore it from a copy")
    return record


def _to_json(record: dict[str, Any]) -> bytes:
    return (to_json(record, indent=2) + "\n").encode()
