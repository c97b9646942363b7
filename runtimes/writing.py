"""Writing a completion greedily, freely or with the answer's form forced.

What the form dictates is not asked of the model. After the rationale, and between the eight numbers, the next tokens
are known: they are run together with the token before them, in one call. Within a number only digits and what ends the
number may win, a number that no digit can follow within the picture ends without asking, and after the last one
nothing is run. So an answer always reads, and it is the one that free decoding gives wherever that one keeps the form
(https://arxiv.org/abs/2307.09702 constrains by masks alone, one token a call).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import numpy.typing as npt

from wise_edge.runtimes.base import Decoding, Finish, PolicyOutput
from wise_edge.runtimes.policy_text import PolicyText

Run = Callable[[Sequence[int]], npt.NDArray[np.float32]]
"""Runs the language model over tokens behind those that it holds; gives the last one's logits, float32 [vocabulary]."""

_THINK, _END_OF_THINK = "<think", "</think"
"""Both without their last character, which a tokenizer may join with the next one."""
_ANSWER_TAG = "<answer"
_ANSWER = f'{_ANSWER_TAG}>{{"bbox": ['
_BRIDGE = f"{_END_OF_THINK}>{_ANSWER}"
_AFTER_NUMBERS = (", ", ", ", ", ", '], "points_1": [', ", ", '], "points_2": [', ", ", "]}</answer>")
_TAIL = 48  # tokens of a completion in which the end of the rationale is looked for; the bridge has fewer
_WITHOUT_RATIONALE = "answer"


@dataclass(frozen=True)
class Written:
    """A completion and what it took.

    Attributes:
        tokens: the completion.
        finish: why it ended.
        forced: how many of the tokens the form gave.
        steps: runs of the language model behind the prompt.
        prefilled: clock reading when the prompt had been run.
    """

    tokens: list[int]
    finish: Finish
    forced: int
    steps: int
    prefilled: float

    def output(self, text: PolicyText, suffix: Sequence[int], start: float) -> PolicyOutput:
        """Return the result of a query that began at the clock reading `start`."""
        words = text.decode(self.tokens)
        decode_ms = (perf_counter() - self.prefilled) * 1e3
        counts = text.count(words, suffix, self.forced, self.steps)
        return PolicyOutput(words, self.finish, counts, (self.prefilled - start) * 1e3, decode_ms)


@dataclass(frozen=True)
class _Number:
    """What follows a number: its tokens, and the tokens that can begin it."""

    tokens: list[int]
    ends: npt.NDArray[np.int64]


class Writer:
    """Writes completions of one policy.

    Args:
        text: the policy's tokens.
        input_size: side of the resized square in pixels: the largest coordinate.
    """

    def __init__(self, text: PolicyText, input_size: int) -> None:
        self._text = text
        self._largest = input_size
        self._think = text.encode(_THINK)
        self._answer = text.encode(_ANSWER)
        self._digits = np.array([text.encode(str(digit))[0] for digit in range(10)])
        self._numbers = [_Number(text.encode(words), text.beginnings(words)) for words in _AFTER_NUMBERS]

    def write(self, run: Run, suffix: list[int], variant: str, decoding: Decoding) -> Written:
        """Write behind a prompt.

        Args:
            run: the language model, which holds the prompt's prefix.
            suffix: the rest of the prompt.
            variant: the prompt variant; "answer" has no rationale.
            decoding: how.
        """
        limit = self._text.token_limit(suffix)
        if not decoding.forced:
            return self._write_freely(run, suffix, limit)
        return _Forced(self, self._text, run).write(suffix, variant, limit, decoding.max_rationale_tokens)

    def _write_freely(self, run: Run, suffix: list[int], limit: int) -> Written:
        token = int(run(suffix).argmax())
        prefilled = perf_counter()
        tokens: list[int] = []
        steps = 0
        while (finish := self._text.accept(tokens, token, limit)) is None:
            token = int(run([token]).argmax())
            steps += 1
        return Written(tokens, finish, 0, steps, prefilled)


