"""Makes the masks of a grid of points as segment-anything's `SamAutomaticMaskGenerator`, and those of given prompts.

The decoder's masks have low resolution. Only those of a good predicted IoU are enlarged, each where it may have a
pixel, and what is kept of them are run lengths: a thousand masks of a full-HD picture would be 2 GB.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.geometry import Box, Size, mask_box
from wise_edge.rle import run_lengths_of_part
from wise_edge.runtimes.base import MaskBackend, MaskImage, MaskPrompt
from wise_edge.runtimes.mask.calls import decode_together
from wise_edge.runtimes.mask.generated import GeneratedMask, GeneratedMasks
from wise_edge.runtimes.mask.graph import Steps, find_area, find_steps, upsample
from wise_edge.runtimes.mask.grid import GridOptions, suppress
from wise_edge.runtimes.mask.regions import remove_small_regions
from wise_edge.sam.image import fit_prompts
from wise_edge.sam.spec import MOST_PROMPTS

_THRESHOLD = 0.0  # logits above it are mask
_EDGE_PX = 20  # a box within it of a crop's edge, but not of the image's, is of an object that the crop cuts


def generate_masks(
    backend: MaskBackend[Any],
    image: npt.NDArray[np.uint8],
    options: GridOptions,
    count: Callable[[], object] = lambda: None,
) -> GeneratedMasks:
    """Make the masks of everything in an image.

    Args:
        backend: makes masks of points.
        image: HWC uint8 RGB.
        options: the grid, and what is kept.
        count: called after each point of `GridOptions.total`.

    Raises:
        UsageError: the image is too small for so many layers of crops.
    """
    work = _Work(backend, image)
    wanted = options.multimask
    multimask = backend.spec.multimask if wanted is None else wanted
    kept: list[GeneratedMask] = []
    for layer, crop in options.crops(work.size):
        found = list(_search(work, crop, options.points(layer, crop_size(crop)), options, multimask, count))
        scores = [each.predicted_iou for each in found]
        kept += work.suppress(found, scores, options.box_nms_thresh, "box_nms_thresh")
    if options.crop_n_layers:
        scores = [1 / (each.crop_box[2] * each.crop_box[3]) for each in kept]
        kept = work.suppress(kept, scores, options.crop_nms_thresh, "crop_nms_thresh")
    if options.min_mask_region_area:
        cleaned = [_clean(each, options.min_mask_region_area) for each in kept]
        scores = [float(clean is each) for clean, each in zip(cleaned, kept, strict=True)]
        most = max(options.box_nms_thresh, options.crop_nms_thresh)
        kept = work.suppress(cleaned, scores, most, "min_mask_region_area")
    return work.finish(kept)


def segment_prompts(
    backend: MaskBackend[Any], image: npt.NDArray[np.uint8], prompts: Sequence[MaskPrompt], offset: float = 1.0
) -> GeneratedMasks:
    """Make the mask of each prompt in an image, of the best predicted IoU; in their order, also those without a pixel.

    Args:
        backend: makes the masks.
        image: HWC uint8 RGB.
        prompts: boxes and points, px of the image.
        offset: of the stability score, see `GridOptions`.
    """
    work = _Work(backend, image)
    whole = (0, 0, *work.size)
    encoded, steps = work.encode(whole)

    def segment(together: Sequence[MaskPrompt]) -> Iterator[GeneratedMask]:
        rest = iter(together)
        for raw in backend.decode_raw(encoded, together, backend.spec.multimask):
            for logits, scores, prompt in zip(*raw, rest, strict=False):
                best = int(scores.argmax())
                found = _Found.enlarge(logits[best], float(scores[best]), steps, offset)
                points = tuple((float(x), float(y)) for x, y in prompt.points)
                yield replace(found.record(whole, work.size, points), box=prompt.box)

    return work.finish(decode_together(prompts, segment, MOST_PROMPTS))


class _Work:
    """An image that masks are made of, what became of them, and where the time went.

    Args:
        backend: makes the masks.
        image: HWC uint8 RGB.
    """

    def __init__(self, backend: MaskBackend[Any], image: npt.NDArray[np.uint8]) -> None:
        self.backend = backend
        self.image = image
        self.size: Size = (image.shape[1], image.shape[0])
        self.made = 0
        self.dropped: Counter[str] = Counter()
        self.best: dict[str, float] = {}
        self._start = perf_counter()
        self._spent_ms = {"preprocess": 0.0, "mask_encode": 0.0}

    def encode(self, crop: Box) -> tuple[Any, Steps]:
        """Encode a crop, and return how masks become as large as it."""
        encoded: MaskImage = self.backend.encode(self.image[crop[1] : crop[3], crop[0] : crop[2]])
        self._spent_ms["preprocess"] += encoded.preprocess_ms
        self._spent_ms["mask_encode"] += encoded.encode_ms
        size, spec = crop_size(crop), self.backend.spec
        return encoded, find_steps(spec, fit_prompts(size, spec), size)

    def keeps(self, good: bool, why_not: str) -> bool:
        """Count a mask that is dropped."""
        self.dropped[why_not] += not good
        return good

    def meet(self, name: str, values: npt.ArrayLike) -> None:
        """Remember the largest of values."""
        self.best[name] = float(
            np.fmax.reduce(np.asarray(values, np.float32), axis=None, initial=self.best.get(name, 0))
        )

    def suppress(
        self, masks: list[GeneratedMask], scores: list[float], most: float, reason: str
    ) -> list[GeneratedMask]:
        """Return the best of masks whose boxes overlap."""
        # segment-anything's boxes end at the last pixel.
        boxes = np.array([each.bbox for each in masks], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2] - 1
        kept = [masks[place] for place in suppress(boxes, np.array(scores, np.float32), most)]
        self.dropped[reason] += len(masks) - len(kept)
        return kept

    def finish(self, masks: list[GeneratedMask]) -> GeneratedMasks:
        """Return the result."""
        total_ms = (perf_counter() - self._start) * 1e3
        latency_ms = self._spent_ms | {"mask_decode": total_ms - sum(self._spent_ms.values()), "total": total_ms}
        dropped = {reason: count for reason, count in self.dropped.items() if count}
        return GeneratedMasks(tuple(masks), self.size, self.made, dropped, self.best, latency_ms, self.backend.name)


@dataclass(frozen=True)
class _Found:
    """A mask of a crop, enlarged where it may have a pixel.

    Attributes:
        part: bool [h, w].
        corner: column and row of its upper left pixel in the crop.
        score: predicted IoU.
        stability: IoU of the mask at two thresholds; NaN if it has no pixel at the lower one.
    """

    part: npt.NDArray[np.bool_]
    corner: tuple[int, int]
    score: float
    stability: float

    @classmethod
    def enlarge(cls, logits: npt.NDArray[np.float32], score: float, steps: Steps, offset: float) -> _Found:
        """Enlarge a decoder's mask, float32 [L, L], and compute its stability score."""
        area = find_area(logits > _THRESHOLD - offset, steps)
        columns, top = area.columns, area.rows.start
        part = np.zeros((area.rows.stop - top, columns.stop - columns.start), np.bool_)
        above = below = 0
        for rows, enlarged in upsample(logits, steps, area) if part.size else ():
            np.greater(enlarged, _THRESHOLD, out=part[rows.start - top : rows.stop - top])
            above += np.count_nonzero(enlarged > _THRESHOLD + offset)
            below += np.count_nonzero(enlarged > _THRESHOLD - offset)
        return cls(part, (columns.start, top), score, float(np.float32(above / below)) if below else math.nan)

    def record(self, crop: Box, size: Size, points: tuple[tuple[float, float], ...]) -> GeneratedMask:
        """Return it in the image, whose size is (width, height)."""
        left, top, right, bottom = mask_box(self.part) if self.part.any() else (0, 0, 0, 0)
        part = self.part[top:bottom, left:right]
        corner = (crop[0] + self.corner[0] + left, crop[1] + self.corner[1] + top)
        return GeneratedMask(
            lengths=run_lengths_of_part(part, corner, size[::-1]),
            image_size=size,
            area=int(np.count_nonzero(part)),
            bbox=(*corner, right - left, bottom - top) if part.size else (0, 0, 0, 0),
            predicted_iou=self.score,
            stability_score=None if math.isnan(self.stability) else self.stability,
            point_coords=points,
            crop_box=(crop[0], crop[1], *crop_size(crop)),
        )


