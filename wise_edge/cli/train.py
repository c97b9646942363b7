"""`wise-edge train`: train a model from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[str, typer.Option(help="Name of a recipe of this package, or a YAML file.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.", file_okay=False)],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the newest checkpoint in --out.")] = False,
    accept_changes: Annotated[
        bool,
        typer.Option("--accept-changes", help="With --resume: continue although the recipe or its inputs changed."),
    ] = False,
) -> None:
    """Train from a recipe: a policy (stage sft: supervised, wise: reinforcement learning) or a SAM (stage sam)."""
    from wise_edge.extras import check_python

    check_python("train")
    from wise_edge.errors import UsageError
    from wise_edge.training.recipe import load_recipe, train_function

    if accept_changes and not resume:
        raise UsageError("--accept-changes goes with --resume; a new run has no other recipe")
    config = load_recipe(recipe, overrides)
    train_function(config)(config, out, resume, accept_changes)
