"""A session whose policy writes what a test tells it to and whose segmenter fills the box."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from squares import format_answer, one_object
from wise_edge.bundle.store import Bundle
from wise_edge.geometry import Box, Size, mask_box, scale_box
from wise_edge.policy.answers import answer
from wise_edge.policy.answers.answer import Answer, AnsweredObject
from wise_edge.policy.answers.completion import split_completion
from wise_edge.policy.answers.form import BOX_LABEL_LIST, BOX_POINTS, AnswerForm
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.policy.picture import Grid
from wise_edge.policy.prompts import VARIANTS, check_variant
from wise_edge.runtimes import opening
from wise_edge.runtimes.backends import Backend, Support
from wise_edge.runtimes.base import MaskOutput, MaskPrompt, PolicyOutput, RememberedMask, Request
from wise_edge.runtimes.mask.objects import ObjectMemory
from wise_edge.runtimes.results import BackendChoice, TokenCounts
from wise_edge.runtimes.session import Session

SQUARE = 112
ANSWER = format_answer(one_object((28, 28, 84, 84), ((50, 50), (60, 60))))
RATIONALE = "The red ring is at the left."

Write = Callable[[npt.NDArray[np.uint8], str, str], str]
"""Image, query and variant to the completion."""


def completion(rationale: str = RATIONALE, answer: str = ANSWER) -> str:
    return f"<think>{rationale}</think><answer>{answer}</answer>"


def list_boxes(boxes: Sequence[Box], size: Size, label: str = "thing") -> str:
    """Return a completion of the form `BOX_LABEL_LIST` that names boxes of an image of a size."""
    frame = AnswerFrame((SQUARE, SQUARE))
    objects = tuple(AnsweredObject(scale_box(box, size, frame.size), (), label) for box in boxes)
    return BOX_LABEL_LIST.before + answer.format_answer(Answer(objects), BOX_LABEL_LIST, frame) + BOX_LABEL_LIST.after


def write_canned(image: npt.NDArray[np.uint8], query: str, variant: str) -> str:
    return completion(" ".join([RATIONALE] * (8 if variant == "verbose" else 1)))


@dataclass(frozen=True)
class FakeImage:
    pixels: npt.NDArray[np.uint8]
    preprocess_ms: float = 1.0
    vision_encode_ms: float = 20.0
    prefill_ms: float = 5.0
    encode_ms: float = 30.0


@dataclass
class FakePolicy:
    write: Write = write_canned
    encoded: int = 0
    name: str = "fake"
    side: int = SQUARE
    form: AnswerForm = BOX_POINTS
    variants: Collection[str] = VARIANTS
    default_variant: str = "wise-s"
    limits_rationale: bool = True

    def grid(self, size: Size, pixels: int | None = None) -> Grid:
        return (4, 4) if pixels is None else (math.isqrt(pixels) // 28, math.isqrt(pixels) // 28)

    def frame(self, grid: Grid) -> AnswerFrame:
        return AnswerFrame((self.side, self.side))

    def encode(self, image: npt.NDArray[np.uint8], pixels: int | None = None) -> FakeImage:
        self.encoded += 1
        return FakeImage(image)

    def generate(self, encoded: FakeImage, request: Request) -> PolicyOutput:
        check_variant(request.variant, self.variants)
        text = self.write(encoded.pixels, request.query, request.variant)
        words = len(text.split())
        counts = TokenCounts(40, 16, max(0, words - 11), 49, 0, words)
        return PolicyOutput(text, split_completion(text), "answer", counts, 7.0, 3.0 * words)


@dataclass
class FakeMask:
    name: str = "fake"

    def encode(self, image: npt.NDArray[np.uint8]) -> FakeImage:
        return FakeImage(image)

    def decode(self, encoded: FakeImage, prompt: MaskPrompt) -> MaskOutput:
        mask = np.zeros(encoded.pixels.shape[:2], np.bool_)
        x1, y1, x2, y2 = prompt.box
        mask[y1:y2, x1:x2] = True
        return MaskOutput(mask, 0.9, np.zeros((4, 4), np.float32), 4.0)

    def decode_many(self, encoded: FakeImage, prompts: Sequence[MaskPrompt]) -> list[MaskOutput]:
        return [self.decode(encoded, prompt) for prompt in prompts]

    def open_memory(self) -> FakeMemory:
        return FakeMemory(self)


class FakeMemory(ObjectMemory[FakeImage]):
    """Follows an object by decoding the box of its last mask again; where there is none, it is hidden."""

    def __init__(self, mask: FakeMask) -> None:
        super().__init__()
        self.mask = mask
        self.boxes: dict[int, Box] = {}

    def _start(self, encoded: FakeImage, prompts: Mapping[int, MaskPrompt]) -> dict[int, RememberedMask]:
        self.boxes |= {number: prompt.box for number, prompt in prompts.items()}
        return self._find(encoded, list(prompts))

    def _find(self, encoded: FakeImage, numbers: Sequence[int]) -> dict[int, RememberedMask]:
        return {number: self._decode(encoded, number) for number in numbers}

    def _decode(self, encoded: FakeImage, number: int) -> RememberedMask:
        output = self.mask.decode(encoded, MaskPrompt(self.boxes[number]))
        if found := bool(output.mask.any()):
            self.boxes[number] = mask_box(output.mask)
        return RememberedMask(output.mask, output.score, output.logits, output.decode_ms, 5.0 if found else -5.0)

    def _drop(self, number: int) -> None:
        del self.boxes[number]


@dataclass
class Opened:
    """What commands asked `Session.from_bundle` for."""

    policy: FakePolicy
    calls: list[dict[str, Any]] = field(default_factory=list)


def install(
    monkeypatch: pytest.MonkeyPatch,
    write: Write = write_canned,
    *,
    policy: FakePolicy | None = None,
    mask: FakeMask | None = None,
) -> Opened:
    """Let `Session.from_bundle` return a session of fakes, which know every kind of picture."""
    opened = Opened(policy or FakePolicy(write))
    choice = BackendChoice("fake", "the test asked for it")

    def from_bundle(bundle: Any = None, **options: Any) -> Session:
        opened.calls.append({"bundle": getattr(bundle, "directory", bundle), **options})
        return Session(opened.policy, mask or FakeMask(), {"policy": choice, "mask": choice})

    def find_candidates(bundle: Bundle, policy: str, mask: str) -> tuple[None, dict[str, list[Backend]]]:
        return None, {"policy": [replace(ROW, name=policy)]}

    monkeypatch.setattr(Session, "from_bundle", from_bundle)
    monkeypatch.setattr(Bundle, "is_embedded", False)
    monkeypatch.setattr(opening, "find_candidates", find_candidates)
    return opened


# A row of `wise_edge.runtimes.backends.BACKENDS` that opens these fakes; the two functions after it are its module.
ROW = Backend(
    "fictional",
    "the fictional runtime",
    "the fictional runtime is installed",
    "fiction",
    {
        "policy": Support("fake_session", ("policy.decoder",), ("numpy",)),
        "mask": Support("fake_session", ("sam.decoder",), ("numpy",)),
    },
    "fiction",
    build_fits=lambda: True,
    build_advice="this fictional runtime was built for nothing; build it again",
)
UNINSTALLED = replace(ROW, parts={"policy": replace(ROW.parts["policy"], packages=("no_such_package",))})


def open_policy(bundle: Bundle, row: Backend, **_: Any) -> FakePolicy:
    return FakePolicy(name=row.name, side=bundle.manifest.policy.picture_size((1, 1))[0])


def open_mask(bundle: Bundle, row: Backend, **_: Any) -> FakeMask:
    return FakeMask(row.name)
