"""Wrong arguments of the Python API are refused at the call, before any work, with what was given."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fake_session import FakeMask, FakePolicy
from wise_edge import Decoding, Session, Stamped, load_image
from wise_edge.errors import UsageError
from wise_edge.robot.frames import Frame, Intrinsics
from wise_edge.robot.node import Node
from wise_edge.runtimes.tracking import NewestFrame, at_recorded_pace

PIXELS = np.zeros((4, 6, 3), np.uint8)
IMAGES = [
    (None, "got None"),
    (PIXELS.tolist(), "got list [["),
    (PIXELS.astype(np.float32), "got float32 [4, 6, 3]"),
    (PIXELS.astype(np.int64), "got int64 [4, 6, 3]"),
    (PIXELS[..., 0], "got uint8 [4, 6]"),
    (PIXELS[..., :1], "got uint8 [4, 6, 1]"),
    (np.zeros((4, 6, 4), np.uint8), "got uint8 [4, 6, 4]"),
    (PIXELS.transpose(2, 0, 1), "got uint8 [3, 4, 6]"),
    (PIXELS[None], "got uint8 [1, 4, 6, 3]"),
    (PIXELS[:0], "got uint8 [0, 6, 3]"),
]
QUERIES = [
    (None, "got None"),
    (7, "got int 7"),
    (b"ring", "got bytes b'ring'"),
    (["the ring"], "got list ['the ring']"),
]


def session() -> Session:
    return Session(FakePolicy(), FakeMask(), {})


def node() -> Node:
    return Node(session(), print)


@pytest.mark.parametrize(("image", "given"), IMAGES)
@pytest.mark.parametrize(
    "call",
    [
        lambda image: session().segment(image, "the ring"),
        lambda image: session().segment_many(image, ["the ring"]),
        lambda image: session().find_mask(image, (0, 0, 2, 2), ()),
    ],
)
def test_an_image_is_a_path_an_image_of_pillow_or_an_array(
    call: Callable[[Any], Any], image: object, given: str
) -> None:
    with pytest.raises(UsageError, match=rf"uint8 RGB (image|array) \[H, W, 3\], {re.escape(given)}"):
        call(image)


@pytest.mark.parametrize(("image", "given"), [*IMAGES, ("photo.jpg", "got str"), (Image.new("RGB", (6, 4)), "got Im")])
@pytest.mark.parametrize("call", [lambda image: Stamped(image, 0.0), lambda image: Frame.of(image, 0)])
def test_a_frame_is_a_uint8_rgb_array(call: Callable[[Any], Any], image: object, given: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"expected a uint8 RGB image [H, W, 3], {given}")):
        call(image)


@pytest.mark.parametrize(("query", "given"), QUERIES)
@pytest.mark.parametrize(
    "call",
    [
        lambda query: session().segment(PIXELS, query),
        lambda query: session().segment_many(PIXELS, [query]),
        lambda query: session().track([], query),
        lambda query: node().ask(query),
        lambda query: node().follow([query]),
    ],
)
def test_a_query_is_text(call: Callable[[Any], Any], query: object, given: str) -> None:
    with pytest.raises(UsageError, match="the query must be text, got"):
        call(query)


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: node().put(PIXELS), "put takes a frame, Frame.of(image, stamp_ns), got uint8 [4, 6, 3]"),
    (lambda: node().put(Stamped(PIXELS, 0.0)), "put takes a frame, Frame.of(image, stamp_ns), got Stamped"),
    (lambda: node().put(None), "put takes a frame, Frame.of(image, stamp_ns), got None"),
    (lambda: node().ask("it", "5"), "timeout_s must be a finite number, got str '5'"),
    (lambda: node().ask("it", float("inf")), "timeout_s must be a finite number, got float inf"),
    (lambda: node().enable("false"), "enable takes True or False, got str 'false'"),
    (lambda: Node("bundle", print), "session must be a Session, got str 'bundle'"),
    (lambda: Node(session(), []), "publish must be a function, got list []"),
    (lambda: Node(session(), print, variant="short"), "unknown variant 'short'; choose one of verbose, wise"),
    (lambda: Node(session(), print, deadline_ms=0), "deadline_ms must be a positive number, got int 0"),
    (lambda: Frame.of(PIXELS, 1.7e18), "stamp_ns must be an integer of nanoseconds, got float 1.7e+18"),
    (lambda: Frame.of(PIXELS, 0, 7), "frame_id must be text, got int 7"),
    (lambda: Frame.of(PIXELS, 0, intrinsics=(1, 1, 3, 2)), "intrinsics must be Intrinsics(fx, fy, cx, cy), got tuple"),
    (
        lambda: Frame.of(PIXELS, 0, depth_m=np.zeros((4, 6), np.uint16)),
        "depth_m must be float32 meters [H, W], got uint16 [4, 6]; divide millimeters by 1000",
    ),
    (lambda: Frame.of(PIXELS, 0, depth_m=[[1.0]]), "depth_m must be float32 meters [H, W], got list [[1.0]]"),
    (lambda: Intrinsics(500, 500, float("nan"), 2), "cx must be a finite number, got float nan"),
    (lambda: Intrinsics("500", 500, 3, 2), "fx must be a finite number, got str '500'"),
    (lambda: Stamped(PIXELS, float("nan")), "stamp_s must be a finite number, got float nan"),
    (lambda: Stamped(PIXELS, "now"), "stamp_s must be a finite number, got str 'now'"),
    (
        lambda: Decoding(max_rationale_tokens="3"),
        "max_rationale_tokens must be 0 or more, and needs forced decoding; got",
    ),
    (lambda: Decoding(max_rationale_tokens=True), "max_rationale_tokens must be 0 or more"),
    (lambda: Session(FakePolicy(), FakeMask(), {}, frames="2"), "frames must be an integer of at least 1, got str '2'"),
    (lambda: Session(FakePolicy(), FakeMask(), {}, frames=0), "frames must be an integer of at least 1, got int 0"),
    (lambda: Session.from_bundle(threads=0), "threads must be an integer of at least 1, got int 0"),
    (lambda: load_image(PIXELS), "pass the path of an image file or its bytes, got uint8 [4, 6, 3]"),
    (lambda: load_image(None), "pass the path of an image file or its bytes, got None"),
    (lambda: session().segment(PIXELS, "it", "short"), "unknown variant 'short'; choose one of verbose, wise"),
    (lambda: session().segment(PIXELS, "it", ""), "unknown variant ''; choose one of"),
    (lambda: session().segment(PIXELS, "it", ["wise"]), "unknown variant ['wise']; choose one of"),
    (lambda: session().segment(PIXELS, "it", cancel=True), "cancel must be a threading.Event, got bool True"),
    (lambda: session().segment(PIXELS, "it", on_text="print"), "on_text must be a function, got str 'print'"),
    (lambda: session().segment_many(PIXELS, "the ring"), "queries must be a list of texts, got str 'the ring'"),
    (lambda: session().segment_many(PIXELS, ["it"], "short"), "unknown variant 'short'"),
    (
        lambda: session().track(PIXELS, "it"),
        "frames must be an iterable of Stamped(image, stamp_s), got uint8 [4, 6, 3]",
    ),
    (lambda: session().track(7, "it"), "frames must be an iterable of Stamped(image, stamp_s), got int 7"),
    (lambda: session().track([], "it", "short"), "unknown variant 'short'"),
    (lambda: session().track([], "it", deadline_ms=-1), "deadline_ms must be a positive number, got int -1"),
    (lambda: session().track([], "it", ground_every_s=-1), "ground_every_s must be at least 0, got int -1"),
    (
        lambda: session().track([], "it", ground_every_s=float("nan")),
        "ground_every_s must be a finite number, got float nan",
    ),
    (
        lambda: session().track(NewestFrame(), "it", ground_every_s=1),
        "frames is a NewestFrame, which drops frames; do not pass ground_every_s",
    ),
    (
        lambda: session().find_mask(PIXELS, (2, 0, 2, 2), ()),
        "the box must be (x1, y1, x2, y2) with x1 < x2 and y1 < y2",
    ),
    (lambda: session().find_mask(PIXELS, (0, 0, 2), ()), "the box must be (x1, y1, x2, y2)"),
    (lambda: session().find_mask(PIXELS, (0, 0, float("nan"), 2), ()), "the box must be (x1, y1, x2, y2)"),
    (lambda: session().find_mask(PIXELS, (0, 0, 2, 2), (1, 1)), "the points must be pairs (x, y), got tuple (1, 1)"),
    (  # checking it would have used it up
        lambda: session().find_mask(PIXELS, (0, 0, 2, 2), iter([(1, 1)])),
        "the points must be pairs (x, y), got list_iterator",
    ),
    (
        lambda: session().find_mask(PIXELS, (6, 0, 8, 2), ()),
        "the box (6, 0, 8, 2) is outside the image, which is 6 x 4",
    ),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message for _, message in WRONG])
def test_it_is_refused_with_what_was_given(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        call()


def test_frames_that_are_no_frames_end_the_tracking() -> None:
    with pytest.raises(UsageError, match=re.escape("frames must yield Stamped(image, stamp_s), got uint8 [4, 6, 3]")):
        list(session().track([PIXELS], "it"))


def test_a_recording_is_not_waited_for_longer_than_an_hour() -> None:
    frames = at_recorded_pace([Stamped(PIXELS, 0.0), Stamped(PIXELS, 1.7e9)], sleep=lambda _: None)
    assert next(frames).stamp_s == 0
    with pytest.raises(UsageError, match=r"the stamps jump from 0\.000 to 1700000000\.000 s; correct them"):
        next(frames)
    with pytest.raises(UsageError, match="frames must yield Stamped"):
        next(at_recorded_pace([PIXELS]))  # type: ignore[list-item]


def test_nothing_was_encoded_for_what_is_refused() -> None:
    policy = FakePolicy()
    with pytest.raises(UsageError):
        Session(policy, FakeMask(), {}).segment(PIXELS, "it", "short")
    assert policy.encoded == 0


def test_numbers_and_arrays_of_numpy_are_accepted() -> None:
    frame = Frame.of(
        PIXELS, np.int64(5), depth_m=np.ones((4, 6), np.float32), intrinsics=Intrinsics(5, 5.0, np.float32(3), 2)
    )
    assert frame.stamp_ns == 5
    assert Stamped(PIXELS[:, ::-1], np.float64(1)).stamp_s == 1
    assert session().find_mask(PIXELS, (0, 0, 2, 2), ((1, 1),)).mask.sum() == 4
