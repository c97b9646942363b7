"""`wise-edge doctor`: what this device has and lacks for running bundles."""

from __future__ import annotations

import json

import typer

from wise_edge.cli import options


def doctor(as_json: options.Json = False) -> None:
    """Report what this device has for running bundles, and how to get what it lacks."""
    from wise_edge.doctor import examine, to_json

    findings = examine()
    if as_json:
        typer.echo(json.dumps(to_json(findings)))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for finding in findings:
        table.add_row(Text(finding.name, "bold cyan"), Text(finding.text or "none"))
        if finding.advice:
            table.add_row("", Text(f"→ {finding.advice}", "yellow"))
    Console().print(table)
