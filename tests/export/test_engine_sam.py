"""Segmenters of every layout become engines of TensorRT for RTX, built here without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("tensorrt_rtx")

from specs import POLICY
from tiny_models import SAM, make_sam
from tiny_sam2_kin import make_edgetam
from wise_edge.bundle.devices import parse_gpu_kinds
from wise_edge.bundle.roles import MASK_GRAPHS
from wise_edge.export.source.calibration import read_calibration
from wise_edge.export.to_onnx.segmenter import PROMPTS, SamSource
from wise_edge.export.to_tensorrt.build import EngineRequest, build_engine
from wise_edge.export.to_tensorrt.plan import find_ranges
from wise_edge.sam.families import FAMILIES, PADDED, PADDED_HQ, STRETCHED
from wise_edge.sam.hq_sam import build_hq_sam
from wise_edge.sam.segment_anything import SamArchitecture, save_sam
from wise_edge.sam.spec import MOST_PROMPTS

HQ = SamArchitecture(
    relative_positions=True, input_size=64, patch_size=8, encoder_dim=32, encoder_depth=3, encoder_heads=2,
    window_size=3, global_attention=(1, 2), prompt_dim=64, decoder_heads=8, decoder_mlp_dim=32,
)  # fmt: skip
LAYOUTS: dict[str, Callable[[Path], None]] = {
    PADDED: lambda checkpoint: save_sam(make_sam(), SAM, checkpoint),
    PADDED_HQ: lambda checkpoint: torch.save(build_hq_sam(HQ).state_dict(), checkpoint),
    STRETCHED: lambda checkpoint: make_edgetam().save_pretrained(checkpoint),
}
FEATURES = {PADDED: [], PADDED_HQ: ["hq_features"], STRETCHED: ["high_res_0", "high_res_1"]}


def test_each_layout_is_built() -> None:
    assert LAYOUTS.keys() == {family.layout for family in FAMILIES}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_graphs_become_engines(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout](tmp_path / "sam.pth")
    SamSource(tmp_path / "sam.pth").export(tmp_path, "fp16", True, read_calibration(None, 1), lambda *_: None)

    sidecars = []
    for role in MASK_GRAPHS:
        file = tmp_path / f"{role}.onnx"
        request = EngineRequest(role, file, "source", find_ranges(file, POLICY), parse_gpu_kinds("sm89,sm120"))
        sidecars.append(build_engine(request, tmp_path / f"{role}.engine", lambda share: None))

    encoder, decoder = sidecars
    features = ["image_embeddings", *FEATURES[layout]]
    assert {"float16", "float32"} <= set(encoder.types)
    assert [spec.name for spec in encoder.outputs] == features
    assert [spec.name for spec in decoder.inputs] == [*features, *PROMPTS]
    assert decoder.ranges["point_coords"].largest[0] == MOST_PROMPTS
    for role, sidecar in zip(MASK_GRAPHS, sidecars, strict=True):
        assert (tmp_path / f"{role}.engine").stat().st_size == sidecar.bytes
