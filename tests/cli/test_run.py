from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fake_session
from locations import ASSETS
from virtual_time import VirtualTime
from wise_edge.bundle import store
from wise_edge.cli.main import main
from wise_edge.policy.answers.form import BOX_LABEL_LIST
from wise_edge.power.sources import PowerSource
from wise_edge.profiling.query_meter import QueryMeter
from wise_edge.rle import mask_of_runs
from wise_edge.runtimes.base import Decoding, MaskOutput, MaskPrompt


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.full((60, 80, 3), 200, np.uint8)).save(path)
    return path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> fake_session.Opened:
    return fake_session.install(monkeypatch)


def test_it_prints_what_a_person_wants_to_know(
    picture: Path, opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(picture), "  the  red ring "]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = dict(line.split(maxsplit=1) for line in out.splitlines() if not line.startswith(" "))
    assert lines["query"].strip() == "the red ring"
    assert lines["variant"].strip() == "wise-s"
    assert lines["rationale"].strip() == fake_session.RATIONALE
    assert lines["box"].strip() == "20, 15 to 60, 45"
    assert lines["points"].strip() == "36, 27 and 43, 32"
    assert lines["mask"].strip() == "1200 px, 25.0% of 80 x 60, score 0.90"
    assert "energy" not in out  # nobody asked for it
    assert "vision encode" in out
    assert "total" in out
    assert lines["backends"].strip() == "policy fake, mask fake"
    backends = {"policy_backend": "auto", "mask_backend": "auto"}
    assert opened.calls == [{"bundle": ASSETS / "embedded", **backends, "decoding": Decoding(), "pixels": None}]


def test_a_bundle_is_read_and_hashed_once(
    picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    hashed: list[str] = []
    hash_file, read = store.hash_file, store._read_manifest
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "hash_file", lambda file: hashed.append(file.name) or hash_file(file))
    monkeypatch.setattr(store, "_read_manifest", lambda file: hashed.append(file.name) or read(file))
    assert main(["run", str(picture), "the red ring", "--json", "--deadline-ms", "60000"]) == 0
    files = [Path(artifact.path).name for artifact in read(ASSETS / "embedded" / "bundle.json").artifacts]
    assert sorted(hashed) == sorted(["bundle.json", *files])


def test_energy_is_measured_where_it_is_asked_for(
    picture: Path, opened: fake_session.Opened, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rails = PowerSource("rails", "power", ("VDD_IN",), (0,), None, 0.002, lambda: (10.0,), (None,))
    world = VirtualTime()
    monkeypatch.setattr(QueryMeter, "find", lambda on_gpu: QueryMeter(rails, **world.options))
    opened.policy.write = lambda *about: world.pause(0.4) or fake_session.completion()  # type: ignore[func-returns-value]
    assert main(["run", str(picture), "the red ring", "--energy"]) == 0
    assert re.search(r"energy +total 4.00 J \(rails: VDD_IN\)", capsys.readouterr().out)


def test_explain_names_the_reasons(
    picture: Path, opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(picture), "the ring", "--explain", "--policy-backend", "onnx"]) == 0
    assert "policy fake: the test asked for it" in capsys.readouterr().out
    assert opened.calls[0]["policy_backend"] == "onnx"


