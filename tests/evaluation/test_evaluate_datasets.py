"""Evaluation on ReasonSeg's and RefCOCO's forms, made from scenes, with each quirk of the paper's figures pinned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import dataset_files
import fake_session
from squares import format_answer, one_object
from wise_edge.cli.main import main
from wise_edge.datasets import Dataset, Example, open_dataset
from wise_edge.geometry import Box, Point, scale_box, scale_point
from wise_edge.metrics import METRIC_MODES
from wise_edge.rle import compressed_runs
from wise_edge.runtimes.base import MaskOutput, MaskPrompt

pytest.importorskip("pyarrow")
pytest.importorskip("pycocotools")

SHAPE = (224, 224)
SQUARE = (fake_session.SQUARE, fake_session.SQUARE)
UNREADABLE = "I do not know."
WHOLE: Box = (0, 0, 224, 224)


def _answer_truly(monkeypatch: pytest.MonkeyPatch, dataset: Dataset, texts: Mapping[str, str] | None = None) -> None:
    """Let the policy give the true box of each example; `texts` are what it writes instead, by id."""
    examples = {example.image.tobytes(): example for example in (dataset[place] for place in range(len(dataset)))}

    def write(image: npt.NDArray[np.uint8], query: str, variant: str) -> str:
        example = examples[image.tobytes()]
        if texts and example.id in texts:
            return texts[example.id]
        points: tuple[Point, Point] = example.points or ((5, 5), (6, 6))
        first, second = (scale_point(point, SHAPE, SQUARE) for point in points)
        box = scale_box(example.box or WHOLE, SHAPE, SQUARE)
        return fake_session.completion(answer=format_answer(one_object(box, (first, second))))

    fake_session.install(monkeypatch, write)


def _evaluate(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run `evaluate`; return its report and its records."""
    out = Path("records.jsonl")
    assert main(["evaluate", *arguments, "--json", "--out", str(out), "--force"]) == 0
    return json.loads(capsys.readouterr().out), [json.loads(line) for line in out.read_text().splitlines()[1:]]


def _filled(example: Example) -> npt.NDArray[np.bool_]:
    """Return what the fake segmenter makes of the example's true box, which went through the answer's square."""
    x1, y1, x2, y2 = scale_box(scale_box(example.box or WHOLE, SHAPE, SQUARE), SQUARE, SHAPE)
    mask = np.zeros(SHAPE, bool)
    mask[y1:y2, x1:x2] = True
    return mask


