"""What a session returns for a query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.geometry import Box, Point
from wise_edge.rle import run_lengths
from wise_edge.runtimes.deadline import DeadlineChoice
from wise_edge.runtimes.spans import PHASES, Span


def explain_empty(mask: npt.NDArray[np.bool_] | None) -> str | None:
    """Return why a mask has no pixel; None if it has one, or there is no mask."""
    return None if mask is None or mask.any() else "the segmenter marked no pixel for this box and these points"


@dataclass(frozen=True)
class TokenCounts:
    """Where the policy's tokens went.

    Attributes:
        prompt: tokens of the complete prompt, including those of the image.
        image: tokens of the image.
        rationale: tokens of the text inside `<think>`, without the tags.
        answer: tokens of the text inside `<answer>`, without the tags.
        forced: tokens dictated by the answer's form, which the model was not asked for.
        decode_steps: runs of the language model after the prompt.
    """

    prompt: int
    image: int
    rationale: int
    answer: int
    forced: int
    decode_steps: int


@dataclass(frozen=True)
class BackendChoice:
    """Which backend runs a part, and why it was chosen.

    Attributes:
        name: the backend.
        reason: why it was chosen, and which ones did not start before it.
        rejected: why each backend that is preferred to it cannot run here.
    """

    name: str
    reason: str
    rejected: tuple[str, ...] = ()


@dataclass(frozen=True)
class Latencies:
    """Clock readings of one query in ms; a phase that an earlier query on the same image paid for is 0.

    Attributes:
        preprocess: resizing, patches, normalizing, for policy and segmenter together.
        vision_encode: the policy's vision tower.
        prefill: the language model over the prompt.
        decode: writing the completion.
        mask_encode: the segmenter's image encoder, which may run while the policy writes.
        mask_decode: the segmenter's decoder and the upsampling.
        total: from the image to the mask, including what lies between the phases; phases that overlap count once.
    """

    preprocess: float
    vision_encode: float
    prefill: float
    decode: float
    mask_encode: float
    mask_decode: float
    total: float

    @classmethod
    def of(cls, spans: Iterable[Span], total_ms: float) -> Latencies:
        """Sum up the spans of each phase."""
        spent = dict.fromkeys(PHASES, 0.0)
        for span in spans:
            spent[span.phase] += span.ms
        return cls(**spent, total=total_ms)


@dataclass(frozen=True)
class SegmentationResult:
    """Everything about one query on one image.

    Attributes:
        query: the query as the policy saw it.
        variant: the prompt variant.
        text: the policy's complete output.
        rationale: the text inside `<think>`, None if there is none.
        answer_valid: whether an answer could be read; without one, box, points, mask and score are None.
        reason: why there is no answer, None if there is one.
        repairs: what the tolerant parser repaired, empty for a clean answer.
        image_size: (width, height) of the original image in pixels.
        box: XYXY, half-open pixels of the original image.
        points: XY points in pixels of the original image.
        mask: bool [H, W] of the original image.
        score: the segmenter's own estimate of the mask's IoU; None without a pixel in the mask.
        tokens: token counts.
        latency_ms: clock readings of the phases.
        energy_j: energy of the complete query in J, as "total"; None if it was not measured.
        energy_reason: why `energy_j` is None.
        energy_source: what measured it, and what it covers; None if it was not measured.
        backends: for "policy" and "mask", the backend and why it was chosen.
        frame_reused: whether the image was known, so that its embeddings were reused.
        deadline: what was chosen to meet a deadline; None without one.
        spans: when each phase of `latency_ms` ran; not part of `to_dict`.
    """

    query: str
    variant: str
    text: str
    rationale: str | None
    answer_valid: bool
    reason: str | None
    repairs: tuple[str, ...]
    image_size: tuple[int, int]
    box: Box | None
    points: tuple[Point, ...] | None
    mask: npt.NDArray[np.bool_] | None
    score: float | None
    tokens: TokenCounts
    latency_ms: Latencies
    energy_j: dict[str, float] | None
    energy_reason: str | None
    energy_source: str | None
    backends: Mapping[str, BackendChoice]
    frame_reused: bool
    deadline: DeadlineChoice | None = None
    spans: tuple[Span, ...] = ()

    @property
    def mask_reason(self) -> str | None:
        """Why the mask has no pixel; None if it has one, and without an answer."""
        return explain_empty(self.mask)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data; the mask as COCO's uncompressed run lengths (column-major, background first)."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "spans"}
        return data | {
            "mask": None if self.mask is None else run_lengths(self.mask),
            "mask_px": None if self.mask is None else int(self.mask.sum()),
            "mask_reason": self.mask_reason,
            "tokens": asdict(self.tokens),
            "latency_ms": asdict(self.latency_ms),
            "deadline": None if self.deadline is None else asdict(self.deadline),
            "backends": {part: asdict(choice) for part, choice in self.backends.items()},
        }
