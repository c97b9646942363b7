"""`wise-edge build`: the engines of a bundle, built on the device that runs them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wise_edge.cli import options
from wise_edge.cli.options import option
from wise_edge.files.documents import to_json


def build(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle exported with --target tensorrt.")],
    device: Annotated[
        str | None, option("NAME,...", "GPUs to build for; if omitted, those of the export that can be built here.")
    ] = None,
    as_json: options.Json = False,
    force: Annotated[bool, options.flag("--force", "Rebuild engines that are up to date.")] = False,
) -> None:
    """Build the engines of a bundle that are missing or outdated; an interrupted build resumes."""
    from wise_edge.cli.output.progress import ProgressLine
    from wise_edge.export.to_tensorrt.bundle import build_engines

    with ProgressLine() as progress:
        result = build_engines(bundle, progress, devices=device, force=force)
    if as_json:
        typer.echo(to_json(asdict(result)))
        return
    for verb, roles in (("built", result.built), ("kept", result.kept)):
        for role in roles:
            typer.echo(f"{verb:6} {role}")
    typer.echo(f"bundle.json sha256:{result.sha256}")
    if result.left:
        typer.echo(
            f"engines for {', '.join(result.left)} are built on the device: copy {bundle} there and build again",
            err=True,
        )
