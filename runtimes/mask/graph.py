"""A segmenter over two graphs, its pre- and postprocessing in numpy and Pillow.

Postprocessing equals `Sam.postprocess_masks` (https://github.com/facebookresearch/segment-anything) and
`SAM2Transforms.postprocess_masks` (https://github.com/facebookresearch/sam2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from wise_edge.bundle.roles import MEMORY_GRAPHS
from wise_edge.errors import UsageError
from wise_edge.geometry import Size
from wise_edge.images.strips import strips
from wise_edge.runtimes.base import Graph, MaskMemory, MaskOutput, MaskPrompt, RawMasks
from wise_edge.runtimes.mask.calls import NO_MEMORY, decode_together, most_together, split_prompts
from wise_edge.runtimes.mask.memory import GraphMemory
from wise_edge.sam.image import fit_image, fit_prompts, normalize_image
from wise_edge.sam.spec import MOST_PROMPTS, SamSpec

_NO_POINT, _INSIDE, _BOX_CORNERS = -1.0, 1.0, (2.0, 3.0)  # labels of point_labels
_THRESHOLD = 0.0  # logits above it are mask


@dataclass(frozen=True)
class GraphMaskImage:
    """An image's features, with its own size and its size in the square of the prompts, (width, height) in pixels."""

    features: Mapping[str, npt.NDArray[np.float32]]
    size: Size
    resized: Size
    preprocess_ms: float
    encode_ms: float


