"""Figures of queries that mean several objects or none, by gRefCOCO's definition."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import dataset_files
import fake_session
from wise_edge.cli.main import main
from wise_edge.datasets import Dataset, Example, open_dataset
from wise_edge.evaluation.compare import compare_runs
from wise_edge.evaluation.evaluate import score_mask, summarize
from wise_edge.evaluation.record_log import read_log, write_log
from wise_edge.evaluation.records import MaskRecord, Record, Settings
from wise_edge.geometry import Box, scale_box
from wise_edge.metrics import METRIC_MODES, measure_overlap
from wise_edge.policy.answers.answer import Answer, format_answer, object_in_frame
from wise_edge.policy.answers.form import BOX_POINT_LIST
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.rle import compressed_runs
from wise_edge.runtimes.base import MaskOutput, MaskPrompt

SETTINGS = Settings("grefcoco", "val", 6, "gres", "predicted", "wise-s", "0" * 64, {"policy": "fake", "mask": "fake"})
COUNTING = {"n_acc", "t_acc", "count_accuracy"}


def _strip(pixels: int) -> npt.NDArray[np.bool_]:
    return np.arange(100)[None] < pixels


def _record(index: int, truth_px: int, found_px: int | None, meant: int, found: int | None) -> Record:
    """Return the record of a truth and a prediction that both begin at the left edge; None is unreadable."""
    prediction = None if found_px is None else _strip(found_px)
    kind = "none" if meant == 0 else "one" if meant == 1 else "several"
    return Record(
        index, f"{index}-0", kind, "query", **asdict(measure_overlap(prediction, _strip(truth_px), None, "gres")),
        score=0.9 if found else None, latency_ms={"total": 1.0}, mask=None, meant=meant, found=found,
        answer_valid=found_px is not None, box_iou=0.0, rationale_tokens=0, answer_tokens=0, text="",
    )  # fmt: skip


RECORDS = [
    _record(0, 0, 0, 0, 0),  # rightly nothing
    _record(1, 0, 20, 0, 1),  # something where nothing is
    _record(2, 0, None, 0, None),  # unreadable
    _record(3, 40, 30, 2, 2),
    _record(4, 50, 0, 1, 0),  # wrongly nothing
    _record(5, 60, None, 3, None),  # unreadable
]


def test_figures_of_known_records() -> None:
    report = summarize(RECORDS)
    assert report["giou"] == pytest.approx((1 + 0 + 0 + 0.75 + 0 + 0) / 6)
    assert report["ciou"] == pytest.approx(30 / (0 + 20 + 0 + 40 + 50 + 60))
    assert report["n_acc"] == pytest.approx(1 / 3)
    assert report["t_acc"] == pytest.approx(1 / 3)
    assert report["count_accuracy"] == pytest.approx(2 / 6)
    for name in COUNTING:
        low, high = report["intervals"][name]
        assert low <= report[name] <= high
    none, several = report["by_kind"]["none"], report["by_kind"]["several"]
    assert (none["n_acc"], none["t_acc"], none["intervals"]["t_acc"]) == (pytest.approx(1 / 3), None, None)
    assert (several["n_acc"], several["t_acc"], several["count_accuracy"]) == (None, 0.5, 0.5)
    assert report["by_kind"]["one"]["t_acc"] == 0.0


def test_the_figures_are_those_of_the_published_evaluation() -> None:
    """https://github.com/henghuiding/ReLA, gres_model/evaluation/refer_evaluation.py, in words of our own."""
    generator = np.random.default_rng(7)
    records, ious, inner, outer = [], [], 0, 0
    right = {True: [0, 0], False: [0, 0]}  # whether there is a target -> right samples, samples
    for index in range(60):
        truth_px, found_px = (int(n) * (n > 30) for n in generator.integers(0, 100, 2))
        records.append(_record(index, truth_px, found_px, int(truth_px > 0), int(found_px > 0)))
        target, found = truth_px > 0, found_px > 0
        right[target][0] += target == found
        right[target][1] += 1
        both, either = min(truth_px, found_px), max(truth_px, found_px)
        if target:
            ious.append(both / either)
            inner, outer = inner + both, outer + either
        else:
            ious.append(0.0 if found else 1.0)
            outer += either
    report = summarize(records)
    assert report["giou"] == pytest.approx(sum(ious) / 60)
    assert report["ciou"] == pytest.approx(inner / outer)
    assert report["t_acc"] == pytest.approx(right[True][0] / right[True][1])
    assert report["n_acc"] == pytest.approx(right[False][0] / right[False][1])
    assert 0.0 < report["n_acc"] < 1.0 and 0.0 < report["t_acc"] < 1.0


def test_queries_of_one_object_have_no_such_figures() -> None:
    report = summarize([_record(index, 40, 30, 1, 1) for index in range(3)])
    assert COUNTING.isdisjoint(report)
    assert COUNTING.isdisjoint(report["intervals"])


def test_runs_are_compared_where_both_count(tmp_path: Path) -> None:
    better = [_record(1, 0, 0, 0, 0), *RECORDS[2:], RECORDS[0]]
    found = compare_runs((SETTINGS, RECORDS), (SETTINGS, better))
    assert found["n_acc"]["difference"] == pytest.approx(1 / 3)
    assert found["t_acc"]["difference"] == 0.0
    write_log(tmp_path / "a.jsonl", SETTINGS, RECORDS)
    assert read_log(tmp_path / "a.jsonl") == (SETTINGS, RECORDS)
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    (tmp_path / "old.jsonl").write_text("\n".join([lines[0], *map(_without_counts, lines[1:])]) + "\n")
    settings, old = read_log(tmp_path / "old.jsonl")
    assert COUNTING.isdisjoint(compare_runs((SETTINGS, RECORDS), (settings, old))), "an earlier version wrote it"


