"""RefCOCO in the refer API's files and ReasonSeg in its folders, compared with the scenes that they hold."""

from __future__ import annotations

import base64
import copy
import io
import json
import os
import pickle
import sys
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image

from dataset_files import compressed_runs, plain_runs, write_reasonseg, write_refcoco, write_refcoco_files
from wise_edge.datasets import open_dataset
from wise_edge.datasets.coco_masks import read_segmentation
from wise_edge.datasets.plain_pickle import load_plain_pickle
from wise_edge.datasets.reasonseg import Region, paint_regions
from wise_edge.errors import MissingExtraError, UsageError
from wise_edge.metrics import mask_iou
from wise_edge.scenes import sample

pytest.importorskip("pycocotools", reason="needs the extra 'data'")


@pytest.mark.parametrize(
    ("name", "partition", "split"),
    [("refcoco", "unc", "testA"), ("refcoco+", "unc", "val"), ("refcocog", "umd", "test")],
)
def test_refcoco_returns_its_scenes(name: str, partition: str, split: str, tmp_path: Path) -> None:
    items = write_refcoco(tmp_path, 4, name, split, partition)
    data = open_dataset(name, tmp_path, split)
    assert (data.name, data.split, data.problems) == (name, split, ())
    assert list(data.ids) == [f"{7 + index}-{place}" for index in range(4) for place in range(2)]
    assert len(data) == 8
    for place in range(8):
        item, example = items[place // 2], data[place]
        assert example.id == data.ids[place]
        assert example.query == (item.request if place % 2 else item.query.text)
        assert (example.box, example.points) == (item.box, item.points)
        assert example.mask is not None
        np.testing.assert_array_equal(example.mask, item.mask)
        assert np.abs(example.image.astype(int) - item.scene.image).mean() < 8, "JPEG changes little"
    with pytest.raises(IndexError):
        data[8]
    with pytest.raises(UsageError, match=f"no split 'none'; choose one of {split}"):
        open_dataset(name, tmp_path, "none")


def test_refcoco_folders(tmp_path: Path) -> None:
    write_refcoco(tmp_path, 1)
    assert len(open_dataset("refcoco", tmp_path / "refcoco", "testA")) == 2, "the annotations' own folder"
    images = tmp_path / "images" / "mscoco" / "images" / "train2014"
    images.rename(tmp_path / "train2014")
    assert len(open_dataset("refcoco", tmp_path, "testA")) == 2
    (tmp_path / "train2014").rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"looked for images/mscoco/images/train2014, .*train2014"):
        open_dataset("refcoco", tmp_path, "testA")
    with pytest.raises(UsageError, match=r"found no refs\(umd\)\.p or refs\(google\)\.p"):
        open_dataset("refcocog", tmp_path, "test")


def test_a_missing_pycocotools_is_missed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_refcoco(tmp_path, 3)
    monkeypatch.delitem(sys.modules, "pycocotools.mask", raising=False)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(MissingExtraError, match=r"wise-edge\[data\]"):
        open_dataset("refcoco", tmp_path, "testA")


def refcoco_files(folder: Path) -> tuple[list[Any], dict[str, Any]]:
    """Return the refs and instances that `write_refcoco` wrote."""
    refs = pickle.loads((folder / "refcoco" / "refs(unc).p").read_bytes())
    return refs, json.loads((folder / "refcoco" / "instances.json").read_text())


