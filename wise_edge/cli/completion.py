"""`wise-edge completion`: the script with which a shell completes commands, options and their values."""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import Annotated

import typer

from wise_edge.cli.common.completion import SCRIPTS


def completion(
    shell: Annotated[
        str | None, typer.Argument(metavar="SHELL", help=f"{', '.join(SCRIPTS)}; the one of $SHELL if omitted.")
    ] = None,
) -> None:
    """Print the script that completes commands, options, variants, backends, devices, recipes and files.

    bash: wise-edge completion bash > ~/.local/share/bash-completion/completions/wise-edge

    zsh: wise-edge completion zsh > "${fpath[1]}/_wise-edge" (after compinit in ~/.zshrc)

    fish: wise-edge completion fish > ~/.config/fish/completions/wise-edge.fish

    For this shell alone: source <(wise-edge completion)
    """
    from wise_edge.errors import UsageError

    name = PurePath(os.environ.get("SHELL", "")).name if shell is None else shell
    if name not in SCRIPTS:
        raise UsageError(f"no completion for the shell '{name}'; choose one of {', '.join(SCRIPTS)}")
    typer.echo(SCRIPTS[name], nl=False)
