"""How a checkpoint's pictures and coordinates are known: from its family, from `policy.json`, or by being told."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tiny_qwen import make_qwen, save_qwen
from wise_edge.errors import UsageError
from wise_edge.policy.answers import conventions
from wise_edge.policy.answers.conventions import FILE, Conventions, Told, write_conventions
from wise_edge.policy.answers.form import (
    BOX,
    BOX_LABEL_LIST,
    BOX_POINT_LIST,
    BOX_POINTS,
    LABEL,
    POINT,
    AnswerField,
    AnswerForm,
)
from wise_edge.policy.answers.frame import PER_MILLE, PIXELS, PIXELS_XY, YX, Coordinates
from wise_edge.policy.checkpoint import read_policy_spec
from wise_edge.policy.families import FAMILIES
from wise_edge.policy.picture import ASPECT, PictureGeometry
from wise_edge.policy.prompts import DEFAULT, EMBEDDED, PromptSet, Template, fit_wording
from wise_edge.policy.wording import check_wording

STOCK = {"shortest_edge": 3136, "longest_edge": 12_845_056}
"""Pixels that published processors of Qwen2-VL and Qwen2.5-VL allow."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders as a training of an older version wrote them, by family."""
    root = tmp_path_factory.mktemp("families")
    return {name: save_qwen(make_qwen(name, max_position_embeddings=4096), root / name) for name in FAMILIES}


@pytest.fixture
def qwen3(trained: dict[str, Path], tmp_path: Path) -> Path:
    """A stock Qwen3-VL."""
    return as_stock(trained["qwen3_vl"], tmp_path / "stock")


def as_stock(folder: Path, to: Path) -> Path:
    """Copy a folder with a processor that takes pictures of many sizes, as published ones do."""
    shutil.copytree(folder, to)
    edit(to / "preprocessor_config.json", size=STOCK)
    return to


def edit(file: Path, **entries: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


STOCK_COORDINATES = {
    "qwen2_vl": Coordinates(PER_MILLE),
    "qwen2_5_vl": PIXELS_XY,
    "qwen3_vl": Coordinates(PER_MILLE),
    "qwen3_5": Coordinates(PER_MILLE),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stock_checkpoint_has_the_coordinates_of_its_family_and_keeps_the_aspect(
    trained: dict[str, Path], tmp_path: Path, family: str
) -> None:
    spec = read_policy_spec(as_stock(trained[family], tmp_path / "stock"))

    assert spec.coordinates == STOCK_COORDINATES[family]
    assert spec.picture == PictureGeometry(ASPECT, None, 3136, 840 * 840)
    width, height = spec.picture_size((1920, 1080))
    assert width > height and width * height <= 840 * 840


@pytest.mark.parametrize("family", FAMILIES)
def test_what_an_older_version_trained_answers_in_pixels_of_its_square(trained: dict[str, Path], family: str) -> None:
    spec = read_policy_spec(trained[family])
    side = 8 * spec.patch_size
    assert (spec.coordinates, spec.picture) == (PIXELS_XY, PictureGeometry.square(side))


@pytest.mark.parametrize("pixels", [32 * 32 * 1280, 33 * 33, 896 * 896 + 1])
def test_a_stock_checkpoint_of_one_number_of_pixels_stays_one(qwen3: Path, pixels: int) -> None:
    edit(qwen3 / "preprocessor_config.json", size={"shortest_edge": pixels, "longest_edge": pixels})
    spec = read_policy_spec(qwen3)
    assert (spec.coordinates, spec.picture) == (Coordinates(PER_MILLE), PictureGeometry(ASPECT, None, pixels, pixels))


def test_a_policy_json_counts_more_than_family_and_processor(qwen3: Path) -> None:
    said = Conventions(Coordinates(PIXELS, YX), PictureGeometry.square(64))
    write_conventions(qwen3, said)
    spec = read_policy_spec(qwen3)
    assert (spec.coordinates, spec.picture) == (said.coordinates, said.picture)
    assert json.loads((qwen3 / FILE).read_text())["coordinates"] == {"unit": "pixels", "order": "yx"}


def test_a_policy_json_may_leave_things_out(qwen3: Path) -> None:
    write_conventions(qwen3, Conventions(picture=PictureGeometry.square(64)))
    spec = read_policy_spec(qwen3)
    assert (spec.coordinates, spec.picture.side) == (Coordinates(PER_MILLE), 64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"coordinates": {"unit": "inches"}}', r"policy.json: coordinates.unit: choose one of pixels, per-mille"),
        ('{"version": 2}', r"policy.json: version: is 2, this wise-edge knows 1; update wise-edge$"),
        ('{"coordinates": "pixels"}', r"policy.json: coordinates: 'pixels' is not a mapping"),
        ('{"cordinates": {}}', r"policy.json: cordinates: unknown key; did you mean 'coordinates'"),
        ('{"picture": {"kind": "square"}}', r"policy.json: picture.side: missing"),
        (
            '{"picture": {"kind": "square", "side": 65}}',
            r"picture.side: 65 is not a multiple of patch_size x merge",
        ),
    ],
)
def test_a_malformed_policy_json_is_one_line(qwen3: Path, content: str, message: str) -> None:
    (qwen3 / FILE).write_text(content)
    with pytest.raises(UsageError, match=message) as error:
        read_policy_spec(qwen3)
    assert "\n" not in str(error.value)


