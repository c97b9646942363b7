"""`wise-edge config`: the settings in effect, and where each comes from."""

from __future__ import annotations

from typing import Any

import typer

from wise_edge.cli import options
from wise_edge.cli.common.settings import read_defaults, settings_of, unknown_variables
from wise_edge.cli.common.tree import walk
from wise_edge.files.documents import to_json

app = typer.Typer(help="Show where the defaults of options come from.", no_args_is_help=True)


@app.callback()
def _group() -> None:  # keeps `show` a word of its own while it is the only one
    pass


@app.command()
def show(context: typer.Context, as_json: options.Json = False) -> None:
    """List all settings with their values and origins: a variable, a line of a wise-edge.toml, or the program.

    A setting that differs between commands is listed for each of them.
    """
    commands = walk(context.find_root().command)
    defaults = read_defaults(commands)
    found: list[dict[str, Any]] = []
    for words, command in commands.items():
        for key, parameter in settings_of(command).items():
            file = defaults.found.get((words, parameter.name))
            value = parameter.value_from_envvar(context)
            origin = f"${parameter.envvar}" if value is not None else file.origin if file else None
            value = value if value is not None else file.value if file else parameter.default
            found.append({"command": " ".join(words), "setting": key, "value": value, "origin": origin})
    settings = _merge(found)
    wrong = unknown_variables(commands)
    if as_json:
        files = [str(path) for path in defaults.files]
        typer.echo(to_json({"files": files, "settings": settings, "notes": [*defaults.notes, *wrong]}))
        return
    typer.echo(f"files: {', '.join(map(str, defaults.files)) or 'none'}")
    width = max(len(_label(each)) for each in settings)
    for each in settings:
        value = "-" if each["value"] is None else str(each["value"])
        origin = f"  ({each['origin']})" if each["origin"] else ""
        typer.echo(f"{_label(each):{width}}  {value}{origin}")
    for line in wrong:
        options.note(line)


def _label(setting: dict[str, Any]) -> str:
    return f"{setting['command']} {setting['setting']}" if setting["command"] else str(setting["setting"])


def _merge(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry without a command for what is the same in all commands."""
    merged: list[dict[str, Any]] = []
    for name in sorted({each["setting"] for each in found}):
        same = [each for each in found if each["setting"] == name]
        alike = all(each["value"] == same[0]["value"] and each["origin"] == same[0]["origin"] for each in same)
        merged += [same[0] | {"command": None}] if alike else same
    return merged
