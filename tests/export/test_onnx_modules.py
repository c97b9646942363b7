"""Modules rewritten for graphs give their libraries' numbers, without the arrays that they exist to avoid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from segment_anything.modeling.image_encoder import ImageEncoderViT

from tiny_models import make_sam
from wise_edge.export.to_onnx import int8
from wise_edge.export.to_onnx.modules import vit
from wise_edge.export.to_onnx.modules.two_way import MaskUpscaling, TwoWayTransformer
from wise_edge.export.to_onnx.trace import export_onnx


def make_encoder(side: int, window: int, relative: bool = True) -> Any:
    torch.manual_seed(0)
    encoder = ImageEncoderViT(
        img_size=side, patch_size=16, embed_dim=32, depth=3, num_heads=2, out_chans=16, use_rel_pos=relative,
        window_size=window, global_attn_indexes=(1,),
    )  # fmt: skip
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return encoder.eval()


@pytest.mark.parametrize("largest", [2**8, 2**13, 2**26])
@pytest.mark.parametrize(("side", "window", "relative"), [(112, 3, True), (128, 4, True), (112, 2, False)])
def test_a_vit_in_blocks_equals_the_stock_one(
    side: int, window: int, relative: bool, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vit, "LARGEST_SCORES", largest)
    encoder = make_encoder(side, window, relative)
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))

    with torch.no_grad():
        stock = encoder(image)
        rewritten = vit.rewrite_vit(encoder)
        torch.testing.assert_close(rewritten(image), stock, rtol=1e-5, atol=1e-5)

    assert type(encoder.blocks[0]) is not type(rewritten.blocks[0])  # the library's own remains, to compare with
    assert encoder.neck is rewritten.neck


def test_an_encoder_of_another_kind_stays_as_it_is() -> None:
    encoder = torch.nn.Conv2d(3, 8, 4)

    assert vit.rewrite_vit(encoder) is encoder


def test_no_array_of_a_graph_holds_all_pairs_of_patches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    side, patches, heads = 128, 64, 2
    monkeypatch.setattr(vit, "LARGEST_SCORES", 4 * heads * patches**2 // 4)
    sizes = {}
    for name, encoder in (("stock", make_encoder(side, 4)), ("blocks", vit.rewrite_vit(make_encoder(side, 4)))):
        export_onnx(encoder, (torch.zeros(1, 3, side, side),), ["image"], ["features"], tmp_path / f"{name}.onnx")
        graph = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / f"{name}.onnx"), data_prop=True).graph
        shapes = [[axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in graph.value_info]
        sizes[name] = max(int(np.prod(shape)) for shape in shapes if shape[-1:] == [patches])

    assert sizes == {"stock": heads * patches**2, "blocks": heads * patches**2 // 4}


def test_tables_of_relative_positions_are_no_weights_to_quantize(tmp_path: Path) -> None:
    encoder = vit.rewrite_vit(make_encoder(128, 4))
    export_onnx(encoder, (torch.zeros(1, 3, 128, 128),), ["image"], ["features"], tmp_path / "float.onnx")
    rng = np.random.default_rng(0)
    batches = [{"image": rng.standard_normal((1, 3, 128, 128)).astype(np.float32)} for _ in range(2)]

    int8.quantize_int8(tmp_path / "float.onnx", tmp_path / "int8.onnx", batches)

    weights = [part for part in onnx.load(tmp_path / "int8.onnx").graph.initializer if len(part.dims) == 3]
    assert weights
    assert {part.data_type for part in weights} == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize(("prompts", "tokens"), [(1, 5), (3, 7)])
def test_a_mask_decoder_that_shares_equals_the_stock_one(prompts: int, tokens: int) -> None:
    decoder: Any = make_sam().mask_decoder
    generator = torch.Generator().manual_seed(0)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    width, side = decoder.transformer_dim, 6
    image, places = torch.randn(2, prompts, width, side, side, generator=generator)
    prompt, wanted = torch.randn(prompts, tokens, width), torch.randn(prompts, 4, width // 8)
    places = places[:1]

    with torch.no_grad():
        stock_tokens, stock_image = decoder.transformer(image, places.expand(image.shape), prompt)
        upscaled = decoder.output_upscaling(stock_image.transpose(1, 2).view(image.shape))
        stock_masks = (wanted @ upscaled.flatten(2)).unflatten(2, (4 * side, 4 * side))
        flat = (array.flatten(2).transpose(1, 2) for array in (image, places))
        our_tokens, our_image = TwoWayTransformer(decoder.transformer)(*flat, prompt)
        our_masks = MaskUpscaling(decoder.output_upscaling)(our_image, wanted)

    for ours, stock in ((our_tokens, stock_tokens), (our_image, stock_image), (our_masks, stock_masks)):
        torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-5 * float(stock.abs().max()))
