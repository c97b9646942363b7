"""Cameras and network streams: real servers and device files, and what is said of cameras that are not there."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

from mjpeg_server import begin_mjpeg, send_jpeg, serving
from movies import encode, pan
from waiting import wait_for
from wise_edge.errors import DeviceError
from wise_edge.video import cameras, opening, reading
from wise_edge.video.cameras import Live, advise, explain_opening, find_lack
from wise_edge.video.opening import open_video
from wise_edge.video.reading import NumberedFrame, Recording
from wise_edge.video.sources import CameraSettings, find_source

IMAGES = pan(3, 12).images


def open_address(address: str) -> Live | Recording:
    return open_video(address)


def test_the_newest_frame_of_a_network_camera_waits() -> None:
    """An IP camera's MJPEG, which has no times of its own."""
    go_on = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        begin_mjpeg(request)
        for image in IMAGES:
            send_jpeg(request, image)
        assert go_on.wait(30)

    with serving(answer) as address:
        camera = open_address(f"{address}/video.mjpg")
        assert isinstance(camera, Live)
        wait_for(lambda: camera.newest.place >= 11)
        frame = camera.newest.frame
        go_on.set()
        wait_for(lambda: camera.newest.over)
        camera.close()

    assert isinstance(frame, NumberedFrame)
    assert frame.index >= 10
    assert np.abs(frame.image.astype(int) - IMAGES[frame.index]).mean() < 6
    assert frame.stamp_s == pytest.approx(frame.ticks / 90_000, abs=1e-4)
    assert "was lost: Input/output error" in str(camera.newest.error)  # the server went away within the stream


def test_numbers_and_times_begin_when_the_tracking_does() -> None:
    """Models may take a minute to load, while the camera is running."""
    go_on = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        begin_mjpeg(request)
        for image in IMAGES[:6]:
            send_jpeg(request, image)
        assert go_on.wait(30)
        for image in IMAGES[6:]:
            send_jpeg(request, image)
        go_on.clear()
        go_on.wait(30)

    with serving(answer) as address:
        camera = open_address(address)
        assert isinstance(camera, Live)
        wait_for(lambda: camera.newest.place >= 5)
        before, newest = camera.newest, camera.begin()
        assert (newest.place, newest.frame) == (0, None)
        go_on.set()
        wait_for(lambda: newest.place >= 5)
        frame = newest.frame
        go_on.set()
        wait_for(lambda: newest.over)
    assert isinstance(frame, NumberedFrame) and 4 <= frame.index < len(IMAGES) - before.place
    assert before.place <= 6 and frame.stamp_s < 30
    assert str(camera.begin().error) == str(newest.error)  # a camera that is lost stays lost


def test_a_recording_on_the_network_is_read_like_a_file(tmp_path: Path) -> None:
    file = encode(tmp_path / "a.mp4", IMAGES, container={"movflags": "faststart"})

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(file.stat().st_size))
        request.end_headers()
        request.wfile.write(file.read_bytes())

    with serving(answer) as address:
        recording = open_address(f"{address}/a.mp4")
        assert isinstance(recording, Recording)
        assert [frame.index for frame in recording] == list(range(12))


def test_an_address_that_delivers_nothing_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DeviceError, match=rf"cannot open rtsp://127\.0\.0\.1:{port}/a: Connection refused"):
        open_address(f"rtsp://me:secret@127.0.0.1:{port}/a")

    def deny(request: BaseHTTPRequestHandler) -> None:
        request.send_error(401)

    with serving(deny) as address, pytest.raises(DeviceError, match="401 Unauthorized"):
        open_address(address)

    monkeypatch.setitem(opening._NETWORK, "timeout", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(DeviceError, match=r"cannot open http://.*: nothing came for 10 s"),
    ):
        open_address(f"http://127.0.0.1:{silent.getsockname()[1]}/a")


def test_a_stream_that_falls_silent_or_never_begins_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        begin_mjpeg(request)
        for image in IMAGES:
            send_jpeg(request, image)
        assert go_on.wait(30)

    with serving(answer) as address:
        camera = open_address(address)
        assert isinstance(camera, Live)
        monkeypatch.setattr(cameras, "PATIENCE_S", -0.9)
        wait_for(lambda: camera.newest.error)
        go_on.set()
    assert "has delivered no frame for" in str(camera.newest.error)
    with pytest.raises(DeviceError, match="has delivered no frame for"):
        camera.wait()


def test_a_device_that_hangs_while_it_opens_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PATIENCE_S", -0.9)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source = find_source(f"http://127.0.0.1:{silent.getsockname()[1]}/a")
        with pytest.raises(DeviceError, match="delivers no picture; check it with another program"):
            reading.open_patiently(source, timeout=2)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("7213", "cannot open /dev/video7213: No such file or directory; there "),
        ("/dev/no-camera", "cannot open /dev/no-camera: No such file or directory; there "),
        ("/dev/null", "/dev/null is not a camera; there "),
    ],
)
def test_what_is_no_camera_is_told_before_anything_is_opened(name: str, line: str) -> None:
    with pytest.raises(DeviceError, match=line):
        open_address(name)


def test_what_to_do_about_a_camera_that_is_refused() -> None:
    assert "usermod -aG video" in explain_opening(errno.EACCES)
    assert "another program uses it" in explain_opening(errno.EBUSY)
    assert "/dev/video" in explain_opening(errno.ENODEV)
    taken = DeviceError(f"cannot open /dev/video0: {os.strerror(errno.EBUSY)}")  # which FFmpeg meets, not the check
    assert "another program uses it" in advise(taken, CameraSettings())
    silent = DeviceError("/dev/video0 delivers no picture")
    assert "with this --size, --fps or --format" in advise(silent, CameraSettings(rate_hz=120))


def test_only_devices_that_capture_pictures_are_cameras() -> None:
    """See https://docs.kernel.org/userspace-api/media/v4l/vidioc-querycap.html; answers as uvcvideo gives them."""

    def answer(hardware: int, own: int) -> bytes:
        return struct.pack("16s32s32sIII3I", b"uvcvideo", b"Camera", b"usb", 0x60800, hardware, own, 0, 0, 0)

    capture, planes, metadata, streaming, has_own = 0x1, 0x1000, 0x800000, 0x4000000, 0x80000000
    assert len(answer(0, 0)) == 104  # _IOR('V', 0, struct v4l2_capability)
    assert 2 << 30 | 104 << 16 | ord("V") << 8 == cameras._VIDIOC_QUERYCAP
    everything = capture | metadata | streaming | has_own
    assert find_lack(answer(everything, capture | streaming)) is None
    assert find_lack(answer(capture | streaming, 0)) is None  # a driver from before device_caps
    assert "delivers no pictures" in str(find_lack(answer(everything, metadata | streaming)))
    assert "several planes" in str(find_lack(answer(planes | streaming | has_own, planes | streaming)))
