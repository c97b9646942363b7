"""gRefCOCO in its own files, compared with the scenes that they hold."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset_files import write_grefcoco, write_grefcoco_files
from wise_edge.datasets import open_dataset
from wise_edge.errors import UsageError

pytest.importorskip("pycocotools", reason="needs the extra 'data'")


def grefcoco_files(folder: Path) -> tuple[list[Any], dict[str, Any]]:
    """Return the refs and instances that `write_grefcoco` wrote."""
    refs, instances = ((folder / "grefcoco" / name).read_text() for name in ("grefs(unc).json", "instances.json"))
    return json.loads(refs), json.loads(instances)


def test_grefcoco_returns_its_scenes(tmp_path: Path) -> None:
    items = write_grefcoco(tmp_path, 6)
    data = open_dataset("grefcoco", tmp_path, "val")
    assert (data.name, data.split, data.problems) == ("grefcoco", "val", ())
    assert list(data.ids) == [f"{7 + index}-0" for index in range(6)]
    for index, item in enumerate(items):
        example = data[index]
        targets = ((), (item.query.target,), tuple(range(len(item.scene.objects))))[index % 3]
        assert (example.query, example.kind) == (item.query.text, ("none", "one", "several")[index % 3])
        assert example.objects is not None and example.mask is not None
        assert [each.box for each in example.objects] == [item.scene.objects[place].box for place in targets]
        for each, place in zip(example.objects, targets, strict=True):
            assert each.mask is not None
            np.testing.assert_array_equal(each.mask, item.scene.masks[place])
            assert all(each.mask[y, x] for x, y in each.points)
        np.testing.assert_array_equal(example.mask, item.scene.masks[list(targets)].any(axis=0))
        assert example.box == (item.box if len(targets) == 1 else None)
        assert example.points == (item.points if len(targets) == 1 else None)
    with pytest.raises(UsageError, match="no split 'testA'; choose one of val"):
        open_dataset("grefcoco", tmp_path, "testA")


def test_refs_as_a_pickle(tmp_path: Path) -> None:
    write_grefcoco(tmp_path, 3)
    refs, _ = grefcoco_files(tmp_path)
    (tmp_path / "grefcoco" / "grefs(unc).json").unlink()
    with pytest.raises(UsageError, match=r"found no grefs\(unc\)\.json or grefs\(unc\)\.p .*henghuiding/gRefCOCO"):
        open_dataset("grefcoco", tmp_path, "val")
    (tmp_path / "grefcoco" / "grefs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    assert [open_dataset("grefcoco", tmp_path, "val")[index].kind for index in range(3)] == ["none", "one", "several"]


def test_one_annotation_may_stand_alone_and_the_flag_may_lack(tmp_path: Path) -> None:
    items = write_grefcoco(tmp_path, 2)
    refs, instances = grefcoco_files(tmp_path)
    for ref in refs:
        del ref["no_target"]
        ref["ann_id"] = ref["ann_id"][0]
    write_grefcoco_files(tmp_path / "grefcoco", refs, instances)
    data = open_dataset("grefcoco", tmp_path, "val")
    assert (data[0].objects, data[1].box) == ((), items[1].box)


def test_bad_refs_are_named(tmp_path: Path) -> None:
    write_grefcoco(tmp_path, 12)
    refs, instances = grefcoco_files(tmp_path)
    own = instances["annotations"]
    place = {annotation["id"]: annotation for annotation in own}
    refs[1]["ann_id"] = []
    refs[2]["ann_id"] = [[1], 2]
    refs[3]["no_target"] = False
    refs[4]["no_target"] = True
    refs[5]["ann_id"] = [100]
    refs[6]["image_id"] = 99
    refs[7]["ann_id"] = [899]
    refs[8]["ann_id"] = [-1, *refs[8]["ann_id"]]
    place[refs[11]["ann_id"][0]]["segmentation"] = [[1, 2, 3, 4]]
    instances["images"][10] |= {"width": 5000, "height": 5000}
    refs[10]["ann_id"] = list(range(1100, 1121))
    write_grefcoco_files(tmp_path / "grefcoco", refs, instances)
    data = open_dataset("grefcoco", tmp_path, "val")
    assert list(data.ids) == ["7-0", "16-0"]
    words = [
        "ann_id [] is not a list",
        "ann_id [[1], 2] is not a list",
        "no_target is False and ann_id [-1]",
        "no_target is True and ann_id [5",
        "annotation 100 is of another image",
        "the image of the ref is not",
        "all its annotations are crowds",
        "annotation -1 is not in instances.json",
        "the masks of its 21 objects have more than 500,000,000 pixels",
        "three corners",
    ]
    assert len(data.problems) == len(words)
    for problem, word, number in zip(data.problems, words, (*range(8, 16), 17, 18), strict=True):
        assert problem.startswith(f"grefs(unc).json, val ref {number}: ")
        assert word in problem


def test_objects_without_a_pixel(tmp_path: Path) -> None:
    write_grefcoco(tmp_path, 3)
    refs, instances = grefcoco_files(tmp_path)
    side = instances["images"][0]["height"]
    nothing = {"size": [side, side], "counts": [side * side]}
    several = set(refs[2]["ann_id"][1:]) | set(refs[1]["ann_id"])
    for annotation in instances["annotations"]:
        if annotation["id"] in several:
            annotation["segmentation"] = nothing
    write_grefcoco_files(tmp_path / "grefcoco", refs, instances)
    data = open_dataset("grefcoco", tmp_path, "val")
    with pytest.raises(UsageError, match="8-0: its annotations cover no pixel"):
        data[1]
    example = data[2]
    assert (example.kind, len(example.objects or ())) == ("one", 1), "the one with pixels"


@pytest.mark.parametrize("content", ["{}", "[", "[1]", "[" * 100_000])
def test_damaged_refs(content: str, tmp_path: Path) -> None:
    write_grefcoco(tmp_path, 1)
    (tmp_path / "grefcoco" / "grefs(unc).json").write_text(content)
    with pytest.raises(UsageError, match=r"grefs\(unc\)\.json (is not|does not|cannot be).*download it again"):
        open_dataset("grefcoco", tmp_path, "val")
