"""ROS messages become frames and results become messages that rosbags' definitions of ROS take."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from wise_edge.errors import UsageError
from wise_edge.robot.frames import Place
from wise_edge.robot.messages import (
    CAMERA,
    COMPRESSED,
    DETECTIONS,
    DETECTIONS_3D,
    IMAGE,
    VISION_MSGS,
    decode_depth,
    decode_image,
    stamp_of,
    to_detections,
    to_detections_3d,
    to_frame,
    to_intrinsics,
    to_mask_message,
)
from wise_edge.robot.results import NodeResult

STORE = get_typestore(Stores.ROS2_HUMBLE)
for _name, _definition in VISION_MSGS.items():
    STORE.register(get_types_from_msg(_definition, _name))
TYPES = STORE.types
PICTURE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
STAMP_NS = 1_700_000_000_123_456_789


def header() -> Any:
    stamp = TYPES["builtin_interfaces/msg/Time"](sec=STAMP_NS // 10**9, nanosec=STAMP_NS % 10**9)
    return TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")


def image_message(pixels: np.ndarray, encoding: str, *, padding: int = 0, big: bool = False) -> Any:
    """An `Image` with rows padded by so many bytes."""
    height, width = pixels.shape[:2]
    rows = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).reshape(height, -1).view(np.uint8)
    data = np.pad(rows, ((0, 0), (0, padding)))
    return TYPES[IMAGE](
        header=header(),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(big),
        step=data.shape[1],
        data=data.ravel(),
    )


GRAY = np.repeat(PICTURE[..., :1], 3, axis=2)
ALPHA = np.full((5, 7, 1), 255, np.uint8)


@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("rgb8", PICTURE, PICTURE),
        ("bgr8", PICTURE[..., ::-1], PICTURE),
        ("rgba8", np.concatenate([PICTURE, ALPHA], 2), PICTURE),
        ("bgra8", np.concatenate([PICTURE[..., ::-1], ALPHA], 2), PICTURE),
        ("8UC3", PICTURE[..., ::-1], PICTURE),
        ("mono8", PICTURE[..., :1], GRAY),
        ("mono16", PICTURE[..., :1].astype(np.uint16) * 256 + 3, GRAY),
        ("rgb16", PICTURE.astype(np.uint16) * 256 + 3, PICTURE),
        ("bgr16", PICTURE[..., ::-1].astype(np.uint16) * 256 + 3, PICTURE),
    ],
)
@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("big", [False, True])
def test_pictures_of_every_encoding(
    encoding: str, pixels: np.ndarray, expected: np.ndarray, padding: int, big: bool
) -> None:
    message = image_message(np.ascontiguousarray(pixels), encoding, padding=padding, big=big)
    message = STORE.deserialize_cdr(STORE.serialize_cdr(message, IMAGE), IMAGE)
    frame = to_frame(message, "/camera")

    assert np.array_equal(frame.image, expected)
    assert frame.image.dtype == np.uint8
    assert (frame.stamp_ns, frame.frame_id) == (STAMP_NS, "camera")


@pytest.mark.parametrize(("encoding", "order"), [("yuv422", "uyvy"), ("yuv422_yuy2", "yuyv")])
def test_two_pixels_in_four_bytes(encoding: str, order: str) -> None:
    # ITU-R BT.601: white, black, red, blue
    colors = [((235, 128, 128), (255, 255, 255)), ((16, 128, 128), (0, 0, 0))]
    colors += [((81, 90, 240), (255, 0, 0)), ((41, 240, 110), (0, 0, 255))]
    for (y, u, v), rgb in colors:
        values = {"y": y, "u": u, "v": v}
        tile = np.array([values[part] for part in order], np.uint8)
        picture = np.tile(tile, (3, 2)).reshape(3, 4, 2)
        found = decode_image(image_message(picture, encoding), "/camera")
        assert found.shape == (3, 4, 3)
        assert np.abs(found.astype(int) - rgb).max() <= 2

    brightness = np.array([[16, 128, 235, 128]], np.uint8).reshape(1, 2, 2)  # Y U Y V: black, white
    assert decode_image(image_message(brightness, "yuv422_yuy2"), "/camera")[0].tolist() == [[0] * 3, [255] * 3]


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_mosaics_of_every_pattern(pattern: str) -> None:
    values = {"r": 200, "g": 100, "b": 50}
    tile = np.array([values[color] for color in pattern], np.uint8).reshape(2, 2)
    mosaic = np.tile(tile, (3, 4))[:5, :7]
    found = decode_image(image_message(mosaic[..., None].copy(), f"bayer_{pattern}8"), "/camera")
    assert found.shape == (5, 7, 3)
    assert (found[:4, :6] == [200, 100, 50]).all()


def test_a_cameras_jpeg_is_left_as_the_camera_has_it() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "JPEG", exif=exif)
    data = np.frombuffer(buffer.getvalue(), np.uint8)
    message = TYPES[COMPRESSED](header=header(), format="jpeg", data=data)
    assert to_frame(message, "/camera").image.shape == PICTURE.shape


def test_compressed_pictures() -> None:
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "PNG")
    data = np.frombuffer(buffer.getvalue(), np.uint8)
    message = TYPES[COMPRESSED](header=header(), format="rgb8; png compressed bgr8", data=data)
    assert np.array_equal(to_frame(message, "/camera").image, PICTURE)

    broken = TYPES[COMPRESSED](header=header(), format="jpeg", data=data[:20])
    with pytest.raises(UsageError, match="/camera, jpeg: "):
        to_frame(broken, "/camera")
    depth = TYPES[COMPRESSED](header=header(), format="16UC1; compressedDepth", data=data)
    with pytest.raises(UsageError, match="pass the topic of the color images"):
        to_frame(depth, "/camera")


def test_pictures_that_cannot_be_read_say_why() -> None:
    message = image_message(PICTURE, "jpeg2000")
    with pytest.raises(UsageError, match=r"encoded as jpeg2000; convert them, .* to one of rgb8, bgr8"):
        decode_image(message, "/camera")
    with pytest.raises(UsageError, match="must have an even width, not 7"):
        decode_image(image_message(PICTURE[..., :2].copy(), "yuv422"), "/camera")
    message = image_message(PICTURE, "rgb8")
    message.data = message.data[:30]
    with pytest.raises(UsageError, match=r"an image of 7 x 5 \(rgb8, 21 bytes per row\) has 30 bytes"):
        decode_image(message, "/camera")


def test_depth_in_millimeters_and_meters() -> None:
    depth = np.array([[1500, 0, 2250]], np.uint16)
    assert decode_depth(image_message(depth, "16UC1"), "/depth")[0] == pytest.approx([1.5, 0.0, 2.25])
    meters = np.array([[1.5, np.nan]], np.float32)
    found = decode_depth(image_message(meters, "32FC1", big=True), "/depth")
    assert found[0, 0] == 1.5
    assert np.isnan(found[0, 1])
    with pytest.raises(UsageError, match="/depth has depth encoded as rgb8"):
        decode_depth(image_message(PICTURE, "rgb8"), "/depth")


def test_intrinsics_and_stamps_of_both_versions_of_ros() -> None:
    matrix = np.array([500, 0, 320, 0, 0, 510, 240, 0, 0, 0, 1, 0], np.float64)

    class Ros1:
        P = matrix

    assert CAMERA in TYPES
    for message in (type("Ros2", (), {"p": matrix})(), Ros1()):
        camera = to_intrinsics(message)
        assert (camera.fx, camera.fy, camera.cx, camera.cy) == (500.0, 510.0, 320.0, 240.0)
    old = type("Header", (), {"stamp": type("Time", (), {"secs": 3, "nsecs": 7})()})()
    assert stamp_of(old) == 3_000_000_007


def result(**changes: Any) -> NodeResult:
    mask = np.zeros((5, 7), np.bool_)
    mask[1:3, 2:6] = True
    fields: dict[str, Any] = {
        "stamp_ns": STAMP_NS,
        "frame_id": "camera",
        "image_size": (7, 5),
        "query": "the mug",
        "standing": True,
        "box": (2, 1, 6, 3),
        "points": ((3, 1), (4, 2)),
        "mask": mask,
        "score": 0.9,
        "place": Place((0.1, 0.2, 1.5), (0.1, 0.1, 0.05), 8),
        "rationale": "It is the mug.",
        "variant": "wise-s",
        "reason": None,
        "grounded_stamp_ns": STAMP_NS,
        "dropped": 0,
        "delay_ms": 40.0,
        "latency_ms": {"total": 40.0},
    }
    return NodeResult(**fields | changes)


def test_masks_and_detections_are_messages_that_ros_takes() -> None:
    mask = to_mask_message(result(), header(), TYPES)
    mask = STORE.deserialize_cdr(STORE.serialize_cdr(mask, IMAGE), IMAGE)
    assert (mask.encoding, mask.height, mask.width, mask.step) == ("mono8", 5, 7, 7)
    assert np.array_equal(mask.data.reshape(5, 7) > 0, result().mask)

    found = to_detections(result(), header(), TYPES)
    found = STORE.deserialize_cdr(STORE.serialize_cdr(found, DETECTIONS), DETECTIONS)
    (detection,) = found.detections
    assert (detection.bbox.center.position.x, detection.bbox.center.position.y) == (4.0, 2.0)
    assert (detection.bbox.size_x, detection.bbox.size_y, detection.id) == (4.0, 2.0, "the mug")
    (hypothesis,) = detection.results
    assert (hypothesis.hypothesis.class_id, hypothesis.hypothesis.score) == ("the mug", 0.9)
    assert hypothesis.pose.pose.position.z == 1.5
    assert hypothesis.pose.covariance[0] == 0

    there = to_detections_3d(result(), header(), TYPES)
    (detection,) = STORE.deserialize_cdr(STORE.serialize_cdr(there, DETECTIONS_3D), DETECTIONS_3D).detections
    assert (detection.bbox.center.position.x, detection.bbox.center.position.z) == (0.1, 1.5)
    assert (detection.bbox.size.x, detection.bbox.size.z) == (0.1, 0.05)
    assert stamp_of(detection.header) == STAMP_NS


def test_nothing_found_is_a_mask_of_zeros_and_no_detection() -> None:
    nothing = result(box=None, mask=None, points=(), score=None, place=None)
    mask = to_mask_message(nothing, header(), TYPES)
    assert (mask.height, mask.width, mask.step) == (5, 7, 7)
    assert not mask.data.any()
    assert to_detections(nothing, header(), TYPES).detections == []
    assert to_detections_3d(nothing, header(), TYPES).detections == []
    STORE.serialize_cdr(mask, IMAGE)


def test_a_place_that_is_not_known_is_marked() -> None:
    (detection,) = to_detections(result(place=None), header(), TYPES).detections
    assert detection.results[0].pose.covariance[0] == -1
