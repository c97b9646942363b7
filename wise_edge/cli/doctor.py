"""`wise-edge doctor`: what this device has and lacks for running bundles."""

from __future__ import annotations

from dataclasses import asdict

import typer

from wise_edge.cli import options
from wise_edge.files.documents import to_json


def doctor(as_json: options.Json = False) -> None:
    """Report what this device has for running bundles, and how to get what it lacks."""
    from wise_edge.doctor import examine

    findings = examine()
    if as_json:
        typer.echo(to_json([asdict(finding) for finding in findings]))
        return
    from rich.table import Table
    from rich.text import Text

    from wise_edge.cli.output.tables import open_console

    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(Text(finding.name, "bold cyan"), Text(finding.text or "none"))
        if finding.advice:
            table.add_row("", Text(f"→ {finding.advice}", "yellow"))
    open_console().print(table)
