"""Forced decoding of every form: lists, labels and empty lists as free decoding writes them, and always an answer."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from policies.qwen2_vocabulary import WHOLE, qwen2_tokenizer
from wise_edge.bundle.store import load, resolve_bundle
from wise_edge.errors import UsageError
from wise_edge.policy.answers.answer import Answer, AnsweredObject, format_answer
from wise_edge.policy.answers.form import (
    BOX,
    BOX_LABEL_LIST,
    BOX_POINT_LIST,
    BOX_POINTS,
    FORMS,
    LABEL,
    POINT,
    AnswerField,
    AnswerForm,
)
from wise_edge.policy.answers.frame import PER_MILLE, YX, Coordinates
from wise_edge.policy.answers.strict import parse_answer_strict
from wise_edge.policy.answers.tolerant import parse_answer
from wise_edge.policy.picture import ASPECT, PictureGeometry
from wise_edge.policy.prompts import EMBEDDED, PromptSet, Template
from wise_edge.policy.spec import PolicySpec
from wise_edge.runtimes.base import Decoding, Request
from wise_edge.runtimes.policy.prompt import Prompt
from wise_edge.runtimes.policy.text import MAX_LABEL_TOKENS, PolicyText
from wise_edge.runtimes.policy.writing import Writer
from wise_edge.runtimes.policy.written import Written

ONE = Decoding(max_objects=1)
BUNDLE = load(resolve_bundle("embedded"))
EMBEDDED_TOKENIZER = BUNDLE.file("policy.tokenizer")
PICTURE = (168, 84)
WIDE = replace(
    BUNDLE.manifest.policy,
    picture=PictureGeometry(ASPECT, None, 28 * 28, 168 * 84),
    max_positions=8192,
    prompts=PromptSet(
        "forms", "", {**EMBEDDED.variants, "begun": Template("{query}", prefill="```json\n[", rationale=False)}
    ),
)
LABEL_FIRST = AnswerForm(
    "label-first", (AnswerField("n", LABEL), AnswerField("p", POINT), AnswerField("b", BOX)), before="", after="\nEnd."
)
"""One object, with a label in front and nothing before it."""
SPACED = replace(BOX_POINT_LIST, name="spaced", before="\n<answer>", list_start="[ ", empty_list="[ ]", list_end=" ]")
"""A list whose beginning is that of the empty one."""
ALL = {form.name: form for form in (*FORMS.values(), LABEL_FIRST, SPACED)}
WORDS = ("ring", "red", " ", " ", "the", "12", "(big)", '"', "\\", "'", ",", "{", "]", "}", "é", "\n", "<", ": ", "/")


@dataclass
class Policy:
    """A policy of a form, and models that write for it."""

    form: AnswerForm
    spec: PolicySpec = WIDE
    tokenizer: Path = EMBEDDED_TOKENIZER
    words: Sequence[str] = WORDS

    def __post_init__(self) -> None:
        self.spec = replace(self.spec, form=self.form)
        self.text = PolicyText(self.tokenizer, self.spec)
        self.writer = Writer(self.text, self.spec)
        self.frame = self.spec.frame(PICTURE)

    def prompt(self, variant: str) -> Prompt:
        return self.text.prompt("the red ring", variant, self.spec.image_grid(PICTURE))

    def write(self, text: str, variant: str = "answer", decoding: Decoding = Decoding()) -> tuple[Written, Scripted]:  # noqa: B008
        prompt = self.prompt(variant)
        model = Scripted(self.text.encode(text), self.text, len(prompt.suffix))
        return self.writer.write(model, prompt, Request("the red ring", variant, decoding)), model

    def answer(self, rng: random.Random, objects: int) -> Answer:
        return Answer(tuple(self._object(rng) for _ in range(objects)))

    def _object(self, rng: random.Random) -> AnsweredObject:
        width, height = self.frame.size
        (x1, x2), (y1, y2) = (sorted(rng.sample(range(side + 1), 2)) for side in (width, height))
        points = tuple((rng.randrange(width), rng.randrange(height)) for _ in self.form.point_keys)
        label = "".join(rng.choice(self.words) for _ in range(rng.randint(0, 6))) if self.form.label_key else None
        return AnsweredObject((x1, y1, x2, y2), points, label)

    def complete(self, answer: Answer, before: str = "") -> str:
        return before + self.form.before + format_answer(answer, self.form, self.frame) + self.form.after


@dataclass
class Scripted:
    """A model that writes one text, token by token, and then nothing but end tokens."""

    script: list[int]
    text: PolicyText
    suffix: int
    calls: list[list[int]] = field(default_factory=list)

    def __call__(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        self.calls.append(list(tokens))
        written = sum(map(len, self.calls)) - self.suffix
        logits = np.zeros(self.text.vocabulary, np.float32)
        logits[self.script[written] if written < len(self.script) else self.text.encode("<|im_end|>")[0]] = 1.0
        return logits


@pytest.mark.parametrize("form", ALL.values(), ids=ALL)
def test_forced_is_free_on_500_completions(form: AnswerForm) -> None:
    policies = [Policy(form, replace(WIDE, coordinates=each)) for each in (Coordinates(), Coordinates(PER_MILLE, YX))]
    rng = random.Random(form.name)
    forced = tokens = 0
    for number in range(500 if form.name in FORMS else 100):
        policy = policies[number % 2]
        objects = number % 5 if form.many else 1
        rationale = "<think>" + "".join(rng.choice(["ring", " red", "(", "1", "."]) for _ in range(6)) + "</think>"
        variant = rng.choice(["wise-s", "answer"])
        text = policy.complete(policy.answer(rng, objects), rationale if variant == "wise-s" else "")
        written, model = policy.write(text, variant)
        free, _ = policy.write(text, variant, Decoding(forced=False))

        assert policy.text.decode(written.tokens) == text
        assert written.tokens == free.tokens == policy.text.encode(text)
        assert (written.finish, free.finish) == ("answer", "answer")
        assert written.steps == len(model.calls) - 1 < free.steps
        forced, tokens = forced + written.forced, tokens + len(written.tokens)
    assert forced > 0.4 * tokens


@pytest.mark.parametrize("form", ALL.values(), ids=ALL)
def test_any_model_gives_an_answer(form: AnswerForm) -> None:
    policy = Policy(form)
    counts = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)

        def noise(tokens: Sequence[int]) -> npt.NDArray[np.float32]:
            return rng.standard_normal(policy.text.vocabulary, np.float32)  # noqa: B023

        prompt = policy.prompt("answer")
        written = policy.writer.write(noise, prompt, Request("the ring", "answer", Decoding(max_objects=3)))
        text = policy.text.decode(written.tokens)
        parsed = parse_answer(text, form, policy.frame)
        assert parsed.answer is not None, text
        assert not {"unfinished JSON", "single quotes", "trailing comma"} & {*parsed.repairs}
        assert len(parsed.answer.objects) <= 3
        assert written.finish in (("answer", "objects") if form.many else ("answer",))
        assert text.endswith(form.after)
        counts.add(len(parsed.answer.objects))
    assert counts >= {0, 1, 2} if form.many else counts == {1}


@pytest.mark.parametrize(("order", "limits"), [("xy", (168, 84)), ("yx", (84, 168))])
def test_each_coordinate_has_the_digits_of_its_own_side(order: str, limits: tuple[int, int]) -> None:
    policy = Policy(BOX_POINTS, replace(WIDE, coordinates=Coordinates("pixels", order)))

    text = policy.text.decode(policy.write('<answer>{"bbox": [' + "9" * 40)[0].tokens)

    numbers = re.findall(r"\d+", text.partition("points_1")[0])
    assert numbers == ["9" if limit < 90 else "99" for limit in limits * 2]
    ones = policy.text.decode(policy.write('<answer>{"bbox": [' + "1" * 40)[0].tokens)
    assert re.findall(r"\d+", ones.partition("points_1")[0]) == ["11" if limit < 100 else "111" for limit in limits * 2]


@pytest.mark.parametrize("form", [BOX_POINT_LIST, BOX_LABEL_LIST], ids=lambda form: form.name)
@pytest.mark.parametrize("most", [1, 2, 7])
def test_a_list_ends_at_the_limit_of_objects_and_says_so(form: AnswerForm, most: int) -> None:
    policy = Policy(form)
    answer = policy.answer(random.Random(0), 200)
    text = policy.complete(answer)

    written, _ = policy.write(text, decoding=Decoding(max_objects=most))

    read = parse_answer_strict(policy.text.decode(written.tokens), form, policy.frame)
    assert read == Answer(answer.objects[:most])
    assert written.finish == "objects"
    exact, _ = policy.write(policy.complete(Answer(answer.objects[:most])), decoding=Decoding(max_objects=most))
    assert exact.finish == "answer"


@pytest.mark.parametrize("form", [BOX_POINT_LIST, BOX_LABEL_LIST], ids=lambda form: form.name)
@pytest.mark.parametrize("variant", ["answer", "wise-s"])
def test_an_endless_list_ends_before_the_room_does_and_says_so(form: AnswerForm, variant: str) -> None:
    policy = Policy(form)
    answer = policy.answer(random.Random(0), 200)

    written, _ = policy.write(
        policy.complete(answer, "<think>a</think>" if variant == "wise-s" else ""), variant, Decoding(max_objects=1000)
    )

    limit = policy.text.token_limit(policy.prompt(variant))
    assert written.finish == "length"
    assert limit - 2 * policy.text.room_for_answer(policy.prompt(variant).prefix.grid) <= len(written.tokens) <= limit
    read = parse_answer_strict(policy.text.decode(written.tokens), form, policy.frame)
    assert read.objects == answer.objects[: len(read.objects)]
    assert len(read.objects) >= 30


@pytest.mark.parametrize(
    ("label", "ended"),
    [
        ("ring " * 100, "ring "),
        ("ring" * 100 + "\\u00", "ring"),
        ('\\"' * 100, '"'),
        ("\\\\" * 100, "\\"),
        ("\\u00e9" * 40, "é"),
        ("<|im_end|>" * 3, "ring"),
    ],
)
def test_a_label_has_a_bound_and_stays_a_json_string(label: str, ended: str) -> None:
    policy = Policy(BOX_LABEL_LIST)

    written, _ = policy.write('```json\n[\n\t{"bbox_2d": [1, 2, 3, 4], "label": "' + label, decoding=ONE)

    text = policy.text.decode(written.tokens)
    (item,) = parse_answer_strict(text, BOX_LABEL_LIST, policy.frame).objects
    assert item.label is not None
    assert len(policy.text.encode(item.label)) <= MAX_LABEL_TOKENS
    assert ended in item.label or ended == "ring"
    assert "<|" not in item.label


def test_a_prefill_may_have_begun_the_list() -> None:
    policy = Policy(replace(BOX_LABEL_LIST, list_start="[", list_end="]"))
    for objects in (0, 2):
        text = policy.complete(policy.answer(random.Random(objects), objects))

        written, _ = policy.write(text.removeprefix("```json\n["), "begun")

        assert "```json\n[" + policy.text.decode(written.tokens) == text


def test_a_fence_in_a_rationale_does_not_end_a_free_completion() -> None:
    policy = Policy(BOX_LABEL_LIST)
    text = "<think>In code:\n```\nring\n```\n</think>" + policy.complete(policy.answer(random.Random(1), 2))

    free, _ = policy.write(text, "wise-s", Decoding(forced=False))

    assert policy.text.decode(free.tokens) == text


REAL_WORDS = [f"{mark}{word}" for mark in ' (-<#"' for word in ("mug", "big", "the")]
REAL_WORDS += [
    *string.punctuation.replace("'", ""),
    *" \n  1",
    "é",
]  # an apostrophe splits words that the extract lacks


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen2_tokenizer(tmp_path_factory.mktemp("qwen2"))


@pytest.mark.parametrize("form", ALL.values(), ids=ALL)
def test_tokens_are_those_of_the_whole_text_in_a_real_vocabulary(form: AnswerForm, qwen2: Path) -> None:
    policy = Policy(form, tokenizer=qwen2, words=REAL_WORDS)
    rng = random.Random(form.name)
    for number in range(1000 if WHOLE else 150):
        variant = rng.choice(["wise-s", "answer"])
        rationale = "<think>" + rng.choice(["The ring.", "ring", "(ring)", " big ", "1", ""]) + "</think>"
        answer = policy.answer(rng, number % 5 if form.many else 1)
        text = policy.complete(answer, rationale if variant == "wise-s" else "")
        written, _ = policy.write(text, variant)
        assert [policy.text.piece(each) for each in written.tokens] == [
            policy.text.piece(each) for each in policy.text.encode(text)
        ]


def test_a_real_vocabulary_merges_what_forms_dictate_with_what_follows(qwen2: Path) -> None:
    policy = Policy(BOX_LABEL_LIST, tokenizer=qwen2)
    for text, tokens in {
        '>[{"bbox': [">[", '{"', "bbox"],
        ">[]</answer": [">[]", "</", "answer"],
        'label": "(big': ["label", '":', ' "(', "big"],
        'label": "big"},\n\t{"': ["label", '":', ' "', "big", '"},\n', "\t", '{"'],
        'label": ""}\n]\n```': ["label", '":', ' ""}\n', "]\n", "```"],
        "12, 3]}]</": ["1", "2", ",", " ", "3", "]}", "]</"],
    }.items():
        assert [policy.text.piece(each) for each in policy.text.encode(text)] == tokens


@pytest.mark.parametrize("label", ["", ' "ring\\', ' "ring\\u0'])
def test_a_model_that_wants_no_label_does_not_try_a_whole_vocabulary(
    label: str, qwen2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(BOX_LABEL_LIST, tokenizer=qwen2)
    text, prompt, decoded = policy.text, policy.prompt("answer"), [0]
    script = text.encode('```json\n[\n\t{"bbox_2d": [1, 2, 3, 4], "label":' + label)
    scripted = Scripted(script, text, len(prompt.suffix))
    tokens = range(text.vocabulary)
    unwilling = np.array(
        [text.piece(token)[:1] not in ' "\\/nrtuabcdefABCDEF0123456789' for token in tokens], np.float32
    )
    decode = text.decode

    def run(tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        decoded.append(0)
        logits = scripted(tokens)
        return logits if logits.argmax() != text.encode("<|im_end|>")[0] else unwilling

    def count(ids: Sequence[int]) -> str:
        decoded[-1] += 1
        return decode(ids)

    monkeypatch.setattr(text, "decode", count)
    written = policy.writer.write(run, prompt, Request("the red ring", "answer", ONE))

    assert len(parse_answer_strict(decode(written.tokens), BOX_LABEL_LIST, policy.frame).objects) == 1
    assert max(decoded) < 1000 < unwilling.sum()


def test_an_impossible_limit_is_refused() -> None:
    for most in (0, -1, 1.5, True):
        with pytest.raises(UsageError, match="max_objects must be 1 or more"):
            Decoding(max_objects=most)  # type: ignore[arg-type]
