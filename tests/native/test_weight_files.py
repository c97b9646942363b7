"""Which files hold a checkpoint's weights, and what is in them."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from wise_edge.errors import UsageError
from wise_edge.native.weight_files import find_weight_files, list_tensors

WEIGHTS = {
    "a.weight": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
    "b.weight": torch.ones(4, dtype=torch.int8),
    "c.scale": torch.tensor(2.5),
}


def write_index(file: Path, files: dict[str, str]) -> None:
    file.write_text(json.dumps({"metadata": {}, "weight_map": files}))


def save_whole(folder: Path) -> None:
    save_file(WEIGHTS, folder / "model.safetensors")


def save_shards(folder: Path) -> None:
    for name, tensor in WEIGHTS.items():
        save_file({name: tensor}, folder / f"{name[0]}.safetensors")
    write_index(folder / "model.safetensors.index.json", {name: f"{name[0]}.safetensors" for name in WEIGHTS})


def save_pickle(folder: Path) -> None:
    torch.save(WEIGHTS, folder / "pytorch_model.bin")


def save_old_pickle(folder: Path) -> None:
    torch.save(WEIGHTS, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def save_pickled_shards(folder: Path) -> None:
    for name, tensor in WEIGHTS.items():
        torch.save({name: tensor}, folder / f"{name[0]}.bin")
    write_index(folder / "pytorch_model.bin.index.json", {name: f"{name[0]}.bin" for name in WEIGHTS})


FORMS = [save_whole, save_shards, save_pickle, save_old_pickle, save_pickled_shards]


@pytest.mark.parametrize("save", FORMS)
def test_every_form_gives_the_same_tensors(tmp_path: Path, save: object) -> None:
    save(tmp_path)  # type: ignore[operator]
    stored = {tensor.name: tensor for tensor in list_tensors(tmp_path)}
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in stored.items()} == {
        "a.weight": ("BF16", (2, 3)),
        "b.weight": ("I8", (4,)),
        "c.scale": ("F32", ()),
    }
    for name, expected in WEIGHTS.items():
        assert torch.equal(stored[name].read().float(), expected.float())


def test_a_pickle_is_mapped_and_not_read(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(1 << 20)}, tmp_path / "pytorch_model.bin")
    (tensor,) = list_tensors(tmp_path)
    mapped = Path("/proc/self/maps").read_text()
    assert "pytorch_model.bin" in mapped
    assert tensor.read().sum() == 0


def test_safetensors_come_before_pickles(tmp_path: Path) -> None:
    save_pickle(tmp_path)
    save_whole(tmp_path)
    assert find_weight_files(tmp_path) == [tmp_path / "model.safetensors"]


def test_a_replaced_pickle_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "pytorch_model.bin"
    for value in (1.0, 2.0):
        file.unlink(missing_ok=True)
        torch.save({"a": torch.full((3,), value)}, file)
        (tensor,) = list_tensors(tmp_path)
        assert tensor.read()[0] == value


def test_a_shard_may_be_a_link_as_in_the_hub_cache(tmp_path: Path) -> None:
    folder, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    folder.mkdir()
    blobs.mkdir()
    save_shards(folder)
    for number, file in enumerate(sorted(folder.glob("*.safetensors"))):
        file.rename(blobs / str(number))
        file.symlink_to(Path("..") / "blobs" / str(number))
    assert len(list_tensors(folder)) == len(WEIGHTS)


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.safetensors", "x/../../a.safetensors", "..\\a.safetensors"])
def test_an_index_may_not_name_files_outside_of_the_folder(tmp_path: Path, name: str) -> None:
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    folder = tmp_path / "policy"
    folder.mkdir()
    write_index(folder / "model.safetensors.index.json", {"a.weight": name})
    with pytest.raises(UsageError, match="outside of the folder"):
        list_tensors(folder)


def lose_two_shards(folder: Path) -> None:
    save_shards(folder)
    for name in "ab":
        (folder / f"{name}.safetensors").unlink()


def keep_an_old_index(folder: Path) -> None:
    save_shards(folder)
    save_whole(folder)


def write_no_map(folder: Path) -> None:
    write_index(folder / "model.safetensors.index.json", {})


def cut_safetensors(folder: Path) -> None:
    save_whole(folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])


def cut_pickle(folder: Path) -> None:
    save_pickle(folder)
    file = folder / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:-100])


def pickle_code(folder: Path) -> None:
    torch.save({"a": Fraction(1, 2)}, folder / "pytorch_model.bin")


def pickle_a_training(folder: Path) -> None:
    torch.save({"state_dict": WEIGHTS, "epoch": 3}, folder / "pytorch_model.bin")


def write_long_name(folder: Path) -> None:
    write_index(folder / "model.safetensors.index.json", {"a": "a" * 5000})


def write_nested_map(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": ["a.safetensors"]}}')


def lie_about_the_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")


def lie_about_offsets(folder: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 16]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))


def leave_a_pointer(folder: Path) -> None:
    save_shards(folder)
    (folder / "b.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


DAMAGE = {
    "lost": (lose_two_shards, r"a\.safetensors, and 1 more, is missing"),
    "both": (keep_an_old_index, "holds both model.safetensors and the shards"),
    "no-map": (write_no_map, "lists no files of weights"),
    "cut": (cut_safetensors, r"model\.safetensors is not a safetensors file, or it is damaged or cut short"),
    "long-name": (write_long_name, r"(index\.json is not an index of weights|is missing)"),
    "nested-map": (write_nested_map, "lists no files of weights"),
    "header": (lie_about_the_header, r"model\.safetensors is not a safetensors file"),
    "offsets": (lie_about_offsets, r"model\.safetensors is not a safetensors file"),
    "cut-pickle": (cut_pickle, r"pytorch_model\.bin holds no weights that can be read safely"),
    "code": (pickle_code, r"it holds an object of fractions\.Fraction, and reading it would run its code"),
    "training": (pickle_a_training, "is not a dictionary of tensors"),
    "pointer": (leave_a_pointer, r"b\.safetensors is a Git LFS pointer"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_weights_are_one_line_that_names_the_file(tmp_path: Path, case: str) -> None:
    damage, words = DAMAGE[case]
    damage(tmp_path)
    with pytest.raises(UsageError, match=words) as caught:
        list_tensors(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_index_of_a_large_mixture_of_experts_is_read(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    names = (f"model.layers.{number:04}.mlp.experts.gate_proj.weight_scale_inv" for number in range(60_000))
    write_index(tmp_path / "model.safetensors.index.json", dict.fromkeys(names, "a.safetensors"))
    assert find_weight_files(tmp_path) == [tmp_path / "a.safetensors"]
