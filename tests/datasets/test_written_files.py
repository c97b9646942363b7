"""What tests write in the forms of published data sets is read back as those projects read it, without our readers."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dataset_files import REFERENCE_SIDE_PX, write_reasonseg, write_refcocog_2k
from polygons import trace_polygons
from wise_edge.images import load_image
from wise_edge.metrics import mask_iou
from wise_edge.scenes import sample

SOLUTION = re.compile(r"<box>\((\d+),(\d+)\),\((\d+),(\d+)\)</box><points>\((\d+),(\d+)\),\((\d+),(\d+)\)</points>")


def painted(polygons: list[Any], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Paint polygons with their outlines, as ReasonSeg's readers do."""
    canvas = Image.new("1", (shape[1], shape[0]))
    for polygon in polygons:
        ImageDraw.Draw(canvas).polygon([tuple(point) for point in polygon], fill=1, outline=1)
    return np.asarray(canvas)


@settings(max_examples=300)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_polygons_give_any_mask_back(mask: NDArray[np.bool_]) -> None:
    polygons = list(trace_polygons(mask))
    assert bool(polygons) == mask.any()
    assert all(len(polygon) >= 3 for polygon in polygons)
    np.testing.assert_array_equal(painted(polygons, mask.shape), mask)


def test_polygons_of_simple_masks() -> None:
    square = np.zeros((9, 9), bool)
    square[2:6, 3:8] = True
    assert list(trace_polygons(square)) == [((3, 2), (7, 2), (7, 5), (3, 5))]
    square[3:5, 4:7] = False
    assert len(list(trace_polygons(square))) == 2, "a ring is cut in two"
    dot = np.eye(1, dtype=bool)
    assert list(trace_polygons(dot)) == [((0, 0), (0, 0), (0, 0))]


def test_reasonseg_form(tmp_path: Path) -> None:
    folder = tmp_path / "test"
    write_reasonseg(folder, 12)
    assert len(list(folder.iterdir())) == 24
    sentences = set()
    for index in range(12):
        item = sample("test", index)
        content = json.loads((folder / f"{index}.json").read_text(encoding="utf-8"))
        assert content["text"] == [item.request]
        assert content["is_sentence"] is (item.request != item.query.text)
        sentences.add(content["is_sentence"])
        assert {shape["label"] for shape in content["shapes"]} == {"target"}
        mask = painted([shape["points"] for shape in content["shapes"]], item.mask.shape)
        assert mask_iou(mask, item.mask) >= 0.97
        image = load_image(folder / f"{index}.jpg")
        assert np.abs(image.astype(int) - item.scene.image).mean() < 8, "JPEG changes little"
    assert sentences == {True, False}


def test_refcocog_form(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'train'")
    table = parquet.read_table(write_refcocog_2k(tmp_path, "test", 3))
    assert set(table.column_names) == {"id", "image", "problem", "solution", "img_width", "img_height"}
    scale = REFERENCE_SIDE_PX / 224
    for index, row in enumerate(table.to_pylist()):
        item = sample("test", index)
        assert row["problem"] == item.query.text
        assert (row["img_width"], row["img_height"]) == (224, 224)
        numbers = SOLUTION.fullmatch(row["solution"])
        assert numbers is not None
        expected = [*item.box, *item.points[0], *item.points[1]]
        for value, original in zip(map(int, numbers.groups()), expected, strict=True):
            assert abs(value - original * scale) <= scale
        with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            assert (image.format, image.size) == ("JPEG", (REFERENCE_SIDE_PX, REFERENCE_SIDE_PX))


def test_the_datasets_package_reads_the_refcocog_form(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra 'train'")
    write_refcocog_2k(tmp_path / "out", "train", 2)
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows[0]["image"].size == (REFERENCE_SIDE_PX, REFERENCE_SIDE_PX)
    assert rows[1]["problem"] == sample("train", 1).query.text
