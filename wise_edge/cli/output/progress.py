"""Progress on stderr: a bar per step on a terminal, otherwise a line per step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

Item = TypeVar("Item")


class _TimeLeft(ProgressColumn):
    """How long a step will still take, once its progress says so."""

    def render(self, task: Task) -> Text:
        left_s = None if task.finished else task.time_remaining
        return Text("" if left_s is None else f"{timedelta(seconds=int(left_s))} left", style="progress.remaining")


class ProgressLine:
    """Shows the steps of a long command: a context manager that is called with each step."""

    def __init__(self) -> None:
        self._step: str | None = None
        self._task: TaskID | None = None
        self._bars: Progress | None = None
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), _TimeLeft())
            self._bars = Progress(*columns, console=_open_console(), redirect_stdout=_mixed())

    def __enter__(self) -> ProgressLine:
        """Start drawing."""
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop drawing; complete the last step unless an exception was raised."""
        if self._bars is not None:
            if kind is None:
                self._finish()
            self._bars.stop()

    def __call__(self, step: str, share: float | None = None) -> None:
        """Show a step, and its progress (0 to 1) if that is known."""
        if step != self._step:
            self._begin(step)
        if self._bars is not None and self._task is not None and share is not None:
            self._bars.update(self._task, total=1.0, completed=share)

    def _begin(self, step: str) -> None:
        self._step = step
        if self._bars is None:
            typer.echo(f"{step} ...", err=True)
            return
        self._finish()
        self._task = self._bars.add_task(step, total=None)

    def _finish(self) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, total=1.0, completed=1.0)


@contextmanager
def counting(what: str, total: int, *, here: bool = True) -> Iterator[Callable[[], None]]:
    """Show how many of several things are done, and the time left, if stderr is a terminal and there are several.

    Args:
        what: the things.
        total: how many.
        here: whether it is this process that shows them.

    Yields:
        What counts one more.
    """
    console = _open_console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _TimeLeft())
    shown = here and total > 1 and console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown, redirect_stdout=_mixed()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def counted(items: Iterable[Item], count: Callable[[], None]) -> Iterator[Item]:
    """Yield items and call `count` after each."""
    for item in items:
        yield item
        count()


def _open_console() -> Console:
    return Console(stderr=True, soft_wrap=True)  # the terminal breaks lines above a bar, so that JSON can be copied


def _mixed() -> bool:
    """Return whether stdout is shown above a bar; else rich would print to stderr what belongs into a file."""
    return sys.stdout.isatty()