def test_bad_refs_are_named(tmp_path: Path) -> None:
    write_refcoco(tmp_path, 13)
    refs, instances = refcoco_files(tmp_path)
    annotations, images = instances["annotations"], instances["images"]
    refs[1]["ann_id"] = [1]
    refs[2]["ref_id"] = refs[0]["ref_id"]
    refs[3]["sentences"][1] = {"sent": " "}
    refs[4]["sentences"] = []
    images[5]["file_name"] = "../../../etc/passwd"
    images[6]["width"] = 10**9
    annotations[7]["segmentation"] = []
    annotations[8]["image_id"] = {"not": "a number"}
    annotations[9]["segmentation"] = [[1, 2, 3, 4]]
    annotations[10]["segmentation"]["counts"][0] += 1
    annotations[11]["segmentation"]["counts"] = "\x00"
    refs[12]["split"] = None
    write_refcoco_files(tmp_path / "refcoco", "unc", refs, instances)
    data = open_dataset("refcoco", tmp_path, "testA")
    assert list(data.ids) == ["7-0", "7-1"]
    words = [
        "annotation [1] is not",
        "repeated",
        "sentence 1",
        "no sentences",
        "etc/passwd' is not in",
        "million are read",
        "empty",
        "the image of annotation 108",
        "three corners",
        "cover 50177 pixels of 50176",
        "damaged",
        "has no split",
    ]
    assert len(data.problems) == len(words)
    for problem, word, number in zip(data.problems, words, (8, 7, *range(10, 20)), strict=True):
        assert problem.startswith(f"refs(unc).p, testA ref {number}: ")
        assert word in problem


def test_images_of_refcoco(tmp_path: Path) -> None:
    write_refcoco(tmp_path, 3)
    images = sorted((tmp_path / "images" / "mscoco" / "images" / "train2014").iterdir())
    images[0].write_bytes(b"torn")
    Image.new("RGB", (10, 20)).save(images[1])
    images[2].unlink()
    data = open_dataset("refcoco", tmp_path, "testA")
    assert len(data.problems) == 1
    assert "COCO_train2014_000000000002.jpg' is not in" in data.problems[0]
    with pytest.raises(UsageError, match=r"7-0: .*is not an image"):
        data[0]
    with pytest.raises(UsageError, match=r"8-0: .* has 10 x 20 pixels, not 224 x 224"):
        data[2]
    for image in images[:2]:
        image.unlink()
    with pytest.raises(UsageError, match="all 3 rows are unusable"):
        open_dataset("refcoco", tmp_path, "testA")


INTEGERS = st.integers(-(1 << 63), (1 << 63) - 1)
JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def written_refcoco(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any], dict[str, Any]]:
    """A folder with the refs and instances that were written into it."""
    folder = tmp_path_factory.mktemp("refcoco")
    write_refcoco(folder, 3)
    return folder, *refcoco_files(folder)


@settings(max_examples=100)
@given(data=st.data(), value=JSON)
def test_any_ref_is_loaded_or_named(
    written_refcoco: tuple[Path, list[Any], dict[str, Any]], data: st.DataObject, value: Any
) -> None:
    folder, refs, instances = copy.deepcopy(written_refcoco)
    part = data.draw(st.sampled_from([refs[1], refs[1]["sentences"][0], *(instances[key][1] for key in instances)]))
    part[data.draw(st.sampled_from(sorted(part)))] = value
    write_refcoco_files(folder / "refcoco", "unc", refs, instances)
    opened = open_dataset("refcoco", folder, "testA")
    assert len(opened) >= 2
    assert len({*opened.ids}) == len(opened)
    try:
        for index in range(len(opened)):
            assert isinstance(opened[index].query, str)
    except UsageError:
        assert len(opened) == 6, "only the image can be wrong"


@pytest.mark.parametrize("content", ["[]", "{", '{"images": [], "annotations": 5}', "[" * 100_000])
def test_damaged_instances(content: str, tmp_path: Path) -> None:
    write_refcoco(tmp_path, 1)
    (tmp_path / "refcoco" / "instances.json").write_text(content)
    with pytest.raises(UsageError, match=r"instances\.json (is not|does not|cannot be|has no list).*download it again"):
        open_dataset("refcoco", tmp_path, "testA")


