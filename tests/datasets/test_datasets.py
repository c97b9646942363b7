"""Scenes as a data set, and data sets stored as tables, compared with the scenes they were written from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset_files import REFERENCE_SIDE_PX, image_bytes, mask_row, mask_rows, write_parquet, write_refcocog_2k
from wise_edge.datasets import DRAWN, NAMES, Dataset, base, open_dataset
from wise_edge.datasets.base import ExampleObject, make_unique, mask_points, masked_objects
from wise_edge.datasets.labeled_tables import read_objects, read_solution
from wise_edge.errors import UsageError
from wise_edge.geometry import interior_points
from wise_edge.scenes import SPLITS, sample

pytest.importorskip("pyarrow", reason="needs the extra 'data'")


def ids_of(dataset: Dataset) -> list[str]:
    """Return all ids after checking them against the interface."""
    ids = list(dataset.ids)
    assert len(ids) == len(dataset) == len(set(ids))
    assert all(dataset[index].id == ids[index] for index in (0, len(ids) - 1))
    with pytest.raises(IndexError):
        dataset[len(ids)]
    return ids


def test_scenes() -> None:
    data = open_dataset("scenes", None, "validation")
    item, example = sample("validation", 4), data[4]
    assert (len(data), data.problems) == (len(SPLITS["validation"]), ())
    assert (example.id, example.query, example.kind) == ("validation-4", item.request, item.query.kind)
    assert (example.box, example.points, example.ignore) == (item.box, item.points, None)
    assert example.mask is not None
    np.testing.assert_array_equal(example.mask, item.mask)
    np.testing.assert_array_equal(example.image, item.scene.image)
    assert list(data.ids[3:5]) == ["validation-3", "validation-4"]
    assert data.ids[-1] == f"validation-{len(data) - 1}"
    with pytest.raises(IndexError):
        data[len(data)]


@pytest.mark.parametrize(
    ("name", "data", "split", "message"),
    [
        ("voc", None, "val", "choose one of scenes"),
        ("coco", None, "", "^--dataset coco needs --data FILE$"),
        ("scenes", None, "val", "choose one of test"),
        ("scenes", Path(), "test", "remove --data"),
        ("scenes-generalized", None, "val", "choose one of test"),
        ("scenes-generalized", Path(), "test", "remove --data"),
        ("reasonseg", None, "val", "^--dataset reasonseg needs --data DIR$"),
        *((name, Path("nowhere"), "test", "nowhere does not exist") for name in NAMES if name not in DRAWN),
    ],
)
def test_what_cannot_be_opened(name: str, data: Path | None, split: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_dataset(name, data, split)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in DRAWN])
def test_an_empty_folder_names_what_was_looked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"parquet|refs|holds no \.json|holds no \.csv, "):
        open_dataset(name, tmp_path, "test")


def check_training_set(data: Dataset, count: int) -> None:
    """Compare the training form with the scenes it was written from."""
    assert ids_of(data) == [f"test_{index}" for index in range(count)]
    scale = REFERENCE_SIDE_PX / 224
    for index in range(count):
        item, example = sample("test", index), data[index]
        assert example.image.shape == (REFERENCE_SIDE_PX, REFERENCE_SIDE_PX, 3)
        assert (example.query, example.mask, example.ignore, example.kind) == (item.query.text, None, None, None)
        assert example.box is not None
        assert example.points is not None
        np.testing.assert_allclose(example.box, np.array(item.box) * scale, atol=1)
        np.testing.assert_allclose(example.points, np.array(item.points) * scale, atol=scale)


def test_training_set_from_parquet(tmp_path: Path) -> None:
    file = write_refcocog_2k(tmp_path, "test", 3)
    check_training_set(open_dataset("refcocog-2k", tmp_path, "test"), 3)
    check_training_set(open_dataset("refcocog-2k", file, "train"), 3)
    with pytest.raises(UsageError, match=r"no parquet file of split 'train'; it has data/test-00000"):
        open_dataset("refcocog-2k", tmp_path, "train")


def test_tables_saved_to_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra 'train'")
    file = write_refcocog_2k(tmp_path / "out", "test", 3)
    table = datasets.load_dataset("parquet", data_files={"test": str(file)}, cache_dir=str(tmp_path / "cache"))
    table.save_to_disk(tmp_path / "all")
    table["test"].save_to_disk(tmp_path / "one", num_shards=2)
    check_training_set(open_dataset("refcocog-2k", tmp_path / "all", "test"), 3)
    check_training_set(open_dataset("refcocog-2k", tmp_path / "one", "test"), 3)
    with pytest.raises(UsageError, match="choose one of test"):
        open_dataset("refcocog-2k", tmp_path / "all", "train")
    (tmp_path / "one" / "data-00001-of-00002.arrow").write_bytes(b"torn")
    with pytest.raises(UsageError, match="one is not such a table"):
        open_dataset("refcocog-2k", tmp_path / "one", "test")


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "<box>(1,2),(3,4)</box>",
        "<box>(1,2),(3,4)</box><points>(1,2)</points>",
        "<box>(1,2),(1,4)</box><points>(1,2),(3,4)</points>",
        "<box>(-1,2),(1,4)</box><points>(1,2),(3,4)</points>",
        "<box>(1,2),(99999999999,4)</box><points>(1,2),(3,4)</points>",
    ],
)
def test_malformed_solutions(text: str | None) -> None:
    with pytest.raises(ValueError, match="solution"):
        read_solution(text)


def test_solutions_may_hold_spaces() -> None:
    text = "<box> (1, 2), (30,40) </box>\n<points>( 5,6 ), (7,8)</points> "
    assert read_solution(text) == ((1, 2, 30, 40), ((5, 6), (7, 8)))


def test_solutions_of_any_number_of_objects() -> None:
    one = {"bbox_2d": [10, 100, 200, 210], "point_2d": [30, 110]}
    other = {"bbox_2d": [225.5, 296.4, 706, 786], "point_2d": [302, 410], "label": "mug"}
    found = read_objects(f" {json.dumps([one, other])} ")
    assert [(each.box, each.points) for each in found] == [
        ((10, 100, 200, 210), ((30, 110), (30, 110))),
        ((226, 296, 706, 786), ((302, 410), (302, 410))),
    ]
    assert read_objects([one, other]) == found, "a list of the table's own"
    assert read_objects("[]") == read_objects([]) == (), "nothing is meant"
    (only,) = read_objects("<box>(1,2),(30,40)</box><points>(5,6),(7,8)</points>")
    assert (only.box, only.points) == ((1, 2, 30, 40), ((5, 6), (7, 8)))


@pytest.mark.parametrize(
    "solution",
    [
        "[",
        "[1]",
        "[[1, 2, 3, 4]]",
        '[{"bbox_2d": [1, 2, 3, 4]}]',
        '[{"bbox_2d": [1, 2, 3], "point_2d": [1, 2]}]',
        '[{"bbox_2d": [1, 2, 3, true], "point_2d": [1, 2]}]',
        '[{"bbox_2d": [1, 2, 3, NaN], "point_2d": [1, 2]}]',
        '[{"bbox_2d": [1, 2, 3, 1e9], "point_2d": [1, 2]}]',
        '[{"bbox_2d": [-1, 2, 3, 4], "point_2d": [1, 2]}]',
        '[{"bbox_2d": [3, 2, 3, 4], "point_2d": [1, 2]}]',
        '[{"bbox_2d": [1, 2, 3, 4], "bbox_2d": [1, 2, 3, 4], "point_2d": [1, 2]}]',
        f"[{', '.join(['1'] * 1001)}]",
        "[" * 100_000,
    ],
)
def test_malformed_solutions_of_several_objects(solution: str) -> None:
    with pytest.raises(ValueError, match="solution"):
        read_objects(solution)


def test_training_sets_of_several_objects(tmp_path: Path) -> None:
    several = [{"bbox_2d": [1, 2, 30, 8], "point_2d": [3, 4]}, {"bbox_2d": [0, 0, 5, 5], "point_2d": [1, 99]}]
    rows = [training_row(solution=json.dumps(several)), training_row(solution="[]"), training_row(solution="[{}]")]
    write_parquet(tmp_path / "VisionReasoner_multi_object_7k_840" / "data" / "train-00000-of-00001.parquet", rows)
    for name, folder in (("visionreasoner", tmp_path), ("refcocog-2k", next(tmp_path.iterdir()))):
        data = open_dataset(name, folder, "train")
        assert (data.name, list(data.ids), len(data.problems)) == (name, ["0", "1"], 1)
        assert "row 2: the solution is not a list of" in data.problems[0]
        objects = data[0].objects
        assert objects is not None
        assert [(each.box, each.points, each.mask) for each in objects] == [
            ((1, 2, 20, 8), ((3, 4), (3, 4)), None),
            ((0, 0, 5, 5), ((1, 9), (1, 9)), None),
        ], "clipped"
        assert (data[0].box, data[0].mask) == (None, None)
        assert (data[1].objects, data[1].mask) == ((), None)
    with pytest.raises(UsageError, match="pass the folder of VisionReasoner_multi_object_7k_840 or"):
        open_dataset("visionreasoner", Path(__file__).parent, "train")


def training_row(**changes: Any) -> dict[str, Any]:
    """Return a row of the training form on an image of 20 x 10 pixels."""
    content = image_bytes(np.zeros((10, 20, 3), np.uint8), "PNG")
    solution = "<box>(1,2),(30,8)</box><points>(3,4),(29,6)</points>"
    return {"image": {"bytes": content, "path": None}, "problem": " red ", "solution": solution} | changes


def test_bad_rows_of_the_training_set_are_named(tmp_path: Path) -> None:
    rows = [
        training_row(),
        training_row(problem=None),
        training_row(solution="<box>(5,2),(3,4)</box><points>(3,4),(5,6)</points>"),
        training_row(image={"bytes": b"torn", "path": None}),
        training_row(image={"bytes": None, "path": "/elsewhere.jpg"}),
        training_row(solution="<box>(20,2),(30,8)</box><points>(3,4),(29,6)</points>"),
    ]
    write_parquet(tmp_path / "train.parquet", rows)
    data = open_dataset("refcocog-2k", tmp_path, "train")
    assert list(data.ids) == ["0", "3", "4", "5"]
    assert [problem.partition(", ")[2][:5] for problem in data.problems] == ["row 1", "row 2"]
    assert "no area" in data.problems[1]
    example = data[0]
    assert (example.query, example.box, example.points) == ("red", (1, 2, 20, 8), ((3, 4), (19, 6))), "clipped"
    for index, message in ((1, "3: the image is not an image"), (2, "4: the table does not hold"), (3, "5: the box")):
        with pytest.raises(UsageError, match=message):
            data[index]
    write_parquet(tmp_path / "test.parquet", [training_row(problem="")])
    with pytest.raises(UsageError, match=r"all 1 rows are unusable; the first: .*row 0"):
        open_dataset("refcocog-2k", tmp_path, "test")


def test_missing_columns_and_torn_files_are_named(tmp_path: Path) -> None:
    row = training_row()
    del row["solution"]
    write_parquet(tmp_path / "train.parquet", [row])
    with pytest.raises(UsageError, match="has no column solution; it has image, problem"):
        open_dataset("refcocog-2k", tmp_path, "train")
    with pytest.raises(UsageError, match="has no column text, mask; it has image, problem"):
        open_dataset("reasonseg", tmp_path, "train")
    content = (tmp_path / "train.parquet").read_bytes()
    (tmp_path / "train.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(UsageError, match="is damaged"):
        open_dataset("refcocog-2k", tmp_path, "train")


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 rows with masks in two files; the first two rows have the same ids."""
    folder = tmp_path_factory.mktemp("masks")
    rows = mask_rows(24)
    rows[1]["ann_id"], rows[1]["image_id"] = rows[0]["ann_id"], rows[0]["image_id"]
    # The hub's copy of the validation split calls itself "test".
    write_parquet(folder / "data" / "test-00000-of-00002.parquet", rows[:18], row_group_size=18)
    write_parquet(folder / "data" / "test-00001-of-00002.parquet", rows[18:], row_group_size=4)
    return folder


