"""Prompt and completion of a policy in tokens, shared by all policy backends.

A prompt is tokenized as a whole. What no query changes is found by comparing the tokens of a few queries; a query that
a tokenizer merges with the words before it has a shorter beginning in common with the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wise_edge.errors import BundleError, UsageError
from wise_edge.native.loading import loading
from wise_edge.native.tokenizer import open_tokenizer
from wise_edge.policy.answers.answer import Answer, AnsweredObject, format_answer
from wise_edge.policy.answers.completion import Completion, split_completion
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.policy.picture import Grid
from wise_edge.policy.spec import LIST_TOKENS, PolicySpec
from wise_edge.runtimes.base import Finish
from wise_edge.runtimes.policy.prompt import Prefix, Prompt, common_length
from wise_edge.runtimes.results import TokenCounts

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_NEW_TOKENS = 512
"""Tokens that a completion may have; if its answer is a list, up to the first object."""
MAX_LABEL_TOKENS = 64
"""Tokens that a label may have; it names the object in a few words, or repeats the query."""
_SPARE = 8  # tokens; a form written in pieces may take a few more than in one piece
_EXAMPLES = ("the mug", "A mug", "3 mugs")
"""Queries that begin as most do; a tokenizer cuts before a letter, a capital and a digit in different ways."""
_EXAMPLE_LABELS = (*map(chr, range(32, 127)), "é", "3 mugs", "A mug", " mug")
"""Beginnings of a label, and the quote that ends one without a letter, for the same purpose."""


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
        self._rooms: dict[int, int] = {}
        with loading(file, "the policy's tokenizer", remedy, error=BundleError):
            self._measure_prompt()

    def _measure_prompt(self) -> None:
        """Find what is the same in every prompt."""
        spec = self._spec
        self._added = self._tokenizer.get_added_tokens_decoder().keys()
        self._eos = {self._token(token) for token in spec.eos_tokens}
        self._image_token = self._token(spec.image_token)
        self._constant: dict[str, tuple[tuple[int, ...], tuple[int, ...]] | None] = {}
        self._constant[spec.default_variant] = self._find_constant(spec.default_variant)

    def room_for_answer(self, grid: Grid) -> int:
        """Return the tokens, tags included, that an answer of one object without a rationale may take."""
        number = self._spec.frame_of_grid(grid).largest
        if number not in self._rooms:
            self._rooms[number] = self._measure_answer(number) + _SPARE
        return self._rooms[number]

    def _measure_answer(self, number: int) -> int:
        form, point = self._spec.form, (number, number)
        widest = AnsweredObject((*point, *point), (point,) * len(form.point_keys))
        text = format_answer(Answer((widest,)), form, AnswerFrame(point))
        label = 0 if form.label_key is None else MAX_LABEL_TOKENS
        return len(self.encode(f"<think></think>{form.before}{text}{form.after}")) + label

    def prefix(self, variant: str, grid: Grid) -> Prefix | None:
        """Return what every prompt of a variant begins with on an image of so many tokens.

        None if a query stands before the picture.

        Raises:
            UsageError: the variant is unknown.
        """
        if variant not in self._constant:
            self._constant[variant] = self._find_constant(variant)
        constant = self._constant[variant]
        return Prefix(constant[0], grid, constant[1]) if constant else None

    def prompt(self, query: str, variant: str, grid: Grid) -> Prompt:
        """Return the tokens of a prompt: those of its whole text, wherever its parts are cut.

        Args:
            query: normalized, see `wise_edge.policy.prompts.normalize_query`.
            variant: the prompt variant.
            grid: columns and rows of the image's tokens.

        Raises:
            UsageError: the variant is unknown, or the query leaves no room for an answer.
        """
        template = self._spec.prompts.template(variant)
        prefix = self.prefix(variant, grid)
        before, after = self._around_image(query, variant)
        # A tokenizer may merge the query with the words before it, and the picture's end is a token of its own.
        kept = common_length(after[:-1], prefix.after) if prefix else 1
        if prefix is None or kept < len(prefix.after):
            prefix = Prefix(before, grid, after[:kept])
        prompt = Prompt(prefix, list(after[kept:]), template)
        room, needed = self._spec.context_tokens - prompt.length, self.room_for_answer(grid)
        if room < needed:
            words = len(self.encode(query))
            if (most := words + room - needed) < 1:
                raise UsageError(f"the words of the variant {variant!r} leave no room for a query; shorten them")
            raise UsageError(f"the query takes {words} tokens, this policy has room for {most}; shorten it")
        return prompt

    def _find_constant(self, variant: str) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Return the tokens before and after the picture that queries do not change; None if they change the former."""
        (before, after), *others = (self._around_image(query, variant) for query in _EXAMPLES)
        if any(other != before for other, _ in others):
            return None
        return before, after[: min(common_length(after, other) for _, other in others)]

    def _around_image(self, query: str, variant: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        ids = self.encode(self._spec.prompts.render(query, variant, 1))
        place = ids.index(self._image_token)
        return tuple(ids[:place]), tuple(ids[place + 1 :])

    def token_limit(self, prompt: Prompt) -> int:
        """Return how many tokens may follow a prompt."""
        most = MAX_NEW_TOKENS + (LIST_TOKENS if self._spec.form.many else 0)
        return min(most, self._spec.context_tokens - prompt.length)

    def accept(self, completion: list[int], token: int, prompt: Prompt, limit: int) -> Finish | None:
        """Add a token to a completion unless it is an end token; return why writing ends, None if it continues."""
        if token in self._eos:
            return "end"
        completion.append(token)
        stops, after = prompt.template.stop, self._spec.form.after
        tail = self.decode(completion[-max(len(text.encode()) for text in (after, *stops)) :])  # of a byte or more each
        if after in tail and self.answer_end(prompt.template.prefill + self.decode(completion)) > 0:
            return "answer"
        if any(stop in tail for stop in stops):
            return "end"
        return "length" if len(completion) >= limit else None

    def completion(self, prompt: Prompt, tokens: Sequence[int]) -> str:
        """Return the text of a completion: the template's prefill and what was written, up to a stop text."""
        prefill, written = prompt.template.prefill, self.decode(tokens)
        if self.answer_end(prefill + written) < 0:
            for stop in prompt.template.stop:
                written = written.partition(stop)[0]
        return prefill + written

    def split(self, text: str) -> Completion:
        """Split a completion into its parts, as the policy's form has them."""
        return split_completion(text, self._spec.form)

    def answer_end(self, text: str) -> int:
        """Return the index behind the first answer in a completion; -1 if there is none, or it has no end."""
        form = self._spec.form
        start = text.find(form.before)
        end = -1 if start < 0 else text.find(form.after, start + len(form.before))
        return end + len(form.after) if end >= 0 else -1

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def piece(self, token: int) -> str:
        """Return the text of one token."""
        if token not in self._pieces:
            self._pieces[token] = self.decode([token])
        return self._pieces[token]

    def count(self, parts: Completion, prompt: Prompt, forced: int, decode_steps: int) -> TokenCounts:
        """Count the tokens of a prompt and of the completion's parts."""
        return TokenCounts(
            prompt=prompt.length,
            image=prompt.prefix.image_tokens,
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

    def beginnings(self, text: str) -> dict[int, int]:
        """Return every token that an ASCII text can begin with, however it is tokenized, and its length; one at least.

        A token of which the text is a beginning counts as well if it is the one that the tokenizer gives.
        """
        names = {length: _spell(text[:length]) for length in range(1, len(text) + 1)}
        found = {self._tokenizer.token_to_id(name): length for length, name in names.items()}
        first = self.encode(text)[0]
        return {first: len(self.piece(first))} | {token: length for token, length in found.items() if token is not None}

    def settled(self, text: str) -> list[int]:
        """Return the tokens of a text that precedes a label, without those that a tokenizer may merge with a label."""
        tokens = self.encode(text)
        return tokens[: min(common_length(tokens, self.encode(text + label)) for label in _EXAMPLE_LABELS)]

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def is_added(self, token: int) -> bool:
        """Return whether a token stands for more than its text: a mark of the chat, of a tool or of a picture."""
        return token in self._added

    def _token(self, token: str) -> int:
        index = self._tokenizer.token_to_id(token)
        if index is None:
            raise BundleError(f"{self._file} has no token {token!r}, which the policy needs; export the bundle again")
        return int(index)


def _spell(text: str) -> str:
    """Return a text as byte-level BPE spells it in its vocabulary: space and control characters have other ones."""
    return "".join(character if character > " " else chr(256 + ord(character)) for character in text)
