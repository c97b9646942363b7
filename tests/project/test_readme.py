"""What the README and the documents show works: commands parse, imports import, links of the README lead somewhere.

Links and anchors within `docs/` are checked by the strict build of the site, `make docs`.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer

import shown
from locations import ROOT
from wise_edge.cli.main import app
from wise_edge.policy.prompts import VARIANTS
from wise_edge.runtimes.backends import BACKENDS

COMMAND = typer.main.get_command(app)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
MOST_README_LINES = 180


def _imports(path: Path) -> list[tuple[str, str]]:
    """Return (module, name) of what Python blocks import from wise_edge."""
    nodes = [node for block in shown.blocks(path, "python") for node in ast.walk(ast.parse(block))]
    found = [
        (node.module or "", [alias.name for alias in node.names]) for node in nodes if isinstance(node, ast.ImportFrom)
    ]
    return [(module, name) for module, names in found if module.startswith("wise_edge") for name in names]


def _parse(line: str) -> None:
    """Parse a command line as the entry point would, without running the command.

    Raises:
        Exception: of Typer, if an option, an argument or a command is unknown, missing or of the wrong type.
    """
    words = shlex.split(line, comments=True)
    words = words[1 : next((i for i, word in enumerate(words) if word in ("|", ">", "2>", "&&", ";", "&")), None)]
    try:
        with COMMAND.make_context("wise-edge", words) as context:
            command = COMMAND.get_command(context, words[0])
            assert command, f"No such command: {words[0]}"
            with command.make_context(words[0], words[1:], parent=context):
                pass
    except typer.Exit:  # --help and --version
        pass


def _slug(heading: str) -> str:
    """Return the anchor that GitHub and the site make of a heading."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower())


def _dead_links(page: Path) -> list[str]:
    """Return the relative links of a page whose file or anchor does not exist."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if "://" in link:
            continue
        headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE) if anchor and target.is_file() else []
        if not target.exists() or (anchor and anchor not in map(_slug, headings)):
            dead.append(link)
    return dead


def _first_column(page: Path, header: str) -> list[str]:
    """Return the first words in backticks of each row of the table whose header row begins so."""
    _, _, table = page.read_text().partition(f"| {header} |")
    rows = [line for line in table.partition("\n\n")[0].splitlines() if line.startswith("| `")]
    return [row.split("`")[1] for row in rows]


SHOWN = [(path.name, line) for path in PAGES for line in shown.commands(path)]
IMPORTED = [(path.name, *names) for path in PAGES for names in _imports(path)]


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_README_LINES


def test_the_readme_shows_commands_and_imports() -> None:
    assert [line for name, line in SHOWN if name == "README.md"]
    assert [line for name, *line in IMPORTED if name == "README.md"]


@pytest.mark.parametrize(("document", "line"), SHOWN)
def test_a_shown_command_parses(document: str, line: str) -> None:
    _parse(line)


@pytest.mark.parametrize("line", ["wise-edge runs", "wise-edge run --no-such-option", "wise-edge run"])
def test_a_wrong_command_would_be_noticed(line: str) -> None:
    with pytest.raises(Exception, match=r"No such|Missing"):
        _parse(line)


def test_commands_behind_launchers_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n$ torchrun -m wise_edge train\n$ .venv/bin/wise-edge build \\\n  x\n$ make demo\n```\n"
    )
    assert shown.commands(page) == ["wise-edge train", "wise-edge build    x"]


@pytest.mark.parametrize(("document", "module", "name"), IMPORTED)
def test_a_shown_import_works(document: str, module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name: str) -> None:
    assert not _dead_links(ROOT / name)


def test_dead_links_and_anchors_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# What `x` is\n[a](#what-x-is) [b](#gone) [c](gone.md) [d](page.md#gone) [e](https://example.org)\n"
    )
    assert _dead_links(page) == ["#gone", "gone.md", "page.md#gone"]


@pytest.mark.parametrize(("document", "header"), [("README.md", "backend"), ("docs/extras.md", "backend")])
def test_the_backends_are_listed_in_their_order(document: str, header: str) -> None:
    assert _first_column(ROOT / document, header) == [backend.name for backend in BACKENDS]


@pytest.mark.parametrize(("document", "header"), [("README.md", "`--variant`"), ("docs/variants.md", "variant")])
def test_the_variants_are_listed(document: str, header: str) -> None:
    assert _first_column(ROOT / document, header) == list(VARIANTS)


def test_every_extra_is_listed() -> None:
    _, _, extras = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")
    declared = re.findall(r"^([a-z]+) = \[", extras.partition("\n[")[0], re.MULTILINE)
    assert sorted(_first_column(ROOT / "docs/extras.md", "extra")) == sorted(declared)
