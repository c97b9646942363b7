"""Writes completions greedily, freely or with the answer's form forced.

The model is not asked for what the form dictates. After the rationale, and between the eight numbers, the next tokens
are known: they run together with the token before them, in one call. Within a number only digits and what ends the
number may win, a number that no digit can follow within the image ends without asking, and nothing runs after the last
one. So an answer can always be read, and it equals that of free decoding whenever free decoding keeps the form
(https://arxiv.org/abs/2307.09702 constrains with masks only, one token a call).

A generator writes each completion: it yields the tokens to run and is sent the logits after them. One loop can
therefore write one completion or several at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import numpy.typing as npt

from wise_edge.policy.answers.completion import split_completion
from wise_edge.runtimes.base import Finish, PolicyOutput, Request
from wise_edge.runtimes.policy.prompt import Prompt
from wise_edge.runtimes.policy.text import PolicyText

Logits = npt.NDArray[np.float32]
"""Of the last token that was run, [vocabulary]."""
Run = Callable[[Sequence[int]], Logits]
"""Runs the language model over tokens that follow those it holds."""
RunTogether = Callable[[Mapping[int, Sequence[int]]], Mapping[int, Logits]]
"""The same for several completions at once, each identified by its number."""

_THINK, _END_OF_THINK = "<think", "</think"
"""Both lack their last character, which a tokenizer may merge with the next one."""
_ANSWER_TAG = "<answer"
_ANSWER = f'{_ANSWER_TAG}>{{"bbox": ['
_BRIDGE = f"{_END_OF_THINK}>{_ANSWER}"
_AFTER_NUMBERS = (", ", ", ", ", ", '], "points_1": [', ", ", '], "points_2": [', ", ", "]}</answer>")
_LAST_OF_TAGS = {_END_OF_THINK[-1], _ANSWER_TAG[-1]}
_TAIL = 48  # last tokens of a completion, searched for the end of the rationale; the bridge has fewer
_MERGED = 16  # tokens; a word that a tokenizer merges with a tag's end takes fewer without it


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
        parts = split_completion(written)
        counts = text.count(parts, prompt, self.forced, self.steps if steps is None else steps)
        decode_ms = (perf_counter() - self.prefilled) * 1e3  # includes counting, which no other phase would
        return PolicyOutput(written, parts, self.finish, counts, (self.prefilled - start) * 1e3, decode_ms)


Steps = Generator[list[int], Logits, Written]
"""A completion that is being written: yields tokens to run and is sent the last one's logits."""


@dataclass(frozen=True)
class _Number:
    """The text after a number: its tokens, and the tokens that it can begin with."""

    tokens: list[int]
    ends: npt.NDArray[np.int64]


class Writer:
    """Writes completions of one policy.

    Args:
        text: the policy's tokens.
        largest: the largest coordinate.
    """

    def __init__(self, text: PolicyText, largest: int) -> None:
        self._text = text
        self._largest = largest
        self._digits = np.array([text.encode(str(digit))[0] for digit in range(10)])
        self._numbers = [_Number(text.encode(words), text.beginnings(words)) for words in _AFTER_NUMBERS]

    def write(self, run: Run, prompt: Prompt, request: Request) -> Written:
        """Write after a prompt.

        Args:
            run: the language model, which holds the prompt's prefix.
            prompt: the prompt; its template says whether there is a rationale.
            request: the query.

        Raises:
            QueryCancelledError: the query was cancelled; checked before each call of the model.
        """
        return self.write_together(lambda asked: {0: run(asked[0])}, [prompt], [request])[0]

    def write_together(self, run: RunTogether, prompts: Sequence[Prompt], requests: Sequence[Request]) -> list[Written]:
        """Write after several prompts with one prefix at once, each as in `write`."""
        writing = [self._steps(prompt, request) for prompt, request in zip(prompts, requests, strict=True)]
        asked = {place: next(steps) for place, steps in enumerate(writing)}
        done: dict[int, Written] = {}
        report = _Reporter(self._text, requests, prompts)
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

    def _steps(self, prompt: Prompt, request: Request) -> Steps:
        limit = self._text.token_limit(prompt)
        if not request.decoding.forced:
            return self._write_freely(prompt, limit)
        return _Forced(self, self._text).write(prompt, limit, request.decoding.max_rationale_tokens)

    def _write_freely(self, prompt: Prompt, limit: int) -> Steps:
        logits = yield prompt.suffix
        prefilled = perf_counter()
        tokens: list[int] = []
        steps = 0
        while (finish := self._text.accept(tokens, int(logits.argmax()), prompt, limit)) is None:
            logits = yield tokens[-1:]
            steps += 1
        return Written(tokens, finish, 0, steps, prefilled)


class _Reporter:
    """Reports the text of a single completion as it grows, if the request asks for it."""

    def __init__(self, text: PolicyText, requests: Sequence[Request], prompts: Sequence[Prompt]) -> None:
        self._text = text
        self._on_text = requests[0].on_text if len(requests) == 1 else None
        self._prompts = prompts
        self._tokens: list[int] = []

    def __call__(self, asked: Mapping[int, Sequence[int]]) -> None:
        if self._on_text is None:
            return
        self._tokens += asked[0]
        prompt = self._prompts[0]
        self._on_text(self._text.completion(prompt, self._tokens[len(prompt.suffix) :]))