class Harmful:
    """Runs a command when it is unpickled carelessly."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.target}",)


def test_a_harmful_pickle_runs_nothing(tmp_path: Path) -> None:
    write_refcoco(tmp_path, 1)
    harm = tmp_path / "harm"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        content = pickle.dumps([{"split": "testA", "ref_id": Harmful(harm)}], protocol)
        (tmp_path / "refcoco" / "refs(unc).p").write_bytes(content)
        with pytest.raises(UsageError, match=r"asks for more than plain data \((GLOBAL|STACK_GLOBAL)\)"):
            open_dataset("refcoco", tmp_path, "testA")
    assert not harm.exists()


@pytest.mark.parametrize("value", [OrderedDict(a=1), np.float64(1), print, Path("a"), {1, 2}, (1, 2), b"a", 1 << 64])
def test_pickles_of_anything_but_plain_data_are_refused(value: object, tmp_path: Path) -> None:
    (tmp_path / "a.p").write_bytes(pickle.dumps([value], protocol=2))
    with pytest.raises(UsageError, match="asks for more than plain data"):
        load_plain_pickle(tmp_path / "a.p")


PLAIN = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_pickles_are_read(tmp_path_factory: pytest.TempPathFactory, value: object, protocol: int) -> None:
    path = tmp_path_factory.getbasetemp() / "plain.p"
    path.write_bytes(pickle.dumps(value, protocol))
    assert load_plain_pickle(path) == value


@pytest.mark.parametrize(
    "content", [b"", b"not a pickle", b"(lp0\n", b"\x80\x02K\x05", b"\x80\x02X\xff\xff\xff\x7fa.", b"Pabc\n."]
)
def test_damaged_pickles(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.p").write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.p"):
        load_plain_pickle(tmp_path / "a.p")


@pytest.mark.parametrize(
    "content",
    [
        b"]r\xff\xff\xff\x7f.",
        b"]p9999999\n.",
        b"\x80\x05\x96" + b"\0\0\0\0\x01\0\0\0a.",
        b"\x80\x04\x8d" + b"\0\0\0\0\x01\0\0\0a.",
        b"})" + b"".join(b"q%ch%c\x86" % (level, level) for level in range(60)) + b"Ns.",
        b"\x8b\xff\xff\xff\x7f1.",
        b"I" + b"9" * 100_000 + b"\n.",
    ],
    ids=["places", "places-as-text", "bytes", "text", "nested-key", "long-number", "long-number-as-text"],
)
def test_a_pickle_asks_for_no_more_than_its_size(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.p").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match=r"a\.p"):
            load_plain_pickle(tmp_path / "a.p")
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_ids_that_hold_themselves_again_and_again_are_problems(tmp_path: Path) -> None:
    write_refcoco(tmp_path, 2)
    file = tmp_path / "refcoco" / "refs(unc).p"
    refs = pickle.loads(file.read_bytes())
    nested: list[object] = []
    for _ in range(60):
        nested = [nested, nested]
    refs[0] |= {"ann_id": nested, "split": "testA"}
    file.write_bytes(pickle.dumps(refs, 2))
    assert any("is not in instances.json" in problem for problem in open_dataset("refcoco", tmp_path, "testA").problems)


DATA = Path(__file__).parents[1] / "support" / "data"


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_what_python_2_wrote_is_read(protocol: int) -> None:
    file = DATA / f"refs_python27_protocol{protocol}.p"  # by the cPickle of Python 2.7.18, in the form of RefCOCO's
    (ref,) = load_plain_pickle(file)
    assert (ref["split"], ref["sent_ids"], ref["ann_id"]) == ("testA", [0, 1], 7)
    assert ref["sentences"][0]["tokens"] == ["the", "café"]
    assert ref["sentences"][0]["raw"] == "The café, on the left, behind the red car!"
    assert [sentence["sent"] for sentence in ref["sentences"]] == ["the café on the left", ""]
    assert ref["sentences"][1]["raw"] == "it's \n\\'"
    assert ref["box"] == [0.5, -3, 300, 70000, 10**15, None, True]


MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40))


@given(MASKS)
def test_run_lengths_describe_any_mask(mask: NDArray[np.bool_]) -> None:
    size = (mask.shape[1], mask.shape[0])
    for raw in (plain_runs(mask), compressed_runs(mask), [compressed_runs(mask)]):
        np.testing.assert_array_equal(read_segmentation(raw, size).paint(), mask)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (None, "not a list of numbers"),
        ([], "empty"),
        ([[]], "0 numbers"),
        ([["1", "2", "3", "4", "5", "6"]], "not a list of numbers"),
        ([[0, 0, 5, 5, 0, 5, 1]], "7 numbers"),
        ([[0, 0, 5, 5, float("nan"), 5]], "outside"),
        ([[0, 0, 1e30, 5, 0, 5]], "outside"),
        ([[0, 0, 5, -8, 0, 5]], "outside"),
        ({"size": [10, 7], "counts": [70]}, r"\[height, width\] \[10, 7\], the image has \[7, 10\]"),
        ({"size": [7, 10]}, "not integers"),
        ({"size": [7, 10], "counts": [-1, 71]}, "not integers"),
        ({"size": [7, 10], "counts": [10**12]}, "cover"),
        ({"size": [7, 10], "counts": "zz"}, "damaged"),
        ({"size": [7, 10], "counts": "o"}, "cut short"),
        ({"size": [7, 10], "counts": "o" * 20}, "damaged"),
        ({"size": [7, 10], "counts": "é"}, "damaged"),
    ],
)
def test_malformed_segmentations(raw: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_segmentation(raw, (10, 7))


def test_parts_of_a_segmentation_are_united() -> None:
    square, other = [1.0, 1, 4, 1, 4, 4, 1, 4], [6.0, 0, 9, 0, 9, 2, 6, 2]
    painted = read_segmentation([square, other], (10, 7)).paint()
    expected = np.zeros((7, 10), bool)
    expected[1:4, 1:4] = expected[0:2, 6:9] = True
    np.testing.assert_array_equal(painted, expected)


def test_reasonseg_returns_its_scenes(tmp_path: Path) -> None:
    write_reasonseg(tmp_path / "ReasonSeg" / "test", 8)
    kinds = set()
    for folder in (tmp_path, tmp_path / "ReasonSeg", tmp_path / "ReasonSeg" / "test"):
        data = open_dataset("reasonseg", folder, "test")
        assert list(data.ids) == [f"{index}-0" for index in range(8)]
        assert data.problems == ()
    for index in range(8):
        item, example = sample("test", index), data[index]
        assert (example.id, example.query, example.ignore) == (f"{index}-0", item.request, None)
        assert example.kind == ("long" if item.request != item.query.text else "short")
        kinds.add(example.kind)
        assert example.mask is not None
        assert mask_iou(example.mask, item.mask) == 1.0
        assert example.box == item.box
        assert example.points == item.points
    assert kinds == {"long", "short"}
    with pytest.raises(UsageError, match=r"looked for X\.json in .*nowhere, "):
        open_dataset("reasonseg", tmp_path, "nowhere")


def shape(label: str, x1: float, y1: float, x2: float, y2: float) -> dict[str, Any]:
    """Return a rectangle whose corner pixels are named, as a shape of ReasonSeg."""
    return {"label": label, "points": [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]}


def write_pair(folder: Path, stem: str, content: Any, encoding: str = "utf-8") -> None:
    """Write an image of 30 x 20 pixels with its JSON file."""
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (30, 20)).save(folder / f"{stem}.jpg")
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    (folder / f"{stem}.json").write_bytes(text.encode(encoding))


def test_shapes_of_reasonseg_are_painted_by_size(tmp_path: Path) -> None:
    shapes = [
        shape("target", 4, 4, 9, 9),  # lies over the ignored region, though it stands before it
        shape("Ignore_region", 2, 2, 19, 15),
        shape("flag", 0, 0, 29, 19),
        shape("FLAG", 0, 0, 29, 19),
        shape("cup", 25.9, 1.9, 27.9, 2.9),  # any other label is target; coordinates are cut to whole pixels
        shape("ignore", 6, 6, 7, 7),  # smaller than the target, so over it
        {"label": "target", "points": [[28, 18]]},
    ]
    write_pair(tmp_path / "val", "a", {"text": ["it"], "is_sentence": False, "shapes": shapes})
    example = open_dataset("reasonseg", tmp_path, "val")[0]
    target, ignore = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    ignore[2:16, 2:20] = True
    target[4:10, 4:10] = True
    target[6:8, 6:8] = False
    ignore &= ~target
    target[1:3, 25:28] = target[18, 28] = True
    assert example.mask is not None
    assert example.ignore is not None
    np.testing.assert_array_equal(example.mask, target)
    np.testing.assert_array_equal(example.ignore, ignore)
    assert example.box == (4, 1, 29, 19)


def stencil(mask: NDArray[np.bool_]) -> str:
    """Return a mask as labelme writes it: a PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_shapes_of_labelme_are_painted_as_labelme_paints_them(tmp_path: Path) -> None:
    checkers = np.indices((5, 4)).sum(axis=0) % 2 == 0
    shapes = [
        {"label": "cup", "shape_type": "rectangle", "points": [[9.5, 8.2], [3.1, 2.9]]},
        {"label": "cup", "shape_type": "circle", "points": [[20, 6], [20, 9]]},
        {"label": "cup", "shape_type": "mask", "points": [[-1, 13], [2, 17]], "mask": stencil(checkers)},
        {"label": "cup", "shape_type": "oriented_rectangle", "points": [[26, 12], [28, 12], [28, 18], [26, 18]]},
        {"label": "cup", "shape_type": "rectangle", "points": [[12, 15], [16, 15], [16, 17], [12, 17]]},
        {"label": "flag", "shape_type": "point", "points": [[1, 1]]},
    ]
    write_pair(tmp_path / "val", "a", {"text": ["it"], "is_sentence": False, "shapes": shapes})
    mask = open_dataset("reasonseg", tmp_path, "val")[0].mask
    expected = np.zeros((20, 30), bool)
    expected[2:9, 3:10] = True
    rows, columns = np.indices(expected.shape)
    expected |= (rows - 6) ** 2 + (columns - 20) ** 2 <= 10  # labelme 6.3.1's circle of radius 3
    expected[13:18, 0:3] = checkers[:, 1:]
    expected[12:19, 26:29] = True
    expected[15:18, 12:17] = True
    assert mask is not None
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"shape_type": "point", "points": [[3, 3]]}, "type 'point' has no area"),
        ({"shape_type": "points", "points": [[3, 3], [5, 5]]}, "type 'points' has no area"),
        ({"shape_type": "line", "points": [[3, 3], [9, 9]]}, "type 'line' has no area"),
        ({"shape_type": "linestrip", "points": [[3, 3], [9, 9], [9, 3]]}, "type 'linestrip' has no area"),
        ({"shape_type": "cuboid", "points": [[3, 3]] * 8}, "type 'cuboid' has no area"),
        ({"shape_type": "rectangle", "points": [[3, 3]]}, "a rectangle has 1 points"),
        ({"shape_type": "circle", "points": [[3, 3]] * 3}, "a circle has 3 points"),
        ({"shape_type": "mask", "points": [[3, 3], [6, 6]]}, "not a PNG image in base64"),
        ({"shape_type": "mask", "points": [[3, 3], [6, 6]], "mask": "AAAA"}, "not a PNG image in base64"),
        ({"shape_type": "mask", "points": [[3, 3], [6, 6]], "mask": stencil(np.ones((3, 4), bool))}, "does not fill"),
    ],
)
def test_shapes_that_cannot_be_painted_make_their_row_unusable(
    entries: dict[str, Any], words: str, tmp_path: Path
) -> None:
    good = {"text": ["it"], "is_sentence": False, "shapes": [shape("target", 1, 1, 3, 3)]}
    write_pair(tmp_path / "val", "good", good)
    write_pair(tmp_path / "val", "odd", good | {"shapes": [{"label": "cup", **entries}]})
    data = open_dataset("reasonseg", tmp_path, "val")
    assert list(data.ids) == ["good-0"]
    assert data.problems[0].startswith("odd: ") and words in data.problems[0]


