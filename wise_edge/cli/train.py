"""`wise-edge train`: train a model from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from wise_edge.cli import options
from wise_edge.cli.options import option


def train(
    recipe: Annotated[str, option("NAME|FILE", "Name of a recipe of this package, or a YAML file.")],
    out: Annotated[Path, option("DIR", "Folder of the run.", file_okay=False)],
    overrides: Annotated[
        list[str] | None, option("KEY=VALUE", "Override a key of the recipe; repeatable.", "--set")
    ] = None,
    resume: Annotated[bool, options.flag("--resume", "Continue from the newest checkpoint in --out.")] = False,
    accept_changes: Annotated[
        bool,
        options.flag("--accept-changes", "With --resume: continue although the recipe or its inputs changed."),
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
