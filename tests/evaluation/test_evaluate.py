from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest

import fake_session
from squares import format_answer, one_object
from wise_edge.bundle.store import resolve_checkpoint
from wise_edge.cli.main import main
from wise_edge.datasets import Dataset, Example, ExampleObject
from wise_edge.errors import UsageError
from wise_edge.evaluation.evaluate import evaluate_session, hash_models, summarize
from wise_edge.evaluation.records import MaskRecord, Record
from wise_edge.geometry import scale_box, scale_point
from wise_edge.metrics import mask_iou
from wise_edge.policy.checkpoint import read_policy_spec
from wise_edge.policy.spec import PolicySpec
from wise_edge.runtimes.base import Decoding
from wise_edge.runtimes.session import Session
from wise_edge.scenes import KINDS, sample

SAMPLES = [sample("test", index) for index in range(10)]
FIGURES = {"giou", "ciou", "box_accuracy", "valid_rate", "rationale_tokens_mean", "answer_tokens_mean"}


def _write_truth(image: npt.NDArray[np.uint8], query: str, variant: str) -> str:
    """Answer rightly, except for the last sample, of which it says nothing."""
    labeled = next(found for found in SAMPLES if np.array_equal(found.scene.image, image))
    if labeled is SAMPLES[-1]:
        return "I do not know."
    frames = ((224, 224), (fake_session.SQUARE, fake_session.SQUARE))
    first, second = (scale_point(point, *frames) for point in labeled.points)
    return fake_session.completion(answer=format_answer(one_object(scale_box(labeled.box, *frames), (first, second))))


def _record(index: int, intersection: int, union: int, total: float) -> Record:
    return Record(
        index, f"test-{index}", KINDS[index % 2], "query", intersection, union, intersection / union, None, 0.9,
        {"decode": total / 2, "total": total}, None,
        answer_valid=intersection > 0, box_iou=intersection / union, rationale_tokens=index, answer_tokens=49, text="",
    )  # fmt: skip


def test_figures_of_known_records() -> None:
    report = summarize([_record(0, 50, 100, 10.0), _record(1, 0, 300, 30.0), _record(2, 90, 100, 20.0)])
    assert report["samples"] == 3
    assert report["giou"] == pytest.approx((0.5 + 0.0 + 0.9) / 3)
    assert report["ciou"] == pytest.approx(140 / 500)
    assert report["box_accuracy"] == pytest.approx(1 / 3)  # an IoU of just 0.5 does not count
    assert report["valid_rate"] == pytest.approx(2 / 3)
    assert report["rationale_tokens_mean"] == 1.0
    assert report["latency_ms"]["total"]["p50"] == 20.0
    assert report["latency_ms"]["decode"]["p50"] == 10.0
    assert set(report["by_kind"]) == {KINDS[0], KINDS[1]}
    assert report["by_kind"][KINDS[0]]["samples"] == 2
    assert report["by_kind"][KINDS[1]]["giou"] == 0.0


def test_every_figure_lies_in_its_interval() -> None:
    generator = np.random.default_rng(3)
    report = summarize([_record(i, int(generator.integers(1, 100)), 100, float(generator.random())) for i in range(40)])
    intervals = report["intervals"]
    assert set(intervals) == FIGURES | {"latency_ms"}
    for name in FIGURES:
        low, high = intervals[name]
        assert low <= report[name] <= high
    for phase, quantiles in report["latency_ms"].items():
        for name, value in quantiles.items():
            low, high = intervals["latency_ms"][phase][name]
            assert low <= value <= high
    assert intervals["giou"][0] < intervals["giou"][1]


def test_the_same_records_give_the_same_intervals() -> None:
    records = [_record(i, i, 100, float(i)) for i in range(1, 20)]
    assert summarize(records) == summarize(records)


def test_records_of_masks_have_mask_figures_only() -> None:
    report = summarize([MaskRecord(0, "test-0", KINDS[0], "query", 9, 10, 0.9, None, 0.9, {"total": 1.0}, None)])
    assert report["giou"] == report["ciou"] == 0.9
    assert not {"box_accuracy", "valid_rate"} & set(report)


