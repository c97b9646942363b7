"""Options that several commands share, so that each means the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wise_edge.runtimes.backends import list_names

BundleOption = Annotated[
    Path | None,
    typer.Option("--bundle", metavar="DIR", help="Bundle to run; the embedded one by default."),
]
VariantOption = Annotated[
    str | None,
    typer.Option(
        "--variant",
        metavar="NAME",
        help="Prompt variant: verbose, wise, wise-infer, wise-s or answer; the bundle's default if omitted.",
    ),
]
PolicyBackendOption = Annotated[
    str,
    typer.Option(
        "--policy-backend",
        metavar="NAME",
        help=f"Runtime of the policy: {list_names('policy')}.",
    ),
]
MaskBackendOption = Annotated[
    str,
    typer.Option("--mask-backend", metavar="NAME", help=f"Runtime of the segmenter: {list_names('mask')}."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace output files that exist.")]
RerunOption = Annotated[
    str | None,
    typer.Option(
        "--rerun", metavar="FILE|connect", help="Also log to the Rerun viewer: to a .rrd file, or to a running viewer."
    ),
]
