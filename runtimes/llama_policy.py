"""A Qwen-VL policy on llama.cpp.

One sequence of keys and values is kept: the system message for the life of the backend, the picture of the frame that
was asked last until another frame is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt

from wise_edge.llama import LlamaModel, LlamaPicture
from wise_edge.manifest import PolicySpec
from wise_edge.qwen_image import resize_square
from wise_edge.runtimes.base import Decoding, PolicyOutput
from wise_edge.runtimes.policy_text import PolicyText
from wise_edge.runtimes.writing import Writer


@dataclass(frozen=True)
class LlamaPolicyFrame:
    """A picture's embeddings in the language model."""

    picture: LlamaPicture
    preprocess_ms: float
    vision_encode_ms: float
    prefill_ms: float


class LlamaPolicy:
    """Runs a policy's GGUF files.

    Args:
        name: backend name.
        spec: the policy.
        text: GGUF file of the language model.
        vision: GGUF file of the vision tower.
        tokenizer: tokenizer.json.
        threads: CPU threads; None takes `wise_edge.llama.default_threads`.
        gpu: put all layers on the GPU.

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
    ) -> None:
        self.name = name
        self._spec = spec
        self._text = PolicyText(tokenizer, spec)
        self._writer = Writer(self._text, spec.input_size)
        self._model = LlamaModel(text, vision, spec.context_tokens, threads=threads, gpu=gpu)
        self._model.append(self._text.before_image, 0)
        self._held: LlamaPicture | None = None

    @property
    def input_size(self) -> int:
        """Side in pixels of the resized square."""
        return self._spec.input_size

    @property
    def default_variant(self) -> str:
        """The prompt variant used when none is asked for."""
        return self._spec.default_variant

    def encode(self, image: npt.NDArray[np.uint8]) -> LlamaPolicyFrame:
        """Prepare a picture (HWC uint8 RGB, any size) for queries; its vision tower's time holds normalising it."""
        start = perf_counter()
        square = resize_square(image, self._spec.input_size)
        prepared = perf_counter()
        picture = self._model.encode(square)
        seen = perf_counter()
        self._hold(picture)
        end = perf_counter()
        return LlamaPolicyFrame(picture, (prepared - start) * 1e3, (seen - prepared) * 1e3, (end - seen) * 1e3)

    def generate(self, frame: LlamaPolicyFrame, query: str, variant: str, decoding: Decoding) -> PolicyOutput:
        """Write greedily; see `PolicyBackend`."""
        start = perf_counter()
        suffix = self._text.suffix(query, variant)
        if self._held is not frame.picture:
            self._hold(frame.picture)
        position = self._text.prefix_end
        self._model.truncate(position)

        def run(tokens: Sequence[int]) -> npt.NDArray[np.float32]:
            nonlocal position
            logits: npt.NDArray[np.float32] = self._model.append(tokens, position)[-1]
            position += len(tokens)
            return logits

        return self._writer.write(run, suffix, variant, decoding).output(self._text, suffix, start)

    def _hold(self, picture: LlamaPicture) -> None:
        """Run the language model over a picture, in place of the one it holds."""
        before = len(self._text.before_image)
        self._held = None  # until it is there whole
        self._model.truncate(before)
        position = self._model.append_picture(picture, before)
        self._model.append(self._text.after_image, position)
        self._held = picture
