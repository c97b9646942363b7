"""Tables that lose nothing: where one does not fit the terminal, each row becomes lines of its own.

Rich cuts what does not fit and ends it with "…", also in the middle of a figure, and takes a pipe for 80 columns.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_UNBOUND = 10_000
"""Columns of what is no terminal, such as a pipe into grep."""


class _Console(Console):
    """A console that pads no line with spaces, as Rich does in tables, where it prints into a file or a pipe."""

    def print(self, *objects: Any, **how: Any) -> None:
        if self.is_terminal:
            super().print(*objects, **how)
            return
        with self.capture() as printed:
            super().print(*objects, **how)
        lines = "\n".join(line.rstrip(" ") for line in printed.get().split("\n"))
        super().print(lines, end="", markup=False, emoji=False, highlight=False, soft_wrap=True)


def open_console(*, stderr: bool = False) -> Console:
    """Return a console for stdout or stderr; only a terminal wraps what is printed, or anything if COLUMNS is set."""
    bound = (sys.stderr if stderr else sys.stdout).isatty() or os.environ.get("COLUMNS", "").isdigit()
    return _Console(stderr=stderr, highlight=False, width=None if bound else _UNBOUND)


def show_facts(console: Console, facts: Iterable[tuple[str | Text, str | Text]]) -> None:
    """Print names, and beside each its text, in as many lines as it takes."""
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    for fact in facts:
        table.add_row(*(Text(part) if isinstance(part, str) else part for part in fact))
    console.print(table)


def show(console: Console, table: Table) -> None:
    """Print a table; if it is too wide, its rows one below the other: the first cell, then each with its heading."""
    needed = console.measure(table, options=console.options.update_width(_UNBOUND)).maximum
    if needed <= console.width:
        console.print(table)
        return
    if table.title:
        console.print(table.title, markup=isinstance(table.title, str))
    if title := " ".join(str(table.columns[0].header).split()):
        console.print(title, style="dim", markup=False)
    first, *others = ([cell for cell in column.cells] for column in table.columns)
    headings = [column.header for column in table.columns[1:]]
    for number, name in enumerate(first):
        if str(name):
            console.print(name, style="bold", overflow="fold")
        block = Table.grid(padding=(0, 2))
        block.add_column(no_wrap=True)
        block.add_column(overflow="fold")
        for heading, cells in zip(headings, others, strict=True):
            if str(cells[number]):
                block.add_row(f"  {' '.join(str(heading).split())}", cells[number])
        console.print(block)
