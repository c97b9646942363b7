"""How much a segmenter that follows objects in videos remembers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from wise_edge.ranges import Checked, Range

PROMPTED_FRAMES = 2
"""Frames with a prompt that are attended to where the model names no bound: a graph has a fixed number."""
MOST_OBJECTS = 4
"""Objects of one call of the memory's graphs, whose memory grows with them."""
NO_OBJECT = -1024.0
"""The logit of all pixels of an object that is hidden, as in the original."""


@dataclass(frozen=True)
class MemorySpec(Checked):
    """How much a segmenter remembers of an object, and which of its masks it takes.

    Attributes:
        recent_frames: the last frames whose masks it attends to.
        prompted_frames: the last frames with a prompt to whose masks it attends too, however old.
        recent_pointers: the last frames to whose object pointers it attends, beside those of frames with a prompt.
        bfloat16: whether memories are rounded to bfloat16 when they are stored, as they were in training.
        multimask_points: the least and most points of a prompt, a box being two, for which the best of three masks is
            taken instead of the single one; the least is the larger for none.
        multimask_following: the same without a prompt.
    """

    recent_frames: Annotated[int, Range(0, 64)]
    prompted_frames: Annotated[int, Range(1, 64)]
    recent_pointers: Annotated[int, Range(0, 1024)]
    bfloat16: bool
    multimask_points: tuple[Annotated[int, Range(0, 64)], Annotated[int, Range(0, 64)]]
    multimask_following: bool

    @property
    def frames(self) -> int:
        """Places for memories in the graph."""
        return self.recent_frames + self.prompted_frames

    @property
    def pointers(self) -> int:
        """Places for object pointers in the graph."""
        return self.recent_pointers + self.prompted_frames
