"""The published Segment Anything models are values of the same architecture."""

from __future__ import annotations

import pytest

from wise_edge.sam.segment_anything import SamArchitecture, build_sam

torch = pytest.importorskip("torch")
registry = pytest.importorskip("segment_anything").sam_model_registry

VIT_B = SamArchitecture(
    input_size=1024,
    patch_size=16,
    encoder_dim=768,
    encoder_depth=12,
    encoder_heads=12,
    window_size=14,
    global_attention=(2, 5, 8, 11),
    relative_positions=True,
    prompt_dim=256,
    decoder_heads=8,
    decoder_mlp_dim=2048,
)
"""As docs/gpu.md gives it."""


def test_vit_b_has_the_published_weights() -> None:
    with torch.device("meta"):
        published, ours = registry["vit_b"](), build_sam(VIT_B)
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (published, ours)]
    assert shapes[0] == shapes[1]
    assert str(published.image_encoder) == str(ours.image_encoder)
    assert str(published.mask_decoder) == str(ours.mask_decoder)
