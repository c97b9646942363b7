"""Writing videos that play anywhere: each frame at its time, in its colors and its size."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from movies import pan, play
from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.video import writing
from wise_edge.video.writing import VideoWriter, check_video_name

IMAGES = pan(3, 8).images
TICK_S = Fraction(1, 90_000)


def write(file: Path, images: list[np.ndarray], ticks: list[int], aspect: Fraction = Fraction(1)) -> Path:
    with VideoWriter(file, check_video_name(file), Fraction(30), TICK_S, aspect) as writer:
        for image, at in zip(images, ticks, strict=True):
            writer.write(image, at)
    return file


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "A.MP4"])
def test_a_variable_rate_is_kept(tmp_path: Path, name: str) -> None:
    ticks = [0, 2970, 6030, 45_000, 45_900, 180_000, 180_900, 189_000]

    played = play(write(tmp_path / name, IMAGES, ticks))

    assert (played.codec, played.audio) == ("h264", 0)
    np.testing.assert_allclose(
        played.times_s, [tick / 90_000 for tick in ticks], atol=1e-9 if name != "a.mkv" else 1e-3
    )
    assert max(np.abs(a.astype(int) - b).mean() for a, b in zip(played.images, IMAGES, strict=True)) < 4


def test_an_even_rate_is_kept(tmp_path: Path) -> None:
    assert play(write(tmp_path / "a.mp4", IMAGES, [3000 * place for place in range(8)])).rate == 30


def test_colors_are_those_of_the_pictures(tmp_path: Path) -> None:
    patches = np.zeros((64, 192, 3), np.uint8)
    patches[:, :64], patches[:, 64:128], patches[:, 128:] = (255, 0, 0), (0, 255, 0), (40, 90, 200)

    played = play(write(tmp_path / "a.mp4", [patches] * 3, [0, 3000, 6000]))

    assert np.abs(played.images[0][:, ::32].astype(int) - patches[:, ::32]).max() < 8


def test_a_picture_with_odd_sides_gets_one_more_row_and_column(tmp_path: Path) -> None:
    image = IMAGES[0][:75, :101]

    played = play(write(tmp_path / "a.mp4", [image], [0]))

    assert played.images[0].shape == (76, 102, 3)
    assert np.abs(played.images[0][:75, :101].astype(int) - image).mean() < 4


def test_pictures_of_another_size_are_fitted_into_the_first_ones(tmp_path: Path) -> None:
    wide = np.full((50, 200, 3), 200, np.uint8)

    played = play(write(tmp_path / "a.mp4", [IMAGES[0], wide], [0, 3000]))

    assert {image.shape for image in played.images} == {(224, 224, 3)}
    assert played.images[1][:60].mean() < 20  # a black bar
    assert played.images[1][112].mean() > 180


def test_pixels_that_are_no_squares_stay_so(tmp_path: Path) -> None:
    import av

    with av.open(str(write(tmp_path / "a.mp4", IMAGES[:2], [0, 3000], Fraction(16, 11)))) as opened:
        assert opened.streams.video[0].sample_aspect_ratio == Fraction(16, 11)


def test_without_h264_there_is_mpeg4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codecs = {"no_such_encoder": ("H.264", {}), "mpeg4": writing._CODECS["mpeg4"]}
    monkeypatch.setattr(writing, "_CODECS", codecs)

    assert play(write(tmp_path / "a.mp4", IMAGES[:3], [0, 3003, 6006])).codec == "mpeg4"

    monkeypatch.setattr(writing, "_CODECS", {"no_such_encoder": ("H.264", {})})
    with pytest.raises(WiseEdgeError, match=r"encodes neither H\.264 nor MPEG-4; install PyAV from PyPI"):
        write(tmp_path / "b.mp4", IMAGES[:3], [0, 1, 2])


def test_other_names_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"a\.avi is not the name of a video; use one that ends in \.mp4, \.mov, \.mkv"
    ):
        check_video_name(Path("a.avi"))
