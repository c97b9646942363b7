"""A policy on NVIDIA's TensorRT Edge-LLM, through its Python interface.

When first opened it builds engines from the bundle's checkpoint, which takes minutes, and keeps them in the cache
folder. Its guided decoding forces the answer's form. It receives images in the policy's size, so that its own resizing
has nothing to do. **Not yet run: there was no GPU at hand**; the tests use a stand-in for the interface of version 0.11
(https://github.com/NVIDIA/TensorRT-Edge-LLM, experimental/server).
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from wise_edge.bundle.roles import EDGELLM_FOLDER, TOKENIZER
from wise_edge.bundle.store import Bundle
from wise_edge.errors import DeviceError, UsageError, WiseEdgeError, first_line
from wise_edge.extras import require
from wise_edge.files.cache import cache_folder
from wise_edge.policy.answers.pattern import answer_pattern
from wise_edge.policy.image import fit_picture
from wise_edge.policy.picture import Grid
from wise_edge.policy.spec import PolicySpec
from wise_edge.runtimes.backends import Backend
from wise_edge.runtimes.base import Finish, PolicyOutput, Request
from wise_edge.runtimes.policy.common import BasePolicy
from wise_edge.runtimes.policy.text import MAX_NEW_TOKENS


def open_policy(bundle: Bundle, row: Backend, *, pixels: int | None = None, **_: Any) -> EdgellmPolicy:
    """Open a bundle's policy; see `wise_edge.runtimes.backends.Support`."""
    return EdgellmPolicy(
        row.name, bundle.manifest.policy.within(pixels), bundle.directory / EDGELLM_FOLDER, bundle.file(TOKENIZER)
    )


@dataclass(frozen=True)
class EdgellmImage:
    """An image in the policy's size, as a data URL; Edge-LLM encodes it with each query, or finds it in its cache.

    The time of encoding is part of a query's prefill: both happen in one call, which does not separate them.
    """

    url: str
    grid: Grid
    preprocess_ms: float
    vision_encode_ms: float = 0.0
    prefill_ms: float = 0.0


class EdgellmPolicy(BasePolicy):
    """Runs a policy's checkpoint on TensorRT Edge-LLM.

    Args:
        name: backend name.
        spec: the policy.
        checkpoint: folder of `--target edgellm`.
        tokenizer: tokenizer.json.

    Raises:
        MissingExtraError: tensorrt-edgellm is not installed.
        DeviceError: it does not start here, or cannot build an engine.
    """

    limits_rationale = False
    """The rationale cannot be limited, so a deadline only chooses the variant."""

    def __init__(self, name: str, spec: PolicySpec, checkpoint: Path, tokenizer: Path) -> None:
        super().__init__(name, spec, tokenizer)
        self._server: Any = require("experimental.server", "edgellm")  # the name that NVIDIA's wheel gives it
        tokens = spec.max_image_tokens
        try:
            self._llm = self._server.LLM(
                model=str(checkpoint),
                cache_dir=str(cache_folder() / "edgellm"),
                max_input_len=spec.context_tokens,
                max_kv_cache_capacity=spec.context_tokens + MAX_NEW_TOKENS,
                max_image_tokens=tokens,
                max_image_tokens_per_image=tokens,
            )
        except Exception as error:  # various classes, from a missing library to a failed build
            raise DeviceError(f"TensorRT Edge-LLM does not start with {checkpoint}: {first_line(error)}") from error

    def encode(self, image: npt.NDArray[np.uint8], pixels: int | None = None) -> EdgellmImage:
        """Prepare an image for queries; see `PolicyBackend`."""
        spec = self._within(pixels)
        start = perf_counter()
        stream = BytesIO()
        Image.fromarray(fit_picture(image, spec)).save(stream, "PNG", compress_level=1)
        url = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
        return EdgellmImage(url, spec.grid_of(image), (perf_counter() - start) * 1e3)

    def generate(self, encoded: EdgellmImage, request: Request) -> PolicyOutput:
        """Write greedily; see `PolicyBackend`. Prefill ends with the first token.

        Raises:
            UsageError: as `PolicyText.prompt`, or a limit of rationale tokens is set or the template has a prefill,
                which Edge-LLM lacks.
            WiseEdgeError: Edge-LLM failed.
        """
        if request.decoding.max_rationale_tokens is not None:
            raise UsageError("edgellm cannot limit the rationale's tokens; choose another policy backend")
        if self._spec.prompts.template(request.variant).prefill:
            raise UsageError(
                f"edgellm cannot begin the assistant's turn, which the variant {request.variant!r} asks for; choose "
                "another policy backend"
            )
        start = perf_counter()
        prompt = self._prompt(request, encoded.grid)
        picture = {"type": "image", "image": encoded.url, "do_resize": False}
        messages = self._spec.prompts.messages(request.query, request.variant, picture)
        frame = self._spec.frame_of_grid(encoded.grid)
        pattern = answer_pattern(self._spec.form, frame, rationale=prompt.template.rationale)
        parameters = self._server.SamplingParams(
            temperature=1.0,
            top_k=1,
            top_p=1.0,
            max_tokens=self._text.token_limit(prompt),
            guided_decoding=("regex", pattern) if request.decoding.forced else None,
            skip_special_tokens=False,
        )
        text, tokens, prefilled = "", 0, None
        finish: Finish = "end"
        stream = self._llm.generate_stream(messages, parameters)
        try:
            for delta in stream:
                request.check_cancelled()
                prefilled = prefilled or perf_counter()
                text += delta.text
                tokens += len(delta.token_ids)
                if self._text.answer_end(text) > 0:
                    finish = "answer"
                    break
                if any(stop in text for stop in prompt.template.stop):
                    break
                if delta.finish_reason == "length":
                    finish = "length"
        except (RuntimeError, ValueError) as error:
            raise WiseEdgeError(f"TensorRT Edge-LLM failed: {first_line(error)}") from error
        finally:
            stream.close()  # stops what is still being written
        prefilled, end = prefilled or perf_counter(), perf_counter()
        ends = (*self._spec.eos_tokens, *prompt.template.stop)
        text = text[: self._text.answer_end(text)] if finish == "answer" else _without_end(text, ends)
        parts = self._text.split(text)
        counts = self._text.count(parts, prompt, 0, tokens)
        return PolicyOutput(text, parts, finish, counts, (prefilled - start) * 1e3, (end - prefilled) * 1e3)


def _without_end(text: str, ends: tuple[str, ...]) -> str:
    return re.split("|".join(map(re.escape, ends)), text, maxsplit=1)[0]
