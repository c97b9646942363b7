"""The room that an export needs is known first: vision towers of further grids count too."""

from __future__ import annotations

from pathlib import Path

import pytest

from wise_edge.errors import MissingExtraError, UsageError

pytest.importorskip("wise_edge.export.pipeline", exc_type=MissingExtraError)

from safetensors.torch import load_file

from wise_edge.bundle.store import EMBEDDED, resolve_checkpoint
from wise_edge.export import pipeline
from wise_edge.export.options import ExportOptions


@pytest.fixture
def vision_share() -> float:
    """Share of the embedded policy's weights that its vision tower has."""
    weights = load_file(resolve_checkpoint(EMBEDDED, "policy") / "model.safetensors")
    vision = sum(tensor.numel() for name, tensor in weights.items() if ".visual." in f".{name}")
    return vision / sum(tensor.numel() for tensor in weights.values())


def asked(monkeypatch: pytest.MonkeyPatch, out: Path, **options: str) -> int:
    """Return how many bytes an export asks the disk for."""

    def refuse(folder: Path, size: int) -> None:
        raise UsageError(str(size))

    monkeypatch.setattr(pipeline, "check_space", refuse)
    targets = ("onnx", "tensorrt") if options["onnx_precision"] == "bf16" else ("onnx",)
    device = "orin" if "tensorrt" in targets else ""
    chosen = ExportOptions(targets, device=device, picture="aspect:784-12544", **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError) as error:
        pipeline.export_bundle(EMBEDDED, EMBEDDED, out, chosen, verify=None, progress=lambda *_: None)
    return int(str(error.value))


@pytest.mark.parametrize(("precision", "times"), [("fp32", 2), ("fp16", 2), ("bf16", 4)])
def test_each_further_grid_is_another_vision_tower(
    precision: str, times: int, vision_share: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, three = (
        asked(monkeypatch, tmp_path / "b", grids=grids, onnx_precision=precision) for grids in ("4x4", "4x4,4x3,3x4")
    )
    stored = (resolve_checkpoint(EMBEDDED, "policy") / "model.safetensors").stat().st_size
    assert 0.1 < vision_share < 0.9
    assert three - one == pytest.approx(times * 2 * vision_share * stored, abs=2)
