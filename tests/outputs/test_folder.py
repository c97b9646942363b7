from __future__ import annotations

from pathlib import Path

import pytest

from wise_edge.outputs.folder import name_pictures, plan_files


@pytest.mark.parametrize(
    ("pictures", "names"),
    [
        (["a/x.jpg", "y.png"], ["x", "y"]),
        (["a/x.jpg", "b/x.jpg", "b/y.jpg"], ["a_x", "b_x", "y"]),
        (["2024/01/cam/x.jpg", "2024/02/cam/x.jpg"], ["01_cam_x", "02_cam_x"]),
        (["x.jpg", "a/x.jpg"], ["x", "a_x"]),
        (["x.jpg", "x.png"], ["x_jpg", "x_png"]),
        (["a/x.jpg", "b/x.jpg", "b/x.png"], ["a_x", "b_x_jpg", "b_x_png"]),
        (["a/X.jpg", "b/x.jpg"], ["a_X", "b_x"]),
        (["X.jpg", "x.jpg"], ["X_jpg", "x_jpg-2"]),
        (["a/x.jpg", "b/x.jpg", "a_x.jpg"], ["a_x_jpg", "b_x", "a_x_jpg-2"]),
        (["coco.jpg", "-"], ["coco-2", "stdin"]),
        (["x" * 251 + ".jpg", "x" * 250 + "y.jpg"], ["x" * 230, "x" * 230 + "-2"]),
        (["é" * 120 + ".jpg", "b.jpg"], ["é" * 115, "b"]),
        (["a.b.jpg", "no_suffix", ".hidden"], ["a.b", "no_suffix", ".hidden"]),
    ],
)
def test_names_tell_pictures_apart(pictures: list[str], names: list[str]) -> None:
    assert name_pictures(pictures) == names
    assert len({name.casefold() for name in names}) == len(pictures)


def test_each_kind_has_its_file() -> None:
    planned = plan_files(Path("out"), ["a/x.JPG", "b/y.png"], ["overlay", "mask", "cutout", "outlines", "json", "coco"])
    assert [sorted(str(file) for file in files.values()) for files in planned] == [
        ["out/x-cutout.png", "out/x-mask.png", "out/x-overlay.jpg", "out/x.json", "out/x.svg"],
        ["out/y-cutout.png", "out/y-mask.png", "out/y-overlay.png", "out/y.json", "out/y.svg"],
    ]
