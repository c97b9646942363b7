"""What every backend offers, and the results that a session hands out.

A `Graph` runs named arrays. A `PolicyBackend` turns an image and a query into text, a `MaskBackend` an image and a
prompt into a mask. Both split the work that belongs to the image (`encode`, done once a frame) from the work that
belongs to the query, and both hand back their own clock readings: phases are measured where they happen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from threading import Event
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from wise_edge.errors import QueryCancelledError, UsageError
from wise_edge.geometry import Box, Point
from wise_edge.rle import run_lengths
from wise_edge.runtimes.deadline import DeadlineChoice

Finish = Literal["answer", "end", "length"]
"""Why a policy stopped: `</answer>` was written, an end token came, or the token limit was reached."""

ENERGY_REASON = "no sensor was read; run --energy reads one, wise-edge profile measures every part"


class Graph(Protocol):
    """A compiled network that maps named arrays to named arrays.

    Arrays are numpy's; or such as an earlier run gave, where the network leaves them on the GPU.
    """

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Run the network once; names, shapes and dtypes are those of the bundle's contract."""
        ...


class PolicyFrame(Protocol):
    """An image as a policy keeps it between queries, with what preparing it cost.

    Attributes:
        preprocess_ms: resizing and cutting into patches.
        vision_encode_ms: the vision tower.
        prefill_ms: the language model over the system message and the image.
    """

    @property
    def preprocess_ms(self) -> float: ...
    @property
    def vision_encode_ms(self) -> float: ...
    @property
    def prefill_ms(self) -> float: ...


@dataclass(frozen=True)
class TokenCounts:
    """Where the policy's tokens went.

    Attributes:
        prompt: tokens of the whole prompt, those of the image included.
        image: tokens of the image.
        rationale: tokens of the text inside `<think>`, without the tags.
        answer: tokens of the text inside `<answer>`, without the tags.
        forced: tokens that the answer's form gave, which were not asked of the model.
        decode_steps: runs of the language model behind the prompt.
    """

    prompt: int
    image: int
    rationale: int
    answer: int
    forced: int
    decode_steps: int


@dataclass(frozen=True)
class Decoding:
    """How a completion is written.

    Attributes:
        forced: the answer's form is given and only its numbers are asked of the model; otherwise every token is.
        max_rationale_tokens: after so many tokens a forced rationale is closed; None closes it where room ends.
        draft: a completion that this one may equal in its beginning, such as that of the last frame of a video; a
            backend that can runs it at once and keeps what the model would have written.
        cancel: when set, the query ends before the next call of the model with `QueryCancelledError`.
        on_text: takes what is written so far before each call of the model, where one query is written by itself.
    """

    forced: bool = True
    max_rationale_tokens: int | None = None
    draft: str = ""
    cancel: Event | None = None
    on_text: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        """Raise `UsageError` for what cannot be."""
        if self.max_rationale_tokens is not None and (self.max_rationale_tokens < 0 or not self.forced):
            raise UsageError("max_rationale_tokens must be 0 or more, and needs forced decoding")

    def check_cancelled(self) -> None:
        """Raise `QueryCancelledError` where the query was cancelled."""
        if self.cancel is not None and self.cancel.is_set():
            raise QueryCancelledError("the query was cancelled")


@dataclass(frozen=True)
class PolicyOutput:
    """What a policy wrote for one query.

    Attributes:
        text: the whole completion, tags included.
        finish: why it stopped.
        tokens: token counts.
        prefill_ms: the language model over the query.
        decode_ms: writing the completion.
    """

    text: str
    finish: Finish
    tokens: TokenCounts
    prefill_ms: float
    decode_ms: float

    def shared(self, count: int) -> PolicyOutput:
        """Return it with its share of the time that `count` queries took together."""
        return replace(self, prefill_ms=self.prefill_ms / count, decode_ms=self.decode_ms / count)


class MaskFrame(Protocol):
    """An image as a mask backend keeps it between prompts, with what preparing it cost.

    Attributes:
        preprocess_ms: resizing, normalizing and padding.
        encode_ms: the image encoder.
    """

    @property
    def preprocess_ms(self) -> float: ...
    @property
    def encode_ms(self) -> float: ...


@dataclass(frozen=True)
class MaskOutput:
    """The mask for one prompt.

    Attributes:
        mask: bool [H, W] of the original image.
        score: the decoder's own estimate of the mask's IoU.
        logits: float32 [L, L], the mask in the decoder's frame, before upsampling: a prompt for the next decoding.
        decode_ms: the mask decoder and the upsampling to the original image.
    """

    mask: npt.NDArray[np.bool_]
    score: float
    logits: npt.NDArray[np.float32]
    decode_ms: float


