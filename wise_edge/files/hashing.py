"""Hashes of files: the whole of one, or enough of a model's to tell it from another."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

_BLOCK = 1 << 20
_SAMPLES = 256
_SAMPLE_BYTES = 4096


def hash_file(file: Path) -> str:
    """Return the sha256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(path: Path) -> str:
    """Return a sha256, hexadecimal, that tells a model from another, although it does not read all of its weights.

    It covers names and sizes of a folder's files, the whole of small files, and of large ones the beginning, the end
    and 256 blocks between: another training changes every weight, but a single changed byte may be missed.

    Args:
        path: a file, or a folder; what is hidden in a folder is left out.
    """
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        name = file.relative_to(path)
        if file.is_file() and not any(part.startswith(".") for part in name.parts):
            size = file.stat().st_size
            digest.update(f"{name.as_posix()} {size}\n".encode())
            with file.open("rb") as stream:
                _sample(stream, size, digest)
    return digest.hexdigest()


def _sample(stream: BinaryIO, size: int, digest: hashlib._Hash) -> None:
    if size <= 4 * _BLOCK:
        digest.update(stream.read())
        return
    for start, length in (
        (0, _BLOCK),
        *((_BLOCK + (size - 2 * _BLOCK) * i // _SAMPLES, _SAMPLE_BYTES) for i in range(_SAMPLES)),
        (size - _BLOCK, _BLOCK),
    ):
        stream.seek(start)
        digest.update(stream.read(length))
