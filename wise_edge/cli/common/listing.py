"""`--list`: the names that the options of a command take, for every command that has such options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from wise_edge.cli.common.help import lay_out
from wise_edge.cli.common.names import Names, takes_names
from wise_edge.cli.common.settings import Words

LIST = "--list"
LIST_HELP = "List the names that options take, and exit; also with --json."


def wants_list(command: Any, words: Words, arguments: Sequence[str]) -> bool:
    """Return whether the arguments of a command ask for the list, and the command has one.

    It is asked for in place of what the command needs otherwise, so this is seen before arguments are parsed.
    """
    own = list(arguments)
    for place, argument in enumerate(own):
        if argument == "--" or argument in getattr(command, "commands", {}):
            own = own[:place]
            break
    return LIST in own and takes_names(words, command)


def print_list(listed: Mapping[str, Names], *, as_json: bool) -> None:
    """Print names with their descriptions, by the option or argument that takes them."""
    if as_json:
        from wise_edge.files.documents import to_json

        typer.echo(to_json(listed))
        return
    for number, (label, names) in enumerate(listed.items()):
        typer.echo(f"{chr(10) * bool(number)}{label}")
        for line in lay_out(list(names.items()), 0):
            typer.echo(line)
