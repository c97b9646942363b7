"""The gallery: which samples, in which order, what their pictures show, and a page that is safe to open."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import fake_session
from dataset_files import image_bytes
from own_files import write_rows
from squares import format_answer, one_object
from wise_edge.cli.main import main
from wise_edge.evaluation.gallery import PICTURE_PX, VERDICTS, Run, choose, judge
from wise_edge.evaluation.records import MaskRecord, Record, Settings
from wise_edge.metrics import measure_overlap

SIDE = fake_session.SQUARE
SETTINGS = Settings("table", "own", 9, "gres", "predicted", "wise-s", "0" * 64, {"policy": "fake", "mask": "fake"})
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BOXES = {
    "the mug": (10, 10, 30, 30),  # right
    "the bowl": (50, 10, 70, 30),  # half beside it
    "the plate": (0, 90, 10, 100),  # elsewhere
    '<script>alert(1)</script> & "it\'s"': (60, 60, 80, 80),
}
"""Query to the box that the policy writes and the segmenter fills; of others it writes nothing that can be read."""
TRUTHS = {
    "the mug": (10, 10, 30, 30),
    "the bowl": (60, 10, 80, 30),
    "the plate": (80, 80, 100, 100),
    '<script>alert(1)</script> & "it\'s"': (62, 60, 80, 80),
    "what it cannot read": (5, 5, 20, 20),
}


def _square(x1: int, y1: int, x2: int, y2: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def _record(index: int, iou: float, **changes: Any) -> Record:
    overlap = asdict(measure_overlap(_square(0, 0, 10, 10), _square(0, 0, 10, 10), None, "lisa")) | {"iou": iou}
    record = Record(
        index, f"{index}", None, "q", **overlap, score=0.9, latency_ms={"total": 1.0}, mask=None, meant=1, found=1,
        answer_valid=True, box_iou=iou, rationale_tokens=3, answer_tokens=4, text="",
    )  # fmt: skip
    return replace(record, **changes)


@pytest.mark.parametrize(
    ("verdict", "record"),
    [
        ("unreadable", _record(0, 0.0, answer_valid=False, found=None)),
        ("nothing", _record(0, 0.0, found=0)),
        ("good", _record(0, 1.0, found=0, meant=0)),
        ("number", _record(0, 0.0, found=1, meant=0)),
        ("number", _record(0, 0.8, found=2, meant=3)),
        ("wrong", _record(0, 0.5)),
        ("wrong", _record(0, 0.9, box_iou=0.5)),
        ("loose", _record(0, 0.69)),
        ("good", _record(0, 0.7)),
        ("good", _record(0, 0.9, found=None, meant=None)),
        ("loose", MaskRecord(0, "0", None, "q", 1, 2, 0.5, None, None, {}, None)),
    ],
)
def test_verdicts(verdict: str, record: MaskRecord) -> None:
    assert judge(record) == verdict
    assert verdict in VERDICTS


def test_the_worst_come_first_and_dropped_ones_never() -> None:
    ious = [0.9, 0.2, 0.7, 0.2, 0.0]
    records = [_record(index, iou) for index, iou in enumerate(ious)]
    records[4] = replace(records[4], dropped="damaged")
    (run,) = [Run("a", SETTINGS, records)]
    assert [records[0].index for records in choose([run], 10)] == [1, 3, 2, 0]
    assert [records[0].index for records in choose([run], 2)] == [1, 3]


def test_of_two_runs_what_the_second_lost_comes_first() -> None:
    first = [_record(index, iou) for index, iou in enumerate([0.9, 0.2, 0.7, 0.5])]
    second = [_record(index, iou) for index, iou in enumerate([0.8, 0.9, 0.1, 0.5])]
    chosen = choose([Run("a", SETTINGS, first), Run("b", SETTINGS, second)], 3)
    assert [[record.iou for record in records] for records in chosen] == [[0.7, 0.1], [0.9, 0.8], [0.5, 0.5]]


class _Page(HTMLParser):
    """What a browser finds in a page.

    Attributes:
        tags: name and attributes of each element that opens.
        words: all text outside of styles.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data if not self.tags or self.tags[-1][0] != "style" else ""

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def pictures(self) -> list[npt.NDArray[np.uint8]]:
        files = [str(each["src"]).removeprefix("data:image/jpeg;base64,") for each in self.of("img")]
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(file, validate=True)))) for file in files]


