"""Writing a completion greedily, freely or with the answer's form forced.

What the form dictates is not asked of the model. After the rationale, and between the eight numbers, the next tokens
are known: they are run together with the token before them, in one call. Within a number only digits and what ends the
number may win, a number that no digit can follow within the image ends without asking, and after the last one
nothing is run. So an answer always reads, and it is the one that free decoding gives wherever that one keeps the form
(https://arxiv.org/abs/2307.09702 constrains by masks alone, one token a call).

A completion is written by a generator, which gives the tokens to run and is sent the logits behind them: so one loop
writes one completion, and another several at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import numpy.typing as npt

from wise_edge.policy.answer import split_completion
from wise_edge.runtimes.base import Finish, PolicyOutput, Request
from wise_edge.runtimes.policy.text import PolicyText

Logits = npt.NDArray[np.float32]
"""Of the last token that was run, [vocabulary]."""
Run = Callable[[Sequence[int]], Logits]
"""Runs the language model over tokens behind those that it holds."""
RunTogether = Callable[[Mapping[int, Sequence[int]]], Mapping[int, Logits]]
"""The same for several completions at once, each known by its number."""

_THINK, _END_OF_THINK = "<think", "</think"
"""Both without their last character, which a tokenizer may join with the next one."""
_ANSWER_TAG = "<answer"
_ANSWER = f'{_ANSWER_TAG}>{{"bbox": ['
_BRIDGE = f"{_END_OF_THINK}>{_ANSWER}"
_AFTER_NUMBERS = (", ", ", ", ", ", '], "points_1": [', ", ", '], "points_2": [', ", ", "]}</answer>")
_LAST_OF_TAGS = {_END_OF_THINK[-1], _ANSWER_TAG[-1]}
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

    def output(
        self, text: PolicyText, suffix: Sequence[int], start: float, *, steps: int | None = None
    ) -> PolicyOutput:
        """Return the result of a query that began at the clock reading `start`.

        Args:
            text: the policy's tokens.
            suffix: the prompt behind its prefix.
            start: clock reading in seconds.
            steps: runs of the language model behind the prompt, where a draft made them fewer.
        """
        written = text.decode(self.tokens)
        parts = split_completion(written)
        counts = text.count(parts, suffix, self.forced, self.steps if steps is None else steps)
        decode_ms = (perf_counter() - self.prefilled) * 1e3  # with counting, or no phase would hold it
        return PolicyOutput(written, parts, self.finish, counts, (self.prefilled - start) * 1e3, decode_ms)


Steps = Generator[list[int], Logits, Written]
"""A completion that is being written: gives tokens to run and takes the last one's logits."""


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

    def write(self, run: Run, suffix: list[int], request: Request) -> Written:
        """Write behind a prompt.

        Args:
            run: the language model, which holds the prompt's prefix.
            suffix: the rest of the prompt.
            request: the query; its variant "answer" has no rationale.

        Raises:
            QueryCancelledError: before a call of the model, where the query was cancelled.
        """
        return self.write_together(lambda asked: {0: run(asked[0])}, [suffix], [request])[0]

    def write_together(
        self, run: RunTogether, suffixes: Sequence[list[int]], requests: Sequence[Request]
    ) -> list[Written]:
        """Write behind several prompts of one prefix at once, each as `write` does; arguments likewise."""
        writing = [self._steps(suffix, request) for suffix, request in zip(suffixes, requests, strict=True)]
        asked = {place: next(steps) for place, steps in enumerate(writing)}
        done: dict[int, Written] = {}
        report = _Reporter(self._text, requests, suffixes)
        while asked:
            for request in requests:
                request.check_cancelled()
            report(asked)
            found, asked = run(asked), {}
            for place, logits in found.items():
                try:
                    asked[place] = writing[place].send(logits)
                except StopIteration as end:
                    done[place] = end.value
        return [done[place] for place in range(len(writing))]

    def _steps(self, suffix: list[int], request: Request) -> Steps:
        limit = self._text.token_limit(suffix)
        if not request.decoding.forced:
            return self._write_freely(suffix, limit)
        return _Forced(self, self._text).write(suffix, request.variant, limit, request.decoding.max_rationale_tokens)

    def _write_freely(self, suffix: list[int], limit: int) -> Steps:
        logits = yield suffix
        prefilled = perf_counter()
        tokens: list[int] = []
        steps = 0
        while (finish := self._text.accept(tokens, int(logits.argmax()), limit)) is None:
            logits = yield tokens[-1:]
            steps += 1
        return Written(tokens, finish, 0, steps, prefilled)


class _Reporter:
    """Tells what a single completion has come to, where somebody wants to know."""

    def __init__(self, text: PolicyText, requests: Sequence[Request], suffixes: Sequence[list[int]]) -> None:
        self._text = text
        self._take = requests[0].on_text if len(requests) == 1 else None
        self._prompt = len(suffixes[0]) if suffixes else 0
        self._tokens: list[int] = []

    def __call__(self, asked: Mapping[int, Sequence[int]]) -> None:
        if self._take is None:
            return
        self._tokens += asked[0]
        self._take(self._text.decode(self._tokens[self._prompt :]))


class _Forced:
    """One completion with its form forced."""

    def __init__(self, writer: Writer, text: PolicyText) -> None:
        self._writer = writer
        self._text = text
        self._tokens: list[int] = []
        self._pending: list[int] = []  # written and not yet run
        self._asked = 0  # tokens that the model chose
        self._steps = 0

    def write(self, suffix: list[int], variant: str, limit: int, most: int | None) -> Steps:
        thinks = variant != _WITHOUT_RATIONALE
        self._force(self._writer._think if thinks else self._writer._answer)
        logits = yield [*suffix, *self._pending]
        self._pending = []
        prefilled = perf_counter()
        if thinks:
            room = limit - len(self._tokens) - self._text.room_for_answer
            logits = yield from self._think(logits, room if most is None else min(most, room))
        for place, number in enumerate(self._writer._numbers):
            yield from self._write_number(logits, number)
            self._force(number.tokens)
            if place + 1 < len(self._writer._numbers):
                logits = yield from self._run()
        return Written(self._tokens, "answer", len(self._tokens) - self._asked, self._steps, prefilled)

    def _think(self, logits: Logits, most: int) -> Generator[list[int], Logits, Logits]:
        """Let the model write until it closes its rationale, or close it; return the logits of the first number."""
        before = len(self._tokens)
        while True:
            token = int(logits.argmax())
            over = self._text.is_end(token) or len(self._tokens) - before >= most
            if not over:
                self._ask(token)
            rest = None
            if over or not _LAST_OF_TAGS.isdisjoint(self._text.piece(token)):
                rest = _rest_of_bridge(self._text.decode(self._tokens[-_TAIL:]), close=over)
            if rest is not None:
                self._force(self._text.encode(rest))
                return (yield from self._run())
            logits = yield from self._run()

    def _write_number(self, logits: Logits, number: _Number) -> Generator[list[int], Logits, None]:
        """Write digits until one of `number.ends` wins, or no digit can follow."""
        digits, largest = self._writer._digits, self._writer._largest
        value = int(logits[digits].argmax())
        self._ask(int(digits[value]))
        while 0 < value * 10 <= largest:
            logits = yield from self._run()
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

    def _run(self) -> Generator[list[int], Logits, Logits]:
        logits = yield self._pending
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