class _Forced:
    """One completion with its form forced."""

    def __init__(self, writer: Writer, text: PolicyText) -> None:
        self._writer = writer
        self._text = text
        self._prefill = ""
        self._tokens: list[int] = []
        self._pending: list[int] = []  # written but not yet run
        self._asked = 0  # tokens that the model chose
        self._steps = 0

    def write(self, prompt: Prompt, limit: int, most: int | None) -> Steps:
        self._prefill = prompt.template.prefill
        thinks = prompt.template.rationale and _END_OF_THINK not in self._prefill
        self._force(self._text.encode(_missing(self._prefill, _THINK if thinks else _ANSWER)))
        logits = yield [*prompt.suffix, *self._pending]
        self._pending = []
        prefilled = perf_counter()
        if thinks:
            room = limit - len(self._tokens) - self._text.room_for_answer
            logits = yield from self._think(logits, room, most)
        for place, number in enumerate(self._writer._numbers):
            yield from self._write_number(logits, number)
            self._force(number.tokens)
            if place + 1 < len(self._writer._numbers):
                logits = yield from self._run()
        return Written(self._tokens, "answer", len(self._tokens) - self._asked, self._steps, prefilled)

    def _think(self, logits: Logits, room: int, most: int | None) -> Generator[list[int], Logits, Logits]:
        """Write until the model closes its rationale, or close it; return the logits for the first number."""
        before = len(self._tokens)
        while True:
            token = int(logits.argmax())
            over = self._must_close(token, len(self._tokens) - before, room, most)
            if not over:
                self._ask(token)
            rest = None
            if over or not _LAST_OF_TAGS.isdisjoint(self._text.piece(token)):
                rest = _rest_of_bridge(self._text.decode(self._tokens[-_TAIL:]), close=over)
            if rest is not None:
                self._force(self._text.encode(rest))
                return (yield from self._run())
            logits = yield from self._run()

    def _must_close(self, token: int, written: int, room: int, most: int | None) -> bool:
        """Return whether a rationale of `written` tokens must end before a token, for want of room or by its limit.

        The limit `most` is on what `PolicyText.count` will report, the tokens of the rationale's own text. Those that
        were written are another number: a tokenizer may merge a tag's end with the first or last word.
        """
        if self._text.is_end(token) or written >= room:
            return True
        if most is None or written + _MERGED < most:
            return False
        text = self._prefill + self._text.decode([*self._tokens, token])
        rationale = split_completion(text[: len(text) - _begun_end(text)]).rationale
        return len(self._text.encode(rationale or "")) > most

    def _write_number(self, logits: Logits, number: _Number) -> Generator[list[int], Logits, None]:
        """Write digits until one of `number.ends` wins or no digit can follow."""
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


def answer_pattern(largest: int, *, rationale: bool) -> str:
    """Return a regular expression for completions that keep the form, for runtimes that accept one.

    Args:
        largest: the largest coordinate.
        rationale: whether it precedes the answer.
    """
    number = f"(0|[1-9][0-9]{{0,{len(str(largest)) - 1}}})"
    form = _plain(_ANSWER) + "".join(number + _plain(words) for words in _AFTER_NUMBERS)
    return f"{_THINK}>[^<]*{_END_OF_THINK}>{form}" if rationale else form


def _missing(prefill: str, opening: str) -> str:
    """Return what must follow a prefill so that a rationale or an answer has begun."""
    if opening == _THINK and _THINK in prefill:
        return ""
    begun = next(n for n in range(len(opening), -1, -1) if prefill.endswith(opening[:n]))
    return opening[begun:]


def _plain(text: str) -> str:
    return re.sub(r"([\\^$.|?*+()\[\]{}])", r"\\\1", text)


def _rest_of_bridge(tail: str, *, close: bool) -> str | None:
    """Return the missing text between a rationale and the first number.

    Args:
        tail: the completion's last characters.
        close: end the rationale here in any case.

    Returns:
        None if the rationale continues; otherwise the bridge or the rest of it.
    """
    start = tail.rfind(_END_OF_THINK)
    if start >= 0:
        written = tail[start:]
        return _BRIDGE.removeprefix(written) if _BRIDGE.startswith(written) else f">{_ANSWER}"
    begun = tail.rfind(_ANSWER_TAG)
    if begun >= 0 and _ANSWER.startswith(tail[begun:]):  # answered without closing the rationale, which can be read too
        return _ANSWER.removeprefix(tail[begun:])
    if not close:
        return None
    if tail.endswith(_THINK):
        return f">{_BRIDGE}"
    return _BRIDGE[_begun_end(tail) :]


def _begun_end(text: str) -> int:
    """Return how many characters of the rationale's end a text ends with."""
    return next(n for n in range(len(_END_OF_THINK), -1, -1) if text.endswith(_END_OF_THINK[:n]))
