"""`wise-edge run` on several pictures, a folder, a pattern, a list and standard input."""

from __future__ import annotations

import io
import json
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import fake_session
from virtual_time import VirtualTime
from wise_edge.bundle.store import Bundle
from wise_edge.cli.main import main
from wise_edge.cli.output.progress import counting
from wise_edge.images import sources
from wise_edge.power.sources import PowerSource
from wise_edge.profiling.query_meter import QueryMeter
from wise_edge.runtimes.deadline import LatencyHistory
from wise_edge.scenes import sample

QUERY = "the red ring"
ALL = "overlay,mask,cutout,outlines,json,coco"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with three pictures of other sizes, and one that is none, as the working folder's."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name, height in (("a.jpg", 40), ("b.png", 50), ("d.jpg", 60)):
        Image.fromarray(np.full((height, 80, 3), 200, np.uint8)).save(Path("photos", name))
    Path("photos/c.jpg").write_bytes(b"\xff\xd8\xff and then nothing")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> fake_session.Opened:
    return fake_session.install(monkeypatch)


def test_a_picture_that_cannot_be_read_is_skipped(
    opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "photos", QUERY]) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["photos/a.jpg", "photos/b.png", "photos/d.jpg"]
    assert "box 20, 10 to 60, 30; 800 px, 25.0% of 80 x 40, score 0.90; " in lines[0]
    said = err.splitlines()
    assert said[0].startswith("skipped: photos/c.jpg is a damaged JPEG image")
    assert said[1].startswith("4 pictures: 3 found, 1 skipped; median ")
    assert said[2] == "error: 1 of 4 pictures could not be read; each is named above"
    assert len(opened.calls) == 1  # one session for all


def test_all_that_can_be_read_is_no_failure(opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "photos/a.jpg", "photos/*.png", QUERY]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err.startswith("2 pictures: 2 found; median ")


def test_json_is_the_same_document_for_one_picture_and_for_several(
    opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "photos/a.jpg", QUERY, "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert main(["run", "photos", QUERY, "--json"]) == 1
    several = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["image"] for each in several] == ["photos/a.jpg", "photos/b.png", "photos/d.jpg"]
    assert several[0].keys() == alone.keys()
    assert {name: several[0][name] for name in ("image", "query", "objects", "mask", "version")} == {
        name: alone[name] for name in ("image", "query", "objects", "mask", "version")
    }


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_each_line_is_flushed_before_the_next_query(
    options: list[str], opened: fake_session.Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = io.BytesIO()
    seen: list[int] = []

    def write(*asked: Any) -> str:
        seen.append(reached.getvalue().count(b"\n"))
        return fake_session.completion()

    opened.policy.write = write
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(reached, write_through=False))
    assert main(["run", "photos", QUERY, *options]) == 1
    assert seen == [0, 1, 2]


def test_every_kind_of_file_is_written(opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "photos", QUERY, "--out", "out/new", "--save", ALL, "--overlay-style", "plain"]) == 1
    made = {file.name for file in Path("out/new").iterdir()}
    endings = ("-mask.png", "-cutout.png", ".svg", ".json")
    overlays = {"a-overlay.jpg", "b-overlay.png", "d-overlay.jpg"}
    assert made == overlays | {f"{name}{ending}" for name in "abd" for ending in endings} | {"coco.json"}
    for name, height in (("a-overlay.jpg", 40), ("b-overlay.png", 50)):
        with Image.open(Path("out/new", name)) as overlay:
            assert (overlay.format, overlay.size) == ("JPEG" if name == "a-overlay.jpg" else "PNG", (80, height))
    with Image.open("out/new/a-cutout.png") as cutout:
        assert (cutout.mode, cutout.size) == ("RGBA", (40, 20))
    assert json.loads(Path("out/new/a.json").read_text())["image"] == "photos/a.jpg"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools' decode