PolicyFrameT = TypeVar("PolicyFrameT", bound=PolicyFrame)
MaskFrameT = TypeVar("MaskFrameT", bound=MaskFrame)


class PolicyBackend(Protocol[PolicyFrameT]):
    """A policy on some runtime.

    Attributes:
        name: backend name, for example "onnx".
        input_size: side in pixels of the resized square, the frame of the answers.
        default_variant: the prompt variant used when none is asked for.
    """

    @property
    def name(self) -> str: ...
    @property
    def input_size(self) -> int: ...
    @property
    def default_variant(self) -> str: ...

    def encode(self, image: npt.NDArray[np.uint8]) -> PolicyFrameT:
        """Prepare an image (HWC uint8 RGB, any size) for queries."""
        ...

    def generate(self, frame: PolicyFrameT, query: str, variant: str, decoding: Decoding) -> PolicyOutput:
        """Write greedily until `</answer>`; free decoding also ends at an end token or the token limit."""
        ...


@runtime_checkable
class BatchingPolicy(Protocol):
    """A policy backend that writes several completions at once."""

    def generate_many(self, frame: Any, queries: Sequence[str], variant: str, decoding: Decoding) -> list[PolicyOutput]:
        """Write the completions of several queries together; each has its share of the time that they took."""
        ...


class MaskBackend(Protocol[MaskFrameT]):
    """A promptable segmenter on some runtime.

    Attributes:
        name: backend name, for example "onnx".
    """

    @property
    def name(self) -> str: ...

    def encode(self, image: npt.NDArray[np.uint8]) -> MaskFrameT:
        """Prepare an image (HWC uint8 RGB, any size) for prompts."""
        ...

    def decode(
        self, frame: MaskFrameT, box: Box, points: tuple[Point, ...], previous: npt.NDArray[np.float32] | None = None
    ) -> MaskOutput:
        """Segment what a box (XYXY) and points (XY) name, all in pixels of the original image.

        Args:
            frame: of `encode`.
            box: around the object.
            points: inside it.
            previous: `MaskOutput.logits` of an earlier decoding, of this image or of the one before it in a video.
        """
        ...


@dataclass(frozen=True)
class BackendChoice:
    """Which backend runs a part, and why it was chosen.

    Attributes:
        name: the backend.
        reason: why it was chosen, and what was tried before it.
        rejected: why none that would have been better runs here.
    """

    name: str
    reason: str
    rejected: tuple[str, ...] = ()


@dataclass(frozen=True)
class Latencies:
    """Clock readings of one query in ms; a phase that an earlier query on the same image paid for is 0.

    Attributes:
        preprocess: resizing, patches, normalizing, for policy and mask backend together.
        vision_encode: the policy's vision tower.
        prefill: the language model over the prompt.
        decode: writing the completion.
        mask_encode: the segmenter's image encoder, which may run beside the policy.
        mask_decode: the segmenter's decoder and the upsampling.
        total: from the image to the mask, everything between the phases included; what ran side by side counts once.
    """

    preprocess: float
    vision_encode: float
    prefill: float
    decode: float
    mask_encode: float
    mask_decode: float
    total: float


@dataclass(frozen=True)
class SegmentationResult:
    """Everything about one query on one image.

    Attributes:
        query: the query as the policy saw it.
        variant: the prompt variant.
        text: the policy's whole completion.
        rationale: the text inside `<think>`, None where there is none.
        answer_valid: whether an answer could be read; without one, box, points, mask and score are None.
        reason: why there is no answer, None where there is one.
        repairs: what the tolerant parser repaired, empty for a clean answer.
        image_size: (width, height) of the original image in pixels.
        box: XYXY, half-open pixels of the original image.
        points: two XY points in pixels of the original image.
        mask: bool [H, W] of the original image.
        score: the segmenter's own estimate of the mask's IoU.
        tokens: token counts.
        latency_ms: clock readings of the phases.
        energy_j: energy in J, of the whole query as "total"; None where it was not measured.
        energy_reason: why `energy_j` is None.
        energy_source: what told it, and of what it is the energy; None where it was not measured.
        backends: for "policy" and "mask", the backend and why it was chosen.
        frame_reused: whether the image was known, so that its embeddings were reused.
        deadline: what was chosen to meet a deadline; None where there was none.
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
    points: tuple[Point, Point] | None
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

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data; the mask as COCO's uncompressed run lengths (column-major, background first)."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return data | {
            "mask": None if self.mask is None else run_lengths(self.mask),
            "tokens": asdict(self.tokens),
            "latency_ms": asdict(self.latency_ms),
            "deadline": None if self.deadline is None else asdict(self.deadline),
            "backends": {part: asdict(choice) for part, choice in self.backends.items()},
        }