def test_json_of_a_run_over_scenes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake_session.install(monkeypatch, _write_truth)
    assert main(["evaluate", "--dataset", "scenes", "--split", "test", "--limit", "10", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    report = json.loads(out)
    assert {"dataset", "split", "variant", "prompt", "backends", "by_kind", "intervals", "latency_ms"} <= set(report)
    assert report["samples"] == 10
    assert report["variant"] == "wise-s"
    assert report["prompt"] == "predicted"
    assert report["box_accuracy"] == report["valid_rate"] == 0.9
    assert 0.2 < report["giou"] < 0.9  # the fake segmenter fills the box
    assert set(report["by_kind"]) == set(KINDS)
    assert report["by_kind"][SAMPLES[-1].query.kind]["valid_rate"] == 0.5


def test_an_unreadable_answer_counts_as_an_empty_mask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_session.install(monkeypatch, _write_truth)
    out = tmp_path / "records.jsonl"
    assert main(["evaluate", "--limit", "10", "--out", str(out)]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()[1:]]
    assert [record["index"] for record in records] == list(range(10))
    assert [record["id"] for record in records] == [f"test-{index}" for index in range(10)]
    last = records[-1]
    assert last["answer_valid"] is False
    assert last["intersection_px"] == 0
    assert last["union_px"] == int(SAMPLES[-1].mask.sum())
    assert last["box_iou"] == 0.0
    assert last["mask"] is None
    assert last["text"] == "I do not know."
    assert all(record["box_iou"] > 0.5 for record in records[:-1])


def test_the_table_fits_a_terminal_and_names_kinds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_session.install(monkeypatch, _write_truth)
    assert main(["evaluate", "--limit", "10", "--variant", "verbose"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "10 samples of scenes/test, variant verbose" in out
    for word in (*KINDS, "gIoU", "cIoU", "valid", "latency"):
        assert word in out
    assert max(len(line) for line in out.splitlines()) <= 80


def test_with_the_oracle_prompt_no_policy_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = fake_session.install(monkeypatch, _write_truth)
    assert main(["evaluate", "--oracle-prompt", "--limit", "5", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert opened.policy.encoded == 0
    assert report["prompt"] == "truth"
    assert report["variant"] is None
    assert set(report["backends"]) == {"mask"}
    filled = []
    for labeled in SAMPLES[:5]:
        mask = np.zeros_like(labeled.mask)
        x1, y1, x2, y2 = labeled.box
        mask[y1:y2, x1:x2] = True
        filled.append(mask_iou(mask, labeled.mask))
    assert report["giou"] == pytest.approx(np.mean(filled))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--dataset", "moon"], "unknown dataset 'moon'"),
        (["--split", "exam"], "unknown split 'exam'"),
        (["--limit", "0"], "--limit is 0"),
        (["--limit", "1000001"], "--limit is 1000001"),
        (["--oracle-prompt", "--variant", "wise"], "remove --variant"),
        (["--oracle-prompt", "--pixels", "7056"], "remove --pixels"),
        (["--policy", "embedded", "--sam", "embedded", "--pixels", "9"], "9 pixels hold no image token of 28 x 28"),
        (["--variant", "loud", "--limit", "1"], "unknown variant 'loud'"),
        (["--metric-mode", "mine"], "unknown metric mode 'mine'; choose lisa or paper"),
        (["--dataset", "reasonseg", "--data", "nowhere"], "nowhere"),
        (["--dataset", "refcocog-2k", "--data", "nowhere"], "unknown dataset 'refcocog-2k'"),
        (["--data", "somewhere"], "add --dataset NAME"),
        (["--dataset", "scenes", "--data", "somewhere"], "remove --data"),
        (["--policy", "embedded"], "--policy and --sam go together"),
        (["--policy", "embedded", "--sam", "embedded", "--bundle", "b"], "remove --bundle"),
        (["--policy", "embedded", "--sam", "embedded", "--mask-backend", "onnx"], "remove --bundle and other"),
        (["--resume"], "add --out FILE"),
        (["--resume", "--force", "--out", "x.jsonl"], "pass only one of them"),
        (["--shard", "0/2"], "several processes share their records as files"),
        (["--shard", "2/2", "--out", "x.jsonl"], "--shard is '2/2'"),
        (["--shard", "one"], "--shard is 'one'"),
        (["--limit", "3", "compare", "a", "b"], "'evaluate compare' does not accept --limit"),
        (["--json", "table", "a"], "'evaluate table' does not accept --json"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    arguments: list[str], word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_session.install(monkeypatch)
    assert main(["evaluate", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert word in err


def test_a_missing_segmenter_is_not_the_folder_of_the_records(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("records.jsonl").touch()
    assert main(["evaluate", "--policy", "embedded", "--limit", "1", "--out", "records.jsonl", "--force"]) == 2
    assert "--policy and --sam go together" in capsys.readouterr().err


def test_a_run_that_cannot_begin_leaves_no_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(image: npt.NDArray[np.uint8], query: str, variant: str) -> str:
        raise KeyboardInterrupt

    fake_session.install(monkeypatch, interrupt)
    assert main(["evaluate", "--limit", "3", "--out", str(tmp_path / "records.jsonl")]) == 130
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_dropped_samples_are_counted_and_in_no_figure() -> None:
    dropped = replace(_record(3, 100, 100, 99.0), dropped="mask and truth are both empty")
    kept = [_record(i, 50, 100, 10.0) for i in range(3)]
    assert summarize([*kept, dropped]) == summarize(kept) | {"dropped": 1}
    with pytest.raises(UsageError, match="none of the 1 samples counts; the first one: mask and truth"):
        summarize([dropped])


def test_every_sample_pays_for_its_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened = fake_session.install(monkeypatch)
    image = SAMPLES[0].scene.image
    target = ExampleObject((1, 1, 9, 9), ((2, 2), (3, 3)), SAMPLES[0].mask)
    example = Example("a", "the ring", image, (target,), SAMPLES[0].mask, None, None)
    session = Session.from_bundle()
    records = list(evaluate_session(session, cast(Dataset, {0: example, 1: example}), range(2)))
    assert opened.policy.encoded == 2
    assert {record.latency_ms["vision_encode"] for record in records} == {20.0}


def test_the_hash_of_models_changes_with_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "weights").write_bytes(b"1")
    assert hash_models(tmp_path / "a") == hash_models(tmp_path / "b")
    (tmp_path / "b" / "deep" / "weights").write_bytes(b"2")
    assert hash_models(tmp_path / "a") != hash_models(tmp_path / "b")
    assert hash_models(tmp_path / "a" / "deep" / "weights") != hash_models(tmp_path / "b" / "deep" / "weights")


def test_checkpoints_are_run_instead_of_a_bundle(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def from_checkpoints(policy: Path, sam: Path, decoding: Decoding, spec: PolicySpec) -> Session:
        assert decoding == Decoding()
        assert spec == read_policy_spec(policy).within(7056)
        asked.append((policy, sam))
        return Session.from_bundle()

    fake_session.install(monkeypatch, _write_truth)
    monkeypatch.setattr(Session, "from_checkpoints", from_checkpoints)
    models = ["--policy", "embedded", "--sam", "embedded"]
    assert main(["evaluate", *models, "--pixels", "7056", "--limit", "1", "--json"]) == 0
    assert asked == [(resolve_checkpoint("embedded", "policy"), resolve_checkpoint("embedded", "sam"))]
    report = json.loads(capsys.readouterr().out)
    assert report["model"] == "embedded"
    assert report["model_sha256"] == hash_models(*asked[0])


@pytest.mark.parametrize(
    ("options", "decoding"), [([], "forced"), (["--free-decoding"], "free"), (["--oracle-prompt"], None)]
)
def test_the_report_says_how_answers_were_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], decoding: str | None
) -> None:
    opened = fake_session.install(monkeypatch, _write_truth)

    assert main(["evaluate", "--limit", "1", "--json", *options]) == 0

    assert json.loads(capsys.readouterr().out)["decoding"] == decoding
    assert opened.calls[0]["decoding"] == Decoding(forced=decoding != "free")
