"""A bundle's record of its evaluations is made of their logs, all at once, and of nothing that cannot be compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fake_session
from fake_session import completion
from wise_edge.bundle.diff import compare_manifests
from wise_edge.bundle.evaluated import Evaluated, EvaluatedRun
from wise_edge.bundle.manifest import EVALUATED_SCHEMA, SCHEMA_VERSION, Manifest
from wise_edge.bundle.store import load, resolve_bundle, write_manifest
from wise_edge.cli.main import main
from wise_edge.errors import BundleError
from wise_edge.evaluation.evaluate import hash_bundle, hash_models
from wise_edge.files.hashing import hash_file
from wise_edge.files.locks import holding


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle and the logs of its evaluations by a policy that thinks shorter or longer."""
    folder = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(resolve_bundle("embedded"), folder / "bundle")
    write_manifest(folder / "bundle", load(folder / "bundle").manifest)  # in the present schema

    def write(image: npt.NDArray[np.uint8], query: str, variant: str) -> str:
        return completion("The red ring." if variant == "wise-s" else "")

    with pytest.MonkeyPatch.context() as patch:
        fake_session.install(patch, write)
        for variant, pixels in (("wise-s", None), ("wise-s", 7056), ("answer", 7056)):
            budget = [] if pixels is None else ["--pixels", str(pixels)]
            log = folder / f"{variant}-{pixels}.jsonl"
            asked = ["--bundle", str(folder / "bundle"), "--variant", variant, *budget, "--out", str(log)]
            assert main(["evaluate", "--limit", "4", *asked]) == 0
    return folder


