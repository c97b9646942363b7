"""`wise-edge train`: train a model from a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

LEAST_PYTHON = (3, 11)
"""TRL's; the core and the runtimes run on 3.10."""


def train(
    recipe: Annotated[str, typer.Option(help="Name of a recipe of this package, or a YAML file.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.", file_okay=False)],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")] = False,
) -> None:
    """Train a policy or a SAM from a recipe: supervised (sft), WISE's reinforcement learning (wise), or SAM (sam)."""
    from wise_edge.errors import DeviceError
    from wise_edge.training.common.config import load_recipe
    from wise_edge.training.sft.config import SftConfig
    from wise_edge.training.wise.config import WiseConfig

    if sys.version_info[:2] < LEAST_PYTHON:
        raise DeviceError("training needs Python 3.11 or later; run it with another interpreter")
    config = load_recipe(recipe, overrides)
    if isinstance(config, SftConfig):
        from wise_edge.training.sft.train import train_sft

        train_sft(config, out, resume)
    elif isinstance(config, WiseConfig):
        from wise_edge.training.wise.train import train_wise

        train_wise(config, out, resume)
    else:
        from wise_edge.training.sam.train import train_sam

        train_sam(config, out, resume)
