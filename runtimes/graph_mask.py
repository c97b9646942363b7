"""segment-anything over two graphs, its pre- and postprocessing in numpy and Pillow.

Postprocessing equals `Sam.postprocess_masks` (https://github.com/facebookresearch/segment-anything).
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import numpy as np
import numpy.typing as npt

from wise_edge.geometry import Box, Point, Size
from wise_edge.manifest import SamSpec
from wise_edge.runtimes.base import Graph, MaskOutput
from wise_edge.sam_image import fit_longest_side, normalize_longest_side

_INSIDE, _BOX_CORNERS = 1.0, (2.0, 3.0)  # labels of point_labels
_THRESHOLD = 0.0  # logits above it are mask


@dataclass(frozen=True)
class GraphMaskFrame:
    """A picture's embedding, with its own size and its size in the encoder's frame, (width, height) in pixels."""

    embeddings: npt.NDArray[np.float32]
    size: Size
    resized: Size
    preprocess_ms: float
    encode_ms: float


class GraphMask:
    """Runs a segmenter's graphs.

    Args:
        name: backend name.
        spec: the segmenter.
        encoder: image to image_embeddings.
        decoder: image_embeddings, point_coords and point_labels to low_res_masks and iou_predictions.
    """

    def __init__(self, name: str, spec: SamSpec, encoder: Graph, decoder: Graph) -> None:
        self.name = name
        self._spec = spec
        self._encoder = encoder
        self._decoder = decoder

    def encode(self, image: npt.NDArray[np.uint8]) -> GraphMaskFrame:
        """Prepare a picture (HWC uint8 RGB, any size) for prompts."""
        start = perf_counter()
        size = (image.shape[1], image.shape[0])
        resized = fit_longest_side(size, self._spec.input_size)
        pixels = normalize_longest_side(image, resized, self._spec)
        prepared = perf_counter()
        embeddings = self._encoder.run({"image": pixels})["image_embeddings"]
        end = perf_counter()
        return GraphMaskFrame(embeddings, size, resized, (prepared - start) * 1e3, (end - prepared) * 1e3)

    def decode(self, frame: GraphMaskFrame, box: Box, points: tuple[Point, ...]) -> MaskOutput:
        """Segment what a box (XYXY) and points (XY) name, all in pixels of the original picture."""
        start = perf_counter()
        scale = np.divide(frame.resized, frame.size)
        coords = np.array([*points, box[:2], box[2:]], np.float64) * scale
        labels = [_INSIDE] * len(points) + list(_BOX_CORNERS)
        outputs = self._decoder.run(
            {
                "image_embeddings": frame.embeddings,
                "point_coords": coords[None].astype(np.float32),
                "point_labels": np.array([labels], np.float32),
            }
        )
        logits = upsample(outputs["low_res_masks"][0, 0], self._spec.input_size, frame.resized, frame.size)
        score = float(outputs["iou_predictions"][0, 0])
        return MaskOutput(logits > _THRESHOLD, score, (perf_counter() - start) * 1e3)


def upsample(logits: npt.NDArray[np.float32], input_size: int, resized: Size, size: Size) -> npt.NDArray[np.float32]:
    """Bring low-resolution logits to the original picture.

    Args:
        logits: float32 [h, w], covering the encoder's padded square.
        input_size: side of that square in pixels.
        resized: the picture's (width, height) in that square.
        size: the picture's own (width, height).

    Returns:
        float32 [H, W]: bilinear to the square, cropped to the picture, bilinear to its own size. Each step is linear
        in rows and in columns, so that one matrix a side does all of them.
    """
    rows = _to_original(logits.shape[0], input_size, resized[1], size[1])
    columns = _to_original(logits.shape[1], input_size, resized[0], size[0])
    full: npt.NDArray[np.float32] = rows @ logits @ columns.T
    return full


def _to_original(low: int, square: int, cropped: int, original: int) -> npt.NDArray[np.float32]:
    return _bilinear(cropped, original) @ _bilinear(low, square)[:cropped]


def _bilinear(source: int, target: int) -> npt.NDArray[np.float32]:
    """Return the matrix [target, source] of torch's bilinear `interpolate` (align_corners off) along one side."""
    centers = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    left = np.minimum(centers.astype(np.int64), max(source - 2, 0))
    weights = np.zeros((target, source), np.float32)
    index = np.arange(target)
    weights[index, left] = 1.0 - (centers - left)
    weights[index, np.minimum(left + 1, source - 1)] += centers - left
    return weights
