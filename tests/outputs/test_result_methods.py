"""What a result offers in Python: overlays, files, COCO and supervision, on the image that it holds."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import fake_session
from wise_edge import SegmentationResult, Session, Stamped, load_image
from wise_edge.errors import MissingExtraError, UsageError
from wise_edge.geometry import mask_box
from wise_edge.outputs import detections
from wise_edge.policy.answers.form import BOX_LABEL_LIST
from wise_edge.rle import mask_of_runs
from wise_edge.runtimes.session import ImageCache

PICTURE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def make_session(write: fake_session.Write = fake_session.write_canned) -> tuple[Session, fake_session.FakePolicy]:
    policy = fake_session.FakePolicy(write)
    return Session(policy, fake_session.FakeMask(), {}), policy


def ask(write: fake_session.Write = fake_session.write_canned) -> SegmentationResult:
    return make_session(write)[0].segment(PICTURE, "the red ring")


def ask_for_two() -> SegmentationResult:
    boxes = [(0, 0, 20, 20), (40, 30, 70, 50)]
    session, policy = make_session(lambda *_: fake_session.list_boxes(boxes, (80, 60)))
    policy.form = BOX_LABEL_LIST
    return session.segment(PICTURE, "the red ring")


def test_a_result_holds_the_image_without_a_further_copy() -> None:
    session, _ = make_session()
    kept = PICTURE.copy()
    kept.flags.writeable = False
    assert session.segment(kept, "the ring").image is kept
    buffer = PICTURE.copy()
    first, again = session.segment(buffer, "the ring"), session.segment(buffer, "the star")
    assert first.image is again.image is kept  # the session's own
    other = buffer[::-1].copy()
    held = session.segment(other, "the ring").image
    assert held is not None
    other[:] = 0  # a camera reuses its buffer
    np.testing.assert_array_equal(held, PICTURE[::-1])
    assert not held.flags.writeable
    assert {id(result.image) for result in session.segment_many(held, ["the ring", "the star"])} == {id(held)}


def test_the_image_is_in_no_text_and_no_comparison() -> None:
    result = ask()
    assert "image=array" not in repr(result)
    assert "image" not in result.to_dict()
    assert replace(result, image=None) == result
    with pytest.raises(UsageError, match="holds no image; pass the image"):
        replace(result, image=None).overlay()
    np.testing.assert_array_equal(replace(result, image=None).overlay(PICTURE), result.overlay())
    assert copy.copy(result).image is result.image


@pytest.mark.parametrize("image", [PICTURE[:50], PICTURE[..., 0], "picture.png"])
def test_another_image_is_refused(image: Any) -> None:
    with pytest.raises(UsageError, match=r"the result is about an image of 80 x 60, got uint8|expected a uint8 RGB"):
        ask().overlay(image)


def test_a_masked_array_is_an_array_like_any_other() -> None:
    masked = np.ma.masked_array(PICTURE, mask=PICTURE > 100)
    session, _ = make_session()
    results = [session.segment(image, "the ring") for image in (masked, PICTURE)]
    assert [type(result.image) for result in results] == [np.ndarray] * 2  # the second one's is the first one's
    for image in (None, masked):
        drawn = results[0].overlay(image)
        assert type(drawn) is np.ndarray
        np.testing.assert_array_equal(drawn, results[1].overlay(PICTURE))


def test_the_mask_of_several_objects_is_their_union_in_json_too() -> None:
    two = ask_for_two()
    first, second = (item.mask for item in two.objects)
    np.testing.assert_array_equal(mask_of_runs(two.to_dict()["mask"]), first | second)
    assert (first != second).any()


def test_an_overlay_has_the_size_of_the_image_and_numbers_for_several_objects() -> None:
    one, two = ask(), ask_for_two()
    assert (one.overlay().shape, one.overlay().dtype) == (PICTURE.shape, np.uint8)
    assert one.image is not None
    assert not one.image.flags.writeable
    np.testing.assert_array_equal(one.image, PICTURE)
    assert (one.overlay(boxes=True, points=True) != one.overlay()).any()
    np.testing.assert_array_equal(one.overlay(labels=False), one.overlay())
    np.testing.assert_array_equal(two.overlay(labels=True), two.overlay())
    assert (two.overlay(labels=False) != two.overlay()).any()


@pytest.mark.parametrize(
    ("file", "kind"),
    [("a.png", None), ("a.JPG", None), ("a.jpeg", "overlay"), ("m.png", "mask"), ("c.png", "cutout"),
     ("a.svg", None), ("a.json", None), ("c.json", "coco")],
)  # fmt: skip
def test_every_kind_of_file_is_written(file: str, kind: Any, tmp_path: Path) -> None:
    result, path = ask_for_two(), tmp_path / file
    assert result.mask is not None
    result.save(path, kind, file_name="scene.png")
    with pytest.raises(UsageError, match=re.escape(f"{path} exists; force=True replaces it")):
        result.save(str(path), kind)
    result.save(path, kind, file_name=Path("scene.png"), force=True)
    assert [each.name for each in tmp_path.iterdir()] == [file]
    if file.lower().endswith(("jpg", "jpeg")):
        error = np.abs(load_image(path).astype(int) - result.overlay())
        assert error.mean() < 6
    elif kind == "mask":
        np.testing.assert_array_equal(np.asarray(Image.open(path)), result.mask_image())
    elif kind == "cutout":
        x1, y1, x2, y2 = mask_box(result.mask)
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("RGBA", (x2 - x1, y2 - y1))
    elif file == "a.png":
        np.testing.assert_array_equal(load_image(path), result.overlay())
    elif file == "a.svg":
        assert len(list(ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}path"))) == 2
    elif kind == "coco":
        assert json.loads(path.read_text()) == result.to_coco("scene.png")
        assert result.to_coco("scene.png")["images"][0]["file_name"] == "scene.png"
    else:
        assert json.loads(path.read_text()) == json.loads(json.dumps(result.to_dict()))


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [(None, None, "path must be that of a file, got None"), ("a.png", ["mask"], "unknown kind of output ['mask']")],
)
def test_what_names_no_file_or_kind_is_refused(path: Any, kind: Any, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        ask().save(path, kind)


@pytest.mark.parametrize("kind", ["mask", "cutout"])
def test_no_mask_is_written_of_what_is_no_answer(kind: Any, tmp_path: Path) -> None:
    result = ask(lambda *_: "I do not know.")
    with pytest.raises(UsageError, match=f"there is no {kind}, since there is no answer: "):
        result.save(tmp_path / "a.png", kind)
    result.save(tmp_path / "a.json")
    np.testing.assert_array_equal(result.overlay(), PICTURE)
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_detections_are_those_of_supervision() -> None:
    supervision = pytest.importorskip("supervision")
    result = ask_for_two()
    found = result.to_supervision()
    assert isinstance(found, supervision.Detections)
    np.testing.assert_array_equal(found.xyxy, [item.box for item in result.objects])
    np.testing.assert_array_equal(found.mask, [item.mask for item in result.objects])
    np.testing.assert_allclose(found.confidence, [item.score for item in result.objects])
    assert (found.class_id.tolist(), found["class_name"].tolist()) == ([0, 0], ["thing", "thing"])
    assert found.tracker_id is None
    drawn = supervision.MaskAnnotator().annotate(PICTURE.copy(), found)
    assert (drawn != PICTURE).any(axis=2)[result.objects[1].mask].mean() > 0.9
    assert [len(found[number : number + 1]) for number in (0, 1, 2)] == [1, 1, 0]
    assert ask().to_supervision()["class_name"].tolist() == ["the red ring"]


def test_no_object_is_no_detection() -> None:
    supervision = pytest.importorskip("supervision")
    found = ask(lambda *_: "I do not know.").to_supervision()
    assert (found.is_empty(), found.mask.shape) == (True, (0, 60, 80))
    np.testing.assert_array_equal(supervision.BoxAnnotator().annotate(PICTURE.copy(), found), PICTURE)
    assert len(supervision.Detections.merge([found, ask().to_supervision()])) == 1


def test_what_is_followed_has_its_number_and_its_frame() -> None:
    pytest.importorskip("supervision")
    session, _ = make_session()
    for found in session.track([Stamped(PICTURE, 0.0)], "the ring"):
        assert found.to_supervision().tracker_id.tolist() == [1]
        assert found.image is found.grounding.image is found.frame.image
        assert (found.overlay() != PICTURE).any()
        assert [each["name"] for each in found.to_coco("frame.jpg")["categories"]] == ["the ring"]


def test_a_missing_supervision_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(module: str, extra: str) -> Any:
        raise MissingExtraError(module, extra)

    monkeypatch.setattr(detections, "require", lacks)
    with pytest.raises(MissingExtraError, match=r"pip install 'wise-edge\[supervision\]'"):
        ask().to_supervision()


def test_an_image_that_left_the_cache_is_held_by_its_results_alone() -> None:
    session, _ = make_session()
    results = [session.segment(image, "the ring") for image in (PICTURE, PICTURE[::-1].copy())]
    assert isinstance(session._images, ImageCache)
    images: list[NDArray[np.uint8]] = [each.pixels for each in session._images._images]
    assert len(images) == 1
    assert images[0] is results[1].image
