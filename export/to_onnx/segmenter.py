"""The segmenter of a bundle: image encoder and mask decoder as ONNX graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wise_edge.bundle.manifest import Artifact, Figure
from wise_edge.bundle.roles import mask_graphs
from wise_edge.export.progress import Progress
from wise_edge.export.source.calibration import CalibrationSample
from wise_edge.export.to_onnx import verify
from wise_edge.export.to_onnx.edit import describe_graph, free_axis, replace_graph
from wise_edge.export.to_onnx.families import open_graphs
from wise_edge.export.to_onnx.fp8 import quantize_fp8
from wise_edge.export.to_onnx.half import HALF_TYPES, halve
from wise_edge.export.to_onnx.int8 import quantize_int8
from wise_edge.export.to_onnx.trace import export_onnx
from wise_edge.export.to_onnx.video import OBJECTS, VideoGraphs
from wise_edge.policy.graph_io import Batch
from wise_edge.sam.checkpoint import read_sam_spec
from wise_edge.sam.image import fit_image, normalize_image
from wise_edge.sam.names import find_part
from wise_edge.sam.spec import MOST_PROMPTS

PROMPTS = ("point_coords", "point_labels", "mask_input", "has_mask_input")
"""The decoder's inputs in addition to the encoder's features."""
MASKS = ("low_res_masks", "iou_predictions")
"""The decoder's outputs."""
_OF_8_BITS = {"int8": quantize_int8, "fp8": quantize_fp8}
_ENCODER, _DECODER = "sam.encoder.onnx", "sam.decoder.onnx"


class SamSource:
    """A segmenter's checkpoint.

    Args:
        checkpoint: what `read_sam_spec` reads.

    Raises:
        UsageError: it is something else.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.spec = read_sam_spec(checkpoint)
        self._graphs = open_graphs(checkpoint)
        self._video = None if self.spec.memory is None else VideoGraphs(checkpoint, self.spec.memory)

    def export(
        self, out: Path, precision: str, fp16_arithmetic: bool, samples: Sequence[CalibrationSample], progress: Progress
    ) -> list[Artifact]:
        """Write the graphs into a bundle's folder.

        Args:
            out: the folder.
            precision: one of `SAM_PRECISIONS`; with an 8-bit image encoder the mask decoder stays float.
            fp16_arithmetic: compute in half precision next to weights of 8 bits.
            samples: images to calibrate with if the precision is not "fp32".
            progress: called at each step.
        """
        progress("exporting the segmenter's image encoder")
        image = torch.zeros(1, 3, self.spec.input_size, self.spec.input_size)
        export_onnx(self._graphs.encoder, (image,), ["image"], [*self._graphs.features], out / _ENCODER)
        progress("exporting the segmenter's mask decoder")
        with torch.no_grad():
            features = self._graphs.embed(image)
        self._export_mask_decoder(features, out / _DECODER)
        if self._video is not None:
            progress("exporting the segmenter's memory")
            self._video.export(features[0], out)
        float32: dict[str, list[str]] = {}
        if precision != "fp32":
            progress(f"bringing the segmenter to {precision}")
            lowers = fp16_arithmetic or precision in HALF_TYPES
            float32 = self._lower(out, precision, lowers, [self._inputs(sample) for sample in samples])
        encoder, decoder = _precisions(precision, fp16_arithmetic)
        roles = {role: decoder for role in mask_graphs(memory=self._video is not None)} | {"sam.encoder": encoder}
        return [
            each for role, of_it in roles.items() for each in describe_graph(out, role, of_it, float32.get(role, ()))
        ]

    def _inputs(self, sample: CalibrationSample) -> Batch:
        height, width, _ = sample.image.shape
        return {"image": normalize_image(sample.image, fit_image((width, height), self.spec), self.spec)}

    def _lower(self, out: Path, precision: str, fp16_arithmetic: bool, batches: list[Batch]) -> dict[str, list[str]]:
        """Lower the graphs' precision; return the layers of each that stay float32, by the graph's role."""
        if precision in _OF_8_BITS:
            replace_graph(out / _ENCODER, partial(_OF_8_BITS[precision], batches=batches))
        if not fp16_arithmetic:
            return {}
        arithmetic = precision if precision in HALF_TYPES else "fp16"
        prompts = [self._prompt(batch, seed) for seed, batch in enumerate(batches)]
        inputs = {"sam.encoder": batches, "sam.decoder": prompts}
        inputs |= {} if self._video is None else self._video.inputs(prompts)
        layers = {}
        for role, given in inputs.items():
            names = replace_graph(out / f"{role}.onnx", partial(halve, batches=given, precision=arithmetic))
            layers[role] = [name[find_part(name) or 0 :] for name in names]
        return layers

    def _prompt(self, batch: Batch, seed: int) -> Batch:
        """Return a prompt at a random place in an image; every second one has a mask."""
        rng = np.random.default_rng(seed)
        side, low = self.spec.prompt_side, self.spec.low_res_size
        with torch.no_grad():
            features = self._graphs.embed(torch.from_numpy(batch["image"]))
        arrays = (
            rng.uniform(0, side, (1, 4, 2)),
            np.array([[1, 1, 2, 3]]),
            10 * rng.standard_normal((1, 1, low, low)),
            np.array([seed % 2]),
        )
        shared = zip(self._graphs.features, (feature.numpy() for feature in features), strict=True)
        return dict(shared) | {name: array.astype(np.float32) for name, array in zip(PROMPTS, arrays, strict=True)}

    def compare(self, out: Path, precision: str, fp16_arithmetic: bool, progress: Progress) -> list[Figure]:
        """Compare the files of `export` with torch; lower precision is judged by the masks of complete queries."""
        progress("comparing the segmenter's graphs with torch")
        encoder, decoder = _precisions(precision, fp16_arithmetic)
        others = tuple(role for role in mask_graphs(memory=True) if role != "sam.encoder")
        judged = (*(("sam.encoder",) if encoder == "fp32" else ()), *(others if decoder == "fp32" else ()))
        figures = [*verify.verify_sam(self._graphs, out / _ENCODER, out / _DECODER)]
        if self._video is not None:
            figures += self._video.verify(self._graphs, out)
        return [figure if figure.what.startswith(judged) else replace(figure, at_most=None) for figure in figures]

    def _export_mask_decoder(self, features: tuple[Tensor, ...], file: Path) -> None:
        # Two prompts, since torch.export takes a size of 1 for one that never changes.
        coords, labels = torch.zeros(2, 4, 2), torch.tensor([[1.0, 1.0, 2.0, 3.0]] * 2)
        side = self.spec.low_res_size
        prompts = torch.export.Dim("prompts", min=1, max=MOST_PROMPTS)
        points = torch.export.Dim("points", min=1, max=64)
        export_onnx(
            self._graphs.decoder if self._video is None else self._video.decoder,
            (*features, coords, labels, torch.zeros(2, 1, side, side), torch.zeros(2)),
            [*self._graphs.features, *PROMPTS],
            [*MASKS, *(() if self._video is None else OBJECTS)],
            file,
            dynamic=(*({} for _ in features), *[{0: prompts, 1: points}] * 2, *[{0: prompts}] * 2),
        )
        if self._video is not None:
            free_axis(file, self._graphs.features[0], "images")


def _precisions(precision: str, fp16_arithmetic: bool) -> tuple[str, str]:
    """Return the precisions of encoder and decoder."""
    if precision not in _OF_8_BITS:
        return precision, precision
    return precision, "fp16" if fp16_arithmetic else "fp32"
