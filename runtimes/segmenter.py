"""The segmenter: a mask backend behind its lock, alone or in a session, where it may encode while the policy writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.arguments import check_count
from wise_edge.bundle.store import Bundle, load, resolve_bundle
from wise_edge.files.mapped import MappedFiles
from wise_edge.images import Picture, read_picture
from wise_edge.runtimes.base import MaskBackend, MaskImage, MaskMemory, MaskOutput, MaskPrompt, RememberedMask
from wise_edge.runtimes.image_cache import CachedImage
from wise_edge.runtimes.mask.generated import GeneratedMasks
from wise_edge.runtimes.mask.grid import GridOptions
from wise_edge.runtimes.spans import Span, lay_spans


class Segmenter:
    """Makes masks, for one caller at a time.

    Args:
        backend: makes masks.
        files: files of the models, which are checked before and after masks without the policy.
        overlap: encode a new image in another thread while the policy writes.

    Attributes:
        backend: makes masks.
        lock: held while the backend works.
    """

    def __init__(self, backend: MaskBackend[Any], files: MappedFiles, *, overlap: bool = False) -> None:
        self.lock = Lock()
        self.backend = backend
        self._files = files
        self._worker = ThreadPoolExecutor(1, "mask-encoder") if overlap else None

    @classmethod
    def from_bundle(
        cls,
        bundle: str | Path | Bundle | None = None,
        *,
        mask_backend: str = "auto",
        threads: int | None = None,
        verify_hashes: bool = True,
    ) -> Segmenter:
        """Open the segmenter of a bundle; its policy is not read.

        Args:
            bundle: as of `Session.from_bundle`, as are the others.
            mask_backend: "auto" or a backend's name; a name never falls back to another backend.
            threads: CPU threads of one graph; None leaves it to the runtime.
            verify_hashes: first read the segmenter's files and compare their sha256.

        Raises:
            UsageError, BundleError, MissingExtraError, DeviceError: as of `Session.from_bundle`.
        """
        from wise_edge.runtimes.opening import open_mask_backend

        if threads is not None:
            check_count(threads, "threads")
        loaded = bundle if isinstance(bundle, Bundle) else load(resolve_bundle(bundle))
        backend, _ = open_mask_backend(loaded, mask_backend, verify_hashes=verify_hashes, threads=threads)
        named = (artifact for artifact in loaded.manifest.artifacts if not artifact.role.startswith("policy."))
        return cls(backend, MappedFiles(loaded.directory / artifact.path for artifact in named))

    @classmethod
    def from_checkpoint(cls, sam: str | Path) -> Segmenter:
        """Run a checkpoint with torch, on a GPU if there is one; see `Session.from_checkpoints`."""
        from wise_edge.runtimes.mask.torch_mask import open_torch_mask

        return cls(open_torch_mask(Path(sam)), MappedFiles())

    def generate(
        self, image: Picture, options: GridOptions | None = None, count: Callable[[], object] = lambda: None
    ) -> GeneratedMasks:
        """Make the masks of everything in an image, as segment-anything's `SamAutomaticMaskGenerator` does.

        Args:
            image: as of `Session.segment`.
            options: the grid of points, and which masks are kept; None for segment-anything's defaults.
            count: called after each point of `GridOptions.total`, for a bar of progress.

        Raises:
            UsageError: the image is none, or too small for so many layers of crops.
            BundleError: a file of the bundle was altered in its place since the bundle was opened.
            WiseEdgeError: the segmenter failed.
        """
        from wise_edge.runtimes.mask.generating import generate_masks

        return self._make(partial(generate_masks, self.backend, read_picture(image), options or GridOptions(), count))

    def segment(self, image: Picture, prompts: Sequence[MaskPrompt]) -> GeneratedMasks:
        """Make the mask of each of several boxes or points, such as those of a detector.

        Args:
            image: as of `Session.segment`.
            prompts: what to segment, in pixels of the image.

        Raises:
            UsageError: the image is none, or a prompt lies outside of it.
            BundleError, WiseEdgeError: as of `generate`.
        """
        from wise_edge.runtimes.mask.generating import segment_prompts

        pixels = read_picture(image)
        for prompt in prompts:
            prompt.check_inside((pixels.shape[1], pixels.shape[0]))
        return self._make(partial(segment_prompts, self.backend, pixels, prompts))

    def _make(self, make: Callable[[], GeneratedMasks]) -> GeneratedMasks:
        with self.lock:
            self._files.check()
            made = make()
            self._files.check()
            return made

    def find(self, image: npt.NDArray[np.uint8], prompts: Sequence[MaskPrompt]) -> list[MaskOutput]:
        """Segment what prompts mark in an image that is not kept, HWC uint8 RGB."""
        with self.lock:
            self._files.check()
            found = self.backend.decode_many(self.backend.encode(image), prompts)
            self._files.check()
            return found

    def open_memory(self) -> Memory:
        """Open a memory of the objects of one video, see `MaskBackend.open_memory`."""
        with self.lock:
            return Memory(self.lock, self._files, self.backend, self.backend.open_memory())

    def find_in(
        self, cached: CachedImage, asked: Sequence[tuple[Sequence[MaskPrompt], list[Span]]]
    ) -> list[list[MaskOutput]]:
        """Segment together what the prompts of each query mark in an image that is kept.

        Args:
            cached: the image.
            asked: each query's prompts, and its spans, to which is added when its masks were made; the first one pays
                for encoding the image, unless no query has a prompt.
        """
        together = [prompt for prompts, _ in asked for prompt in prompts]
        if not together:
            return [[] for _ in asked]
        with self.lock:
            self._encode(cached, asked[0][1])
            start = perf_counter()
            made = iter(self.backend.decode_many(cached.mask, together))
        found = [list(islice(made, len(prompts))) for prompts, _ in asked]
        for masks, (_, spans) in zip(found, asked, strict=True):
            spans += lay_spans(start, mask_decode=sum(each.decode_ms for each in masks))
            start = spans[-1].end_s
        return found

    @contextmanager
    def encoding(self, cached: CachedImage, spans: list[Span]) -> Iterator[None]:
        """Encode an image while the block runs, if the two overlap, and add when it ran to the spans."""
        if self._worker is None:
            yield
            return
        pending = self._worker.submit(self._encode_alone, cached)
        try:
            yield
        finally:  # also if the block raises: the next query must not meet a half-encoded image
            spans += pending.result()

    def _encode_alone(self, cached: CachedImage) -> list[Span]:
        spans: list[Span] = []
        with self.lock:
            self._encode(cached, spans)
        return spans

    def _encode(self, cached: CachedImage, spans: list[Span]) -> None:
        if cached.mask is None:
            start = perf_counter()
            encoded = cached.mask = self.backend.encode(cached.pixels)
            spans += lay_spans(start, preprocess=encoded.preprocess_ms, mask_encode=encoded.encode_ms)


class Memory:
    """Follows objects that were prompted through the frames of one video; see `MaskMemory`.

    Threads may share the session meanwhile, but not the memory.
    """

    def __init__(self, lock: Lock, files: MappedFiles, backend: MaskBackend[Any], memory: MaskMemory[Any]) -> None:
        self._lock, self._files = lock, files
        self._backend, self._memory = backend, memory

    def encode(self, image: npt.NDArray[np.uint8]) -> MaskImage:
        """Prepare a frame, HWC uint8 RGB."""
        with self._working():
            encoded: MaskImage = self._backend.encode(image)
            return encoded

    def prompt(self, encoded: MaskImage, prompts: Mapping[int, MaskPrompt]) -> dict[int, RememberedMask]:
        """Begin to follow objects on a frame, or correct them there; see `MaskMemory.prompt`."""
        with self._working():
            return self._memory.prompt(encoded, prompts)

    def follow(self, encoded: MaskImage) -> dict[int, RememberedMask]:
        """Find every object on the next frame; see `MaskMemory.follow`."""
        with self._working():
            return self._memory.follow(encoded)

    def forget(self, number: int) -> None:
        """Stop to follow an object; see `MaskMemory.forget`."""
        with self._lock:
            self._memory.forget(number)

    @contextmanager
    def _working(self) -> Iterator[None]:
        with self._lock:
            self._files.check()
            yield
            self._files.check()
