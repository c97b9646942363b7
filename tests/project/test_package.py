"""The layout: what pip installs is what is on disk, folders stay small, and the stages stay apart."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

import wise_edge
from locations import ROOT

STAGES = ("export", "runtimes", "training")
TOPS = ("wise_edge", *STAGES, "tests", "benchmarks", "examples", "scripts")
MAX_PYTHON_FILES = 20
"""In one folder: more of them are no longer one subject."""
MAX_ROOT_FILES = 12
"""At the root of `wise_edge/`, which holds what all of its folders share."""
KNOWS_ALL_STAGES = (
    "wise_edge/__init__.py",  # imports its public names when they are used
    "wise_edge/cli/",
    "wise_edge/doctor.py",  # lists the backends
    "wise_edge/evaluation/",
    "wise_edge/outputs/",  # of results
    "wise_edge/planning/",
    "wise_edge/profiling/",
    "wise_edge/robot/",
    "wise_edge/service/",
    "wise_edge/video/",
)
PYPROJECT = (ROOT / "pyproject.toml").read_text()


def _list(pattern: str) -> list[str]:
    """Return the strings of the first TOML list that follows a pattern (Python 3.10 has no tomllib)."""
    found = re.search(pattern + r"\s*=\s*\[(.*?)\]", PYPROJECT, re.DOTALL)
    assert found, pattern
    return re.findall(r'"([^"]+)"', found[1])


def _folder(package: str) -> Path:
    """Return the real folder of a package: that of `wise_edge.export` is `export/`."""
    parts = package.split(".")
    return ROOT.joinpath(*(parts[1:] if parts[1:2] and parts[1] in STAGES else parts))


def _is_real(path: Path) -> bool:
    """Whether no part of a path is a link, as `wise_edge/export` is."""
    return path.resolve() == path.absolute()


def _sources() -> Iterator[tuple[str, ast.Module]]:
    for top in ("wise_edge", *STAGES):
        for path in sorted((ROOT / top).rglob("*.py")):
            if _is_real(path):
                yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def _imports(tree: ast.Module) -> Iterator[str]:
    """Yield the full names of all imports of a module, `from a import b` as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: absolute imports only"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


SOURCES = dict(_sources())


def test_no_folder_holds_more_files_than_a_reader_can_survey() -> None:
    files = [path for top in TOPS for path in (ROOT / top).rglob("*.py") if _is_real(path)]
    counts = Counter(path.parent.relative_to(ROOT).as_posix() for path in files)
    assert {"wise_edge", "tests/project", "benchmarks"} <= set(counts)
    assert {folder: count for folder, count in counts.items() if count > MAX_PYTHON_FILES} == {}


def test_the_root_of_the_package_holds_only_what_its_folders_share() -> None:
    files = [path.name for path in (ROOT / "wise_edge").iterdir() if path.is_file() and not path.is_symlink()]
    assert len(files) <= MAX_ROOT_FILES, files


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
            if path.is_file() and _is_real(path) and "__pycache__" not in path.parts:
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