def test_of_equal_regions_the_first_is_painted_last() -> None:
    corners = ((0, 0), (3, 0), (3, 3), (0, 3))
    for first in (True, False):
        target, ignore = paint_regions([Region(first, corners), Region(not first, corners)], (5, 5))
        assert ignore.any() == first
        assert target.any() != first


def test_only_flags_and_nothing_leave_an_empty_mask(tmp_path: Path) -> None:
    write_pair(tmp_path / "val", "a", {"text": ["it"], "is_sentence": True, "shapes": [shape("flag", 1, 1, 3, 3)]})
    write_pair(tmp_path / "val", "b", {"text": ["it"], "is_sentence": True, "shapes": []})
    for example in (data := open_dataset("reasonseg", tmp_path, "val"))[0], data[1]:
        assert example.mask is not None
        assert not example.mask.any()
        assert (example.box, example.points, example.ignore, example.kind) == (None, None, None, "long")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_queries_in_the_encodings_of_reasonseg(encoding: str, tmp_path: Path) -> None:
    text = "the café’s “best” chair"
    content = {"text": [f" {text} ", "another"], "is_sentence": False, "shapes": [shape("target", 1, 1, 3, 3)]}
    write_pair(tmp_path / "val", "a", content, encoding)
    write_pair(tmp_path / "train", "a", content, encoding)
    assert [example.query for example in open_dataset("reasonseg", tmp_path, "val")] == [text], "the first query alone"
    data = open_dataset("reasonseg", tmp_path, "train")
    assert [(example.id, example.query) for example in data] == [("a-0", text), ("a-1", "another")]


