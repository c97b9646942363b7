"""Models of transformers are loaded and saved without noise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tiny_qwen import make_qwen, save_qwen
from wise_edge.native.pretrained import load_pretrained, save_pretrained


def test_saving_and_loading_draw_no_progress_bars(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = make_qwen("qwen2_5_vl")
    folder = save_qwen(model, tmp_path / "a")
    capfd.readouterr()
    save_pretrained(model, tmp_path / "b")
    loaded = load_pretrained(type(model).__name__, tmp_path / "b", dtype=torch.float32, attention="eager")
    assert (tmp_path / "b/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    assert capfd.readouterr().err == ""