def test_json_is_one_document_with_the_whole_result(
    picture: Path, opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(picture), "the red ring", "--json", "--variant", "verbose"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    data = json.loads(out)
    assert data["variant"] == "verbose"
    assert data["box"] == [20, 15, 60, 45]
    assert data["mask"]["size"] == [60, 80]
    assert np.count_nonzero(mask_of_runs(data["mask"])) == 1200
    assert data["energy_j"] is None
    assert data["energy_reason"]
    assert set(data["latency_ms"]) == {
        "preprocess", "vision_encode", "prefill", "decode", "mask_encode", "mask_decode", "total",
    }  # fmt: skip


def test_mask_and_overlay_are_written(
    picture: Path, opened: fake_session.Opened, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask, overlay = tmp_path / "mask.png", tmp_path / "overlay.PNG"
    assert main(["run", str(picture), "the red ring", "--mask", str(mask), "--overlay", str(overlay)]) == 0
    with Image.open(mask) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", (80, 60))
        expected = np.zeros((60, 80), np.uint8)
        expected[15:45, 20:60] = 255
        assert np.array_equal(np.asarray(image), expected)
    with Image.open(overlay) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert image.width >= 560
        assert image.height > image.width * 60 / 80  # words beneath the image


def test_an_existing_file_is_refused_before_anything_runs(
    picture: Path, opened: fake_session.Opened, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = tmp_path / "mask.png"
    mask.write_bytes(b"mine")
    arguments = ["run", str(picture), "the red ring", "--mask", str(mask)]
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"error: {mask} exists; use --force to replace it\n")
    assert mask.read_bytes() == b"mine"
    assert opened.calls == []
    assert main([*arguments, "--force"]) == 0
    assert mask.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("as_json", [False, True])
def test_no_answer_is_a_result(
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    as_json: bool,
) -> None:
    fake_session.install(monkeypatch, lambda *_: "<think>I [red]cannot[/] say.</think> 42")
    mask, overlay = tmp_path / "mask.png", tmp_path / "overlay.png"
    arguments = ["run", str(picture), "the ring", "--mask", str(mask), "--overlay", str(overlay)]
    assert main(arguments + ["--json"] * as_json) == 0
    out, err = capsys.readouterr()
    assert err.startswith("no answer: ")
    assert err.endswith("; no mask was written\n")
    assert len(err.splitlines()) == 1
    assert not mask.exists()
    assert overlay.exists()
    if as_json:
        data = json.loads(out)
        assert data["answer_valid"] is False
        assert data["mask"] is data["box"] is data["score"] is None
        assert data["text"] == "<think>I [red]cannot[/] say.</think> 42"
    else:
        assert "no answer: " in out
        assert "<think>I [red]cannot[/] say.</think> 42" in out


def test_what_was_mended_is_said(
    picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_session.install(monkeypatch, lambda *_: fake_session.completion(answer=fake_session.ANSWER[:-1] + ",}"))
    assert main(["run", str(picture), "the ring"]) == 0
    assert "\nrepairs" in capsys.readouterr().out


def test_no_text_can_steer_the_terminal(
    picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_session.install(monkeypatch, lambda *_: "<think>\x1b[2J\x07red</think> \x9b31m")
    assert main(["run", str(picture), "the \x1b[31mring", "--overlay", str(picture.with_name("overlay.png"))]) == 0
    out = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b"} & set(out)
    assert "the \\x1b[31mring" in out


def test_a_deadline_is_met_by_what_earlier_runs_took(
    picture: Path,
    opened: fake_session.Opened,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = ["run", str(picture), "the red ring", "--deadline-ms"]

    assert main([*run, "60000"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "60000 ms met; answer: nothing was measured on this device yet" in told
    assert main([*run, "60000", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["variant"] == data["deadline"]["variant"] == "wise-infer"
    assert data["deadline"]["deadline_ms"] == 60000
    assert main([*run, "0.001"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "0.001 ms missed by" in told
    assert "nothing was expected to fit 0.001 ms" in told

    assert main([*run, "100", "--variant", "wise-s"]) == 2
    assert "pass only one of them" in capsys.readouterr().err
    monkeypatch.setenv("XDG_CACHE_HOME", str(picture / "no folder"))
    assert main([*run, "60000", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["variant"] == "answer"


def test_what_a_reader_should_know_about_the_image_is_said(
    opened: fake_session.Opened, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    camera = tmp_path / "camera.png"
    Image.fromarray(np.full((20, 30), 4000, np.uint16)).save(camera)
    assert main(["run", str(camera), "the red ring", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["answer_valid"]
    assert err == f"note: {camera} was read as an image of 12 bits per channel, since its largest value is 4000\n"


TWO = fake_session.list_boxes([(8, 6, 40, 30), (40, 30, 80, 60)], (80, 60), "cup")


@pytest.mark.parametrize(("text", "status"), [(TWO, "found"), ("```json\n[]\n```", "nothing"), ("?", "unreadable")])
def test_several_objects_none_and_no_answer_are_results(
    picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, status: str
) -> None:
    policy = fake_session.FakePolicy(lambda *_: text, form=BOX_LABEL_LIST)
    opened = fake_session.install(monkeypatch, policy=policy)
    mask, overlay = picture.with_name("mask.png"), picture.with_name("overlay.png")
    files = ["--mask", str(mask), "--overlay", str(overlay)]

    assert main(["run", str(picture), "the cups", "--json", "--max-objects", "7", *files]) == 0
    result = json.loads(capsys.readouterr().out)
    assert main(["run", str(picture), "the cups"]) == 0
    out, err = capsys.readouterr()

    assert opened.calls[0]["decoding"].max_objects == 7
    assert opened.calls[1]["decoding"] == Decoding()
    assert (result["version"], result["status"]) == (3, status)
    assert [item["box"] for item in result["objects"]] == ([[8, 6, 40, 30], [40, 30, 80, 60]] * (status == "found"))
    assert overlay.exists()
    assert mask.exists() is (status != "unreadable")
    if status == "found":
        assert {*np.unique(np.asarray(Image.open(mask)))} == {0, 254, 255}
        lines = dict(re.split(r" {2,}", line, maxsplit=1) for line in out.splitlines() if line.startswith("object "))
        assert lines.keys() == {"object 1", "object 2"}
        assert lines["object 2"].strip() == "cup; 40, 30 to 80, 60; 1200 px, 25.0% of 80 x 60, score 0.90"
    elif status == "nothing":
        assert not np.asarray(Image.open(mask)).any()
        assert "nothing that matches the query was found" in out
        assert err == "note: the mask is empty: nothing that matches the query was found\n"
    else:
        assert err == f"no answer: {result['reason']}; no mask was written\n"


class MarksNothing(fake_session.FakeMask):
    """A segmenter that is sure of a mask without a pixel."""

    def decode(self, encoded: fake_session.FakeImage, prompt: MaskPrompt) -> MaskOutput:
        output = super().decode(encoded, prompt)
        return replace(output, mask=np.zeros_like(output.mask), score=0.91)


def test_a_mask_without_a_pixel_is_said_and_has_no_score(
    picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_session.install(monkeypatch, mask=MarksNothing())
    assert main(["run", str(picture), "the red ring"]) == 0
    out, err = capsys.readouterr()
    assert "the segmenter marked no pixel" in out and "0.91" not in out
    assert err.startswith("note: the mask is empty: the segmenter marked no pixel")

    assert main(["run", str(picture), "the red ring", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["answer_valid"], result["mask_px"], result["score"]) == (True, 0, None)
    assert "no pixel" in result["mask_reason"]
    assert result["mask"] == {"size": [60, 80], "counts": "Pf4"}

    assert main(["evaluate", "--limit", "3", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["empty_masks"] == 3 and "3 of 3 masks are empty" in err


def test_a_mask_with_pixels_says_how_many(
    picture: Path, opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(picture), "the red ring", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["mask_px"], result["mask_reason"], result["score"]) == (1200, None, 0.9)
