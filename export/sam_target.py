"""The segmenter of a bundle: image encoder and mask decoder as ONNX graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wise_edge.export import sam_onnx, verify
from wise_edge.export.calibration import CalibrationSample
from wise_edge.export.onnx_int8 import Batch, quantize_int8
from wise_edge.export.onnx_target import describe_graph
from wise_edge.export.progress import Progress
from wise_edge.export.to_onnx import export_onnx
from wise_edge.extras import require
from wise_edge.manifest import Artefact, Figure, SamSpec
from wise_edge.sam_image import fit_longest_side, normalize_longest_side
from wise_edge.sam_model import SamArchitecture, load_sam, read_architecture

PRECISIONS = ("fp32", "int8")
_ENCODER, _DECODER = "sam.encoder.onnx", "sam.decoder.onnx"


class SamSource:
    """A segmenter's checkpoint.

    Args:
        checkpoint: folder of `wise_edge.sam_model`, or a published `.pth` file.

    Raises:
        UsageError: it is neither.
    """

    def __init__(self, checkpoint: Path) -> None:
        self._architecture = read_architecture(checkpoint)
        self._sam = load_sam(checkpoint)
        architecture = self._architecture
        self.spec = SamSpec(
            "segment_anything", architecture.input_size, architecture.pixel_mean, architecture.pixel_std
        )

    def export(
        self, out: Path, precision: str, samples: Sequence[CalibrationSample], progress: Progress
    ) -> list[Artefact]:
        """Write both graphs into a bundle's folder.

        Args:
            out: the folder.
            precision: of the image encoder, one of `PRECISIONS`; the mask decoder is small and stays float.
            samples: pictures to calibrate int8 with.
            progress: told what is being done.
        """
        torch = require("torch", "export")
        progress("exporting the segmenter's image encoder")
        image = torch.zeros(1, 3, self.spec.input_size, self.spec.input_size)
        encoder = export_onnx(self._sam.image_encoder, (image,), ["image"], ["image_embeddings"], out / _ENCODER)
        if precision == "int8":
            progress("quantising the segmenter's image encoder")
            exact = out / f"{_ENCODER}.float"
            (out / _ENCODER).rename(exact)
            quantize_int8(exact, out / _ENCODER, (self._inputs(sample) for sample in samples))
            exact.unlink()
            encoder = precision
        progress("exporting the segmenter's mask decoder")
        decoder = _export_mask_decoder(self._sam, self._architecture, out / _DECODER)
        return [*describe_graph(out, "sam.encoder", encoder), *describe_graph(out, "sam.decoder", decoder)]

    def _inputs(self, sample: CalibrationSample) -> Batch:
        height, width, _ = sample.image.shape
        resized = fit_longest_side((width, height), self.spec.input_size)
        return {"image": normalize_longest_side(sample.image, resized, self.spec)}

    def compare(self, out: Path, precision: str, progress: Progress) -> list[Figure]:
        """Compare the files of `export` with torch; an int8 encoder is judged by the masks of whole queries."""
        progress("comparing the segmenter's graphs with torch")
        figures = list(verify.verify_sam(self._sam, self.spec, out / _ENCODER, out / _DECODER))
        if precision != "int8":
            return figures
        return [replace(figure, at_most=None) if figure.what == "sam.encoder" else figure for figure in figures]


def _export_mask_decoder(sam: Any, architecture: SamArchitecture, file: Path) -> str:
    torch = require("torch", "export")
    embeddings = torch.zeros(1, architecture.prompt_dim, architecture.grid, architecture.grid)
    coords, labels = torch.zeros(1, 4, 2), torch.tensor([[1.0, 1.0, 2.0, 3.0]])
    points = torch.export.Dim("points", min=2, max=64)
    return export_onnx(
        sam_onnx.build_decoder(sam),
        (embeddings, coords, labels),
        ["image_embeddings", "point_coords", "point_labels"],
        ["low_res_masks", "iou_predictions"],
        file,
        dynamic=({}, {1: points}, {1: points}),
    )
