"""Rewards: a table of worked examples for every branch, what holds for any completion, and how TRL calls them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wise_edge.errors import MissingExtraError, UsageError
from wise_edge.mapping import from_mapping
from wise_edge.policy.answers.frame import PER_MILLE, YX, AnswerFrame, Coordinates
from wise_edge.policy.prompts import DEFAULT, EMBEDDED

pytest.importorskip("wise_edge.training.wise", exc_type=MissingExtraError)

from wise_edge.training.wise import reading
from wise_edge.training.wise.reading import FloatBox, Reading, find_placeholders, is_formatted, read_completion
from wise_edge.training.wise.reward_config import ORDERS, TERMS, RewardConfig
from wise_edge.training.wise.rewards import RewardFunctions, inclusive_iou

SIZE = 840
FRAME = AnswerFrame((SIZE, SIZE))
BOX = (100, 100, 300, 300)
POINTS = ((150, 150), (250, 250))
ALL = RewardConfig(weights={"length": 1.0})
GATE_OFF = replace(ALL, iou_gate=-1.0)

THINK = "<think> red ring </think>"
DETAILED = "<d_think> the red ring is left of it </d_think>"
DISTILLED = 0.8 * (1 - 4 / 9)
WORDING = f"{DEFAULT.system} {DEFAULT.variants['wise'].user}"


class Angle:
    """An encoder under which concise and detailed texts have one fixed cosine; it keeps what it was asked."""

    def __init__(self, cosine: float = 0.8) -> None:
        self.cosine = cosine
        self.calls: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls.append(list(texts))
        detailed = [self.cosine, (1 - self.cosine**2) ** 0.5]
        return np.array([detailed if "<d_think>" in text else [1, 0] for text in texts], np.float32)


def count_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def make(
    config: RewardConfig = ALL,
    order: str = "concise-first",
    encoder: Angle | None = None,
    size: int = SIZE,
    wording: str = WORDING,
    count: Callable[[Sequence[str]], list[int]] = count_words,
) -> RewardFunctions:
    return RewardFunctions(config, AnswerFrame((size, size)), order, encoder or Angle(), count, wording)


def score(
    completion: Any, rewards: RewardFunctions | None = None, box: Any = BOX, points: Any = POINTS
) -> dict[str, float]:
    columns = {"box": [list(box)], "points": [[list(point) for point in points]]}
    functions = (rewards or make()).functions()
    return {each.__name__: each(prompts=["p"], completions=[completion], **columns)[0] for each in functions}


def answer(box: Any = BOX, first: Any = POINTS[0], second: Any = POINTS[1]) -> str:
    return f"<answer>{json.dumps({'bbox': box, 'points_1': first, 'points_2': second})}</answer>"


def whole(answer_text: str = answer(), think: str = THINK, detailed: str = DETAILED) -> str:
    return f"{think}{answer_text}{detailed}"


PERFECT = {
    "format": 1.0,
    "answer": 1.0,
    "box_iou": 1.0,
    "box_l1": 1.0,
    "points": 1.0,
    "distillation": DISTILLED,
    "length": 0.5 + 3e-4 * 16,
}
NOTHING = dict.fromkeys(PERFECT, 0.0)
NO_ANSWER = {**NOTHING, "format": 1.0}
NO_BOX = {**PERFECT, "answer": 0.0, "box_iou": 0.0, "box_l1": 0.0, "points": 0.0, "distillation": 0.0, "length": 0.0}
SHIFTED_IOU = 101 * 201 / (2 * 201 * 201 - 101 * 201)

WORKED: dict[str, tuple[str, dict[str, float]]] = {
    "perfect": (whole(), PERFECT),
    "white space between the parts": (f"{THINK}\n\n{answer()}\t{DETAILED}", PERFECT),
    "empty": ("", NOTHING),
    # format
    "text after the end": (whole() + "\n", {**PERFECT, "format": 0.0}),
    "text before the start": ("Sure. " + whole(), {**PERFECT, "format": 0.0}),
    "words between the parts": (f"{THINK} so {answer()}{DETAILED}", {**PERFECT, "format": 0.0}),
    "other order": (f"{DETAILED}{THINK}{answer()}", {**PERFECT, "format": 0.0}),
    "no answer tags": (whole(answer()[8:-9]), {**PERFECT, "format": 0.0}),
    "no detailed": (THINK + answer(), {**PERFECT, "format": 0.0, "distillation": 0.0}),
    "unclosed detailed": (
        whole(detailed="<d_think> it"),
        {**PERFECT, "format": 0.0, "distillation": 0.0},
    ),
    "no concise": (answer() + DETAILED, {**PERFECT, "format": 0.0, "distillation": 0.0, "length": 0.0}),
    "an empty concise text": (
        whole(think="<think></think>"),
        {**PERFECT, "distillation": 0.8 * (1 - 1 / 9), "length": 0.5 + 3e-4 * 19},
    ),
    "tags inside of a part": (
        whole(think="<think> <think> red </think>"),
        {**PERFECT, "length": PERFECT["length"]},
    ),
    # answer: the first {…} anywhere that is not empty
    "no braces": (whole("<answer>none</answer>"), NO_ANSWER),
    "an open brace": (whole("<answer>{</answer>"), NO_ANSWER),
    "empty braces are passed over": (whole("<answer>{}" + answer()[8:]), PERFECT),
    "no JSON": (whole("<answer>{a}</answer>"), NO_ANSWER),
    "the first answer counts": (whole("<answer>{1}</answer>" + answer()), NO_ANSWER),
    "braces in the concise text": (whole(think="<think> {so} ring </think>"), {**NOTHING, "format": 1.0}),
    "nested braces": (whole('<answer>{"bbox": {"x": 1}}</answer>'), NO_ANSWER),
    "nested too deep": (whole('<answer>{"bbox": ' + "[" * 60_000 + "}</answer>"), NO_ANSWER),
    "an endless number": (whole('<answer>{"bbox": [' + "9" * 60_000 + "]}</answer>"), NO_ANSWER),
    "no bbox": (whole(f"<answer>{json.dumps({'points_1': [150, 150], 'points_2': [250, 250]})}</answer>"), NO_BOX),
    "no second point": (
        whole(f"<answer>{json.dumps({'bbox': BOX, 'points_1': [150, 150]})}</answer>"),
        {**PERFECT, "answer": 0.0, "points": 0.0},
    ),
    "three edges": (whole(answer([100, 100, 300])), NO_BOX),
    "bbox is a text": (whole(answer("abcd")), NO_BOX),
    "edges are texts": (whole(answer(["100", 100, 300, 300])), {**NO_BOX, "answer": 1.0}),
    "edges are not a number": (whole(answer([float("nan"), 0, 9, 9])), {**NO_BOX, "answer": 1.0}),
    "edges are infinite": (whole(answer([0, 0, float("inf"), 9])), {**NO_BOX, "answer": 1.0}),
    "edges are huge": (whole(answer([0, 0, 10**300, 10**300])), {**NO_BOX, "answer": 1.0}),
    "a point of three numbers": (whole(answer(first=[150, 150, 1])), {**PERFECT, "answer": 0.0}),
    "a point of one number": (whole(answer(first=[150])), {**PERFECT, "answer": 0.0, "points": 0.0}),
    "a point is a text": (whole(answer(first="150")), {**PERFECT, "answer": 0.0, "points": 0.0}),
    "a point of words": (whole(answer(first=["a", "b"])), {**PERFECT, "points": 0.0}),
    "a point of nothing": (whole(answer(first=[None, None])), {**PERFECT, "points": 0.0}),
    "a point is not a number": (whole(answer(first=[float("nan"), 1])), {**PERFECT, "points": 0.0}),
    "a point is infinite": (whole(answer(first=[float("inf"), 1])), {**PERFECT, "points": 0.0}),
    "a huge point": (whole(answer(first=[10**300, 1])), {**PERFECT, "points": 0.0}),
    "numbers of a point as texts": (whole(answer(first=["150", "150"])), PERFECT),
    "fractions": (whole(answer([100.0, 100.0, 300.0, 300.0], [150.9, 150.0])), PERFECT),
    # box
    "half of the box": (
        whole(answer([200, 100, 400, 300], [250, 250], [250, 250])),
        {**PERFECT, "box_iou": SHIFTED_IOU, "box_l1": 0.0, "distillation": 0.0, "length": 0.0},
    ),
    "touching": (whole(answer([300, 100, 500, 300])), {**NO_BOX, "answer": 1.0}),
    "apart": (whole(answer([500, 500, 600, 600])), {**NO_BOX, "answer": 1.0}),
    "reversed": (whole(answer([300, 300, 100, 100])), {**NO_BOX, "answer": 1.0}),
    "no extent": (whole(answer([100, 100, 100, 100])), {**NO_BOX, "answer": 1.0}),
    "edges 39 px off": (
        whole(answer([100, 100, 300, 339])),
        {**PERFECT, "box_iou": 201 / 240, "box_l1": 1.0},
    ),
    "edges 40 px off": (
        whole(answer([100, 100, 300, 340])),
        {**PERFECT, "box_iou": 201 / 241, "box_l1": 0.0},
    ),
    # points
    "points swapped": (whole(answer(first=POINTS[1], second=POINTS[0])), PERFECT),
    "a point on the edge": (whole(answer(second=[300, 300])), PERFECT),
    "a point outside": (whole(answer(second=[301, 250])), {**PERFECT, "points": 0.0}),
    "points 99 px off": (whole(answer(first=[150, 250], second=[250, 152])), PERFECT),
    "points 100 px off": (whole(answer(first=[150, 250], second=[250, 150])), {**PERFECT, "points": 0.0}),
    # distillation
    "as long as the detailed": (
        whole(think="<think> a b c d e f g </think>"),
        {**PERFECT, "distillation": 0.0, "length": 0.5 + 3e-4 * 11},
    ),
    "longer than the detailed": (
        whole(think=f"<think> {'a ' * 20}</think>"),
        {**PERFECT, "distillation": 0.0, "length": 0.5 - 3e-4 * 2},
    ),
    # the rule against echoes
    "the answer's form": (whole(think=f"<think> {DEFAULT.system[-82:]} </think>"), NOTHING),
    "the answer's form, spaced": (whole() + '{"bbox":[x1,\ny1,x2,y2],"points_1":[x,y],"points_2":[x,y]}', NOTHING),
}


@pytest.mark.parametrize("name", WORKED)
def test_worked_examples(name: str) -> None:
    completion, expected = WORKED[name]
    assert score(completion) == pytest.approx(expected)


def test_orders() -> None:
    texts = {"concise-first": whole(), "detailed-first": DETAILED + THINK + answer(), "no-detailed": THINK + answer()}
    for order in ORDERS:
        scored = {name: score(text, make(order=order)) for name, text in texts.items()}
        assert {name for name, terms in scored.items() if terms["format"] == 1} == {order}
    assert score(texts["detailed-first"], make(order="detailed-first")) == pytest.approx(PERFECT)
    assert "distillation" not in score(whole(), make(order="no-detailed"))


def test_the_gate_is_open_above_its_value() -> None:
    half = whole(answer([0, 0, 49, 99], [9, 9], [9, 9]))  # inclusive pixels: 50 of 100 columns
    for gate, expected in ((0.5, 0.0), (0.49, DISTILLED), (-1.0, DISTILLED)):
        terms = score(half, make(replace(ALL, iou_gate=gate)), box=(0, 0, 99, 99))
        assert terms["box_iou"] == 0.5
        assert terms["distillation"] == pytest.approx(expected)


def test_without_a_gate_a_wrong_or_missing_box_counts() -> None:
    for completion in (whole("<answer>none</answer>"), whole(answer([500, 500, 600, 600]))):
        assert score(completion, make(GATE_OFF))["distillation"] == pytest.approx(DISTILLED)


def test_numbers_per_mille_with_rows_first_are_scored_like_pixels() -> None:
    per_mille = Coordinates(PER_MILLE, YX).frame((112, 112))
    rewards = RewardFunctions(ALL, per_mille, "concise-first", Angle(), count_words, WORDING)
    x1, y1, x2, y2 = box = (100, 200, 500, 700)
    points = ((150, 250), (400, 600))
    turned = answer([y1 + 8, x1 + 8, y2 + 8, x2 + 8], (250, 150), (600, 400))
    terms = score(whole(turned), rewards, box, points)
    assert terms["box_iou"] > 0.9 and (terms["box_l1"], terms["points"]) == (1.0, 1.0)  # 8 of 11.9 per mille
    straight = answer([*box], *points)
    assert score(whole(straight), rewards, box, points)["box_iou"] < 0.5
    far = answer([y1 + 13, x1 + 13, y2 + 13, x2 + 13], (250, 150), (600, 400))
    assert score(whole(far), rewards, box, points)["box_l1"] == 0.0


def test_thresholds_follow_the_input_size() -> None:
    box, points = (10, 10, 50, 50), ((20, 20), (40, 40))
    near = score(whole(answer([11, 11, 51, 51], (20, 33), (40, 40))), make(size=112), box, points)
    far = score(whole(answer([12, 12, 52, 52], (20, 47), (40, 40))), make(size=112), box, points)
    assert (near["box_l1"], near["points"]) == (1.0, 1.0)  # 1 of 1.33 px, 6.5 of 13.33 px
    assert (far["box_l1"], far["points"]) == (0.0, 0.0)  # 2 px, 13.5 px
    assert score(whole(answer([12, 12, 52, 52], (20, 47), (40, 40))), make(size=SIZE), box, points)["points"] == 1.0


@pytest.mark.parametrize(("cosine", "expected"), [(float("nan"), 0.0), (-0.5, 0.0), (1.0, 1 - 4 / 9)])
def test_odd_similarities(cosine: float, expected: float) -> None:
    assert score(whole(), make(encoder=Angle(cosine)))["distillation"] == pytest.approx(expected)


def test_a_tokenizer_that_counts_nothing() -> None:
    terms = score(whole(), make(count=lambda texts: [0] * len(texts)))
    assert terms["distillation"] == 0.0
    assert terms["length"] == pytest.approx(0.506)


def test_length_is_clipped() -> None:
    steep = make(replace(ALL, length_slope=0.1))
    lengths = [score(whole(think=f"<think> {'a ' * n}</think>"), steep)["length"] for n in (0, 16, 18, 20, 90)]
    assert lengths == pytest.approx([1.0, 0.7, 0.5, 0.3, 0.0])


def test_a_prompt_without_placeholders_forbids_nothing() -> None:
    assert find_placeholders(EMBEDDED.system + EMBEDDED.variants["wise"].user) == ()
    assert score(whole(think=f"<think> {DEFAULT.system[-82:]} </think>"), make(wording="Find it."))["format"] == 1.0


def test_placeholders_are_what_a_prompt_shows_to_fill_in() -> None:
    assert find_placeholders(WORDING)[0] == '{"bbox":[x1,y1,x2,y2],"points_1":[x,y],"points_2":[x,y]}'
    wording = "Write <think> the reason </think> <answer>{…}</answer>, no words between <d_think> </d_think>."
    rewards = make(wording=wording)
    assert find_placeholders(wording) == ("<think>thereason</think>", "<answer>{…}</answer>")
    assert score(whole(think="<think>\nthe reason\n</think>"), rewards) == NOTHING
    assert score(whole(think="<think> the reason is red </think>"), rewards)["format"] == 1.0


def test_an_echo_scores_nothing_without_a_gate_too() -> None:
    assert score(whole(think=f"<think> {DEFAULT.system[-82:]} </think>"), make(GATE_OFF)) == NOTHING


@pytest.mark.parametrize(
    "completion",
    [
        [{"role": "assistant", "content": whole()}],
        [{"role": "assistant", "content": [{"type": "text", "text": whole()}]}],
        [{"role": "assistant", "content": [{"type": "text", "text": THINK}, {"type": "text", "text": whole()[25:]}]}],
    ],
)
def test_chat_messages_score_as_their_text(completion: Any) -> None:
    assert score(completion) == pytest.approx(PERFECT)


@pytest.mark.parametrize("completion", [[], [{"role": "assistant"}], [{"role": "assistant", "content": None}], None])
def test_messages_without_text_score_nothing(completion: Any) -> None:
    assert score(completion) == NOTHING


def test_unicode() -> None:
    encoder = Angle()
    text = whole(think="<think> кольцо 🔴 \ud800 </think>", detailed="<d_think> 左の赤い輪 \u2028 a b c d e </d_think>")
    assert score(text, make(encoder=encoder))["distillation"] > 0
    assert encoder.calls[0][0] == "<think> кольцо 🔴 ? </think>"


def test_one_call_of_the_encoder_for_a_batch() -> None:
    encoder = Angle()
    (distillation,) = make(RewardConfig(dict.fromkeys(TERMS[:5], 0.0)), encoder=encoder).functions()
    completions = [whole(), whole(answer([0, 0, 9, 9])), whole(think="<think> it </think>"), "", whole()]
    rows = {"box": [BOX] * 5, "points": [POINTS] * 5}
    scores = distillation(prompts=[""] * 5, completions=completions, **rows)
    assert scores == pytest.approx([DISTILLED, 0.0, 0.8 * (1 - 3 / 9), 0.0, DISTILLED])
    assert encoder.calls == [[THINK, "<think> it </think>", DETAILED]]
    distillation(prompts=[""], completions=[""], box=[BOX], points=[POINTS])
    distillation(prompts=[], completions=[], box=[], points=[])
    assert len(encoder.calls) == 1


def test_a_batch_is_read_once_for_all_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def count(text: str, frame: AnswerFrame) -> Reading:
        read.append(text)
        return read_completion(text, frame)

    monkeypatch.setattr(reading, "read_completion", count)
    rewards = make()
    completions = [whole(), [{"role": "assistant", "content": whole(think="<think> it </think>")}], "", whole()]
    for _ in range(2):
        for function in rewards.functions():
            function(prompts=[""] * 4, completions=completions, box=[BOX] * 4, points=[POINTS] * 4)
        assert [each.rationale for each in rewards.reader.read(completions)] == ["red ring", "it", "", "red ring"]
    assert read == [whole(), whole(think="<think> it </think>"), ""]
    rewards.reader.read(["a", "b"])
    assert read[3:] == ["a", "b"]
    rewards.reader.read(completions)
    assert len(read) == 8, "only the last batch is kept"


def test_terms_without_weight_are_left_out() -> None:
    rewards = RewardFunctions(
        RewardConfig({"distillation": 0.0, "length": 0.5, "points": 2.0}), FRAME, "concise-first", None, count_words, ""
    )
    assert [each.__name__ for each in rewards.functions()] == [*TERMS[:5], "length"]
    assert rewards.weights() == [1.0, 1.0, 1.0, 1.0, 2.0, 0.5]
    assert [each.__name__ for each in make(RewardConfig()).functions()] == list(TERMS)


def test_columns_that_do_not_fit_are_named() -> None:
    function = make().functions()[0]
    with pytest.raises(UsageError, match="no column 'box'"):
        function(prompts=[""], completions=[""], points=[POINTS])
    with pytest.raises(UsageError, match="no column 'points'"):
        function(prompts=[""], completions=[""], box=[BOX])
    with pytest.raises(UsageError, match="2 completions need as many rows of 'box', not 1"):
        function(prompts=["", ""], completions=["", ""], box=[BOX], points=[POINTS])
    for box, points in (([1, 2, 3], POINTS), (BOX, [[1, 2]]), (None, POINTS), ([1, 2, 3, float("inf")], POINTS)):
        with pytest.raises(UsageError, match="is not 4 numbers, or"):
            function(prompts=[""], completions=[""], box=[box], points=[points])


def test_reward_functions_refuse_what_cannot_work() -> None:
    with pytest.raises(UsageError, match="order: 'last' is unknown; use one of concise-first"):
        make(order="last")
    with pytest.raises(UsageError, match="frame: its sides must be at least 1"):
        make(size=0)
    with pytest.raises(UsageError, match="a sentence encoder is needed"):
        RewardFunctions(RewardConfig(), FRAME, "concise-first", None, count_words, "")
    with pytest.raises(UsageError, match="no term is left with order no-detailed"):
        make(RewardConfig(dict.fromkeys(TERMS[:5], 0.0)), order="no-detailed")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"weights": {"speed": 1.0}}, "rewards.weights.speed: unknown term; terms are format, "),
        ({"weights": {"points": -1.0}}, "rewards.weights.points: must be from 0 to "),
        ({"weights": {"points": float("nan")}}, "rewards.weights.points: must be finite"),
        ({"weights": dict.fromkeys(TERMS, 0.0)}, "rewards.weights: at least one must be above 0"),
        ({"iou_gate": 1.0}, "rewards.iou_gate: must be below 1"),
        ({"iou_gate": float("nan")}, "rewards.iou_gate: must be finite"),
        ({"box_l1_px": 0.0}, "rewards.box_l1_px: must be above 0"),
        ({"points_px": -3.0}, "rewards.points_px: must be above 0"),
        ({"reference_size": 0}, "rewards.reference_size: must be from 1 to"),
        ({"length_target": 0}, "rewards.length_target: must be from 1 to"),
        ({"length_slope": float("inf")}, "rewards.length_slope: must be finite"),
    ],
)
def test_configs_that_cannot_work_are_refused(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        from_mapping(RewardConfig, recipe, "rewards.")


def test_weights_that_a_recipe_leaves_out_keep_their_defaults() -> None:
    config = from_mapping(RewardConfig, {"weights": {"distillation": 0.5}})
    assert config.weights == {**dict.fromkeys(TERMS, 1.0), "distillation": 0.5, "length": 0.0}
    assert from_mapping(RewardConfig, asdict(config)) == config
    assert RewardConfig().weights == {**dict.fromkeys(TERMS, 1.0), "length": 0.0}


# What holds for any completion.

SNIPPETS = ["<think>", "</think>", "<answer>", "</answer>", "<d_think>", "</d_think>", " ", "\n", "a", "{", "}", "{1}"]
numbers = st.one_of(st.integers(-50, 900), st.integers(), st.floats(-50, 900), st.floats(), st.text(max_size=3))
jsons = st.builds(
    lambda box, first, second: answer(box, first, second)[8:-9],
    *(st.lists(numbers, min_size=n - 1, max_size=n + 1) for n in (4, 2, 2)),
)
completions = st.one_of(
    st.text(),
    st.lists(st.one_of(st.sampled_from(SNIPPETS), jsons), max_size=14).map("".join),
    st.builds(lambda text: f"{THINK}<answer>{text}</answer>{DETAILED}", jsons),
)
sides = st.integers(0, 400)
boxes = st.tuples(sides, sides, sides, sides).map(lambda c: (c[0], c[1], c[0] + c[2] + 1, c[1] + c[3] + 1))
cosines = st.floats(-1, 1)


@given(completions, boxes, cosines, st.sampled_from([ALL, GATE_OFF]), st.sampled_from(list(ORDERS)))
def test_every_term_lies_between_0_and_1(
    text: str, box: tuple[int, int, int, int], cosine: float, config: RewardConfig, order: str
) -> None:
    rewards = make(config, order, Angle(cosine))
    for value in score(text, rewards, box, (box[:2], box[:2])).values():
        assert type(value) is float
        assert 0.0 <= value <= 1.0


@given(st.lists(st.sampled_from(SNIPPETS), max_size=14).map("".join), st.sampled_from(list(ORDERS.values())))
def test_the_linear_readers_find_what_patterns_find(text: str, tags: tuple[str, ...]) -> None:
    pattern = r"\s*".join(f"<{tag}>.*?</{tag}>" for tag in tags)
    assert is_formatted(text, tags) == bool(re.fullmatch(pattern, text, re.DOTALL))
    found_parts = read_completion(text)
    for tag, found in (("think", found_parts.concise), ("d_think", found_parts.detailed)):
        match = re.search(f"<{tag}>.*?</{tag}>", text, re.DOTALL)
        assert found == (match.group() if match else "")


@given(st.lists(st.sampled_from(["{", "}", " ", '"bbox": [0, 0, 1, 1]', '"a": {}']), max_size=8).map("".join))
def test_the_first_braces_are_the_answer(text: str) -> None:
    match = re.search(r"\{[^}]+\}", text)
    expected = None
    if match and match.group().replace(" ", "") == '{"bbox":[0,0,1,1]}':
        expected = (0, 0, 1, 1)
    assert read_completion(text).box == expected


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), cosines)
def test_a_shorter_concise_text_never_scores_less(few: int, more: int, detailed: int, cosine: float) -> None:
    few, more = sorted((few, more))
    rewards = make(replace(ALL, length_slope=0.02), encoder=Angle(cosine))
    ending = answer() + f"<d_think> {'b ' * detailed}</d_think>"
    shorter, longer = (score(f"<think> {'a ' * n}</think>{ending}", rewards) for n in (few, more))
    assert all(shorter[name] >= longer[name] for name in shorter)


@given(boxes, boxes, boxes, cosines, st.sampled_from([0.5, 0.1, -1.0]))
def test_a_better_iou_never_scores_less(
    first: FloatBox, second: FloatBox, truth: tuple[int, int, int, int], cosine: float, gate: float
) -> None:
    worse, better = sorted((first, second), key=lambda box: inclusive_iou(box, truth))
    rewards = make(replace(ALL, iou_gate=gate), encoder=Angle(cosine))
    low, high = (score(whole(answer(box)), rewards, truth) for box in (worse, better))
    assert all(high[name] >= low[name] for name in ("box_iou", "distillation", "length"))


@given(boxes, st.tuples(sides, sides, sides, sides), st.tuples(sides, sides, sides, sides))
def test_a_box_that_closes_in_on_the_truth_never_scores_less(
    truth: tuple[int, int, int, int], near: tuple[int, ...], far: tuple[int, ...]
) -> None:
    tight = (truth[0] - near[0], truth[1] - near[1], truth[2] + near[2], truth[3] + near[3])
    loose = (tight[0] - far[0], tight[1] - far[1], tight[2] + far[2], tight[3] + far[3])
    points = (truth[:2], truth[:2])
    high, low = (score(whole(answer(box, *points)), None, truth, points) for box in (tight, loose))
    assert all(high[name] >= low[name] for name in high)
    assert score(whole(answer(truth, *points)), None, truth, points)["box_iou"] == 1.0


@pytest.mark.parametrize(
    "unit",
    [
        "{",
        "}",
        "{}",
        "<think>",
        "<d_think>",
        "</think> <answer>",
        "</think><answer></answer><d_think>",
        "</think> ",
        " ",
    ],
)
def test_completions_of_65536_characters_are_read_at_once(unit: str) -> None:
    text = "<think>" + unit * (65_536 // len(unit))
    terms = score(text)  # a reader that backtracks without end would run into the suite's limit on a test's time
    assert terms["format"] == terms["answer"] == 0.0