def _without_counts(line: str) -> str:
    return json.dumps({key: value for key, value in json.loads(line).items() if key not in ("meant", "found")})


class _Listening(fake_session.FakeMask):
    """A segmenter that fills the box and keeps its prompts."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: list[MaskPrompt] = []

    def decode(self, encoded: fake_session.FakeImage, prompt: MaskPrompt) -> MaskOutput:
        self.prompts.append(prompt)
        return super().decode(encoded, prompt)


def _grefcoco(folder: Path) -> Dataset:
    pytest.importorskip("pycocotools", reason="needs the extra 'data'")
    dataset_files.write_grefcoco(folder, 6)
    return open_dataset("grefcoco", folder, "val")


def _filled(boxes: Sequence[Box], example: Example) -> npt.NDArray[np.bool_]:
    mask = np.zeros(example.image.shape[:2], np.bool_)
    for x1, y1, x2, y2 in boxes:
        mask[y1:y2, x1:x2] = True
    return mask


def test_each_true_object_prompts_the_segmenter(tmp_path: Path) -> None:
    data = _grefcoco(tmp_path)
    for index in range(3):
        backend, example = _Listening(), data[index]
        record = score_mask(index, example, backend, "gres")
        boxes = [item.box for item in example.objects or ()]
        assert [prompt.box for prompt in backend.prompts] == boxes
        assert record.meant == len(boxes)
        assert example.mask is not None
        filled = _filled(boxes, example)
        assert (record.intersection_px, record.union_px) == (
            int((filled & example.mask).sum()),
            int((filled | example.mask).sum()),
        )
        assert record.latency_ms["mask_decode"] == 4.0 * len(boxes)
    assert type(record) is MaskRecord


@pytest.mark.parametrize("mode", METRIC_MODES)
def test_the_true_prompt_of_nothing(tmp_path: Path, mode: str) -> None:
    example = open_dataset("scenes-generalized", None, "test")[0]
    record = score_mask(0, example, _Listening(), mode)
    assert (record.meant, record.mask, record.score, record.union_px) == (0, None, None, 0)
    assert (record.iou, record.dropped) == ((0.0, "mask and truth are both empty") if mode == "paper" else (1.0, None))


def test_evaluating_lists(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Answers: rightly nothing, one, several; something where nothing is, unreadable, and one too few."""
    monkeypatch.chdir(tmp_path)
    data = _grefcoco(tmp_path)
    examples = [data[index] for index in range(6)]
    square = (fake_session.SQUARE, fake_session.SQUARE)

    def write(image: npt.NDArray[np.uint8], query: str, variant: str) -> str:
        place = next(place for place, each in enumerate(examples) if np.array_equal(each.image, image))
        if place == 4:
            return "I do not know."
        example = examples[1] if place == 3 else examples[place]
        meant = (example.objects or ())[: -1 if place == 5 else None]
        found = [object_in_frame(item.box, item.points[:1], (224, 224), AnswerFrame(square)) for item in meant[::-1]]
        return fake_session.completion(answer=format_answer(Answer(tuple(found)), BOX_POINT_LIST, AnswerFrame(square)))

    fake_session.install(monkeypatch, policy=fake_session.FakePolicy(write, form=BOX_POINT_LIST))
    arguments = ["evaluate", "--dataset", "grefcoco", "--data", str(tmp_path)]
    assert main([*arguments, "--json", "--out", "records.jsonl"]) == 0
    captured = capsys.readouterr()
    report: dict[str, Any] = json.loads(captured.out)
    records = [json.loads(line) for line in Path("records.jsonl").read_text().splitlines()[1:]]
    assert (report["split"], report["metric_mode"], report["samples"]) == ("val", "gres", 6)
    meant = [len(example.objects or ()) for example in examples]
    found = [0, 1, meant[2], 1, None, meant[5] - 1]
    assert [record["meant"] for record in records] == meant
    assert [record["found"] for record in records] == found
    assert [record["iou"] for record in records if not record["meant"]] == [1.0, 0.0]
    assert [record["mask"] is None for record in records] == [True, False, False, False, True, False]
    assert (report["empty_masks"], captured.err) == (0, ""), "the segmenter was not asked for nothing"
    assert (report["n_acc"], report["t_acc"], report["count_accuracy"]) == (0.5, 0.75, 0.5)
    assert set(report["by_kind"]) == {"none", "one", "several"}
    assert [report["by_kind"][kind]["box_accuracy"] for kind in ("none", "one", "several")] == [0.5, 0.5, 0.5]
    assert report["by_kind"]["none"]["t_acc"] is None
    for record, example in zip(records, examples, strict=True):
        if record["index"] in (1, 2):
            assert example.mask is not None
            boxes = [
                scale_box(scale_box(item.box, (224, 224), square), square, (224, 224)) for item in example.objects or ()
            ]
            filled = _filled(boxes, example)
            assert record["mask"] == compressed_runs(filled)
            assert record["intersection_px"] == int((filled & example.mask).sum())
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "counted as gRefCOCO does (gres)" in " ".join(out.split())
    assert "N-acc" in out and "T-acc" in out
