"""A completion of a language model, and what it cost."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import numpy.typing as npt

from wise_edge.runtimes.base import Finish, PolicyOutput
from wise_edge.runtimes.policy.prompt import Prompt
from wise_edge.runtimes.policy.text import PolicyText

Logits = npt.NDArray[np.float32]
"""Of the last token that was run, [vocabulary]."""


@dataclass(frozen=True)
class Written:
    """A completion and its cost.

    Attributes:
        tokens: the completion.
        finish: why it ended.
        forced: number of tokens that the form dictated.
        steps: runs of the language model after the prompt.
        prefilled: clock reading when the prompt had run.
    """

    tokens: list[int]
    finish: Finish
    forced: int
    steps: int
    prefilled: float

    def output(self, text: PolicyText, prompt: Prompt, start: float, *, steps: int | None = None) -> PolicyOutput:
        """Return the output for a query that began at clock reading `start`.

        Args:
            text: the policy's tokens.
            prompt: what was asked.
            start: clock reading in seconds.
            steps: runs of the language model after the prompt, if a draft made them fewer.
        """
        written = text.completion(prompt, self.tokens)
        parts = text.split(written)
        counts = text.count(parts, prompt, self.forced, self.steps if steps is None else steps)
        decode_ms = (perf_counter() - self.prefilled) * 1e3  # includes counting, which no other phase would
        return PolicyOutput(written, parts, self.finish, counts, (self.prefilled - start) * 1e3, decode_ms)


Steps = Generator[list[int], Logits, Written]
"""A completion that is being written: yields tokens to run and is sent the last one's logits."""
