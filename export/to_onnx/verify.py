"""Comparison of every graph with its checkpoint in torch, on the cases that occur at run time.

A figure is the largest absolute difference, divided by torch's largest absolute value if that exceeds 1, so that one
tolerance fits logits of 0.5 and of 50.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from wise_edge.bundle.card import describe_bound
from wise_edge.bundle.manifest import Figure
from wise_edge.bundle.roles import DECODER, EMBEDDING
from wise_edge.errors import VerificationError
from wise_edge.export.to_onnx.families import SegmenterGraphs
from wise_edge.native.onnxruntime_session import OnnxSession
from wise_edge.policy.graph_io import (
    deepstack_rows,
    empty_cache,
    next_cache,
    patch_grid,
    patch_values,
    present_names,
    vision_graphs,
    vision_outputs,
)
from wise_edge.policy.spec import PolicySpec

TOLERANCE = 1e-4
POINT_COUNTS = (0, 1, 2, 3, 8)
_PROMPT, _STEP = 24, 1  # tokens of a prefill and of a decode step
_IMAGE = slice(5, 17)  # of a prefill's tokens, those of an image


def check_figures(figures: Sequence[Figure]) -> None:
    """Raise `VerificationError` if figures are out of bounds, naming all of them."""
    if failed := [figure for figure in figures if not figure.passed]:
        listed = ", ".join(f"{figure.what} {figure.value:.3g} ({describe_bound(figure)})" for figure in failed)
        raise VerificationError(f"the export differs from the checkpoint: {listed}; nothing was written")


def verify_policy(model: Any, spec: PolicySpec, folder: Path) -> Iterator[Figure]:
    """Compare the policy's graphs with transformers' own forward passes.

    Args:
        model: transformers' model of one of the families, float32.
        spec: the policy.
        folder: holds the graphs, named after their roles.
    """
    for grid, role in vision_graphs(spec).items():
        yield _verify_vision(model, spec, patch_grid(spec, grid), folder / f"{role}.onnx")
    yield from _verify_decoder(model, spec, OnnxSession(folder / f"{DECODER}.onnx"))


def _verify_vision(model: Any, spec: PolicySpec, grid: tuple[int, int], file: Path) -> Figure:
    """Compare the vision tower for images of a grid of patches."""
    columns, rows = grid
    patches = np.random.default_rng(0).standard_normal((columns * rows, patch_values(spec)), np.float32)
    with torch.no_grad():
        seen = model.model.visual(torch.from_numpy(patches), grid_thw=torch.tensor([[1, rows, columns]]))
    expected = [seen.pooler_output]
    if spec.deepstack_layers:
        expected.append(torch.stack(seen.deepstack_features))
    out = OnnxSession(file).run({"pixel_values": patches})
    return compare_arrays(
        file.stem, [(out[name], value) for name, value in zip(vision_outputs(spec), expected, strict=True)]
    )


def _verify_decoder(model: Any, spec: PolicySpec, graph: OnnxSession) -> Iterator[Figure]:
    """Prefill from an empty cache, then one token, then several tokens after a cache; an image in both prefills."""
    cache: Any = transformers.DynamicCache(config=model.config.text_config)
    generator = torch.Generator().manual_seed(0)
    past = empty_cache(spec)
    for what, length in (("prefill, empty past", _PROMPT), ("decode", _STEP), ("prefill", _PROMPT)):
        ids = torch.randint(model.config.text_config.vocab_size, (1, length), generator=generator)
        # Time, row and column must differ, or a wrong rotary section would pass.
        positions = torch.randint(64, (3, 1, length), generator=generator)
        embeds = model.get_input_embeddings()(ids).detach()
        features, deeper = None, {}
        if spec.deepstack_layers and length > _STEP:
            is_image = torch.zeros(1, length, dtype=torch.bool)
            is_image[:, _IMAGE] = True
            image = torch.randn(spec.deepstack_layers, int(is_image.sum()), spec.hidden_size, generator=generator)
            features = image.numpy()
            deeper = {"visual_pos_masks": is_image, "deepstack_visual_embeds": list(image)}
        with torch.no_grad():
            hidden = model.model.language_model(
                inputs_embeds=embeds, position_ids=positions, past_key_values=cache, use_cache=True, **deeper
            ).last_hidden_state
            logits = model.lm_head(hidden[:, -1:])
        deepstack = deepstack_rows(spec, length, features, _IMAGE.start)
        out = graph.run({"inputs_embeds": embeds.numpy(), "position_ids": positions.numpy(), **past, **deepstack})
        present = [out[name] for name in present_names(spec.num_layers)]
        expected = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
        yield compare_arrays(f"{DECODER} logits, {what}", [(out["logits"], logits)])
        yield compare_arrays(f"{DECODER} keys and values, {what}", list(zip(present, expected, strict=True)))
        past = next_cache(out, spec.num_layers)


def verify_embedding(model: Any, table: npt.NDArray[Any]) -> Figure:
    """Compare the stored token embedding with the checkpoint's."""
    return compare_arrays(EMBEDDING, [(table.astype(np.float32), model.get_input_embeddings().weight.detach())])


