"""GGUF files whose headers would end the process in llama.cpp."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

from tiny_qwen import FAMILIES, make_qwen, save_qwen
from wise_edge.errors import BundleError
from wise_edge.export.to_gguf.convert import PolicyGguf
from wise_edge.native.gguf_header import check_gguf, read_header
from wise_edge.native.llama import LlamaModel


@pytest.fixture(scope="module", params=FAMILIES)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A language model and its vision tower, as an export writes them."""
    root = tmp_path_factory.mktemp("gguf")
    policy = PolicyGguf(save_qwen(make_qwen(request.param), root / "policy"))
    policy.write_text(root / "text.gguf", "F32", lambda *_: None)
    policy.write_vision(root / "vision.gguf", "F32", lambda *_: None)
    return root / "text.gguf", root / "vision.gguf"


def change(file: Path, out: Path, key: str, value: bytes) -> Path:
    """Write a file with another number under a key."""
    field = gguf.GGUFReader(file).get_field(key)
    assert field is not None
    start = field.offset + sum(part.nbytes for part in field.parts[:-1])
    assert field.parts[-1].nbytes == len(value)
    content = bytearray(file.read_bytes())
    content[start : start + len(value)] = value
    out.write_bytes(content)
    return out


def test_an_exports_header_is_read_as_gguf_reads_it(files: tuple[Path, Path]) -> None:
    for file in files:
        check_gguf(file)
        entries, tensors = read_header(file)
        reader = gguf.GGUFReader(file)
        assert tensors == {tensor.name: tuple(tensor.shape.tolist()) for tensor in reader.tensors}
        for key, field in reader.fields.items():
            if not key.startswith("GGUF."):
                is_array = field.types[0] == gguf.GGUFValueType.ARRAY
                assert entries[key] == (len(field.data) if is_array else field.contents())


NUMBERS = {
    "text": ("block_count", "embedding_length", "attention.head_count", "attention.head_count_kv"),
    "vision": ("block_count", "embedding_length", "attention.head_count", "patch_size", "projection_dim"),
}


@pytest.mark.parametrize("value", [0, 7, 1_000_003, (1 << 32) - 1])
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in NUMBERS.items() for name in names])
def test_numbers_that_contradict_the_tensors_are_refused(
    files: tuple[Path, Path], tmp_path: Path, kind: str, name: str, value: int
) -> None:
    text, vision = files
    file = text if kind == "text" else vision
    architecture = read_header(file)[0]["general.architecture"]
    prefix = "clip.vision" if architecture == "clip" else architecture
    changed = change(file, tmp_path / file.name, f"{prefix}.{name}", struct.pack("<I", value))
    with pytest.raises(BundleError, match=rf"{file.name} is not a GGUF file, or it is damaged .*export the bundle"):
        LlamaModel(changed if kind == "text" else text, changed if kind == "vision" else vision, 64)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_norms_epsilon_is_a_number(files: tuple[Path, Path], tmp_path: Path, value: float) -> None:
    changed = change(files[1], tmp_path / "v", "clip.vision.attention.layer_norm_epsilon", struct.pack("<f", value))
    with pytest.raises(BundleError, match="layer_norm_epsilon is"):
        check_gguf(changed)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"no model",
        lambda content: content[:8] + b"\xff" * 16 + content[24:],
        lambda content: content[:24] + b"\xff" * 8 + content[32:],
        lambda content: content[:1000],
        lambda content: content.replace(
            b"tokenizer.ggml.tokens\x09\0\0\0\x08\0\0\0", b"tokenizer.ggml.tokens\x09\0\0\0\x09\0\0\0"
        ),
    ],
    ids=["empty", "magic", "counts", "key", "cut", "nested"],
)
def test_a_damaged_header_is_refused(
    files: tuple[Path, Path], tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "a.gguf").write_bytes(damage(files[0].read_bytes()))
    with pytest.raises(BundleError, match=r"a\.gguf is not a GGUF file, or it is damaged or cut short"):
        check_gguf(tmp_path / "a.gguf")
