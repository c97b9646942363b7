"""SlimSAM: SAM with pruned widths, as transformers' folder and as its authors' files."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tiny_models import fill_norms
from wise_edge.errors import UsageError
from wise_edge.export.to_onnx.segmenter import SamSource
from wise_edge.metrics import mask_iou
from wise_edge.runtimes.base import MaskPrompt
from wise_edge.runtimes.mask.torch_mask import open_torch_mask
from wise_edge.sam.checkpoint import read_sam_spec
from wise_edge.sam.names import name_in_sam_model
from wise_edge.sam.published import infer_architecture
from wise_edge.sam.segment_anything import SamArchitecture, build_sam

PROMPT = MaskPrompt((10, 12, 50, 48), ((30, 30), (25, 35)))


def pruned(hidden: int, mlp: int, heads: int, layers: int, **further: Any) -> Any:
    """transformers' model with the widths of a SlimSAM."""
    vision = {"hidden_size": hidden, "mlp_dim": mlp, "num_hidden_layers": layers, "num_attention_heads": heads}
    return transformers.SamModel(transformers.SamConfig(vision_config=vision | further))


@pytest.mark.parametrize(("name", "hidden", "mlp"), [("50", 384, 1536), ("77", 168, 696)])
def test_the_published_widths_are_recognized(name: str, hidden: int, mlp: int) -> None:
    """The configs of transformers' script that converts SlimSAM (`models/sam/convert_sam_to_hf.py`)."""
    with torch.device("meta"):  # shapes without weights
        state = pruned(hidden, mlp, 12, 12, global_attn_indexes=[2, 5, 8, 11]).state_dict()
        found = SamArchitecture(**infer_architecture(Path("folder"), state, name_in_sam_model))
        rebuilt = build_sam(found).state_dict()

    assert (found.encoder_dim, found.encoder_mlp_dim, found.encoder_heads, found.encoder_depth) == (hidden, mlp, 12, 12)
    assert found.global_attention == (2, 5, 8, 11) and found.input_size == 1024
    assert all(tensor.shape == state[name_in_sam_model(own)].shape for own, tensor in rebuilt.items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder of a model with slimsam-77's head width and feed-forward ratio, and the model."""
    torch.manual_seed(1)
    model = transformers.SamModel(
        transformers.SamConfig(
            vision_config={
                "hidden_size": 42, "mlp_dim": 174, "num_attention_heads": 3, "num_hidden_layers": 3, "image_size": 64,
                "patch_size": 8, "window_size": 3, "global_attn_indexes": [1], "output_channels": 32,
                "num_pos_feats": 16,
            },
            prompt_encoder_config={"hidden_size": 32, "image_size": 64, "patch_size": 8},
            mask_decoder_config={"hidden_size": 32, "mlp_dim": 48, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
        )
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 or "pos" in name:
                torch.nn.init.normal_(parameter, std=0.1 if "vision" in name else 0.15)
    path = tmp_path_factory.mktemp("slimsam")
    fill_norms(model).save_pretrained(path)
    return path, model


def test_masks_of_a_pruned_folder_are_those_of_transformers(folder: tuple[Path, Any]) -> None:
    path, model = folder
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    processor = transformers.SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    opened = open_torch_mask(path)

    found = opened.decode(opened.encode(image), PROMPT)

    with torch.no_grad():
        expected = model(
            pixel_values=processor(image, return_tensors="pt")["pixel_values"],
            input_boxes=torch.tensor(PROMPT.box, dtype=torch.float32)[None, None],
            input_points=torch.tensor(PROMPT.points, dtype=torch.float32)[None, None],
            input_labels=torch.ones(1, 1, 2, dtype=torch.int64),
        )
    best = int(expected.iou_scores[0, 0].argmax())
    logits = expected.pred_masks[0, 0, best].numpy()
    # transformers' layer norms in the decoder add 1e-6 to the variance, segment-anything's 1e-5.
    np.testing.assert_allclose(found.logits, logits, atol=2e-3 * np.abs(logits).max())
    assert mask_iou(found.logits > 0, logits > 0) > 0.99 and 0 < (logits > 0).mean() < 1
    assert read_sam_spec(path).family == "segment_anything"


def test_graphs_of_a_pruned_folder_equal_torch(folder: tuple[Path, Any], tmp_path: Path) -> None:
    source = SamSource(folder[0])
    source.export(tmp_path, "fp32", False, [], lambda *_: None)
    figures = source.compare(tmp_path, "fp32", False, lambda *_: None)
    assert all(figure.value <= 1e-5 for figure in figures), figures


def test_the_authors_pickled_module_is_refused_with_what_to_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("segment_anything_kd.modeling.sam")
    module.Sam = type("Sam", (torch.nn.Module,), {"__module__": module.__name__})  # type: ignore[attr-defined]
    for name in ("segment_anything_kd", "segment_anything_kd.modeling"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    torch.save(module.Sam(), tmp_path / "SlimSAM-77.pth")

    with pytest.raises(
        UsageError, match=r"an object of segment_anything_kd\..*hf download Zigeng/SlimSAM-un"
    ) as caught:
        read_sam_spec(tmp_path / "SlimSAM-77.pth")
    assert "\n" not in str(caught.value)
