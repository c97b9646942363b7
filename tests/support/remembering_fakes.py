"""A world of gray squares, a policy that names those it is told to, and a memory that knows squares by their gray."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Queue

import numpy as np
import numpy.typing as npt

from fake_session import FakeImage, FakeMask, FakePolicy, list_boxes
from wise_edge.geometry import Box, mask_box
from wise_edge.policy.answers.form import BOX_LABEL_LIST, AnswerForm
from wise_edge.runtimes.base import MaskOutput, MaskPrompt, PolicyOutput, RememberedMask, Request
from wise_edge.runtimes.mask.objects import ObjectMemory
from wise_edge.runtimes.session import Session
from wise_edge.runtimes.tracking import Stamped

SIDE = 112
WALL = 20
"""The gray of what hides squares."""


def draw(squares: Mapping[int, tuple[int, int]], wall: Box | None = None, side: int = 20) -> npt.NDArray[np.uint8]:
    """Return squares by their gray, above 20, at (left, top), behind a wall."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    for gray, (left, top) in squares.items():
        image[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)] = gray
    if wall is not None:
        image[wall[1] : wall[3], wall[0] : wall[2]] = WALL
    return image


def grays_of(image: npt.NDArray[np.uint8]) -> list[int]:
    """Return the grays of the squares of which anything is visible."""
    return [int(gray) for gray in np.unique(image[..., 0]) if gray > WALL]


@dataclass
class NamingPolicy(FakePolicy):
    """Names squares of some grays, where they are visible; counts what it was asked about.

    Attributes:
        meant: the grays.
        off: by how many pixels to the right its boxes are wrong.
        text: is written instead, if it is not empty.
        allowed: if there is one, each answer waits for an item.
        asked: the leftmost column of what it saw, for each answer.
    """

    form: AnswerForm = BOX_LABEL_LIST
    meant: Collection[int] = (200,)
    off: int = 0
    text: str = ""
    allowed: Queue[str] | None = None
    asked: list[npt.NDArray[np.uint8]] = field(default_factory=list)

    def generate(self, encoded: FakeImage, request: Request) -> PolicyOutput:
        self.asked.append(encoded.pixels)
        while self.allowed is not None and self.allowed.empty():
            request.check_cancelled()
            threading.Event().wait(0.001)
        if self.allowed is not None:
            self.allowed.get()
        self.write = lambda image, query, variant: self.text or self._name(image)
        return super().generate(encoded, request)

    def _name(self, image: npt.NDArray[np.uint8]) -> str:
        boxes = [mask_box(image[..., 0] == gray) for gray in grays_of(image) if gray in self.meant]
        moved = [(x1 + self.off, y1, x2 + self.off, y2) for x1, y1, x2, y2 in boxes]
        return list_boxes(moved, (image.shape[1], image.shape[0]), "square")


class GrayMask(FakeMask):
    """Marks what is in the box and no wall; opens a `GrayMemory`, and keeps the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded = 0
        self.memory = GrayMemory(self)

    def encode(self, image: npt.NDArray[np.uint8]) -> FakeImage:
        self.encoded += 1
        return FakeImage(image)

    def decode(self, encoded: FakeImage, prompt: MaskPrompt) -> MaskOutput:
        assert prompt.box is not None
        mask = np.zeros(encoded.pixels.shape[:2], np.bool_)
        x1, y1, x2, y2 = prompt.box
        mask[y1:y2, x1:x2] = True
        return MaskOutput(mask, 0.9, np.zeros((4, 4), np.float32), 4.0)

    def open_memory(self) -> GrayMemory:
        self.memory = GrayMemory(self)
        return self.memory


class GrayMemory(ObjectMemory[FakeImage]):
    """Finds each object by the gray in the middle of its prompt, wherever it is.

    The mask's score is the share of the largest area that was seen; without a pixel the object is hidden.

    Attributes:
        prompts: each prompt's image, number and box.
        follows: for each frame, the image.
    """

    def __init__(self, mask: GrayMask) -> None:
        super().__init__()
        self.prompts: list[tuple[FakeImage, int, Box]] = []
        self.follows: list[FakeImage] = []
        self.grays: dict[int, int] = {}
        self._areas: dict[int, int] = {}

    def _start(self, encoded: FakeImage, prompts: Mapping[int, MaskPrompt]) -> dict[int, RememberedMask]:
        for number, prompt in prompts.items():
            assert prompt.box is not None
            self.prompts.append((encoded, number, prompt.box))
            x1, y1, x2, y2 = prompt.box
            self.grays[number] = int(
                encoded.pixels[(y1 + y2) // 2, min((x1 + x2) // 2, encoded.pixels.shape[1] - 1), 0]
            )
            self._areas[number] = 0
        return self._look(encoded, list(prompts))

    def _find(self, encoded: FakeImage, numbers: Sequence[int]) -> dict[int, RememberedMask]:
        self.follows.append(encoded)
        return self._look(encoded, numbers)

    def _look(self, encoded: FakeImage, numbers: Sequence[int]) -> dict[int, RememberedMask]:
        found = {}
        for number in numbers:
            mask = encoded.pixels[..., 0] == (self.grays[number] if self.grays[number] > WALL else -1)
            area = int(mask.sum())
            self._areas[number] = max(area, self._areas[number])
            score, logits = area / max(1, self._areas[number]), np.zeros((4, 4), np.float32)
            found[number] = RememberedMask(mask, score, logits, 4.0, 5.0 if area else -5.0)
        return found

    def _drop(self, number: int) -> None:
        del self.grays[number], self._areas[number]


def make() -> tuple[Session, NamingPolicy, GrayMask]:
    policy, mask = NamingPolicy(), GrayMask()
    return Session(policy, mask, {}), policy, mask


def frames_of(*images: npt.NDArray[np.uint8], rate: float = 10.0) -> list[Stamped]:
    """Return images of which so many are taken in a second."""
    return [Stamped(image, place / rate) for place, image in enumerate(images)]
