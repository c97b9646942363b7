"""Prompt and completion of a policy in tokens, shared by all policy backends.

The prompt has a prefix (system message and image, the same for every query) and a suffix (the query). Positions are
M-RoPE's: text advances time, row and column together, an image's tokens share one time and spread over rows and
columns, and the text after it continues from the largest position
(https://arxiv.org/abs/2409.12191, section 2.1; `get_rope_index` of transformers).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wise_edge.errors import BundleError, UsageError
from wise_edge.native.loading import loading
from wise_edge.native.tokenizer import open_tokenizer
from wise_edge.policy.answer import Answer, Completion, format_answer
from wise_edge.policy.prompts import Template
from wise_edge.policy.spec import PolicySpec
from wise_edge.runtimes.base import Finish
from wise_edge.runtimes.results import TokenCounts

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_NEW_TOKENS = 512
"""Tokens that a completion may have."""
_SPARE = 8  # tokens; a form written in pieces may take a few more than in one piece
_STOP = "</answer>"
_STOP_WINDOW = 16  # tokens; no tokenizer needs more than one for each byte of the nine characters


class PolicyText:
    """Encodes prompts, finds the end of a completion, and counts tokens.

    Args:
        file: tokenizer.json.
        spec: the policy.

    Raises:
        BundleError: the file is not a tokenizer, or lacks a token that the policy names.
    """

    def __init__(self, file: Path, spec: PolicySpec) -> None:
        remedy = "export the bundle again"
        self._tokenizer = open_tokenizer(file, remedy, error=BundleError)
        self._spec = spec
        self._file = file
        self._pieces: dict[int, str] = {}
        with loading(file, "the policy's tokenizer", remedy, error=BundleError):
            self._measure_prompt()

    def _measure_prompt(self) -> None:
        """Find what is the same in every prompt."""
        spec = self._spec
        self._eos = {self._token(token) for token in spec.eos_tokens}
        image_token = self._token(spec.image_token)
        ids = self.encode(spec.prompts.parts("object", spec.default_variant).prefix(spec.image_grid**2))
        self.before_image = ids[: ids.index(image_token)]
        self.after_image = ids[len(self.before_image) + spec.image_grid**2 :]
        self.prefix_length = len(ids)
        self.prefix_end = len(ids) - spec.image_grid**2 + spec.image_grid
        """Position of the first token after the prefix."""
        largest = (spec.input_size,) * 2
        longest = format_answer(Answer((*largest, *largest), (largest, largest)))
        self.room_for_answer = len(self.encode(f"<think></think><answer>{longest}</answer>")) + _SPARE
        """Tokens that an answer without a rationale may take, tags included."""

    def suffix(self, query: str, variant: str) -> list[int]:
        """Return the tokens of the prompt after the prefix.

        Raises:
            UsageError: the variant is unknown, or the query leaves no room for an answer.
        """
        ids = self.encode(self._spec.prompts.parts(query, variant).rest)
        room = self._spec.context_tokens - self.prefix_length - len(ids)
        if room < self.room_for_answer:
            most = len(ids) + room - self.room_for_answer
            raise UsageError(f"the query takes {len(ids)} tokens, this policy has room for {most}; shorten it")
        return ids

    def template(self, variant: str) -> Template:
        """Return the wording of a variant."""
        return self._spec.prompts.template(variant)

    def token_limit(self, suffix: Sequence[int]) -> int:
        """Return how many tokens may follow a prompt."""
        return min(MAX_NEW_TOKENS, self._spec.context_tokens - self.prefix_length - len(suffix))

    def accept(self, completion: list[int], token: int, limit: int) -> Finish | None:
        """Add a token to a completion unless it is an end token; return why writing ends, None if it continues."""
        if token in self._eos:
            return "end"
        completion.append(token)
        if _STOP in self.decode(completion[-_STOP_WINDOW:]):
            return "answer"
        return "length" if len(completion) >= limit else None

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def piece(self, token: int) -> str:
        """Return the text of one token."""
        if token not in self._pieces:
            self._pieces[token] = self.decode([token])
        return self._pieces[token]

    def count(self, parts: Completion, suffix: Sequence[int], forced: int, decode_steps: int) -> TokenCounts:
        """Count the tokens of a prompt and of the completion's parts."""
        return TokenCounts(
            prompt=self.prefix_length + len(suffix),
            image=self._spec.image_grid**2,
            rationale=len(self.encode(parts.rationale or "")),
            answer=len(self.encode(parts.answer_text or "")),
            forced=forced,
            decode_steps=decode_steps,
        )

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return int(self._tokenizer.get_vocab_size())

    def is_end(self, token: int) -> bool:
        """Return whether a token ends a completion."""
        return token in self._eos

    def beginnings(self, text: str) -> npt.NDArray[np.int64]:
        """Return every token that an ASCII text can begin with, however it is tokenized; at least one."""
        names = [text[:length].replace(" ", "Ġ") for length in range(1, len(text) + 1)]  # as byte-level BPE spells it
        found = [self._tokenizer.token_to_id(name) for name in names]
        return np.array(sorted({self.encode(text)[0], *(token for token in found if token is not None)}))

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _token(self, token: str) -> int:
        index = self._tokenizer.token_to_id(token)
        if index is None:
            raise BundleError(f"{self._file} has no token {token!r}, which the policy needs; export the bundle again")
        return int(index)


def text_positions(start: int, count: int) -> npt.NDArray[np.int64]:
    """Return int64 [3, 1, count]: time, row and column of text tokens."""
    return np.tile(np.arange(start, start + count, dtype=np.int64), (3, 1, 1))


def image_positions(start: int, grid: int) -> npt.NDArray[np.int64]:
    """Return int64 [3, 1, grid * grid]: time, row and column of an image's tokens, row by row."""
    rows, columns = np.divmod(np.arange(grid * grid, dtype=np.int64), grid)
    return np.stack([np.zeros_like(rows), rows, columns])[:, None] + start
