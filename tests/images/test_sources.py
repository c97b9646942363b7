"""Which pictures the names of a command line stand for."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from wise_edge.errors import UsageError
from wise_edge.images import Say, sources
from wise_edge.images.sources import find_images, find_pictures, read_each, read_picture


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.PNG", "notes.txt", "._b.jpg", "sub/deep/c.jpg", "odd[1].jpg", "empty/notes.txt"):
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Path("photos", name).touch()


def pipe(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


IN_FOLDER = ["photos/a.PNG", "photos/b.jpg", "photos/odd[1].jpg"]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["photos/b.jpg", "photos/a.PNG"], ["photos/b.jpg", "photos/a.PNG"]),
        (["photos"], IN_FOLDER),
        (["photos/"], IN_FOLDER),
        (["photos/b.jpg", "photos", "./photos/b.jpg"], ["photos/b.jpg", "photos/a.PNG", "photos/odd[1].jpg"]),
        (["photos/*"], IN_FOLDER),
        (["photos/*.jpg"], ["photos/b.jpg", "photos/odd[1].jpg"]),
        (["photos/**"], [*IN_FOLDER, "photos/sub/deep/c.jpg"]),
        (["photos/**/c.jpg"], ["photos/sub/deep/c.jpg"]),
        (["**/b.jpg"], ["photos/b.jpg"]),
        (["p*/**/deep/*"], ["photos/sub/deep/c.jpg"]),
        (["photos/**/deep/**"], ["photos/sub/deep/c.jpg"]),
        (["photos/od**.jpg"], ["photos/odd[1].jpg"]),
        (["photos/odd[1].jpg"], ["photos/odd[1].jpg"]),
        (["photos/notes.txt"], ["photos/notes.txt"]),  # what is named is read, whatever its name
        (["-", "photos/b.jpg"], ["-", "photos/b.jpg"]),
    ],
)
def test_names_stand_for_pictures(names: list[str], found: list[str]) -> None:
    assert find_pictures(names) == found


def test_links_that_lead_in_circles_are_not_followed() -> None:
    Path("photos/up").symlink_to("..")
    Path("photos/sub/up").symlink_to("../..")
    Path("photos/.hidden").mkdir()
    Path("photos/.hidden/x.jpg").touch()
    assert find_pictures(["photos/**"]) == [*IN_FOLDER, "photos/sub/deep/c.jpg"]
    assert find_pictures(["photos/up/photos/b.jpg", "photos/up/*/b.jpg"]) == ["photos/up/photos/b.jpg"]


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["none.jpg"], "none.jpg does not exist"),
        (["photos/b.jpg/x.jpg"], "cannot read photos/b.jpg/x.jpg: Not a directory"),
        (["x" * 300], "File name too long"),
        (["photos/empty"], "photos/empty contains no images; their names end in .png"),
        (["photos/*.txt"], "photos/*.txt matches no image"),
        (["https://example.org/x.jpg"], "is an address; download the picture, or pipe it: curl"),
        (["-", "photos/b.jpg", "-"], "standard input can be read once"),
        (["-", "@-"], "standard input can be read once"),
        (["@none.txt"], "cannot read the list none.txt: No such file"),
        (["@photos"], "cannot read the list photos: Is a directory"),
        (["@photos/notes.txt"], "photos/notes.txt lists no pictures"),
    ],
)
def test_what_names_no_picture_is_refused(names: list[str], line: str) -> None:
    with pytest.raises(UsageError) as refusal:
        find_pictures(names)
    assert line in str(refusal.value) and len(str(refusal.value)) < 400


@pytest.mark.parametrize(
    "content",
    [
        b"photos/b.jpg\nphotos/odd[1].jpg\n",
        b"\xef\xbb\xbfphotos/b.jpg\r\n\r\nphotos/odd[1].jpg",
        b"photos/b.jpg\0photos/odd[1].jpg\0",
    ],
)
@pytest.mark.parametrize("name", ["@-", "@list.txt"])
def test_a_list_names_pictures(name: str, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("list.txt").write_bytes(content)
    pipe(monkeypatch, content)
    assert find_pictures([name]) == ["photos/b.jpg", "photos/odd[1].jpg"]


def test_a_list_keeps_names_that_are_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = b"photos/\xff\n.jpg"
    try:
        os.close(os.open(raw, os.O_CREAT))
    except OSError:
        pytest.skip("this file system has no such names")
    pipe(monkeypatch, raw + b"\0")
    assert [os.fsencode(path) for path in find_pictures(["@-"])] == [raw]


def test_a_list_with_a_missing_picture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, b"photos/b.jpg\nphotos/gone.jpg\n")
    with pytest.raises(UsageError, match=r"standard input lists 'photos/gone.jpg', which is not a file"):
        find_pictures(["@-"])


def test_standard_input_is_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (1, 2, 3)).save(buffer, "PNG")
    pipe(monkeypatch, buffer.getvalue())
    assert np.array_equal(read_picture("-"), np.full((4, 5, 3), (1, 2, 3), np.uint8))


@pytest.mark.parametrize("content", [b"", b"photos/b.jpg\n"])
def test_standard_input_that_is_none_says_what_to_pass(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, content)
    with pytest.raises(UsageError, match=r"^standard input: the image .*if it lists paths of pictures, pass @-$"):
        read_picture("-")


def test_a_terminal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, b"")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    for read in (lambda: read_picture("-"), lambda: find_pictures(["@-"])):
        with pytest.raises(UsageError, match="standard input is a terminal; pipe "):
            read()


def test_an_endless_input_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_MOST_BYTES", 3 << 20)
    with Path("/dev/zero").open() as endless:
        monkeypatch.setattr(sys, "stdin", endless)
        with pytest.raises(UsageError, match="more than 3 MiB"):
            read_picture("-")


def test_a_pipe_is_read_where_a_signal_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's handlers run in the main thread, and leaving a pool waits for its threads."""
    readers: dict[str, threading.Thread] = {}

    def read(path: str, say: Say) -> NDArray[np.uint8]:
        readers[path] = threading.current_thread()
        return np.zeros((4, 5, 3), np.uint8)

    monkeypatch.setattr(sources, "read_picture", read)
    assert len(list(read_each(["a.png", "-", "b.png"], print))) == 3
    assert [readers[path] is threading.main_thread() for path in ("a.png", "-", "b.png")] == [True, True, False]


def test_images_of_a_folder_are_those_that_the_shell_shows() -> None:
    assert [file.name for file in find_images(Path("photos"))] == ["a.PNG", "b.jpg", "odd[1].jpg"]