def crop_size(crop: Box) -> Size:
    """Return the (width, height) of a crop, XYXY."""
    return crop[2] - crop[0], crop[3] - crop[1]


def _search(
    work: _Work,
    crop: Box,
    points: npt.NDArray[np.float64],
    options: GridOptions,
    multimask: bool,
    count: Callable[[], object],
) -> Iterator[GeneratedMask]:
    """Yield the masks of a crop's points that are good enough."""
    encoded, steps = work.encode(crop)
    for scores, logits, (x, y) in _decode(work, encoded, points, options.points_per_batch, multimask):
        count()
        good = np.isfinite(scores)
        if options.pred_iou_thresh > 0:
            good &= scores > np.float32(options.pred_iou_thresh)
        work.dropped["pred_iou_thresh"] += int(np.count_nonzero(~good))
        for place in np.flatnonzero(good):
            found = _Found.enlarge(logits[place], float(scores[place]), steps, options.stability_score_offset)
            work.meet("stability_score", found.stability)
            stable = options.stability_score_thresh <= 0 or found.stability >= np.float32(
                options.stability_score_thresh
            )
            if not (work.keeps(stable, "stability_score_thresh") and work.keeps(bool(found.part.any()), "empty")):
                continue
            mask = found.record(crop, work.size, ((float(x + crop[0]), float(y + crop[1])),))
            if work.keeps(not _is_cut(mask.bbox, crop, work.size), "crop_edge"):
                yield mask


def _decode(
    work: _Work, encoded: Any, points: npt.NDArray[np.float64], batch: int, multimask: bool
) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float64]]]:
    """Yield scores float32 [M] and logits float32 [M, L, L] of each point, and the point."""
    for first in range(0, len(points), batch):
        together = points[first : first + batch]
        rest = iter(together)
        prompts = [MaskPrompt(points=((x, y),)) for x, y in together.tolist()]
        for logits, scores in work.backend.decode_raw(encoded, prompts, multimask):
            work.made += scores.size
            work.meet("predicted_iou", scores)
            yield from zip(scores, logits, rest, strict=False)


def _is_cut(bbox: Box, crop: Box, size: Size) -> bool:
    """Return whether a mask ends where its crop does, but the image goes on."""
    x, y, width, height = bbox
    ends = (x, y, x + width - 1, y + height - 1)
    near = zip(ends, crop, (0, 0, *size), strict=True)
    return any(abs(end - edge) <= _EDGE_PX < abs(end - of_image) for end, edge, of_image in near)


def _clean(mask: GeneratedMask, min_area: int) -> GeneratedMask:
    """Return a mask without small holes and islands; the same one if it has none."""
    pixels = np.ascontiguousarray(mask.mask)
    if not remove_small_regions(pixels, min_area):
        return mask
    left, top, right, bottom = mask_box(pixels)
    part = pixels[top:bottom, left:right]
    return replace(
        mask,
        lengths=run_lengths_of_part(part, (left, top), pixels.shape),
        area=int(np.count_nonzero(part)),
        bbox=(left, top, right - left, bottom - top),
    )
