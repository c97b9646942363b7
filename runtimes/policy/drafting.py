"""Running a language model over a draft of its completion, many tokens in one call.

A draft is a likely completion: that of the same query on the last frame of a video. After every token of it the model
says what it would have written; as long as that is the draft's next token, nothing else has to be run
(https://arxiv.org/abs/2211.17192, section 2, for greedy decoding and a draft that costs nothing). The completion equals
the one without a draft, except for the order in which sums over several tokens are rounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from wise_edge.policy.picture import Grid
from wise_edge.runtimes.policy.prompt import common_length
from wise_edge.runtimes.policy.written import Logits

_QUERIES = 16
Asked = tuple[str, str, Grid]
"""A query, its variant, and the grid of the picture, whose pixels an answer may count."""
RunRows = Callable[[Sequence[int], int, int], Logits]
"""Runs tokens (first argument) from a position on (second), discarding what followed it, and returns the last rows of
logits (third: how many): float32 [rows, vocabulary]."""


class DraftedRun:
    """Runs tokens after a prompt's prefix, together with the part of a draft that follows them.

    Args:
        run_rows: the language model.
        position: of the first token after the prefix.
        suffix: number of tokens of the first call that belong to the prompt.
        draft: the expected tokens of the completion, from the first on; may be empty.
        most: tokens of the draft that one call may check, at least one; each has logits of its own.

    Attributes:
        calls: number of runs of the model.
    """

    def __init__(
        self, run_rows: RunRows, position: int, suffix: int, draft: Sequence[int] = (), most: int = 128
    ) -> None:
        self._run_rows = run_rows
        self._position = position
        self._suffix = suffix  # 0 after the first call
        self._ahead = list(draft)
        self._rows: Logits = np.empty((0, 0), np.float32)  # after each of the first tokens of `_ahead`, which were run
        self._most = most
        self.calls = 0

    def __call__(self, tokens: Sequence[int]) -> Logits:
        """Return the logits after `tokens`, which follow those of the last call."""
        known = common_length(tokens, self._ahead[: len(self._rows)])
        if known == len(tokens):
            logits: Logits = self._rows[known - 1]
            self._ahead, self._rows = self._ahead[known:], self._rows[known:]
        else:
            written = list(tokens[self._suffix :])
            holds = self._ahead[: len(written)] == written
            self._ahead = self._ahead[len(written) :] if holds else []
            logits = self._run(tokens[known:], self._position + known)
        self._suffix = 0
        self._position += len(tokens)
        return logits

    def _run(self, tokens: Sequence[int], position: int) -> Logits:
        """Run tokens and the draft's next ones; return the logits after the former."""
        self.calls += 1
        draft = self._ahead[: self._most]
        rows = self._run_rows([*tokens, *draft], position, 1 + len(draft))
        self._rows = rows[1:]
        first: Logits = rows[0]
        return first


class Drafts:
    """The last completion of each recent query, as a draft of its next one."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Asked, tuple[str, bool]] = OrderedDict()

    def find(self, asked: Asked) -> str:
        """Return a query's last completion; "" if it differed much from the one before: a bad draft only costs."""
        text, alike = self._kept.get(asked, ("", False))
        return text if alike else ""

    def keep(self, asked: Asked, text: str) -> None:
        """Replace a query's last completion."""
        before, _ = self._kept.get(asked, ("", True))
        alike = not before or common_length(before, text) >= len(text) / 2
        self._kept[asked] = text, alike
        self._kept.move_to_end(asked)
        while len(self._kept) > _QUERIES:
            self._kept.popitem(last=False)
