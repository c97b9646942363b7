"""The guard round libraries that read files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from wise_edge.errors import BundleError, DeviceError, UsageError
from wise_edge.native.loading import BoundedFile, loading


class PanicException(BaseException):
    """As pyo3's, which every library in Rust has of its own."""


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (ValueError("two\n  lines"), "two lines"),
        (KeyError(), "KeyError"),
        (RecursionError("maximum recursion depth exceeded"), "it is nested too deeply"),
        (MemoryError(), "it asks for more memory than is free"),
        (OverflowError("too large"), "too large"),
        (struct.error("unpack requires 4 bytes"), "unpack requires 4 bytes"),
        (zlib.error("incorrect header check"), "incorrect header check"),
        (FileNotFoundError(2, "No such file or directory", "a"), "No such file or directory"),
        (PanicException("index out of bounds"), "index out of bounds"),
        (ValueError("x" * 1000), "x" * 160 + "…"),
    ],
)
def test_whatever_a_library_raises_is_one_line(raised: BaseException, reason: str) -> None:
    with pytest.raises(BundleError) as caught, loading("a.npy", "an array", "export again", error=BundleError):
        raise raised
    assert str(caught.value) == f"a.npy is not an array, or it is damaged or cut short ({reason}); export again"


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), DeviceError("no GPU")])
def test_what_is_not_a_librarys_passes(raised: BaseException) -> None:
    with pytest.raises(type(raised)) as caught, loading("a.npy", "an array"):
        raise raised
    assert caught.value is raised


def test_a_rust_library_panics_with_such_a_class() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, "a"))
    with pytest.raises(UsageError, match="a tokenizer"), loading("a.json", "a tokenizer"):
        tokenizer.enable_padding(length=1)
        tokenizer.encode(None)


def test_a_bounded_file_asks_for_no_more_than_it_has(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"0123456789")
    with BoundedFile(file) as stream:
        assert stream.read(2) == b"01"
        assert stream.read(1 << 62) == b"23456789"
        assert stream.read(1 << 62) == b""
        stream.seek(4)
        assert stream.read() == b"456789"


def test_a_library_without_room_is_no_fault_of_the_file() -> None:
    said = "libtorch_cpu.so: failed to map segment from shared object"
    with pytest.raises(MemoryError, match=said), loading("model.safetensors", "a safetensors file"):
        raise ImportError(said)
