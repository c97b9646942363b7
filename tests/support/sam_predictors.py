"""What families of segmenters are held against: prompts, the libraries' predictors, and graphs that torch runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wise_edge.export.to_onnx.families import open_graphs
from wise_edge.runtimes.base import MaskPrompt
from wise_edge.runtimes.mask.graph import GraphMask
from wise_edge.runtimes.mask.torch_mask import open_torch_mask


def draw_picture(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)


class TorchGraph:
    """A module of a graph, run by torch: what the runtime adds to a graph is judged apart from its export."""

    def __init__(self, module: torch.nn.Module, outputs: tuple[str, ...]) -> None:
        self._module, self._outputs = module, outputs

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            found = self._module(*(torch.from_numpy(array) for array in arrays.values()))
        tensors = found if isinstance(found, tuple) else (found,)
        return {name: tensor.numpy() for name, tensor in zip(self._outputs, tensors, strict=True)}

    def largest(self, name: str, axis: int) -> int | None:
        return None


def check_against_predictor(checkpoint: Path, predictor: Any, size: tuple[int, int]) -> None:
    """Compare the torch backend and the runtime over the graphs' modules with a library's own predictor.

    Args:
        checkpoint: a segmenter.
        predictor: with the model that it was saved from, and the interface of segment-anything's `SamPredictor`.
        size: (width, height) of the picture, px.
    """
    graphs = open_graphs(checkpoint)
    decoder = TorchGraph(graphs.decoder, ("low_res_masks", "iou_predictions"))
    as_graphs = GraphMask("onnx", graphs.spec, TorchGraph(graphs.encoder, graphs.features), decoder)
    picture, low = draw_picture(size), graphs.spec.low_res_size
    predictor.set_image(picture)
    encoded = [(backend, backend.encode(picture)) for backend in (open_torch_mask(checkpoint), as_graphs)]
    covered = []
    for prompt in _prompts(size, low):
        masks, scores, logits = predictor.predict(
            point_coords=np.array(prompt.points) if prompt.points else None,
            point_labels=np.ones(len(prompt.points)) if prompt.points else None,
            box=np.array(prompt.box),
            mask_input=None if prompt.previous is None else prompt.previous[None],
        )
        best = int(scores.argmax())
        covered.append(masks[best].mean())
        for backend, image in encoded:
            got = backend.decode(image, prompt)
            np.testing.assert_allclose(got.logits, logits[best], rtol=0, atol=2e-5 * np.abs(logits[best]).max())
            assert got.score == pytest.approx(float(scores[best]), abs=2e-5)
            assert (got.mask != masks[best]).mean() < 1e-4
    assert any(0.01 < share < 0.99 for share in covered)


def _prompts(size: tuple[int, int], low: int) -> list[MaskPrompt]:
    """A box, one with two points, and one with a point and a mask."""
    width, height = size
    box = (0.2 * width, 0.1 * height, 0.9 * width, 0.8 * height)
    points = ((0.5 * width, 0.5 * height), (0.6 * width, 0.3 * height))
    earlier = np.random.default_rng(1).standard_normal((low, low), np.float32)
    return [MaskPrompt(box), MaskPrompt(box, points), MaskPrompt(box, points[:1], 10 * earlier)]
