"""What every backend offers.

A `Graph` runs named arrays. A `PolicyBackend` turns an image and a query into text, a `MaskBackend` an image and a
prompt into a mask. Both split the work that belongs to the image (`encode`, done once for each image) from the work
that belongs to the query, and both return their own clock readings: phases are measured where they happen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from wise_edge.arguments import describe, is_count
from wise_edge.errors import QueryCancelledError, UsageError
from wise_edge.geometry import Box, Size
from wise_edge.policy.answers.completion import Completion
from wise_edge.policy.answers.form import AnswerForm
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.policy.answers.reading import MAX_OBJECTS
from wise_edge.policy.picture import Grid
from wise_edge.runtimes.results import TokenCounts
from wise_edge.sam.spec import SamSpec

Finish = Literal["answer", "end", "length", "objects"]
"""Why a policy stopped: it wrote the end of its answer or an end token, or reached the limit of tokens or objects."""


class Graph(Protocol):
    """A compiled network that maps named arrays to named arrays.

    Arrays are numpy's, or arrays on the GPU that an earlier run returned.
    """

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Run the network once; names, shapes and dtypes are those of the bundle's contract."""
        ...

    def largest(self, name: str, axis: int) -> int | None:
        """Return the largest size of an input along an axis; None if nothing bounds it."""
        ...


@dataclass(frozen=True)
class Decoding:
    """How completions are written.

    Attributes:
        forced: the answer's form is dictated, and the model is asked for its numbers only; otherwise for every token.
        max_rationale_tokens: a forced rationale is closed before `TokenCounts.rationale` exceeds it; None closes it
            when room runs out.
        max_objects: a list of objects ends there; further ones are left out, which the result says.
    """

    forced: bool = True
    max_rationale_tokens: int | None = None
    max_objects: int = MAX_OBJECTS

    def __post_init__(self) -> None:
        """Raise `UsageError` for settings that exclude each other."""
        if not is_count(self.max_objects):
            raise UsageError(f"max_objects must be 1 or more, got {describe(self.max_objects)}")
        if self.max_rationale_tokens is None:
            return
        if not is_count(self.max_rationale_tokens, least=0) or not self.forced:
            given = describe(self.max_rationale_tokens)
            raise UsageError(f"max_rationale_tokens must be 0 or more, and needs forced decoding; got {given}")

    def limited(self, max_rationale_tokens: int | None) -> Decoding:
        """Return this with a rationale of at most so many tokens, too; only a forced form can end one."""
        if max_rationale_tokens is None or not self.forced:
            return self
        limits = [max_rationale_tokens, self.max_rationale_tokens]
        return replace(self, max_rationale_tokens=min(limit for limit in limits if limit is not None))

    @property
    def summary(self) -> str:
        """How completions are written, in a few words for records."""
        limit = "" if self.max_objects == MAX_OBJECTS else f", at most {self.max_objects} objects"
        return ("forced" if self.forced else "free") + limit


@dataclass(frozen=True)
class Request:
    """One query to a policy.

    Attributes:
        query: normalized, see `wise_edge.policy.prompts.normalize_query`.
        variant: the prompt variant.
        decoding: how the completion is written.
        draft: a text that the completion may begin with, such as the completion on the last frame of a video; backends
            that can run it in one call keep as much of it as the model would have written.
        cancel: if set, the query ends before the next call of the model with `QueryCancelledError`.
        on_text: called with the text written so far before each call of the model, unless queries are batched.
    """

    query: str
    variant: str
    decoding: Decoding = Decoding()
    draft: str = ""
    cancel: Event | None = None
    on_text: Callable[[str], None] | None = None

    def check_cancelled(self) -> None:
        """Raise `QueryCancelledError` if the query was cancelled."""
        if self.cancel is not None and self.cancel.is_set():
            raise QueryCancelledError("the query was cancelled")


class EncodedImage(Protocol):
    """An image as a backend keeps it between queries, with what preparing it cost.

    Attributes:
        preprocess_ms: resizing, normalizing, padding or cutting into patches.
    """

    @property
    def preprocess_ms(self) -> float: ...


class PolicyImage(EncodedImage, Protocol):
    """An image encoded for a policy.

    Attributes:
        vision_encode_ms: the vision tower.
        prefill_ms: the language model over the system message and the image.
    """

    @property
    def vision_encode_ms(self) -> float: ...
    @property
    def prefill_ms(self) -> float: ...


