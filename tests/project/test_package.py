"""The package as it is laid out: what pip installs is what lies on disk, and the stages stay apart."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

import wise_edge
from locations import ROOT

STAGES = ("export", "runtimes", "training")
KNOWS_ALL_STAGES = (
    "wise_edge/__init__.py",  # imports its public names when they are used
    "wise_edge/cli/",
    "wise_edge/doctor.py",  # lists the backends
    "wise_edge/evaluation/",
    "wise_edge/profiling/",
    "wise_edge/robot/",
    "wise_edge/service/",
)
PYPROJECT = (ROOT / "pyproject.toml").read_text()


def _list(pattern: str) -> list[str]:
    """Return the strings of the first TOML list that follows a pattern (Python 3.10 has no tomllib)."""
    found = re.search(pattern + r"\s*=\s*\[(.*?)\]", PYPROJECT, re.DOTALL)
    assert found, pattern
    return re.findall(r'"([^"]+)"', found[1])


def _folder(package: str) -> Path:
    """Return the real folder of a package: `wise_edge.export` lies in `export/`."""
    parts = package.split(".")
    return ROOT.joinpath(*(parts[1:] if parts[1:2] and parts[1] in STAGES else parts))


def _sources() -> Iterator[tuple[str, ast.Module]]:
    for top in ("wise_edge", *STAGES):
        for path in sorted((ROOT / top).rglob("*.py")):
            if not path.parent.is_symlink() and path.resolve() == path.absolute():
                yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def _imports(tree: ast.Module) -> Iterator[str]:
    """Yield the full names that a module imports anywhere, `from a import b` as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: absolute imports only"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


SOURCES = dict(_sources())


def test_every_folder_with_python_files_is_a_listed_package() -> None:
    on_disk = {str(PurePosixPath(name).parent).replace("/", ".") for name in SOURCES}
    on_disk = {name if name.startswith("wise_edge") else f"wise_edge.{name}" for name in on_disk}
    assert set(_list(r"\[tool\.setuptools\]\npackages")) == on_disk


def test_every_listed_package_has_an_init_file() -> None:
    for package in _list(r"\[tool\.setuptools\]\npackages"):
        assert (_folder(package) / "__init__.py").is_file(), package


def test_stage_folders_are_mapped_and_linked() -> None:
    for stage in STAGES:
        assert f'"wise_edge.{stage}" = "{stage}"' in PYPROJECT
        link = ROOT / "wise_edge" / stage
        assert link.is_symlink()
        assert link.readlink() == Path("..") / stage


def test_every_data_file_is_packaged() -> None:
    data = {
        "wise_edge": _list(r'\[tool\.setuptools\.package-data\]\n"wise_edge"'),
        "training": _list(r'"wise_edge\.training"'),
        "export": [],
        "runtimes": [],
    }
    for top, patterns in data.items():
        packaged = {path for pattern in patterns for path in (ROOT / top).glob(pattern)}
        for path in (ROOT / top).rglob("*"):
            if path.is_file() and path.resolve() == path.absolute() and "__pycache__" not in path.parts:
                assert path.suffix == ".py" or path in packaged, path


def test_version_is_a_release_number() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", wise_edge.__version__)


@pytest.mark.parametrize("name", SOURCES)
def test_no_file_hides_a_package(name: str) -> None:
    assert PurePosixPath(name).name not in ("onnx.py", "tensorrt.py", "torch.py")


@pytest.mark.parametrize("name", [name for name in SOURCES if name.split("/")[0] in STAGES])
def test_a_stage_imports_no_other_stage(name: str) -> None:
    own = name.split("/")[0]
    others = tuple(f"wise_edge.{stage}" for stage in STAGES if stage != own)
    assert [line for line in _imports(SOURCES[name]) if line.startswith((*others, "wise_edge.cli"))] == []


@pytest.mark.parametrize(
    "name", [name for name in SOURCES if name.startswith("wise_edge/") and not name.startswith(KNOWS_ALL_STAGES)]
)
def test_the_core_imports_no_stage(name: str) -> None:
    stages = tuple(f"wise_edge.{stage}" for stage in STAGES)
    assert [line for line in _imports(SOURCES[name]) if line.startswith(stages)] == []
