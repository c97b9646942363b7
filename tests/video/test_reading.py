"""Reading real videos: every frame, upright, in its colors, at its own time."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from movies import Movie, encode, pan
from wise_edge.errors import UsageError
from wise_edge.video.opening import open_video
from wise_edge.video.reading import NumberedFrame, Recording
from wise_edge.video.sources import CameraSettings, find_source

NEAR = 6.0
"""Mean difference of a level that coding may make."""
MOVIE = pan(3, 12)


def open_file(file: Path | str) -> Recording:
    opened = open_video(str(file))
    assert isinstance(opened, Recording)
    return opened


def read(file: Path) -> tuple[list[NumberedFrame], list[str]]:
    recording = open_file(file)
    frames = list(recording)
    recording.close()
    return frames, list(recording.describe_losses())


def difference(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(np.int16) - b).mean())


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mkv", "libx265"),
        ("a.mp4", "mpeg4"),
        ("a.avi", "mpeg4"),
        ("a.avi", "mjpeg"),
        ("a.webm", "libvpx-vp9"),
        ("a.ts", "libx264"),
    ],
)
def test_every_frame_is_read_at_its_time(tmp_path: Path, name: str, codec: str) -> None:
    frames, losses = read(encode(tmp_path / name, MOVIE.images, codec))

    assert [frame.index for frame in frames] == list(range(12))
    np.testing.assert_allclose([frame.stamp_s for frame in frames], np.arange(12) / 30, atol=0.0006)  # mkv counts ms
    assert max(difference(frame.image, image) for frame, image in zip(frames, MOVIE.images, strict=True)) < NEAR
    assert losses == []


def test_a_variable_rate_is_kept(tmp_path: Path) -> None:
    ticks = [0, 3003, 6006, 30000, 30001, 90000]

    frames, _ = read(encode(tmp_path / "a.mp4", MOVIE.images[:6], ticks=ticks, tick_s=Fraction(1, 90000)))

    assert [frame.stamp_s for frame in frames] == [tick / 90000 for tick in ticks]


def test_times_begin_with_the_first_frame(tmp_path: Path) -> None:
    ticks = [900 + place for place in range(6)]

    frames, _ = read(encode(tmp_path / "a.mkv", MOVIE.images[:6], ticks=ticks))

    assert [round(frame.stamp_s * 30, 1) for frame in frames] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("turned", [90, 180, 270])
def test_a_phones_video_is_read_upright(tmp_path: Path, turned: int) -> None:
    """A phone stores what its sensor saw, and how far to turn it counterclockwise."""
    wide = [image[:120] for image in MOVIE.images[:3]]
    stored = [np.rot90(image, -turned // 90) for image in wide]

    frames, _ = read(encode(tmp_path / "a.mp4", stored, rotation=turned))

    assert max(difference(frame.image, image) for frame, image in zip(frames, wide, strict=True)) < NEAR
    assert all(frame.image.flags.c_contiguous for frame in frames)


@pytest.mark.parametrize(("turned", "aspect"), [(0, (3, 2)), (90, (2, 3)), (180, (3, 2)), (270, (2, 3))])
def test_pixels_that_are_no_squares_turn_with_the_picture(tmp_path: Path, turned: int, aspect: tuple[int, int]) -> None:
    file = encode(tmp_path / "a.mp4", MOVIE.images[:2], rotation=turned, sample_aspect_ratio=Fraction(3, 2))

    assert open_file(file).aspect == Fraction(*aspect)


def test_a_closed_file_ends_the_iteration(tmp_path: Path) -> None:
    """PyAV's own iteration would go on, and end the process."""
    file = encode(tmp_path / "a.mp4", MOVIE.images)
    begun, untouched = open_file(file), open_file(file)
    frames = iter(begun)
    next(frames)
    begun.close()
    untouched.close()

    assert len(list(frames)) < len(MOVIE.images) - 1
    assert len(list(untouched)) == 1  # the one that was read at the opening


