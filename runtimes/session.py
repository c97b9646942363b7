"""A session: a policy and a segmenter that answer queries on images.

The embeddings of the last images are kept, so that a further query on one costs its own words, the completion and the
mask decoder only. An image is recognized by its content: a camera may hand out the same buffer with another image in
it, or the same image in another buffer.

Threads may share a session. The policy answers one query (or batch) at a time and the segmenter makes one mask at a
time, each behind a lock of its own, so that one thread's mask is made while the next thread's policy writes. What fails
leaves nothing half done: the next query begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wise_edge.bundle import store as bundles
from wise_edge.errors import UsageError
from wise_edge.geometry import Box, Point, Size, scale_box, scale_point
from wise_edge.policy.answer import Answer, parse_answer, split_completion
from wise_edge.policy.prompts import normalize_query
from wise_edge.runtimes.backends import any_on_gpu, find_backend
from wise_edge.runtimes.base import (
    ENERGY_REASON,
    BackendChoice,
    BatchingPolicy,
    Decoding,
    Latencies,
    MaskBackend,
    MaskFrame,
    MaskOutput,
    PolicyBackend,
    PolicyFrame,
    PolicyOutput,
    SegmentationResult,
)
from wise_edge.runtimes.deadline import DeadlineChoice, Decode, LatencyHistory
from wise_edge.runtimes.frame_cache import CachedFrame, FrameCache
from wise_edge.runtimes.policy.drafting import Drafts

if TYPE_CHECKING:
    from wise_edge.runtimes.tracking import NewestFrame, Stamped, Tracked


@dataclass(frozen=True)
class _Spent:
    """What came before a mask: for a query of a batch, its share of that.

    Attributes:
        policy: the frame, where this query paid for it.
        mask: likewise.
        total_ms: clock time.
    """

    policy: PolicyFrame | None
    mask: MaskFrame | None
    total_ms: float


class Session:
    """Answers queries on images; threads may share it.

    Args:
        policy: writes the answer.
        mask: turns the answer's box and points into a mask.
        choices: for "policy" and "mask", why that backend was chosen.
        decoding: how completions are written; None forces the answer's form and leaves the rationale free.
        overlap_mask_encoding: encode a new image for the segmenter in a thread of its own while the policy writes. It
            pays where the two do not wait for the same cores: on two cores of a CPU it gained nothing.
        frames: images whose embeddings are kept, the last ones that were asked; for several cameras one each.

    Attributes:
        latency_history: what queries took so far, by which a deadline is met.
    """

    def __init__(
        self,
        policy: PolicyBackend[Any],
        mask: MaskBackend[Any],
        choices: Mapping[str, BackendChoice],
        decoding: Decoding | None = None,
        *,
        overlap_mask_encoding: bool = False,
        frames: int = 1,
    ) -> None:
        self.policy = policy
        self.mask = mask
        self.choices = choices
        self.decoding = decoding or Decoding()
        self.latency_history = LatencyHistory()
        self._worker = ThreadPoolExecutor(1, "mask-encoder") if overlap_mask_encoding else None
        self._frames = FrameCache(frames)
        self._drafts = Drafts()
        self._policy_lock = Lock()
        self._mask_lock = Lock()

    @classmethod
    def from_bundle(
        cls,
        directory: str | Path | None = None,
        *,
        policy_backend: str = "auto",
        mask_backend: str = "auto",
        threads: int | None = None,
        flash_attention: bool | None = None,
        decoding: Decoding | None = None,
        frames: int = 1,
        verify_hashes: bool = True,
    ) -> Session:
        """Open a bundle on the backends that fit this device, or on those asked for.

        Args:
            directory: the bundle, a name of `wise_edge.bundle.store.SHIPPED`, or None for the embedded one.
            policy_backend: "auto" or a backend's name; a name never falls back to another one.
            mask_backend: likewise.
            threads: CPU threads of one graph; None leaves it to the runtime.
            flash_attention: whether llama.cpp attends with fused kernels; None leaves it to `LlamaModel`.
            decoding: how completions are written.
            frames: images whose embeddings are kept.
            verify_hashes: read every file and compare its sha256 first, about a second for each GB.

        Raises:
            UsageError: no such folder or backend.
            BundleError: the bundle is incomplete, altered or too new.
            MissingExtraError, DeviceError: the backend asked for, or every one, cannot run here.
        """
        from wise_edge.runtimes.opening import open_backends

        bundle = bundles.load(bundles.resolve_bundle(directory), verify_hashes=verify_hashes)
        policy, mask, choices = open_backends(
            bundle, policy_backend, mask_backend, threads=threads, flash_attention=flash_attention
        )
        overlap = find_backend(choices["mask"].name).overlap_mask_encoding
        return cls(policy, mask, choices, decoding, overlap_mask_encoding=overlap, frames=frames)

    @classmethod
    def from_checkpoints(cls, policy: str | Path, sam: str | Path, decoding: Decoding | None = None) -> Session:
        """Run checkpoints with torch, on a GPU where there is one: the reference that graphs are compared with.

        Args:
            policy: Hugging Face folder of the policy, with `prompts.json`.
            sam: checkpoint of the segmenter: a folder, or a published `.pth` file of segment-anything.
            decoding: how completions are written.
        """
        from wise_edge.runtimes.mask.torch_mask import open_torch_mask
        from wise_edge.runtimes.policy.torch_policy import TorchPolicy

        parts = TorchPolicy(Path(policy)), open_torch_mask(Path(sam))
        choice = BackendChoice("torch", f"checkpoints are run with torch, on {parts[0].device}")
        return cls(*parts, {"policy": choice, "mask": choice}, decoding)

    @property
    def on_gpu(self) -> bool:
        """Whether the policy or the segmenter runs on a GPU."""
        return any_on_gpu({choice.name for choice in self.choices.values()})

    def afresh(self) -> Session:
        """Return a session on the same backends that holds no image and has measured nothing."""
        other = Session(
            self.policy,
            self.mask,
            self.choices,
            self.decoding,
            overlap_mask_encoding=self._worker is not None,
            frames=self._frames.most,
        )
        other._policy_lock, other._mask_lock = self._policy_lock, self._mask_lock
        return other

    def segment(
        self,
        image: npt.NDArray[np.uint8],
        query: str,
        variant: str | None = None,
        *,
        deadline_ms: float | None = None,
        cancel: Event | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> SegmentationResult:
        """Find what a query names in an image.

        Args:
            image: HWC uint8 RGB, 0 to 255, any size.
            query: what to find, in words.
            variant: prompt variant; None takes the bundle's default.
            deadline_ms: choose the variant by this instead: the richest whose expected time, from the image to the
                mask, fits (`wise_edge.runtimes.deadline`). It is no guarantee; the result says what was expected. What
                the query waits for those of other threads does not count.
            cancel: set from another thread, it ends the query before the policy's next call.
            on_text: takes the completion as it grows, in this thread, before each of the policy's calls; backends that
                write in one call (Edge-LLM) never call it.

        Returns:
            The result; an answer that cannot be read is one too, without box, points and mask but with the reason.

        Raises:
            UsageError: the image is no uint8 RGB array, the query is empty or too long, the variant is unknown, or
                a variant and a deadline are given.
            QueryCancelledError: it was cancelled.
            WiseEdgeError: an engine failed; the session goes on with the next query.
        """
        _check_picture(image)
        if deadline_ms is not None and (variant is not None or not deadline_ms > 0):
            raise UsageError("a deadline is a positive number of ms and chooses the variant; leave the variant out")
        words = normalize_query(query)
        with self._policy_lock:
            start = perf_counter()
            frame = self._frames.find(image)
            known = frame is not None
            choice = None if deadline_ms is None else self.latency_history.choose(deadline_ms, new_frame=not known)
            variant = choice.variant if choice else variant or self.policy.default_variant
            decoding = replace(self._within(choice), cancel=cancel, on_text=on_text)
            if not known:  # on a known image the same query is asked by nobody but those who measure
                decoding = replace(decoding, draft=self._drafts.find(words, variant))
            frame = frame or self._frames.enter(image, self.policy)
            with self._encode_beside(frame, image) as encoded:
                output = self.policy.generate(frame.policy, words, variant, decoding)
            self._drafts.keep(words, variant, output.text)
            spent_ms = (perf_counter() - start) * 1e3
        decoding.check_cancelled()
        spent = _Spent(None if known else frame.policy, encoded[0] if encoded else None, spent_ms)
        result = self._finish(image, words, variant, frame, output, spent)
        self._observe(result, output, new_frame=not known, drafted=bool(decoding.draft))
        return replace(result, deadline=choice)

    def segment_many(
        self,
        image: npt.NDArray[np.uint8],
        queries: Sequence[str],
        variant: str | None = None,
        *,
        cancel: Event | None = None,
    ) -> list[SegmentationResult]:
        """Find what several queries name in one image; on llama.cpp the policy answers them together.

        Args:
            image: HWC uint8 RGB, 0 to 255, any size.
            queries: what to find, in words.
            variant: prompt variant of all; None takes the bundle's default.
            cancel: as in `segment`.

        Returns:
            The results in the order of the queries. What the policy took for all of them is shared evenly; the image
            is paid for by the first.

        Raises:
            UsageError, QueryCancelledError, WiseEdgeError: as `segment`.
        """
        _check_picture(image)
        if not queries:
            return []
        words = [normalize_query(query) for query in queries]
        variant = variant or self.policy.default_variant
        decoding = replace(self.decoding, cancel=cancel)
        with self._policy_lock:
            start = perf_counter()
            frame = self._frames.find(image)
            known = frame is not None
            frame = frame or self._frames.enter(image, self.policy)
            entered = perf_counter()
            with self._encode_beside(frame, image) as encoded:
                outputs = self._write_each(frame, words, variant, decoding)
            share_ms = (perf_counter() - entered) * 1e3 / len(words)
        first = _Spent(
            None if known else frame.policy, encoded[0] if encoded else None, (entered - start) * 1e3 + share_ms
        )
        results: list[SegmentationResult] = []
        for query, output in zip(words, outputs, strict=True):
            decoding.check_cancelled()
            spent = _Spent(None, None, share_ms) if results else first
            results.append(self._finish(image, query, variant, frame, output, spent))
        return results

    def track(
        self,
        frames: Iterable[Stamped] | NewestFrame,
        query: str,
        variant: str | None = None,
        *,
        deadline_ms: float | None = None,
        cancel: Event | None = None,
    ) -> Iterator[Tracked]:
        """Follow what a query names through the frames of a camera; see `wise_edge.runtimes.tracking.track`."""
        from wise_edge.runtimes.tracking import track

        return track(self, frames, query, variant, deadline_ms=deadline_ms, cancel=cancel)

    def find_mask(self, image: npt.NDArray[np.uint8], box: Box, points: tuple[Point, ...]) -> MaskOutput:
        """Segment what a box and points name, without the policy.

        Args:
            image: HWC uint8 RGB, 0 to 255, any size.
            box: XYXY pixels of the image, around the object.
            points: XY pixels of the image, inside the object.

        Raises:
            UsageError: the image is no uint8 RGB array.
            WiseEdgeError: the segmenter failed.
        """
        _check_picture(image)
        with self._mask_lock:
            return self.mask.decode(self.mask.encode(image), box, points)

    def _write_each(
        self, frame: CachedFrame, queries: list[str], variant: str, decoding: Decoding
    ) -> list[PolicyOutput]:
        if isinstance(self.policy, BatchingPolicy):
            return self.policy.generate_many(frame.policy, queries, variant, decoding)
        return [self.policy.generate(frame.policy, query, variant, decoding) for query in queries]

    def _finish(
        self,
        image: npt.NDArray[np.uint8],
        query: str,
        variant: str,
        frame: CachedFrame,
        output: PolicyOutput,
        spent: _Spent,
    ) -> SegmentationResult:
        """Turn what the policy wrote into a mask and a result."""
        start = perf_counter()
        size, square = (image.shape[1], image.shape[0]), self.policy.input_size
        parsed = parse_answer(output.text, square)
        box, points = (None, None) if parsed.answer is None else _to_original(parsed.answer, square, size)
        found, encoded = None, spent.mask
        if box is not None and points is not None:
            with self._mask_lock:
                encoded = self._encode_mask(frame, image) or encoded
                found = self.mask.decode(frame.mask, box, points)
        latency_ms = Latencies(
            preprocess=(spent.policy.preprocess_ms if spent.policy else 0.0)
            + (encoded.preprocess_ms if encoded else 0.0),
            vision_encode=spent.policy.vision_encode_ms if spent.policy else 0.0,
            prefill=(spent.policy.prefill_ms if spent.policy else 0.0) + output.prefill_ms,
            decode=output.decode_ms,
            mask_encode=encoded.encode_ms if encoded else 0.0,
            mask_decode=found.decode_ms if found else 0.0,
            total=spent.total_ms + (perf_counter() - start) * 1e3,
        )
        return SegmentationResult(
            query=query,
            variant=variant,
            text=output.text,
            rationale=split_completion(output.text).rationale,
            answer_valid=found is not None,
            reason=None if parsed.reason is None else _explain(parsed.reason, output),
            repairs=parsed.repairs,
            image_size=size,
            box=box,
            points=points,
            mask=None if found is None else found.mask,
            score=None if found is None else found.score,
            tokens=output.tokens,
            latency_ms=latency_ms,
            energy_j=None,
            energy_reason=ENERGY_REASON,
            energy_source=None,
            backends=self.choices,
            frame_reused=spent.policy is None,
        )

    def _observe(self, result: SegmentationResult, output: PolicyOutput, *, new_frame: bool, drafted: bool) -> None:
        """Let deadlines learn from a query; one without a mask was cheaper than others will be."""
        if not result.answer_valid:
            return
        spent = result.latency_ms
        query_ms = output.prefill_ms + spent.mask_decode
        frame_ms = max(0.0, spent.total - query_ms - output.decode_ms) if new_frame else None
        steps = 0 if drafted else output.tokens.decode_steps
        self.latency_history.observe(
            result.variant,
            frame_ms=frame_ms,
            query_ms=query_ms,
            decode=Decode(output.decode_ms, steps, output.tokens.rationale),
        )

    def _within(self, choice: DeadlineChoice | None) -> Decoding:
        """Return how to write so that a deadline is met."""
        can_limit = self.decoding.forced and getattr(self.policy, "limits_rationale", True)
        if choice is None or choice.max_rationale_tokens is None or not can_limit:
            return self.decoding
        limits = [choice.max_rationale_tokens, self.decoding.max_rationale_tokens]
        return replace(self.decoding, max_rationale_tokens=min(limit for limit in limits if limit is not None))

    @contextmanager
    def _encode_beside(self, frame: CachedFrame, image: npt.NDArray[np.uint8]) -> Iterator[list[MaskFrame]]:
        """Encode the image for the segmenter while the block runs, where that was asked for and is not done.

        Gives a list that holds what was encoded once the block has ended.
        """
        done: list[MaskFrame] = []
        if self._worker is None:
            yield done
            return
        pending = self._worker.submit(self._encode_mask_alone, frame, image)
        try:
            yield done
        finally:  # also where the block raises: the caller may change the image once this is left
            if (encoded := pending.result()) is not None:
                done.append(encoded)

    def _encode_mask_alone(self, frame: CachedFrame, image: npt.NDArray[np.uint8]) -> MaskFrame | None:
        with self._mask_lock:
            return self._encode_mask(frame, image)

    def _encode_mask(self, frame: CachedFrame, image: npt.NDArray[np.uint8]) -> MaskFrame | None:
        """Prepare a frame for the segmenter; return that where it was not done before. The caller holds its lock."""
        if frame.mask is not None:
            return None
        frame.mask = self.mask.encode(image)
        return frame.mask


def _check_picture(image: npt.NDArray[np.uint8]) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise UsageError(f"want a uint8 RGB image [H, W, 3], got {image.dtype} {list(image.shape)}")


def _to_original(answer: Answer, square: int, size: Size) -> tuple[Box, tuple[Point, Point]]:
    frame = (square, square)
    first, second = (scale_point(point, frame, size) for point in answer.points)
    return scale_box(answer.box, frame, size), (first, second)


def _explain(reason: str, output: PolicyOutput) -> str:
    if output.finish == "length":
        return f"{reason}; the policy reached its token limit"
    return reason