def test_pycocotools_reads_what_is_written(opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]) -> None:
    COCO = pytest.importorskip("pycocotools.coco").COCO
    assert main(["run", "photos", QUERY, "--out", "out", "--save", "coco,mask"]) == 1
    coco = COCO("out/coco.json")
    assert {image["file_name"] for image in coco.loadImgs(coco.getImgIds())} == {
        "photos/a.jpg",
        "photos/b.png",
        "photos/d.jpg",
    }
    for annotation in coco.loadAnns(coco.getAnnIds()):
        (image,) = coco.loadImgs([annotation["image_id"]])
        with Image.open(Path("out", f"{Path(image['file_name']).stem}-mask.png")) as mask:
            assert np.array_equal(coco.annToMask(annotation) > 0, np.asarray(mask) > 0)
            assert mask.size == (image["width"], image["height"])
        assert annotation["area"] == coco.annToMask(annotation).sum()


def test_an_overlay_of_one_picture_may_be_jpeg_and_plain(
    opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "photos/b.png", QUERY, "--overlay", "panel.jpg"]) == 0
    assert main(["run", "photos/b.png", QUERY, "--overlay", "plain.PNG", "--overlay-style", "plain"]) == 0
    with Image.open("panel.jpg") as panel, Image.open("plain.PNG") as plain:
        assert (panel.format, panel.width > 80) == ("JPEG", True)
        assert (plain.format, plain.size) == ("PNG", (80, 50))
    assert main(["run", "photos/b.png", QUERY, "--overlay-style", "nice"]) == 2


def test_pictures_of_one_name_have_files_of_their_own(
    opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("left", "right"):
        Path(folder).mkdir()
        Image.fromarray(np.full((40, 80, 3), 200, np.uint8)).save(Path(folder, "x.png"))
    assert main(["run", "left", "right", QUERY, "--out", "out"]) == 0
    assert sorted(file.name for file in Path("out").iterdir()) == ["left_x-overlay.png", "right_x-overlay.png"]


def test_ctrl_c_keeps_what_was_written(opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]) -> None:
    def write(image: npt.NDArray[np.uint8], *_: str) -> str:
        if len(image) == 60:
            raise KeyboardInterrupt
        return fake_session.completion()

    opened.policy.write = write
    assert main(["run", "photos", QUERY, "--json", "--out", "out", "--save", "mask,coco"]) == 130
    out, err = capsys.readouterr()
    assert [json.loads(line)["image"] for line in out.splitlines()] == ["photos/a.jpg", "photos/b.png"]
    assert "4 pictures: 2 found, 1 skipped, 1 not reached" in err
    assert {file.name for file in Path("out").iterdir()} == {"a-mask.png", "b-mask.png", "coco.json"}
    assert len(json.loads(Path("out/coco.json").read_text())["images"]) == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["photos", "--mask", "m.png"], "--mask writes one file, and there are 4 pictures; pass --out DIR --save mask"),
        (["photos", "--overlay", "o.jpg"], "--overlay writes one file, and there are 4 pictures"),
        (["photos", "--save", "mask"], "--save needs a folder; add --out DIR"),
        (["photos", "--out", "out", "--save", "masks"], "unknown kind 'masks'; choose one of overlay, mask, cutout"),
        (["photos", "--out", "photos"], "--out photos is where the pictures are; choose another folder"),
        (["photos", "--out", "./photos/../photos"], "is where the pictures are"),
        (["photos", "--out", "earlier"], "earlier/d-overlay.jpg exists; use --force to replace it"),
        (["photos", "--out", "earlier", "--save", "coco"], "earlier/coco.json exists; use --force to replace it"),
        (["photos", "--out", "photos/a.jpg"], "for one file use --overlay photos/a.jpg"),
        (["photos", "--out", "earlier/coco.json"], "cannot create the folder earlier/coco.json"),
        (["photos/a.jpg", "--out", "new.PNG"], "--out is a folder, and new.PNG looks like a picture"),
        (
            ["photos/a.jpg", "--out", "earlier", "--save", "mask", "--mask", "earlier/a-mask.png"],
            "choose another name for one",
        ),
        (["photos/a.jpg", "photos/gone.jpg"], "photos/gone.jpg does not exist"),
    ],
)
def test_what_can_be_known_is_said_before_the_first_picture(
    arguments: list[str],
    line: str,
    opened: fake_session.Opened,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("earlier").mkdir()
    for name in ("d-overlay.jpg", "coco.json"):
        Path("earlier", name).write_bytes(b"mine")
    before = {file: file.read_bytes() for file in Path().rglob("*") if file.is_file()}
    monkeypatch.setattr(sources, "read_picture", lambda *_: pytest.fail("a picture was read"))
    first = next((place for place, word in enumerate(arguments) if word.startswith("--")), len(arguments))
    assert main(["run", *arguments[:first], QUERY, *arguments[first:]]) == 2
    out, err = capsys.readouterr()
    assert line in err and err.count("\n") == 1 and out == ""
    assert {file: file.read_bytes() for file in Path().rglob("*") if file.is_file()} == before
    assert opened.calls == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["photos"], "no query for photos; add one: wise-edge run photos 'the red ring'"),
        (["-"], "no query for -; add one"),
        (["a photo.jpg"], "no query for 'a photo.jpg'; add one"),
        (["the mug"], "no picture for the query 'the mug'; pass one first: wise-edge run photo.jpg 'the mug'"),
        (["photos/a.jpg", "photos/b.png"], "the last argument is the query, and photos/b.png is a picture"),
        (["photos/a.jpg", "the", "red", "mug"], "put the query in quotes: wise-edge run photos/a.jpg 'the red mug'"),
        (["photos/a.jpg", "left-most", "mug"], "there is no picture 'left-most'; if it belongs to the query"),
        (["the mug", "photos/a.jpg"], "the order is IMAGE... QUERY: wise-edge run photos/a.jpg 'the mug'"),
        (["mug", "a.jpg", "b.jpg"], "the order is IMAGE... QUERY: wise-edge run a.jpg b.jpg mug"),
        (["none.jpg", "mug"], "none.jpg does not exist; pass an image file"),
        (["mugs", "mug"], "mugs does not exist; pass an image file"),
    ],
)
def test_words_that_are_mixed_up_are_explained(
    words: list[str], line: str, opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *words]) == 2
    out, err = capsys.readouterr()
    assert line in err and err.count("\n") == 1 and out == ""
    assert opened.calls == []


