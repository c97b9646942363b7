"""Two profiles are compared run by run; a regression is significant and large."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profile_documents import make_document
from wise_edge.cli.main import main
from wise_edge.profiling.comparison import compare_profiles, find_differences, find_regressions, find_unmatched

Document = dict[str, Any]


def timed(factor: float = 1.0, *, noise: float = 0.02, seed: int = 0, offset: int = 0) -> Document:
    """A profile whose queries take `factor` times as long, with noise of their own."""
    document = make_document()
    lengths, noises = np.random.default_rng(7), np.random.default_rng(seed)
    for run in document["runs"]:
        template = run["readings"][0]
        run["readings"] = []
        for number in range(60):
            scale = lengths.uniform(0.5, 2.0) * factor * (1 + noise * noises.normal())
            latency = {name: value * scale for name, value in template["latency_ms"].items()}
            run["readings"].append(template | {"example": f"test-{number + offset}", "latency_ms": latency})
    return document


def figures(a: Document, b: Document) -> dict[str, Any]:
    return {figure.name: figure for figure in compare_profiles(a, b)[1].figures}


def test_ratios_and_their_intervals_hold_the_truth() -> None:
    found = figures(timed(seed=1), timed(1.05, seed=2))
    for name in ("total", "decode", "first_token"):
        assert found[name].ratio == pytest.approx(1.05, abs=0.01)
        low, high = found[name].interval
        assert low < 1.05 < high
        assert high - low < 0.03  # the same queries: how much they differ among themselves does not count
    assert (found["energy"].ratio, found["memory"].ratio) == (1.0, 1.0)
    assert found["energy"].interval == pytest.approx((1 - 0.011 * 2**0.5, 1 + 0.011 * 2**0.5))
    assert {"overlap", "other"}.isdisjoint(found)


def test_other_queries_are_compared_by_their_means() -> None:
    compared = compare_profiles(timed(), timed(1.05, offset=100))
    assert [run.paired for run in compared] == [False, False]
    low, high = next(figure.interval for figure in compared[0].figures if figure.name == "total")
    assert low < 1.0 < 1.05 < high
    assert high - low > 0.1


def test_a_regression_is_large_and_sure() -> None:
    slower = compare_profiles(timed(seed=1), timed(1.08, seed=2))
    assert any("verbose" in line and "total x 1.08" in line for line in find_regressions(slower, 0.05))
    assert find_regressions(slower, 0.2) == []
    unsure = compare_profiles(timed(), timed(1.08, offset=100))
    assert find_regressions(unsure, 0.05) == []
    heavier = timed()
    heavier["runs"][0]["memory"]["host_peak_bytes"] *= 2
    assert find_regressions(compare_profiles(timed(), heavier), 0.05) == ["verbose (llama, onnx): memory x 2.000"]


def test_other_backends_are_matched_by_their_variant() -> None:
    other = timed()
    for run in other["runs"]:
        run["policy"] = "onnx"
    assert [run.name for run in compare_profiles(timed(), other)] == [
        "verbose (llama, onnx → onnx, onnx)",
        "wise-s (llama, onnx → onnx, onnx)",
    ]


def test_what_else_differs_is_told() -> None:
    a, b = timed(), timed()
    assert find_differences(a, b) == []
    b["device"]["board"], b["bundle"]["sha256"], b["stopped"] = "another", "1" * 64, "interrupted"
    b["data"]["pixels"] = 7056
    b["conditions"]["changes"] = ["the machine was suspended for 3.0 s"]
    assert find_differences(a, b) == [
        "board: NVIDIA Jetson <Orin> in A, another in B",
        "most pixels: none in A, 7056 in B",
        "bundle: embedded in A, embedded in B",
        "B is incomplete: interrupted",
        "B: the machine was suspended for 3.0 s",
    ]


def test_energy_that_was_not_measured_is_not_compared() -> None:
    a, b = timed(), deepcopy(timed())
    for run in b["runs"]:
        run["energy"]["query"] = []
    assert "energy" not in figures(a, b)


def test_energies_of_different_sources_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = timed(), timed()
    wall = {"name": "wall meter (m.csv)", "kind": "power", "parts": ["machine"], "total": ["machine"]}
    b["power"]["sources"][0] |= wall
    for run in b["runs"]:
        run["energy"]["query"][0]["energy_j"] *= 5
    line = "energy: from Jetson rails (ina3221), VDD_IN in A, from wall meter (m.csv), machine in B; not compared"
    assert "energy" not in figures(a, b)
    assert find_differences(a, b) == [line]
    files = [write(tmp_path / f"{name}.json", document) for name, document in (("a", a), ("b", b))]
    assert main(["profile", "compare", *files, "--max-regression", "5"]) == 0
    assert "not compared" in capsys.readouterr().out

    b["power"]["sources"] = []
    assert find_differences(a, b) == [line.replace("wall meter (m.csv), machine", "no source")]
    renamed = deepcopy(a)
    renamed["power"]["sources"][0]["name"] = "Jetson rails (another driver)"
    renamed["power"]["sources"][0]["parts"] += ["VDD_SOC"]  # which does not count
    assert (figures(a, renamed)["energy"].ratio, find_differences(a, renamed)) == (1.0, [])


@pytest.mark.parametrize("offset", [0, 100])
def test_repeats_are_no_samples(offset: int) -> None:
    once, other = timed(seed=1), timed(1.05, seed=2, offset=offset)
    plain = figures(once, other)["total"]
    for document in (once, other):
        for run in document["runs"]:
            run["readings"] *= 10
    often = figures(once, other)["total"]
    assert often.ratio == pytest.approx(plain.ratio)
    assert often.interval == pytest.approx(plain.interval)


def test_repeats_of_a_single_query_are_its_samples() -> None:
    documents = timed(seed=1), timed(1.05, seed=2)
    for document in documents:
        for run in document["runs"]:
            run["readings"] = [reading | {"example": "test-0"} for reading in run["readings"]]
    low, high = figures(*documents)["total"].interval
    assert low < 1.05 < high
    assert high - low > 0.01


def test_runs_without_a_partner_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = timed(), timed()
    del b["runs"][1]
    b["runs"].append(b["runs"][0] | {"variant": "answer"})
    assert find_unmatched(a, b) == (["wise-s (policy llama, masks onnx)"], ["answer (policy llama, masks onnx)"])
    assert find_differences(a, b) == [
        "wise-s (policy llama, masks onnx): only in A",
        "answer (policy llama, masks onnx): only in B",
    ]
    files = [write(tmp_path / f"{name}.json", document) for name, document in (("a", a), ("b", b))]
    assert main(["profile", "compare", *files]) == 0
    assert "! wise-s (policy llama, masks onnx): only in A" in capsys.readouterr().out
    assert main(["profile", "compare", *files, "--max-regression", "5", "--json"]) == 5
    out, err = capsys.readouterr()
    assert "only in A: wise-s (policy llama, masks onnx)" in err
    assert json.loads(out)["missing"] == ["wise-s (policy llama, masks onnx)"]


def test_runs_that_share_a_name_are_told_and_not_compared() -> None:
    a, b = timed(), timed()
    b["runs"].append(deepcopy(b["runs"][1]))
    assert [run.name for run in compare_profiles(a, b)] == ["verbose (llama, onnx)"]
    twice = ["wise-s (policy llama, masks onnx)"] * 2
    assert find_unmatched(a, b) == (twice[:1], twice)


def write(file: Path, document: Document) -> str:
    file.write_text(json.dumps(document))
    return str(file)


def test_the_command_ends_with_5_past_the_bound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write(tmp_path / "a.json", timed(seed=1)), write(tmp_path / "b.json", timed(1.08, seed=2))
    assert main(["profile", "compare", a, b]) == 0
    told = capsys.readouterr().out
    assert "wise-s (llama, onnx), query by query" in told
    assert "1.08" in told
    assert main(["profile", "compare", a, b, "--max-regression", "5"]) == 5
    told = capsys.readouterr().err
    assert "B costs more than A by more than 5 %: verbose (llama, onnx): " in told
    assert "wise-s (llama, onnx): total x 1.08" in told
    assert main(["profile", "compare", b, a, "--max-regression", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["regressions"] == []
    assert found["runs"][0]["figures"][0]["ratio"] < 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", "is not JSON"),
        ("[]", "does not hold a JSON object"),
        ("{}", "is not a profile"),
        ('{"format": "wise-edge profile", "version": 9}', "has version 9 of the format, not 1"),
    ],
)
def test_a_file_that_is_no_profile_is_one_line(
    text: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text(text)
    assert main(["profile", "compare", str(tmp_path / "a.json"), str(tmp_path / "a.json")]) == 2
    assert line in capsys.readouterr().err
    assert main(["profile", "compare", str(tmp_path / "none"), str(tmp_path / "none")]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_a_profile_without_an_energy_for_each_source_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = make_document()
    damaged["runs"][0]["energy"]["query"] = []
    a, b = write(tmp_path / "a.json", make_document()), write(tmp_path / "b.json", damaged)
    assert main(["profile", "compare", a, a]) == 0
    assert main(["profile", "compare", a, b]) == 2
    assert "runs.0.energy.query has 0 items, not one for each source" in capsys.readouterr().err


@pytest.mark.parametrize(
    "place", [("runs", 0, "memory"), ("power",), ("conditions", "before"), ("runs", 1, "readings")]
)
def test_a_profile_that_lacks_something_is_one_line(
    place: tuple[Any, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = timed()
    holder: Any = damaged
    for key in place[:-1]:
        holder = holder[key]
    for damage in (lambda: holder.pop(place[-1]), lambda: holder.update({place[-1]: None})):
        damage()
        a, b = write(tmp_path / "a.json", timed()), write(tmp_path / "b.json", damaged)
        assert main(["profile", "compare", a, b, "--max-regression", "5"]) == 2
        err = capsys.readouterr().err
        assert "b.json is not a complete profile" in err
        assert "Traceback" not in err


def test_profiles_without_a_common_variant_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = timed()
    for number, run in enumerate(other["runs"]):
        run["variant"] = f"other-{number}"
    a, b = write(tmp_path / "a.json", timed()), write(tmp_path / "b.json", other)
    assert main(["profile", "compare", a, b]) == 2
    assert "share no variant" in capsys.readouterr().err