def test_a_form_of_answers_is_told_or_in_policy_json(qwen3: Path, tmp_path: Path) -> None:
    own = replace(BOX_LABEL_LIST, name="own", list_start="[", list_end="]")
    file = tmp_path / "own.json"
    file.write_text(json.dumps(asdict(own) | {"version": 1}))
    assert read_policy_spec(qwen3).form == BOX_POINTS
    assert read_policy_spec(qwen3, told=Told(form="box-label-list")).form == BOX_LABEL_LIST
    assert read_policy_spec(qwen3, told=Told(form=str(file))).form == own

    write_conventions(qwen3, Conventions(form=own))
    assert read_policy_spec(qwen3).form == own
    assert read_policy_spec(qwen3, told=Told(form="box-points")).form == BOX_POINTS


def test_a_form_that_nobody_says_is_the_one_whose_keys_the_wording_names(qwen3: Path) -> None:
    def found(*words: str) -> AnswerForm:
        variants = {f"v{number}": Template(f"{{query}} {text}") for number, text in enumerate(words)}
        (qwen3 / "prompts.json").write_text(json.dumps(PromptSet("own", "", variants).to_dict()))
        return read_policy_spec(qwen3).form

    assert found("""<answer>[{'bbox_2d': [1,2,3,4], "point_2d": [2,3]}]</answer>""", "Be brief.") == BOX_POINT_LIST
    assert found('[{"bbox_2d": [1, 2, 3, 4], "label": "mug"}]') == BOX_LABEL_LIST
    assert found("Where is it?") == BOX_POINTS
    for other in ('{"rectangle": [1, 2, 3, 4]}', '{"bbox_2d": [1, 2, 3, 4]}'):
        with pytest.raises(UsageError, match="'v0' of the prompts 'own' names the keys"):
            found(other)
    write_conventions(qwen3, Conventions(form=BOX_LABEL_LIST))
    with pytest.raises(UsageError, match="but answers of the form box-label-list have bbox_2d, label; export with"):
        found('[{"bbox_2d": [1,2,3,4], "point_2d": [2,3]}]')


def test_a_form_is_refused_whose_keys_the_wording_does_not_name(qwen3: Path) -> None:
    own = replace(DEFAULT, system=f"Look closely. {DEFAULT.system}")
    (qwen3 / "prompts.json").write_text(json.dumps(own.to_dict()))
    with pytest.raises(UsageError, match=r"names the keys bbox, points_1, points_2, but answers of the form box-label"):
        read_policy_spec(qwen3, told=Told(form="box-label-list"))
    with pytest.raises(UsageError, match="--form unknown form 'boxes'; choose one of box-points"):
        Told(form="boxes")


def test_a_family_of_unknown_coordinates_is_refused_until_somebody_says_them(
    qwen3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conventions, "FAMILY_COORDINATES", {})
    with pytest.raises(
        UsageError, match=r"not known whether a qwen3_vl policy answers in pixels or per mille; pass --co"
    ):
        read_policy_spec(qwen3)
    assert read_policy_spec(qwen3, told=Told("per-mille,yx")).coordinates == Coordinates(PER_MILLE, YX)


TOLD: list[tuple[Told, PictureGeometry]] = [
    (Told(picture="square:96"), PictureGeometry.square(96)),
    (Told(picture="square"), PictureGeometry.square(864)),
    (Told(picture="square", pixels=10_000), PictureGeometry.square(96)),
    (Told(picture="aspect:4096-65536"), PictureGeometry(ASPECT, None, 4096, 65536)),
    (Told(pixels=20_000), PictureGeometry(ASPECT, None, 3136, 20_000)),
    (Told(pixels=2_000_000), PictureGeometry(ASPECT, None, 3136, 2_000_000)),
    (Told(pixels=2_000), PictureGeometry(ASPECT, None, 2_000, 2_000)),
    (Told(grids="4x3, 3x4,4x3"), PictureGeometry(ASPECT, None, 3136, 840 * 840, ((4, 3), (3, 4)))),
    (
        Told(pixels=32 * 32 * 16, fixed_grids=True),
        PictureGeometry(ASPECT, None, 3136, 32 * 32 * 16, ((4, 4), (4, 3), (3, 4), (5, 3), (3, 5))),
    ),
    (Told(fixed_grids=True, picture="square:64"), PictureGeometry.square(64)),
]