@pytest.mark.parametrize("name", ["reasonseg", "refcoco+"])
def test_tables_with_masks(name: str, masks: Path, tmp_path: Path) -> None:
    folder = tmp_path / ("ReasonSeg_val" if name == "reasonseg" else "refcocoplus_val")
    folder.symlink_to(masks)
    data = open_dataset(name, tmp_path, "val")
    assert (data.name, data.split) == (name, "val")
    assert ids_of(data)[:3] == ["image_0-0", "image_0-0-2", "image_2-2"]
    for index in (0, 17, 16, 23, 3, 19, 18, 17):  # back and forth between batches, row groups and files
        item, example = sample("test", index), data[index]
        assert (example.query, example.box, example.points) == (item.request, item.box, item.points)
        assert (example.ignore, example.kind) == (None, None)
        np.testing.assert_array_equal(example.image, item.scene.image)
        assert example.mask is not None
        np.testing.assert_array_equal(example.mask, item.mask)
    with pytest.raises(UsageError, match="holds the split val"):
        open_dataset(name, folder, "test")


def test_mask_cells(tmp_path: Path) -> None:
    item = sample("test", 0)
    good = mask_row(item, 0)
    as_image = [good | {"mask": {"bytes": image_bytes(item.mask, "PNG"), "path": None}}]
    as_numbers = [good | {"mask": (item.mask * 255).tolist()}]
    for place, rows in enumerate((as_image, as_numbers)):
        write_parquet(tmp_path / f"good{place}.parquet", rows)
        example = open_dataset("reasonseg", tmp_path / f"good{place}.parquet", "test")[0]
        assert example.mask is not None
        np.testing.assert_array_equal(example.mask, item.mask)
    bad: dict[str, Any] = {
        "the image": [[True, False]],
        "not a list of rows": [],
        "of one length": [[True], [True, False]],
        "not integers": [[True, None]],
    }
    rows = [good | {"mask": mask} for mask in bad.values()]
    write_parquet(tmp_path / "test.parquet", [*rows, good | {"text": None}])
    data = open_dataset("reasonseg", tmp_path, "test")
    assert len(data.problems) == 1
    assert "row 4" in data.problems[0]
    for index, message in enumerate(bad):
        with pytest.raises(UsageError, match=message):
            data[index]


