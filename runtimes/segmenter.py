"""The segmenter of a session: a mask backend behind its lock, whose encoder may run while the policy writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.files.mapped import MappedFiles
from wise_edge.runtimes.base import MaskBackend, MaskImage, MaskMemory, MaskOutput, MaskPrompt, RememberedMask
from wise_edge.runtimes.image_cache import CachedImage
from wise_edge.runtimes.spans import Span, lay_spans


class Segmenter:
    """Makes one mask at a time.

    Args:
        backend: makes masks.
        files: files of the models, which are checked before and after masks without the policy.
        overlap: encode a new image in another thread while the policy writes.

    Attributes:
        lock: held while the backend works.
    """

    def __init__(self, backend: MaskBackend[Any], files: MappedFiles, *, overlap: bool) -> None:
        self.lock = Lock()
        self._backend = backend
        self._files = files
        self._worker = ThreadPoolExecutor(1, "mask-encoder") if overlap else None

    def find(self, image: npt.NDArray[np.uint8], prompts: Sequence[MaskPrompt]) -> list[MaskOutput]:
        """Segment what prompts mark in an image that is not kept, HWC uint8 RGB."""
        with self.lock:
            self._files.check()
            found = self._backend.decode_many(self._backend.encode(image), prompts)
            self._files.check()
            return found

    def open_memory(self) -> Memory:
        """Open a memory of the objects of one video, see `MaskBackend.open_memory`."""
        with self.lock:
            return Memory(self.lock, self._files, self._backend, self._backend.open_memory())

    def find_in(self, cached: CachedImage, prompts: Sequence[MaskPrompt], spans: list[Span]) -> list[MaskOutput]:
        """Segment what prompts mark in an image that is kept, and add when it ran to the spans."""
        with self.lock:
            self._encode(cached, spans)
            start = perf_counter()
            found = self._backend.decode_many(cached.mask, prompts)
        spans += lay_spans(start, mask_decode=sum(each.decode_ms for each in found))
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
            encoded = cached.mask = self._backend.encode(cached.pixels)
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