class MaskImage(EncodedImage, Protocol):
    """An image encoded for a segmenter.

    Attributes:
        encode_ms: the image encoder.
    """

    @property
    def encode_ms(self) -> float: ...


@dataclass(frozen=True)
class PolicyOutput:
    """What a policy wrote for one query.

    Attributes:
        text: the complete output, including its tags.
        parts: its parts.
        finish: why it stopped.
        tokens: token counts.
        prefill_ms: the language model over the query.
        decode_ms: writing the completion.
    """

    text: str
    parts: Completion
    finish: Finish
    tokens: TokenCounts
    prefill_ms: float
    decode_ms: float

    def shared(self, count: int) -> PolicyOutput:
        """Return it with its share of the time that `count` queries took together."""
        return replace(self, prefill_ms=self.prefill_ms / count, decode_ms=self.decode_ms / count)


@dataclass(frozen=True, eq=False)
class MaskPrompt:
    """What to segment, in pixels of the original image.

    Attributes:
        box: XYXY, half-open, around the object; None if points alone say where it is.
        points: XY, inside it.
        previous: `MaskOutput.logits` of an earlier decoding, of this image or of the previous one of a video.
    """

    box: Box | None = None
    points: tuple[tuple[float, float], ...] = ()
    previous: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        """Raise `UsageError` for a box or point that is none."""
        box = self.box
        if box is not None and not (_are_numbers(box, 4) and box[0] < box[2] and box[1] < box[3]):
            raise UsageError(f"the box must be (x1, y1, x2, y2) with x1 < x2 and y1 < y2, got {describe(box)}")
        listed = isinstance(self.points, Sequence | np.ndarray)
        if not listed or not all(_are_numbers(point, 2) for point in self.points):
            raise UsageError(f"the points must be pairs (x, y), got {describe(self.points)}")
        if box is None and not len(self.points):
            raise UsageError("a prompt needs a box, or a point inside the object")

    def check_inside(self, size: Size) -> None:
        """Raise `UsageError` if no part of the box, or a point without a box, lies inside an image (width, height)."""
        told = f"outside the image, which is {size[0]} x {size[1]}"
        if self.box is not None:
            x1, y1, x2, y2 = self.box
            if not (x1 < size[0] and y1 < size[1] and x2 > 0 and y2 > 0):
                raise UsageError(f"the box {tuple(self.box)} is {told}")
            return
        for x, y in self.points:
            if not (0 <= x < size[0] and 0 <= y < size[1]):
                raise UsageError(f"the point {(x, y)} is {told}")


@dataclass(frozen=True)
class MaskOutput:
    """The mask for one prompt.

    Attributes:
        mask: bool [H, W] of the original image.
        score: the decoder's own estimate of the mask's IoU.
        logits: float32 [L, L], the mask before upsampling, which may prompt the next decoding.
        decode_ms: the mask decoder and the upsampling to the original image.
    """

    mask: npt.NDArray[np.bool_]
    score: float
    logits: npt.NDArray[np.float32]
    decode_ms: float

    @property
    def mask_score(self) -> float | None:
        """The score; None if the mask has no pixel, of which it says nothing, or if the model returned no number."""
        return self.score if self.mask.any() and math.isfinite(self.score) else None


class RawMasks(NamedTuple):
    """What a decoder returned for the prompts of one call.

    Attributes:
        logits: float32 [N, M, L, L], before upsampling; M masks of each prompt.
        scores: float32 [N, M], the decoder's own estimate of each mask's IoU.
    """

    logits: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]


@dataclass(frozen=True)
class RememberedMask(MaskOutput):
    """The mask of one object on one frame of a video.

    Attributes:
        object_score: logit of whether the object is in the frame; at 0 and below it is hidden, and the mask is empty.
    """

    object_score: float

    @property
    def visible(self) -> bool:
        """Whether the object is in the frame."""
        return self.object_score > 0


def _are_numbers(values: object, count: int) -> bool:
    """Whether it is a sequence of so many finite numbers."""
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        return False
    return numbers.shape == (count,) and bool(np.isfinite(numbers).all())


PolicyImageT = TypeVar("PolicyImageT", bound=PolicyImage)
MaskImageT = TypeVar("MaskImageT", bound=MaskImage)
FrameT_contra = TypeVar("FrameT_contra", bound=MaskImage, contravariant=True)


