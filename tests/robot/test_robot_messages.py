"""ROS messages become frames, and results become messages that conform to rosbags' definitions."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from node_results import node_result, placed_object
from ros_types import STAMP_NS, STORE, TYPES, header_message, image_message
from wise_edge.errors import UsageError
from wise_edge.images.depth import StreamDepth
from wise_edge.robot.messages import (
    CAMERA,
    COMPRESSED,
    IMAGE,
    decode_depth,
    decode_image,
    stamp_of,
    to_frame,
    to_intrinsics,
)
from wise_edge.robot.result_messages import (
    DETECTIONS,
    DETECTIONS_3D,
    to_detections,
    to_detections_3d,
    to_mask_message,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
GRAY = np.repeat(PIXELS[..., :1], 3, axis=2)
ALPHA = np.full((5, 7, 1), 255, np.uint8)


@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("rgb8", PIXELS, PIXELS),
        ("bgr8", PIXELS[..., ::-1], PIXELS),
        ("rgba8", np.concatenate([PIXELS, ALPHA], 2), PIXELS),
        ("bgra8", np.concatenate([PIXELS[..., ::-1], ALPHA], 2), PIXELS),
        ("8UC3", PIXELS[..., ::-1], PIXELS),
        ("mono8", PIXELS[..., :1], GRAY),
        ("mono16", PIXELS[..., :1].astype(np.uint16) * 256 + 3, GRAY),
        ("rgb16", PIXELS.astype(np.uint16) * 256 + 3, PIXELS),
        ("bgr16", PIXELS[..., ::-1].astype(np.uint16) * 256 + 3, PIXELS),
        ("rgba16", np.concatenate([PIXELS, ALPHA], 2).astype(np.uint16) * 256 + 3, PIXELS),
        ("bgra16", np.concatenate([PIXELS[..., ::-1], ALPHA], 2).astype(np.uint16) * 256 + 3, PIXELS),
        ("8UC1", PIXELS[..., :1], GRAY),
        ("16UC1", PIXELS[..., :1].astype(np.uint16) * 256 + 3, GRAY),
        ("16UC3", PIXELS[..., ::-1].astype(np.uint16) * 256 + 3, PIXELS),
    ],
)
@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("big", [False, True])
def test_images_of_every_encoding(
    encoding: str, pixels: np.ndarray, expected: np.ndarray, padding: int, big: bool
) -> None:
    message = image_message(pixels, encoding, padding=padding, big=big)
    message = STORE.deserialize_cdr(STORE.serialize_cdr(message, IMAGE), IMAGE)
    frame = to_frame(message, "/camera")

    assert np.array_equal(frame.image, expected)
    assert frame.image.dtype == np.uint8
    assert (frame.stamp_ns, frame.frame_id) == (STAMP_NS, "camera")


@pytest.mark.parametrize("encoding", ["mono16", "16UC1", "rgb16", "bayer_rggb16", "png"])
def test_cameras_of_12_bits_are_scaled_by_what_their_topic_has_used(encoding: str) -> None:
    """A dark image after a bright one stays dark, and a bright one is as bright as the camera saw it."""

    def message(*values: int) -> Any:
        pixels = np.array([values] * 2, np.uint16)
        if encoding == "png":
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            data = np.frombuffer(buffer.getvalue(), np.uint8)
            return TYPES[COMPRESSED](header=header_message(), format="mono16; png compressed ", data=data)
        return image_message(np.stack([pixels] * 3, -1) if encoding == "rgb16" else pixels, encoding)

    depth = StreamDepth()

    def brightest(*values: int) -> int:
        return int(to_frame(message(*values), "/camera", depth).image.max())

    assert (brightest(0, 0, 0, 200), depth.bits) == (200, 8)  # nothing else is known of the camera yet
    assert (brightest(0, 0, 0, 4080), depth.bits) == (255, 12)
    assert (brightest(0, 0, 0, 160), depth.bits) == (10, 12)
    assert (brightest(0, 0, 0, 65535), depth.bits) == (255, 16)
    assert (brightest(0, 0, 0, 4080), depth.bits) == (15, 16)
    assert to_frame(message(0, 0, 0, 4080), "/camera").image.max() == 255  # alone


def test_images_of_8_bits_have_no_depth() -> None:
    depth = StreamDepth()
    to_frame(image_message(PIXELS, "rgb8"), "/camera", depth)
    assert depth.bits is None


COLORS = [((235, 128, 128), (255, 255, 255)), ((16, 128, 128), (0, 0, 0)), ((81, 90, 240), (255, 0, 0))]
COLORS += [((41, 240, 110), (0, 0, 255))]
"""Y, U and V of white, black, red and blue in ITU-R BT.601."""


@pytest.mark.parametrize(("encoding", "u"), [("nv12", 0), ("nv21", 1), ("nv24", 0), ("NV12", 0)])
@pytest.mark.parametrize("padding", [0, 10])
@pytest.mark.parametrize("stacked", [False, True])
def test_planes_of_brightness_and_color(encoding: str, u: int, padding: int, stacked: bool) -> None:
    height, width, shared = 4, 8, 1 if encoding == "nv24" else 2
    y, chroma = np.zeros((height, width), np.uint8), np.zeros((height // shared, width // shared, 2), np.uint8)
    expected = np.zeros((height, width, 3), int)
    for number, ((bright, blue, red), rgb) in enumerate(COLORS):
        columns = slice(2 * number, 2 * number + 2)
        y[:, columns], expected[:, columns] = bright, rgb
        part = chroma[:, columns] if shared == 1 else chroma[:, number : number + 1]
        part[..., u], part[..., 1 - u] = blue, red
    planes = [
        np.pad(y, ((0, 0), (0, padding))),
        np.pad(chroma.reshape(height // shared, -1), ((0, 0), (0, padding * 2 // shared))),
    ]
    rows = np.concatenate([plane.reshape(-1, width + padding) for plane in planes])
    message = image_message(rows, encoding)
    message.width, message.step = width, width + padding
    message.height = len(rows) if stacked else height
    found = decode_image(message, "/camera")
    assert found.shape == (height, width, 3)
    assert np.abs(found.astype(int) - expected).max() <= 2
    message.data = message.data[: -width - 1 - padding]
    with pytest.raises(UsageError, match=r"has .* bytes"):
        decode_image(message, "/camera")


def test_rows_that_drivers_leave_unsaid() -> None:
    padded = image_message(PIXELS, "rgb8", padding=5)
    padded.data = padded.data[:-5]  # of the last row
    assert np.array_equal(decode_image(padded, "/camera"), PIXELS)
    tight = image_message(PIXELS, "rgb8")
    tight.step = 0
    assert np.array_equal(decode_image(tight, "/camera"), PIXELS)
    line = image_message(PIXELS[:1], "rgb8")
    line.step = 2**31  # takes no memory of that size
    assert np.array_equal(decode_image(line, "/camera"), PIXELS[:1])


@pytest.mark.parametrize(
    ("encoding", "order"), [("yuv422", "uyvy"), ("yuv422_yuy2", "yuyv"), ("yvyu", "yvyu"), ("YUYV", "yuyv")]
)
def test_two_pixels_in_four_bytes(encoding: str, order: str) -> None:
    for (y, u, v), rgb in COLORS:
        values = {"y": y, "u": u, "v": v}
        tile = np.array([values[part] for part in order], np.uint8)
        pixels = np.tile(tile, (3, 2)).reshape(3, 4, 2)
        found = decode_image(image_message(pixels, encoding), "/camera")
        assert found.shape == (3, 4, 3)
        assert np.abs(found.astype(int) - rgb).max() <= 2

    brightness = np.array([[16, 128, 235, 128]], np.uint8).reshape(1, 2, 2)  # Y U Y V: black, white
    assert decode_image(image_message(brightness, "yuv422_yuy2"), "/camera")[0].tolist() == [[0] * 3, [255] * 3]


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize(("bits", "dtype", "times"), [(8, np.uint8, 1), (16, np.uint16, 16)])
def test_mosaics_of_every_pattern(pattern: str, bits: int, dtype: type, times: int) -> None:
    values = {"r": 200, "g": 100, "b": 50}
    tile = np.array([values[color] * times for color in pattern], dtype).reshape(2, 2)
    mosaic = np.tile(tile, (3, 4))[:5, :7]
    found = decode_image(image_message(mosaic, f"bayer_{pattern}{bits}"), "/camera")
    assert found.shape == (5, 7, 3)
    assert (found[:4, :6] == [200, 100, 50]).all()


def test_a_cameras_jpeg_is_left_as_the_camera_has_it() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "JPEG", exif=exif)
    data = np.frombuffer(buffer.getvalue(), np.uint8)
    message = TYPES[COMPRESSED](header=header_message(), format="jpeg", data=data)
    assert to_frame(message, "/camera").image.shape == PIXELS.shape


def test_compressed_images() -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    data = np.frombuffer(buffer.getvalue(), np.uint8)
    message = TYPES[COMPRESSED](header=header_message(), format="rgb8; png compressed bgr8", data=data)
    assert np.array_equal(to_frame(message, "/camera").image, PIXELS)

    broken = TYPES[COMPRESSED](header=header_message(), format="jpeg", data=data[:20])
    with pytest.raises(UsageError, match="/camera, jpeg: "):
        to_frame(broken, "/camera")
    depth = TYPES[COMPRESSED](header=header_message(), format="16UC1; compressedDepth", data=data)
    with pytest.raises(UsageError, match="pass the topic of the color images"):
        to_frame(depth, "/camera")


def test_unreadable_images_say_why() -> None:
    video = TYPES[COMPRESSED](header=header_message(), format="h264", data=np.zeros(40, np.uint8))
    with pytest.raises(UsageError, match=r"/camera has video \(h264\); decode it to images"):
        to_frame(video, "/camera")
    with pytest.raises(UsageError, match="/camera has images without an encoding; convert them"):
        decode_image(image_message(PIXELS, ""), "/camera")
    with pytest.raises(UsageError, match="in nv12 must have an even width and height, not 7 x 5"):
        decode_image(image_message(PIXELS[..., 0], "nv12"), "/camera")
    message = image_message(PIXELS, "jpeg2000")
    with pytest.raises(UsageError, match=r"encoded as jpeg2000; convert them, .* to one of rgb8, bgr8"):
        decode_image(message, "/camera")
    with pytest.raises(UsageError, match="must have an even width, not 7"):
        decode_image(image_message(PIXELS[..., :2], "yuv422"), "/camera")
    message = image_message(PIXELS, "rgb8")
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
        decode_depth(image_message(PIXELS, "rgb8"), "/depth")


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


def test_masks_and_detections_are_messages_that_ros_takes() -> None:
    mask = to_mask_message(node_result(), header_message(), TYPES)
    mask = STORE.deserialize_cdr(STORE.serialize_cdr(mask, IMAGE), IMAGE)
    assert (mask.encoding, mask.height, mask.width, mask.step) == ("mono8", 5, 7, 7)
    assert np.array_equal(mask.data.reshape(5, 7) > 0, node_result().mask)

    found = to_detections(node_result(), header_message(), TYPES)
    found = STORE.deserialize_cdr(STORE.serialize_cdr(found, DETECTIONS), DETECTIONS)
    (detection,) = found.detections
    assert (detection.bbox.center.position.x, detection.bbox.center.position.y) == (4.0, 2.0)
    assert (detection.bbox.size_x, detection.bbox.size_y, detection.id) == (4.0, 2.0, "the mug")
    (hypothesis,) = detection.results
    assert (hypothesis.hypothesis.class_id, hypothesis.hypothesis.score) == ("the mug", 0.9)
    assert hypothesis.pose.pose.position.z == 1.5
    assert hypothesis.pose.covariance[0] == 0

    there = to_detections_3d(node_result(), header_message(), TYPES)
    (detection,) = STORE.deserialize_cdr(STORE.serialize_cdr(there, DETECTIONS_3D), DETECTIONS_3D).detections
    assert (detection.bbox.center.position.x, detection.bbox.center.position.z) == (0.1, 1.5)
    assert (detection.bbox.size.x, detection.bbox.size.z) == (0.1, 0.05)
    assert stamp_of(detection.header) == STAMP_NS


def test_each_object_is_a_detection_and_a_gray_of_the_mask() -> None:
    behind = np.zeros((5, 7), np.bool_)
    behind[2:5, 4:7] = True
    cup = placed_object(number=3, box=(4, 2, 7, 5), label="cup", mask=behind, score=0.5, place=None)
    both = node_result(objects=(placed_object(), cup))

    mask = to_mask_message(both, header_message(), TYPES).data.reshape(5, 7)
    flat, deep = (make(both, header_message(), TYPES).detections for make in (to_detections, to_detections_3d))

    assert {int(level): int((mask == level).sum()) for level in np.unique(mask)} == {0: 20, 253: 7, 255: 8}
    assert [(each.id, each.results[0].hypothesis.class_id) for each in flat] == [
        ("the mug", "the mug"),
        ("the mug #3", "cup"),
    ]
    assert [each.bbox.center.position.x for each in flat] == [4.0, 5.5]
    assert [each.id for each in deep] == ["the mug"]


def test_nothing_found_is_a_mask_of_zeros_and_no_detection() -> None:
    nothing = node_result(objects=())
    mask = to_mask_message(nothing, header_message(), TYPES)
    assert (mask.height, mask.width, mask.step) == (5, 7, 7)
    assert not mask.data.any()
    assert to_detections(nothing, header_message(), TYPES).detections == []
    assert to_detections_3d(nothing, header_message(), TYPES).detections == []
    STORE.serialize_cdr(mask, IMAGE)


def test_a_place_that_is_not_known_is_marked() -> None:
    (detection,) = to_detections(node_result(objects=(placed_object(place=None),)), header_message(), TYPES).detections
    assert detection.results[0].pose.covariance[0] == -1