@settings(max_examples=100)
@given(data=st.data(), value=JSON)
def test_any_file_of_reasonseg_is_loaded_or_named(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, value: Any
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed" / "val"
    folder.parent.mkdir(exist_ok=True)
    content = {"text": ["it"], "is_sentence": True, "shapes": [shape("target", 1, 1, 3, 3)]}
    write_pair(folder, "good", content)
    changed: dict[str, Any] = copy.deepcopy(content)
    part = data.draw(st.sampled_from([changed, changed["shapes"][0]]))
    part[data.draw(st.sampled_from(sorted(part)))] = value
    write_pair(folder, "odd", data.draw(st.sampled_from([changed, value])))
    opened = open_dataset("reasonseg", folder.parent, "val")
    assert len(opened) + len(opened.problems) == 2
    for example in opened:
        assert example.mask is not None
        assert example.mask.shape == (20, 30)


def test_bad_files_of_reasonseg_are_named(tmp_path: Path) -> None:
    good = {"text": ["it"], "is_sentence": 1, "shapes": [shape("target", 1, 1, 3, 3)]}
    bad: dict[str, Any] = {
        "json": "{",
        "list": "[]",
        "no_text": good | {"text": []},
        "blank": good | {"text": [" "]},
        "no_shapes": good | {"shapes": None},
        "label": good | {"shapes": [{"points": [[1, 1]]}]},
        "points": good | {"shapes": [{"label": "target", "points": []}]},
        "pair": good | {"shapes": [{"label": "target", "points": [[1, 2, 3]]}]},
        "nan": good | {"shapes": [shape("target", 1, 1, float("nan"), 3)]},
        "far": good | {"shapes": [shape("target", 1, 1, 1e9, 3)]},
    }
    for stem, content in {"good": good, "torn": good, **bad}.items():
        write_pair(tmp_path / "test", stem, content)
    write_pair(tmp_path / "test", "bytes", '{"text": ["\x81"', "latin-1")
    (tmp_path / "test" / "torn.jpg").write_bytes(b"torn")
    (tmp_path / "test" / "lonely.json").write_text(json.dumps(good))
    Image.new("RGB", (3, 3)).save(tmp_path / "test" / "image.png")
    data = open_dataset("reasonseg", tmp_path, "test")
    assert list(data.ids) == ["good-0", "torn-0"]
    assert data[0].kind is None
    with pytest.raises(UsageError, match=r"torn-0: .*torn\.jpg is not an image"):
        data[1]
    assert sorted(problem.partition(":")[0] for problem in data.problems) == sorted([*bad, "bytes", "lonely", "image"])
    assert "lonely: lonely.jpg is missing" in data.problems
    assert "image: image.json is missing" in data.problems