class PolicyBackend(Protocol[PolicyImageT]):
    """A policy on some runtime.

    Attributes:
        name: backend name, for example "onnx".
        form: how its answers are written.
        variants: the names of its prompt variants.
        default_variant: the prompt variant used by default.
        limits_rationale: whether `Decoding.max_rationale_tokens` is supported.
    """

    @property
    def name(self) -> str: ...
    @property
    def form(self) -> AnswerForm: ...
    @property
    def variants(self) -> Collection[str]: ...
    @property
    def default_variant(self) -> str: ...
    @property
    def limits_rationale(self) -> bool: ...

    def grid(self, size: Size, pixels: int | None = None) -> Grid:
        """Return the columns and rows of image tokens of an image, which depend on nothing else.

        Args:
            size: width and height of the image in px.
            pixels: most pixels of the image as the policy sees it; None for as many as the policy was opened with.

        Raises:
            UsageError: the policy cannot see images of so few pixels, or so many.
        """
        ...

    def frame(self, grid: Grid) -> AnswerFrame:
        """Return the frame of answers on an image of so many columns and rows of tokens."""
        ...

    def encode(self, image: npt.NDArray[np.uint8], pixels: int | None = None) -> PolicyImageT:
        """Prepare an image (HWC uint8 RGB, any size) for queries; `pixels` as in `grid`."""
        ...

    def generate(self, encoded: PolicyImageT, request: Request) -> PolicyOutput:
        """Write greedily until `</answer>`; free decoding also ends at an end token or the token limit."""
        ...


@runtime_checkable
class BatchingPolicy(Protocol):
    """A policy backend that writes several completions at once."""

    def generate_many(self, encoded: Any, requests: Sequence[Request]) -> list[PolicyOutput]:
        """Write the completions of several queries together; each has its share of the time that they took."""
        ...


class MaskBackend(Protocol[MaskImageT]):
    """A promptable segmenter on some runtime.

    Attributes:
        name: backend name, for example "onnx".
        spec: the segmenter.
    """

    @property
    def name(self) -> str: ...
    @property
    def spec(self) -> SamSpec: ...

    def encode(self, image: npt.NDArray[np.uint8]) -> MaskImageT:
        """Prepare an image (HWC uint8 RGB, any size) for prompts."""
        ...

    def decode(self, encoded: MaskImageT, prompt: MaskPrompt) -> MaskOutput:
        """Segment what a prompt marks on an image that `encode` returned."""
        ...

    def decode_many(self, encoded: MaskImageT, prompts: Sequence[MaskPrompt]) -> list[MaskOutput]:
        """Segment what each of several prompts marks, in as few calls of the decoder as it allows.

        Returns:
            What `decode` returns for each, in order; each has its share of the time that a call took.
        """
        ...

    def decode_raw(self, encoded: MaskImageT, prompts: Sequence[MaskPrompt], multimask: bool) -> Iterator[RawMasks]:
        """Decode prompts in calls as `decode_many` does, and yield what each returned, to be chosen from or upsampled.

        Args:
            encoded: of `encode`.
            prompts: of the image; each call takes at most so many as its results may be in memory together.
            multimask: the three masks of each prompt, else its single one.
        """
        ...

    def open_memory(self) -> MaskMemory[MaskImageT]:
        """Open an empty memory, which follows objects through the frames of one video.

        Raises:
            UsageError: the segmenter was not trained to follow.
        """
        ...


class MaskMemory(Protocol[FrameT_contra]):
    """Objects of one video, each with its own memory, whose size is bounded however long the video is.

    A call with another image than the last one's is about the next frame, which may have another size. On a frame
    objects may be prompted before or after the others are followed; both give the same masks.
    """

    def prompt(self, encoded: FrameT_contra, prompts: Mapping[int, MaskPrompt]) -> dict[int, RememberedMask]:
        """Begin to follow objects on a frame, or correct them there.

        A prompt says alone where the object is: what is remembered of it does not change its mask on this frame, and
        `MaskPrompt.previous` is ignored. It is remembered for longer than frames on which the object is followed.

        Args:
            encoded: a frame that the backend's `encode` returned.
            prompts: by the number of the object, which the caller chooses.

        Returns:
            Their masks, by number.
        """
        ...

    def follow(self, encoded: FrameT_contra) -> dict[int, RememberedMask]:
        """Find every object on a frame.

        Returns:
            All masks by number; of objects that were prompted on this frame, what `prompt` returned.

        Raises:
            UsageError: there is no object.
        """
        ...

    def forget(self, number: int) -> None:
        """Stop to follow an object and free its memory.

        Raises:
            UsageError: there is no such object.
        """
        ...
