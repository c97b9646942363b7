"""`wise-edge train`: train a model from a recipe."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from wise_edge.cli import options
from wise_edge.cli.options import option


def train(
    recipe: Annotated[str, option("NAME|FILE", "Name of a recipe of this package, or a YAML file.")],
    out: Annotated[
        Path | None, option("DIR", "Folder of the run; a --dry-run takes runs/RECIPE without it.", file_okay=False)
    ] = None,
    overrides: Annotated[
        list[str] | None, option("KEY=VALUE", "Override a key of the recipe; repeatable.", "--set")
    ] = None,
    resume: Annotated[bool, options.flag("--resume", "Continue from the newest checkpoint in --out.")] = False,
    accept_changes: Annotated[
        bool,
        options.flag("--accept-changes", "With --resume: continue even if the recipe or its inputs changed."),
    ] = False,
    dry_run: Annotated[
        bool,
        options.flag("--dry-run", "Check recipe, model and data, and say what the training will take; train nothing."),
    ] = False,
) -> None:
    """Train from a recipe: a policy (stages sft, supervised, and wise, reinforcement learning) or a segmenter.

    A segmenter is trained on drawn scenes (stage sam) or learns from a larger one on pictures without labels (distill).
    """
    from wise_edge.extras import check_python

    check_python("train")
    from wise_edge.errors import UsageError
    from wise_edge.training.recipe import load_recipe, train_function

    if accept_changes and not resume:
        raise UsageError("--accept-changes needs --resume; a new run has nothing to accept")
    if out is None and not dry_run:
        raise UsageError(f"pass the folder of the run, such as --out {quote(f'runs/{Path(recipe).stem}')}")
    out = out or Path("runs", Path(recipe).stem)
    config = load_recipe(recipe, overrides)
    if dry_run:
        from wise_edge.cli.output.plan import print_plan
        from wise_edge.training.plan.make import make_plan

        print_plan(make_plan(config, out, resume))
        return
    model = train_function(config)(config, out, resume, accept_changes)
    if model is not None:
        typer.echo(f"done: the trained {model.name} is in {model}; {_next_step(config.stage, model)}", err=True)


def _next_step(stage: str, model: Path) -> str:
    option, other = ("--sam", "--policy POLICY") if stage in ("sam", "distill") else ("--policy", "--sam SAM")
    return f"next: wise-edge export {option} {model} {other} --target gguf --out bundle"
