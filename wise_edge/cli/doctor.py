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
    from rich.text import Text

    from wise_edge.cli.output.tables import open_console, show_facts

    facts: list[tuple[str | Text, str | Text]] = []
    for finding in findings:
        facts.append((Text(finding.name, "bold cyan"), finding.text or "none"))
        if finding.advice:
            facts.append(("", Text(f"→ {finding.advice}", "yellow")))
    show_facts(open_console(), facts)
