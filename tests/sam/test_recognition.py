"""Files of every family are known by their tensors' names, whatever wraps them; cut ones are one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tiny_models import make_mobile_sam
from wise_edge.errors import UsageError
from wise_edge.sam.kinds import describe_missing_segmenter, find_kind

NAMES = {
    "segment_anything": ("image_encoder.blocks.0.attn.qkv.weight", "mask_decoder.iou_token.weight"),
    "mobile_sam": ("image_encoder.patch_embed.seq.0.c.weight", "mask_decoder.iou_token.weight"),
    "efficientvit_sam": ("image_encoder.backbone.input_stem.op_list.0.conv.weight", "mask_decoder.iou_token.weight"),
    "hq_sam": ("image_encoder.patch_embed.seq.0.c.weight", "mask_decoder.hf_token.weight"),
    "sam2": ("image_encoder.trunk.blocks.0.norm1.weight", "sam_mask_decoder.iou_token.weight", "no_mem_embed"),
    "edgetam": ("image_encoder.trunk.body.stem.0.c.weight", "sam_mask_decoder.iou_token.weight"),
}
"""Two tensors of each family's own file, by its authors' names."""
WRAPPERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "plain": dict,
    "module.": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "model": lambda state: {"model": state, "epoch": 3},
    "state_dict": lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
    "ema": lambda state: {"ema": state, "optimizer": {"state": {}}},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("family", NAMES)
def test_a_file_is_known_by_its_tensors_alone(tmp_path: Path, family: str, wrapper: str) -> None:
    file = tmp_path / "finetuned.pt"
    torch.save(WRAPPERS[wrapper]({name: torch.ones(1) for name in NAMES[family]}), file)
    assert find_kind(file).family.name == family


@pytest.mark.parametrize("form", ["pt", "old.pt", "safetensors"])
def test_a_file_that_was_cut_short_is_one_line(tmp_path: Path, form: str) -> None:
    file = tmp_path / f"mobile_sam.{form}"
    state = make_mobile_sam().state_dict()
    if form == "safetensors":
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=form == "pt")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    with pytest.raises(UsageError, match="copy or download") as caught:
        find_kind(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mobile_sam.encoder.onnx", "resnet18_image_encoder.engine"])
def test_a_graph_or_an_engine_is_not_taken_for_a_damaged_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x08\x0a")
    with pytest.raises(UsageError, match=f"{name} is what other tools run.*pass the checkpoint that it was made from"):
        find_kind(tmp_path / name)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            "sam_vit_b_01ec64.pth",
            "curl -L -o sam_vit_b_01ec64.pth https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b",
        ),
        (
            "w/mobile_sam.pt",
            "curl -L -o w/mobile_sam.pt https://github.com/ChaoningZhang/MobileSAM/raw/.*/mobile_sam.pt",
        ),
        ("nielsr/slimsam-77-uniform", "hf download nielsr/slimsam-77-uniform --local-dir slimsam-77-uniform"),
        ("Zigeng/SlimSAM-uniform-50", "hf download Zigeng/SlimSAM-uniform-50 --local-dir SlimSAM-uniform-50"),
        ("edgetam.pt", "https://github.com/facebookresearch/EdgeTAM/raw/main/checkpoints/edgetam.pt"),
        ("yonigozlan/EdgeTAM-hf", "hf download yonigozlan/EdgeTAM-hf"),
        ("other.pt", "pass a segmenter's checkpoint, or one of embedded, embedded-mobile-sam, embedded-edgetam"),
    ],
)
def test_what_is_not_there_is_told_where_to_get_it(path: str, words: str) -> None:
    assert re.search(words, describe_missing_segmenter(Path(path)))
