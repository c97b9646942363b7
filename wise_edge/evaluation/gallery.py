"""The worst samples of one run, or those that a second run lost, with the pictures that tell why."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wise_edge.datasets import Dataset
from wise_edge.drawing.overlay import DrawnObject
from wise_edge.drawing.plain import draw_plain
from wise_edge.errors import UsageError
from wise_edge.evaluation.records import BOX_THRESHOLD, MaskRecord, Record, Settings
from wise_edge.geometry import Box, Size, mask_box, unite
from wise_edge.images import encode_image
from wise_edge.rle import mask_of_runs

LOOSE_IOU = 0.7
"""IoU below which a mask of the right object is called loose."""
VERDICTS = {
    "unreadable": "unreadable",
    "nothing": "nothing found",
    "number": "wrong number",
    "wrong": "wrong object",
    "loose": "loose mask",
    "good": "good",
}
"""What a sample is, to what people call it; the first that fits."""
WORST = 100
"""Samples of a gallery, unless another number is asked for."""
PICTURE_PX = 400
"""Longer side of a picture in a gallery."""
_QUALITY = 80
_FADED, _FADED_LEVEL = 4, np.uint8(120)  # contrast of ignored regions is divided, and their levels raised
_LEAST_SHARE = 0.3
"""What is smaller than this share of a picture's sides is shown with its surroundings alone."""


class Run(NamedTuple):
    """A run whose samples are shown.

    Attributes:
        name: what it is called.
        settings: what it was made with.
        records: of its samples.
    """

    name: str
    settings: Settings
    records: Sequence[MaskRecord]


@dataclass(frozen=True, eq=False)
class Case:
    """One sample of a gallery.

    Attributes:
        records: of the sample, one of each run.
        share: how much of the picture's width is shown, a fraction.
        size: width and height of the pictures, px.
        truth: JPEG file of the picture with what is meant.
        empty: whether nothing is meant.
        ignored: whether there are regions that do not count; they are faded in all pictures.
        answers: the same with what each run has found.
    """

    records: tuple[MaskRecord, ...]
    share: float
    size: Size
    truth: bytes
    empty: bool
    ignored: bool
    answers: tuple[bytes, ...]

    @property
    def verdict(self) -> str:
        """A key of `VERDICTS`: that of the last run."""
        return judge(self.records[-1])


def judge(record: MaskRecord) -> str:
    """Return a key of `VERDICTS`."""
    if isinstance(record, Record):
        if not record.answer_valid:
            return "unreadable"
        if record.found is not None and record.found != (1 if record.meant is None else record.meant):
            return "number" if record.found else "nothing"
        if record.box_iou <= BOX_THRESHOLD:
            return "wrong"
    return "loose" if record.iou < LOOSE_IOU else "good"


def choose(runs: Sequence[Run], count: int) -> list[tuple[MaskRecord, ...]]:
    """Return the records of the samples to show: of one run those with the lowest IoU, of two those that lost most.

    Args:
        runs: one, or two with the same samples.
        count: how many samples at most.
    """
    by_id = [{record.id: record for record in run.records if record.dropped is None} for run in runs]
    shared = [tuple(each[name] for each in by_id) for name in by_id[0] if all(name in each for each in by_id)]
    return sorted(shared, key=lambda records: (_gain(records), records[-1].iou, records[-1].index))[:count]


def _gain(records: Sequence[MaskRecord]) -> float:
    return records[-1].iou - records[0].iou


def draw_cases(
    dataset: Dataset, chosen: Iterable[tuple[MaskRecord, ...]], mode: str, say: Callable[[str], object]
) -> Iterator[Case]:
    """Yield the samples with their pictures, read one at a time.

    Args:
        dataset: what the records are of.
        chosen: as of `choose`.
        mode: the metric mode, which says whether ignored regions are meant.
        say: is told which samples cannot be drawn.

    Raises:
        UsageError: the records are of other data.
    """
    for records in chosen:
        place, name = records[0].index, records[0].id
        if place >= len(dataset) or dataset.ids[place] != name:
            raise UsageError(f"the records are of other data: sample {place} is not {name!r:.80} in it")
        try:
            example = dataset[place]
        except UsageError as error:
            say(str(error))
            continue
        shape = example.image.shape[:2]
        truth = np.zeros(shape, np.bool_) if example.mask is None else example.mask
        image, ignored = example.image, example.ignore
        if ignored is not None and mode == "paper":
            truth, ignored = truth | ignored, None
        if ignored is not None:
            image = np.where(ignored[..., None], image // _FADED + _FADED_LEVEL, image)
        answers = [_answered(record, shape, say) for record in records]
        view = _view([truth, *answers], (shape[1], shape[0]))
        drawn = [_draw(image, mask, view, example.query) for mask in (truth, *answers)]
        height, width = drawn[0].shape[:2]
        files = [encode_image(picture, ".jpg", _QUALITY) for picture in drawn]
        yield Case(
            records,
            share=(view[2] - view[0]) / shape[1],
            size=(width, height),
            truth=files[0],
            empty=not truth.any(),
            ignored=ignored is not None,
            answers=tuple(files[1:]),
        )


def _answered(record: MaskRecord, shape: tuple[int, ...], say: Callable[[str], object]) -> NDArray[np.bool_]:
    nothing = np.zeros(shape, np.bool_)
    if record.mask is None:
        return nothing
    try:
        mask = mask_of_runs(record.mask)
    except (ValueError, KeyError, TypeError, UsageError) as error:
        say(f"{record.id}: its mask cannot be read ({error})")
        return nothing
    if mask.shape != nothing.shape:
        say(f"{record.id}: its mask has another size than its picture")
        return nothing
    return mask


def _view(masks: Sequence[NDArray[np.bool_]], size: Size) -> Box:
    """Return the part of a picture to show: all of it, or what is around small masks, in the picture's own shape."""
    union = unite(masks, size)
    if not union.any():
        return (0, 0, *size)
    x1, y1, x2, y2 = mask_box(union)
    share = max((x2 - x1) / size[0], (y2 - y1) / size[1])
    if share >= _LEAST_SHARE or max(size) <= PICTURE_PX:
        return (0, 0, *size)
    scale = max(share / _LEAST_SHARE, PICTURE_PX / max(size))
    width, height = (max(1, math.ceil(side * scale)) for side in size)
    left = min(max(0, (x1 + x2 - width) // 2), size[0] - width)
    top = min(max(0, (y1 + y2 - height) // 2), size[1] - height)
    return left, top, left + width, top + height


def _draw(image: NDArray[np.uint8], mask: NDArray[np.bool_], view: Box, query: str) -> NDArray[np.uint8]:
    """Draw a mask on the part of a picture, reduced to `PICTURE_PX`."""
    x1, y1, x2, y2 = view
    part, inside = image[y1:y2, x1:x2], mask[y1:y2, x1:x2]
    scale = min(1.0, PICTURE_PX / max(x2 - x1, y2 - y1))
    size = max(1, round((x2 - x1) * scale)), max(1, round((y2 - y1) * scale))
    small = np.asarray(Image.fromarray(part).resize(size, Image.Resampling.LANCZOS))
    share = np.asarray(Image.fromarray(inside.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX))
    reduced = share >= 128 if (share >= 128).any() else share > 0  # thin masks stay
    return draw_plain(small, [DrawnObject(reduced)], query)