def test_an_empty_mask_has_no_box(tmp_path: Path) -> None:
    row = mask_row(sample("test", 0), 0)
    write_parquet(tmp_path / "test.parquet", [row | {"mask": np.zeros((224, 224), bool).tolist()}])
    example = open_dataset("reasonseg", tmp_path, "test")[0]
    assert (example.box, example.points) == (None, None)
    assert example.mask is not None
    assert not example.mask.any()


def test_points_of_masks_are_found_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.zeros((40, 60), bool)
    mask[5:25, 10:50] = True
    asked: list[np.ndarray] = []
    monkeypatch.setattr(base, "interior_points", lambda part: asked.append(part) or interior_points(part))
    (found,) = masked_objects([mask, np.zeros_like(mask)])
    assert (found.box, asked) == ((10, 5, 50, 25), [])
    assert found.points == found.points == mask_points(mask)
    assert len(asked) == 2, "once for the object and once for the expectation"
    assert ExampleObject(found.box, ((1, 2), (3, 4)), mask).points == ((1, 2), (3, 4))


def test_points_of_large_masks() -> None:
    small = sample("test", 0).mask
    assert mask_points(small) == interior_points(small)
    large = small.repeat(12, axis=0).repeat(12, axis=1)
    assert all(large[y, x] for x, y in mask_points(large))
    comb = np.zeros((1000, 1500), bool)
    comb[1::2, 1::2] = True
    assert all(comb[y, x] for x, y in mask_points(comb)), "thinning may miss a thin mask"


def test_names_are_made_unique() -> None:
    assert make_unique(["a", "b", "a", "a-2", "a"]) == ("a", "b", "a-2", "a-2-2", "a-3")
