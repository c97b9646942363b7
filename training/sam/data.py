"""Batches for training SAM: every object of a scene with its prompt, made by one background process.

The batch of a step depends on (seed, step) alone, so a resumed run takes the same steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wise_edge.geometry import interior_points
from wise_edge.scenes import sample
from wise_edge.training.common.background import stream_items
from wise_edge.training.sam.config import JitterConfig, SamConfig


@dataclass(frozen=True)
class SamBatch:
    """B scenes of side S with N objects in total. Coordinates are pixels of the image."""

    images: npt.NDArray[np.uint8]
    """[B, S, S, 3], RGB."""
    masks: npt.NDArray[np.bool_]
    """[N, S, S], visible pixels."""
    owners: npt.NDArray[np.int64]
    """[N], scene of each object, ascending."""
    shapes: tuple[str, ...]
    """N names."""
    boxes: npt.NDArray[np.float32] | None
    """[N, 4], XYXY, half-open; None: no boxes in the prompts."""
    points: npt.NDArray[np.float32] | None
    """[N, 2, 2], (x, y) of two points inside the object; None: no points in the prompts."""

    def part(self, start: int, stop: int) -> SamBatch:
        """Return the scenes from `start` to `stop`, half-open."""
        first, last = (int(i) for i in np.searchsorted(self.owners, (start, stop)))
        rows = slice(first, last)
        return SamBatch(
            self.images[start:stop],
            self.masks[rows],
            self.owners[rows] - start,
            self.shapes[rows],
            None if self.boxes is None else self.boxes[rows],
            None if self.points is None else self.points[rows],
        )


def make_batch(split: str, indices: Iterable[int], side: int) -> SamBatch:
    """Make scenes with the true box and points of every object.

    Args:
        split: "train", "validation" or "test".
        indices: samples of the split.
        side: side of the images, px.
    """
    scenes = [sample(split, index, side).scene for index in indices]
    masks = np.concatenate([scene.masks for scene in scenes])
    return SamBatch(
        images=np.stack([scene.image for scene in scenes]),
        masks=masks,
        owners=np.repeat(np.arange(len(scenes)), [len(scene.masks) for scene in scenes]),
        shapes=tuple(item.shape for scene in scenes for item in scene.objects),
        boxes=np.array([item.box for scene in scenes for item in scene.objects], np.float32),
        points=np.array([interior_points(mask) for mask in masks], np.float32),
    )


def jitter_prompts(batch: SamBatch, config: JitterConfig, rng: np.random.Generator) -> SamBatch:
    """Shift boxes and points as if a policy had predicted them, and sometimes leave out one kind.

    Args:
        batch: true boxes [N, 4] and points [N, 2, 2], px of the image.
        config: sizes of the shifts.
        rng: draws the shifts.

    Returns:
        The same scenes and masks; the corners of boxes stay in order, and everything stays inside the image.
    """
    assert batch.boxes is not None and batch.points is not None
    side, count = batch.images.shape[1], len(batch.masks)
    wide = rng.random((count, 1)) < config.wide_share
    box_px = np.where(wide, config.wide_box_px, config.box_px)
    point_px = np.where(wide, config.wide_point_px, config.point_px)[:, None]
    boxes = np.clip(np.round(batch.boxes + box_px * rng.uniform(-1, 1, (count, 4))), 0, side)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    points = np.clip(np.round(batch.points + point_px * rng.uniform(-1, 1, (count, 2, 2))), 0, side - 1)
    draw = rng.random()
    box_only = draw < config.box_only_share
    points_only = not box_only and draw < config.box_only_share + config.points_only_share
    return SamBatch(
        batch.images,
        batch.masks,
        batch.owners,
        batch.shapes,
        None if points_only else boxes.astype(np.float32),
        None if box_only else points.astype(np.float32),
    )


class SamBatches:
    """The training batches by step: a map-style dataset.

    Args:
        config: the training.
    """

    def __init__(self, config: SamConfig) -> None:
        self._config = config

    def __len__(self) -> int:
        """Return the number of steps."""
        return self._config.steps

    def __getitem__(self, step: int) -> SamBatch:
        """Make the batch of one step."""
        config = self._config
        first = step * config.scenes_per_step
        batch = make_batch("train", range(first, first + config.scenes_per_step), config.model.input_size)
        return jitter_prompts(batch, config.jitter, np.random.default_rng((config.seed, step)))


def stream_batches(config: SamConfig, start_step: int) -> Iterator[SamBatch]:
    """Yield the batch of each step from `start_step` on; one background process makes them."""
    yield from stream_items(SamBatches(config), start_step, ahead=4)
