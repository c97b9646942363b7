"""Where the defaults of options come from: variables `WISE_EDGE_...`, and the files `wise-edge.toml`.

The command line comes first, then the environment, then the file of the project, then that of the user. A setting is an
option with a variable of its own (`wise_edge.cli.options`): which bundle answers, on what, and how a service listens.
What is read, what is written and what is replaced is never a setting, so no file can ask for that.

The file of a project may have come with it from a stranger. It is read if it belongs to this user (or root) and nobody
else may write it, as git does (https://git-scm.com/docs/git-config#Documentation/git-config.txt-safedirectory), its
bundle has to lie beside it, and it cannot open a service to the network.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError

PREFIX = "WISE_EDGE_"
FILE_NAME = "wise-edge.toml"
FILE_VARIABLE = f"{PREFIX}CONFIG"
NO_FILE = "none"
"""Value of WISE_EDGE_CONFIG with which no file is read."""
_OTHER_VARIABLES = (FILE_VARIABLE, f"{PREFIX}DEBUG", f"{PREFIX}TOKEN")
_OF_THE_USER = ("forwarded-allow-ips", "host", "port")
"""Settings that the file of a project may not have: whom a service listens to."""
_MOST_BYTES, _LONGEST_LINE = 100_000, 4096
"""tomllib keeps every prefix of a dotted key: 4 bytes for the square of its parts."""
Words = tuple[str, ...]
"""What calls a command: ("profile", "plan")."""


@dataclass(frozen=True)
class Default:
    """A default that a file gives.

    Attributes:
        value: as the command line would have it.
        origin: the file and line, for people.
        of_project: whether the file is a project's.
    """

    value: str
    origin: str
    of_project: bool


@dataclass
class Defaults:
    """What the files say.

    Attributes:
        files: those that were read.
        notes: lines about those that were not.
        found: command and name of its parameter to its default.
    """

    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    found: dict[tuple[Words, str], Default] = field(default_factory=dict)

    def as_map(self) -> dict[str, Any]:
        """Return the defaults as click's `default_map`: nested by the words that call a command."""
        nested: dict[str, Any] = {}
        for (words, name), default in self.found.items():
            place = nested
            for word in words:
                place = place.setdefault(word, {})
            place[name] = default.value
        return nested


def settings_of(command: Any) -> dict[str, Any]:
    """Return the settings among a command's options, by their keys in a file: `policy-backend`."""
    return {key_of(each): each for each in command.params if str(getattr(each, "envvar", None)).startswith(PREFIX)}


def key_of(parameter: Any) -> str:
    """Return the key of a setting in a file: its option without the dashes."""
    return str(max(parameter.opts, key=len)).removeprefix("--")


def read_defaults(commands: Mapping[Words, Any]) -> Defaults:
    """Read the files that apply here.

    Args:
        commands: all commands, by the words that call them.

    Raises:
        UsageError: a file cannot be read, or has a key that is no setting; the message names file and line.
    """
    defaults = Defaults()
    for path, of_project in _find_files(defaults.notes):
        defaults.files.append(path)
        for key, default in _Reader(path, of_project, commands).read():
            defaults.found.setdefault(key, default)  # the first file wins
    return defaults


def unknown_variables(commands: Mapping[Words, Any]) -> list[str]:
    """Return a line for each variable `WISE_EDGE_...` of the environment that means nothing."""
    known = {each.envvar for command in commands.values() for each in settings_of(command).values()}
    known.update(_OTHER_VARIABLES)
    wrong = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    return [f"{name} is not a known variable{_suggest(name, known)}" for name in wrong]


def user_file() -> Path | None:
    """Return where a user's own file lies; None for a user without a home."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        folder = Path(given) if os.path.isabs(given) else Path.home() / ".config"
    except RuntimeError:
        return None
    return folder / "wise-edge" / FILE_NAME


def _find_files(notes: list[str]) -> Iterator[tuple[Path, bool]]:
    """Yield the files to read, the most important first, and whether each is a project's."""
    named = os.environ.get(FILE_VARIABLE)
    if named:
        if named != NO_FILE:
            yield Path(named), False  # naming it is trusting it
        return
    own = user_file()
    if (project := _find_upward()) and not (own and own.exists() and project.samefile(own)):
        if reason := _distrust(project):
            notes.append(f"{project} is ignored: {reason}; if you trust it, set {FILE_VARIABLE}={project}")
        else:
            yield project, True
    if own and own.is_file():
        yield own, False


def _find_upward() -> Path | None:
    try:
        here = Path.cwd()
    except OSError:  # the folder was deleted
        return None
    return next((file for folder in (here, *here.parents) if os.path.lexists(file := folder / FILE_NAME)), None)


