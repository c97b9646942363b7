"""A session: a policy and a segmenter that answer queries on pictures.

The embeddings of the current picture are kept, so that a further query on it costs its own words, the completion and
the mask decoder only. A picture is recognised by the hash of its content: a camera may hand out the same buffer with
another picture in it, or the same picture in another buffer.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge import bundle as bundles
from wise_edge.answer import Answer, parse_answer, split_completion
from wise_edge.errors import UsageError
from wise_edge.geometry import Box, Point, Size, scale_box, scale_point
from wise_edge.prompts import normalize_query
from wise_edge.runtimes.base import (
    ENERGY_REASON,
    BackendChoice,
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


@dataclass
class _Frame:
    digest: bytes
    policy: PolicyFrame
    mask: MaskFrame | None = None


class Session:
    """Answers queries on pictures; not for use by several threads at once.

    Args:
        policy: writes the answer.
        mask: turns the answer's box and points into a mask.
        choices: for "policy" and "mask", why that backend was chosen.
        decoding: how completions are written; None forces the answer's form and leaves the rationale free.
        beside: encode a new picture for the segmenter in a thread of its own while the policy writes. It pays where the
            two do not wait for the same cores: on two cores of a CPU it gained nothing.
    """

    def __init__(
        self,
        policy: PolicyBackend[Any],
        mask: MaskBackend[Any],
        choices: Mapping[str, BackendChoice],
        decoding: Decoding | None = None,
        *,
        beside: bool = False,
    ) -> None:
        self.policy = policy
        self.mask = mask
        self.choices = choices
        self.decoding = decoding or Decoding()
        self._worker = ThreadPoolExecutor(1, "mask-encoder") if beside else None
        self._frame: _Frame | None = None

    @classmethod
    def from_bundle(
        cls,
        directory: str | Path | None = None,
        *,
        policy_backend: str = "auto",
        mask_backend: str = "auto",
        threads: int | None = None,
        decoding: Decoding | None = None,
        verify_hashes: bool = True,
    ) -> Session:
        """Open a bundle on the backends that fit this device, or on those asked for.

        Args:
            directory: the bundle, a name of `wise_edge.bundle.SHIPPED`, or None for the embedded one.
            policy_backend: "auto" or a backend's name; a name never falls back to another one.
            mask_backend: likewise.
            threads: CPU threads of one graph; None leaves it to the runtime.
            decoding: how completions are written.
            verify_hashes: read every file and compare its sha256 first, about a second for each GB.

        Raises:
            UsageError: no such folder or backend.
            BundleError: the bundle is incomplete, altered or too new.
            MissingExtraError, DeviceError: the backend asked for, or every one, cannot run here.
        """
        from wise_edge.runtimes.opening import open_backends

        bundle = bundles.load(bundles.resolve_bundle(directory), verify_hashes=verify_hashes)
        policy, mask, choices = open_backends(bundle, policy_backend, mask_backend, threads)
        return cls(policy, mask, choices, decoding, beside=mask.name == "tensorrt")

    @classmethod
    def from_checkpoints(cls, policy: str | Path, sam: str | Path, decoding: Decoding | None = None) -> Session:
        """Run checkpoints with torch, on a GPU where there is one: the reference that graphs are compared with.

        Args:
            policy: Hugging Face folder of the policy, with `prompts.json`.
            sam: checkpoint of the segmenter: a folder, or a published `.pth` file of segment-anything.
            decoding: how completions are written.
        """
        from wise_edge.runtimes.torch_mask import open_torch_mask
        from wise_edge.runtimes.torch_policy import TorchPolicy

        parts = TorchPolicy(Path(policy)), open_torch_mask(Path(sam))
        choice = BackendChoice("torch", f"checkpoints are run with torch, on {parts[0].device}")
        return cls(*parts, {"policy": choice, "mask": choice}, decoding)

    def afresh(self) -> Session:
        """Return a session on the same backends that holds no picture."""
        return Session(self.policy, self.mask, self.choices, self.decoding, beside=self._worker is not None)

    def segment(self, image: npt.NDArray[np.uint8], query: str, variant: str | None = None) -> SegmentationResult:
        """Find what a query names in a picture.

        Args:
            image: HWC uint8 RGB, 0 to 255, any size.
            query: what to find, in words.
            variant: prompt variant; None takes the bundle's default.

        Returns:
            The result; an answer that cannot be read is one too, without box, points and mask but with the reason.

        Raises:
            UsageError: the picture is no uint8 RGB array, the query is empty or too long, or the variant is unknown.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise UsageError(f"want a uint8 RGB picture [H, W, 3], got {image.dtype} {list(image.shape)}")
        start = perf_counter()
        words = normalize_query(query)
        variant = variant or self.policy.default_variant
        frame, policy_reused = self._enter(image)
        mask_reused = frame.mask is not None
        with self._encode_beside(frame, image):
            output = self.policy.generate(frame.policy, words, variant, self.decoding)
        size = (image.shape[1], image.shape[0])
        square = self.policy.input_size
        parsed = parse_answer(output.text, square)
        target = None if parsed.answer is None else _to_original(parsed.answer, square, size)
        found = None if target is None else self._find_mask(frame, image, *target)
        box, points = target or (None, None)
        return SegmentationResult(
            query=words,
            variant=variant,
            text=output.text,
            rationale=split_completion(output.text).rationale,
            answer_valid=found is not None,
            reason=None if parsed.reason is None else _explain(parsed.reason, output),
            mended=parsed.mended,
            image_size=size,
            box=box,
            points=points,
            mask=None if found is None else found.mask,
            score=None if found is None else found.score,
            tokens=output.tokens,
            latency_ms=_latencies(
                None if policy_reused else frame.policy, output, None if mask_reused else frame.mask, found, start
            ),
            energy_j=None,
            energy_reason=ENERGY_REASON,
            backends=self.choices,
            frame_reused=policy_reused,
        )

    def _enter(self, image: npt.NDArray[np.uint8]) -> tuple[_Frame, bool]:
        digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16, salt=_shape_salt(image)).digest()
        if self._frame is not None and self._frame.digest == digest:
            return self._frame, True
        self._frame = _Frame(digest, self.policy.encode(image))
        return self._frame, False

    @contextmanager
    def _encode_beside(self, frame: _Frame, image: npt.NDArray[np.uint8]) -> Iterator[None]:
        """Encode the picture for the segmenter while the block runs, where that was asked for and is not done."""
        if self._worker is None or frame.mask is not None:
            yield
            return
        pending = self._worker.submit(self.mask.encode, image)
        try:
            yield
        finally:  # also where the block raises: the caller may change the picture once this is left
            frame.mask = pending.result()

    def _find_mask(
        self, frame: _Frame, image: npt.NDArray[np.uint8], box: Box, points: tuple[Point, Point]
    ) -> MaskOutput:
        if frame.mask is None:
            frame.mask = self.mask.encode(image)
        return self.mask.decode(frame.mask, box, points)


def _shape_salt(image: npt.NDArray[np.uint8]) -> bytes:
    return struct.pack("<QQ", *image.shape[:2])


def _to_original(answer: Answer, square: int, size: Size) -> tuple[Box, tuple[Point, Point]]:
    frame = (square, square)
    first, second = (scale_point(point, frame, size) for point in answer.points)
    return scale_box(answer.box, frame, size), (first, second)


def _explain(reason: str, output: PolicyOutput) -> str:
    if output.finish == "length":
        return f"{reason}; the policy reached its token limit"
    return reason


def _latencies(
    policy: PolicyFrame | None, output: PolicyOutput, mask: MaskFrame | None, found: MaskOutput | None, start: float
) -> Latencies:
    return Latencies(
        preprocess=(policy.preprocess_ms if policy else 0.0) + (mask.preprocess_ms if mask else 0.0),
        vision_encode=policy.vision_encode_ms if policy else 0.0,
        prefill=(policy.prefill_ms if policy else 0.0) + output.prefill_ms,
        decode=output.decode_ms,
        mask_encode=mask.encode_ms if mask else 0.0,
        mask_decode=found.decode_ms if found else 0.0,
        total=(perf_counter() - start) * 1000.0,
    )
