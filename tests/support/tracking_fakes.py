"""A policy that answers when a test allows it, and a segmenter that finds white squares."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from queue import Queue

import numpy as np
import numpy.typing as npt

from fake_session import FakeImage, FakeMask, FakePolicy, completion
from squares import format_answer, one_object
from wise_edge.errors import WiseEdgeError
from wise_edge.runtimes.base import MaskOutput, MaskPrompt, PolicyOutput, Request
from wise_edge.runtimes.session import Session

SIDE = 112


def square_image(left: int, size: int = 20) -> npt.NDArray[np.uint8]:
    """Return a white square on black, with its left edge in column `left` and its top edge in row 40."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[40 : 40 + size, left : left + size] = 255
    return image


class SeeingMask(FakeMask):
    """Returns the white pixels in the box grown by 6 pixels, so that a square that moves by less is found again."""

    def decode(self, encoded: FakeImage, prompt: MaskPrompt) -> MaskOutput:
        near = np.zeros(encoded.pixels.shape[:2], np.bool_)
        x1, y1, x2, y2 = prompt.box
        near[max(0, y1 - 6) : y2 + 6, max(0, x1 - 6) : x2 + 6] = True
        return MaskOutput(near & (encoded.pixels[..., 0] > 0), 0.9, np.zeros((4, 4), np.float32), 4.0)


@dataclass
class SlowPolicy(FakePolicy):
    """Finds the square once a test allows it."""

    allowed: Queue[str] = field(default_factory=Queue)
    seen: list[int] = field(default_factory=list)

    def generate(self, encoded: FakeImage, request: Request) -> PolicyOutput:
        left = int(np.flatnonzero(encoded.pixels.any(axis=(0, 2)))[0])
        self.seen.append(left)
        while self.allowed.empty():
            request.check_cancelled()
            threading.Event().wait(0.001)
        if (word := self.allowed.get()) != "answer":
            raise WiseEdgeError(word)
        box = (left, 40, left + 20, 60)
        answer = one_object(box, ((left + 5, 50), (left + 15, 50)))
        self.write = lambda *_: completion(answer=format_answer(answer))
        return super().generate(encoded, request)


def make() -> tuple[Session, SlowPolicy]:
    policy = SlowPolicy()
    return Session(policy, SeeingMask(), {}), policy
