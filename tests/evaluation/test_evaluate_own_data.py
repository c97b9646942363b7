"""`wise-edge evaluate` on one's own data, COCO JSON and tables, with figures worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fake_session
from dataset_files import image_bytes, polygons_of
from own_files import write_rows
from squares import format_answer, one_object
from wise_edge.cli.main import main

pytest.importorskip("pycocotools", reason="needs the extra 'data'")

SIDE = fake_session.SQUARE
ANSWERS = {"the mug": (10, 10, 30, 30), "the bowl": (50, 10, 70, 30), "the plate": (0, 0, 10, 10)}
"""Query to the box that the policy writes and the segmenter fills; of others it writes nothing that can be read."""


def _square(x1: int, y1: int, x2: int, y2: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y1:y2, x1:x2] = True
    return mask


TRUTHS = {
    "the mug": [_square(10, 10, 30, 30)],  # 400 of 400
    "the bowl": [_square(60, 10, 80, 30)],  # 200 of 600
    "both": [_square(10, 10, 30, 30), _square(60, 10, 80, 30)],  # unreadable: 0 of 800
}


@pytest.fixture(autouse=True)
def _data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Write the truths as a table and as COCO JSON into the current folder, and answer as `ANSWERS` says."""

    def write(image: Any, query: str, variant: str) -> str:
        box = ANSWERS.get(query)
        if box is None:
            return "I do not know."
        return fake_session.completion(answer=format_answer(one_object(box, ((box[0], box[1]), (box[0], box[1])))))

    fake_session.install(monkeypatch, write)
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(image_bytes(np.full((SIDE, SIDE, 3), 90, np.uint8), "PNG"))
    rows, annotations = [], []
    for query, masks in TRUTHS.items():
        for mask in masks:
            number = len(annotations)
            Path(f"{number}.png").write_bytes(image_bytes(mask, "PNG"))
            rows.append({"picture": "a.png", "mask": f"{number}.png", "sentence": query})
            annotations.append(
                {"id": number, "image_id": 1, "category_id": 1, "caption": query, "segmentation": polygons_of(mask)}
            )
    write_rows(Path("own.csv"), rows)
    image = {"id": 1, "file_name": "a.png", "width": SIDE, "height": SIDE}
    content = {"images": [image], "categories": [], "annotations": annotations}
    Path("own.json").write_text(json.dumps(content))


def _evaluate(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["evaluate", "--json", *arguments]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


OWN = (("coco", "own.json"), ("table", "own.csv"))


@pytest.mark.parametrize(("name", "file"), OWN)
def test_figures_by_hand(name: str, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = _evaluate(capsys, "--dataset", name, "--data", file)
    assert (report["dataset"], report["split"], report["samples"], report["metric_mode"]) == (name, "own", 3, "gres")
    assert report["giou"] == pytest.approx((1 + 200 / 600 + 0) / 3)
    assert report["ciou"] == pytest.approx((400 + 200 + 0) / (400 + 600 + 800))
    assert (report["valid_rate"], report["box_accuracy"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert report["count_accuracy"] == pytest.approx(2 / 3)
    assert {kind: figures["samples"] for kind, figures in report["by_kind"].items()} == {"one": 2, "several": 1}


@pytest.mark.parametrize(("name", "file"), OWN)
def test_the_suffix_tells_the_form(name: str, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _evaluate(capsys, "--data", file)["dataset"] == name


def test_an_unreadable_answer_is_not_right_where_nothing_is(capsys: pytest.CaptureFixture[str]) -> None:
    Path("none.png").write_bytes(image_bytes(_square(0, 0, 0, 0), "PNG"))
    write_rows(Path("none.csv"), [{"picture": "a.png", "mask": "none.png", "sentence": "the unicorn"}])
    arguments = ("--dataset", "table", "--data", "none.csv")
    assert _evaluate(capsys, *arguments)["giou"] == 0
    assert _evaluate(capsys, *arguments, "--metric-mode", "lisa")["giou"] == 1


@pytest.mark.parametrize(("name", "file"), OWN)
def test_a_run_is_resumed_on_the_same_data_alone(name: str, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--dataset", name, "--data", file, "--out", "records.jsonl", "--resume")
    whole = _evaluate(capsys, *arguments)
    lines = Path("records.jsonl").read_text().splitlines(keepends=True)
    Path("records.jsonl").write_text("".join(lines[:2]))
    assert _evaluate(capsys, *arguments)["giou"] == whole["giou"]
    Path("a.png").write_bytes(image_bytes(np.full((SIDE, SIDE, 3), 91, np.uint8), "PNG"))
    assert main(["evaluate", *arguments]) == 2
    assert "records.jsonl was made with other settings (data_sha256" in capsys.readouterr().err


def test_one_kind_of_query_has_no_second_column(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--dataset", "table", "--data", "own.csv", "--limit", "2"]) == 0
    out = capsys.readouterr().out
    assert "2 samples of table/own, variant wise-s, counted as gRefCOCO does (gres)" in out
    assert "several" not in out and " one" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "coco"], "--dataset coco needs --data FILE"),
        (["--dataset", "reasonseg"], "--dataset reasonseg needs --data DIR"),
        (
            ["--dataset", "coco", "--data", "own.json", "--split", "val"],
            "is one file without splits; remove --split",
        ),
        (["--dataset", "table", "--data", "own.csv", "--images", "."], "--images is of --dataset coco"),
        (
            ["--dataset", "coco", "--data", "own.json", "--out", "own.json", "--force"],
            "would replace what this command",
        ),
        (["--dataset", "coco", "--data", "own.json", "--out", "a.png", "--force"], "would replace what this command"),
        (["--dataset", "table", "--data", "own.csv", "--out", "0.png", "--force"], "would replace what this command"),
        (["--data", "."], "the name of . does not say what it holds; add --dataset NAME"),
        (["--dataset", "table", "--data", "gone.csv"], "gone.csv does not exist; pass the file of table with --data"),
    ],
)
def test_what_cannot_be_evaluated(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
