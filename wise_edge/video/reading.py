"""Reading the frames of a video: upright, as RGB, each with its own time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from queue import Empty, Queue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wise_edge.arguments import check_size
from wise_edge.errors import DeviceError, UsageError, WiseEdgeError
from wise_edge.extras import require
from wise_edge.runtimes.tracking import Stamped
from wise_edge.video.sources import Source

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

PATIENCE_S = 10.0
"""How long a camera or a network may take to open, and to deliver the next frame."""
_DEFAULT_RATE = Fraction(30)
_CUT_SHORT_S = 1.0  # an end earlier than stated by more than this is told
_RIGHT_ANGLE_DEG = 90


@dataclass(frozen=True, eq=False)
class NumberedFrame(Stamped):
    """A frame of a video.

    Attributes:
        index: its number, from 0.
        ticks: its time after the first frame, in the time base of the recording or, of a camera, of `LIVE_TICK_S`.
    """

    index: int
    ticks: int


def number_of(frame: Stamped) -> NumberedFrame:
    """Return a frame that went through the tracking as what it was before."""
    if not isinstance(frame, NumberedFrame):
        raise RuntimeError("the tracking returned a frame that did not come from a video")
    return frame


class Recording:
    """The frames of a video that has an end; iterate over it once.

    Times begin with 0 at the first frame. Where the file's times do not increase, as where recordings were joined, a
    frame follows the one before it at the usual distance.

    Args:
        container: the opened file.
        name: for messages.

    Attributes:
        rate: frames a second, on average.
        tick_s: the unit of `NumberedFrame.ticks`.
        aspect: width of a pixel by its height as it is to be shown.
        frames: how many there are, if the file says so or it can be estimated; None otherwise.
        has_audio: whether there is sound, which is not read.
        damaged: packets so far that could not be decoded, and were left out.
    """

    def __init__(self, container: InputContainer, name: str) -> None:
        self._container, self._name = container, name
        self._stream = pick_stream(container, name)
        self._stream.thread_type = "AUTO"  # frames are decoded ahead, in as many threads as there are cores
        self._reading, self._closed = Lock(), False
        self.tick_s = self._stream.time_base or 1 / _DEFAULT_RATE
        self.rate = self._stream.average_rate or self._stream.guessed_rate or _DEFAULT_RATE
        self._stated_s = self._find_duration()
        estimate = None if self._stated_s is None else max(1, round(self._stated_s * self.rate))
        self.frames = self._stream.frames or estimate
        self.has_audio = bool(container.streams.audio)
        self.damaged = 0
        self._ended_s = 0.0
        self._step = max(1, round(1 / (self.rate * self.tick_s)))
        self._frames = self._decode()
        if (first := next(self._frames, None)) is None:
            raise UsageError(f"{name} has no frame that can be read; check it with another program")
        self._frames = chain([first], self._frames)
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        self.aspect = 1 / aspect if _quarter_turns(first) % 2 else aspect

    def __iter__(self) -> Iterator[NumberedFrame]:
        """Yield the frames in the order in which they are shown.

        Raises:
            UsageError: a frame has a size that is not accepted.
            WiseEdgeError: the connection to a recording on the network was lost.
        """
        first = last = shift = 0
        for index, frame in enumerate(self._frames):
            at = frame.pts if frame.pts is not None else last + self._step - shift
            if index == 0:
                first = at
            elif at + shift <= last:
                shift = last + self._step - at
            last = at + shift
            ticks = last - first
            self._ended_s = float((ticks + self._step) * self.tick_s)
            yield NumberedFrame(to_rgb(frame, self._name), float(ticks * self.tick_s), index, ticks)

    def close(self) -> None:
        """Close the file, and end the iteration, in whichever thread that is."""
        with self._reading:  # PyAV reads on from a closed file, out of bounds
            self._closed = True
            self._container.close()

    def describe_losses(self) -> Iterator[str]:
        """Yield what was missing, in a line each, once all frames were read."""
        if self.damaged:
            yield f"{self._name}: {self.damaged} packets are damaged and were skipped"
        if self._stated_s is not None and (missing_s := self._stated_s - self._ended_s) > _CUT_SHORT_S:
            yield (
                f"{self._name} ends at {self._ended_s:.1f} s, {missing_s:.1f} s before the end that it states: it may "
                "be cut short"
            )

    def _decode(self) -> Iterator[VideoFrame]:
        errors = require("av", "video").error
        packets = self._container.demux(self._stream)
        while True:
            try:
                with self._reading:
                    packet = None if self._closed else next(packets, None)
            except errors.InvalidDataError:  # the file ends in the middle of a packet
                return
            except errors.FFmpegError as error:
                raise WiseEdgeError(f"reading {self._name} failed: {reason_of(error)}") from error
            if packet is None:
                return
            try:
                yield from packet.decode()
            except errors.InvalidDataError:
                self.damaged += 1

    def _find_duration(self) -> float | None:
        if self._stream.duration:
            return float(self._stream.duration * self.tick_s)
        return self._container.duration / 1e6 if self._container.duration else None


def open_recording(source: Source) -> Recording:
    """Open a video file.

    Raises:
        MissingExtraError: PyAV is not installed.
        UsageError: it is no video, or one that cannot be decoded.
    """
    av = require("av", "video")
    try:
        return Recording(av.open(source.address), source.name)
    except av.error.FFmpegError as error:
        raise UsageError(
            f"{source.name} is not a readable video ({reason_of(error)}); an unfinished recording lacks its index: "
            "repair it, or convert it with ffmpeg"
        ) from None


def open_patiently(source: Source, **options: Any) -> InputContainer:
    """Open a camera or an address in a thread of its own: FFmpeg may wait in a call that no signal ends.

    Args:
        source: the camera or address.
        options: of `av.open`.

    Raises:
        MissingExtraError: PyAV is not installed.
        DeviceError: nothing is there or comes from there, or it is refused.
    """
    av = require("av", "video")
    outcome: Queue[InputContainer | Exception] = Queue(1)

    def work() -> None:
        try:
            outcome.put(av.open(source.address, **options))
        except Exception as error:
            outcome.put(error)

    Thread(target=work, name="opening", daemon=True).start()
    try:
        opened = outcome.get(timeout=PATIENCE_S + 1)  # FFmpeg's own, more precise word comes first where there is one
    except Empty:
        raise DeviceError(f"{source.name} delivers no picture; check it with another program") from None
    if isinstance(opened, av.error.FFmpegError | ValueError):
        raise DeviceError(f"cannot open {source.name}: {reason_of(opened)}") from None
    if isinstance(opened, Exception):
        raise opened
    return opened


def pick_stream(container: InputContainer, name: str) -> VideoStream:
    """Return the pictures among what a container holds.

    Raises:
        UsageError: it holds none, or their codec is unknown.
    """
    attached = require("av.stream", "video").Disposition.attached_pic  # the cover of a piece of music
    streams = [stream for stream in container.streams.video if not stream.disposition & attached]
    best = container.streams.best("video")
    if not streams:
        raise UsageError(f"{name} contains no video; pass a file that does")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise UsageError(f"{name} is encoded in a way that this build of FFmpeg cannot decode; convert it to H.264")
    check_size((stream.codec_context.width or 1, stream.codec_context.height or 1), name)
    return stream


def to_rgb(frame: VideoFrame, name: str) -> npt.NDArray[np.uint8]:
    """Return a frame as HWC uint8 RGB, turned as its metadata says.

    Raises:
        UsageError: it is too large.
    """
    check_size((frame.width, frame.height), name)
    image = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    turns = _quarter_turns(frame)
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _quarter_turns(frame: VideoFrame) -> int:
    """Return by how many right angles a frame is turned to be upright, counterclockwise, as numpy's."""
    return round(frame.rotation / _RIGHT_ANGLE_DEG) % 4


def reason_of(error: BaseException) -> str:
    """Return what FFmpeg says of an error, without the address, which may hold a password."""
    if isinstance(error, require("av", "video").error.ExitError):  # FFmpeg was told that its time is over
        return f"nothing came for {PATIENCE_S:g} s"
    return getattr(error, "strerror", None) or type(error).__name__
