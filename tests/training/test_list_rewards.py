"""Rewards of answers that are lists: worked examples, the assignment against all others, what holds for any list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wise_edge.errors import MissingExtraError, UsageError
from wise_edge.policy.answers.answer import AnsweredObject
from wise_edge.policy.answers.form import BOX_LABEL_LIST, BOX_POINT_LIST
from wise_edge.policy.answers.frame import YX, AnswerFrame

pytest.importorskip("wise_edge.training.wise", exc_type=MissingExtraError)

from wise_edge.training.wise.matching import Agreement, FoundObject, compare_objects, inclusive_iou, points_distance
from wise_edge.training.wise.reading import find_placeholders, read_list
from wise_edge.training.wise.reward_config import RewardConfig
from wise_edge.training.wise.rewards import RewardFunctions

SIZE = 840
A, B, C = (100, 100, 300, 300), (400, 400, 500, 500), (600, 100, 700, 200)
CENTERS = {A: (200, 200), B: (450, 450), C: (650, 150)}
NAMES = ["format", "answer", "box_iou", "box_l1", "points", "count"]


def make(config: RewardConfig | None = None, form: Any = BOX_POINT_LIST, size: int = SIZE) -> RewardFunctions:
    config = config or RewardConfig({"distillation": 0.0})
    return RewardFunctions(
        config,
        AnswerFrame((size, size)),
        "no-detailed",
        None,
        lambda texts: [len(text.split()) for text in texts],
        "Find it.",
        form,
    )


def score(
    answer: str, truth: Sequence[tuple[int, int, int, int]], rewards: RewardFunctions | None = None
) -> dict[str, float]:
    row = [{"box": list(box), "points": [list(CENTERS[box])]} for box in truth]
    completion = f"<think> two rings </think><answer>{answer}</answer>"
    functions = (rewards or make()).functions()
    return {each.__name__: each(prompts=["p"], completions=[completion], objects=[row])[0] for each in functions}


def listed(*boxes: tuple[int, int, int, int], shift: int = 0) -> str:
    moved = [(tuple(edge + shift for edge in box), CENTERS[box]) for box in boxes]
    return json.dumps([{"bbox_2d": box, "point_2d": point} for box, point in moved])


def values(answer: float, iou: float, l1: float, points: float, count: float) -> dict[str, float]:
    return dict(zip(NAMES, (1.0, answer, iou, l1, points, count), strict=True))


def test_terms_of_lists() -> None:
    assert [each.__name__ for each in make().functions()] == NAMES
    assert make().weights() == [1.0] * 6
    assert [each.__name__ for each in make(form=BOX_LABEL_LIST).functions()] == [n for n in NAMES if n != "points"]
    silent = make(RewardConfig({"distillation": 0.0, "count": 0.0}))
    assert [each.__name__ for each in silent.functions()] == NAMES[:-1]


@pytest.mark.parametrize(
    ("answer", "truth", "expected"),
    [
        (listed(A, B), (A, B), values(1, 1, 1, 1, 1)),
        (listed(B, A), (A, B), values(1, 1, 1, 1, 1)),  # the order does not matter
        (listed(A), (A, B), values(1, 0.5, 0.5, 0.5, 0)),  # one is missing
        (listed(A, B, C), (A,), values(1, 1 / 3, 1 / 3, 1 / 3, 0)),  # two are too many
        (listed(A, A), (A, B), values(1, 0.5, 0.5, 0.5, 1)),  # each object has one partner
        (listed(C), (A,), values(1, 0, 0, 0, 1)),
        ("[]", (), values(1, 1, 1, 1, 1)),  # rightly nothing
        ("[]", (A,), values(1, 0, 0, 0, 0)),  # wrongly nothing
        (listed(A), (), values(1, 0, 0, 0, 0)),
        ("nothing", (), values(0, 0, 0, 0, 0)),  # unreadable, even if nothing is right
        (listed(A, shift=9), (A,), values(1, inclusive_iou((109, 109, 309, 309), A), 1, 1, 1)),
        (listed(A, shift=10), (A,), values(1, inclusive_iou((110, 110, 310, 310), A), 0, 1, 1)),
    ],
)
def test_worked_examples(answer: str, truth: Any, expected: dict[str, float]) -> None:
    assert score(answer, truth) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("point", "near"), [((200, 200), 1.0), ((200, 299), 1.0), ((200, 300), 0.0), ((99, 200), 0.0), ((120, 120), 0.0)]
)
def test_points_are_inside_and_near(point: tuple[int, int], near: float) -> None:
    answer = json.dumps([{"bbox_2d": A, "point_2d": point}])
    assert score(answer, (A,))["points"] == near


def test_thresholds_follow_the_size() -> None:
    truth = [{"box": [50, 50, 150, 150], "points": [[100, 100]]}]
    answer = '<answer>[{"bbox_2d": [55, 55, 155, 155], "point_2d": [100, 149]}]</answer>'
    for size, expected in ((840, (1.0, 1.0)), (420, (0.0, 1.0)), (400, (0.0, 0.0))):
        terms = {
            each.__name__: each(prompts=["p"], completions=[answer], objects=[truth])[0]
            for each in make(size=size).functions()
        }
        assert (terms["box_l1"], terms["points"]) == expected


def test_length_counts_where_boxes_pass_the_gate() -> None:
    rewards = make(RewardConfig({"distillation": 0.0, "length": 1.0}))
    assert score(listed(A, B), (A, B), rewards)["length"] > 0.0
    assert score(listed(A), (A, B), rewards)["length"] == 0.0, "a mean of 0.5 is not above it"
    assert score("[]", (), rewards)["length"] > 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "[",
        "]",
        "{}",
        "[1]",
        "[[]]",
        '[{"bbox_2d": [1, 2, 3, 4]}]',
        '[{"point_2d": [1, 2]}]',
        '[{"bbox_2d": [1, 2, 3], "point_2d": [1, 2]}]',
        '[{"bbox_2d": [1, 2, 3, "4"], "point_2d": [1, 2]}]',
        '[{"bbox_2d": [1, 2, 3, NaN], "point_2d": [1, 2]}]',
        '[{"bbox_2d": [1, 2, 3, 1e300], "point_2d": [1, 2]}]',
        '[{"bbox_2d": [1, 2, 3, 4], "point_2d": [1, null]}]',
        f"[{', '.join(['{}'] * 101)}]",
        "[" * 60_000,
        "[" + "9" * 60_000 + "]",
    ],
)
def test_unreadable_lists(answer: str) -> None:
    assert score(answer, (A,)) == values(0, 0, 0, 0, 0)


def test_other_keys_and_fractions_are_read() -> None:
    text = '<answer> [{"label": "ring", "point_2d": [5.9, 6], "bbox_2d": [1.5, 2, 30, 40]}] </answer>'
    reading = read_list(text, BOX_POINT_LIST, AnswerFrame((SIZE, SIZE)))
    assert (reading.has_answer, reading.objects) == (True, (FoundObject((1.5, 2, 30, 40), ((5, 6),)),))
    turned = read_list(text, BOX_POINT_LIST, AnswerFrame((SIZE, SIZE), YX))
    assert turned.objects == (FoundObject((2, 1.5, 40, 30), ((6, 5),)),)
    assert read_list(text, BOX_LABEL_LIST, AnswerFrame((SIZE, SIZE))).objects == (FoundObject((1.5, 2, 30, 40), ()),)
    assert read_list(text.replace('"ring"', "3"), BOX_LABEL_LIST, AnswerFrame((SIZE, SIZE))).objects is None


def test_repeating_the_prompt_is_no_answer() -> None:
    shown = '[{"bbox_2d": [x1, y1, x2, y2], "point_2d": [x, y]}]'
    (placeholder,) = find_placeholders(f"Answer with {shown}.", BOX_POINT_LIST)
    assert placeholder == '{"bbox_2d":[x1,y1,x2,y2],"point_2d":[x,y]}'


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"box": [[1, 2, 3, 4]]}, "no column 'objects'; rewards need 'objects'"),
        ({"objects": []}, "1 completions need as many rows of 'objects', not 0"),
        ({"objects": [[{"box": [1, 2, 3], "points": [[1, 2]]}]]}, "is not 4 numbers"),
        ({"objects": [[{"box": [1, 2, 3, 4], "points": [[1, 2], [1, 2]]}]]}, "not 1 x 2"),
    ],
)
def test_columns_that_do_not_fit(columns: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make().functions()[0](prompts=["p"], completions=["[]"], **columns)


boxes = st.tuples(*[st.integers(0, 60)] * 4).map(lambda b: (b[0], b[1], b[0] + b[2] + 1, b[1] + b[3] + 1))
places = st.tuples(st.integers(0, 120), st.integers(0, 120))
objects = st.lists(st.tuples(boxes, places), max_size=4)


@given(objects, objects)
def test_the_assignment_is_the_best_of_all(found: Any, truth: Any) -> None:
    answered = tuple(FoundObject(box, (point,)) for box, point in found)
    meant = tuple(AnsweredObject(box, (point,)) for box, point in truth)
    got = compare_objects(answered, meant, 10.0, 20.0)

    def total(pairs: Sequence[tuple[FoundObject, AnsweredObject]]) -> float:
        one = [compare_objects((a,), (b,), 10.0, 20.0) for a, b in pairs]
        return sum(each.box_iou + each.box_l1 + each.points for each in one)

    larger = max(len(answered), len(meant))
    if not larger:
        assert got == Agreement(1.0, 1.0, 1.0, 1.0)
        return
    few, many = (answered, meant) if len(answered) <= len(meant) else (meant, answered)
    ways = ([*zip(few, chosen, strict=True)] for chosen in permutations(many, len(few)))
    turned = (way if few is answered else [(b, a) for a, b in way] for way in ways)
    best = max(total(way) for way in turned)  # type: ignore[arg-type]
    assert got.box_iou + got.box_l1 + got.points == pytest.approx(best / larger)
    assert got.count == float(len(answered) == len(meant))
    assert all(0.0 <= value <= 1.0 for value in (got.box_iou, got.box_l1, got.points))


def test_distance_is_that_of_the_better_pairing() -> None:
    assert points_distance([(0, 0)], [(3, 4)]) == 5.0
    assert points_distance([(0, 0), (10, 0)], [(10, 0), (0, 0)]) == 0.0
    assert points_distance([(0, 0), (10, 0)], [(0, 0), (10, 6)]) == 3.0
