"""What files hold is told by their content: the whole of small ones, a share of large ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from wise_edge.files.hashing import fingerprint, fingerprint_model, hash_file

LARGE = 300 << 20


def _write(file: Path, content: bytes) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    return file


def test_the_hash_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    assert hash_file(_write(tmp_path / "file", b"abc")).startswith("ba7816bf8f01cfea")


def test_content_and_order_count_and_names_do_not(tmp_path: Path) -> None:
    a, b = _write(tmp_path / "a", b"one"), _write(tmp_path / "b", bytes(200_000))
    known = fingerprint([a, b])
    assert len(known) == 64
    assert fingerprint([_write(tmp_path / "moved" / "c", b"one"), b]) == known
    assert fingerprint([b, a]) != known
    assert fingerprint([a]) != known
    assert fingerprint([a, _write(tmp_path / "d", bytes(199_999))]) != known
    assert fingerprint([_write(tmp_path / "a", b"on"), _write(tmp_path / "b", b"e" + bytes(200_000))]) != known
    for place in (0, 100_000, 199_999):
        changed = bytearray(200_000)
        changed[place] = 1
        assert fingerprint([_write(tmp_path / "a", b"one"), _write(tmp_path / "b", bytes(changed))]) != known


def test_a_file_that_cannot_be_read_differs_from_one_that_can(tmp_path: Path) -> None:
    assert fingerprint([tmp_path / "none"]) != fingerprint([_write(tmp_path / "empty", b"")])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    _write(folder / "config.json", b"{}")
    _write(folder / "model.safetensors", bytes(100_000))
    return folder


def test_a_model_is_told_by_the_names_and_contents_of_its_files(model: Path) -> None:
    known = fingerprint_model(model)
    _write(model / ".cache" / "download.lock", b"")
    assert fingerprint_model(model) == known
    _write(model / "config.json", b"[]")
    assert fingerprint_model(model) != known
    _write(model / "config.json", b"{}")
    assert fingerprint_model(model) == known
    _write(model / "model.safetensors", bytes(99_999) + b"x")
    assert fingerprint_model(model) != known
    _write(model / "model.safetensors", bytes(100_000)).rename(model / "other.safetensors")
    assert fingerprint_model(model) != known


def test_a_model_may_be_one_file(model: Path) -> None:
    known = fingerprint_model(model / "model.safetensors")
    assert fingerprint_model(_write(model / "model.safetensors", bytes(99_999) + b"x")) != known


def test_of_a_large_file_size_ends_and_blocks_count(tmp_path: Path) -> None:
    file = _write(tmp_path / "large", b"")

    def write(size: int, *places: int) -> str:
        with file.open("wb") as stream:
            stream.truncate(size)  # a hole: it takes no place on the disk
            for place in places:
                stream.seek(place)
                stream.write(b"x")
        return fingerprint([file])

    known = write(LARGE)
    block = 100 * (LARGE - (1 << 16)) // 255
    found = {known, write(LARGE + 1), write(LARGE, 0), write(LARGE, LARGE - 1), write(LARGE, block)}
    assert len(found) == 5
    assert write(LARGE, block - 1) == known  # between the blocks, as documented
