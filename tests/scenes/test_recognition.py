from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from locations import ROOT
from wise_edge.images import load_image
from wise_edge.scenes import sample, sample_group
from wise_edge.scenes.recognition import is_scene_like


def as_jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return load_image(buffer.getvalue())


def resized(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((width, height)))


@pytest.mark.parametrize("draw", [sample, sample_group])
def test_scenes_are_known_at_every_size_and_as_jpeg(draw: Callable[[str, int], Any]) -> None:
    for index in range(20):
        image = draw("test", index).scene.image
        seen = {
            "as is": image,
            "jpeg": as_jpeg(image, 50),
            "small": resized(image, 112, 112),
            "full hd": resized(image, 1920, 1080),
            "large jpeg": as_jpeg(resized(image, 640, 640), 75),
        }
        assert [name for name, picture in seen.items() if not is_scene_like(picture)] == [], index


def test_the_scene_of_the_readme_is_one() -> None:
    assert is_scene_like(load_image(ROOT / "docs" / "scene.png"))


@pytest.mark.parametrize("name", ["service.jpg", "profile.png", "demo.png"])
def test_screenshots_and_plots_are_none(name: str) -> None:
    assert not is_scene_like(load_image(ROOT / "docs" / name))


def other_pictures() -> dict[str, NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:180, 0:240]
    sky = np.stack([90 + rows // 3, 140 + rows // 3, np.full_like(rows, 235)], axis=2).astype(np.uint8)
    texture = random.integers(70, 180, (180, 240, 1)).repeat(3, axis=2).astype(np.uint8)
    ball = (rows - 90) ** 2 + (columns - 120) ** 2 < 30**2
    on_texture, on_white = texture.copy(), np.full((180, 240, 3), 255, np.uint8)
    on_texture[ball] = on_white[ball] = (214, 40, 44)
    brown = np.full((180, 240, 3), 120, np.uint8)
    brown[ball] = (110, 70, 40)
    return {
        "sky": sky,
        "gray": np.full((180, 240, 3), 120, np.uint8),
        "white": np.full((1, 1, 3), 255, np.uint8),
        "black": np.zeros((3, 500, 3), np.uint8),
        "noise": random.integers(0, 256, (180, 240, 3), dtype=np.uint8),
        "texture": texture,
        "a red ball on a texture": on_texture,
        "a red ball on white": on_white,
        "a brown ball on gray": brown,
        "red": np.full((180, 240, 3), (214, 40, 44), np.uint8),
    }


@pytest.mark.parametrize(("name", "image"), other_pictures().items(), ids=other_pictures())
def test_other_pictures_are_none(name: str, image: NDArray[np.uint8]) -> None:
    assert not is_scene_like(image)


def test_only_a_grid_of_the_picture_is_read() -> None:
    """A picture of 400 megapixels, which a copy would not fit beside the other tests, costs what a small one does."""
    gray = np.lib.stride_tricks.as_strided(np.full(3, 90, np.uint8), (20_000, 20_000, 3), (0, 0, 1))
    assert not is_scene_like(gray)