def _distrust(file: Path) -> str | None:
    """Return why a file of a project is not read; None if it is."""
    try:
        entries = [file.lstat(), file.stat()]  # of the link too, if it is one
    except OSError as error:
        return str(error.strerror)
    if any(entry.st_uid not in (os.geteuid(), 0) for entry in entries):
        return "it belongs to another user"
    return "anyone can write to it" if entries[1].st_mode & stat.S_IWOTH else None


def _parse(text: str, path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    if any(len(line) > _LONGEST_LINE for line in text.splitlines()):
        raise UsageError(f"{path} is not valid TOML: a line has more than {_LONGEST_LINE:,} characters")
    try:
        tables: dict[str, Any] = tomllib.loads(text)
        return tables
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error


class _Reader:
    """Reads one file into defaults of commands."""

    def __init__(self, path: Path, of_project: bool, commands: Mapping[Words, Any]) -> None:
        from wise_edge.files.documents import read_text

        text = read_text(path, _MOST_BYTES)
        self._path = path
        self._of_project = of_project
        self._commands = commands
        self._known = {key for command in commands.values() for key in settings_of(command)}
        self._tables = _parse(text, path)
        self._lines = text.splitlines()

    def read(self) -> Iterator[tuple[tuple[Words, str], Default]]:
        """Yield the defaults of the file, those of a command's own table before those of all commands."""
        general = {key: value for key, value in self._tables.items() if not isinstance(value, dict)}
        for key, value in self._tables.items():
            if isinstance(value, dict):
                yield from self._read_table((key,), value)
        for key, value in general.items():
            if key not in self._known:
                commands = {words[0] for words in self._commands if words}
                raise self._refuse((), key, f"unknown key '{key}'{_suggest(key, self._known | commands)}")
            default = self._default((), key, value)
            for words, command in self._commands.items():
                if parameter := settings_of(command).get(key):
                    yield (words, parameter.name), default

    def _read_table(self, words: Words, table: Mapping[str, Any]) -> Iterator[tuple[tuple[Words, str], Default]]:
        if words not in self._commands:
            siblings = {known[-1] for known in self._commands if known[:-1] == words[:-1] and known}
            raise self._refuse(words, "", f"unknown command [{'.'.join(words)}]{_suggest(words[-1], siblings)}")
        own = settings_of(self._commands[words])
        for key, value in table.items():
            if isinstance(value, dict):
                yield from self._read_table((*words, key), value)
            elif key not in own:
                known = f"; it has {', '.join(sorted(own))}" if own else "; it has no settings"
                hint = _suggest(key, own) or known
                raise self._refuse(words, key, f"'{key}' is not a setting of {' '.join(words)}{hint}")
            else:
                yield (words, own[key].name), self._default(words, key, value)

    def _default(self, words: Words, key: str, value: Any) -> Default:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self._refuse(words, key, f"'{key}' must be text or a number")
        if value == "":  # a bundle would be the file's own folder
            raise self._refuse(words, key, f"'{key}' is empty; leave it out")
        if self._of_project and key in _OF_THE_USER:
            place = user_file() or "your own file"
            raise self._refuse(
                words,
                key,
                f"a project may not set '{key}'; write it into {place}, or name this file in {FILE_VARIABLE}",
            )
        text = self._bundle(words, value) if key == "bundle" and isinstance(value, str) else str(value)
        return Default(text, f"{self._path}:{self._line(words, key)}", self._of_project)

    def _bundle(self, words: Words, value: str) -> str:
        """Return a bundle with its path as seen from the file."""
        from wise_edge.bundle.shipped import SHIPPED

        folder, pinned, sha256 = value.partition("@sha256:")
        if folder in SHIPPED:
            return value
        beside = self._path.parent.absolute()
        place = beside / Path(folder).expanduser()
        if self._of_project and not place.resolve().is_relative_to(beside.resolve()):
            raise self._refuse(
                words,
                "bundle",
                f"the bundle of a project must be next to {FILE_NAME}, and {folder} is not; pass "
                f"--bundle, or write it into {user_file() or 'your own file'}",
            )
        return f"{place}{pinned}{sha256}"

    def _refuse(self, words: Words, key: str, what: str) -> UsageError:
        return UsageError(f"{self._path}:{self._line(words, key)}: {what}")

    def _line(self, words: Words, key: str) -> int:
        """Return the number of the line that sets a key, or that begins a table for no key; 1 if it is not found."""
        table: Words = ()
        for number, line in enumerate(self._lines, 1):
            if heading := re.match(r"\s*\[+([^\]]+)\]", line):
                table = tuple(part.strip().strip("\"'") for part in heading[1].split("."))
                if table == words and not key:
                    return number
            elif key and table == words and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
                return number
        return 1


def _suggest(name: str, known: Any) -> str:
    import difflib

    close = difflib.get_close_matches(name[:100], sorted(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
