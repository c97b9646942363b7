"""A Qwen-VL policy on llama.cpp.

One sequence of keys and values is kept: the system message for the life of the backend, and the image that was asked
about last. When another image is asked about, the keys and values move into the encoded image, if it is still
referenced, and back when it is asked about again. Several queries on an image are sequences that share its beginning
and run together.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt

from wise_edge.bundle.roles import GGUF_TEXT, GGUF_VISION, TOKENIZER
from wise_edge.bundle.store import Bundle
from wise_edge.errors import WiseEdgeError
from wise_edge.native.llama import MAX_SEQUENCES, LlamaModel, Piece
from wise_edge.native.llama_vision import LlamaImage
from wise_edge.policy.image import resize_square
from wise_edge.policy.spec import PolicySpec
from wise_edge.runtimes.backends import Backend
from wise_edge.runtimes.base import PolicyOutput, Request
from wise_edge.runtimes.policy.common import BasePolicy
from wise_edge.runtimes.policy.drafting import DraftedRun
from wise_edge.runtimes.policy.text import MAX_NEW_TOKENS
from wise_edge.runtimes.policy.writing import Logits, Writer

_QUERY_TOKENS = 128 + MAX_NEW_TOKENS
"""Room for each query and its completion beyond the first one."""


def open_policy(bundle: Bundle, row: Backend, *, threads: int | None, flash_attention: bool | None) -> LlamaPolicy:
    """Open a bundle's policy; see `wise_edge.runtimes.backends.Support`."""
    return LlamaPolicy(
        row.name,
        bundle.manifest.policy,
        *(bundle.file(role) for role in (GGUF_TEXT, GGUF_VISION, TOKENIZER)),
        threads=threads,
        gpu=row.on_gpu is True,
        flash_attention=flash_attention,
    )


@dataclass(eq=False)
class LlamaPolicyImage:
    """An image's embeddings and, while another image is asked about, its keys and values."""

    embeddings: LlamaImage
    preprocess_ms: float
    vision_encode_ms: float
    prefill_ms: float = 0.0
    state: npt.NDArray[np.uint8] | None = None


class LlamaPolicy(BasePolicy):
    """Runs a policy's GGUF files.

    Args:
        name: backend name.
        spec: the policy.
        text: GGUF file of the language model.
        vision: GGUF file of the vision tower.
        tokenizer: tokenizer.json.
        threads: CPU threads; None takes `wise_edge.native.llama.default_threads`.
        gpu: put all layers on the GPU.
        flash_attention: attend with fused kernels; None leaves it to `LlamaModel`.

    Raises:
        MissingExtraError, DeviceError, WiseEdgeError: as `LlamaModel`.
    """

    def __init__(
        self,
        name: str,
        spec: PolicySpec,
        text: Path,
        vision: Path,
        tokenizer: Path,
        *,
        threads: int | None = None,
        gpu: bool = False,
        flash_attention: bool | None = None,
    ) -> None:
        super().__init__(name, spec, tokenizer)
        self._writer = Writer(self._text, spec.input_size)
        self._room = spec.context_tokens + (MAX_SEQUENCES - 1) * _QUERY_TOKENS
        self._model = LlamaModel(text, vision, self._room, threads=threads, gpu=gpu, flash_attention=flash_attention)
        self._begin()
        self._held: weakref.ref[LlamaPolicyImage] | None = None
        self._end = -1  # position after the tokens of a query; -1 if unknown

    def encode(self, image: npt.NDArray[np.uint8]) -> LlamaPolicyImage:
        """Prepare an image (HWC uint8 RGB, any size) for queries; the vision tower's time includes normalizing."""
        start = perf_counter()
        square = resize_square(image, self._spec.input_size)
        prepared = perf_counter()
        embeddings = self._model.encode(square)
        seen = perf_counter()
        encoded = LlamaPolicyImage(embeddings, (prepared - start) * 1e3, (seen - prepared) * 1e3)
        self._hold(encoded)
        encoded.prefill_ms = (perf_counter() - seen) * 1e3
        return encoded

    def generate(self, encoded: LlamaPolicyImage, request: Request) -> PolicyOutput:
        """Write greedily; see `PolicyBackend`."""
        start = perf_counter()
        suffix = self._text.suffix(request.query, request.variant)
        draft = self._text.encode(request.draft) if request.draft else []
        self._hold(encoded)
        self._end = -1
        run = DraftedRun(self._run_rows, self._text.prefix_end, len(suffix), draft)
        written = self._writer.write(run, suffix, request)
        return written.output(self._text, suffix, start, steps=run.calls - 1)

    def generate_many(self, encoded: LlamaPolicyImage, requests: Sequence[Request]) -> list[PolicyOutput]:
        """Write the completions of several queries together; see `BatchingPolicy`."""
        outputs: list[PolicyOutput] = []
        suffixes = [self._text.suffix(request.query, request.variant) for request in requests]
        while (done := len(outputs)) < len(suffixes):
            end = done + self._fitting(suffixes[done:])
            outputs += self._write_group(encoded, suffixes[done:end], requests[done:end])
        return outputs

    def _fitting(self, suffixes: list[list[int]]) -> int:
        """Return how many of the first prompts fit together, at least one."""
        room, count = self._room - self._text.prefix_length, 0
        for suffix in suffixes[:MAX_SEQUENCES]:
            room -= len(suffix) + self._text.token_limit(suffix)
            count += room >= 0
        return max(count, 1)

    def _write_group(
        self, encoded: LlamaPolicyImage, suffixes: list[list[int]], requests: Sequence[Request]
    ) -> list[PolicyOutput]:
        start = perf_counter()
        self._hold(encoded)
        positions = [self._text.prefix_end] * len(suffixes)

        def run(asked: Mapping[int, Sequence[int]]) -> dict[int, Logits]:
            pieces = [Piece(tokens, positions[place], place) for place, tokens in asked.items()]
            rows = self._model.append_each(pieces)
            for place, tokens in asked.items():
                positions[place] += len(tokens)
            return dict(zip(asked, rows, strict=True))

        self._model.truncate(self._text.prefix_end)
        self._model.fork(self._text.prefix_end, len(suffixes))
        try:
            together = self._writer.write_together(run, suffixes, requests)
        finally:
            self._model.join()
        outputs = [done.output(self._text, suffix, start) for done, suffix in zip(together, suffixes, strict=True)]
        return [output.shared(len(outputs)) for output in outputs]

    def _run_rows(self, tokens: Sequence[int], position: int, rows: int) -> Logits:
        if position != self._end:
            self._model.truncate(position)
        self._end = -1  # until all of them are there
        logits = self._model.append(tokens, position, rows=rows)
        self._end = position + len(tokens)
        return logits

    def _hold(self, encoded: LlamaPolicyImage) -> None:
        """Make the language model hold an image instead of the current one."""
        held = self._held() if self._held is not None else None
        if held is encoded:
            return
        if held is not None and held.state is None:
            self._model.truncate(self._text.prefix_end)
            held.state = self._model.save()
        self._held = None  # until all of it is there
        if encoded.state is not None:
            self._restore(encoded.state)
        else:
            before = len(self._text.before_image)
            self._model.truncate(before)
            position = self._model.append_image(encoded.embeddings, before)
            self._model.append(self._text.after_image, position)
        self._held = weakref.ref(encoded)

    def _restore(self, state: npt.NDArray[np.uint8]) -> None:
        try:
            self._model.restore(state)
        except WiseEdgeError:
            self._begin()
            raise

    def _begin(self) -> None:
        """Make the language model hold only the system message."""
        self._model.truncate(0)
        self._model.append(self._text.before_image, 0)
