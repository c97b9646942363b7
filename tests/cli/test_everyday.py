"""The everyday commands of the README and the pages, as somebody types them into a terminal of 80 columns.

Commands are read out of the pages, and run in a folder with the files that the pages name.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pexpect
import pytest
from PIL import Image

import shown
from locations import ROOT
from robot.movies import encode, pan
from wise_edge.scenes.recognition import OTHER_QUERY

DOCS, ASSETS = ROOT / "docs", ROOT / "wise_edge" / "assets"
COLUMNS, PATIENCE_S = 80, 120
WHOLE = re.compile(r"(note|error|warning|skipped): |\{|\S+\.jpg: |same as |bundle\.json sha256:")
"""How lines begin that a terminal may break: sentences with paths, JSON, and what is copied, a command or a hash."""
FILE_OPTIONS = {"--overlay", "--mask", "--jsonl", "--out", ">"}


class Terminal:
    """Bash in a terminal of 80 columns, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        env = {name: value for name, value in os.environ.items() if not name.startswith(("WISE_EDGE", "XDG"))}
        for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "CI"):
            env.pop(name, None)
        path = f"{Path(sys.executable).parent}:{env['PATH']}"
        here = {"PATH": path, "HOME": str(folder), "PYTHONPATH": str(ROOT)}
        self._env = {**env, **here, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}

    @contextmanager
    def started(self, line: str) -> Iterator[pexpect.spawn]:
        opened = pexpect.spawn(
            "bash",
            ["-c", line],
            cwd=str(self.folder),
            env=self._env,
            dimensions=(24, COLUMNS),
            encoding="utf-8",
            timeout=PATIENCE_S,
        )
        try:
            yield opened
        finally:
            opened.close(force=True)

    def type(self, line: str, code: int = 0) -> list[str]:
        """Run a line to its end, and return the lines that are then on the terminal."""
        with self.started(line) as opened:
            opened.expect(pexpect.EOF)
            opened.wait()
            seen = on_screen(opened.before)
        text = "\n".join(seen)
        assert opened.exitstatus == code, f"{line}: exit code {opened.exitstatus}\n{text}"
        assert "Traceback" not in text and "internal error" not in text, text
        wide = [each for each in seen if len(each) > COLUMNS and not WHOLE.match(each)]
        assert not wide, f"{line}: wider than the terminal: {wide}"
        assert not re.search(r"\d…|…\d", text), f"{line}: a figure is cut\n{text}"
        return seen


