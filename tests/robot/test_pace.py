"""When frames were taken, and what the policy would have seen of them live."""

from __future__ import annotations

import pytest

from wise_edge.robot.pace import choose_times, replay

BEGIN_NS = 1_700_000_000_123_456_789
SECONDS = [number * 10**9 for number in range(6)]
NOW = [BEGIN_NS + time_ns for time_ns in SECONDS]


@pytest.mark.parametrize(
    ("stamps", "reason"),
    [
        ([time_ns - 5_000_000 for time_ns in NOW], None),
        (SECONDS, None),  # since the camera was switched on
        ([time_ns + 30_000_000 * (number % 3) for number, time_ns in enumerate(NOW)], None),  # recorded late
        ([0] * 6, "do not ascend"),
        ([0, *NOW[1:]], "drift apart"),
        ([*NOW[:3], 0, *NOW[4:]], "do not ascend"),
        (NOW[::-1], "do not ascend"),
        ([*NOW[:5], NOW[5] + 10**18], "drift apart"),
        ([*NOW[:3], *(time_ns + 60 * 10**9 for time_ns in NOW[3:])], "drift apart"),  # the clock was set
        ([time_ns // 1000 for time_ns in NOW], "drift apart"),  # microseconds taken for nanoseconds
        ([time_ns * 10**9 for time_ns in SECONDS], "drift apart"),
    ],
)
def test_stamps_that_cannot_be_right_are_replaced_by_the_times_of_the_recording(
    stamps: list[int], reason: str | None
) -> None:
    times_s, clock = choose_times(stamps, NOW)
    if reason is None:
        assert clock is None
        assert times_s == pytest.approx([(stamp_ns - stamps[0]) / 1e9 for stamp_ns in stamps])
    else:
        assert reason in (clock or "")
        assert (clock or "").endswith("these are the times of the recording")
        assert times_s == (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    assert replay(times_s, [0.1] * 6).rate_hz == pytest.approx(1.0, rel=0.02)


def test_without_right_times_there_are_no_live_figures() -> None:
    assert choose_times(NOW, [BEGIN_NS] * 6) == ((0.0, 1.0, 2.0, 3.0, 4.0, 5.0), None)
    times_s, clock = choose_times([0] * 6, [BEGIN_NS] * 6)
    assert times_s == ()
    assert clock == "the images' stamps do not ascend, and the times of the recording do not either"
    assert choose_times([0], [BEGIN_NS]) == ((0.0,), None)


def test_the_newest_frame_wins_in_a_replay() -> None:
    stamps = [number * 0.1 for number in range(10)]
    fast = replay(stamps, [0.05] * 10)
    assert (fast.grounded, fast.dropped) == (tuple(range(10)), 0)
    assert fast.rate_hz == pytest.approx(10.0)
    assert fast.age_s == pytest.approx([0.1] * 9)

    slow = replay(stamps, [0.25] * 10)
    assert slow.grounded == (0, 2, 5, 7, 9)  # free at 0.25, 0.5, 0.75, 1.0
    assert slow.dropped == 5
    assert slow.age_percentile_s(99) == pytest.approx(0.5, abs=0.02)
    assert replay([], []).rate_hz is None
    assert replay([1.0], [0.5]).age_percentile_s(50) is None
