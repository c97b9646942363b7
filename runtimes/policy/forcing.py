"""Writes a completion whose answer keeps its form: the model is asked for what the form leaves open, and no more.

What the form dictates is written as the tokenizer writes the whole text, since that is what the model was trained on: a
quote before a label, or the end of an object, may be one token with what follows it. Such tokens are left to the model,
which may choose any that the form allows.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from wise_edge.policy.answers.completion import split_completion
from wise_edge.policy.answers.course import Course, Way, course_of
from wise_edge.policy.spec import PolicySpec
from wise_edge.runtimes.base import Decoding, Finish
from wise_edge.runtimes.policy.prompt import Prompt, common_length
from wise_edge.runtimes.policy.text import MAX_LABEL_TOKENS, MAX_NEW_TOKENS, PolicyText
from wise_edge.runtimes.policy.written import Logits, Steps, Written

_THINK, _END_OF_THINK = "<think", "</think"
"""Both lack their last character, which a tokenizer may merge with the next one, unless the whole tag is a token."""
_TAIL = 128  # last tokens of a completion, searched for the end of the rationale; a form's `before` has at most 100
_MERGED = 16  # tokens; a word that a tokenizer merges with a tag's end takes fewer without it
_TRIED = 512  # best tokens that a label tries, before those of one character: a vocabulary takes seconds to try
_LABEL = re.compile(r'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*')
_BEGUN_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?")


@dataclass(frozen=True)
class _Option:
    """A text that may come next, its tokens, and the way that it ends."""

    text: str
    tokens: list[int]
    way: Way


class FormTokens:
    """The tokens of a policy's form.

    Args:
        text: the policy's tokens.
        spec: the policy.
    """

    def __init__(self, text: PolicyText, spec: PolicySpec) -> None:
        self.text = text
        self.spec = spec
        self.course: Course = course_of(spec.form)
        self.characters = np.array([text.encode(chr(code))[0] for code in range(32, 127)])
        self.digits = np.array([text.encode(str(digit))[0] for digit in range(10)])
        self.after = [[self.option(way.text, way) for way in ways] for ways in self.course.after]
        self.ends = [
            np.array(sorted({token for way in ways for token in text.beginnings(way.text)}))
            for ways in self.course.after
        ]
        self._loose = {
            way: self._count_loose(way) for ways in (self.course.opening, *self.course.after) for way in ways
        }

    def option(self, text: str, way: Way) -> _Option:
        """Return an option whose text begins anew."""
        return _Option(text, self.text.encode(text), way)

    def loose(self, way: Way) -> int:
        """Return how many of the last tokens before a value a tokenizer may merge with it, if it is a label."""
        return self._loose[way]

    def _count_loose(self, way: Way) -> int:
        if way.value is None or self.course.values[way.value] is not None:
            return 0
        return len(self.text.encode(way.text)) - len(self.text.settled(way.text))


class Forced:
    """One completion with its form forced.

    Args:
        form: its form.
        prompt: what it follows.
        decoding: its limits.
    """

    def __init__(self, form: FormTokens, prompt: Prompt, decoding: Decoding) -> None:
        self._form = form
        self._text = form.text
        self._prompt = prompt
        self._decoding = decoding
        self._limit = self._text.token_limit(prompt)
        self._tokens: list[int] = []
        self._pending = list(prompt.suffix)  # not yet run
        self._due = ""  # dictated, but not written, since the tokenizer may merge it with what the model writes next
        self._objects = 0
        self._asked = 0  # tokens that the model chose
        self._runs = 0
        self._prefilled = 0.0
        self._finish: Finish = "answer"

    def write(self) -> Steps:
        """Write it."""
        template, form = self._prompt.template, self._form
        if template.rationale and _END_OF_THINK not in template.prefill:
            options = yield from self._think()
        else:
            options = self._begun_answer(template.prefill)
        frame = form.spec.frame_of_grid(self._prompt.prefix.grid)
        way = yield from self._choose(options)
        while (value := way.value) is not None:
            largest = form.course.largest(value, frame)
            if largest is None:
                way = yield from self._write_label(form.after[value])
            else:
                way = yield from self._write_number(largest, value)
        return Written(self._tokens, self._finish, len(self._tokens) - self._asked, self._runs - 1, self._prefilled)

    def _think(self) -> Generator[list[int], Logits, list[_Option]]:
        """Write until the model closes its rationale, or close it; return what then begins the answer."""
        prefill = self._prompt.template.prefill
        whole = self._text.encode(f"{_THINK}>")
        tag = f"{_THINK}>" if len(whole) == 1 else _THINK  # Qwen3's and Qwen3.5's tokenizers have it as a token
        self._force(self._text.encode("" if _THINK in prefill else tag[_begun(prefill, _THINK) :]))
        room = (
            min(self._limit, MAX_NEW_TOKENS) - len(self._tokens) - self._text.room_for_answer(self._prompt.prefix.grid)
        )
        last_of_tags = {_END_OF_THINK[-1], *self._form.spec.form.before[-2:-1]}
        before = len(self._tokens)
        while True:
            logits = yield from self._run()
            token = int(logits.argmax())
            over = self._must_close(token, len(self._tokens) - before, room)
            if not over:
                self._ask(token)
            if over or not last_of_tags.isdisjoint(self._text.piece(token)):
                rest = self._rest_of_bridge(self._text.decode(self._tokens[-_TAIL:]), close=over)
                if rest:
                    return rest

    def _must_close(self, token: int, written: int, room: int) -> bool:
        """Return whether a rationale of `written` tokens must end before a token, for want of room or by its limit.

        The limit is on what `PolicyText.count` will report, the tokens of the rationale's own text. Those that were
        written are another number: a tokenizer may merge a tag's end with the first or last word.
        """
        if self._text.is_end(token) or written >= room:
            return True
        most = self._decoding.max_rationale_tokens
        if most is None or written + _MERGED < most:
            return False
        text = self._prompt.template.prefill + self._text.decode([*self._tokens, token])
        rationale = split_completion(text[: len(text) - _begun(text, _END_OF_THINK)]).rationale
        return len(self._text.encode(rationale or "")) > most

    def _rest_of_bridge(self, tail: str, *, close: bool) -> list[_Option]:
        """Return the missing texts between a rationale and the answer's first value; none if the rationale continues.

        Args:
            tail: the completion's last characters.
            close: end the rationale here in any case.
        """
        start = tail.rfind(_END_OF_THINK)
        if start >= 0:
            return self._behind(tail[start:], f"{_END_OF_THINK}>") or self._options(">")
        mark = self._form.spec.form.before[:-1]
        begun = tail.rfind(mark) if mark else -1
        if begun >= 0 and (rest := self._behind(tail[begun:], "")):
            return rest  # answered without closing the rationale, which can be read too
        if not close:
            return []
        if tail.endswith(_THINK):
            return self._options(f">{_END_OF_THINK}>")
        return self._options(f"{_END_OF_THINK}>"[_begun(tail, _END_OF_THINK) :])

    def _begun_answer(self, prefill: str) -> list[_Option]:
        """Return the missing texts between a prefill and the answer's first value."""
        texts = [way.text for way in self._form.course.opening]
        begun = max(_begun(prefill, text) for text in texts)
        return self._behind(prefill[len(prefill) - begun :], "")

    def _options(self, before: str) -> list[_Option]:
        """Return the ways into an answer behind a text."""
        return [self._form.option(before + way.text, way) for way in self._form.course.opening]

    def _behind(self, written: str, before: str) -> list[_Option]:
        """Return the rest of those of them that begin with what is written."""
        whole = ((before + way.text, way) for way in self._form.course.opening)
        return [self._form.option(text[len(written) :], way) for text, way in whole if text.startswith(written)]

    def _write_number(self, largest: int, value: int) -> Generator[list[int], Logits, Way]:
        """Write digits until a text that follows the number wins or no digit can follow; write that text."""
        digits, ends, options = self._form.digits, self._form.ends[value], self._form.after[value]
        logits = yield from self._run()
        number = int(logits[digits].argmax())
        self._ask(int(digits[number]))
        while 0 < number * 10 <= largest:
            logits = yield from self._run()
            digit = int(logits[digits].argmax())
            if logits[ends].max() > logits[digits[digit]]:
                return (yield from self._choose(options, logits))
            number = number * 10 + digit
            self._ask(int(digits[digit]))
        return (yield from self._choose(options))

    def _write_label(self, options: list[_Option]) -> Generator[list[int], Logits, Way]:
        """Write text of JSON until the model ends it, or end it; write what follows."""
        opening, start = self._due, len(self._tokens)
        while len(self._tokens) - start < MAX_LABEL_TOKENS:
            logits = yield from self._run()
            token, text, end = self._next_of_label(logits, self._tokens[start:], opening, options)
            kept = [option for option in options if option.text.startswith(end)]
            if self._is_refused(kept):
                options = [option for option in options if option not in kept]
                break
            self._ask(token)
            if end:
                written = self._tokens[start:]
                return (yield from self._choose([self._rest(written, text, end, option) for option in kept]))
        text = self._text.decode(self._tokens[start:])
        rest = opening[len(text) :] + _end_of_escape(text[len(opening) :])
        return (yield from self._choose([self._form.option(rest + option.text, option.way) for option in options]))

    def _next_of_label(
        self, logits: Logits, written: list[int], opening: str, options: list[_Option]
    ) -> tuple[int, str, str]:
        """Return the best token that may follow in a label, the text with it, and its part behind the label."""
        for token in self._likely(logits):
            if self._text.is_end(token) or self._text.is_added(token) or not self._text.piece(token):
                continue
            text = self._text.decode([*written, token])
            if opening.startswith(text):
                return token, text, ""
            rest = _behind_label(text[len(opening) :])
            if text.startswith(opening) and (
                _BEGUN_ESCAPE.fullmatch(rest) or any(option.text.startswith(rest) for option in options)
            ):
                return token, text, "" if rest.startswith("\\") else rest
        raise AssertionError("a character may always follow")

    def _likely(self, logits: Logits) -> Iterator[int]:
        """Yield the best token, the next best, and then the characters, each group in falling order."""
        yield int(logits.argmax())
        most = min(_TRIED, len(logits))
        best = np.argpartition(-logits, most - 1)[:most]
        for tokens in (best, self._form.characters):
            yield from tokens[np.argsort(-logits[tokens])].tolist()

    def _rest(self, written: list[int], text: str, end: str, option: _Option) -> _Option:
        """Return what is missing of an option that a label's text ends with the beginning of."""
        rest = option.text[len(end) :]
        whole = self._text.encode(text + rest)
        same = common_length(whole, written) == len(written)
        return _Option(rest, whole[len(written) :] if same else self._text.encode(rest), option.way)

    def _choose(self, options: list[_Option], logits: Logits | None = None) -> Generator[list[int], Logits, Way]:
        """Write one of several texts, the one that the model prefers where they part.

        Args:
            options: the texts.
            logits: of the last token; None if it was not run yet.
        """
        chosen = options
        while len(chosen) > 1:
            if logits is None:
                shared = min(common_length(options[0].tokens, option.tokens) for option in options)
                self._force(options[0].tokens[:shared])
                options = [self._behind_tokens(option, shared) for option in options]
                logits = yield from self._run()
            begin = [self._text.beginnings(option.text) for option in options]
            tokens = sorted({token for tokens in begin for token in tokens})
            token = tokens[int(logits[tokens].argmax())]
            chosen = [option for option, tokens in zip(options, begin, strict=True) if token in tokens]
            if len(chosen) > 1:
                self._ask(token)
                options = chosen = [self._behind_token(option, token) for option in options]
                logits = None
            else:
                self._asked += 1
        if self._is_refused(chosen):
            chosen = [option for option in options if option.way.value is None]
        return self._take(chosen[0])

    def _is_refused(self, chosen: list[_Option]) -> bool:
        """Return whether the model wants another object where no more may come, which the completion then tells."""
        if not self._objects or [option.way.value for option in chosen] != [0]:
            return False
        if self._objects >= self._decoding.max_objects:
            self._finish = "objects"
        elif len(self._tokens) + self._text.room_for_answer(self._prompt.prefix.grid) > self._limit:
            self._finish = "length"
        return self._finish != "answer"

    def _take(self, option: _Option) -> Way:
        loose = self._form.loose(option.way)
        written = option.tokens[: len(option.tokens) - loose]
        self._force(written)
        self._due = self._text.decode(option.tokens[len(written) :])
        self._objects += option.way.value == 0
        return option.way

    def _behind_tokens(self, option: _Option, count: int) -> _Option:
        text = option.text[len(self._text.decode(option.tokens[:count])) :]
        return _Option(text, option.tokens[count:], option.way)

    def _behind_token(self, option: _Option, token: int) -> _Option:
        if option.tokens[0] == token:
            return self._behind_tokens(option, 1)
        return self._form.option(option.text[len(self._text.piece(token)) :], option.way)

    def _ask(self, token: int) -> None:
        self._force([token])
        self._asked += 1

    def _force(self, tokens: list[int]) -> None:
        self._tokens += tokens
        self._pending += tokens

    def _run(self) -> Generator[list[int], Logits, Logits]:
        logits = yield self._pending
        self._pending = []
        self._runs += 1
        self._prefilled = self._prefilled or perf_counter()
        return logits


def _behind_label(body: str) -> str:
    """Return what follows the longest beginning of a text that is content of a JSON string."""
    content = _LABEL.match(body)
    return body[content.end() :] if content else body


def _end_of_escape(body: str) -> str:
    """Return what completes an escape that a label ends with; "" if it ends with none."""
    begun = _behind_label(body)
    if len(begun) == 1:
        return begun  # a backslash
    return "0" * (len("\\u0000") - len(begun)) if begun else ""


def _begun(text: str, opening: str) -> int:
    """Return how many characters of an opening a text ends with."""
    return next(n for n in range(len(opening), -1, -1) if text.endswith(opening[:n]))