@pytest.fixture
def folder(evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(shutil.copytree(evaluated, tmp_path / "work"))
    return Path()


LOGS = ["wise-s-None.jsonl", "wise-s-7056.jsonl", "answer-7056.jsonl"]


def record(*logs: str) -> int:
    return main(["bundle", "record", "bundle", *logs])


def edit(log: str, change: Callable[[list[Any]], None]) -> None:
    lines = [json.loads(line) for line in Path(log).read_text().splitlines()]
    change(lines)
    Path(log).write_text("".join(json.dumps(line) + "\n" for line in lines))


def set_truth(log: str, iou: float) -> None:
    """Let each sample of a log have an IoU."""

    def change(lines: list[Any]) -> None:
        for line in lines[1:]:
            line.update(iou=iou, intersection_px=round(100 * iou), union_px=100)

    edit(log, change)


def test_a_record_says_what_was_evaluated_the_best_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for log, iou in zip(LOGS, (0.5, 0.75, 0.25), strict=True):
        set_truth(log, iou)
    before, sha256 = load("bundle"), load("bundle").sha256
    assert record(*LOGS) == 0
    out, err = capsys.readouterr()

    after = load("bundle", verify_hashes=True)
    found = after.manifest.evaluated
    assert found is not None
    assert (found.dataset, found.split, found.samples, found.decoding) == ("scenes", "test", 4, "forced")
    assert found.backends == {"policy": "fake", "mask": "fake"}
    tokens = [(run.rationale_tokens, run.answer_tokens) for run in found.runs]
    assert [(run.variant, run.pixels, run.giou, run.ciou) for run in found.runs] == [
        ("wise-s", 7056, 0.75, 0.75),
        ("wise-s", None, 0.5, 0.5),
        ("answer", 7056, 0.25, 0.25),
    ]
    assert tokens[0] == tokens[1] and tokens[0][1] == 49
    assert [run.log_sha256 for run in found.runs] == [hash_file(Path(LOGS[place])) for place in (1, 0, 2)]
    assert replace(after.manifest, evaluated=None) == before.manifest

    assert f"bundle.json sha256:{after.sha256}" in out
    assert sha256 in err and after.sha256 not in err
    card = Path("bundle/README.md").read_text()
    assert after.sha256 in card and "| wise-s | 7056 | 0.750 | 0.750 |" in card
    assert main(["bundle", "show", "bundle"]) == 0
    assert "evaluated on 4 samples of scenes/test, policy fake, mask fake" in capsys.readouterr().out
    assert [difference.part for difference in compare_manifests(before.manifest, after.manifest)] == ["evaluated"] * 4


def test_logs_outlive_the_record_and_all_of_them_replace_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fingerprint = hash_bundle(load("bundle"))
    assert fingerprint == hash_models(Path("bundle/bundle.json"))
    assert record(LOGS[0]) == 0
    alone = load("bundle").sha256
    assert hash_bundle(load("bundle")) == fingerprint != hash_models(Path("bundle/bundle.json"))
    assert record(*LOGS) == 0
    assert record(LOGS[0]) == 0
    assert load("bundle").sha256 == alone
    capsys.readouterr()
    assert record(LOGS[0]) == 0
    assert capsys.readouterr().err == ""  # nothing changed


def test_what_else_changes_is_another_bundle(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert record(*LOGS) == 0
    write_manifest(Path("bundle"), replace(load("bundle").manifest, name="another"))
    capsys.readouterr()
    assert record(*LOGS) == 2
    assert "is not of bundle as it is now" in capsys.readouterr().err


def test_a_bundle_without_a_record_is_written_as_before_and_one_with_it_is_refused_by_earlier_versions(
    folder: Path,
) -> None:
    before = Path("bundle/bundle.json").read_bytes()
    write_manifest(Path("bundle"), load("bundle").manifest)
    assert Path("bundle/bundle.json").read_bytes() == before
    assert json.loads(Path("bundle/bundle.json").read_text())["schema_version"] == SCHEMA_VERSION == 4
    assert record(*LOGS) == 0
    data = json.loads(Path("bundle/bundle.json").read_text())
    assert data["schema_version"] == EVALUATED_SCHEMA == 5
    assert {key: value for key, value in data.items() if key != "evaluated"} == json.loads(before) | {
        "schema_version": 5
    }
    assert Manifest.from_dict(data) == load("bundle").manifest


def test_a_bundle_of_an_earlier_schema_is_recorded_once_from_its_logs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path("bundle/bundle.json")
    data = json.loads(file.read_text())
    side = data["policy"].pop("picture")["side"]
    file.write_text(json.dumps(data | {"schema_version": 3, "policy": data["policy"] | {"input_size": side}}))
    edit(LOGS[0], _settings(model_sha256=hash_models(file)))
    assert record(LOGS[0]) == 0
    assert json.loads(file.read_text())["schema_version"] == 5
    assert "evaluate again before the next record" in capsys.readouterr().err
    assert record(LOGS[0]) == 2  # the same content has another hash in the present schema
    assert "as it is now" in capsys.readouterr().err


def test_a_record_of_an_earlier_version_keeps_its_logs(folder: Path) -> None:
    """What this version would write besides, here the entry for the layers of DeepStack, is not in the file."""
    file = Path("bundle/bundle.json")
    data = json.loads(file.read_text())
    del data["policy"]["deepstack_layers"]
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    before = hash_models(file)
    assert record(*LOGS) == 2  # they are of the bundle with that entry
    recorded = {"evaluated": asdict(_evaluated()), "schema_version": 5}
    file.write_text(json.dumps(data | recorded, indent=2, ensure_ascii=False) + "\n")
    assert hash_bundle(load("bundle")) == before


def _evaluated() -> Evaluated:
    run = EvaluatedRun("wise-s", None, 0.5, 0.5, 10.0, 40.0, "0" * 64)
    return Evaluated("scenes", "test", 4, "lisa", "forced", {"policy": "fake"}, "0" * 64, (run,))


def _finish_none(lines: list[Any]) -> None:
    del lines[-1]


def _settings(**changed: Any) -> Callable[[list[Any]], None]:
    return lambda lines: lines[0]["settings"].update(changed)


def _dropped(lines: list[Any]) -> None:
    lines[1]["dropped"] = "the image is gone"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_finish_none, "has 3 of 4 samples; finish it with 'wise-edge evaluate --resume'"),
        (_settings(model_sha256="0" * 64), "is not of bundle as it is now; evaluate that with --bundle"),
        (_settings(dataset="reasonseg"), "differ in dataset; record logs of the same settings"),
        (_settings(data_sha256="0" * 64), "differ in data_sha256"),
        (_settings(metric_mode="paper"), "differ in metric_mode"),
        (_settings(backends={"policy": "llama", "mask": "fake"}), "differ in backends"),
        (_settings(decoding="free"), "differ in decoding"),
        (_settings(shards=2, shard=0), "line 3, was not written by"),
        (_settings(variant=None), "is of the segmenter alone"),
        (_settings(pixels=None), "is a second log of wise-s; remove one"),
        (_settings(variant="mine"), "mine"),
        (_dropped, "count other samples; see 'dropped' in their records"),
    ],
)
def test_what_cannot_be_compared_is_refused_and_changes_nothing(
    folder: Path, change: Callable[[list[Any]], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.read_bytes() for file in Path("bundle").iterdir()}
    edit(LOGS[1], change)
    assert record(LOGS[0], LOGS[1]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert {file: file.read_bytes() for file in Path("bundle").iterdir()} == before


def test_a_share_of_the_samples_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def share(lines: list[Any]) -> None:
        lines[0]["settings"].update(shards=2)
        del lines[4], lines[2]

    edit(LOGS[0], share)
    assert record(LOGS[0]) == 2
    assert "is one share of 2; pass the file that they were joined into" in capsys.readouterr().err


def test_what_ships_is_not_changed_and_no_log_is_no_record(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for shipped in ("embedded", str(resolve_bundle("embedded"))):
        assert main(["bundle", "record", shipped, LOGS[0]]) == 2
        assert "embedded is part of wise-edge and is not changed" in capsys.readouterr().err
    assert record() == 2
    assert record("none.jsonl") == 2
    assert record("bundle/bundle.json") == 2


def test_a_link_of_a_hubs_cache_is_not_written_through(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("blobs").mkdir()
    Path("bundle/bundle.json").rename("blobs/123")
    Path("bundle/bundle.json").symlink_to("../blobs/123")
    before = Path("blobs/123").read_bytes()
    assert record(LOGS[0]) == 2
    assert "bundle.json is a link, as in a hub's cache" in capsys.readouterr().err
    assert Path("blobs/123").read_bytes() == before
    shutil.copytree("bundle", "copy")
    assert main(["bundle", "record", "copy", LOGS[0]]) == 0


def test_nobody_else_may_write_the_bundle_meanwhile(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with holding(Path("bundle")):
        assert record(LOGS[0]) == 2
    assert "another process" in capsys.readouterr().err
    assert record(LOGS[0]) == 0


def test_a_signature_is_said_to_be_of_before(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bundle/bundle.json.sig").write_text("signed")
    assert record(LOGS[0]) == 0
    assert "bundle.json.sig is a signature of the old bundle.json; sign it again" in capsys.readouterr().err


@pytest.mark.parametrize("runs", [[], [{"variant": "wise-s", "pixels": 0}], ["twice"] * 2, ["mine"]])
def test_a_damaged_record_is_one_line(folder: Path, runs: list[Any]) -> None:
    assert record(LOGS[0]) == 0
    file = Path("bundle/bundle.json")
    data = json.loads(file.read_text())
    (run,) = data["evaluated"]["runs"]
    named = {"twice": run, "mine": run | {"variant": "mine"}}
    data["evaluated"]["runs"] = [named[each] if isinstance(each, str) else run | each for each in runs]
    file.write_text(json.dumps(data))
    with pytest.raises(BundleError, match=r"malformed .*evaluated") as refused:
        load("bundle")
    assert "\n" not in str(refused.value)


def test_a_run_is_named_by_what_it_was_asked() -> None:
    run = EvaluatedRun("wise-s", None, 0.5, 0.5, 10.0, 40.0, "0" * 64)
    assert (run.name, replace(run, pixels=7056).name) == ("wise-s", "wise-s at 7056 px")
