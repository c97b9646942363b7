"""Fingerprints tell a model from another without reading all of its weights."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from wise_edge.files.hashing import fingerprint, hash_file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / ".cache").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(random.Random(0).randbytes(6 << 20))
    return folder


def test_a_fingerprint_changes_with_names_sizes_and_contents(model: Path) -> None:
    before, weights = fingerprint(model), model / "model.safetensors"
    (model / ".cache" / "download.lock").touch()
    assert fingerprint(model) == before
    (model / "config.json").write_text("[]")
    assert fingerprint(model) != before
    (model / "config.json").write_text("{}")
    assert fingerprint(model) == before
    weights.write_bytes(random.Random(1).randbytes(6 << 20))
    assert fingerprint(model) != before
    weights.write_bytes(random.Random(0).randbytes((6 << 20) - 1))
    assert fingerprint(model) != before


def test_a_fingerprint_of_one_file_covers_both_ends(model: Path) -> None:
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    found = {fingerprint(weights)}
    for place in (0, len(content) - 1):
        content[place] ^= 1
        weights.write_bytes(content)
        found.add(fingerprint(weights))
    assert len(found) == 3


def test_a_large_file_is_read_in_part(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = model / "large.safetensors"
    with weights.open("wb") as file:
        file.truncate(8 << 30)  # a hole: it takes no place on the disk
    read = 0
    opened = Path.open

    def counting(path: Path, *arguments: Any) -> Any:
        stream = opened(path, *arguments)
        whole = stream.read

        def count(*size: int) -> Any:
            nonlocal read
            data = whole(*size)
            read += len(data)
            return data

        return _Counted(stream, count)

    monkeypatch.setattr(Path, "open", counting)
    fingerprint(weights)
    assert 2 << 20 < read < 4 << 20


class _Counted:
    def __init__(self, stream: Any, read: Any) -> None:
        self.read, self.seek, self._stream = read, stream.seek, stream

    def __enter__(self) -> _Counted:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


def test_the_hash_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert hash_file(tmp_path / "file").startswith("ba7816bf8f01cfea")
