"""A session: a policy and a segmenter that answer queries on images.

The embeddings of the latest images are kept, so that a further query on one costs only its own words, the completion
and the mask decoder. An image is recognized by its content: a camera may reuse a buffer for the next image, or deliver
the same image in another buffer.

Threads may share a session. The policy answers one query (or batch) at a time and the segmenter makes one mask at a
time, each behind its own lock, so that one thread's mask is made while the next thread's policy writes. A failure
leaves no partial state: the next query starts clean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event, Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wise_edge.arguments import check_callable, check_count, describe
from wise_edge.bundle.store import Bundle, load, resolve_bundle
from wise_edge.errors import UsageError
from wise_edge.files.mapped import MappedFiles
from wise_edge.geometry import Box, Point
from wise_edge.images import Picture, read_picture
from wise_edge.policy.picture import Grid
from wise_edge.policy.prompts import normalize_query
from wise_edge.runtimes.answering import build_result, locate
from wise_edge.runtimes.backends import any_on_gpu, find_backend
from wise_edge.runtimes.base import (
    BatchingPolicy,
    Decoding,
    MaskBackend,
    MaskImage,
    MaskOutput,
    MaskPrompt,
    PolicyBackend,
    PolicyOutput,
    Request,
)
from wise_edge.runtimes.deadline import DeadlineChoice, LatencyHistory, check_choice
from wise_edge.runtimes.deadline_options import fit_options, list_options
from wise_edge.runtimes.image_cache import CachedImage, ImageCache
from wise_edge.runtimes.observing import observe_query
from wise_edge.runtimes.policy.drafting import Drafts
from wise_edge.runtimes.results import BackendChoice, SegmentationResult
from wise_edge.runtimes.segmenter import Memory, Segmenter
from wise_edge.runtimes.spans import Span, lay_spans

if TYPE_CHECKING:
    from wise_edge.bundle.evaluated import Evaluated
    from wise_edge.policy.spec import PolicySpec
    from wise_edge.runtimes.tracking import NewestFrame, Stamped, Tracked


class Session:
    """Answers queries on images; threads may share it.

    Args:
        policy: writes the answer.
        mask: turns the answer's box and points into a mask.
        choices: for "policy" and "mask", why that backend was chosen.
        decoding: how completions are written; None forces the answer's form and does not limit the rationale.
        overlap_mask_encoding: encode a new image for the segmenter in another thread while the policy writes. It pays
            if the two do not compete for the same cores: on two cores of a CPU it gained nothing.
        frames: number of images whose embeddings are kept, within `MAX_KEPT_BYTES` of pixels; with several cameras,
            one for each.
        files: files of the models, which are checked before and after each query.
        pixels: most pixels of an image as the policy sees it, unless a query asks for fewer; None for as many as the
            policy was opened with.
        evaluated: what the bundle records of its accuracy, by which deadlines choose; None for nothing.

    Attributes:
        segmenter: makes masks without the policy, of everything in an image or of given boxes and points.
        latency_history: what queries took so far, from which deadlines are met.
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
        files: MappedFiles | None = None,
        pixels: int | None = None,
        evaluated: Evaluated | None = None,
    ) -> None:
        self.policy = policy
        self.mask = mask
        self.choices = choices
        self.decoding = decoding or Decoding()
        self.pixels = pixels
        self.evaluated = evaluated
        self.latency_history = LatencyHistory()
        self._images = ImageCache(frames)
        self._files = files or MappedFiles()
        self._drafts = Drafts()
        self._policy_lock = Lock()
        self.segmenter = Segmenter(mask, self._files, overlap=overlap_mask_encoding)

    @classmethod
    def from_bundle(
        cls,
        bundle: str | Path | Bundle | None = None,
        *,
        policy_backend: str = "auto",
        mask_backend: str = "auto",
        threads: int | None = None,
        flash_attention: bool | None = None,
        decoding: Decoding | None = None,
        frames: int = 1,
        pixels: int | None = None,
        verify_hashes: bool = True,
    ) -> Session:
        """Open a bundle on the backends that fit this device, or on those requested.

        Args:
            bundle: a folder, a name of `wise_edge.bundle.store.SHIPPED`, a loaded bundle, or None for the embedded one.
            policy_backend: "auto" or a backend's name; a name never falls back to another backend.
            mask_backend: likewise.
            threads: CPU threads of one graph; None leaves it to the runtime.
            flash_attention: whether llama.cpp attends with fused kernels; None leaves it to `LlamaModel`.
            decoding: how completions are written.
            frames: number of images whose embeddings are kept.
            pixels: most pixels of an image as the policy sees it; None keeps the bundle's. Fewer are faster and lose
                detail; `onnx` and `tensorrt` have only the grids that were exported.
            verify_hashes: first read every file and compare its sha256, about a second for each GB.

        Raises:
            UsageError: no such folder or backend, or a number is none.
            BundleError: the bundle is incomplete, altered or too new.
            MissingExtraError, DeviceError: the requested backend, or every backend, cannot run here.
        """
        from wise_edge.runtimes.opening import open_backends

        if threads is not None:
            check_count(threads, "threads")
        loaded = bundle if isinstance(bundle, Bundle) else load(resolve_bundle(bundle))
        loaded.manifest.policy.within(pixels)
        settings = {"threads": threads, "flash_attention": flash_attention, "pixels": pixels}
        policy, mask, choices = open_backends(
            loaded, policy_backend, mask_backend, verify_hashes=verify_hashes, **settings
        )
        overlap = find_backend(choices["mask"].name).overlap_mask_encoding
        files = MappedFiles(loaded.directory / artifact.path for artifact in loaded.manifest.artifacts)
        return cls(
            policy,
            mask,
            choices,
            decoding,
            overlap_mask_encoding=overlap,
            frames=frames,
            files=files,
            pixels=pixels,
            evaluated=loaded.manifest.evaluated,
        )

    @classmethod
    def from_checkpoints(
        cls, policy: str | Path, sam: str | Path, decoding: Decoding | None = None, spec: PolicySpec | None = None
    ) -> Session:
        """Run checkpoints with torch, on a GPU if there is one: the reference that graphs are compared with.

        Args:
            policy: Hugging Face folder of the policy, with `prompts.json`.
            sam: checkpoint of the segmenter: what `read_sam_spec` reads.
            decoding: how completions are written.
            spec: what the policy expects, if its folder's own account does not count.
        """
        from wise_edge.runtimes.mask.torch_mask import open_torch_mask
        from wise_edge.runtimes.policy.torch_policy import TorchPolicy

        parts = TorchPolicy(Path(policy), spec), open_torch_mask(Path(sam))
        choice = BackendChoice("torch", f"checkpoints are run with torch, on {parts[0].device}")
        return cls(*parts, {"policy": choice, "mask": choice}, decoding)

    @property
    def on_gpu(self) -> bool:
        """Whether the policy or the segmenter runs on a GPU."""
        return any_on_gpu({choice.name for choice in self.choices.values()})

    def check_choice(self, variant: str | None, deadline_ms: float | None = None) -> None:
        """Check what chooses the prompt variant of a query, see `wise_edge.runtimes.deadline.check_choice`."""
        check_choice(self.policy.variants, variant, deadline_ms, self.evaluated)

    def forget(self) -> None:
        """Forget every image, draft and reading, so that the next query costs what it costs a new session."""
        with self._policy_lock, self.segmenter.lock:
            self._images.clear()
            self._drafts = Drafts()
            self.latency_history = LatencyHistory()

    def segment(
        self,
        image: Picture,
        query: str,
        variant: str | None = None,
        *,
        deadline_ms: float | None = None,
        pixels: int | None = None,
        cancel: Event | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> SegmentationResult:
        """Find what a query names in an image.

        Args:
            image: a path, an image of Pillow, or an array, HWC uint8 RGB, 0 to 255, which is copied unless it is
                read-only and owns its memory; of a size that `wise_edge.arguments.check_size` accepts.
            query: what to find, in words.
            variant: prompt variant; None takes the bundle's default.
            deadline_ms: chooses the variant instead, and `pixels` unless it is given: the most accurate that the bundle
                records whose expected time, from the image to the mask, fits; without a record, the richest variant
                (`wise_edge.runtimes.deadline`). It is no guarantee; the result says what was expected. Waiting for
                queries of other threads does not count.
            pixels: most pixels of the image as the policy sees it; None for the session's. The segmenter sees all.
            cancel: set from another thread, it ends the query before the policy's next call.
            on_text: called with the completion as it grows, in this thread, before each of the policy's calls; never
                called by backends that write in one call (Edge-LLM).

        Returns:
            The result, with as many objects as the answer names; if it cannot be read, with the reason.

        Raises:
            UsageError: the image is none, cannot be read or is too large, the query is empty or too long, the variant
                is unknown, both a variant and a deadline are given, or the policy does not take so many or few pixels.
            BundleError: a file of the bundle was altered in its place since the bundle was opened.
            QueryCancelledError: it was cancelled.
            WiseEdgeError: an engine failed; the session can answer the next query.
        """
        return self.ground(
            image, query, variant, deadline_ms=deadline_ms, pixels=pixels, cancel=cancel, on_text=on_text
        )[0]

    def ground(
        self,
        image: Picture,
        query: str,
        variant: str | None = None,
        *,
        deadline_ms: float | None = None,
        pixels: int | None = None,
        cancel: Event | None = None,
        on_text: Callable[[str], None] | None = None,
        encoded: MaskImage | None = None,
    ) -> tuple[SegmentationResult, MaskImage | None]:
        """Do what `segment` does, and return the image as the segmenter encoded it, too, with which a memory begins.

        The other arguments are those of `segment`.

        Args:
            encoded: the image, if the segmenter encoded it already; see `Memory.encode`.

        Returns:
            The result, and the encoded image; None if the segmenter did not see it, since there was nothing to mark.

        Raises:
            WiseEdgeError: as `segment`.
        """
        self.check_choice(variant, deadline_ms)
        query = normalize_query(query)
        if cancel is not None and not isinstance(cancel, Event):
            raise UsageError(f"cancel must be a threading.Event, got {describe(cancel)}")
        if on_text is not None:
            check_callable(on_text, "on_text")
        image = read_picture(image)
        pixels = self.pixels if pixels is None else pixels
        grid = self._grid(image, pixels)
        spans: list[Span] = []
        with self._policy_lock:
            self._files.check()
            start = perf_counter()
            cached = self._images.find(image)
            choice, fresh = None, cached is None and encoded is None
            if deadline_ms is not None:
                choice = self._choose(deadline_ms, image, pixels, cached.grid if cached else None)
                variant, pixels = choice.variant, choice.pixels
                grid = self._grid(image, pixels)
            known = cached is not None and cached.grid == grid
            variant = variant or self.policy.default_variant
            # On a known image nobody repeats a query but those who measure: a draft would spoil their readings.
            asked = query, variant, grid
            draft = "" if known else self._drafts.find(asked)
            limit = choice.max_rationale_tokens if choice and self.policy.limits_rationale else None
            request = Request(query, variant, self.decoding.limited(limit), draft, cancel, on_text)
            cached = self._encode(image, cached, pixels, spans)
            cached.mask = cached.mask or encoded
            with self.segmenter.encoding(cached, spans):
                output = self._generate(cached, request, spans)
            self._drafts.keep(asked, output.text)
            spent_ms = (perf_counter() - start) * 1e3
        request.check_cancelled()
        (result,) = self._finish(cached, [_Written(request, output, spans, spent_ms, known)], pixels)
        observe_query(self.latency_history, result, output, cached if fresh else None, drafted=bool(draft))
        return replace(result, deadline=choice), cached.mask

    def segment_many(
        self,
        image: Picture,
        queries: Sequence[str],
        variant: str | None = None,
        *,
        cancel: Event | None = None,
    ) -> list[SegmentationResult]:
        """Find what several queries name in one image; on llama.cpp the policy answers them together.

        Args:
            image: as of `segment`.
            queries: what to find, in words.
            variant: prompt variant of all; None takes the bundle's default.
            cancel: as in `segment`.

        Returns:
            The results in the order of the queries. The policy's time for all of them is shared evenly, their masks are
            made in one call; the first one pays for the image.

        Raises:
            UsageError, QueryCancelledError, WiseEdgeError: as `segment`.
        """
        self.check_choice(variant)
        if isinstance(queries, str) or not isinstance(queries, Sequence):
            raise UsageError(f"queries must be a list of texts, got {describe(queries)}")
        if not queries:
            return []
        variant = variant or self.policy.default_variant
        image = read_picture(image)
        grid = self._grid(image, self.pixels)
        requests = [Request(normalize_query(query), variant, self.decoding, cancel=cancel) for query in queries]
        spans: list[Span] = []
        with self._policy_lock:
            self._files.check()
            start = perf_counter()
            cached = self._images.find(image)
            known = cached is not None and cached.grid == grid
            cached = self._encode(image, cached, self.pixels, spans)
            encoded = perf_counter()
            with self.segmenter.encoding(cached, spans):
                outputs = self._generate_each(cached, requests)
            share_ms = (perf_counter() - encoded) * 1e3 / len(requests)
        requests[0].check_cancelled()
        written = [_Written(requests[0], outputs[0], spans, (encoded - start) * 1e3 + share_ms, known)]
        written += [_Written(*each, [], share_ms, True) for each in zip(requests[1:], outputs[1:], strict=True)]
        for number, each in enumerate(written):
            each.spans.extend(_spans_of(each.output, encoded + number * share_ms / 1e3))
        return self._finish(cached, written, self.pixels)

    def track(
        self,
        frames: Iterable[Stamped] | NewestFrame,
        query: str,
        variant: str | None = None,
        *,
        deadline_ms: float | None = None,
        ground_every_s: float | None = None,
        memory: bool = False,
        cancel: Event | None = None,
    ) -> Iterator[Tracked]:
        """Follow what a query names through frames of a camera or recording; see `runtimes.tracking.track`."""
        from wise_edge.runtimes.tracking import track

        return track(
            self,
            frames,
            query,
            variant,
            deadline_ms=deadline_ms,
            ground_every_s=ground_every_s,
            memory=memory,
            cancel=cancel,
        )

    def find_mask(self, image: Picture, box: Box, points: tuple[Point, ...]) -> MaskOutput:
        """Segment what a box and points mark, without the policy.

        Args:
            image: as of `segment`.
            box: XYXY pixels of the image, around the object.
            points: XY pixels of the image, inside the object.

        Raises:
            UsageError: the image is none, the box or a point is none, or the box lies outside.
            BundleError: a file of the bundle was altered in its place since the bundle was opened.
            WiseEdgeError: the segmenter failed.
        """
        return self.find_masks(image, [MaskPrompt(box, points)])[0]

    def find_masks(self, image: Picture, prompts: Sequence[MaskPrompt]) -> list[MaskOutput]:
        """Segment what each of several prompts marks, without the policy; see `find_mask`."""
        image = read_picture(image)
        for prompt in prompts:
            prompt.check_inside((image.shape[1], image.shape[0]))
        return self.segmenter.find(image, prompts)

    def open_memory(self) -> Memory:
        """Open a memory with which the segmenter follows objects through one video, without the policy.

        Raises:
            UsageError: the segmenter has none.
        """
        return self.segmenter.open_memory()

    def _grid(self, image: npt.NDArray[np.uint8], pixels: int | None) -> Grid:
        """Return the grid of image tokens as which the policy sees an image; one image of one grid is encoded once."""
        height, width, _ = image.shape
        return self.policy.grid((width, height), pixels)

    def _encode(
        self, image: npt.NDArray[np.uint8], known: CachedImage | None, pixels: int | None, spans: list[Span]
    ) -> CachedImage:
        """Encode an image for the policy and keep it, unless it is; of an image, only its latest grid is kept."""
        grid, mask = self._grid(image, pixels), None
        if known is not None:
            if known.grid == grid:
                return known
            image, mask = known.pixels, known.mask
            self._images.remove(known)
        self._images.make_room(image)
        kept = image.flags.owndata and not image.flags.writeable
        own = image if known is not None or kept else image.copy()  # a camera may reuse the buffer
        own.flags.writeable = False  # results hold it, too
        start = perf_counter()
        encoded = self.policy.encode(own, pixels)
        spans += lay_spans(
            start,
            preprocess=encoded.preprocess_ms,
            vision_encode=encoded.vision_encode_ms,
            prefill=encoded.prefill_ms,
        )
        cached = CachedImage(own, grid, encoded, mask)
        self._images.add(cached)
        return cached

    def _generate(self, cached: CachedImage, request: Request, spans: list[Span]) -> PolicyOutput:
        start = perf_counter()
        output = self.policy.generate(cached.policy, request)
        spans += _spans_of(output, start)
        return output

    def _generate_each(self, cached: CachedImage, requests: Sequence[Request]) -> list[PolicyOutput]:
        if isinstance(self.policy, BatchingPolicy):
            return self.policy.generate_many(cached.policy, requests)
        return [self.policy.generate(cached.policy, request) for request in requests]

    def _finish(self, cached: CachedImage, written: Sequence[_Written], pixels: int | None) -> list[SegmentationResult]:
        """Turn what the policy wrote into masks, which are made together, and results.

        Args:
            cached: the image.
            written: of each query.
            pixels: most pixels of the image as the policy saw it.
        """
        start, frame, form = perf_counter(), self.policy.frame(cached.grid), self.policy.form
        located = [locate(each.output, form, frame, cached.size, each.request.decoding.max_objects) for each in written]
        before = [len(each.spans) for each in written]
        prompts = [[MaskPrompt(item.box, item.points) for item in each.objects] for each in located]
        found = self.segmenter.find_in(cached, [(own, each.spans) for own, each in zip(prompts, written, strict=True)])
        own_ms = [sum(span.ms for span in each.spans[count:]) for each, count in zip(written, before, strict=True)]
        rest_ms = ((perf_counter() - start) * 1e3 - sum(own_ms)) / len(written)
        self._files.check()
        return [
            build_result(
                each.request,
                each.output,
                place,
                masks,
                each.spans,
                each.spent_ms + spent_ms + rest_ms,
                cached.pixels,
                pixels=pixels,
                backends=self.choices,
                frame_reused=each.reused,
            )
            for each, place, masks, spent_ms in zip(written, located, found, own_ms, strict=True)
        ]

    def _choose(
        self, deadline_ms: float, image: npt.NDArray[np.uint8], pixels: int | None, held: Grid | None
    ) -> DeadlineChoice:
        listed = list_options(self.policy.variants, self.evaluated, pixels)
        options, refused = fit_options(listed, partial(self._grid, image), held)
        choice = self.latency_history.choose(deadline_ms, options)
        return replace(choice, considered=(*choice.considered, *refused))


@dataclass(frozen=True)
class _Written:
    """What the policy wrote for a query.

    Attributes:
        request: what it was asked.
        output: what it wrote.
        spans: the phases that this query paid for so far.
        spent_ms: the time of this query so far.
        reused: whether the image was known.
    """

    request: Request
    output: PolicyOutput
    spans: list[Span]
    spent_ms: float
    reused: bool


def _spans_of(output: PolicyOutput, start_s: float) -> list[Span]:
    return lay_spans(start_s, prefill=output.prefill_ms, decode=output.decode_ms)