class _Forced:
    """One completion with its form forced."""

    def __init__(self, writer: Writer, text: PolicyText, run: Run) -> None:
        self._writer = writer
        self._text = text
        self._model = run
        self._tokens: list[int] = []
        self._pending: list[int] = []  # written and not yet run
        self._asked = 0  # tokens that the model chose
        self._steps = 0

    def write(self, suffix: list[int], variant: str, limit: int, most: int | None) -> Written:
        thinks = variant != _WITHOUT_RATIONALE
        self._force(self._writer._think if thinks else self._writer._answer)
        logits = self._model([*suffix, *self._pending])
        self._pending = []
        prefilled = perf_counter()
        if thinks:
            room = limit - len(self._tokens) - self._text.room_for_answer
            logits = self._think(logits, room if most is None else min(most, room))
        for place, number in enumerate(self._writer._numbers):
            self._write_number(logits, number)
            self._force(number.tokens)
            if place + 1 < len(self._writer._numbers):
                logits = self._run()
        return Written(self._tokens, "answer", len(self._tokens) - self._asked, self._steps, prefilled)

    def _think(self, logits: npt.NDArray[np.float32], most: int) -> npt.NDArray[np.float32]:
        """Let the model write until it closes its rationale, or close it; return the logits of the first number."""
        before = len(self._tokens)
        while True:
            token = int(logits.argmax())
            over = self._text.is_end(token) or len(self._tokens) - before >= most
            if not over:
                self._ask(token)
            rest = _rest_of_bridge(self._text.decode(self._tokens[-_TAIL:]), close=over)
            if rest is not None:
                self._force(self._text.encode(rest))
                return self._run()
            logits = self._run()

    def _write_number(self, logits: npt.NDArray[np.float32], number: _Number) -> None:
        """Write digits until one of `number.ends` wins, or no digit can follow."""
        digits, largest = self._writer._digits, self._writer._largest
        value = int(logits[digits].argmax())
        self._ask(int(digits[value]))
        while 0 < value * 10 <= largest:
            logits = self._run()
            digit = int(logits[digits].argmax())
            if logits[number.ends].max() > logits[digits[digit]]:
                return
            value = value * 10 + digit
            self._ask(int(digits[digit]))

    def _ask(self, token: int) -> None:
        self._tokens.append(token)
        self._pending.append(token)
        self._asked += 1

    def _force(self, tokens: list[int]) -> None:
        self._tokens += tokens
        self._pending += tokens

    def _run(self) -> npt.NDArray[np.float32]:
        logits = self._model(self._pending)
        self._pending = []
        self._steps += 1
        return logits


def answer_pattern(largest: int, variant: str) -> str:
    """Return a regular expression of the completions that keep the form, for runtimes that take one.

    Args:
        largest: the largest coordinate.
        variant: the prompt variant; "answer" has no rationale.
    """
    number = f"(0|[1-9][0-9]{{0,{len(str(largest)) - 1}}})"
    form = _plain(_ANSWER) + "".join(number + _plain(words) for words in _AFTER_NUMBERS)
    return form if variant == _WITHOUT_RATIONALE else f"{_THINK}>[^<]*{_END_OF_THINK}>{form}"


def _plain(text: str) -> str:
    return re.sub(r"([\\^$.|?*+()\[\]{}])", r"\\\1", text)


def _rest_of_bridge(tail: str, *, close: bool) -> str | None:
    """Return what is missing between a rationale and the first number.

    Args:
        tail: the completion's last characters.
        close: end the rationale here, wherever it is.

    Returns:
        None where the rationale goes on; the whole or the rest of the bridge otherwise.
    """
    start = tail.rfind(_END_OF_THINK)
    if start >= 0:
        written = tail[start:]
        return _BRIDGE.removeprefix(written) if _BRIDGE.startswith(written) else f">{_ANSWER}"
    begun = tail.rfind(_ANSWER_TAG)
    if begun >= 0 and _ANSWER.startswith(tail[begun:]):  # answered without closing the rationale, which reads as well
        return _ANSWER.removeprefix(tail[begun:])
    if not close:
        return None
    if tail.endswith(_THINK):
        return f">{_BRIDGE}"
    length = next(n for n in range(len(_END_OF_THINK), -1, -1) if tail.endswith(_END_OF_THINK[:n]))
    return _BRIDGE[length:]
