"""A Qwen-VL policy on llama.cpp.

One sequence of keys and values is kept: what stands before an image, the image that was asked about last, and the words
between it and the query. When another image is asked about, the keys and values move into the encoded image, if it is
still referenced, and back when it is asked about again. Several queries on an image are sequences that share its
beginning and run together. A model that does not rewind returns to snapshots before and after the image instead.
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
from wise_edge.native.llama import MAX_SEQUENCES, LlamaModel, Piece
from wise_edge.native.llama_vision import LlamaImage
from wise_edge.policy.image import fit_picture
from wise_edge.policy.picture import Grid
from wise_edge.policy.spec import PolicySpec
from wise_edge.runtimes.backends import Backend
from wise_edge.runtimes.base import PolicyOutput, Request
from wise_edge.runtimes.policy.common import BasePolicy
from wise_edge.runtimes.policy.drafting import DraftedRun
from wise_edge.runtimes.policy.prompt import Prefix, Prompt, common_length
from wise_edge.runtimes.policy.text import MAX_NEW_TOKENS
from wise_edge.runtimes.policy.writing import Writer
from wise_edge.runtimes.policy.written import Logits

_QUERY_TOKENS = 128 + MAX_NEW_TOKENS
"""Room for each query and its completion beyond the first one."""
_DRAFT_BYTES = 64 << 20
"""Most logits of a draft in one call: 110 tokens with Qwen's vocabulary. Those of a list may be over 2,000."""


def cache_tokens(spec: PolicySpec) -> int:
    """Return for how many tokens keys and values are made: a query's, and those that run beside it."""
    return spec.context_tokens + (MAX_SEQUENCES - 1) * _QUERY_TOKENS


def open_policy(
    bundle: Bundle, row: Backend, *, threads: int | None, flash_attention: bool | None, pixels: int | None = None
) -> LlamaPolicy:
    """Open a bundle's policy; see `wise_edge.runtimes.backends.Support`."""
    return LlamaPolicy(
        row.name,
        bundle.manifest.policy.within(pixels),
        *(bundle.file(role) for role in (GGUF_TEXT, GGUF_VISION, TOKENIZER)),
        threads=threads,
        gpu=row.on_gpu is True,
        flash_attention=flash_attention,
    )