def on_screen(written: str) -> list[str]:
    """Return what a terminal shows in the end: bars go back to the start of a line, erase it, or go up."""
    lines, row = [""], 0
    for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if piece == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
            column = 0
        elif piece == "\r":
            column = 0
        elif piece.endswith("A") and piece.startswith("\x1b"):
            row = max(0, row - int(piece[2:-1] or 1))
        elif piece.endswith("K"):
            lines[row] = ""
        elif not piece.startswith("\x1b"):
            column = 0 if not lines[row] else column
            lines[row] = lines[row][:column].ljust(column) + piece + lines[row][column + len(piece) :]
            column += len(piece)
    return [line.rstrip() for line in lines if line.strip()]


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """A terminal where the files are that the pages name; the pictures are the README's."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "photos" / "desk").mkdir(parents=True)
    shutil.copy(DOCS / "scene.png", tmp_path / "docs")
    with Image.open(DOCS / "scene.png") as scene:
        for name in ("photo", "left", "right", "photos/wall", "photos/desk/mug"):
            scene.convert("RGB").save(tmp_path / f"{name}.jpg", quality=95)
    (tmp_path / "last").touch()
    os.utime(tmp_path / "last", (0, 0))
    return Terminal(tmp_path)


def first(page: Path, start: str) -> str:
    """Return the first command of a page that begins so, without its comment."""
    found = next((line for line in shown.lines(page) if line.startswith(start)), None)
    assert found, f"{page.name} shows no '{start}'"
    return found.split("  #")[0].strip()


def check_files(folder: Path, line: str) -> None:
    """Fail unless everything that a command was to write is there, and pictures can be opened."""
    words = shlex.split(line)
    for option, name in pairwise(words):
        if option not in FILE_OPTIONS:
            continue
        made = folder / name
        files = sorted(made.iterdir()) if made.is_dir() else [made]
        assert files and all(file.stat().st_size for file in files), line
        for file in files:
            if file.suffix in (".png", ".jpg"):
                with Image.open(file) as picture:
                    picture.load()
            elif file.suffix == ".jsonl":
                assert all(json.loads(each)["version"] for each in file.read_text().splitlines())


def test_the_first_query_of_the_readme(terminal: Terminal) -> None:
    line = first(ROOT / "README.md", "wise-edge run docs/scene.png")

    seen = terminal.type(line)

    (printed,) = [block for block in shown.blocks(ROOT / "README.md", "text") if block.startswith("query ")]
    measured = r"^(latency|  )|score"
    assert [each for each in seen if not re.search(measured, each)] == [
        each.rstrip() for each in printed.splitlines() if not re.search(measured, each)
    ]
    check_files(terminal.folder, line)


def test_the_readmes_pictures_and_video(terminal: Terminal) -> None:
    encode(terminal.folder / "street.mp4", pan(3, 6).images)
    for start in ("wise-edge run photos", "wise-edge track street.mp4"):
        line = first(ROOT / "README.md", start)
        terminal.type(line)
        check_files(terminal.folder, line)


def test_the_readmes_python(terminal: Terminal) -> None:
    code = next(block for block in shown.blocks(ROOT / "README.md", "python") if "Session" in block)
    (terminal.folder / "readme.py").write_text(code)

    seen = terminal.type("python readme.py")

    assert seen[0] == "The only small dotted object is at the left: small dotted blue ring."
    assert seen[1].startswith("(46, 104, 94, 152) ")
    with Image.open(terminal.folder / "overlay.jpg") as drawn:
        assert drawn.size == (224, 224)


@pytest.mark.parametrize("line", [line for line in shown.lines(DOCS / "pictures.md") if "wise-edge run" in line])
def test_pictures_as_their_page_shows_them(line: str, terminal: Terminal) -> None:
    line = re.sub(r"^curl -s \S+", "cat photo.jpg", line)  # no camera here

    seen = terminal.type(line)

    check_files(terminal.folder, line)
    noted = {each for each in seen if each.startswith("note: built-in")}
    assert noted <= {f"note: {OTHER_QUERY}"}  # a scene is what the embedded models know, a mug is not


def test_a_video_as_its_page_shows_it(terminal: Terminal) -> None:
    encode(terminal.folder / "street.mp4", pan(3, 6).images)
    line = first(DOCS / "video.md", "wise-edge track street.mp4")

    seen = terminal.type(line)

    assert seen[-1].startswith("6 frames, ") and "0 dropped" in seen[-1]
    assert len((terminal.folder / "van.jsonl").read_text().splitlines()) == 6
    check_files(terminal.folder, line)


def test_the_service_answers_the_curl_line_of_its_page(terminal: Terminal) -> None:
    page = DOCS / "robot.md"
    asked = [first(page, "curl -o example.png"), first(page, "curl -F image=@example.png -F query=")]
    with terminal.started(f"{first(page, 'wise-edge serve')} --port 0") as serving:
        serving.expect(r"serving (http://127\.0\.0\.1:\d+)")
        address = serving.match[1]
        lines = [line.replace("http://127.0.0.1:8020", address).replace("curl", "curl -s") for line in asked]
        answer = json.loads("".join(terminal.type(" && ".join(lines))))
        serving.sendintr()
        serving.expect(pexpect.EOF)
        serving.wait()
    assert answer["status"] == "found" and answer["objects"]
    assert serving.exitstatus == 0
    assert [line.split()[2:5] for line in on_screen(serving.before) if "/v1/segment" in line] == [
        ["POST", "/v1/segment", "200"]
    ]


@pytest.mark.parametrize(
    ("page", "start", "more"),
    [
        ("measure.md", "wise-edge evaluate --dataset scenes", "--limit 2"),
        pytest.param("training.md", "wise-edge train --recipe embedded-policy", "--dry-run", marks=pytest.mark.slow),
        ("measure.md", "wise-edge profile plan", ""),
        ("gpu.md", "wise-edge doctor", ""),
        ("bundle.md", "wise-edge bundle verify", ""),
    ],
)
def test_a_table_fits_the_terminal(page: str, start: str, more: str, terminal: Terminal) -> None:
    line = re.sub(r"--limit \d+", "", first(DOCS / page, start)).replace("build/q8", "embedded")
    before = sorted(terminal.folder.rglob("*"))

    seen = terminal.type(f"{line} {more}")

    assert len(seen) > 2
    assert sorted(terminal.folder.rglob("*")) == before  # nothing was asked to be written


@pytest.mark.slow  # torch and transformers are imported
def test_setup_says_what_it_would_do(terminal: Terminal) -> None:
    line = first(DOCS / "setup.md", "wise-edge setup")
    _, _, policy, segmenter, *_ = line.split()
    shutil.copytree(ASSETS / "embedded-policy", terminal.folder / policy)
    shutil.copytree(ASSETS / "embedded-sam", terminal.folder / segmenter)

    seen = terminal.type(line)

    known = {"device", "policy", "segmenter", "plan", "why", "memory", "disk", "time"}
    assert known <= {each.split()[0] for each in seen}
    assert not list(terminal.folder.glob("*gguf*"))


def test_help_and_version(terminal: Terminal) -> None:
    for line in ("wise-edge -h", "wise-edge run -h"):
        assert terminal.type(line)[0].startswith("Usage: wise-edge")
    assert re.match(r"wise-edge +\d+\.\d+", terminal.type("wise-edge --version --verbose")[0])


def test_completion_as_its_page_installs_it(terminal: Terminal) -> None:
    line = first(DOCS / "command-line.md", "wise-edge completion bash")
    script = line.split("> ")[1]
    Path(script.replace("~", str(terminal.folder))).parent.mkdir(parents=True)

    terminal.type(line)

    assert terminal.type(f"source {script} && complete -p wise-edge") == [
        "complete -o nosort -F _wise_edge wise-edge",
    ]


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        (
            "wise-edge run photo.jpg",
            2,
            "error: no query for photo.jpg; add one: wise-edge run photo.jpg 'the red ring'",
        ),
        ("wise-edge run gone.jpg 'the mug'", 2, "error: gone.jpg does not exist"),
        ("wise-edge run photo.jpg 'the mug' --mask photo.jpg", 2, "error: photo.jpg"),
        ("wise-edge serve --bundle gone --port 0", 2, "error: gone "),
        (
            "wise-edge profile --out report.pdf",
            2,
            "error: --out report.pdf: unknown report type; use .html, .json or .csv",
        ),
        ("wise-edge evaluate --dataset reasonseg", 2, "error: --dataset reasonseg needs --data DIR"),
    ],
)
def test_a_mistake_is_told_in_one_line(line: str, code: int, says: str, terminal: Terminal) -> None:
    (seen,) = terminal.type(line, code)
    assert seen.startswith(says)
