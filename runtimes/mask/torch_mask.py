"""Segmenters on torch, through the classes of their own libraries: the reference that graphs are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.bundle.store import Bundle
from wise_edge.extras import require
from wise_edge.geometry import Point
from wise_edge.runtimes.backends import Backend
from wise_edge.runtimes.base import MaskBackend, MaskOutput, MaskPrompt
from wise_edge.runtimes.checkpoints import find_checkpoint
from wise_edge.sam.checkpoint import read_sam_spec
from wise_edge.sam.sam2 import load_sam2
from wise_edge.sam.segment_anything import load_sam
from wise_edge.sam.spec import SAM2


def open_mask(bundle: Bundle, row: Backend, **_: Any) -> MaskBackend[Any]:
    """Open the checkpoint of a bundle's segmenter; see `wise_edge.runtimes.backends.Support`."""
    return open_torch_mask(find_checkpoint(bundle, "mask"))


def open_torch_mask(checkpoint: Path) -> MaskBackend[Any]:
    """Open a checkpoint of either family, on a GPU if torch finds one.

    Args:
        checkpoint: what `read_sam_spec` reads.

    Raises:
        UsageError: it is none of them.
        MissingExtraError: torch or the family's library is not installed.
    """
    family = TorchSam2 if read_sam_spec(checkpoint).family == SAM2 else TorchSegmentAnything
    return family(checkpoint)


def _device() -> str:
    return "cuda" if require("torch", "export").cuda.is_available() else "cpu"


@dataclass(frozen=True)
class PredictorImage:
    """A predictor that holds an image's embedding; segment-anything does not time preprocessing separately."""

    predictor: Any
    preprocess_ms: float
    encode_ms: float


class TorchSegmentAnything:
    """Runs a checkpoint with segment-anything's `SamPredictor`.

    Args:
        checkpoint: what `load_sam` loads.
    """

    name = "torch"

    def __init__(self, checkpoint: Path) -> None:
        self._predictor = require("segment_anything", "export").SamPredictor
        self._multimask = read_sam_spec(checkpoint).multimask
        self._sam = load_sam(checkpoint).to(_device())

    def encode(self, image: npt.NDArray[np.uint8]) -> PredictorImage:
        """Prepare an image (HWC uint8 RGB, any size) for prompts."""
        start = perf_counter()
        predictor = self._predictor(self._sam)
        predictor.set_image(image)
        return PredictorImage(predictor, 0.0, (perf_counter() - start) * 1e3)

    def decode(self, encoded: PredictorImage, prompt: MaskPrompt) -> MaskOutput:
        """Segment what a prompt marks; see `MaskBackend`."""
        start = perf_counter()
        masks, scores, logits = encoded.predictor.predict(
            point_coords=np.array(prompt.points, np.float32).reshape(-1, 2) if prompt.points else None,
            point_labels=np.ones(len(prompt.points), np.int64) if prompt.points else None,
            box=np.array(prompt.box, np.float32),
            mask_input=None if prompt.previous is None else prompt.previous[None],
            multimask_output=self._multimask,
        )
        best = int(scores.argmax())
        return MaskOutput(masks[best], float(scores[best]), logits[best], (perf_counter() - start) * 1e3)


@dataclass(frozen=True)
class Sam2Image:
    """An image's features, and its (height, width)."""

    features: Any
    size: tuple[int, int]
    preprocess_ms: float
    encode_ms: float


class TorchSam2:
    """Runs a checkpoint with transformers' `Sam2Model` and its image processor.

    Args:
        checkpoint: what `load_sam2` loads.
    """

    name = "torch"

    def __init__(self, checkpoint: Path) -> None:
        spec = read_sam_spec(checkpoint)
        self._torch = require("torch", "export")
        self._device = _device()
        self._model = load_sam2(checkpoint).to(self._device)
        self._square = spec.input_size
        self._multimask = spec.multimask
        self._processor = require("transformers", "export").Sam2ImageProcessor(
            size={"height": spec.input_size, "width": spec.input_size},
            image_mean=[value / 255.0 for value in spec.pixel_mean],
            image_std=[value / 255.0 for value in spec.pixel_std],
        )

    def encode(self, image: npt.NDArray[np.uint8]) -> Sam2Image:
        """Prepare an image (HWC uint8 RGB, any size) for prompts."""
        start = perf_counter()
        pixels = self._processor(image, return_tensors="pt")["pixel_values"].to(self._device)
        prepared = perf_counter()
        features = self._model.get_image_embeddings(pixels)
        end = perf_counter()
        return Sam2Image(features, image.shape[:2], (prepared - start) * 1e3, (end - prepared) * 1e3)

    def decode(self, encoded: Sam2Image, prompt: MaskPrompt) -> MaskOutput:
        """Segment what a prompt marks; see `MaskBackend`."""
        start = perf_counter()
        torch = self._torch
        box, points, previous = prompt.box, prompt.points, prompt.previous
        with torch.no_grad():
            output = self._model(
                image_embeddings=encoded.features,
                input_points=self._scale(encoded, points)[None, None] if points else None,
                input_labels=torch.ones(1, 1, len(points), dtype=torch.int32, device=self._device) if points else None,
                input_boxes=self._scale(encoded, (box[:2], box[2:])).reshape(1, 1, 4),
                input_masks=None if previous is None else torch.from_numpy(previous)[None, None].to(self._device),
                multimask_output=self._multimask,
            )
            scores = output.iou_scores[0, 0]
            best = int(scores.argmax())
            logits = output.pred_masks[0, :, best : best + 1]
            masks = torch.nn.functional.interpolate(logits, encoded.size, mode="bilinear", align_corners=False) > 0
        return MaskOutput(
            masks[0, 0].cpu().numpy(), float(scores[best]), logits[0, 0].cpu().numpy(), (perf_counter() - start) * 1e3
        )

    def _scale(self, encoded: Sam2Image, points: tuple[Point, ...]) -> Any:
        """Return points of the original image in the encoder's square, float32 [N, 2]."""
        scale = self._square / np.array(encoded.size[::-1], np.float64)
        coords = (np.array(points, np.float64) * scale).astype(np.float32)
        return self._torch.from_numpy(coords).to(self._device)