@dataclass(eq=False)
class LlamaPolicyImage:
    """An image's embeddings, the prefix around it and, while another image is asked about, the keys and values."""

    embeddings: LlamaImage
    grid: Grid
    preprocess_ms: float
    vision_encode_ms: float
    prefill_ms: float = 0.0
    prefix: Prefix | None = None
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
        self._writer = Writer(self._text, spec)
        self._room = cache_tokens(spec)
        self._model = LlamaModel(text, vision, self._room, threads=threads, gpu=gpu, flash_attention=flash_attention)
        self._before: tuple[int, ...] = ()  # tokens before the image, which the language model holds
        if prefix := self._text.prefix(self._variant, (1, 1)):
            self._hold_words(prefix.before)
        self._held: weakref.ref[LlamaPolicyImage] | None = None
        self._end = -1  # position after the tokens of a query; -1 if unknown

    def encode(self, image: npt.NDArray[np.uint8], pixels: int | None = None) -> LlamaPolicyImage:
        """Prepare an image for queries, see `PolicyBackend`; the vision tower's time includes normalizing."""
        spec = self._within(pixels)
        start = perf_counter()
        picture = fit_picture(image, spec)
        prepared = perf_counter()
        embeddings = self._model.encode(picture)
        seen = perf_counter()
        grid = spec.grid_of(image)
        encoded = LlamaPolicyImage(embeddings, grid, (prepared - start) * 1e3, (seen - prepared) * 1e3)
        if prefix := self._text.prefix(self._variant, grid):
            self._hold(encoded, prefix)
            encoded.prefill_ms = (perf_counter() - seen) * 1e3
        return encoded

    def generate(self, encoded: LlamaPolicyImage, request: Request) -> PolicyOutput:
        """Write greedily; see `PolicyBackend`."""
        start = perf_counter()
        prompt = self._prompt(request, encoded.grid)
        expected = request.draft if request.draft and self._model.rewinds else ""
        draft = self._text.encode(expected.removeprefix(prompt.template.prefill))
        self._hold(encoded, prompt.prefix)
        self._end = -1
        most = max(1, _DRAFT_BYTES // (4 * self._text.vocabulary))
        run = DraftedRun(self._run_rows, prompt.prefix.end, len(prompt.suffix), draft, most)
        written = self._writer.write(run, prompt, request)
        return written.output(self._text, prompt, start, steps=run.calls - 1)

    def generate_many(self, encoded: LlamaPolicyImage, requests: Sequence[Request]) -> list[PolicyOutput]:
        """Write the completions of several queries together; see `BatchingPolicy`."""
        outputs: list[PolicyOutput] = []
        prompts = [self._prompt(request, encoded.grid) for request in requests]
        while (done := len(outputs)) < len(prompts):
            end = done + self._fitting(prompts[done:])
            outputs += self._write_group(encoded, prompts[done:end], requests[done:end])
        return outputs

    def _fitting(self, prompts: list[Prompt]) -> int:
        """Return how many of the first prompts begin alike and fit together, at least one."""
        prefix = prompts[0].prefix
        room, count = self._room - prefix.length, 0
        for prompt in prompts[: self._model.sequences]:
            room -= len(prompt.suffix) + self._text.token_limit(prompt)
            if room < 0 or prompt.prefix != prefix:
                break
            count += 1
        return max(count, 1)

    def _write_group(
        self, encoded: LlamaPolicyImage, prompts: list[Prompt], requests: Sequence[Request]
    ) -> list[PolicyOutput]:
        start = perf_counter()
        prefix = prompts[0].prefix
        self._hold(encoded, prefix)
        positions = [prefix.end] * len(prompts)

        def run(asked: Mapping[int, Sequence[int]]) -> dict[int, Logits]:
            pieces = [Piece(tokens, positions[place], place) for place, tokens in asked.items()]
            rows = self._model.append_each(pieces)
            for place, tokens in asked.items():
                positions[place] += len(tokens)
            return dict(zip(asked, rows, strict=True))

        self._model.truncate(prefix.end)
        self._model.fork(prefix.end, len(prompts))
        try:
            together = self._writer.write_together(run, prompts, requests)
        finally:
            self._model.join()
        outputs = [done.output(self._text, prompt, start) for done, prompt in zip(together, prompts, strict=True)]
        return [output.shared(len(outputs)) for output in outputs]

    def _run_rows(self, tokens: Sequence[int], position: int, rows: int) -> Logits:
        if position != self._end:
            self._model.truncate(position)
        self._end = -1  # until all of them are there
        logits = self._model.append(tokens, position, rows=rows)
        self._end = position + len(tokens)
        return logits

    def _hold(self, encoded: LlamaPolicyImage, prefix: Prefix) -> None:
        """Make the language model hold an image, and a prompt's beginning around it, instead of what it holds now."""
        held = self._current()
        if held is encoded and encoded.prefix == prefix:
            return
        if held is not None and held is not encoded and held.state is None:
            held.state = self._model.save()
        self._held = None  # until all of it is there
        if held is not encoded and encoded.state is not None:
            self._restore(encoded)
            held = encoded
        if held is not encoded or encoded.prefix != prefix:
            self._append(encoded, prefix, keep_image=held is encoded)
        self._held = weakref.ref(encoded)

    def _current(self) -> LlamaPolicyImage | None:
        """Return the image that the language model holds, and remove what follows its prefix; None without one."""
        held = self._held() if self._held is not None else None
        if held is None or held.prefix is None:
            return None
        return held if self._model.truncate(held.prefix.end) == held.prefix.end else None

    def _append(self, encoded: LlamaPolicyImage, prefix: Prefix, *, keep_image: bool) -> None:
        """Run what the language model does not hold yet of a prompt's beginning."""
        old, encoded.prefix, encoded.state = encoded.prefix, None, None
        kept, start = -1, prefix.image_end
        if keep_image and old is not None and old.before == prefix.before:
            kept = self._model.truncate(start + common_length(old.after, prefix.after)) - start
        if kept < 0:
            kept = 0
            self._hold_words(prefix.before)
            start = self._model.append_image(encoded.embeddings, len(prefix.before))
        if more := prefix.after[kept:]:
            self._model.append(more, start + kept)
        self._model.snapshot(prefix.end)
        encoded.prefix = prefix

    def _hold_words(self, before: tuple[int, ...]) -> None:
        """Make the language model hold the tokens before an image, and nothing else."""
        kept = self._model.truncate(common_length(self._before, before))
        self._before = self._before[:kept]
        if more := before[kept:]:
            self._model.append(more, kept)
            self._model.snapshot(len(before))
        self._before = before

    def _restore(self, encoded: LlamaPolicyImage) -> None:
        assert encoded.state is not None and encoded.prefix is not None
        self._before = ()
        self._model.restore(encoded.state)
        self._model.snapshot(encoded.prefix.end)
        self._before = encoded.prefix.before
