"""Real videos of scenes that the embedded models know, with the truth of every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from wise_edge.scenes import SIDE_PX, sample
from wise_edge.scenes.render import render


@dataclass(frozen=True)
class Movie:
    """A scene past which the camera pans to and fro, two pixels a frame.

    Attributes:
        query: asks for one object.
        images: HWC uint8 RGB.
        masks: of the object that is asked for, bool [H, W].
    """

    query: str
    images: list[npt.NDArray[np.uint8]]
    masks: list[npt.NDArray[np.bool_]]


def pan(place: int, count: int) -> Movie:
    item = sample("test", place)
    left = min(spec.center[0] - spec.radius for spec in item.scene.objects)
    right = min(1 - spec.center[0] - spec.radius for spec in item.scene.objects)
    room = max(1, int(max(left, right) * SIDE_PX / 2))
    images, masks = [], []
    for step in range(count):
        shift = (room - abs(step % (2 * room) - room)) * 2 / SIDE_PX * (-1 if left > right else 1)
        specs = tuple(replace(spec, center=(spec.center[0] + shift, spec.center[1])) for spec in item.scene.objects)
        drawn = render(specs, SIDE_PX, Random(item.scene.seed))
        images.append(drawn.image)
        masks.append(drawn.masks[item.query.target])
    return Movie(item.request, images, masks)


def encode(
    file: Path,
    images: Sequence[npt.NDArray[np.uint8]],
    codec: str = "libx264",
    ticks: Sequence[int] | None = None,
    tick_s: Fraction = Fraction(1, 30),
    **settings: Any,
) -> Path:
    """Write images with PyAV alone, so that reading is not tested with our own writing.

    Args:
        file: its suffix chooses the container.
        images: HWC uint8 RGB.
        codec: FFmpeg's name of the encoder.
        ticks: the time of each; evenly spaced by default.
        tick_s: the unit of `ticks`.
        settings: attributes of the stream, `options` of the encoder, `rotation` in degrees counterclockwise.
    """
    rotation, container = settings.pop("rotation", 0), settings.pop("container", None) or {}
    with av.open(str(file), "w", options=container) as out:
        stream: Any = out.add_stream(codec, rate=settings.pop("rate", 30), options=settings.pop("options", {}))
        stream.height, stream.width, _ = images[0].shape
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = tick_s
        for name, value in settings.items():
            setattr(stream, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        for place, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = place if ticks is None else ticks[place], tick_s
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file


@dataclass(frozen=True)
class Played:
    """What a player sees of a file: frames upright, their times in s, and facts."""

    images: list[npt.NDArray[np.uint8]]
    times_s: list[float]
    codec: str
    audio: int
    rate: Fraction | None


def play(file: Path) -> Played:
    with av.open(str(file)) as opened:
        stream = opened.streams.video[0]
        frames = list(opened.decode(stream))
        images = [np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4) for frame in frames]
        times = [float(frame.pts * frame.time_base) for frame in frames]
        name = stream.codec_context.name
        return Played(images, times, name, len(opened.streams.audio), stream.average_rate)