@pytest.mark.parametrize("query", ["what is in photo.jpg", "photos", "notes.txt"])
def test_a_query_may_look_like_a_file(
    query: str, opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "photos/a.jpg", query, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["query"] == query


def test_standard_input_is_a_picture_or_a_list(
    opened: fake_session.Opened, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pipe(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    pipe(Path("photos/a.jpg").read_bytes())
    assert main(["run", "-", QUERY, "--json", "--out", "out"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["image"], data["image_size"]) == ("-", [80, 40])
    assert [file.name for file in Path("out").iterdir()] == ["stdin-overlay.png"]

    pipe(b"photos/a.jpg\nphotos/d.jpg\n")
    assert main(["run", "@-", QUERY]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2

    pipe(b"photos/a.jpg\n")
    assert main(["run", "-", QUERY]) == 2
    assert capsys.readouterr().err.endswith("; if it lists paths of pictures, pass @-\n")


def test_force_leaves_no_mask_of_an_earlier_answer(
    opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["run", "photos/a.jpg", QUERY, "--mask", "mask.png", "--out", "out", "--save", "cutout,overlay", "--force"]
    assert main(run) == 0
    assert Path("mask.png").exists() and Path("out/a-cutout.png").exists()
    opened.policy.write = lambda *_: "no idea"
    assert main(run) == 0
    assert not Path("mask.png").exists() and not Path("out/a-cutout.png").exists()
    assert Path("out/a-overlay.jpg").exists()


def test_force_never_replaces_a_picture(opened: fake_session.Opened, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a-mask.png").write_bytes(Path("photos/b.png").read_bytes())
    before = Path("a-mask.png").read_bytes()
    Path("link").symlink_to(".")
    run = ["run", "photos/a.jpg", "link/a-mask.png", QUERY, "--out", "out", "--save", "mask", "--force"]
    Path("out").mkdir()
    Path("out/a-mask.png").symlink_to("../a-mask.png")
    assert main(run) == 2
    assert "would replace what this command reads" in capsys.readouterr().err
    assert Path("a-mask.png").read_bytes() == before


def test_pictures_are_never_all_in_memory(
    opened: fake_session.Opened, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alive, most = 0, 0
    read = sources.read_picture

    def counted(*about: Any) -> npt.NDArray[np.uint8]:
        nonlocal alive, most
        image = read(*about)
        alive += 1
        most = max(most, alive)
        weakref.finalize(image, gone)
        return image

    def gone() -> None:
        nonlocal alive
        alive -= 1

    monkeypatch.setattr(sources, "read_picture", counted)
    for number in range(12):
        Image.fromarray(np.full((40, 80, 3), number, np.uint8)).save(Path("photos", f"{number:02d}.png"))
    assert main(["run", "photos/*.png", QUERY]) == 0
    assert most <= 3  # the one that is answered, the next one, and the one that the session remembers


def test_no_picture_is_decoded_while_energy_is_measured(
    opened: fake_session.Opened, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rails = PowerSource("rails", "power", ("VDD_IN",), (0,), None, 0.002, lambda: (10.0,), (None,))
    world, events, read = VirtualTime(), [], sources.read_picture
    monkeypatch.setattr(QueryMeter, "find", lambda on_gpu: QueryMeter(rails, **world.options))
    monkeypatch.setattr(sources, "read_picture", lambda *about: events.append("read") or read(*about))

    def write(*_: Any) -> str:
        events.append("asked")
        world.pause(0.4)
        return fake_session.completion()

    opened.policy.write = write
    assert main(["run", "photos/a.jpg", "photos/b.png", QUERY, "--energy"]) == 0
    assert events == ["read", "asked", "read", "asked"]
    assert all(line.endswith("; 4 J") for line in capsys.readouterr().out.splitlines())


def test_the_demo_models_say_once_what_they_do_not_know(
    opened: fake_session.Opened, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Bundle, "is_embedded", True)
    Image.fromarray(sample("test", 0).scene.image).save("scene.png")
    assert main(["run", "scene.png", QUERY, "--json"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["run", "photos/a.jpg", QUERY, "--json"]) == 0
    line = "note: built-in demo model: it knows only synthetic shapes"
    assert capsys.readouterr().err.startswith(line)
    assert main(["run", "scene.png", "photos/a.jpg", "photos/b.png", QUERY, "--json"]) == 0
    assert capsys.readouterr().err.count(line) == 1
    assert main(["run", "scene.png", "the elephant", "--json"]) == 0
    assert capsys.readouterr().err.count(line) == 1


def test_explain_says_once_what_was_chosen(
    opened: fake_session.Opened,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["run", "photos/a.jpg", "photos/b.png", QUERY, "--explain", "--deadline-ms", "60000"]) == 0
    err = capsys.readouterr().err
    assert err.count("policy fake: the test asked for it\n") == 1
    assert err.count("deadline 60000 ms met; ") == 1


def test_what_queries_took_is_kept_once_whatever_ends_the_run(
    opened: fake_session.Opened,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    written: list[Path] = []
    write_history = LatencyHistory.write
    monkeypatch.setattr(LatencyHistory, "write", lambda *about: written.append(about[1]) or write_history(*about))

    def write(image: npt.NDArray[np.uint8], *_: str) -> str:
        if len(image) == 60:
            raise KeyboardInterrupt
        return fake_session.completion()

    opened.policy.write = write
    assert main(["run", "photos", QUERY, "--deadline-ms", "60000"]) == 130
    (file,) = written
    assert json.loads(file.read_text())["all"]["query_ms"] == [pytest.approx(11.0)] * 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_the_terminal_takes_nothing_of_a_redirected_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, file = Terminal(), io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", file)
    with counting("pictures", 3) as count:
        print("a line")
        count()
    assert file.getvalue() == "a line\n"
    assert "1/3" in terminal.getvalue() and "a line" not in terminal.getvalue()


def test_nothing_moves_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with counting("pictures", 3) as count:
        count()
    assert capsys.readouterr() == ("", "")