@pytest.fixture(autouse=True)
def _data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Write the truths as a table into the current folder, and answer as `BOXES` says."""

    def write(image: Any, query: str, variant: str) -> str:
        box = BOXES.get(query)
        if box is None:
            return "I do not know </pre><img src=x onerror=alert(1)>"
        answer = format_answer(one_object(box, ((box[0], box[1]), (box[0], box[1]))))
        return fake_session.completion("It is <b>there</b>.", answer)

    fake_session.install(monkeypatch, write)
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(image_bytes(np.full((SIDE, SIDE, 3), 90, np.uint8), "PNG"))
    rows = []
    for number, (query, box) in enumerate(TRUTHS.items()):
        Path(f"{number}.png").write_bytes(image_bytes(_square(*box), "PNG"))
        rows.append({"picture": "a.png", "mask": f"{number}.png", "sentence": query})
    rows.append({"picture": "a.png", "mask": "gone <i>.png", "sentence": "gone"})
    write_rows(Path("own.csv"), rows)


OWN = ("--dataset", "table", "--data", "own.csv")


def _evaluate(*arguments: str) -> None:
    assert main(["evaluate", *OWN, *arguments]) == 0


def test_a_page_of_a_run_shows_truth_and_answer_of_each_sample() -> None:
    _evaluate("--gallery", "page.html")
    page = _Page(Path("page.html").read_text())
    queries = list(TRUTHS)
    assert [
        page.words.index(query) for query in (queries[2], queries[4], queries[1], queries[3], queries[0])
    ] == sorted(page.words.index(query) for query in queries), "by rising IoU"
    pictures = page.pictures()
    assert len(pictures) == 2 * len(TRUTHS)
    for picture, query in zip(pictures[::2], (queries[2], queries[4], queries[1], queries[3], queries[0]), strict=True):
        _check_drawn(picture, TRUTHS[query])
    for picture, query in zip(
        pictures[1::2], (queries[2], queries[4], queries[1], queries[3], queries[0]), strict=True
    ):
        _check_drawn(picture, BOXES.get(query))
    for words in ("5 of 5 samples", "unreadable: 1", "wrong object: 2", "good: 2", "1 left out", "gone <i>.png"):
        assert words in page.words


def _check_drawn(picture: npt.NDArray[np.uint8], box: tuple[int, int, int, int] | None) -> None:
    """Check that the inside of a box alone is tinted."""
    changed = np.abs(picture.astype(int) - 90).max(axis=2) > 5
    if box is None:
        assert not changed.any()
        return
    x1, y1, x2, y2 = box
    assert changed[y1 + 3 : y2 - 3, x1 + 3 : x2 - 3].all()
    changed[max(0, y1 - 12) : y2 + 12, max(0, x1 - 12) : x2 + 12] = False  # the contour, and blocks of JPEG
    assert not changed.any()


@pytest.mark.parametrize("mode", ["gres", "paper"])
def test_ignored_regions_are_faded_and_meant_where_they_count(mode: str) -> None:
    def outline(x1: int, y1: int, x2: int, y2: int) -> list[list[int]]:
        return [[x1, y1, x2, y1, x2, y2, x1, y2]]

    mug, crowd = TRUTHS["the mug"], (60, 60, 90, 90)
    own = {"image_id": 1, "category_id": 1}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": SIDE, "height": SIDE}],
        "categories": [{"id": 1, "name": "the mug"}],
        "annotations": [
            own | {"id": 1, "iscrowd": 0, "segmentation": outline(*mug)},
            own | {"id": 2, "iscrowd": 1, "segmentation": outline(*crowd)},
        ],
    }
    Path("own.json").write_text(json.dumps(content))
    assert main(["evaluate", "--data", "own.json", "--metric-mode", mode, "--gallery", "page.html"]) == 0
    page = _Page(Path("page.html").read_text())
    truth, answer = page.pictures()
    assert ("what is faded does not count" in page.words) == (mode == "gres")
    _check_drawn(answer[:50, :50], BOXES["the mug"])
    _check_drawn(truth[:50, :50], BOXES["the mug"])
    x1, y1, x2, y2 = crowd
    inside = np.s_[y1 + 4 : y2 - 4, x1 + 4 : x2 - 4]
    if mode == "gres":  # gray stays gray, at another level
        for picture in (truth, answer):
            assert np.ptp(picture[inside].astype(int), axis=2).max() < 6
            assert 130 < picture[inside].mean() < 150
    else:
        assert np.ptp(truth[inside].astype(int), axis=2).min() > 6, "tinted"
        assert abs(answer[inside].mean() - 90) < 4


def test_texts_are_escaped_and_nothing_is_fetched() -> None:
    _evaluate("--gallery", "page.html")
    text = Path("page.html").read_text()
    page = _Page(text)
    assert {name for name, _ in page.tags}.isdisjoint({"script", "i", "b", "iframe", "object"})
    assert all(str(each["src"]).startswith("data:image/jpeg;base64,") for each in page.of("img"))
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert not re.search(r"https?:|@import|url\(", text)
    for words in ('<script>alert(1)</script> & "it\'s"', "It is <b>there</b>.", "</pre><img src=x onerror=alert(1)>"):
        assert words in page.words


def test_filters_name_the_cases_that_they_show() -> None:
    _evaluate("--gallery", "page.html")
    page = _Page(Path("page.html").read_text())
    shown = [str(each["id"]).removeprefix("show-") for each in page.of("input")]
    cases = [str(each["class"]).split()[1] for each in page.of("section") if "case" in str(each.get("class"))]
    assert shown == ["all", "unreadable", "wrong", "good"]
    assert sorted(set(cases)) == sorted(shown[1:])
    rules = Path("page.html").read_text()
    assert all(f"#show-{name}:checked ~ .cases > :not(.{name})" in rules for name in shown[1:])
    assert [each["for"] for each in page.of("label")] == [f"show-{name}" for name in shown]


def test_a_page_is_made_of_records_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _evaluate("--out", "run.jsonl", "--gallery", "page.html")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was opened")

    monkeypatch.setattr("wise_edge.runtimes.session.Session.from_bundle", refuse)
    assert main(["evaluate", "gallery", "run.jsonl", "--data", "own.csv", "--out", "again.html", "--worst", "3"]) == 0
    assert re.fullmatch(r"gallery: again.html, \d+ kB", capsys.readouterr().err.splitlines()[-1])
    whole, again = (_Page(Path(name).read_text()) for name in ("page.html", "again.html"))
    assert [each["src"] for each in again.of("img")] == [each["src"] for each in whole.of("img")][:6]
    assert "3 of 5 samples" in again.words and "all: 3 of 5" in again.words


def test_what_takes_long_is_counted_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    _evaluate("--out", "run.jsonl")
    assert main(["evaluate", "gallery", "run.jsonl", "--data", "own.csv"]) == 0
    said = terminal.getvalue()
    places = [said.index(words) for words in ("files of the data", "samples", "pictures of the gallery", "gallery: ")]
    assert places == sorted(places)
    assert said.count("7/7") >= 2 and said.count("5/5") >= 2, "table, picture and 5 masks; 5 samples"


def test_two_runs_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    _evaluate("--out", "a.jsonl")
    lines = Path("a.jsonl").read_text().splitlines()
    record = json.loads(lines[1])
    lines[1] = json.dumps(record | {"iou": 0.0, "intersection_px": 0, "union_px": 800, "box_iou": 0.0, "mask": None})
    Path("b.jsonl").write_text("\n".join(lines) + "\n")
    assert main(["evaluate", "gallery", "a.jsonl", "b.jsonl", "--data", "own.csv"]) == 0
    page = _Page(Path("gallery.html").read_text())
    assert len(page.of("img")) == 3 * len(TRUTHS)
    first = page.words.index("the mug")
    assert first < min(page.words.index(query) for query in list(TRUTHS)[1:]), "what b lost"
    assert "b: nothing, IoU 0.00" in page.words and "a, IoU 1.00" in page.words and "-0.200" in page.words


def test_small_objects_are_cut_out_of_large_pictures() -> None:
    picture, mask = np.full((1080, 1920, 3), 90, np.uint8), np.zeros((1080, 1920), bool)
    mask[1000:1040, 1800:1860] = True
    Path("a.png").write_bytes(image_bytes(picture, "PNG"))
    Path("0.png").write_bytes(image_bytes(mask, "PNG"))
    write_rows(Path("own.csv"), [{"picture": "a.png", "mask": "0.png", "sentence": "what it cannot read"}])
    _evaluate("--gallery", "page.html")
    page = _Page(Path("page.html").read_text())
    truth, answer = page.pictures()
    assert truth.shape == answer.shape == (PICTURE_PX * 1080 // 1920, PICTURE_PX, 3)
    changed = np.abs(truth.astype(int) - 90).max(axis=2) > 5
    assert 0.02 < changed.mean() < 0.05, "of the whole picture it is 0.1 %"
    assert "truth, cut out: 21% of the picture's width" in page.words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gallery", "page.txt"], "a gallery is an HTML page; choose a name that ends in .html, not page.txt"),
        (["--gallery", "old.html"], "old.html exists; use --force to replace it"),
        (["--gallery", "no/page.html"], "the folder no does not exist"),
        (["--gallery", "old.html", "--out", "r.jsonl", "--resume"], "run 'wise-edge evaluate gallery r.jsonl --force'"),
    ],
)
def test_pages_that_cannot_be_written_are_refused_before_the_work(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def reach(*_: object, **__: object) -> None:
        raise AssertionError("the work was reached")

    monkeypatch.setattr("wise_edge.evaluation.evaluate.evaluate_session", reach)
    Path("old.html").write_text("kept")
    assert main(["evaluate", *OWN, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert Path("old.html").read_text() == "kept"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: Path("a.png").write_bytes(Path("0.png").read_bytes()), "is not the data of"),
        (lambda: Path("run.jsonl").write_text(""), "run.jsonl has no records"),
        (lambda: Path("own.csv").write_text("picture,mask,sentence\na.png,0.png,the mug\n"), "has 1 to 1 samples"),
    ],
)  # fmt: skip
def test_records_of_other_data(change: Any, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    _evaluate("--out", "run.jsonl")
    change()
    assert main(["evaluate", "gallery", "run.jsonl", "--data", "own.csv"]) == 2
    assert message in capsys.readouterr().err
    assert not Path("gallery.html").exists()


def test_records_without_their_data_say_what_they_are_of(capsys: pytest.CaptureFixture[str]) -> None:
    _evaluate("--out", "run.jsonl")
    assert main(["evaluate", "gallery", "run.jsonl"]) == 2
    assert "run.jsonl is of table/own; pass that data with --data" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_draws_it_without_a_complaint(tmp_path: Path, dark: bool) -> None:
    _evaluate("--gallery", "page.html")
    shot = tmp_path / "page.png"
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --hide-scrollbars"
    options = [*flags.split(), f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1180,1600"]
    options += ["--enable-logging=stderr", *(["--blink-settings=preferredColorScheme=0"] if dark else [])]
    command = [str(CHROMIUM), *options, f"--screenshot={shot}", Path("page.html").resolve().as_uri()]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in told.stderr
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    assert (pixels[5, 5].mean() < 60) == dark
    assert (np.abs(pixels.astype(int) - 90).max(axis=2) < 4).mean() > 0.1, "the pictures"
