"""`wise-edge masks` segments everything in pictures, or what boxes and points mark, and opens no policy."""

from __future__ import annotations

import inspect
import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wise_edge import Segmenter, Session
from wise_edge.bundle.store import resolve_checkpoint
from wise_edge.cli.main import main
from wise_edge.cli.masks import masks
from wise_edge.rle import mask_of_runs
from wise_edge.runtimes.mask.grid import GridOptions
from wise_edge.scenes import sample

FEW = ["--points-per-side", "6", "--pred-iou-thresh", "0.7", "--stability-score-thresh", "0.8", "--threads", "1"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with two pictures and one that is none, as the working folder's."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name, size in (("a.jpg", (224, 224)), ("c.png", (150, 100))):
        Image.fromarray(sample("test", 3).scene.image).resize(size).save(Path("photos", name))
    Path("photos/b.jpg").write_bytes(b"\xff\xd8\xff and then nothing")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a policy was opened")

    monkeypatch.setattr(Session, "from_bundle", refuse)


def test_options_are_those_of_the_grid() -> None:
    parameters = inspect.signature(masks).parameters
    assert {field.name: parameters[field.name].default for field in fields(GridOptions)} == {
        field.name: field.default for field in fields(GridOptions)
    }


def test_everything_in_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["masks", "photos/a.jpg", *FEW, "--overlay", "o.png"]) == 0

    out, err = capsys.readouterr()
    head, heading, *rows = out.splitlines()
    expected = Segmenter.from_bundle(threads=1).generate("photos/a.jpg", GridOptions(6, 64, 0.7, 0.8))
    assert head.startswith(f"photos/a.jpg: {len(expected.masks)} masks; 36 made, dropped ")
    assert heading.split("  ")[0] == "mask"
    assert len(rows) == len(expected.masks) > 2
    assert [row.split()[1] for row in rows] == [f"{each.area:,}" for each in expected.masks]
    image = np.asarray(Image.open("photos/a.jpg"))
    np.testing.assert_array_equal(np.asarray(Image.open("o.png")), expected.overlay(image))
    assert err == ""


