"""Where in space a mask is, from depth and intrinsics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from node_harness import NS, make_frame, running
from tracking_fakes import square_image
from wise_edge.errors import UsageError
from wise_edge.robot.frames import Frame, Intrinsics, find_place

CAMERA = Intrinsics(500.0, 500.0, 56.0, 56.0)


def deep(depth_m: np.ndarray) -> Frame:
    return replace(make_frame(0), depth_m=depth_m.astype(np.float32), intrinsics=CAMERA)


def test_depth_and_intrinsics_give_a_place_in_the_cameras_frame() -> None:
    mask = square_image(66, 20)[..., 0] > 0  # columns 66 to 85, rows 40 to 59
    place = find_place(mask, deep(np.full((112, 112), 2.0)))

    assert place is not None
    assert place.center_m == pytest.approx(((75.5 - 56) * 2 / 500, (49.5 - 56) * 2 / 500, 2.0))
    assert place.extent_m == pytest.approx((0.9 * 19 * 2 / 500, 0.9 * 19 * 2 / 500, 0.0), rel=0.1)
    assert place.points == 400


def test_pixels_without_depth_and_background_do_not_count() -> None:
    mask = square_image(66, 20)[..., 0] > 0
    depth = np.full((112, 112), 2.0)
    depth[40:42, 66:72] = 9.0  # flying pixels at an edge: 12 of 320
    depth[50:52, 66:86] = np.nan
    depth[52:54, 66:86] = 0.0
    place = find_place(mask, deep(depth))
    assert place is not None
    assert place.center_m[2] == pytest.approx(2.0, abs=0.02)
    assert place.points == 320

    assert find_place(mask, deep(np.zeros((112, 112)))) is None
    assert find_place(mask, make_frame(0)) is None


def test_impossible_cameras_are_rejected() -> None:
    with pytest.raises(UsageError, match="register the depth image to the color camera"):
        Frame.of(square_image(10), NS, depth_m=np.zeros((4, 4), np.float32))
    with pytest.raises(UsageError, match="focal lengths must be positive"):
        Intrinsics(0.0, 500.0, 1.0, 1.0)


def test_results_have_the_place_of_their_mask() -> None:
    with running() as harness:
        harness.node.follow("the square")
        harness.allow()
        harness.node.put(deep(np.full((112, 112), 2.0)))
        harness.wait(1)
    place = harness.results[0].place
    assert place is not None
    assert place.center_m[2] == pytest.approx(2.0)
    assert harness.results[0].to_dict()["place"]["points"] == 400
