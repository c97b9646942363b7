"""`wise-edge export`: two checkpoints in, one verified bundle out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wise_edge.cli.options import JsonOption

if TYPE_CHECKING:
    from wise_edge.manifest import Manifest


def export(
    policy: Annotated[str, typer.Option(metavar="CKPT", help="Hugging Face folder of the policy, or 'embedded'.")],
    sam: Annotated[str, typer.Option(metavar="CKPT", help="Checkpoint folder of the segmenter, or 'embedded'.")],
    out: Annotated[Path, typer.Option(metavar="BUNDLE", help="Folder of the bundle to make.")],
    target: Annotated[str, typer.Option(metavar="NAME", help="What to export to: onnx.")] = "onnx",
    as_json: JsonOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
) -> None:
    """Export a policy and a segmenter, compare every graph with torch, and write a bundle if all agree."""
    from wise_edge.errors import UsageError
    from wise_edge.export.pipeline import TARGETS, export_bundle

    if target not in TARGETS:
        raise UsageError(f"unknown target '{target}'; choose {', '.join(TARGETS)}")
    manifest = export_bundle(policy, sam, out, force=force, progress=_say)
    if as_json:
        typer.echo(json.dumps(manifest.to_dict()))
    else:
        _print(manifest, out)


def _say(step: str) -> None:
    typer.echo(f"{step} ...", err=True)


def _print(manifest: Manifest, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from wise_edge.export.verify import describe_bound

    files = Table("artefact", "file", "weights", "kB", title=f"bundle {out}", title_justify="left")
    files.columns[3].justify = "right"
    for artefact in manifest.artefacts:
        cells = (artefact.role, artefact.path, artefact.precision or "-", f"{artefact.bytes / 1000:.0f}")
        files.add_row(*(Text(cell) for cell in cells))
    checks = Table("compared with torch", "value", "bound", title_justify="left")
    for figure in manifest.verification:
        checks.add_row(Text(figure.what), f"{figure.value:.3g}", describe_bound(figure))
    console = Console()
    console.print(files)
    console.print(checks)
