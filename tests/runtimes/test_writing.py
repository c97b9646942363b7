"""Forced decoding: what free decoding writes where that keeps the form, in fewer calls, and always an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from squares import format_answer, one_object, parse_answer
from wise_edge.bundle.store import load, resolve_bundle
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.errors import UsageError
from wise_edge.policy.answers.answer import Answer
from wise_edge.policy.answers.completion import split_completion
from wise_edge.runtimes.base import Decoding, Request
from wise_edge.runtimes.policy.prompt import Prompt
from wise_edge.runtimes.policy.text import PolicyText
from wise_edge.runtimes.policy.writing import Writer
from wise_edge.runtimes.session import Session

FORCED, FREE = Decoding(), Decoding(forced=False)
WISE_S = Request("the ring", "wise-s")
BUNDLE = load(resolve_bundle("embedded"))
SPEC = BUNDLE.manifest.policy
TEXT = PolicyText(BUNDLE.file("policy.tokenizer"), SPEC)
WRITER = Writer(TEXT, SPEC)
GRID = SPEC.image_grid(SPEC.picture_size((1, 1)))
PROMPT, ANSWER_ONLY = (TEXT.prompt("the red ring", variant, GRID) for variant in ("wise-s", "answer"))
VOCABULARY = 649
END = next(token for token in range(VOCABULARY) if TEXT.is_end(token))

COORDINATES = st.integers(0, SPEC.picture.side)
ANSWERS = st.builds(
    one_object, st.tuples(*[COORDINATES] * 4), st.tuples(st.tuples(*[COORDINATES] * 2), st.tuples(*[COORDINATES] * 2))
)
RATIONALES = st.text(st.sampled_from("The red ring, at 12! <>/ ü"), max_size=40).filter(lambda text: "</" not in text)


@dataclass
class Scripted:
    """A model that writes one text, token by token, and records how it is asked."""

    script: list[int]
    prompt: Prompt = PROMPT
    calls: list[list[int]] = field(default_factory=list)

    def __call__(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        self.calls.append(list(tokens))
        written = sum(map(len, self.calls)) - len(self.prompt.suffix)
        logits = np.zeros(VOCABULARY, np.float32)
        logits[self.script[written] if written < len(self.script) else END] = 1.0
        return logits


def completion(rationale: str, answer: Answer) -> str:
    return f"<think>{rationale}</think><answer>{format_answer(answer)}</answer>"


@given(RATIONALES, ANSWERS)
def test_a_text_in_form_is_written_as_it_is(rationale: str, answer: Answer) -> None:
    text = completion(rationale, answer)
    model = Scripted(TEXT.encode(text))

    written = WRITER.write(model, PROMPT, WISE_S)

    assert TEXT.decode(written.tokens) == text
    assert written.tokens == TEXT.encode(text)
    assert written.steps == len(model.calls) - 1


@pytest.mark.parametrize("rationale", ["", "The red ring, at 12!", " It is left", "1"])
def test_tags_that_are_tokens_are_written_as_such(tmp_path: Path, rationale: str) -> None:
    """Qwen3's and Qwen3.5's tokenizers have them; a policy never saw their letters in pieces."""
    tokenizer = Tokenizer.from_file(str(BUNDLE.file("policy.tokenizer")))
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in ("<think>", "</think>")])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    text = PolicyText(tmp_path / "tokenizer.json", SPEC)
    prompt = text.prompt("the red ring", "wise-s", GRID)
    expected = text.encode(completion(rationale, one_object((1, 2, 30, 112), ((4, 5), (6, 100)))))
    model = Scripted(expected, prompt)

    for decoding in (FORCED, FREE):
        model.calls.clear()
        assert Writer(text, SPEC).write(model, prompt, Request("", "wise-s", decoding)).tokens == expected
    assert text.piece(expected[0]) == "<think>"


@given(RATIONALES, ANSWERS)
def test_calls_are_few_and_nothing_is_run_twice(rationale: str, answer: Answer) -> None:
    text = completion(rationale, answer)
    model = Scripted(TEXT.encode(text))

    written = WRITER.write(model, PROMPT, WISE_S)

    digits = sum(character.isdigit() for character in format_answer(answer)) - 2  # not those of points_1 and points_2
    assert written.steps <= len(TEXT.encode(rationale)) + digits + 10
    assert written.forced >= 29
    run = [token for call in model.calls for token in call]
    assert run[: len(PROMPT.suffix)] == PROMPT.suffix
    behind = run[len(PROMPT.suffix) :]
    assert behind == written.tokens[: len(behind)]
    assert 3 <= len(written.tokens) - len(behind) <= 5  # the end of the answer, and a last digit that asks no more


def test_without_a_rationale_the_answer_begins_with_the_prompt() -> None:
    text = f"<answer>{format_answer(one_object((1, 2, 30, 112), ((4, 5), (6, 100))))}</answer>"
    model = Scripted(TEXT.encode(text), ANSWER_ONLY)

    written = WRITER.write(model, ANSWER_ONLY, Request("the ring", "answer"))

    assert TEXT.decode(written.tokens) == text
    assert model.calls[0] == [*ANSWER_ONLY.suffix, *TEXT.encode('<answer>{"bbox": [')]


@given(st.integers(0, 2**32 - 1), st.sampled_from([PROMPT, ANSWER_ONLY]), st.none() | st.integers(0, 30))
def test_any_model_gives_an_answer(seed: int, prompt: Prompt, most: int | None) -> None:
    rng = np.random.default_rng(seed)

    def noise(tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        return rng.standard_normal(VOCABULARY, np.float32)

    written = WRITER.write(noise, prompt, Request("the ring", "wise-s", Decoding(max_rationale_tokens=most)))

    text = TEXT.decode(written.tokens)
    parsed = parse_answer(text, SPEC.picture.side)
    assert written.finish == "answer"
    assert parsed.reason is None, text
    assert len(written.tokens) <= TEXT.token_limit(PROMPT)
    numbers = [int(word) for word in "".join(c if c.isdigit() else " " for c in text[text.rindex("bbox") :]).split()]
    assert len(numbers) == 10
    assert max(numbers) <= 10 * SPEC.picture.side


@pytest.mark.parametrize("most", [0, 1, 2, 3, 5, 40])
def test_a_rationale_is_closed_at_as_many_tokens_as_its_count_says(most: int) -> None:
    model = Scripted([*TEXT.encode("<think>" + "The red ring is red. " * 40), END])

    written = WRITER.write(model, PROMPT, Request("the ring", "wise-s", Decoding(max_rationale_tokens=most)))

    text = TEXT.decode(written.tokens)
    counted = written.output(TEXT, PROMPT, 0.0).tokens.rationale
    assert counted == (
        most if most != 1 else 0
    )  # "The" alone takes two tokens, though one with the tag's end before it
    assert text.startswith(f"<think>{split_completion(text).rationale}</think><answer>")


@given(RATIONALES, st.integers(0, 20))
def test_a_limit_cuts_longer_rationales_only(rationale: str, most: int) -> None:
    text = completion(rationale, one_object((1, 2, 30, 112), ((4, 5), (6, 100))))
    request = Request("the ring", "wise-s", Decoding(max_rationale_tokens=most))

    written = WRITER.write(Scripted(TEXT.encode(text)), PROMPT, request)

    counted = written.output(TEXT, PROMPT, 0.0).tokens.rationale
    assert counted <= most
    if len(TEXT.encode(rationale.strip())) + 3 <= most:  # a first byte of a character alone counts as three tokens
        assert TEXT.decode(written.tokens) == text


@pytest.mark.parametrize("end", ["The red ring.</", "The red ring.</th", "The red ring", ""])
def test_an_end_token_closes_the_rationale_wherever_it_is(end: str) -> None:
    model = Scripted([*TEXT.encode(f"<think>{end}"), END, END])

    text = TEXT.decode(WRITER.write(model, PROMPT, WISE_S).tokens)

    assert text.startswith(f"<think>{end.split('<')[0]}</think><answer>" + '{"bbox": [')


@pytest.mark.parametrize("begun", ["<answer", '<answer>{"', '<answer>{"bbox": ['])
def test_an_answer_within_the_rationale_is_the_answer(begun: str) -> None:
    rest = "80, 1, 99, 20" + '], "points_1": [90, 9], "points_2": [91, 8]}</answer>'
    script = TEXT.encode(f"<think>The red ring.{begun}")
    model = Scripted([*script, *TEXT.encode(('<answer>{"bbox": [' + rest).removeprefix(begun))])

    text = TEXT.decode(WRITER.write(model, PROMPT, WISE_S).tokens)

    assert text == '<think>The red ring.<answer>{"bbox": [' + rest
    answer = parse_answer(text, SPEC.picture.side).answer
    assert answer == one_object((80, 1, 99, 20), ((90, 9), (91, 8)))


@pytest.mark.parametrize("words", ["two <answers> of one", "the <answer of it", "</thinks> it is"])
def test_words_that_resemble_a_tag_leave_an_answer(words: str) -> None:
    model = Scripted([*TEXT.encode(f"<think>{words}"), END])

    text = TEXT.decode(WRITER.write(model, PROMPT, WISE_S).tokens)

    assert text.endswith('<answer>{"bbox": [0, 0, 0, 0], "points_1": [0, 0], "points_2": [0, 0]}</answer>')
    assert parse_answer(text, SPEC.picture.side).reason is None


def test_an_endless_rationale_leaves_room_for_the_answer() -> None:
    model = Scripted(TEXT.encode("<think>" + "ring " * 2000))

    written = WRITER.write(model, PROMPT, WISE_S)

    limit = TEXT.token_limit(PROMPT)
    assert limit - 40 <= len(written.tokens) <= limit
    assert TEXT.decode(written.tokens).endswith("]}</answer>")


@pytest.mark.parametrize(("number", "calls"), [(0, 0), (1, 1), (11, 2), (12, 1), (99, 1), (100, 2), (112, 2)], ids=str)
def test_a_number_ends_where_no_digit_can_follow(number: int, calls: int) -> None:
    counts = []
    for first in (0, number):  # 0 asks for nothing more
        answer = one_object((first, 0, 0, 0), ((0, 0), (0, 0)))
        counts.append(WRITER.write(Scripted(TEXT.encode(completion("x", answer))), PROMPT, WISE_S).steps)

    assert counts[1] - counts[0] == calls


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="max_rationale_tokens"):
        Decoding(max_rationale_tokens=-1)
    with pytest.raises(UsageError, match="needs forced decoding"):
        Decoding(forced=False, max_rationale_tokens=3)


@pytest.mark.parametrize("variant", ["wise-s", "answer"])
def test_the_policy_answers_the_same_in_half_the_calls(variant: str) -> None:
    forced, free = (Session.from_bundle(threads=1, decoding=decoding) for decoding in (FORCED, FREE))
    steps = [0, 0]
    scenes = SceneDataset("test")
    for place in range(10):
        example = scenes[place]
        results = [session.segment(example.image, example.query, variant) for session in (forced, free)]
        steps = [before + result.tokens.decode_steps for before, result in zip(steps, results, strict=True)]
        texts = [result.text.partition("</answer>")[0] for result in results]  # a free one may write one token more
        assert texts[0] == texts[1]
        assert results[0].box == results[1].box

    assert steps[0] < 0.55 * steps[1]