def test_colors_are_read_as_the_file_says(tmp_path: Path) -> None:
    """BT.709 and BT.601 differ by up to 25 levels."""
    patches = np.zeros((64, 192, 3), np.uint8)
    patches[:, :64], patches[:, 64:128], patches[:, 128:] = (255, 0, 0), (0, 255, 0), (40, 90, 200)
    file = tmp_path / "a.mp4"
    with av.open(str(file), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 192, 64, "yuv420p"
        stream.codec_context.colorspace = stream.codec_context.color_range = 1
        frame = av.VideoFrame.from_ndarray(patches, format="rgb24")
        out.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU709")))
        out.mux(stream.encode(None))

    frames, _ = read(file)

    assert difference(frames[0].image[:, ::32], patches[:, ::32]) < 3


def test_joined_recordings_follow_each_other_whatever_their_sizes(tmp_path: Path) -> None:
    """As `cat a.ts b.ts`: the second one's times begin anew."""
    first = encode(tmp_path / "a.ts", MOVIE.images[:6])
    second = encode(tmp_path / "b.ts", [image[:128, :160] for image in MOVIE.images[6:]])
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())

    frames, _ = read(joined)

    times = [frame.stamp_s for frame in frames]
    assert len(frames) == 12
    assert {frame.image.shape for frame in frames} == {(224, 224, 3), (128, 160, 3)}
    np.testing.assert_allclose(np.diff(times), 1 / 30, atol=1e-4)


@pytest.mark.parametrize(("name", "container"), [("a.mkv", {}), ("a.mp4", {"movflags": "faststart"})])
def test_a_file_that_was_cut_short_is_read_to_its_end_and_told(
    tmp_path: Path, name: str, container: dict[str, str]
) -> None:
    rng = np.random.default_rng(0)
    noisy = [rng.integers(0, 255, (96, 96, 3), np.uint8) for _ in range(60)]
    file = encode(tmp_path / name, noisy, container=container, options={"g": "5"})
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * 0.4)])

    frames, losses = read(file)

    assert 10 < len(frames) < 40
    assert any("before the end that it states: it may be cut short" in line for line in losses)


def test_a_damaged_part_is_left_out_and_counted(tmp_path: Path) -> None:
    file = encode(tmp_path / "a.avi", MOVIE.images, "mpeg4", options={"g": "1"})
    data = bytearray(file.read_bytes())
    with av.open(str(file)) as opened:
        packet = [packet for packet in opened.demux(video=0) if packet.size][5]
        position, size = packet.pos, packet.size
    data[position + 8 : position + 8 + size] = bytes(size)
    file.write_bytes(data)

    frames, losses = read(file)

    assert len(frames) >= 10
    assert len(losses) == (len(frames) < 12)


def test_what_is_no_video_is_one_line(tmp_path: Path) -> None:
    whole = encode(tmp_path / "a.mp4", MOVIE.images)
    cut, text, sound, folder = (tmp_path / name for name in ("cut.mp4", "notes.txt", "sound.wav", "folder"))
    cut.write_bytes(whole.read_bytes()[:2000])  # the index of an mp4 is its end
    text.write_text("hello\n")
    folder.mkdir()
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16_000))

    for path, line in {
        cut: "is not a readable video .*an unfinished recording lacks its index",
        text: r"notes\.txt is not a readable video",
        sound: "contains no video",
        folder: "is a folder; pass a video file",
        tmp_path / "no.mp4": r"No such file or directory; pass a file, a camera \(0 or /dev/video0\)",
    }.items():
        with pytest.raises(UsageError, match=line):
            open_file(path)


def test_a_file_may_be_named_by_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg takes what stands before the colon for a protocol."""
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "a.mp4", MOVIE.images[:2]).rename(tmp_path / "2026-11-30T12:00:00.mp4")

    assert len(list(open_file("2026-11-30T12:00:00.mp4"))) == 2


@pytest.mark.parametrize(
    ("text", "kind", "address", "name"),
    [
        ("0", "camera", "/dev/video0", "/dev/video0"),
        ("12", "camera", "/dev/video12", "/dev/video12"),
        ("/dev/video3", "camera", "/dev/video3", "/dev/video3"),
        ("rtsp://cam.local/main", "stream", "rtsp://cam.local/main", "rtsp://cam.local/main"),
        (
            "rtsp://me:se@cret@10.0.0.2:554/a@b",
            "stream",
            "rtsp://me:se@cret@10.0.0.2:554/a@b",
            "rtsp://10.0.0.2:554/a@b",
        ),
    ],
)
def test_a_source_is_known_by_its_name(text: str, kind: str, address: str, name: str) -> None:
    source = find_source(text)

    assert (source.kind, source.address, source.name) == (kind, address, name)


def test_settings_of_a_camera_are_refused_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not a camera; remove --size, --fps and --format"):
        find_source(str(encode(tmp_path / "a.mp4", MOVIE.images[:1])), CameraSettings(size=(640, 480)))
    settings = CameraSettings((640, 480), 30.0, "mjpeg")
    assert settings.options == {"video_size": "640x480", "framerate": "30", "input_format": "mjpeg"}


def test_movies_move() -> None:
    movie: Movie = MOVIE
    assert len({image.tobytes() for image in movie.images}) > 3
    assert all(mask.any() for mask in movie.masks)
