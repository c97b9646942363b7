"""The help of every command that there is or will be: both names, readable at every width, values that say what."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from wise_edge.cli import main as entry
from wise_edge.cli.common.tree import Tree

COMMANDS = Tree(entry.app).commands
PATHS = [pytest.param(path, id=" ".join(path) or "wise-edge") for path in COMMANDS]
VAGUE = {"TEXT", "INTEGER", "FLOAT", "PATH", "BOOLEAN", "FILENAME", "DIRECTORY", "NAMES", "STRING"}
"""Metavars that say the type and not the thing."""
MOST_UNGROUPED = 10


def _options(command: Any) -> list[Any]:
    return [param for param in command.params if param.param_type_name == "option"]


def _help(path: tuple[str, ...], capsys: pytest.CaptureFixture[str], name: str = "--help") -> str:
    assert entry.main([*path, name]) == 0
    return str(capsys.readouterr().out)


@pytest.mark.parametrize("path", PATHS)
def test_both_names_of_help_answer(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    said = _help(path, capsys)
    assert said.startswith(f"Usage: {' '.join(['wise-edge', *path])} ")
    assert _help(path, capsys, "-h") == said


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 140])
@pytest.mark.parametrize("path", PATHS)
def test_help_fits_the_terminal(
    path: tuple[str, ...], columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = _help(path, capsys).splitlines()
    assert [line for line in lines if len(line) > columns and " " in line.strip()] == []  # a long name is not broken
    assert "…" not in {line[-1:] for line in lines}  # nothing is cut


@pytest.mark.parametrize("path", PATHS)
def test_text_fills_its_lines(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line break of the source is none of the help: each line of a paragraph ends where the next word has no room."""
    monkeypatch.setenv("COLUMNS", "80")
    described = _help(path, capsys).split("\n\n")
    for paragraph in described[1:]:
        lines = paragraph.splitlines()
        if not lines[0].endswith(":"):
            for line, following in pairwise(lines):
                assert len(line) + 1 + len(following.split()[0]) > 80, line


@pytest.mark.parametrize("path", PATHS)
def test_every_parameter_says_what_it_is(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    assert command.help
    for param in command.params:
        assert param.help, param.name
        if param.param_type_name == "argument" or not param.is_flag:
            assert param.metavar and param.metavar not in VAGUE and "<" not in param.metavar, param.name


@pytest.mark.parametrize("path", PATHS)
def test_many_options_are_grouped(path: tuple[str, ...]) -> None:
    options = _options(COMMANDS[path])
    loose = [param.name for param in options if not param.rich_help_panel]
    assert len(options) <= MOST_UNGROUPED or len(loose) < len(options) / 2, loose


@pytest.mark.parametrize("path", PATHS)
def test_names_in_brackets_are_no_markup(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    command = COMMANDS[path]
    said = " ".join(_help(path, capsys).split())
    for param in command.params:
        assert " ".join(param.help.split()) in said


def test_choices_and_defaults_are_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    said = _help(("export",), capsys)
    assert "--quant TYPE" in said and "Q4_K_M" in said and "[default: F16]" in said
    assert "--verify / --no-verify" in said and "[default: --verify]" in said
    assert "(1 to 1,024)" in _help(("profile",), capsys)


def test_color_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert "\x1b[" in _help((), capsys)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in _help((), capsys)
