"""The page on families of policies says what the code does."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from locations import ROOT
from wise_edge.export.targets import TARGETS
from wise_edge.policy.families import FAMILIES
from wise_edge.runtimes.backends import BACKENDS


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("families_page", ROOT / "scripts" / "families_page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_code(script: ModuleType) -> None:
    page = script.PAGE.read_text(encoding="utf-8")
    assert script.fill(page) == page, "run: python scripts/families_page.py"


def test_a_change_of_the_code_changes_the_page(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    page = script.PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(type(TARGETS[0]), "families", FAMILIES[:1])
    assert script.fill(page) != page


def test_every_family_and_every_backend_is_on_the_page(script: ModuleType) -> None:
    table = script.render_families()
    assert all(f"`{family}`" in table for family in FAMILIES)
    assert all(backend.name in table for backend in BACKENDS if "policy" in backend.parts)
