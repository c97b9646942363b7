"""The tree of all commands as click runs it, and what each of them gets: its help, and defaults of known origin."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import typer

from wise_edge.cli.common.help import write_help, write_usage
from wise_edge.cli.common.listing import LIST, LIST_HELP, print_list, wants_list
from wise_edge.cli.common.names import Place, list_names, takes_names
from wise_edge.cli.common.settings import Defaults, Words, settings_of
from wise_edge.cli.common.suggestions import suggest_command, suggest_option

GIVES_WAY_TO: Mapping[str, tuple[str, ...]] = {
    "bundle": ("policy", "sam"),
    "variant": ("deadline_ms", "oracle_prompt"),
    "pixels": ("oracle_prompt",),
}
"""Parameter to those that exclude it: a default gives way to one of them on the command line."""


def walk(command: Any, words: Words = ()) -> dict[Words, Any]:
    """Return a command and all below it, by the words that call them."""
    found = {words: command}
    for name, subcommand in getattr(command, "commands", {}).items():
        found |= walk(subcommand, (*words, name))
    return found


class Tree:
    """All commands of an application.

    Attributes:
        root: the command to call, with `default_map`.
        commands: all commands, by the words that call them.
        defaults: what the files say; to be set before `root` is called.
        in_effect: lines about the defaults of the command that runs which are not its own.
    """

    def __init__(self, app: typer.Typer) -> None:
        self.root: Any = typer.main.get_command(app)
        self.commands = walk(self.root)
        self.defaults = Defaults()
        self.in_effect: list[str] = []
        for words, command in self.commands.items():
            more = [(LIST, LIST_HELP)] if takes_names(words, command) else []
            command.format_help = partial(write_help, command, more=more)
            command.format_usage = partial(write_usage, command)
            command.make_context = partial(self._make_context, command.make_context, command, words)
            if hasattr(command, "commands"):
                command.resolve_command = partial(_resolve, command.resolve_command, command)
            command.invoke = partial(self._invoke, command.invoke, command, words)

    def origin(self, words: Words, parameter: Any, context: Any) -> str | None:
        """Return the variable or the file and line that a value comes from; None if neither gave it."""
        source = getattr(context.get_parameter_source(parameter.name), "name", "")
        if source == "ENVIRONMENT":
            return str(parameter.envvar)
        return self.defaults.found[words, parameter.name].origin if source == "DEFAULT_MAP" else None

    def _make_context(
        self, original: Callable[..., Any], command: Any, words: Words, name: str, arguments: list[str], **more: Any
    ) -> Any:
        """Parse the arguments of a command, or answer `--list`; if a default is wrong, say where it is from."""
        if wants_list(command, words, arguments):
            chosen = self.defaults.found.get((words, "bundle"))
            bundle = _after("--bundle", arguments) or os.environ.get("WISE_EDGE_BUNDLE")
            place = Place(bundle or (chosen.value if chosen else None))
            print_list(list_names(words, command, place), as_json="--json" in arguments)
            raise typer.Exit
        try:
            return original(name, arguments, **more)
        except Exception as error:
            if hasattr(error, "possibilities") and hasattr(error, "message"):  # there is no such option
                advice = suggest_option(command, getattr(error, "option_name", ""))
                error.possibilities, error.message = None, f"{error.message}; {advice}".removesuffix("; ")
            parameter, context = getattr(error, "param", None), getattr(error, "ctx", None)
            if parameter is not None and context is not None and hasattr(error, "message"):
                default = self.defaults.found.get((words, parameter.name))
                if default and self.origin(words, parameter, context) == default.origin:  # click names variables
                    error.message += f" (from {default.origin})"
            raise

    def _invoke(self, original: Callable[..., Any], command: Any, words: Words, context: Any) -> Any:
        """Run a command with its defaults, except those that an option on the command line excludes."""
        for key, parameter in settings_of(command).items():
            origin = self.origin(words, parameter, context)
            if origin is None:
                continue
            if any(_is_given(context, other) for other in GIVES_WAY_TO.get(parameter.name, ())):
                context.params[parameter.name] = parameter.default
                continue
            self.in_effect.append(f"--{key} {context.params[parameter.name]} (from {origin})")
            default = self.defaults.found.get((words, parameter.name))
            if key == "bundle" and default and default.of_project and origin == default.origin:
                typer.echo(f"note: the bundle is {default.value}, as set by {origin}", err=True)
        return original(context)


def _resolve(original: Callable[..., Any], group: Any, context: Any, words: list[str]) -> Any:
    """Find a group's command that words call, or say what was meant."""
    if words[0] not in group.commands and (advice := suggest_command(group, context.command_path, words)):
        context.fail(f"No such command '{words[0]}'; {advice}")
    return original(context, words)


def _after(option: str, arguments: list[str]) -> str | None:
    """Return the value of an option among arguments that are not parsed."""
    for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
        if argument == option:
            return following
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
    return None


def _is_given(context: Any, name: str) -> bool:
    """Return whether an option is on the command line."""
    return getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
