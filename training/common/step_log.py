"""The log of a training loop: means over windows of steps, as JSONL, lines on stderr and a progress bar."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from wise_edge.errors import UsageError
from wise_edge.files.documents import parse_json, read_lines, to_json
from wise_edge.files.writing import atomic_write
from wise_edge.training.common.pace import Pace

STEPS, VALIDATIONS = "train.jsonl", "validation.jsonl"
"""The logs of a run."""
_BAR_FIGURES = 60  # characters of figures next to the bar


class StepLog:
    """Means over each window of steps; a context manager that shows a bar if stderr is a terminal.

    Args:
        path: JSONL file to which records are appended.
        steps: total steps of the training.
        every: steps per window.
        step: steps done before.
        state: what `state` returned after them.
    """

    def __init__(self, path: Path, steps: int, every: int, step: int, state: dict[str, Any]) -> None:
        self._path = path
        self._steps = steps
        self._every = every
        self._pace = Pace(step, steps)
        now = time.monotonic()
        self._origin = now - state.get("seconds", 0.0)
        self._started = now - state.get("window_seconds", 0.0)
        self._sums: dict[str, float] = dict(state.get("sums", {}))
        self._counts: dict[str, int] = dict(state.get("counts", {}))
        self._samples: int = state.get("samples", 0)
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("", total=steps, completed=step)

    def __enter__(self) -> StepLog:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def state(self) -> dict[str, Any]:
        """Return the time so far and the sums of the window that is not yet written, for a log that goes on later."""
        now = time.monotonic()
        return {
            "seconds": now - self._origin,
            "window_seconds": now - self._started,
            "sums": self._sums,
            "counts": self._counts,
            "samples": self._samples,
        }

    def add(self, step: int, parts: dict[str, float], samples: int, **labels: str) -> None:
        """Add one step.

        Args:
            step: steps done, including this one.
            parts: figures to average, each over the steps of a window that have it.
            samples: number of samples in the step.
            **labels: text that is written unchanged at the end of a window.
        """
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._samples += samples
        self._bar.update(self._task, completed=step)
        if step % self._every == 0:
            self._write(step, labels)
            self._sums, self._counts, self._samples, self._started = {}, {}, 0, time.monotonic()

    def _write(self, step: int, labels: dict[str, str]) -> None:
        now = time.monotonic()
        means = {name: round(value / self._counts[name], 4) for name, value in self._sums.items()}
        speed = {
            "samples_per_s": round(self._samples / (now - self._started), 1),
            "seconds": round(now - self._origin, 1),
        }
        append_record(self._path, {"step": step, **labels, **means, **speed})
        figures = " ".join(f"{name} {value}" for name, value in {**labels, **means, **speed}.items())
        if self._bar.disable:
            print(f"step {step}/{self._steps} {figures}{self._pace.left(step)}", file=sys.stderr, flush=True)
        else:
            self._bar.update(self._task, description=figures[:_BAR_FIGURES])


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Append one line to a JSONL file, flushed to disk, so that no checkpoint is newer than its log."""
    with path.open("a", encoding="utf-8") as file:
        file.write(to_json(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the records of a JSONL log, or none if there is no file; lines that are torn are left out."""
    records = []
    for line in read_lines(path) if path.exists() else []:
        try:
            record = parse_json(line, str(path))
        except UsageError:
            continue
        if isinstance(record.get("step"), int):
            records.append(record)
    return records


def drop_records_after(path: Path, step: int) -> None:
    """Remove from a JSONL log what a run wrote after the checkpoint from which it resumes."""
    if path.exists():
        kept = [record for record in read_log(path) if record["step"] <= step]
        atomic_write(path, "".join(to_json(record) + "\n" for record in kept).encode(), force=True)
