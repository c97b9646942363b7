"""The table of families: one row makes a segmenter known to recognition, bundles, export, runtimes and plans."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from specs import SAM as SPEC
from tiny_models import SAM
from wise_edge.bundle.manifest import EVALUATED_SCHEMA, SAM_SCHEMA, SCHEMA_VERSION, Manifest
from wise_edge.bundle.store import find_folder, read_bundle
from wise_edge.errors import MissingExtraError, UsageError
from wise_edge.export.to_onnx.families import LAYOUTS, open_graphs
from wise_edge.mapping import from_mapping
from wise_edge.planning.sizes import measure_sam
from wise_edge.runtimes.backends import find_backend
from wise_edge.runtimes.base import MaskPrompt
from wise_edge.runtimes.dispatch import DeviceCapabilities, check
from wise_edge.runtimes.mask.torch_mask import open_torch_mask
from wise_edge.sam import families
from wise_edge.sam.checkpoint import load_segmenter, read_sam_spec
from wise_edge.sam.families import AUTHORS, FAMILIES, PADDED, Family, Form
from wise_edge.sam.segment_anything import build_sam
from wise_edge.sam.spec import SamSpec
from wise_edge.sam.video.memory import MemorySpec

ROW = Family(
    "brush_sam",
    "BrushSAM",
    PADDED,
    "brush_sam_module",
    ("segment_anything",),
    (Form(AUTHORS, (), r"^image_encoder\.brush\.", ("image_encoder.", "prompt_encoder.", "mask_decoder.")),),
)


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of a family that one row adds, whose module lets segment-anything's classes load it."""
    module = ModuleType(ROW.module)
    module.__spec__ = ModuleSpec(ROW.module, None)

    def load(checkpoint: Path) -> torch.nn.Module:
        sam = build_sam(SAM)
        sam.load_state_dict({n: t for n, t in torch.load(checkpoint).items() if ".brush." not in n})
        return sam

    vars(module).update(
        load=load,
        read_spec=lambda checkpoint: replace(SPEC, family=ROW.name, prompt_size=128),
        count_largest=lambda checkpoint: 4321,
    )
    monkeypatch.setitem(sys.modules, ROW.module, module)
    monkeypatch.setattr(families, "FAMILIES", (ROW, *FAMILIES))
    torch.manual_seed(0)
    file = tmp_path / "brush.pth"
    torch.save(build_sam(SAM).state_dict() | {"image_encoder.brush.weight": torch.ones(2)}, file)
    return file


def test_a_row_makes_a_family_known_everywhere(checkpoint: Path) -> None:
    spec = read_sam_spec(checkpoint)
    image = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)
    backend = open_torch_mask(checkpoint)
    mask = backend.decode(backend.encode(image), MaskPrompt((5, 5, 40, 30))).mask

    assert (spec.family, spec.row, spec.stretches) == ("brush_sam", ROW, False)
    assert mask.shape == (40, 64)
    assert torch.equal(
        load_segmenter(checkpoint).mask_decoder.iou_token.weight,
        torch.load(checkpoint)["mask_decoder.iou_token.weight"],
    )
    assert open_graphs(checkpoint).features == ("image_embeddings",)
    assert measure_sam(checkpoint).largest == 4321


def test_its_missing_library_is_named_with_its_extra(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(ROW, libraries=("segment_anything_hq",))
    monkeypatch.setattr(families, "FAMILIES", (row, *FAMILIES))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "segment_anything_hq" else object())
    with pytest.raises(MissingExtraError, match=r"segment_anything_hq.*wise-edge\[segmenters\]"):
        load_segmenter(checkpoint)


def test_dispatch_names_the_missing_library_of_a_bundles_family() -> None:
    manifest, torch_row = of_sam(replace(SPEC, family="mobile_sam")), find_backend("torch")
    packages = ("torch", "transformers", "segment_anything", "timm")
    with pytest.raises(MissingExtraError, match=r"mobile_sam.*pip install 'wise-edge\[segmenters\]'"):
        check(torch_row, manifest, DeviceCapabilities(packages), "mask")
    check(torch_row, manifest, DeviceCapabilities((*packages, "mobile_sam")), "mask")


def of_sam(sam: SamSpec) -> Manifest:
    return replace(read_bundle(find_folder("embedded")).manifest, sam=sam, evaluated=None)


@pytest.mark.usefixtures("checkpoint")
@pytest.mark.parametrize(
    "changes",
    [
        {"family": "brush_sam"},
        {"prompt_size": 128},
        {"family": "sam2", "memory": MemorySpec(6, 2, 15, True, (0, 1), True)},
    ],
)
def test_what_earlier_versions_would_misread_has_a_later_schema(changes: dict[str, Any]) -> None:
    sam = replace(SPEC, **changes)
    data = of_sam(sam).to_dict()
    assert data["schema_version"] == SAM_SCHEMA > EVALUATED_SCHEMA
    assert Manifest.from_dict(data).sam == sam


@pytest.mark.parametrize("family", ["segment_anything", "sam2"])
def test_what_earlier_versions_read_keeps_its_schema_and_entries(family: str) -> None:
    data = of_sam(replace(SPEC, family=family)).to_dict()
    assert data["schema_version"] == SCHEMA_VERSION
    assert set(data["sam"]) == {"family", "input_size", "low_res_size", "pixel_mean", "pixel_std", "multimask"}


def test_a_family_outside_the_table_is_named_with_those_in_it() -> None:
    with pytest.raises(UsageError, match=r"family: choose one of .*mobile_sam.*segment_anything; it is 'oil_sam'"):
        from_mapping(SamSpec, SPEC.to_dict() | {"family": "oil_sam"})


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_row_names_libraries_with_an_extra_and_a_complete_module(family: Family) -> None:
    assert set(family.libraries) <= set(families.LIBRARIES)
    assert family.layout in LAYOUTS
    assert all(callable(getattr(family.open(), name)) for name in ("read_spec", "load", "count_largest"))