def verify_sam(graphs: SegmenterGraphs, encoder: Path, decoder: Path) -> Iterator[Figure]:
    """Compare the segmenter's graphs with its own forward passes: a box with and without points, a mask, and several.

    Args:
        graphs: the checkpoint.
        encoder: exported image encoder.
        decoder: exported mask decoder.
    """
    rng = np.random.default_rng(0)
    side, low, pixels = graphs.spec.prompt_side, graphs.spec.low_res_size, graphs.spec.input_size
    image = rng.standard_normal((1, 3, pixels, pixels), np.float32)
    with torch.no_grad():
        features = graphs.embed(torch.from_numpy(image))
    out = OnnxSession(encoder).run({"image": image})
    yield compare_arrays(
        "sam.encoder", [(out[name], feature) for name, feature in zip(graphs.features, features, strict=True)]
    )
    graph = OnnxSession(decoder)
    shared = {name: feature.numpy() for name, feature in zip(graphs.features, features, strict=True)}
    for prompts, count, masked in (*((1, count, False) for count in POINT_COUNTS), (1, 2, True), (3, 2, True)):
        points = rng.uniform(0, side, (prompts, count, 2)).astype(np.float32)
        box = np.sort(rng.uniform(0, side, (prompts, 2, 2)).astype(np.float32), axis=1)
        mask = 10 * rng.standard_normal((prompts, 1, low, low), np.float32)
        prompt = {
            "point_coords": np.concatenate([points, box], axis=1),
            "point_labels": np.array([[1] * count + [2, 3]] * prompts, np.float32),
            "mask_input": mask,
            "has_mask_input": np.full(prompts, masked, np.float32),
        }
        earlier = torch.from_numpy(mask) if masked else None
        with torch.no_grad():
            masks, scores = graphs.predict(features, torch.from_numpy(points), torch.from_numpy(box), earlier)
        out = graph.run({**shared, **prompt})
        what = f"sam.decoder, box and {count} points{' and a mask' if masked else ''}"
        what += "" if prompts == 1 else f", {prompts} prompts"
        yield compare_arrays(what, [(out["low_res_masks"], masks), (out["iou_predictions"], scores)])


def compare_arrays(what: str, pairs: Sequence[tuple[npt.NDArray[Any], Any]]) -> Figure:
    """Return the largest relative error of arrays against torch's tensors."""
    worst = 0.0
    for got, tensor in pairs:
        expected = tensor.numpy()
        if got.shape != expected.shape:
            raise VerificationError(f"{what}: shape {got.shape} instead of {expected.shape}; nothing was written")
        worst = max(worst, float(np.abs(got - expected).max() / max(1.0, np.abs(expected).max())))
    return Figure(what, worst, "relative error", at_most=TOLERANCE)
