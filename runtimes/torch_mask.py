"""segment-anything on torch, through its own predictor: the reference that graphs are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.extras import require
from wise_edge.geometry import Box, Point
from wise_edge.runtimes.base import MaskOutput
from wise_edge.sam_model import load_sam


@dataclass(frozen=True)
class TorchMaskFrame:
    """A predictor that holds a picture's embedding; segment-anything does not time its preprocessing apart."""

    predictor: Any
    preprocess_ms: float
    encode_ms: float


class TorchMask:
    """Runs a segmenter's checkpoint, on a GPU where torch sees one.

    Args:
        folder: checkpoint folder of `wise_edge.sam_model`.

    Raises:
        UsageError: the folder does not hold one.
        MissingExtraError: torch or segment-anything is not installed.
    """

    name = "torch"

    def __init__(self, folder: Path) -> None:
        self._predictor = require("segment_anything", "export").SamPredictor
        self.device = "cuda" if require("torch", "export").cuda.is_available() else "cpu"
        self._sam = load_sam(folder).to(self.device)

    def encode(self, image: npt.NDArray[np.uint8]) -> TorchMaskFrame:
        """Prepare a picture (HWC uint8 RGB, any size) for prompts."""
        start = perf_counter()
        predictor = self._predictor(self._sam)
        predictor.set_image(image)
        return TorchMaskFrame(predictor, 0.0, (perf_counter() - start) * 1e3)

    def decode(self, frame: TorchMaskFrame, box: Box, points: tuple[Point, ...]) -> MaskOutput:
        """Segment what a box (XYXY) and points (XY) name, all in pixels of the original picture."""
        start = perf_counter()
        masks, scores, _ = frame.predictor.predict(
            point_coords=np.array(points, np.float32).reshape(-1, 2) if points else None,
            point_labels=np.ones(len(points), np.int64) if points else None,
            box=np.array(box, np.float32),
            multimask_output=False,
        )
        return MaskOutput(masks[0], float(scores[0]), (perf_counter() - start) * 1e3)
