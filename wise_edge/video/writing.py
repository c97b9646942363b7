"""Writing a video frame by frame, each frame at its own time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.extras import require
from wise_edge.geometry import Size

if TYPE_CHECKING:
    from types import TracebackType

    from av.video.stream import VideoStream

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Suffix of a file to FFmpeg's name of its format; each stores a time for every frame."""
_CODECS = {
    "libx264": ("H.264", {"preset": "veryfast", "crf": "20"}),
    "libopenh264": ("H.264", {}),
    "mpeg4": ("MPEG-4 Part 2", {"qscale": "3"}),
}
"""Encoders in order of preference: what each writes, and its settings."""
PREFERRED = "H.264"
_BT709, _LIMITED = 1, 1  # https://ffmpeg.org/doxygen/trunk/pixfmt_8h.html
_MPEG4_FINEST = 65_535  # ticks a second: 16 bits
_UNIT = Fraction(1)


def check_video_name(path: Path) -> str:
    """Return FFmpeg's name of the format that a file's suffix asks for.

    Raises:
        UsageError: it is none that can be written.
    """
    if (found := CONTAINERS.get(path.suffix.lower())) is None:
        raise UsageError(f"{path} is not the name of a video; use one that ends in {', '.join(CONTAINERS)}")
    return found


class VideoWriter:
    """Writes frames into a file; a context manager that makes it playable when it ends.

    All frames are brought to the size of the first one, with black bars where the shapes differ. H.264 halves the
    resolution of color, so an odd side gets one more row or column.

    Args:
        file: what to write; its name does not matter.
        container: a value of `CONTAINERS`.
        rate: frames a second, on average.
        tick_s: the unit of the frames' times.
        aspect: width of a pixel by its height.

    Attributes:
        codec: what the video is coded in.

    Raises:
        MissingExtraError: PyAV is not installed.
        DeviceError: this build of FFmpeg has no encoder for videos.
    """

    def __init__(self, file: Path, container: str, rate: Fraction, tick_s: Fraction, aspect: Fraction = _UNIT) -> None:
        self._av = require("av", "video")
        self._encoder = find_encoder()
        self.codec, self._options = _CODECS[self._encoder]
        self._rate, self._tick_s, self._aspect = rate, tick_s, aspect
        self._file = self._av.open(str(file), "w", format=container)
        self._stream: VideoStream | None = None
        self._size: Size = (0, 0)

    def __enter__(self) -> VideoWriter:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what the encoder holds, and the index."""
        try:
            if kind is None and self._stream is not None:
                self._file.mux(self._stream.encode(None))
        finally:
            self._file.close()

    def write(self, image: npt.NDArray[np.uint8], ticks: int) -> None:
        """Append a frame.

        Args:
            image: HWC uint8 RGB.
            ticks: its time, later than the last frame's.

        Raises:
            WiseEdgeError: the encoder failed.
            OSError: the disk is full, or the file cannot be written.
        """
        height, width, _ = image.shape
        if self._stream is None:
            self._size = (width, height)
            self._stream = self._begin()
        if (width, height) != self._size:
            image = np.asarray(ImageOps.pad(Image.fromarray(image), self._size))
        frame = self._av.VideoFrame.from_ndarray(_make_even(image), format="rgb24").reformat(
            format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
        )
        frame.pts, frame.time_base = ticks, self._tick_s
        self._file.mux(self._stream.encode(frame))

    def _begin(self) -> VideoStream:
        stream: VideoStream = self._file.add_stream(self._encoder, rate=self._rate, options=dict(self._options))
        stream.width, stream.height = (side + side % 2 for side in self._size)
        stream.pix_fmt = "yuv420p"
        coarse = self._encoder == "mpeg4" and self._tick_s.denominator > _MPEG4_FINEST
        stream.time_base = stream.codec_context.time_base = Fraction(1, 60_000) if coarse else self._tick_s
        stream.codec_context.colorspace = stream.codec_context.color_primaries = _BT709
        stream.codec_context.color_trc, stream.codec_context.color_range = _BT709, _LIMITED
        if self._aspect != _UNIT:
            stream.codec_context.sample_aspect_ratio = self._aspect
        return stream


def find_encoder() -> str:
    """Return the first encoder of `_CODECS` that this build of FFmpeg has.

    Raises:
        WiseEdgeError: it has none.
    """
    av = require("av", "video")
    for name in _CODECS:
        try:
            av.Codec(name, "w")
        except ValueError:
            continue
        return name
    raise WiseEdgeError("this build of FFmpeg encodes neither H.264 nor MPEG-4; install PyAV from PyPI: pip install av")


def _make_even(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    height, width, _ = image.shape
    if height % 2 == width % 2 == 0:
        return image
    return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
