"""Evaluations side by side: paired differences of two runs, and the paper's table of many."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wise_edge.cli.main import main
from wise_edge.errors import UsageError
from wise_edge.evaluation.compare import compare_latencies, compare_runs, format_markdown, tabulate
from wise_edge.evaluation.record_log import write_log
from wise_edge.evaluation.records import LABELS, MaskRecord, Record, Settings
from wise_edge.metrics import bootstrap_interval

SETTINGS = Settings(
    "reasonseg", "test", 60, "paper", "predicted", "verbose", "0" * 64, {"policy": "torch", "mask": "torch"}
)
OTHER = replace(SETTINGS, variant="wise-s", model_sha256="1" * 64)


def _records(share: float, tokens: int, seed: int = 0) -> list[Record]:
    """Return 60 records, each IoU `share` of a hardness that depends on the seed alone."""
    ious = share * np.random.default_rng(seed).random(60)
    return [
        Record(
            index, str(index), None, "query", int(1000 * iou), 1000, int(1000 * iou) / 1000, None, None,
            {"total": 1.0}, None,
            answer_valid=True, box_iou=float(iou), rationale_tokens=tokens, answer_tokens=50, text="",
        )
        for index, iou in enumerate(ious)
    ]  # fmt: skip


def test_differences_are_paired() -> None:
    a, b = _records(0.8, 100), _records(0.82, 20)
    figures = compare_runs((SETTINGS, a), (OTHER, b))
    assert set(figures) == set(a[0].terms())
    giou = figures["giou"]
    assert giou["difference"] == pytest.approx(giou["b"] - giou["a"])
    assert 0.0 < giou["interval"][0] < giou["difference"] < giou["interval"][1] < 0.02
    alone = bootstrap_interval([record.iou for record in b])
    assert alone[1] - alone[0] > 10 * (giou["interval"][1] - giou["interval"][0])
    assert figures["rationale_tokens_mean"]["interval"] == [-80.0, -80.0]
    assert figures["ciou"]["a"] == pytest.approx(sum(record.intersection_px for record in a) / 60_000)


def test_the_order_of_records_does_not_matter() -> None:
    a, b = _records(0.8, 100), _records(0.82, 20)
    assert compare_runs((SETTINGS, a), (OTHER, b[::-1])) == compare_runs((SETTINGS, a), (OTHER, b))


def test_what_either_run_dropped_counts_in_neither() -> None:
    a, b = _records(0.8, 100), _records(0.82, 20)
    a[3], b[5] = replace(a[3], dropped="size"), replace(b[5], dropped="size")
    kept = [index for index in range(60) if index not in (3, 5)]
    assert compare_runs((SETTINGS, a), (OTHER, b)) == compare_runs(
        (SETTINGS, [a[i] for i in kept]), (OTHER, [b[i] for i in kept])
    )
    with pytest.raises(UsageError, match="no sample was counted in both"):
        compare_runs((SETTINGS, a[3:4]), (OTHER, b[3:4]))


def test_against_a_true_prompt_only_masks_are_compared() -> None:
    oracle = [
        MaskRecord(r.index, r.id, r.kind, r.query, 900, 1000, 0.9, None, None, r.latency_ms, None)
        for r in _records(1, 1)
    ]
    truth = replace(SETTINGS, prompt="truth", variant=None)
    assert set(compare_runs((SETTINGS, _records(0.8, 100)), (truth, oracle))) == {"giou", "ciou"}


@pytest.mark.parametrize(
    ("settings", "records", "word"),
    [
        (replace(OTHER, metric_mode="lisa"), _records(0.8, 20), "differ in metric_mode"),
        (replace(OTHER, dataset="refcoco", split="testA"), _records(0.8, 20), "differ in dataset, split"),
        (OTHER, _records(0.8, 20)[:-2], "2 samples are in only one run"),
    ],
)
def test_runs_on_other_samples_are_not_compared(settings: Settings, records: Sequence[Record], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        compare_runs((SETTINGS, _records(0.8, 100)), (settings, records))


def test_compare_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    write_log(a, SETTINGS, _records(0.8, 100))
    write_log(b, OTHER, _records(0.82, 20))
    assert main(["evaluate", "compare", str(a), str(b), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["figures"]["rationale_tokens_mean"]["difference"] == -80.0
    assert main(["evaluate", "compare", str(a), str(b)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "-80.000 to -80.000" in out
    rows = [line.split("  ")[0].strip() for line in out.splitlines()]
    assert rows[2:] == [*map(LABELS.__getitem__, found["figures"]), "latency p50, ms", "latency p90, ms"]
    assert "-0.000" not in out
    assert found["latency_ms"]["total"]["p90"] == {"a": 1.0, "b": 1.0, "difference": 0.0, "interval": [0.0, 0.0]}
    assert max(map(len, out.splitlines())) <= 80


def test_times_are_compared_in_pairs() -> None:
    slow = [replace(r, latency_ms={"total": 100.0 + r.index}) for r in _records(0.8, 100)]
    fast = [replace(r, latency_ms={"total": r.latency_ms["total"] / 2}) for r in slow]
    times = compare_latencies((SETTINGS, slow), (OTHER, fast[::-1]))
    assert (times["p50"]["a"], times["p50"]["b"], times["p50"]["difference"]) == (129.5, 64.75, -64.75)
    low, high = times["p50"]["interval"]
    assert -75 < low < -64.75 < high < -55
    silent = [replace(slow[0], latency_ms={}), *slow[1:]]
    assert compare_latencies((SETTINGS, silent), (OTHER, fast)) == {}


def test_a_change_that_rounds_to_nothing_has_no_sign_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = _records(0.8, 100)
    less = [replace(r, iou=max(0.0, r.iou - 0.0001)) for r in records]
    for name, run in (("a", records), ("b", less)):
        write_log(tmp_path / f"{name}.jsonl", SETTINGS, run)
    assert main(["evaluate", "compare", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]) == 0
    assert "-0.000" not in capsys.readouterr().out


def test_the_table_says_what_it_wants_instead_of_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "c.jsonl"
    write_log(log, SETTINGS, _records(0.8, 100))
    assert main(["evaluate", "table", str(log)]) == 2
    err = capsys.readouterr().err
    assert f"{log} holds records, and the table is made of reports; print that of the run by its command with" in err
    assert f"--resume --out {log} --json > REPORT.json" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("content", ["", "no JSON\n", "{}\n"])
def test_compare_refuses_what_is_no_file_of_records(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    assert main(["evaluate", "compare", str(tmp_path / "a.jsonl"), str(tmp_path / "none.jsonl")]) == 2
    err = capsys.readouterr().err
    assert "a.jsonl" in err
    assert len(err.splitlines()) == 1


def _report(dataset: str, split: str, **changes: Any) -> dict[str, Any]:
    report = {"dataset": dataset, "split": split, "metric_mode": "paper", "model": "wise-7b", "variant": "wise-s"}
    return {**report, "samples": 779, "giou": 0.603, "ciou": 0.5834, "rationale_tokens_mean": 22.66} | changes


def test_the_table_has_the_papers_form() -> None:
    table = tabulate(
        {
            "a": _report("refcoco", "testA", samples=5657, ciou=0.791),
            "b": _report("reasonseg", "test", samples=200),
            "c": _report("reasonseg", "test", variant="wise-infer"),
            "d": _report("reasonseg", "test", variant=None, rationale_tokens_mean=None, ciou=1.0),
            "e": _report("scenes", "test", variant="wise-infer"),
            "f": _report("grefcoco", "val", n_acc=0.5, metric_mode="gres"),
            "g": _report("reasonseg", "test", pixels=200704, giou=0.5),
        }
    )
    assert table["metric_mode"] == "paper"
    assert table["columns"] == ["reasonseg/test", "refcoco/testA", "grefcoco/val", "scenes/test"]
    assert format_markdown(table).splitlines() == [
        "| policy | variant | ReasonSeg test (200 to 779) gIoU | cIoU | tokens "
        "| RefCOCO testA (5657) cIoU | tokens | gRefCOCO val (779) gIoU | cIoU | N-acc | tokens "
        "| scenes test (779) gIoU | cIoU | tokens |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| wise-7b | wise-s | 60.3 | 58.3 | 22.7 | 79.1 | 22.7 | 60.3 | 58.3 | 50.0 | 22.7 | - | - | - |",
        "| wise-7b | wise-infer | 60.3 | 58.3 | 22.7 | - | - | - | - | - | - | 60.3 | 58.3 | 22.7 |",
        "| wise-7b | true prompt | 60.3 | 100.0 | - | - | - | - | - | - | - | - | - | - |",
        "| wise-7b | wise-s, 200704 px | 50.0 | 58.3 | 22.7 | - | - | - | - | - | - | - | - | - |",
    ]


@pytest.mark.parametrize(
    ("reports", "word"),
    [
        ({"a": _report("reasonseg", "test"), "b": _report("reasonseg", "test")}, "b is a second report of wise-7b"),
        (
            {"a": _report("reasonseg", "test"), "b": _report("reasonseg", "val", metric_mode="lisa")},
            "a and b differ in metric mode",
        ),
        ({"a": {"dataset": "reasonseg"}}, "a is not a report"),
        ({"a": []}, "a is not a report"),
        ({"a": _report("reasonseg", "test") | {"giou": "high"}}, "a is not a report .*giou: 'high' is not float"),
        ({"a": _report("reasonseg", "test") | {"ciou": 60.3}}, "a is not a report .*ciou: must be from 0 to 1"),
        ({"a": _report("reasonseg", "test") | {"samples": -1}}, "a is not a report .*samples: must be from 0"),
    ],
)
def test_what_does_not_belong_into_one_table(reports: Any, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        tabulate(reports)


def test_table_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(_report("reasonseg", "val")))
    assert main(["evaluate", "table", str(path)]) == 0
    assert "ReasonSeg val (779) gIoU" in capsys.readouterr().out
    assert main(["evaluate", "table", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["cells"]["reasonseg/val"]["ciou"] == 0.5834
    assert main(["evaluate", "table", str(tmp_path / "none.json")]) == 2
    (tmp_path / "torn.json").write_text("{")
    assert main(["evaluate", "table", str(tmp_path / "torn.json")]) == 2
    assert "is not JSON" in capsys.readouterr().err
