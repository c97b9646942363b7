"""Segmenters of every layout become engines of TensorRT for RTX, built here without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

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
from wise_edge.sam.families import PADDED, STRETCHED
from wise_edge.sam.segment_anything import save_sam
from wise_edge.sam.spec import MOST_PROMPTS

LAYOUTS: dict[str, Callable[[Path], None]] = {
    PADDED: lambda folder: save_sam(make_sam(), SAM, folder),
    STRETCHED: lambda folder: make_edgetam().save_pretrained(folder),
}
FEATURES = {PADDED: ["image_embeddings"], STRETCHED: ["image_embeddings", "high_res_0", "high_res_1"]}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_graphs_become_engines(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout](tmp_path / "sam")
    SamSource(tmp_path / "sam").export(tmp_path, "fp16", True, read_calibration(None, 1), lambda *_: None)

    sidecars = []
    for role in MASK_GRAPHS:
        file = tmp_path / f"{role}.onnx"
        request = EngineRequest(role, file, "source", find_ranges(file, POLICY), parse_gpu_kinds("sm89,sm120"))
        sidecars.append(build_engine(request, tmp_path / f"{role}.engine", lambda share: None))

    encoder, decoder = sidecars
    assert {"float16", "float32"} <= set(encoder.types)
    assert [spec.name for spec in encoder.outputs] == FEATURES[layout]
    assert [spec.name for spec in decoder.inputs] == [*FEATURES[layout], *PROMPTS]
    assert decoder.ranges["point_coords"].largest[0] == MOST_PROMPTS
    assert all(
        (tmp_path / f"{role}.engine").stat().st_size == side.bytes
        for role, side in zip(MASK_GRAPHS, sidecars, strict=True)
    )
