"""A clone without `git lfs pull` has pointers in place of large files; every reader of a user's file names them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wise_edge.bundle.store import load, resolve_bundle
from wise_edge.datasets.plain_pickle import load_plain_pickle
from wise_edge.datasets.reasonseg import ReasonSegFolder
from wise_edge.datasets.tables import find_table
from wise_edge.errors import BundleError, UsageError
from wise_edge.files.documents import read_json
from wise_edge.files.inputs import refuse_lfs_pointer
from wise_edge.images import load_image
from wise_edge.native.pretrained import load_pretrained
from wise_edge.native.tokenizer import open_tokenizer
from wise_edge.robot.recording.reader import open_recording

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3968658944\n"


def open_table(file: Path) -> Any:
    return find_table(file, "test")


def open_bag(file: Path) -> Any:
    with open_recording(file):
        pass


def open_folder_of_a_bag(file: Path) -> Any:
    (file.parent / "metadata.yaml").write_text("rosbag2_bagfile_information: {}")
    return open_bag(file.parent)


def open_reasonseg(file: Path) -> Any:
    file.with_suffix(".jpg").write_bytes(POINTER)
    return ReasonSegFolder(file.parent, "test")


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "json": ("config.json", read_json),
    "image": ("photo.png", load_image),
    "tokenizer": ("tokenizer.json", open_tokenizer),
    "pickle": ("refs(unc).p", load_plain_pickle),
    "parquet": ("test-00000-of-00001.parquet", open_table),
    "reasonseg": ("test/a.json", open_reasonseg),
    "mcap": ("drive.mcap", open_bag),
    "rosbag2": ("bag/drive_0.db3", open_folder_of_a_bag),
}


@pytest.mark.parametrize("case", READERS)
def test_a_pointer_is_named_by_every_reader(tmp_path: Path, case: str) -> None:
    name, read = READERS[case]
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(POINTER)
    with pytest.raises(UsageError, match=r"Git LFS pointer.*git lfs pull") as caught:
        read(file)
    assert "\n" not in str(caught.value)


def test_a_pointer_in_place_of_a_models_weights_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(POINTER)
    with pytest.raises(UsageError, match=r"model\.safetensors is a Git LFS pointer"):
        load_pretrained("Sam2Model", tmp_path, dtype=None, attention="eager", partial=True)


def test_a_pointer_in_a_bundle_is_named(tmp_path: Path) -> None:
    bundle = shutil.copytree(resolve_bundle(None), tmp_path / "bundle")
    file = load(bundle).file("policy.vision")
    file.write_bytes(POINTER)
    with pytest.raises(BundleError, match=rf"{file.name} is a Git LFS pointer.*git lfs pull"):
        load(bundle)


def test_other_files_are_left_to_their_readers(tmp_path: Path) -> None:
    file = tmp_path / "notes"
    file.write_bytes(b"version 2")
    for path in (file, tmp_path, tmp_path / "absent"):
        refuse_lfs_pointer(path)


def test_a_pipe_keeps_its_beginning() -> None:
    reading, writing = os.pipe()  # as a shell's <(command)
    with os.fdopen(reading), os.fdopen(writing, "wb") as pipe:
        pipe.write(b'{"written": "by another program, and longer than a pointer"}')
        pipe.close()
        assert set(read_json(Path(f"/dev/fd/{reading}"))) == {"written"}
