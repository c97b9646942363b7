"""Benchmarks take minutes to hours, so tests do not run them; here, every name that they import still exists."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from locations import ROOT, SUPPORT

BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))
OURS = {"wise_edge", *(file.stem for file in SUPPORT.rglob("*.py"))}


def _imported(source: str) -> Iterator[tuple[str, str]]:
    """Yield module and name of every import of ours, including those in programs that the source holds as text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in OURS:
            yield from ((node.module, alias.name) for alias in node.names)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\nfrom wise_edge." in node.value:
            yield from _imported(node.value)


@cache
def _defined(module: str) -> set[str]:
    """Return the names that a module assigns, defines, imports or contains, without running it."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None, f"there is no module {module}"
    names = {path.stem for folder in spec.submodule_search_locations or () for path in Path(folder).iterdir()}
    for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda path: path.stem)
def test_what_a_benchmark_imports_exists(benchmark: Path) -> None:
    for module, name in _imported(benchmark.read_text(encoding="utf-8")):
        assert name in _defined(module), f"{module} has no {name}"


def test_a_missing_name_would_be_noticed() -> None:
    source = (
        'RUN = """\nfrom wise_edge.mapping import build_config\n"""\nfrom wise_edge.files.writing import atomic_write\n'
    )
    assert sorted(_imported(source)) == [
        ("wise_edge.files.writing", "atomic_write"),
        ("wise_edge.mapping", "build_config"),
    ]
    assert "atomic_write" in _defined("wise_edge.files.writing")
    assert "build_config" not in _defined("wise_edge.mapping")