class GraphMask:
    """Runs a segmenter's graphs.

    Args:
        name: backend name.
        spec: the segmenter.
        encoder: image to features.
        decoder: features, point_coords, point_labels, mask_input and has_mask_input to low_res_masks and
            iou_predictions, the single mask before the three others; as many prompts at once as it has room for, one
            in bundles of version 0.1.
        open_graph: opens a further graph of the bundle by its role; None if it has none.
        on_gpu: whether the graphs run on a GPU.
    """

    def __init__(
        self,
        name: str,
        spec: SamSpec,
        encoder: Graph,
        decoder: Graph,
        open_graph: Callable[[str], Graph] | None = None,
        *,
        on_gpu: bool = False,
    ) -> None:
        self.name = name
        self.spec = spec
        self._encoder = encoder
        self._decoder = decoder
        self._open_graph = open_graph
        self._memory_graphs: list[Graph] = []
        room = min(MOST_PROMPTS, decoder.largest("point_coords", 0) or MOST_PROMPTS)
        self._most = min(room, most_together(spec, on_gpu=on_gpu))
        self._pads = 0 if spec.stretches else 1  # points without a box end with padding; SAM 2's graph adds it
        self._no_masks = np.zeros((room, 1, spec.low_res_size, spec.low_res_size), np.float32)

    def encode(self, image: npt.NDArray[np.uint8]) -> GraphMaskImage:
        """Prepare an image (HWC uint8 RGB, any size) for prompts."""
        start = perf_counter()
        size = (image.shape[1], image.shape[0])
        pixels = normalize_image(image, fit_image(size, self.spec), self.spec)
        prepared = perf_counter()
        features = self._encoder.run({"image": pixels})
        end = perf_counter()
        return GraphMaskImage(
            features, size, fit_prompts(size, self.spec), (prepared - start) * 1e3, (end - prepared) * 1e3
        )

    def decode(self, encoded: GraphMaskImage, prompt: MaskPrompt) -> MaskOutput:
        """Segment what a prompt marks; see `MaskBackend`."""
        return self.decode_many(encoded, [prompt])[0]

    def decode_many(self, encoded: GraphMaskImage, prompts: Sequence[MaskPrompt]) -> list[MaskOutput]:
        """Segment what each prompt marks; see `MaskBackend`."""
        return decode_together(prompts, partial(self._decode, encoded), self._most)

    def decode_raw(self, encoded: GraphMaskImage, prompts: Sequence[MaskPrompt], multimask: bool) -> Iterator[RawMasks]:
        """Yield what each call returns; see `MaskBackend`."""
        for call in split_prompts(prompts, self._most):
            yield self._run(encoded, call, multimask)

    def open_memory(self) -> MaskMemory[GraphMaskImage]:
        """Open an empty memory; see `MaskBackend`."""
        if self.spec.memory is None or self._open_graph is None:
            raise UsageError(NO_MEMORY)
        if not self._memory_graphs:  # an image needs none of them
            self._memory_graphs = [self._open_graph(role) for role in MEMORY_GRAPHS]
        return GraphMemory(self, self.spec.memory, *self._memory_graphs)

    def _decode(self, encoded: GraphMaskImage, prompts: list[MaskPrompt]) -> Iterator[MaskOutput]:
        """Yield the outputs for prompts of one call."""
        start = perf_counter()
        raw = self._run(encoded, prompts, self.spec.multimask)
        share_ms = (perf_counter() - start) * 1e3 / len(prompts)
        for logits, scores in zip(*raw, strict=True):
            chosen = int(scores.argmax())
            yield self.enlarge(encoded, logits[chosen], float(scores[chosen]), share_ms)

    def _run(self, encoded: GraphMaskImage, prompts: list[MaskPrompt], multimask: bool) -> RawMasks:
        """Run the decoder once, for prompts of one form."""
        outputs = self.decode_call(encoded, prompts)
        chosen = slice(1, None) if multimask else slice(1)
        return RawMasks(outputs["low_res_masks"][:, chosen], outputs["iou_predictions"][:, chosen])

    def decode_call(self, encoded: GraphMaskImage, prompts: list[MaskPrompt]) -> dict[str, Any]:
        """Return all that the decoder returns for prompts of one form."""
        count, first = len(prompts), prompts[0]
        scale = np.divide(encoded.resized, encoded.size)
        coords = np.array([[*each.points, *self._end(each)] for each in prompts], np.float64) * scale
        labels = [_INSIDE] * len(first.points) + ([_NO_POINT] * self._pads if first.box is None else [*_BOX_CORNERS])
        previous = [each.previous for each in prompts if each.previous is not None]
        return self.run_decoder(
            encoded.features,
            coords.astype(np.float32),
            np.array([labels] * count, np.float32),
            np.stack(previous)[:, None] if previous else None,
        )

    def run_decoder(
        self,
        features: Mapping[str, Any],
        coords: npt.NDArray[np.float32],
        labels: npt.NDArray[np.float32],
        masks: npt.NDArray[np.float32] | None = None,
    ) -> dict[str, Any]:
        """Run the decoder once.

        Args:
            features: of one image, or of as many as there are prompts.
            coords: float32 [P, N, 2], pixels of the square of the prompts.
            labels: float32 [P, N].
            masks: float32 [P, 1, L, L], logits; None without.
        """
        count = len(coords)
        return self._decoder.run(
            {
                **features,
                "point_coords": coords,
                "point_labels": labels,
                "mask_input": self._no_masks[:count] if masks is None else masks,
                "has_mask_input": np.full(count, masks is not None, np.float32),
            }
        )

    def _end(self, prompt: MaskPrompt) -> list[tuple[int, int]]:
        """Return what stands behind a prompt's points: the corners of its box, or the padding."""
        return [(0, 0)] * self._pads if prompt.box is None else [prompt.box[:2], prompt.box[2:]]

    def enlarge(
        self, encoded: GraphMaskImage, logits: npt.NDArray[np.float32], score: float, decoder_ms: float
    ) -> MaskOutput:
        """Return the mask of low-resolution logits [L, L] in the size of the original image."""
        start = perf_counter()
        mask = np.zeros(encoded.size[::-1], np.bool_)
        steps = find_steps(self.spec, encoded.resized, encoded.size)
        area = find_area(logits > _THRESHOLD, steps)
        for rows, enlarged in upsample(logits, steps, area):
            np.greater(enlarged, _THRESHOLD, out=mask[rows, area.columns])
        return MaskOutput(mask, score, logits, decoder_ms + (perf_counter() - start) * 1e3)


