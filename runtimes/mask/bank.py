"""What is remembered of one object: memories and pointers of its last frames and of those with a prompt, bounded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.sam.video.memory import MemorySpec

EMPTY = -1
"""The age of an empty place in the arrays of `stack`."""


@dataclass(frozen=True, eq=False)
class Remembered:
    """An object on one frame.

    Attributes:
        memory: [T, D], of the memory encoder: float32, or the upper halves of its numbers, which are bfloat16; None
            once the frame is too old.
        pointer: float32 [C], of the mask decoder.
    """

    memory: npt.NDArray[Any] | None
    pointer: npt.NDArray[np.float32]


class ObjectBank:
    """The frames that one object is remembered from, by their number.

    As SAM 2's video predictor keeps them (https://github.com/facebookresearch/sam2): the last frames with a prompt,
    however old, and the last of all others, among which are older ones with a prompt.

    Args:
        spec: how many frames are kept.
    """

    def __init__(self, spec: MemorySpec) -> None:
        self._spec = spec
        self._prompted: dict[int, Remembered] = {}
        self._followed: dict[int, Remembered] = {}

    def add(self, time: int, memory: npt.NDArray[np.float32], pointer: npt.NDArray[np.float32], prompted: bool) -> None:
        """Remember the object on a frame, instead of what was remembered there, and forget what is too old."""
        stored = _to_bfloat16(memory) if self._spec.bfloat16 else memory.copy()
        self._followed.pop(time, None)
        (self._prompted if prompted else self._followed)[time] = Remembered(stored, pointer.copy())
        self._trim(time + 1)

    def list_memories(self, time: int) -> list[tuple[int, npt.NDArray[np.float32]]]:
        """Return the memories for a frame with their ages: 0 for those of a prompt, else the frames since."""
        found = [(0, each) for each in self._prompted.values()]
        ages = range(1, self._spec.recent_frames + 1)
        found += [(age, self._followed[time - age]) for age in ages if time - age in self._followed]
        return [(age, _to_float32(each.memory)) for age, each in found if each.memory is not None]

    def list_pointers(self, time: int) -> list[tuple[int, npt.NDArray[np.float32]]]:
        """Return the pointers for a frame with the frames since."""
        found = [(time - when, each.pointer) for when, each in self._prompted.items()]
        ages = range(1, self._spec.recent_pointers + 1)
        return found + [(age, self._followed[time - age].pointer) for age in ages if time - age in self._followed]

    def _trim(self, next_time: int) -> None:
        """Forget what no frame from `next_time` on asks for."""
        for when in sorted(self._prompted)[: -self._spec.prompted_frames]:
            self._followed[when] = self._prompted.pop(when)
        oldest = next_time - self._spec.recent_frames
        self._followed = {
            when: each if when >= oldest else replace(each, memory=None)
            for when, each in self._followed.items()
            if when >= min(oldest, next_time - self._spec.recent_pointers)
        }


def stack(
    listed: list[list[tuple[int, npt.NDArray[np.float32]]]], places: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return what several objects remember as arrays of a fixed size, [B, places, ...], and ages int64 [B, places]."""
    shape = listed[0][0][1].shape
    values = np.zeros((len(listed), places, *shape), np.float32)
    ages = np.full((len(listed), places), EMPTY, np.int64)
    for row, each in enumerate(listed):
        for place, (age, value) in enumerate(each):
            values[row, place], ages[row, place] = value, age
    return values, ages


def _to_bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Round to the nearest bfloat16, ties to even, and return its bits."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _to_float32(stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return (stored.astype(np.uint32) << 16).view(np.float32) if stored.dtype == np.uint16 else stored
