"""What the container files name: versions, extras, files, and variables that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from wise_edge.cli.main import app
from wise_edge.cli.serve import TOKEN_VARIABLE

tomllib = pytest.importorskip("tomllib")
ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


class Composition(yaml.SafeLoader):
    """Compose's YAML, which can take back what another file says."""


Composition.add_constructor("!reset", lambda loader, node: None)


def instructions(file: Path) -> list[tuple[str, str]]:
    text = re.sub(r"(?m)^\s*#.*\n", "", file.read_text()).replace("\\\n", " ")
    return [(word, rest) for line in text.splitlines() if line for word, _, rest in [line.partition(" ")]]


def composition(name: str) -> Any:
    return yaml.load((ROOT / "docker" / name).read_text(), Composition)["services"]["serve"]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.stem)
def test_an_image_installs_what_the_project_asks_for(file: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = instructions(file)
    arguments = dict(rest.partition("=")[::2] for word, rest in lines if word == "ARG")
    assert [f"llama-cpp-python=={arguments['LLAMA_CPP_PYTHON']}"] == extras["llama"]
    (installed,) = re.findall(r"/src\[([a-z,]+)\]", file.read_text())
    assert set(installed.split(",")) <= set(extras)
    assert any(word == "USER" and rest != "root" for word, rest in lines)
    assert ("ENTRYPOINT", '["wise-edge"]') in lines


def test_a_build_is_given_what_an_installation_reads() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert kept == {"LICENSE", "README.md", "pyproject.toml", *setuptools["package-dir"].values()}


def test_the_composition_starts_the_service() -> None:
    service = composition("compose.yaml")
    assert TOKEN_VARIABLE in service["environment"]
    assert (ROOT / "docker" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    command, *given = service["command"]
    commands: Any = typer.main.get_command(app)
    known = {name for item in commands.commands[command].params for name in item.opts}
    assert {name for name in given if name.startswith("--")} <= known
    for jetpack in (6, 7):
        build = composition("compose.jetson.yaml")["build"]["dockerfile"]
        assert (ROOT / re.sub(r"\$\{JETPACK[^}]*\}", str(jetpack), build)).is_file()
