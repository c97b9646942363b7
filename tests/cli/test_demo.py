from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fake_session
from fake_session import FakePolicy
from wise_edge.cli.main import main
from wise_edge.files.locks import holding


def test_scenes_give_overlays_a_sheet_and_a_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = fake_session.install(monkeypatch)
    out = tmp_path / "deep" / "demo"
    assert main(["demo", "--out", str(out), "--scenes", "2"]) == 0
    printed, err = capsys.readouterr()
    assert err == ""
    assert {path.name for path in out.iterdir()} == {
        "contact-sheet.png",
        *(f"scene-0{index}-{variant}.png" for index in (0, 1) for variant in ("verbose", "wise-s")),
    }
    for path in out.iterdir():
        with Image.open(path) as image:
            assert image.width >= 560
    assert f"Contact sheet: {out / 'contact-sheet.png'}\n" in printed
    assert "only synthetic shapes" in printed.splitlines()[-1]
    assert printed.count("verbose") == printed.count("wise-s") == 2
    assert printed.count("start, verbose") == printed.count("trained, wise-s") == 2
    assert [call["bundle"] for call in opened.calls] == [None, "embedded-start"]
    assert opened.policy.encoded == 2 + 4  # two warm-ups, then every answer pays for its own image


def test_a_bundle_is_compared_with_itself_and_earlier_images_are_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = fake_session.install(monkeypatch)
    names = {"contact-sheet.png", "scene-00-verbose.png", "scene-00-wise-s.png"}
    for name in (*names, "notes.txt"):
        (tmp_path / name).write_text("earlier")
    assert main(["demo", "--out", str(tmp_path), "--scenes", "1", "--bundle", str(tmp_path)]) == 0
    assert [call["bundle"] for call in opened.calls] == [tmp_path]
    assert "start, verbose" not in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {*names, "notes.txt"}
    assert (tmp_path / "notes.txt").read_text() == "earlier"
    for name in names:
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(("variants", "shown"), [(("answer",), "answer"), (("answer", "wise-s"), "wise-s")])
def test_a_bundle_is_asked_in_variants_that_it_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variants: tuple[str, ...], shown: str
) -> None:
    fake_session.install(monkeypatch, policy=FakePolicy(variants=variants, default_variant="answer"))
    assert main(["demo", "--out", str(tmp_path), "--scenes", "1", "--bundle", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"contact-sheet.png", f"scene-00-{shown}.png"}


def test_an_image_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_session.install(monkeypatch, lambda *_: "no idea")
    photo = tmp_path / "photo.jpg"
    Image.fromarray(np.full((30, 90, 3), 99, np.uint8)).save(photo)
    out = tmp_path / "out"
    assert main(["demo", "--image", str(photo), "--query", "красное [кольцо]", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "no answer" in printed
    assert "красное [кольцо]" in printed
    assert "only synthetic shapes" in printed
    assert {path.name for path in out.iterdir()} == {"contact-sheet.png", "own-verbose.png", "own-wise-s.png"}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--image", "photo.jpg"], "--image and --query go together"),
        (["--query", "the ring"], "--image and --query go together"),
        (["--image", "no-such.png", "--query", "the ring"], "no-such.png does not exist"),
        (["--scenes", "0"], "--scenes is 0"),
        (["--out", "file.txt"], "cannot create the folder file.txt"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    arguments: list[str],
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    opened = fake_session.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    Path("file.txt").write_text("mine")
    assert main(["demo", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert word in err
    assert opened.calls == []
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_an_image_that_cannot_be_written_is_refused_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def write(image: np.ndarray, query: str, variant: str) -> str:
        asked.append(query)
        return fake_session.write_canned(image, query, variant)

    fake_session.install(monkeypatch, write)
    (tmp_path / "scene-01-wise-s.png").mkdir()
    assert main(["demo", "--scenes", "2", "--out", str(tmp_path)]) == 2
    assert "scene-01-wise-s.png is a folder; pass a file" in capsys.readouterr().err
    assert asked == []


def test_the_second_of_two_demos_in_a_folder_is_refused_before_its_models_are_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = fake_session.install(monkeypatch)
    with holding(tmp_path):
        assert main(["demo", "--out", str(tmp_path), "--scenes", "1"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} is being written by another process")
    assert opened.calls == []
    assert list(tmp_path.iterdir()) == []