@pytest.fixture(autouse=True)
def _fresh_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def reasonseg() -> Path:
    """Four scenes as ReasonSeg/test; the second has an ignored region over half of its target and some background."""
    dataset_files.write_reasonseg(Path("data/ReasonSeg/test"), 4)
    x1, y1, x2, y2 = open_dataset("scenes", None, "test")[1].box or WHOLE
    corners = [[max(0, x1 - 20), y1], [(x1 + x2) // 2, y1], [(x1 + x2) // 2, y2], [max(0, x1 - 20), y2]]
    _edit(1, lambda content: content["shapes"].append({"label": "ignore", "points": corners}))
    return Path("data")


def _edit(number: int, change: Any) -> None:
    path = Path(f"data/ReasonSeg/test/{number}.json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _empty(content: dict[str, Any]) -> None:
    for shape in content["shapes"]:
        shape["label"] = "flag"


def test_refcoco_gives_the_figures_of_its_scenes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    dataset_files.write_refcoco(tmp_path, 4)
    _answer_truly(monkeypatch, open_dataset("refcoco", tmp_path, "testA"))
    report, records = _evaluate(capsys, "--dataset", "refcoco", "--data", str(tmp_path))
    assert (report["dataset"], report["split"], report["samples"]) == ("refcoco", "testA", 8)  # two sentences a scene
    assert (report["by_kind"], report["dropped"], report["problems"]) == ({}, 0, [])
    assert len({record["id"] for record in records}) == 8

    scenes = open_dataset("scenes", None, "test")
    for place in range(4):
        filled, truth = _filled(scenes[place]), scenes[place].mask
        assert truth is not None
        for record in records[2 * place : 2 * place + 2]:
            assert record["intersection_px"] == int((filled & truth).sum())
            assert record["union_px"] == int((filled | truth).sum())
            assert record["mask"] == compressed_runs(filled)


@pytest.mark.parametrize("mode", METRIC_MODES)
def test_ignored_regions_are_left_out_or_count_as_target(
    mode: str, reasonseg: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = open_dataset("reasonseg", reasonseg, "test")
    _answer_truly(monkeypatch, dataset)
    report, records = _evaluate(capsys, "--dataset", "reasonseg", "--data", "data", "--metric-mode", mode)
    assert (report["metric_mode"], report["samples"], report["dropped"]) == (mode, 4, 0)
    example = dataset[1]
    assert example.mask is not None and example.ignore is not None
    assert (example.ignore & _filled(example)).sum() > 100
    if mode == "paper":
        prediction, truth = _filled(example), example.mask | example.ignore
    else:
        prediction, truth = _filled(example) & ~example.ignore, example.mask
    assert records[1]["intersection_px"] == int((prediction & truth).sum())
    assert records[1]["union_px"] == int((prediction | truth).sum())
    inner, outer = (sum(record[name] for record in records) for name in ("intersection_px", "union_px"))
    assert report["ciou"] == pytest.approx(inner / outer)
    assert report["giou"] == pytest.approx(np.mean([r["intersection_px"] / r["union_px"] for r in records]))
    assert set(report["by_kind"]) <= {"long", "short"}
    assert sum(figures["samples"] for figures in report["by_kind"].values()) == 4


@pytest.mark.parametrize("mode", METRIC_MODES)
def test_an_unreadable_answer_has_the_truth_as_union(
    mode: str, reasonseg: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = open_dataset("reasonseg", reasonseg, "test")
    _answer_truly(monkeypatch, dataset, {dataset.ids[1]: UNREADABLE})
    report, records = _evaluate(capsys, "--dataset", "reasonseg", "--data", "data", "--metric-mode", mode)
    example = dataset[1]
    assert example.mask is not None and example.ignore is not None
    truth = example.mask | example.ignore if mode == "paper" else example.mask
    found = (records[1]["intersection_px"], records[1]["union_px"], records[1]["iou"], records[1]["dropped"])
    assert found == (0, int(truth.sum()), 0.0, None)
    assert (report["samples"], report["valid_rate"]) == (4, 0.75)


@pytest.mark.parametrize(("mode", "iou"), [("lisa", 1.0), ("paper", 0.0)])
def test_nothing_found_where_nothing_is(
    mode: str, iou: float, reasonseg: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _edit(0, _empty)
    dataset = open_dataset("reasonseg", reasonseg, "test")
    _answer_truly(monkeypatch, dataset, {dataset.ids[0]: UNREADABLE})
    report, records = _evaluate(capsys, "--dataset", "reasonseg", "--data", "data", "--metric-mode", mode)
    found = (records[0]["intersection_px"], records[0]["union_px"], records[0]["iou"], records[0]["dropped"])
    assert found == (0, 0, iou, None)
    assert report["samples"] == 4


@pytest.mark.parametrize(("mode", "samples"), [("lisa", 4), ("paper", 3)])
def test_the_paper_drops_an_empty_mask_of_an_empty_truth(
    mode: str,
    samples: int,
    reasonseg: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _edit(0, _empty)
    dataset = open_dataset("reasonseg", reasonseg, "test")
    _answer_truly(monkeypatch, dataset)

    def decode(self: object, encoded: fake_session.FakeImage, prompt: MaskPrompt) -> MaskOutput:
        mask = np.zeros(SHAPE, bool)
        x1, y1, x2, y2 = prompt.box
        mask[y1:y2, x1:x2] = prompt.box != WHOLE  # the box of the empty truth
        return MaskOutput(mask, 0.9, np.zeros((4, 4), np.float32), 4.0)

    monkeypatch.setattr(fake_session.FakeMask, "decode", decode)
    report, records = _evaluate(capsys, "--dataset", "reasonseg", "--data", "data", "--metric-mode", mode)
    assert (report["samples"], report["dropped"]) == (samples, 4 - samples)
    if mode == "paper":
        assert report["problems"] == [f"{dataset.ids[0]}: mask and truth are both empty"]
        assert report["giou"] == pytest.approx(np.mean([record["iou"] for record in records[1:]]))
    else:
        assert records[0]["iou"] == 1.0


@pytest.mark.parametrize("mode", METRIC_MODES)
def test_a_truth_of_another_size_is_dropped_and_named(
    mode: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = dataset_files.mask_rows(3)
    _answer_by_table(monkeypatch, rows)
    rows[1]["mask"] = [row[:100] for row in rows[1]["mask"]]
    dataset_files.write_parquet(Path("data/ReasonSeg_test/data/test-00000-of-00001.parquet"), rows)
    report, records = _evaluate(capsys, "--dataset", "reasonseg", "--data", "data", "--metric-mode", mode)
    assert (report["samples"], report["dropped"]) == (2, 1)
    assert [record["dropped"] is None for record in records] == [True, False, True]
    assert report["problems"] == [f"image_1-1: {records[1]['dropped']}"]
    assert report["giou"] == pytest.approx((records[0]["iou"] + records[2]["iou"]) / 2)


def _answer_by_table(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]]) -> None:
    """Write the rows as they are, to read the true boxes from them."""
    dataset_files.write_parquet(Path("whole/test.parquet"), rows)
    _answer_truly(monkeypatch, open_dataset("reasonseg", Path("whole"), "test"))


def test_a_table_gives_the_figures_of_its_scenes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _answer_by_table(monkeypatch, dataset_files.mask_rows(4))
    table, _ = _evaluate(capsys, "--dataset", "reasonseg", "--data", "whole")
    scenes, _ = _evaluate(capsys, "--limit", "4")
    for name in ("giou", "ciou", "box_accuracy", "samples", "rationale_tokens_mean"):
        assert table[name] == scenes[name]
    assert table["by_kind"] == {}


def test_a_damaged_image_and_a_bad_row_are_named_once(
    reasonseg: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _edit(0, lambda content: content.update(text=[]))
    _answer_truly(monkeypatch, open_dataset("reasonseg", reasonseg, "test"))
    Path("data/ReasonSeg/test/2.jpg").write_bytes(b"\xff\xd8 torn")
    command = ["evaluate", "--dataset", "reasonseg", "--data", "data", "--out", "r.jsonl"]
    assert main([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert (report["samples"], report["dropped"]) == (2, 1)
    assert [line.partition(":")[0] for line in report["problems"]] == ["0", "2-0"]
    assert err.splitlines() == [f"left out: {line}" for line in report["problems"]]
    assert main([*command, "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report


def test_many_problems_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = dataset_files.mask_rows(8)
    _answer_by_table(monkeypatch, rows)
    for row in rows[1:]:
        row["text"] = ""
    dataset_files.write_parquet(Path("data/test.parquet"), rows)
    assert main(["evaluate", "--dataset", "reasonseg", "--data", "data"]) == 0
    out, err = capsys.readouterr()
    assert "1 samples of reasonseg/test" in out
    assert err.splitlines()[5:] == ["left out: 2 more; --json lists all of them"]


def test_the_oracle_prompt_skips_an_empty_truth(
    reasonseg: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _edit(0, _empty)
    fake_session.install(monkeypatch)
    _, records = _evaluate(capsys, "--dataset", "reasonseg", "--data", "data", "--oracle-prompt")
    assert records[0]["mask"] is None
    assert [record["iou"] == 1.0 for record in records] == [True, False, False, False]
