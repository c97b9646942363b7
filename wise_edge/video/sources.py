"""Where frames come from: a video file, a camera of this machine, or an address on the network."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wise_edge.errors import UsageError
from wise_edge.files.inputs import refuse_lfs_pointer
from wise_edge.geometry import Size

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=://)[^/]*@")
_MOST_CAMERAS = 4
"""Digits of a camera's number."""


@dataclass(frozen=True)
class Source:
    """Where frames come from.

    Attributes:
        kind: "file", "camera" (a V4L2 device) or "stream" (an address on the network).
        address: what FFmpeg opens.
        name: for messages: without the user and password of an address.
    """

    kind: Literal["file", "camera", "stream"]
    address: str
    name: str


@dataclass(frozen=True)
class CameraSettings:
    """What a camera is asked for; it may deliver something near it.

    Attributes:
        size: (width, height), px; None leaves it to the camera.
        rate_hz: frames a second; None leaves it to the camera.
        coding: FFmpeg's name of the format, such as mjpeg or yuyv422; None takes the first one that fits.
    """

    size: Size | None = None
    rate_hz: float | None = None
    coding: str | None = None

    @property
    def options(self) -> dict[str, str]:
        """Options of FFmpeg's V4L2 input, https://ffmpeg.org/ffmpeg-devices.html#video4linux2_002c-v4l2."""
        given = {
            "video_size": None if self.size is None else "{}x{}".format(*self.size),
            "framerate": None if self.rate_hz is None else f"{self.rate_hz:g}",
            "input_format": self.coding,
        }
        return {name: value for name, value in given.items() if value is not None}


def find_source(text: str, camera: CameraSettings | None = None) -> Source:
    """Return what a text names: a number or /dev/... a camera, scheme://... an address, all else a file.

    Args:
        text: as the user wrote it.
        camera: refused for what is not a camera.

    Raises:
        UsageError: there is no such file, or it is no file; or settings of a camera are given for something else.
    """
    source = _name(text)
    if source.kind != "camera" and camera is not None and camera.options:
        raise UsageError(f"{source.name} is not a camera; remove --size, --fps and --format")
    if source.kind == "file":
        file = Path(text)
        try:
            if file.is_dir():
                raise UsageError(f"{file} is a folder; pass a video file")
            file.stat()
        except (OSError, ValueError) as error:
            known = "a file, a camera (0 or /dev/video0) or an address (rtsp://...)"
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"cannot read {text[:200]}: {reason}; pass {known}") from None
        refuse_lfs_pointer(file)
    return source


def _name(text: str) -> Source:
    if text.isascii() and text.isdecimal() and len(text) <= _MOST_CAMERAS:
        device = f"/dev/video{int(text)}"
        return Source("camera", device, device)
    if _SCHEME.match(text):
        return Source("stream", text, _PASSWORD.sub("", text))
    if text.startswith("/dev/") or _is_character_device(text):
        return Source("camera", text, text)
    return Source("file", f"file:{text}", text)  # or FFmpeg takes "a:b.mp4" for an address


def _is_character_device(text: str) -> bool:
    try:
        return stat.S_ISCHR(Path(text).stat().st_mode)
    except (OSError, ValueError):
        return False