def test_several_pictures_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["masks", "photos", *FEW, "--json", "--out", "found", "--save", "overlay,json,coco"]
    assert main(command) == 1

    out, err = capsys.readouterr()
    documents = [json.loads(line) for line in out.splitlines()]
    assert [document["image"] for document in documents] == ["photos/a.jpg", "photos/c.png"]
    assert err.splitlines()[-2].startswith("3 pictures: 2 with masks, 1 skipped; median ")
    assert err.splitlines()[-1] == "error: 1 of 3 pictures could not be segmented; each is named above"
    names = {"a-overlay.jpg", "a.json", "c-overlay.png", "c.json", "coco.json"}
    assert {file.name for file in Path("found").iterdir()} == names
    assert json.loads(Path("found/a.json").read_text()) == documents[0]
    coco = json.loads(Path("found/coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["photos/a.jpg", "photos/c.png"]
    listed = [mask for document in documents for mask in document["masks"]]
    assert [entry["segmentation"] for entry in coco["annotations"]] == [mask["segmentation"] for mask in listed]
    assert [image["height"] for image in coco["images"]] == [224, 100]
    for document in documents:
        assert document["version"] == 1
        for mask in document["masks"]:
            pixels = mask_of_runs(mask["segmentation"])
            assert pixels.shape[::-1] == tuple(document["image_size"])
            assert pixels.sum() == mask["area"]
    assert main(command) == 2
    assert "a-overlay.jpg exists" in capsys.readouterr().err


def test_boxes_and_points(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--box", "10,20,120,130", "--point", "60,70", "--point", "60,70,61.5,72", "--box", "30,30,90,90"]
    assert main(["masks", "photos/a.jpg", "--json", *given]) == 0
    found = json.loads(capsys.readouterr().out)["masks"]
    assert [mask["box"] for mask in found] == [[10, 20, 120, 130], [30, 30, 90, 90], None, None]
    assert [mask["point_coords"] for mask in found] == [[], [], [[60, 70]], [[60, 70], [61.5, 72]]]


def test_a_checkpoint_needs_no_bundle(capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    for model in ([], ["--sam", "embedded"]):
        assert main(["masks", "photos/a.jpg", "--point", "60,70", "--json", *model]) == 0
        lines.append(json.loads(capsys.readouterr().out))
    of_bundle, of_checkpoint = lines
    assert [of_bundle["backend"], of_checkpoint["backend"]] == ["onnx", "torch"]
    assert of_bundle["masks"][0]["area"] == pytest.approx(of_checkpoint["masks"][0]["area"], abs=2)


@pytest.mark.parametrize("model", [[], ["--sam", "embedded-edgetam"]])
def test_the_demo_models_say_once_what_they_do_not_know(model: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 60, 90, 3), np.uint8)
    for name, image in zip(("x.png", "y.png"), noise, strict=True):
        Image.fromarray(image).save(name)
    assert main(["masks", "photos/a.jpg", "x.png", "y.png", "--point", "30,40", *model]) == 0
    assert capsys.readouterr().err.count("note: built-in demo model: it knows only synthetic shapes") == 1


def test_a_segmenter_of_ones_own_is_not_judged(capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)).save("x.png")
    shutil.copytree(resolve_checkpoint("embedded", "sam"), "own")
    assert main(["masks", "x.png", "--point", "30,40", "--sam", "own"]) == 0
    assert capsys.readouterr().err == ""


def test_nothing_found_is_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["masks", "photos/a.jpg", "--points-per-side", "2", "--pred-iou-thresh", "1"]) == 0
    line = capsys.readouterr().out
    assert "a.jpg: no masks; 4 made, dropped 4 by --pred-iou-thresh; lower --pred-iou-thresh (best 0." in line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["photos/a.jpg", "--points-per-side", "0"], "--points-per-side must be from 1 to 256, got int 0"),
        (["photos/a.jpg", "--pred-iou-thresh", "2"], "--pred-iou-thresh must be from 0 to 1, got float 2.0"),
        (["photos/a.jpg", "--box", "1,2,3"], "--box is '1,2,3'; pass pixels of the picture as X1,Y1,X2,Y2"),
        (["photos/a.jpg", "--box", "9,9,1,1"], "the box must be (x1, y1, x2, y2) with x1 < x2"),
        (["photos/a.jpg", "--point", "1,x"], "--point is '1,x'; pass pixels of the picture as X,Y"),
        (["photos/a.jpg", "--point", "500,3"], "the point (500, 3) is outside the image, which is 224 x 224"),
        (["photos/a.jpg", "--point", "5,3", "--crop-n-layers", "1"], "'masks --point' does not accept --crop-n-layers"),
        (["photos/a.jpg", "--save", "mask"], "--save needs a folder; add --out DIR"),
        (["photos/a.jpg", "--out", "o", "--save", "mask"], "unknown kind 'mask'; choose one of overlay, json, coco"),
        (["photos/a.jpg", "--sam", "embedded", "--threads", "1"], "'masks --sam' does not accept --threads; remove it"),
        (["photos/a.jpg", "--sam", "sam.pth"], "sam.pth"),
        (["photos/b.jpg"], "damaged JPEG"),
        (["missing.jpg"], "missing.jpg does not exist; pass an image file"),
        (["photos/a.jpg", "--mask-backend", "llama"], "unknown mask backend 'llama'"),
    ],
)
def test_bad_input_is_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["masks", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err.splitlines()[-1]


def test_a_picture_that_a_point_misses_is_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["masks", "photos/a.jpg", "photos/c.png", "--point", "200,20"]) == 1
    assert (
        "skipped: photos/c.png: the point (200, 20) is outside the image, which is 150 x 100" in capsys.readouterr().err
    )
