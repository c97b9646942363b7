"""Every `wise-edge` command that the README and the documents show parses."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from locations import ROOT
from wise_edge.cli.main import app

COMMAND = typer.main.get_command(app)


def _commands(path: Path) -> list[str]:
    """Return the lines of console and bash blocks that call wise-edge, with continued lines joined."""
    blocks = re.findall(r"^```(?:console|bash)\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.removeprefix("$ ").startswith("wise-edge ")]


def _parse(line: str) -> None:
    """Parse a command line as the entry point would, without running the command.

    Raises:
        Exception: of Typer, when an option, an argument or a command is unknown, missing or of the wrong type.
    """
    words = shlex.split(line, comments=True)
    words = words[1 : next((i for i, word in enumerate(words) if word in ("|", ">", "2>", "&&", ";")), None)]
    try:
        with COMMAND.make_context("wise-edge", words) as context:
            command = COMMAND.get_command(context, words[0])
            assert command, f"No such command: {words[0]}"
            with command.make_context(words[0], words[1:], parent=context):
                pass
    except typer.Exit:  # --help and --version
        pass


SHOWN = [
    (path.name, line) for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))) for line in _commands(path)
]


def test_the_readme_shows_commands() -> None:
    assert [line for name, line in SHOWN if name == "README.md"]


@pytest.mark.parametrize(("document", "line"), SHOWN)
def test_a_shown_command_parses(document: str, line: str) -> None:
    _parse(line)


@pytest.mark.parametrize("line", ["wise-edge runs", "wise-edge run --no-such-option", "wise-edge run"])
def test_a_wrong_command_would_be_noticed(line: str) -> None:
    with pytest.raises(Exception, match=r"No such|Missing"):
        _parse(line)
