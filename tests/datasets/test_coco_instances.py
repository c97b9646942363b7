"""COCO JSON of one's own pictures, in the layouts of the tools that export it, held against pycocotools."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataset_files import compressed_runs, image_bytes, plain_runs, polygons_of
from own_files import TOOLS, write_coco
from wise_edge.datasets import Dataset, open_dataset
from wise_edge.errors import UsageError
from wise_edge.scenes import sample

pytest.importorskip("pycocotools", reason="needs the extra 'data'")

WIDTH, HEIGHT = 60, 40


def _mask(x: int, y: int, size: int = 10) -> np.ndarray[Any, np.dtype[np.bool_]]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + size, x : x + size] = True
    return mask


LEFT, RIGHT, LOW = _mask(2, 3), _mask(40, 5), _mask(20, 25)


def _annotation(number: int, mask: Any = LEFT, category: int = 1, **more: Any) -> dict[str, Any]:
    segmentation = polygons_of(mask) if isinstance(mask, np.ndarray) else mask
    return {"id": number, "image_id": 7, "category_id": category, "segmentation": segmentation, "iscrowd": 0} | more


def _write(folder: Path, *annotations: dict[str, Any], **changes: Any) -> Path:
    """Write one picture with annotations as FOLDER/own.json."""
    folder.mkdir(exist_ok=True)
    (folder / "a.png").write_bytes(image_bytes(np.full((HEIGHT, WIDTH, 3), 90, np.uint8), "PNG"))
    content = {
        "images": [{"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 1, "name": "mug"}, {"id": 2, "name": "bowl"}],
        "annotations": list(annotations),
    }
    (folder / "own.json").write_text(json.dumps(content | changes))
    return folder / "own.json"


def _open(file: Path, images: Path | None = None) -> Dataset:
    return open_dataset("coco", file, "", images)


def _truths(data: Dataset) -> dict[str, Any]:
    return {example.query: example for example in (data[place] for place in range(len(data)))}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools 2.0.11
@pytest.mark.parametrize("tool", TOOLS)
def test_masks_of_each_tool_are_those_of_pycocotools(tool: str, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    file = write_coco(tmp_path, tool, 4)
    data, coco = _open(file), COCO(str(file))
    assert (data.name, data.split, data.problems) == ("coco", file.stem, ())
    for place in range(len(data)):
        example = data[place]
        index = int(example.id.partition("-")[0])
        item = sample("test", index)
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[index], iscrowd=None))
        names = {each["id"]: coco.loadCats(each["category_id"])[0]["name"] for each in annotations}
        meant = [each for each in annotations if names[each["id"]] == example.query]
        if not meant:
            assert example.query == item.query.text, "the sentence that CVAT or FiftyOne wrote"
            meant = [annotations[item.query.target]]
        assert example.mask is not None and example.objects is not None and example.ignore is None
        np.testing.assert_array_equal(example.mask, np.any([coco.annToMask(each) for each in meant], axis=0))
        assert len(example.objects) == len(meant)
        for each, annotation in zip(example.objects, meant, strict=True):
            assert each.mask is not None
            np.testing.assert_array_equal(each.mask, coco.annToMask(annotation).astype(bool))
        assert example.kind == ("one" if len(meant) == 1 else "several")
        assert np.abs(example.image.astype(int) - item.scene.image).mean() < 5, "its own picture"
    queries = [data[place].query for place in range(len(data))]
    with_text = tool in ("cvat", "fiftyone")
    assert all((sample("test", index).query.text in queries) is with_text for index in range(4))


@pytest.mark.parametrize("segmentation", [polygons_of, plain_runs, compressed_runs])
def test_each_form_of_mask(segmentation: Callable[..., Any], tmp_path: Path) -> None:
    example = _open(_write(tmp_path, _annotation(1, segmentation(LEFT))))[0]
    np.testing.assert_array_equal(example.mask, LEFT)
    assert (example.id, example.query, example.box) == ("7-0", "mug", (2, 3, 12, 13))


def test_sentences_and_categories(tmp_path: Path) -> None:
    file = _write(
        tmp_path,
        _annotation(1, LEFT, caption=["the left mug", "the  mug\nof Ana"]),
        _annotation(2, RIGHT, query="the outer things", caption="not looked at? no: 'caption' comes first"),
        _annotation(3, LOW, category=2, attributes={"occluded": False, "phrase": "the outer things", "sentence": " "}),
        _annotation(4, _mask(30, 30, 4)),
        _annotation(5, _mask(50, 30, 4), category=2, sentence="the small bowl"),
    )
    truths = _truths(_open(file))
    assert list(truths) == [
        "the left mug",
        "the mug of Ana",
        "not looked at? no: 'caption' comes first",
        "the outer things",
        "mug",
        "the small bowl",
    ], "no query 'bowl': each bowl has a sentence"
    np.testing.assert_array_equal(truths["the mug of Ana"].mask, LEFT)
    np.testing.assert_array_equal(truths["the outer things"].mask, LOW)
    np.testing.assert_array_equal(truths["mug"].mask, LEFT | RIGHT | _mask(30, 30, 4))
    assert [len(truths[query].objects) for query in ("mug", "the left mug")] == [3, 1]


def test_annotations_that_share_a_sentence_are_its_objects(tmp_path: Path) -> None:
    file = _write(tmp_path, _annotation(1, LEFT, caption="both"), _annotation(2, RIGHT, category=2, caption="both"))
    (example,) = _truths(_open(file)).values()
    assert (example.kind, [each.box for each in example.objects]) == ("several", [(2, 3, 12, 13), (40, 5, 50, 15)])
    np.testing.assert_array_equal(example.mask, LEFT | RIGHT)


def test_crowds_are_ignored_except_masks_that_were_painted(tmp_path: Path) -> None:
    crowd = plain_runs(_mask(0, 0, 20))
    example = _open(_write(tmp_path, _annotation(1, LEFT), _annotation(2, crowd, iscrowd=1)))[0]
    np.testing.assert_array_equal(example.mask, LEFT)
    np.testing.assert_array_equal(example.ignore, _mask(0, 0, 20) & ~LEFT)
    assert len(example.objects or ()) == 1
    with pytest.raises(UsageError, match="all its annotations are crowds"):
        _open(_write(tmp_path, _annotation(2, crowd, iscrowd=1)))
    painted = _annotation(2, crowd, iscrowd=1, attributes={"occluded": False})
    np.testing.assert_array_equal(_open(_write(tmp_path, painted))[0].mask, _mask(0, 0, 20))


@pytest.mark.parametrize(("image", "annotation"), [("7", "7"), (7, "7"), ("7", 7), (7, 7.0), ("kitchen", "kitchen")])
def test_ids_may_be_text(image: Any, annotation: Any, tmp_path: Path) -> None:
    images = [{"id": image, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}]
    file = _write(tmp_path, _annotation(1) | {"image_id": annotation, "category_id": "1"}, images=images)
    assert list(_open(file).ids) == [f"{image}-0"]


@pytest.mark.parametrize(
    "name", ["a.png", "images/a.png", "images\\a.png", "/data/upload/1/a.png", "https://host/x?d=b/a.png", "sub/a.png"]
)
def test_images_are_found_by_the_names_that_tools_write(name: str, tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": name, "width": WIDTH, "height": HEIGHT}]
    file = _write(tmp_path / "annotations", _annotation(1), images=images)
    (tmp_path / "images").mkdir()
    (file.parent / "a.png").rename(tmp_path / "images" / "a.png")
    assert _open(file)[0].query == "mug", "beside the folder of the file"
    assert _open(file, tmp_path / "images")[0].query == "mug", "in the folder that was named"
    with pytest.raises(UsageError, match=r"is not in .*; pass the folder of the images with --images DIR"):
        _open(file, file.parent)


def test_the_folder_that_was_looked_in_is_named_whole_and_the_one_below_that_holds_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _write(tmp_path, _annotation(1))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    frames = tmp_path / "my frames"
    (tmp_path / "a.png").rename(tmp_path / "elsewhere.png")
    with pytest.raises(UsageError, match=rf"'a.png' is not in {tmp_path}; pass the folder of the images"):
        _open(Path(file.name))
    frames.mkdir()
    (tmp_path / "elsewhere.png").rename(frames / "a.png")
    with pytest.raises(UsageError, match=rf"'a.png' is not in {tmp_path}; pass --images 'my frames'"):
        _open(Path(file.name))
    assert _open(Path(file.name), Path("my frames"))[0].query == "mug"


def test_an_absolute_name_is_taken_as_it_is(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.png"
    images = [{"id": 7, "file_name": str(elsewhere), "width": WIDTH, "height": HEIGHT}]
    file = _write(tmp_path / "own", _annotation(1), images=images)
    (file.parent / "a.png").rename(elsewhere)
    assert _open(file).sources(1) == [file, elsewhere]


def test_a_name_that_two_folders_share_is_not_guessed(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "x/a.png", "width": WIDTH, "height": HEIGHT}]
    images.append({"id": 8, "file_name": "y/a.png", "width": WIDTH, "height": HEIGHT})
    with pytest.raises(UsageError, match=r"'x/a.png' is not in"):
        _open(_write(tmp_path, _annotation(1), images=images))


def test_a_size_that_disagrees_or_is_missing(tmp_path: Path) -> None:
    wrong = [{"id": 7, "file_name": "a.png", "width": HEIGHT, "height": WIDTH}]
    data = _open(_write(tmp_path, _annotation(1, polygons_of(LEFT)), images=wrong))
    with pytest.raises(UsageError, match=r"7-0: .*a.png has 60 x 40 pixels \(sides swapped; .*for 40 x 60"):
        data[0]
    written = [{"id": 7.0, "file_name": "a.png", "width": float(WIDTH), "height": float(HEIGHT)}]
    np.testing.assert_array_equal(_open(_write(tmp_path, _annotation(1), images=written))[0].mask, LEFT)
    broken = [{"id": 7, "file_name": "a.png", "width": WIDTH + 0.5, "height": HEIGHT}]
    with pytest.raises(UsageError, match=r"width 60\.5 and height 40"):
        _open(_write(tmp_path, _annotation(1), images=broken))
    missing = [{"id": 7, "file_name": "a.png", "width": None, "height": None}]
    np.testing.assert_array_equal(_open(_write(tmp_path, _annotation(1), images=missing))[0].mask, LEFT)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (_annotation(1, []), "annotation 1 has no segmentation, only a box; draw its outline"),
        (_annotation(1, [[1, 2, 3, 4]]), "'mug': annotation 1: a polygon has 4 numbers"),
        (_annotation(1, {"size": [WIDTH, HEIGHT], "counts": [2400]}), "run lengths are for"),
        (_annotation(1, {"size": [HEIGHT, WIDTH], "counts": "~"}), "annotation 1: compressed run lengths are damaged"),
        (_annotation(1, category=9), "annotation 1 has neither a sentence nor a category with a name"),
        (_annotation(1) | {"image_id": 8}, "annotation 1: its image 8 is not in 'images'"),
        (_annotation(1) | {"image_id": [1]}, r"its image \[1\] is not in 'images'"),
    ],
)
def test_what_cannot_be_used_is_named_and_left_out(annotation: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=f"own.json has no usable rows: all 1 rows are unusable; the first: .*{message}"
    ):
        _open(_write(tmp_path, annotation))
    data = _open(_write(tmp_path, annotation, _annotation(2, LOW, category=2)))
    assert (len(data), len(data.problems), data[0].query) == (1, 1, "bowl")
    assert data.problems[0].startswith("own.json, ")


def test_one_bad_instance_spoils_its_category_alone(tmp_path: Path) -> None:
    file = _write(tmp_path, _annotation(1), _annotation(2, []), _annotation(3, RIGHT, caption="the right mug"))
    data = _open(file)
    assert (list(_truths(data)), len(data.problems)) == (["the right mug"], 1), "half of the mugs would be no truth"


def test_masks_without_a_pixel(tmp_path: Path) -> None:
    data = _open(_write(tmp_path, _annotation(1, plain_runs(np.zeros((HEIGHT, WIDTH), bool)))))
    with pytest.raises(UsageError, match="7-0: its annotations cover no pixel"):
        data[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "does not hold a JSON object; pass the file of images, annotations and categories"),
        ("{}", "has no list 'images' of objects"),
        ('{"images": [1]}', "has no list 'images' of objects"),
        ('{"images": [{"id": 1}, {"id": "1"}]}', "two entries of 'images' have the id '1'; give each its own"),
        ('{"images": [{"id": null}]}', "an entry of 'images' has the id None"),
        ('{"images": [{"id": true}]}', "an entry of 'images' has the id True"),
        ('{"images": []}', "has no list 'annotations' of objects"),
        ('{"images": [], "annotations": []}', "own.json has no usable rows: it has no rows"),
    ],
)
def test_files_of_another_form(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        _open(tmp_path / "own.json")


def test_a_folder_names_the_file_in_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is a folder; pass a file with --data; it holds no .json file"):
        _open(tmp_path)
    file = _write(tmp_path, _annotation(1))
    with pytest.raises(UsageError, match=f"is a folder; pass a file with --data, for example {file}"):
        _open(tmp_path)
    with pytest.raises(UsageError, match=r"--images .*nowhere is not a folder"):
        _open(file, tmp_path / "nowhere")
    with pytest.raises(UsageError, match="--images is of --dataset coco"):
        open_dataset("reasonseg", tmp_path, "val", tmp_path)


def test_many_sentences_of_many_annotations_take_no_square_of_time(tmp_path: Path) -> None:
    import sys

    from wise_edge.datasets import coco_instances

    counts = []
    for number in (50, 100):
        calls = 0

        def count(frame: Any, event: str, argument: Any) -> None:
            nonlocal calls
            calls += event == "call" and frame.f_code.co_filename == coco_instances.__file__

        runs = plain_runs(LEFT)
        file = _write(tmp_path, *(_annotation(each, runs, caption=f"thing {each}") for each in range(number)))
        sys.setprofile(count)
        try:
            assert len(_open(file)) == number
        finally:
            sys.setprofile(None)
        counts.append(calls)
    assert counts[1] < 2.2 * counts[0]


def test_a_picture_that_is_stored_lying(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    images = [{"id": 7, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}]
    file = _write(tmp_path, _annotation(1), images=images)
    Image.new("RGB", (HEIGHT, WIDTH)).save(tmp_path / "a.jpg", exif=exif)
    assert _open(file)[0].image.shape == (HEIGHT, WIDTH, 3), "annotated as it is shown"
