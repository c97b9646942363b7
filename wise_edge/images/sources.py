"""Find the pictures that a command line names: files, folders, patterns, lists of paths, and standard input."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from wise_edge.errors import UsageError
from wise_edge.files.inputs import refuse_special
from wise_edge.images import SUFFIXES, Say, load_image

STDIN = "-"
"""Names one picture from standard input."""
LIST_MARK = "@"
"""Before the name of a file that lists paths; "@-" is a list from standard input."""
_MOST_BYTES = 1 << 29  # of a picture or a list
_CHUNK = 1 << 20
_DEEP = re.compile(r"(?<![^/])\*\*(?:/+|$)")
_PIPE = "find photos -name '*.jpg' | wise-edge run @- 'the red ring'"


def find_images(folder: Path) -> list[Path]:
    """Return the images of a folder, sorted by name; those of its subfolders and hidden ones are left out.

    Raises:
        UsageError: it is no folder, cannot be read, or has no images.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; pass a folder of images")
    try:
        files = sorted(file for file in folder.iterdir() if _is_shown_image(file.name))
    except OSError as error:
        raise UsageError(f"cannot read the folder {folder}: {error.strerror}") from error
    if not files:
        raise UsageError(f"{folder} contains no images; their names end in {', '.join(SUFFIXES)}")
    return files


def find_pictures(names: Iterable[str]) -> list[str]:
    """Return the paths of the pictures that names stand for, in order and each once; they are not read.

    Args:
        names: of files; of folders, for the images in them; patterns such as "photos/*.jpg" or "photos/**" (with
            subfolders), which shells leave alone in quotes; `LIST_MARK` and a file with a path on each line, or with
            zero bytes between them; `STDIN`. A file with such a name is taken for itself.

    Raises:
        UsageError: one does not exist, names no image or cannot be read, or standard input is named twice.
    """
    found: dict[str, str] = {}
    streams = 0
    for name in names:
        streams += name in (STDIN, LIST_MARK + STDIN)
        if streams > 1:
            raise UsageError("standard input can be read once; name - or @- once")
        for path in _expand(name):
            found.setdefault(path if path == STDIN else os.path.abspath(path), path)
    return list(found.values())


def read_picture(path: str, say: Say | None = None) -> NDArray[np.uint8]:
    """Read a picture of `find_pictures`, HWC uint8 RGB; raises `UsageError` as `load_image`."""
    if path != STDIN:
        return load_image(path, say=say)
    try:
        return load_image(_read_stdin(f"a picture into it, or paths of pictures: {_PIPE}"), say=say)
    except UsageError as error:
        raise UsageError(f"standard input: {error}; if it lists paths of pictures, pass @-") from error


def _expand(name: str) -> Sequence[str]:
    if name == STDIN:
        return [STDIN]
    if os.path.isdir(name):
        return [str(file) for file in find_images(Path(name))]
    if os.path.exists(name):
        return [name]
    if name.startswith(LIST_MARK):
        return _read_list(name[len(LIST_MARK) :])
    if glob.has_magic(name):
        files = sorted(path for path in _match(name) if os.path.isfile(path))
        images = [path for path in files if _is_shown_image(os.path.basename(path))]
        if not images:
            raise UsageError(f"{name} matches no image; their names end in {', '.join(SUFFIXES)}")
        return images
    raise _explain_missing(name)


def _match(pattern: str) -> Iterator[str]:
    """Yield what a pattern matches; "**" follows no links, as in bash: two that lead upwards give glob 2^40 paths."""
    head, *rest = _DEEP.split(pattern, maxsplit=1)
    if not rest:
        yield from glob.glob(pattern)
        return
    for top in glob.glob(head) if head else [os.curdir]:
        for folder, below, _ in os.walk(top):
            below[:] = [name for name in below if not name.startswith(".")]
            for path in _match(os.path.join(glob.escape(folder), rest[0] or "*")):
                yield path if head else path.removeprefix("./")


def _is_shown_image(name: str) -> bool:
    """Return whether a file's name is that of an image, and not hidden, as the "._x.jpg" that macOS puts on disks."""
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def _explain_missing(name: str) -> UsageError:
    shown = name[:200]
    if "://" in name:
        return UsageError(f"{shown} is an address; download the picture, or pipe it: curl -s URL | wise-edge run -")
    try:
        os.stat(name)
    except FileNotFoundError:
        return UsageError(f"{shown} does not exist; pass an image file")
    except (OSError, ValueError) as error:
        return UsageError(f"cannot read {shown}: {getattr(error, 'strerror', None) or error}")
    return UsageError(f"{shown} cannot be read; pass an image file")  # it appeared meanwhile


def _read_list(name: str) -> list[str]:
    if name == STDIN:
        content, told = _read_stdin(f"paths of pictures into it: {_PIPE}"), "standard input"
    else:
        content, told = _read_list_file(name), name
    paths = [os.fsdecode(line) for line in _lines(content) if line]
    if not paths:
        raise UsageError(f"{told} lists no pictures; write the path of one on each line")
    for path in paths:
        if not os.path.isfile(path):
            raise UsageError(
                f"{told} lists {path[:200]!r}, which is not a file; write the path of a picture on each line"
            )
    return paths


def _read_list_file(name: str) -> bytes:
    refuse_special(name)
    try:
        with Path(name).open("rb") as file:
            return _read_bounded(file, name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read the list {name[:200]}: {reason}; @FILE names a file of paths") from error


def _lines(content: bytes) -> Iterator[bytes]:
    if b"\0" in content:  # of find -print0
        yield from content.split(b"\0")
    else:
        yield from (line.rstrip(b"\r") for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"))


def _read_stdin(wanted: str) -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(f"standard input is a terminal; pipe {wanted}")
    try:
        return _read_bounded(sys.stdin.buffer, "standard input")
    except OSError as error:
        raise UsageError(f"cannot read standard input: {error.strerror or error}") from error


def _read_bounded(file: BinaryIO, name: str) -> bytes:
    parts, length = [], 0
    while part := file.read(_CHUNK):
        parts.append(part)
        length += len(part)
        if length > _MOST_BYTES:
            raise UsageError(f"{name} has more than {_MOST_BYTES >> 20} MiB; pass a smaller one")
    return b"".join(parts)


def read_each(paths: Sequence[str], say: Say, *, ahead: bool = True) -> Iterator[NDArray[np.uint8] | UsageError]:
    """Read the pictures of `find_pictures` one after another; at most two are in memory at a time.

    Args:
        paths: of the pictures.
        say: as of `load_image`, called in the caller's thread.
        ahead: read the next picture while the caller works on one, unless it comes from standard input.

    Yields:
        The image, HWC uint8 RGB and read-only, or why it cannot be read.
    """

    def read(path: str) -> tuple[NDArray[np.uint8] | UsageError, list[str]]:
        notes: list[str] = []
        try:
            image = read_picture(path, notes.append)
        except UsageError as error:
            return error, notes
        image.flags.writeable = False  # so that a session keeps it without a copy
        return image, notes

    with ThreadPoolExecutor(1, "reader") as reader:
        pending: Future[tuple[NDArray[np.uint8] | UsageError, list[str]]] | None = None
        for path, following in zip(paths, (*paths[1:], STDIN), strict=True):
            image, notes = read(path) if pending is None else pending.result()
            # A pipe may never end, and a signal does not reach who waits for another thread: it is read in this one.
            pending = reader.submit(read, following) if ahead and following != STDIN else None
            for note in notes:
                say(note)
            yield image
