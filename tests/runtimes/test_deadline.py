"""A deadline takes the richest rationale that this device's own readings say will fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fake_session import FakeImage, FakeMask, FakePolicy
from wise_edge.errors import UsageError
from wise_edge.runtimes.base import Decoding, PolicyOutput, Request
from wise_edge.runtimes.deadline import PAPER_TOKENS, Decode, LatencyHistory, check_choice
from wise_edge.runtimes.results import TokenCounts
from wise_edge.runtimes.session import Session

PICTURE = np.zeros((20, 30, 3), np.uint8)


def measured(step_ms: float = 2.0) -> LatencyHistory:
    """A device where an image takes 100 ms, a query 10 ms and a step `step_ms`; no rationale has been seen."""
    pace = LatencyHistory()
    pace.observe("answer", frame_ms=100.0, query_ms=10.0, decode=Decode(20 * step_ms, 20, 0))
    return pace


def test_with_nothing_measured_the_fastest_is_taken() -> None:
    choice = LatencyHistory().choose(1e6, new_frame=True)

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
    choice = measured().choose(deadline_ms, new_frame=new_frame)

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
        pace.observe(
            "wise-infer", frame_ms=None, query_ms=10.0, decode=Decode(2.0 * (20 + tokens), 20 + tokens, tokens)
        )

    assert pace.choose(240, new_frame=True).variant == "wise-s"
    assert pace.choose(320, new_frame=True).variant == "wise-infer"
    assert pace.choose(320, new_frame=True).expected_ms == pytest.approx(150 + 2 * 78)  # 90th percentile


def test_old_readings_are_forgotten() -> None:
    pace = measured(step_ms=50.0)
    for _ in range(32):
        pace.observe("answer", frame_ms=100.0, query_ms=10.0, decode=Decode(20.0, 20, 0))

    assert pace.choose(1000, new_frame=False).expected_ms == pytest.approx(10 + 20 + PAPER_TOKENS["wise-infer"])


def test_a_pace_is_kept_for_another_process_and_damage_is_no_reading(tmp_path: Path) -> None:
    file = tmp_path / "cache" / "pace.json"
    measured().write(file)
    assert LatencyHistory.read(file).choose(230, new_frame=True) == measured().choose(230, new_frame=True)

    for damage in ("", "[1]", '{"step_ms": ["x"]}', '{"step_ms": 3}'):
        file.write_text(damage)
        assert LatencyHistory.read(file).choose(230, new_frame=True).expected_ms is None
    assert LatencyHistory.read(tmp_path / "none.json").choose(230, new_frame=True).expected_ms is None


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
    with pytest.raises(UsageError, match="a deadline chooses the variant; leave the variant out"):
        Session(FakePolicy(), FakeMask(), {}).segment(PICTURE, "the ring", "wise-s", deadline_ms=100)


def test_only_variants_of_the_policy_are_chosen() -> None:
    assert LatencyHistory().choose(1e6, new_frame=True, variants=("mine", "wise-s", "wise-infer")).variant == "wise-s"
    assert measured().choose(1e6, new_frame=True, variants=("wise-s", "answer")).variant == "wise-s"
    assert measured().choose(1e-3, new_frame=True, variants=("wise-s",)).variant == "wise-s"
    with pytest.raises(UsageError, match="chooses among wise-infer, wise-s, answer; this policy has none of them"):
        check_choice(("mine",), None, 100.0)