class Area(NamedTuple):
    """A rectangle of the original image."""

    rows: slice
    columns: slice


def upsample(logits: npt.NDArray[np.float32], steps: Steps, area: Area) -> Iterator[tuple[slice, Any]]:
    """Upsample low-resolution logits to an area of the original image, which as float takes four times its mask.

    Args:
        logits: float32 [L, L], covering the square of the prompts.
        steps: how columns and rows are resized.
        area: the part of the image.

    Yields:
        The area's rows in order, and their logits, float32 [rows, columns of the area]. segment-anything resizes
        bilinearly to the square, crops to the image and resizes to its own size; SAM 2 resizes once.
    """
    (*wider, widest), (*higher, highest) = steps
    wide = logits.T
    for taps in wider:
        wide = taps.gather(wide)
    wide = np.ascontiguousarray(widest.gather(wide, area.columns).T)
    for taps in higher:
        wide = taps.gather(wide)
    top = area.rows.start
    for rows in strips((max(1, wide.shape[1]), area.rows.stop - top)):
        rows = slice(top + rows.start, top + rows.stop)
        yield rows, highest.gather(wide, rows)


def find_area(inside: npt.NDArray[np.bool_], steps: Steps) -> Area:
    """Return the part of the original image where a pixel of the mask may be; the rest need not be upsampled.

    Between two values that are not above 0 no value is, also as rounded: `_Taps.gather` subtracts and adds the same.

    Args:
        inside: bool [L, L], where low-resolution logits are above the threshold.
        steps: how columns and rows are resized.
    """
    found = []
    for axis, chain in enumerate(steps):
        live = np.asarray(inside.any(axis=axis))
        for taps in chain:
            live = live[taps.left] | live[taps.right]
        places = np.flatnonzero(live)
        found.append(slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0))
    columns, rows = found
    return Area(rows, columns)


class _Taps(NamedTuple):
    """torch's bilinear `interpolate` (align_corners off) along one side: each place is between two of the source's.

    Attributes:
        left: index of the first, int64 [target].
        right: of the second.
        share: the weight of the second, float32 [target, 1].
    """

    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    share: npt.NDArray[np.float32]

    @classmethod
    def between(cls, source: int, target: int, end: int | None = None) -> _Taps:
        """Return the taps of the first `end` places of a side that grows from `source` to `target`."""
        centers = np.clip((np.arange(target)[:end] + 0.5) * source / target - 0.5, 0, source - 1)
        left = centers.astype(np.int64)
        return cls(left, np.minimum(left + 1, source - 1), (centers - left).astype(np.float32)[:, None])

    def gather(self, values: npt.NDArray[np.float32], rows: slice = slice(None)) -> npt.NDArray[np.float32]:
        """Resize along the first axis; return the places `rows`, float32 [rows, N], of `values` [source, N]."""
        found = values[self.right[rows]]
        found -= (base := values[self.left[rows]])
        found *= self.share[rows]
        found += base
        return found


Steps = tuple[tuple[_Taps, ...], tuple[_Taps, ...]]
"""How columns, and how rows, are resized one after the other."""


def find_steps(spec: SamSpec, resized: Size, size: Size) -> Steps:
    """Return how low-resolution logits become the original image.

    Args:
        spec: the segmenter.
        resized: the image's (width, height) in the square of the prompts.
        size: the image's own (width, height).
    """
    if spec.stretches:
        return (_Taps.between(spec.low_res_size, size[0]),), (_Taps.between(spec.low_res_size, size[1]),)
    columns, rows = (
        (_Taps.between(spec.low_res_size, spec.prompt_side, cropped), _Taps.between(cropped, original))
        for cropped, original in zip(resized, size, strict=True)
    )
    return columns, rows
