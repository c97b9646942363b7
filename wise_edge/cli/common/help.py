"""`--help` as plain text in the terminal's width: options in groups, each with what it takes, its text and its default.

Typer's own help puts five columns into boxes, which leaves a third of 80 columns to the text.
"""

from __future__ import annotations

import inspect
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

import typer

NARROW, WIDEST = 70, 110
"""Columns below which the text of an option starts on a line of its own, and above which lines get no longer."""
_LEAST = 30
_GAP = 2
_UNBROKEN = "\N{NO-BREAK SPACE}"
_SHORT_FACT = 30
_OPTIONS = "Options"


def write_usage(command: Any, context: Any, formatter: Any) -> None:
    """Write the line of what a command takes: `Usage: wise-edge run [OPTIONS] IMAGE QUERY`."""
    pieces = ["[OPTIONS]"]
    for parameter in command.get_params(context):
        if parameter.param_type_name == "argument":
            name = _argument(parameter)
            pieces.append(name if parameter.required or name.startswith("[") else f"[{name}]")
    if hasattr(command, "commands"):
        pieces.append("COMMAND" if not command.invoke_without_command else "[COMMAND]")
    line = f"Usage: {context.command_path} {' '.join(pieces)}"
    formatter.write("\n".join(_wrap(line, _width(), "       ")) + "\n")


def write_help(command: Any, context: Any, formatter: Any, more: Sequence[tuple[str, str]] = ()) -> None:
    """Write the whole help of a command into a formatter of click's.

    Args:
        command: the command.
        context: click's.
        formatter: click's.
        more: names and texts of options that the command has besides its own.
    """
    write_usage(command, context, formatter)
    for paragraph in _paragraphs(command.help or ""):
        formatter.write("\n" + "\n".join(_wrap(paragraph, _width())) + "\n")
    sections = _sections(command, context, more)
    first = min(max(len(label) for rows in sections.values() for label, _ in rows) + 2 + _GAP, _width() // 3)
    for title, rows in sections.items():
        formatter.write(f"\n{_style(title, bold=True)}:\n")
        for line in lay_out(rows, first if title != "Commands" else 0):
            formatter.write(f"{line}\n")
    for paragraph in _paragraphs(command.epilog or ""):
        formatter.write("\n" + "\n".join(_wrap(paragraph, _width())) + "\n")


def summarize(text: str | None) -> str:
    """Return the first paragraph of a help text as one line."""
    return (_paragraphs(text or "") or [""])[0]


def _width() -> int:
    return max(_LEAST, min(WIDEST, shutil.get_terminal_size().columns))


def _style(text: str, **how: Any) -> str:
    """Style a text if stdout is a terminal that shows it; https://no-color.org."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
    return text if plain else typer.style(text, **how)


def _paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a docstring, each as one line."""
    return [" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n") if paragraph.strip()]


def _sections(command: Any, context: Any, more: Sequence[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    """Return the groups of rows: arguments, options by their panels, and commands."""
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": []}
    for parameter in command.get_params(context):
        if getattr(parameter, "hidden", False):
            continue
        argument = parameter.param_type_name == "argument"
        title = "Arguments" if argument else getattr(parameter, "rich_help_panel", None) or _OPTIONS
        row = (_argument(parameter) if argument else option_label(parameter), _describe(parameter, context))
        sections.setdefault(title, []).append(row)
    sections[_OPTIONS] = [*more, *sections.pop(_OPTIONS, [])]  # what belongs to no group comes last
    sections["Commands"] = [
        (name, summarize(subcommand.help))
        for name, subcommand in getattr(command, "commands", {}).items()
        if not subcommand.hidden
    ]
    return {title: rows for title, rows in sections.items() if rows}


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.nargs == 1 or "..." in name else f"{name}..."


def option_label(parameter: Any) -> str:
    """Return an option as it is written: `-h, --help`, `--bundle DIR`, `--verify / --no-verify`."""
    names = ", ".join(sorted(parameter.opts, key=len))
    if parameter.secondary_opts:
        return f"{names} / {', '.join(parameter.secondary_opts)}"
    return f"{names} {parameter.metavar}" if parameter.metavar and not parameter.is_flag else names


def _describe(parameter: Any, context: Any) -> str:
    """Return the text of a parameter, with what it is by default and which variable sets that."""
    option = parameter.param_type_name == "option"
    facts = ["required"] if parameter.required and option else []  # the usage shows it of arguments
    default = parameter.get_default(context, call=False)
    if isinstance(parameter.show_default, str):
        facts.append(f"default: {parameter.show_default}")
    elif default not in (None, "", (), []) and parameter.show_default and not parameter.required:
        if option and parameter.is_flag:
            names = parameter.opts if default else parameter.secondary_opts
            facts += [f"default: {names[0]}"] if parameter.secondary_opts else []
        else:
            told = " by wise-edge.toml" if parameter.name in (context.default_map or ()) else ""
            facts.append(f"default{told}: {default}")
    facts += [f"env: {parameter.envvar}"] if parameter.envvar else []
    text = " ".join((parameter.help or "").split())
    facts = [fact.replace(" ", _UNBROKEN) if len(fact) <= _SHORT_FACT else fact for fact in facts]
    return f"{text} [{'; '.join(facts)}]" if facts else text


def lay_out(rows: Sequence[tuple[str, str]], first: int) -> Iterator[str]:
    """Yield the lines of a table of two columns; where it is narrow, texts go below what they describe.

    Args:
        rows: label and text of each.
        first: width of the first column; 0 fits it to the labels.
    """
    width = _width()
    stacked = width < NARROW
    first = 6 if stacked else first or max(len(label) for label, _ in rows) + 2 + _GAP
    for label, text in rows:
        lines = _wrap(text, width - first) or [""]
        shown = f"  {_style(label, fg='cyan')}"
        below = stacked or len(label) + 2 + _GAP > first
        yield shown if below else f"{shown}{' ' * (first - len(label) - 2)}{lines[0]}".rstrip()
        yield from (f"{' ' * first}{line}".rstrip() for line in lines[0 if below else 1 :])


def _wrap(text: str, width: int, indent: str = "") -> list[str]:
    """Break a text between words, since a name that is broken cannot be copied, and never in a short fact."""
    lines = wrap(text, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)
    return [line.replace(_UNBROKEN, " ") for line in lines]
