"""What commands print in terminals of any width, and into pipes: no figure is cut, wrapped away or left out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from locations import ROOT
from profile_documents import make_document
from wise_edge.cli import main as entry
from wise_edge.cli.demo import Case, Outcome, Way
from wise_edge.cli.demo import _table as demo_table
from wise_edge.cli.evaluation.compare import _print as print_comparison
from wise_edge.cli.output.evaluation import print_report
from wise_edge.cli.output.plan import print_plan
from wise_edge.cli.output.profile import print_profile
from wise_edge.cli.output.result import result_table
from wise_edge.cli.output.tables import open_console, show
from wise_edge.cli.profile_compare import _print as print_profiles
from wise_edge.cli.setup import _print_plan
from wise_edge.doctor import examine
from wise_edge.errors import MissingExtraError
from wise_edge.evaluation.records import LABELS
from wise_edge.images import load_image
from wise_edge.profiling.comparison import compare_profiles
from wise_edge.runtimes.results import SegmentationResult
from wise_edge.runtimes.session import Session
from wise_edge.training.recipe import load_recipe

WIDTHS = (40, 60, 80, 200)
COMMAND = "same as"
"""Begins a line with a command, which is not broken."""


@pytest.fixture(scope="module")
def result() -> SegmentationResult:
    return Session.from_bundle().segment(load_image(ROOT / "docs" / "scene.png"), "the small dotted object")


def _report() -> dict[str, Any]:
    """A report of an evaluation with many kinds of query, each figure another one."""
    numbers = iter(range(100, 10_000))

    def figures() -> dict[str, Any]:
        found = {name: next(numbers) / (1 if "tokens" in name else 1000) for name in LABELS}
        total = {"p50": 10_000.0 + next(numbers), "p90": 20_000.0 + next(numbers)}
        intervals: dict[str, Any] = {name: (value * 0.9, value * 1.1) for name, value in found.items()}
        intervals["latency_ms"] = {"total": {name: (value * 0.9, value * 1.1) for name, value in total.items()}}
        return {**found, "samples": next(numbers), "latency_ms": {"total": total}, "intervals": intervals}

    kinds = {name: figures() for name in ("attribute", "comparison", "position", "relation", "reasoning", "none")}
    setup = {"dataset": "scenes", "split": "test", "variant": "wise-s", "pixels": 705_600, "metric_mode": "lisa"}
    return {**figures(), **setup, "by_kind": kinds, "problems": [], "empty_masks": 0}


def _command(*words: str) -> Callable[[], object]:
    return lambda: entry.main([*words])


def _comparison() -> Mapping[str, Mapping[str, Any]]:
    return {name: {"a": 0.123, "b": 0.456, "difference": 0.333, "interval": (0.2, 0.4)} for name in LABELS}


PRINTED = {
    "profile": lambda: print_profile(make_document(), details=True),
    "profile compare": lambda: print_profiles(compare_profiles(make_document(), make_document(ciou=0.7)), []),
    "profile plan": _command("profile", "plan"),
    "evaluate": lambda: print_report(_report(), False),
    "evaluate compare": lambda: print_comparison(_comparison(), {"mean": _comparison()["giou"]}),
    "bundle show": _command("bundle", "show"),
    "config show": _command("config", "show"),
}


def _check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, print_it: Callable[[], object]) -> None:
    """Compare what is printed at each width with what a pipe gets: every word with a digit is in all of them."""
    monkeypatch.delenv("COLUMNS", raising=False)
    print_it()
    piped = capsys.readouterr().out
    figures = [word for word in piped.split() if any(map(str.isdigit, word))]
    assert len(figures) > 5
    for width in WIDTHS:
        monkeypatch.setenv("COLUMNS", str(width))
        print_it()
        said = capsys.readouterr().out
        assert "…" not in said, width
        joined = "".join(said.split())
        assert [word for word in figures if word not in joined] == [], width
        lines = said.splitlines()
        assert [line for line in lines if line.endswith(" ")] == []
        wide = [line for line in lines if len(line) > width and not line.startswith(COMMAND)]
        assert wide == [], width


@pytest.mark.parametrize("name", PRINTED)
def test_no_figure_is_cut(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _check(capsys, monkeypatch, PRINTED[name])


def test_a_result_is_whole(
    result: SegmentationResult, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def print_it() -> None:
        console = open_console()
        console.print(result_table(result, console, energy=True, explain=True))

    _check(capsys, monkeypatch, print_it)


def test_a_demo_is_whole(
    result: SegmentationResult, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case("scene-00", np.zeros((4, 4, 3), np.uint8), result.query, None)
    rows = [[Outcome(case, Way(label, None, "wise-s"), result, 0.75) for label in ("start", "trained")]] * 3  # type: ignore[arg-type]
    _check(capsys, monkeypatch, lambda: show(open_console(), demo_table(rows)))


def test_doctor_is_whole(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    findings = examine()  # once, for free memory differs from one to the next
    monkeypatch.setattr("wise_edge.doctor.examine", lambda: findings)
    _check(capsys, monkeypatch, _command("doctor"))


def test_the_plan_of_a_setup_is_whole(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    planning = pytest.importorskip("wise_edge.planning.setup", exc_type=MissingExtraError)
    planned = planning.plan_setup("embedded", "embedded", planning.Wishes("cpu"))
    _check(capsys, monkeypatch, lambda: _print_plan(planned, stderr=False))


@pytest.mark.parametrize("recipe", ["embedded-sam", "wise-embedded"])
def test_the_plan_of_a_training_is_whole(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl", reason="needs the extra 'train'")
    from wise_edge.training.plan.make import make_plan

    made = make_plan(load_recipe(recipe), tmp_path / "run", resume=False)
    disk = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)
    _check(capsys, monkeypatch, lambda: print_plan(made))


def test_a_pipe_gets_one_line_for_each_row(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    table = Table("name", "value")
    table.add_row("word " * 100, "12.3 s")
    console = open_console()
    show(console, table)
    console.print("[x]", markup=False)
    lines = capsys.readouterr().out.splitlines()
    assert "12.3 s" in next(line for line in lines if "word" in line)
    assert lines[-1] == "[x]"


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    print_report(_report(), False)
    assert "\x1b[" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    print_report(_report(), False)
    colored = [
        code for code in capsys.readouterr().out.split("\x1b[")[1:] if code[:2] in {"30", "31", "32", "35", "36"}
    ]
    assert colored == []


def test_what_fits_stays_a_table() -> None:
    console = Console(width=80, record=True)
    table = Table("name", "value")
    table.add_row("one", "12.3 s")
    show(console, table)
    assert "┃" in console.export_text()