@pytest.mark.parametrize(("told", "picture"), TOLD, ids=str)
def test_what_an_export_is_told_counts_most(qwen3: Path, told: Told, picture: PictureGeometry) -> None:
    assert read_policy_spec(qwen3, told=told).picture == picture


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"coordinates": "percent"}, "--coordinates percent: pass pixels or per-mille, and ,yx if rows come first"),
    ({"coordinates": "pixels,zz"}, "--coordinates pixels,zz: pass"),
    ({"coordinates": "pixels,yx,xy"}, "--coordinates pixels,yx,xy: pass"),
    ({"picture": "circle"}, "--picture circle: pass square, square:SIDE, aspect or aspect:LEAST-MOST"),
    ({"picture": "square:"}, "--picture square:: pass"),
    ({"picture": "aspect:9-4"}, "--picture: least_pixels: 9 is above most_pixels, 4"),
    ({"picture": "square:0"}, "--picture: side: must be from 1 to 4,096, is 0"),
    ({"picture": "square:100"}, "picture.side: 100 is not a multiple of patch_size x merge_size = 32"),
    ({"pixels": 1023}, "1023 pixels hold no image token of 32 x 32; allow 1024 or more"),
    ({"grids": "4"}, "--grids 4: pass columns and rows of image tokens, for example 30x30,40x22"),
    ({"grids": "4x3;3x4"}, "--grids 4x3;3x4: pass"),
    ({"grids": "4x3,0x3"}, r"^--grids: grids.1.0: must be from 1 to 65,536, is 0$"),
    ({"grids": ",".join(f"1x{rows}" for rows in range(1, 102))}, r"^--grids: grids: .*100"),
    ({"grids": "4x3", "picture": "square:64"}, "--grids are of pictures that keep their aspect; add --picture aspect"),
    ({"grids": "300x300"}, "picture: an image takes 90000 tokens, at most 65536"),
    ({"grids": "64x64"}, "an image takes up to 4096 positions and the model has 4096"),
    ({"pixels": 32 * 32 * 4096}, "an image takes up to 4096 positions and the model has 4096; .* fewer --pixels"),
]


@pytest.mark.parametrize(("told", "message"), REFUSED, ids=str)
def test_what_cannot_be_is_refused_in_one_line(qwen3: Path, told: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        read_policy_spec(qwen3, told=Told(**told))
    assert "\n" not in str(error.value)


def test_the_default_wording_names_the_coordinates(qwen3: Path) -> None:
    (qwen3 / "prompts.json").write_text(json.dumps(DEFAULT.to_dict()))
    assert "from 0 to 1000 of the picture's width and height" in read_policy_spec(qwen3).prompts.system
    assert read_policy_spec(qwen3, told=Told("pixels")).prompts == DEFAULT
    turned = read_policy_spec(qwen3, told=Told("pixels,yx")).prompts
    assert '{"bbox": [y1, x1, y2, x2], "points_1": [y, x], "points_2": [y, x]}' in turned.system

    assert fit_wording(turned, PIXELS_XY) == DEFAULT, "a wording of ours that another policy was given"
    for others in (EMBEDDED, PromptSet("own", "In pixels of the picture.", DEFAULT.variants)):
        assert fit_wording(others, Coordinates(PER_MILLE)) == others


def test_the_default_wording_asks_for_the_form(qwen3: Path, tmp_path: Path) -> None:
    (qwen3 / "prompts.json").write_text(json.dumps(DEFAULT.to_dict()))
    points = tuple(AnswerField(f"point_{number}", POINT) for number in range(3))
    own = AnswerForm("own", (AnswerField("box", BOX), *points, AnswerField("what", LABEL)))
    file = tmp_path / "own.json"
    file.write_text(json.dumps(asdict(own) | {"version": 1}))
    for told, asked in (
        (
            "box-label-list",
            'box and its name, from 0 .* none: ```json\n[\n\t{"bbox_2d": [x1, y1, x2, y2], "label": "name"}\n]\n```',
        ),
        ("box-point-list", 'a point inside it, .*: <answer>[{"bbox_2d": [x1,y1,x2,y2], "point_2d": [x,y]}]</answer>'),
        (
            str(file),
            'box and 3 points inside it and its name, .*: <answer>{"box": [x1, y1, x2, y2], "point_0": [x, y], ',
        ),
    ):
        spec = read_policy_spec(qwen3, told=Told(form=told))
        assert re.search(re.escape(asked).replace(r"\.\*", ".*"), spec.prompts.system), spec.prompts.system
        assert not [remark for remark in check_wording(spec.prompts, spec.form) if remark.wrong]


@pytest.mark.parametrize("pixels", [900_000, 90_000_000, 10**12])
def test_a_run_cannot_take_more_pixels_than_the_bundle_has_room_for(qwen3: Path, pixels: int) -> None:
    spec = read_policy_spec(qwen3)
    for policy in (spec, replace(spec, picture=PictureGeometry.square(864))):
        with pytest.raises(UsageError, match=f"^(pixels is {pixels},|{pixels} pixels are too many)"):
            policy.within(pixels)
