"""Hashes of files: the whole of one, or enough to tell what files of 100 GB hold, in seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_BLOCK_BYTES = 1 << 20
_WHOLE_BYTES = 256 << 20
_SAMPLES = 256
_SAMPLE_BYTES = 1 << 16


def hash_file(file: Path) -> str:
    """Return the sha256 of a file, hexadecimal."""
    return _digest(file).hexdigest()


def fingerprint(files: Iterable[Path]) -> str:
    """Return a sha256, hexadecimal, of what files hold, in their order; their names and places do not count.

    Of a file of more than 256 MB its size, its start and end and 254 blocks between them count: another training
    changes every weight and another recording every part, but a change elsewhere that keeps the size is not seen. A
    file that cannot be read counts as such.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(_sample(file))
    return digest.hexdigest()


def fingerprint_model(path: Path) -> str:
    """Return the fingerprint of a file, or of a folder's files with their names; what is hidden there is left out."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        name = file.relative_to(path)
        if file.is_file() and not any(part.startswith(".") for part in name.parts):
            digest.update(f"{name.as_posix()}\n".encode())
            digest.update(_sample(file))
    return digest.hexdigest()


def _digest(file: Path) -> hashlib._Hash:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest


def _sample(file: Path) -> bytes:
    try:
        if (size := file.stat().st_size) <= _WHOLE_BYTES:
            return _digest(file).digest()
        digest = hashlib.sha256(f"{size} ".encode())
        with file.open("rb") as stream:
            for number in range(_SAMPLES):
                stream.seek(number * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                digest.update(stream.read(_SAMPLE_BYTES))
        return digest.digest()
    except OSError as error:
        return f"unreadable {error.errno}".encode()
