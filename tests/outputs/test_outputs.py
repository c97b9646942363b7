"""What a result is turned into is what other tools read, pixel by pixel."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image

from wise_edge.errors import UsageError
from wise_edge.geometry import mask_box
from wise_edge.outputs.coco import to_coco
from wise_edge.outputs.outlines import outlines, path_data, to_svg
from wise_edge.outputs.pictures import cut_out
from wise_edge.outputs.saving import kind_of
from wise_edge.runtimes.objects import SegmentedObject
from wise_edge.runtimes.results import Findings

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12))


@dataclass(frozen=True, eq=False)
class Found(Findings):
    objects: tuple[SegmentedObject, ...]
    query: str = "the red ring"
    reason: str | None = None
    image_size: tuple[int, int] = (60, 40)


def segmented(number: int, mask: NDArray[np.bool_], label: str | None = None) -> SegmentedObject:
    box = mask_box(mask) if mask.any() else (1, 2, 4, 8)
    return SegmentedObject(number, box, ((5, 5),), label, mask, 0.5 if mask.any() else None)


def ring(left: int, top: int) -> NDArray[np.bool_]:
    mask = np.zeros((40, 60), np.bool_)
    mask[top : top + 10, left : left + 12] = True
    mask[top + 3 : top + 6, left + 3 : left + 9] = False
    return mask


def paint(data: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Fill a path of horizontal and vertical lines by the even-odd rule, at the centers of the pixels."""
    crossings = np.zeros(shape, np.int64)
    for subpath in re.findall(r"M(\d+) (\d+)([^z]*)z", data):
        x, y = start = int(subpath[0]), int(subpath[1])
        for axis, step in [*re.findall(r"([hv])(-?\d+)", subpath[2]), ("v", None)]:
            if axis == "h":
                x += int(step)
            else:
                to = start[1] if step is None else y + int(step)
                crossings[min(y, to) : max(y, to), x:] += 1
                y = to
        assert x == start[0]
    return crossings % 2 == 1


@given(masks)
def test_outlines_are_the_mask(mask: NDArray[np.bool_]) -> None:
    np.testing.assert_array_equal(paint(path_data(mask), mask.shape), mask)
    for outline in outlines(mask):
        turns = [a != b for a, b in zip(outline, outline[1:] + outline[:1], strict=True)]
        assert all(turns)
        assert len(outline) >= 4


def test_a_hole_is_an_outline_and_a_touching_pixel_another() -> None:
    assert [sorted(set(outline)) for outline in outlines(ring(2, 3)[:20, :20])] == [
        [(2, 3), (2, 13), (14, 3), (14, 13)],
        [(5, 6), (5, 9), (11, 6), (11, 9)],
    ]
    for touching in (np.eye(2, dtype=np.bool_), np.eye(2, dtype=np.bool_)[::-1]):
        assert [len(outline) for outline in outlines(touching)] == [4, 4]


