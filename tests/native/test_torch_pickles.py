"""Pickles of torch that would take memory or time out of proportion to their size."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from wise_edge.errors import UsageError
from wise_edge.native.torch_pickles import load_pickle

STATE = {"a": torch.arange(12.0).reshape(3, 4)}
SHAPE, STRIDE = b"K\x03K\x04\x86", b"K\x04K\x01\x86"  # of the tensor, in its pickle
HUGE = b"\x8a\x06\0\0\0\0\0\x01"


def nest(depth: int) -> bytes:
    """Return operations that make a dictionary whose key takes 2 ** depth steps to hash."""
    pairs = b"".join(b"q%ch%c\x86" % (level, level) for level in range(depth))
    return b"\x80\x02})" + pairs + b"Ns."


def rewrite(file: Path, change: Callable[[bytes], bytes], *, compression: int = zipfile.ZIP_STORED) -> None:
    """Write an archive again with another pickle."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, change(content) if name.endswith("data.pkl") else content)


def save(file: Path) -> None:
    torch.save(STATE, file)


def save_legacy(file: Path) -> None:
    torch.save(STATE, file, _use_new_zipfile_serialization=False)


def test_a_key_that_nests_itself_is_refused_before_it_is_hashed(tmp_path: Path) -> None:
    for name, change in {"deep": nest(60), "flat": nest(8)}.items():
        save(tmp_path / name)
        rewrite(tmp_path / name, lambda _, content=change: content)  # type: ignore[misc]
    with pytest.raises(UsageError, match="its values are nested too deeply"):
        load_pickle(tmp_path / "deep")
    assert len(load_pickle(tmp_path / "flat")) == 1


def test_the_same_in_a_file_of_before_torch_1_6(tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    save_legacy(file)
    start = file.read_bytes().index(b"\x80\x02}q\x00X\x01\x00\x00\x00a")
    file.write_bytes(file.read_bytes()[:start] + nest(60))
    with pytest.raises(UsageError, match="its values are nested too deeply"):
        load_pickle(file)


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.pt")
    rewrite(tmp_path / "a.pt", lambda content: content, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UsageError, match="is compressed; unpack it"):
        load_pickle(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.replace(SHAPE, b"K\x03" + HUGE + b"\x86"),
        lambda content: content.replace(SHAPE, b"J\0\0\0\x10J\0\0\0\x10\x86").replace(STRIDE, b"K\0K\0\x86"),
        lambda content: content.replace(SHAPE, b"J\xff\xff\xff\xffK\x04\x86"),
        lambda content: content[:20] + b"X\xff\xff\xff\xff" + content[20:],
    ],
    ids=["longer", "repeated", "negative", "text"],
)
def test_sizes_beyond_the_files_are_refused(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    save(tmp_path / "a.pt")
    rewrite(tmp_path / "a.pt", change)
    with pytest.raises(UsageError, match=r"a\.pt holds no weights that can be read safely"):
        load_pickle(tmp_path / "a.pt")


@pytest.mark.parametrize("old", [b"K\x0cN", SHAPE], ids=["storage", "tensor"])
def test_the_same_sizes_in_a_file_of_before_torch_1_6(tmp_path: Path, old: bytes) -> None:
    file = tmp_path / "a.pth"
    save_legacy(file)
    new = HUGE + b"N" if old == b"K\x0cN" else b"K\x03" + HUGE + b"\x86"
    assert old in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(old, new))
    with pytest.raises(UsageError, match=r"a\.pth holds no weights that can be read safely"):
        load_pickle(file)


def test_a_repeated_number_may_fill_a_tensor(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(()).expand(1000, 1000)}, tmp_path / "a.pt")
    assert load_pickle(tmp_path / "a.pt")["a"].sum() == 1e6


def test_what_trainings_save_is_read(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(2)).sum().backward()
    optimizer.step()
    saved = {"model": layer.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}
    for legacy in (False, True):
        torch.save(saved, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
        found = load_pickle(tmp_path / "a.pt")
        assert torch.equal(found["model"]["weight"], layer.weight)
        assert found["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999)
        assert torch.equal(found["random"], saved["random"])
