"""Cameras and live streams: read by a thread as fast as they deliver, so that the newest frame waits and no other."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wise_edge.errors import DeviceError, WiseEdgeError
from wise_edge.extras import require
from wise_edge.runtimes.tracking import NewestFrame
from wise_edge.video.reading import (
    PATIENCE_S,
    NumberedFrame,
    pick_stream,
    reason_of,
    to_rgb,
)
from wise_edge.video.sources import CameraSettings, Source

if TYPE_CHECKING:
    from av.container import InputContainer

LIVE_TICK_S = Fraction(1, 90_000)
"""The unit of a live frame's `NumberedFrame.ticks`, as RTP's for video (https://www.rfc-editor.org/rfc/rfc3551)."""
_LOOK_S = 0.1
_VIDIOC_QUERYCAP = 0x80685600
_CAPABILITY = struct.Struct("16s32s32sIII3I")
_CAPTURE, _CAPTURE_PLANES, _HAS_OWN = 0x1, 0x1000, 0x80000000
"""V4L2's question what a device can do, its answer (driver, card, bus, version, capabilities of the hardware, of this
device file, reserved), and bits of it: https://docs.kernel.org/userspace-api/media/v4l/vidioc-querycap.html."""


class Live:
    """A camera or a live stream.

    A frame's time is when it arrived, since the first one: clocks of cameras and streams jump and restart.

    Args:
        container: the opened device or stream.
        source: what it is.

    Attributes:
        newest: where the newest frame waits; `begin` replaces it.
    """

    rate = Fraction(30)
    aspect = Fraction(1)
    tick_s = LIVE_TICK_S
    frames = None

    def __init__(self, container: InputContainer, source: Source) -> None:
        self._container, self._source = container, source
        self._stream = pick_stream(container, source.name)
        self._stream.thread_type = "SLICE"  # decoding several frames at once would delay each
        self.rate = self._stream.average_rate or self._stream.guessed_rate or self.rate
        self.aspect = self._stream.sample_aspect_ratio or self.aspect
        self.has_audio = bool(container.streams.audio)
        self.newest = NewestFrame()
        self._turn = Lock()  # of whoever puts a frame, or replaces the place where it waits
        self._arrived_s = self._begun_s = time.monotonic()
        self._closed = Event()
        for work in (self._read, self._watch):  # daemons: a device may hold the first one forever
            Thread(target=work, name="camera", daemon=True).start()

    def wait(self) -> None:
        """Wait for the first frame.

        Raises:
            DeviceError: none came.
        """
        newest = self.newest
        with newest.changed:
            while not (newest.place or newest.over):
                newest.changed.wait(_LOOK_S)
            if newest.error is not None:
                raise newest.error
            if not newest.place:
                raise DeviceError(f"{self._source.name} ended before its first frame")

    def begin(self) -> NewestFrame:
        """Return where the newest frame waits from now on; numbers and times begin again with the next one."""
        with self._turn:
            before, self.newest = self.newest, NewestFrame()
            if before.over:
                self.newest.end(before.error)
            return self.newest

    def describe_losses(self) -> Iterator[str]:
        """Yield nothing: what a camera or a network loses cannot be known here."""
        yield from ()

    def close(self) -> None:
        """Let the thread end after the frame that it reads."""
        self._closed.set()

    def _read(self) -> None:
        errors = require("av", "video").error
        try:
            for packet in self._container.demux(self._stream):
                try:
                    decoded = packet.decode()
                except errors.InvalidDataError:  # lost on the network: the next key frame mends it
                    continue
                for frame in decoded:
                    self._put(to_rgb(frame, self._source.name))
                if self._closed.is_set():
                    break
        except errors.FFmpegError as error:
            self._end(DeviceError(f"{self._source.name} was lost: {reason_of(error)}"))
        except WiseEdgeError as error:
            self._end(error)
        else:
            self._end()
        finally:
            self._container.close()

    def _put(self, image: npt.NDArray[np.uint8]) -> None:
        with self._turn:
            self._arrived_s = time.monotonic()
            if (index := self.newest.place) == 0:
                self._begun_s = self._arrived_s
            since_s = self._arrived_s - self._begun_s
            self.newest.put(NumberedFrame(image, since_s, index, round(since_s / LIVE_TICK_S)))

    def _watch(self) -> None:
        while not (self._closed.wait(_LOOK_S) or self.newest.over):
            if time.monotonic() - self._arrived_s > PATIENCE_S + 1:
                self._end(DeviceError(f"{self._source.name} has delivered no frame for {PATIENCE_S:g} s"))

    def _end(self, error: WiseEdgeError | None = None) -> None:
        with self._turn:
            if not self.newest.over:  # the first reason is the true one
                self.newest.end(error)


def check_camera(device: str) -> None:
    """Ask the kernel whether a device file is a camera that FFmpeg can read, without taking it.

    Raises:
        DeviceError: it is none, is missing, or must not be opened.
    """
    try:
        number = os.open(device, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        raise DeviceError(f"cannot open {device}: {error.strerror}; {explain_opening(error.errno)}") from None
    try:
        answer = fcntl.ioctl(number, _VIDIOC_QUERYCAP, bytes(_CAPABILITY.size))
    except OSError:
        raise DeviceError(f"{device} is not a camera; {_others()}") from None
    finally:
        os.close(number)
    if lack := find_lack(answer):
        raise DeviceError(f"{device} {lack}; {_others()}")


def find_lack(answer: bytes) -> str | None:
    """Return why a device that answered VIDIOC_QUERYCAP cannot be read; None if it can."""
    *_, hardware, own, _, _, _ = _CAPABILITY.unpack(answer)
    can = own if hardware & _HAS_OWN else hardware
    if can & _CAPTURE:
        return None
    if can & _CAPTURE_PLANES:
        return "delivers pictures in several planes, which FFmpeg does not read"
    return "delivers no pictures: a camera has further device files, as for metadata"


def explain_opening(number: int | None) -> str:
    """Return what to do about an error number of opening a camera."""
    if number in (errno.EACCES, errno.EPERM):
        return "add yourself to its group (sudo usermod -aG video $USER) and log in again"
    if number == errno.EBUSY:
        return "another program uses it; end that (fuser -v names it)"
    return _others()


def advise(error: DeviceError, settings: CameraSettings) -> str:
    """Return what to do about a camera that was refused or delivers nothing."""
    if os.strerror(errno.EBUSY) in str(error):
        return explain_opening(errno.EBUSY)
    asked = " with this --size, --fps or --format" if settings.options else ""
    return f"it may deliver nothing{asked}: v4l2-ctl --list-formats-ext lists what it has"


def _others() -> str:
    found = sorted(str(path) for path in Path("/dev").glob("video*"))
    here = f"there are {', '.join(found)}" if found else "there is no /dev/video*"
    return f"{here} (a container needs --device /dev/video0)"