def test_an_svg_has_the_size_of_the_picture_and_a_path_for_each_object() -> None:
    found = Found(
        (
            segmented(1, ring(2, 3), "a <cup>\x07"),
            segmented(2, np.zeros((40, 60), np.bool_)),
            segmented(3, ring(30, 20)),
        )
    )
    drawn = ElementTree.fromstring(to_svg(found))
    assert (drawn.get("width"), drawn.get("height"), drawn.get("viewBox")) == ("60", "40", "0 0 60 40")
    name = "{http://www.w3.org/2000/svg}"
    paths = list(drawn.iter(f"{name}path"))
    assert [path.get("id") for path in paths] == ["object-1", "object-3"]
    assert [path.findtext(f"{name}title") for path in paths] == ["a <cup> ", "the red ring"]
    for path, item in zip(paths, (found.objects[0], found.objects[2]), strict=True):
        np.testing.assert_array_equal(paint(path.attrib["d"], (40, 60)), item.mask)
    assert len({path.get("fill") for path in paths}) == 2


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools' decode
def test_coco_tools_read_several_pictures_of_one_document(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    left, right, empty = ring(2, 3), ring(30, 20), np.zeros((40, 60), np.bool_)
    results: list[tuple[str, Findings]] = [
        ("a.jpg", Found((segmented(1, left, "cup"), segmented(2, right, "mug")))),
        ("b.jpg", Found((), reason="no answer")),
        ("c.jpg", Found((segmented(1, right), segmented(2, empty)))),
        ("a.jpg", Found((segmented(1, right, "cup"),))),
    ]
    file = tmp_path / "coco.json"
    file.write_text(json.dumps(to_coco(results)))
    read = coco.COCO(str(file))
    assert [(image["file_name"], image["width"], image["height"]) for image in read.loadImgs(read.getImgIds())] == [
        ("a.jpg", 60, 40),
        ("b.jpg", 60, 40),
        ("c.jpg", 60, 40),
    ]
    assert [each["name"] for each in read.loadCats(read.getCatIds())] == ["cup", "mug", "the red ring"]
    annotations = read.loadAnns(read.getAnnIds())
    assert [(each["image_id"], each["category_id"], each["score"]) for each in annotations] == [
        (1, 1, 0.5), (1, 2, 0.5), (3, 3, 0.5), (3, 3, None), (1, 1, 0.5),
    ]  # fmt: skip
    for each, mask in zip(annotations, (left, right, right, empty, right), strict=True):
        np.testing.assert_array_equal(read.annToMask(each), mask)
        assert each["area"] == mask.sum()
        if mask.any():
            assert each["bbox"] == coco.maskUtils.toBbox(each["segmentation"]).tolist()
    assert annotations[3]["bbox"] == [1, 2, 3, 6]
    assert read.loadRes([each for each in annotations if each["area"]]).getAnnIds(imgIds=[1]) == [1, 2, 4]


def test_supervision_reads_a_document_with_its_masks(tmp_path: Path) -> None:
    supervision = pytest.importorskip("supervision")
    found = Found((segmented(1, ring(2, 3), "cup"), segmented(2, ring(30, 20), "mug")))
    (tmp_path / "coco.json").write_text(json.dumps(to_coco([("a.png", found)])))
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    data = supervision.DetectionDataset.from_coco(str(tmp_path), str(tmp_path / "coco.json"), force_masks=True)
    ((_, _, read),) = data
    assert ([data.classes[number] for number in read.class_id], len(data)) == (["cup", "mug"], 1)
    np.testing.assert_array_equal(read.mask, [item.mask for item in found.objects])


def test_where_masks_overlap_the_pixel_is_the_first_objects() -> None:
    left, right = ring(2, 3), ring(8, 3)
    found = Found((segmented(1, left), segmented(2, right)))
    np.testing.assert_array_equal(found.mask_image(), np.where(left, 255, np.where(right, 254, 0)))
    assert (left & right).any()


def test_detections_have_a_class_for_each_name_and_no_confidence_without_a_pixel() -> None:
    pytest.importorskip("supervision")
    empty = np.zeros((40, 60), np.bool_)
    objects = (segmented(1, ring(2, 3), "cup"), segmented(2, empty, "mug"), segmented(3, ring(30, 20), "cup"))
    found = Found(objects).to_supervision()
    assert (found.class_id.tolist(), found["class_name"].tolist()) == ([0, 1, 0], ["cup", "mug", "cup"])
    assert found.confidence.tolist() == [0.5, 0.0, 0.5]


@given(masks)
def test_a_cut_out_is_what_the_mask_marks(mask: NDArray[np.bool_]) -> None:
    image = np.random.default_rng(1).integers(1, 256, (*mask.shape, 3), dtype=np.uint8)
    cut = cut_out(mask, image)
    left, top, right, bottom = mask_box(mask) if mask.any() else (0, 0, mask.shape[1], mask.shape[0])
    assert cut.shape == (bottom - top, right - left, 4)
    inside = mask[top:bottom, left:right]
    np.testing.assert_array_equal(cut[..., 3], inside * 255)
    np.testing.assert_array_equal(cut[..., :3][inside], image[mask])
    assert not cut[..., :3][~inside].any()


@pytest.mark.parametrize(
    ("file", "kind", "expected"),
    [("a.json", None, "json"), ("a.SVG", None, "outlines"), ("a.jpg", None, "overlay"), ("a.png", None, "overlay"),
     ("a.png", "mask", "mask"), ("a.png", "cutout", "cutout"), ("a.json", "coco", "coco")],
)  # fmt: skip
def test_a_suffix_says_what_a_file_holds(file: str, kind: str, expected: str) -> None:
    assert kind_of(file, kind) == expected


@pytest.mark.parametrize(
    ("file", "kind", "words"),
    [("a.gif", None, "a.gif: a result is written to files that end in .json, .svg, .png, .jpg, .jpeg"),
     ("a.jpg", "mask", "a.jpg: the kind mask is written to files that end in .png"),
     ("a", None, "a: a result is written"), ("a.png", "masks", "unknown kind of output 'masks'; known: json, coco")],
)  # fmt: skip
def test_a_suffix_that_does_not_fit_is_refused(file: str, kind: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        kind_of(file, kind)
