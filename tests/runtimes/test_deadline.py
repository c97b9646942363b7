"""A deadline takes the richest rationale that this device's own readings say will fit."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from fake_session import FakeImage, FakeMask, FakePolicy, completion
from virtual_time import TimedMask, TimedPolicy, VirtualTime
from wise_edge.bundle.evaluated import Evaluated, EvaluatedRun
from wise_edge.errors import UsageError
from wise_edge.geometry import Size
from wise_edge.policy.picture import Grid
from wise_edge.runtimes.base import Decoding, PolicyOutput, Request
from wise_edge.runtimes.deadline import Decode, FrameCost, LatencyHistory, check_choice
from wise_edge.runtimes.deadline_options import PAPER_TOKENS, RICHEST_FIRST, Option, list_options
from wise_edge.runtimes.results import TokenCounts
from wise_edge.runtimes.session import Session

FRAME = FrameCost(100.0, 60.0, 16)
PICTURE = np.zeros((20, 30, 3), np.uint8)


def measured(step_ms: float = 2.0) -> LatencyHistory:
    """A device where an image takes 100 ms, a query 10 ms and a step `step_ms`; no rationale has been seen."""
    pace = LatencyHistory()
    pace.observe("answer", frame=FRAME, query_ms=10.0, decode=Decode(20 * step_ms, 20, 0))
    return pace


def richest(new_frame: bool = True, variants: Collection[str] = RICHEST_FIRST) -> list[Option]:
    """What there is to choose from where nothing is recorded."""
    return [replace(option, new_frame=new_frame) for option in list_options(variants, None, None)]


def test_with_nothing_measured_the_fastest_is_taken() -> None:
    choice = LatencyHistory().choose(1e6, richest())

    assert (choice.variant, choice.expected_ms, choice.max_rationale_tokens) == ("answer", None, None)
    assert "nothing was measured" in choice.reason


@pytest.mark.parametrize(
    ("deadline_ms", "new_frame", "variant"),
    [
        (230, True, "wise-infer"),
        (220, True, "wise-s"),
        (190, True, "answer"),
        (130, False, "wise-infer"),
        (9, True, "answer"),
    ],
)
def test_the_richest_that_fits_is_taken(deadline_ms: float, new_frame: bool, variant: str) -> None:
    choice = measured().choose(deadline_ms, richest(new_frame))

    fixed = 10 + 2 * 20 + 100 * new_frame
    assert choice.variant == variant
    assert choice.expected_ms == pytest.approx(fixed + 2 * PAPER_TOKENS[variant])
    assert (choice.expected_ms <= deadline_ms) == (deadline_ms > 9)
    assert f"{deadline_ms:g} ms" in choice.reason
    if variant != "answer":  # what is left of the deadline is the rationale's
        assert choice.max_rationale_tokens == (deadline_ms - fixed) // 2


def test_own_rationales_take_the_place_of_the_papers() -> None:
    pace = measured()
    for tokens in (60, 70, 80):
        pace.observe("wise-infer", frame=None, query_ms=10.0, decode=Decode(2.0 * (20 + tokens), 20 + tokens, tokens))

    assert pace.choose(240, richest()).variant == "wise-s"
    assert pace.choose(320, richest()).variant == "wise-infer"
    assert pace.choose(320, richest()).expected_ms == pytest.approx(150 + 2 * 78)  # 90th percentile


def test_old_readings_are_forgotten() -> None:
    pace = measured(step_ms=50.0)
    for _ in range(32):
        pace.observe("answer", frame=FRAME, query_ms=10.0, decode=Decode(20.0, 20, 0))

    assert pace.choose(1000, richest(False)).expected_ms == pytest.approx(10 + 20 + PAPER_TOKENS["wise-infer"])


def test_a_pace_is_kept_for_another_process_and_damage_is_no_reading(tmp_path: Path) -> None:
    file = tmp_path / "cache" / "pace.json"
    measured().write(file)
    assert LatencyHistory.read(file).choose(230, richest()) == measured().choose(230, richest())

    for damage in (
        "",
        "[1]",
        '{"step_ms": [1.0]}',
        '{"all": {"step_ms": ["x"]}}',
        '{"all": {"step_ms": 3}}',
        '{"all": {"frame_ms": [1], "image_ms": [1], "image_tokens": [1], "query_ms": [1], "step_ms": [1]}}',
    ):
        file.write_text(damage)
        assert LatencyHistory.read(file).choose(230, richest()).expected_ms is None
    assert LatencyHistory.read(tmp_path / "none.json").choose(230, richest()).expected_ms is None


class Counting(FakePolicy):
    """Takes 2 ms a step, 20 steps for an answer, and says how it was asked."""

    asked: list[tuple[str, Decoding]]

    def generate(self, encoded: FakeImage, request: Request) -> PolicyOutput:
        tokens = {"wise-infer": 40, "wise-s": 20, "answer": 0}[request.variant]
        self.asked.append((request.variant, request.decoding))
        counts = TokenCounts(40, 16, tokens, 49, 29, 20 + tokens)
        return replace(super().generate(encoded, request), tokens=counts, decode_ms=2.0 * (20 + tokens))


def test_a_session_learns_from_its_queries_and_says_what_it_chose() -> None:
    policy = Counting()
    policy.asked = []
    session = Session(policy, FakeMask(), {})

    first = session.segment(PICTURE, "the ring", deadline_ms=100)
    later = [session.segment(PICTURE, "the ring", deadline_ms=ms) for ms in (1000, 112, 60)]

    assert first.deadline is not None
    assert (first.variant, first.deadline.expected_ms) == ("answer", None)
    assert [result.variant for result in later] == ["wise-infer", "wise-s", "answer"]
    assert later[1].to_dict()["deadline"]["variant"] == "wise-s"
    assert session.segment(PICTURE, "the ring").deadline is None
    cap = policy.asked[2][1].max_rationale_tokens  # 7 + 4 + 40 ms are the prompt's, the mask's and the answer's
    assert cap == (112 - 51) // 2


@pytest.mark.parametrize("deadline_ms", [0, -1, float("nan"), float("inf"), "80", True])
def test_deadlines_that_cannot_be(deadline_ms: float) -> None:
    with pytest.raises(UsageError, match="deadline_ms must be a positive number, got"):
        Session(FakePolicy(), FakeMask(), {}).segment(PICTURE, "the ring", deadline_ms=deadline_ms)


def test_a_deadline_and_a_variant_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="a deadline chooses the variant; pass only one of them"):
        Session(FakePolicy(), FakeMask(), {}).segment(PICTURE, "the ring", "wise-s", deadline_ms=100)


def test_only_variants_of_the_policy_are_chosen() -> None:
    assert LatencyHistory().choose(1e6, richest(variants=("mine", "wise-s", "wise-infer"))).variant == "wise-s"
    assert measured().choose(1e6, richest(variants=("wise-s", "answer"))).variant == "wise-s"
    assert measured().choose(1e-3, richest(variants=("wise-s",))).variant == "wise-s"
    with pytest.raises(UsageError, match="chooses among wise-infer, wise-s, answer; this policy has none of them"):
        check_choice(("mine",), None, 100.0)


def record(*runs: tuple[str, int | None, float, float]) -> Evaluated:
    """What a bundle records: variant, pixels, gIoU and rationale tokens of each run."""
    found = tuple(EvaluatedRun(name, pixels, giou, giou, tokens, 45.0, "0" * 64) for name, pixels, giou, tokens in runs)
    return Evaluated("scenes", "test", 100, "lisa", "forced", {"policy": "llama", "mask": "onnx"}, "0" * 64, found)


EVALUATED = record(
    ("wise-s", None, 0.9, 15.0),
    ("answer", None, 0.8, 0.0),
    ("wise-s", 7056, 0.85, 15.0),
    ("answer", 7056, 0.5, 0.0),
    ("answer", 3136, 0.2, 0.0),
)
TOKENS = {None: 16, 7056: 9, 3136: 4}


def evaluated_options(held: int | None = 0, pixels: int | None = None) -> list[Option]:
    listed = list_options(RICHEST_FIRST, EVALUATED, pixels)
    return [replace(each, image_tokens=TOKENS[each.pixels], new_frame=each.pixels != held) for each in listed]


def test_what_was_evaluated_is_listed_by_accuracy_and_nothing_else() -> None:
    assert [(option.variant, option.pixels, option.giou) for option in evaluated_options()] == [
        ("wise-s", None, 0.9),
        ("wise-s", 7056, 0.85),
        ("answer", None, 0.8),
        ("answer", 7056, 0.5),
        ("answer", 3136, 0.2),
    ]
    assert [option.name for option in list_options(RICHEST_FIRST, EVALUATED, 7056)] == [
        "wise-s at 7056 px",
        "answer at 7056 px",
    ]
    asked = list_options(RICHEST_FIRST, EVALUATED, 5000)  # who asks for a budget gets it, by the rule without a record
    assert [(option.variant, option.pixels, option.giou) for option in asked] == [
        (name, 5000, None) for name in RICHEST_FIRST
    ]
    alike = record(("wise-s", None, 0.5, 15.0), ("answer", None, 0.5, 0.0))
    assert [option.variant for option in list_options(RICHEST_FIRST, alike, None)] == ["answer", "wise-s"]
    mine = record(("mine", None, 0.5, 3.0))
    assert [option.variant for option in list_options(("mine",), mine, None)] == ["mine"]
    check_choice(("mine",), None, 100.0, mine)


@pytest.mark.parametrize(
    ("deadline_ms", "variant", "pixels", "expected_ms"),
    [  # 40 ms of an image are not the policy's, 60 ms for 16 tokens are; 10 ms a query, 2 ms a step, 20 steps an answer
        (180, "wise-s", None, 100 + 10 + 40 + 30),
        (179, "wise-s", 7056, 40 + 60 * 9 / 16 + 10 + 40 + 30),
        (153, "answer", None, 100 + 10 + 40),
        (149, "answer", 7056, 40 + 60 * 9 / 16 + 50),
        (120, "answer", 3136, 40 + 60 * 4 / 16 + 50),
        (1, "answer", 3136, 40 + 60 * 4 / 16 + 50),
    ],
)
def test_the_most_accurate_that_fits_is_taken(
    deadline_ms: float, variant: str, pixels: int | None, expected_ms: float
) -> None:
    choice = measured().choose(deadline_ms, evaluated_options())

    assert (choice.variant, choice.pixels) == (variant, pixels)
    assert choice.expected_ms == pytest.approx(expected_ms)
    assert choice.giou == next(run.giou for run in EVALUATED.runs if (run.variant, run.pixels) == (variant, pixels))
    assert ("nothing was expected to fit 1 ms" in choice.reason) == (deadline_ms == 1)
    assert len(choice.considered) == 5
    assert choice.considered[1] == "wise-s at 7056 px, gIoU 0.850, 154 ms expected"
    assert choice.max_rationale_tokens == (None if variant == "answer" else 15 + int((deadline_ms - expected_ms) / 2))


def test_a_rationale_is_closed_in_time_also_where_nothing_is_faster() -> None:
    alone = list_options(("wise-s",), record(("wise-s", 7056, 0.9, 15.0)), None)
    choice = measured().choose(240, [replace(option, image_tokens=16) for option in alone])
    assert choice.max_rationale_tokens == (240 - 150) // 2
    assert measured().choose(60, alone).max_rationale_tokens is None  # it is late anyway


def test_with_nothing_measured_the_fastest_of_those_evaluated_is_taken() -> None:
    choice = LatencyHistory().choose(1e6, evaluated_options())
    assert (choice.variant, choice.pixels, choice.giou, choice.expected_ms) == ("answer", 3136, 0.2, None)
    assert "nothing was measured" in choice.reason
    assert choice.considered[0] == "wise-s, gIoU 0.900, not measured yet"


def test_a_budget_that_was_seen_counts_by_its_own_readings_and_the_others_by_the_nearest() -> None:
    pace = measured()
    pace.observe("answer", 3136, frame=FrameCost(90.0, 45.0, 4), query_ms=9.0, decode=Decode(30.0, 20, 0))
    expected = {option.pixels: pace.choose(1e6, [option]).expected_ms for option in evaluated_options()[2:]}
    assert expected[None] == pytest.approx(150)
    assert expected[3136] == pytest.approx(90 + 9 + 30)
    assert expected[7056] == pytest.approx(45 + 45 * 9 / 4 + 9 + 30)  # 9 tokens are nearer to 4 than to 16


def test_an_image_that_is_encoded_costs_nothing_again_in_its_budget_alone() -> None:
    choice = measured().choose(100, evaluated_options(held=7056))
    assert (choice.variant, choice.pixels, choice.expected_ms) == ("wise-s", 7056, pytest.approx(80))


def test_budgets_are_kept_for_another_process_and_bounded(tmp_path: Path) -> None:
    pace = measured()
    for pixels in range(1000, 1300):
        pace.observe("answer", pixels, frame=FRAME, query_ms=10.0, decode=Decode(40.0, 20, 0))
    pace.write(tmp_path / "pace.json")
    kept = LatencyHistory.read(tmp_path / "pace.json")
    options = [replace(option, image_tokens=16) for option in list_options(RICHEST_FIRST, None, 1299)]
    assert kept.choose(150, options) == pace.choose(150, options)
    assert len(kept._budgets) == 128 and "1299" in kept._budgets and "all" not in kept._budgets


class Sized(TimedPolicy):
    """Takes 10 ms for each token of an image, 3 ms a word, and no budget below 56 x 56 pixels."""

    def grid(self, size: Size, pixels: int | None = None) -> Grid:
        if pixels is not None and pixels < 3136:
            raise UsageError("it takes no such images")
        return super().grid(size, pixels)

    def encode(self, image: npt.NDArray[np.uint8], pixels: int | None = None) -> FakeImage:
        columns, rows = self.grid((30, 20), pixels)
        self.time.pause(columns * rows / 100)
        return FakeImage(image, 0.0, 10.0 * columns * rows, 0.0)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    time = VirtualTime()
    time.install(monkeypatch)
    return time


def images() -> Iterator[npt.NDArray[np.uint8]]:
    for value in itertools.count():
        yield np.full((20, 30, 3), value, np.uint8)


def test_a_session_chooses_among_what_was_evaluated_and_keeps_the_deadline(time: VirtualTime) -> None:
    def write(image: npt.NDArray[np.uint8], query: str, variant: str) -> str:
        return completion("one two three four" if variant == "wise-s" else "")

    session = Session(Sized(time, write), TimedMask(time), {}, evaluated=EVALUATED)
    new = images()
    for deadline_ms, variant, pixels, expected_ms in [
        (1000, "answer", 3136, None),  # nothing was measured
        (1000, "wise-s", None, 280),  # by the steps of its evaluation; it takes 244 ms
        (250, "wise-s", None, 244),
        (200, "wise-s", 7056, 174),
        (170, "answer", 7056, 165),
        (150, "answer", 3136, 115),
        (100, "answer", 3136, 115),
        (1000, "wise-s", None, 244),
    ]:
        result = session.segment(next(new), "the ring", deadline_ms=deadline_ms)
        assert result.deadline is not None
        assert (result.variant, result.pixels) == (result.deadline.variant, result.deadline.pixels)
        assert (result.variant, result.pixels) == (variant, pixels)
        assert result.deadline.expected_ms == (expected_ms and pytest.approx(expected_ms))
        assert result.latency_ms.total <= deadline_ms or deadline_ms == 100
    shown = result.to_dict()
    assert (shown["pixels"], shown["deadline"]["pixels"], shown["deadline"]["giou"]) == (None, None, 0.9)
    assert len(shown["deadline"]["considered"]) == 5


def test_nothing_is_learned_of_the_image_where_a_part_of_it_was_known_nor_of_what_found_nothing(
    time: VirtualTime,
) -> None:
    session = Session(Sized(time), TimedMask(time), {})
    session.segment(PICTURE, "the ring", "answer")
    session.segment(PICTURE, "the ring", "answer", pixels=7056)  # the segmenter has it encoded
    learned = session.latency_history._budgets
    assert len(learned["all"]["frame_ms"]) == len(learned["7056"]["query_ms"]) == 1
    assert not learned["7056"]["frame_ms"]
    session.policy.write = lambda *_: "no idea"
    session.segment(PICTURE, "the ring", "answer")
    assert len(learned["all"]["query_ms"]) == 1


def test_a_budget_that_was_asked_for_is_kept_and_one_that_the_backend_lacks_is_not_chosen(time: VirtualTime) -> None:
    small = record(("answer", 784, 0.99, 0.0), ("answer", 7056, 0.5, 0.0), ("wise-s", 7056, 0.6, 15.0))
    session = Session(Sized(time), TimedMask(time), {}, evaluated=small)
    new = images()
    for _ in range(3):
        result = session.segment(next(new), "the ring", deadline_ms=60_000)
    assert result.deadline is not None
    assert (result.variant, result.pixels) == ("wise-s", 7056)
    assert result.deadline.considered[-1] == "answer at 784 px: it takes no such images"

    asked = session.segment(next(new), "the ring", deadline_ms=60_000, pixels=5000)
    assert asked.deadline is not None
    assert (asked.variant, asked.pixels, asked.deadline.giou) == ("wise-infer", 5000, None)
    with_budget = Session(Sized(time), TimedMask(time), {}, evaluated=small, pixels=7056)
    assert with_budget.segment(next(new), "the ring", deadline_ms=1).pixels == 7056

    none = Session(Sized(time), TimedMask(time), {}, evaluated=record(("answer", 784, 0.99, 0.0)))
    with pytest.raises(UsageError, match="a deadline has nothing to choose from: answer at 784 px: it takes no such"):
        none.segment(next(new), "the ring", deadline_ms=100)
    assert none.segment(next(new), "the ring").pixels is None


def test_without_a_record_a_deadline_keeps_the_pixels(time: VirtualTime) -> None:
    session = Session(Sized(time), TimedMask(time), {}, pixels=7056)
    new = images()
    results = [session.segment(next(new), "the ring", deadline_ms=60_000) for _ in range(2)]
    assert [(result.variant, result.pixels) for result in results] == [("answer", 7056), ("wise-infer", 7056)]
