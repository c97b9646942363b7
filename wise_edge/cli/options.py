"""Options that several commands share, so that each means the same everywhere."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from wise_edge.errors import UsageError
from wise_edge.runtimes.backends import list_names

ASKED, MODEL, ANSWER, DEVICE, OUTPUT = "Input", "Model", "Answer", "Device", "Output"
"""Headings under which `--help` lists options; those of no heading come last, under "Options"."""


def option(metavar: str, text: str, *names: str, panel: str | None = None, **more: Any) -> Any:
    """Return an option with a value, named like its parameter.

    Args:
        metavar: what `--help` shows for the value.
        text: the line in `--help`.
        names: names of the option, if its parameter has another one.
        panel: heading in `--help`; one of the above, or one of the command's own.
        more: what Typer's `Option` accepts: `min` and `max` of numbers, which the help says; `envvar`, which makes it a
            setting, see `wise_edge.cli.common.settings`.
    """
    least, most = more.get("min"), more.get("max")
    if most is not None:
        text = f"{text.removesuffix('.')} ({least or 0:,} to {most:,})."
    return typer.Option(*names, metavar=metavar, help=text, callback=_check_finite, rich_help_panel=panel, **more)


def kinds_to_save(kinds: Sequence[str]) -> Any:
    """Return the option that chooses among the kinds of files that go into `OutFolder`."""
    listed = ", ".join(kinds)
    text = f"What to write into --out: {listed}; overlay by default. coco is one file for all pictures."
    return option("KIND,...", text, panel=OUTPUT)


def flag(name: str, text: str, *names: str, panel: str | None = None) -> Any:
    """Return an option without a value: a name, or two with a slash between them ("--verify/--no-verify"), and more."""
    return typer.Option(name, *names, help=text, rich_help_panel=panel)


def _check_finite(parameter: typer.CallbackParam, value: Any) -> Any:
    """Reject NaN, which is in every range, and infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{parameter.opts[0]} is {value}; pass a finite number")
    return value


def split_names(option: str, what: str, text: str, known: Sequence[str] | None = None) -> list[str]:
    """Return the names of a list that an option accepts, without the spaces around them.

    Args:
        option: the option, for messages.
        what: what it names, for messages.
        text: the names, separated by commas.
        known: the names to choose from; None if the caller checks them.

    Raises:
        UsageError: a name is empty, unknown or repeated.
    """
    names = [name.strip() for name in text.split(",")]
    for place, name in enumerate(names):
        if not name or (known is not None and name not in known):
            wrong = f"unknown {what} '{name}'" if name else f"{option} has an empty name"
            raise UsageError(f"{wrong}; choose one of {', '.join(known)}" if known else f"{wrong}; remove it")
        if name in names[:place]:
            raise UsageError(f"{option} names {name} twice; remove one")
    return names


def refuse_options(context: typer.Context, *, but: Sequence[str] = (), command: str = "") -> None:
    """Raise `UsageError` if options were given that the command will ignore.

    Args:
        context: the command's.
        but: parameters that it reads; by default none, as if a subcommand runs instead.
        command: what ignores them, for the message; by default the subcommand.
    """
    for option in context.command.params:
        name = option.name or ""
        if name in but or getattr(context.get_parameter_source(name), "name", "") != "COMMANDLINE":
            continue  # a default from the environment or a file is for other commands
        given = option.secondary_opts if context.params.get(name) is False else option.opts
        command = command or f"{context.info_name} {context.invoked_subcommand}"
        raise UsageError(f"'{command}' does not accept {given[0]}; remove it")


def say(line: str, *, err: bool = False) -> None:
    """Print a line; above a bar if one is drawn, since rich replaces `sys.stdout` meanwhile, which typer goes round."""
    typer.echo(line, file=sys.stderr if err else sys.stdout)


def note(line: str) -> None:
    """Say on stderr what a user should know about a result; the command goes on."""
    say(f"note: {line}", err=True)


Bundle = Annotated[
    Path | None,
    option(
        "DIR",
        "Bundle to run, DIR or DIR@sha256:HASH; the embedded one by default.",
        panel=MODEL,
        envvar="WISE_EDGE_BUNDLE",
    ),
]
Variant = Annotated[
    str | None,
    option(
        "NAME",
        "Prompt variant, such as verbose, wise-s or answer; the bundle's default if omitted.",
        panel=MODEL,
        envvar="WISE_EDGE_VARIANT",
    ),
]
Pixels = Annotated[
    int | None,
    option(
        "N",
        "Most pixels of an image as the policy sees it; fewer is faster.",
        panel=MODEL,
        envvar="WISE_EDGE_PIXELS",
        min=1,
        max=25_000_000,  # as the largest image that is read has
    ),
]
Memory = Annotated[
    bool,
    flag(
        "--memory",
        "Follow with the segmenter's memory, which knows an object again after it was hidden.",
        panel=ANSWER,
    ),
]
MaxObjects = Annotated[
    int,
    option(
        "N",
        "Find at most N objects, if the policy answers with a list.",
        panel=ANSWER,
        envvar="WISE_EDGE_MAX_OBJECTS",
        min=1,
        max=1000,
    ),
]
PolicyBackend = Annotated[
    str,
    option("NAME", f"Backend of the policy: {list_names('policy')}.", panel=MODEL, envvar="WISE_EDGE_POLICY_BACKEND"),
]
MaskBackend = Annotated[
    str,
    option("NAME", f"Backend of the segmenter: {list_names('mask')}.", panel=MODEL, envvar="WISE_EDGE_MASK_BACKEND"),
]
Threads = Annotated[
    int | None,
    option(
        "N", "CPU threads; the runtime chooses by default.", panel=MODEL, envvar="WISE_EDGE_THREADS", min=1, max=1024
    ),
]
Json = Annotated[bool, flag("--json", "Print one JSON document instead of text.", panel=OUTPUT)]
OutFolder = Annotated[
    Path | None,
    option("DIR", "Write files for each picture into this folder, named after it.", panel=OUTPUT),
]
Force = Annotated[bool, flag("--force", "Replace output files that exist.", panel=OUTPUT)]
Rerun = Annotated[
    str | None,
    option("FILE|connect", "Also log to the Rerun viewer: to a .rrd file, or to a running viewer.", panel=OUTPUT),
]
