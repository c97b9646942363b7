"""Tables of one's own pictures, masks and sentences, in every form of mask that people have."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dataset_files import compressed_runs, image_bytes, plain_runs
from own_files import write_rows, write_table
from wise_edge.datasets import Dataset, open_dataset
from wise_edge.errors import UsageError
from wise_edge.geometry import mask_box
from wise_edge.images.levels import load_levels, split_levels

WIDTH, HEIGHT = 60, 40
Mask = NDArray[np.bool_]


def _mask(x: int, y: int, size: int = 10) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + size, x : x + size] = True
    return mask


LEFT, RIGHT = _mask(2, 3), _mask(40, 5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(image_bytes(np.full((HEIGHT, WIDTH, 3), 90, np.uint8), "PNG"))
    for name, mask in (("left", LEFT), ("right", RIGHT), ("none", np.zeros_like(LEFT))):
        (tmp_path / f"{name}.png").write_bytes(image_bytes(mask, "PNG"))
    return tmp_path


def _row(mask: Any = "left.png", sentence: Any = "the mug", **more: Any) -> dict[str, Any]:
    return {"picture": "a.png", "mask": mask, "sentence": sentence} | more


def _open(file: Path) -> Dataset:
    return open_dataset("table", file, "")


def _table(folder: Path, text: str, name: str = "table.csv") -> Dataset:
    (folder / name).write_bytes(text.encode())
    return _open(folder / name)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_table_returns_its_scenes(suffix: str, tmp_path: Path) -> None:
    file, items = write_table(tmp_path, 3, suffix)
    data = _open(file)
    first = 1 if suffix == ".jsonl" else 2
    assert (data.name, data.split, data.problems) == ("table", "table", ())
    assert list(data.ids) == [str(first + index) for index in range(3)], "rows as a spreadsheet counts them"
    for index, item in enumerate(items):
        example = data[index]
        assert (example.query, example.box, example.kind) == (item.query.text, item.box, "one")
        np.testing.assert_array_equal(example.image, item.scene.image)
        np.testing.assert_array_equal(example.mask, item.mask)
    assert data.sources(1) == [file, tmp_path / "0.png", tmp_path / "masks" / "0.png"]


@pytest.mark.parametrize(
    "text",
    [
        "picture,mask,sentence\na.png,left.png,the mug\n",
        "\ufeffImage Path,Mask-File,Query\r\n./a.png,left.png,the mug\r\n",
        'id;caption;img;mask\n;"the  mug";a.png;left.png',
        "FILE_NAME\tmask\tprompt\na.png\tleft.png\tthe mug",
        '"picture","mask","sentence","note"\n"a.png","left.png","the\nmug","a, b"\n\n',
        " picture , mask , sentence \n a.png , left.png , the mug \n",
    ],
)
def test_headers_as_people_write_them(text: str, folder: Path) -> None:
    data = _table(folder, text)
    assert (data[0].query, list(data.ids), data.problems) == ("the mug", ["2"], ())
    np.testing.assert_array_equal(data[0].mask, LEFT)


def test_a_quote_and_a_separator_in_a_sentence(folder: Path) -> None:
    data = _table(folder, 'picture,mask,sentence\na.png,left.png,"the ""big"" mug, left"\na.png,left.png,the 5" disk\n')
    assert [data[place].query for place in (0, 1)] == ['the "big" mug, left', 'the 5" disk']


def _palette(mask: Mask, first: tuple[int, int, int], second: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(mask.astype(np.uint8), "L")
    image.putpalette([*first, *second])
    return image


def _transparent(image: Image.Image, color: int | tuple[int, int, int]) -> Image.Image:
    image.info["transparency"] = color
    return image


def _rgba(color: NDArray[np.uint8] | int, alpha: NDArray[np.uint8] | int) -> Image.Image:
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = color, alpha
    return Image.fromarray(pixels)


_BYTES = LEFT.astype(np.uint8)
_COLORS = np.where(LEFT[..., None], np.array([30, 0, 200]), 0).astype(np.uint8)
MASKS: dict[str, Callable[[], Image.Image]] = {
    "0 and 255": lambda: Image.fromarray(_BYTES * 255),
    "0 and 1": lambda: Image.fromarray(_BYTES),
    "0 and 7": lambda: Image.fromarray(_BYTES * 7),
    "one bit": lambda: Image.fromarray(LEFT),
    "16 bits": lambda: Image.fromarray(_BYTES.astype(np.uint16) * 300),
    "color": lambda: Image.fromarray(_COLORS),
    "gray as RGB": lambda: Image.fromarray(np.repeat(_BYTES[..., None] * 255, 3, 2)),
    "gray with alpha": lambda: Image.fromarray(np.stack([_BYTES * 255, np.full_like(_BYTES, 255)], 2)),
    "palette": lambda: _palette(LEFT, (0, 0, 0), (128, 0, 0)),
    "palette, second black": lambda: _palette(~LEFT, (255, 255, 255), (0, 0, 0)),
    "cut-out": lambda: _rgba(90, _BYTES * 255),
    "black cut-out": lambda: _rgba(0, _BYTES * 200),
    "cut-out of 16 colors": lambda: _rgba(90, _BYTES * 255).quantize(16),
    "palette, transparent": lambda: _transparent(_palette(LEFT, (71, 112, 76), (9, 9, 9)), 0),
    "color, transparent": lambda: _transparent(Image.fromarray(255 - _COLORS), (255, 255, 255)),
    "gray, transparent": lambda: _transparent(Image.fromarray(255 - _BYTES), 255),
    "palette, nothing transparent": lambda: _transparent(_palette(LEFT, (0, 0, 0), (9, 9, 9)), 2),
    "opaque": lambda: _rgba(_COLORS, 255),
    "soft edges": lambda: Image.fromarray(_BYTES * np.linspace(40, 255, WIDTH).astype(np.uint8)),
}


@pytest.mark.parametrize("kind", MASKS)
def test_every_kind_of_mask_file(kind: str, folder: Path) -> None:
    MASKS[kind]().save(folder / "left.png")
    example = _open(write_rows(folder / "table.csv", [_row()]))[0]
    np.testing.assert_array_equal(example.mask, LEFT)
    assert (len(example.objects or ()), example.box) == (1, mask_box(LEFT))


@pytest.mark.parametrize("suffix", ["bmp", "tiff", "gif", "pgm"])
def test_other_lossless_files(suffix: str, folder: Path) -> None:
    Image.fromarray(_BYTES * 255).save(folder / f"left.{suffix}")
    np.testing.assert_array_equal(_open(write_rows(folder / "table.csv", [_row(f"left.{suffix}")]))[0].mask, LEFT)


def test_compressed_masks_are_refused(folder: Path) -> None:
    Image.fromarray(_BYTES * 255).save(folder / "left.jpg")
    with pytest.raises(UsageError, match=r"2: .*left.jpg is a JPEG image, whose compression changes masks; save it as"):
        _open(write_rows(folder / "table.csv", [_row("left.jpg")]))[0]
    Image.fromarray(_BYTES * 255).convert("RGB").save(folder / "left.tif", compression="jpeg")
    with pytest.raises(UsageError, match=r"left.tif is a JPEG image, whose compression changes masks; save it as PNG"):
        _open(write_rows(folder / "table.csv", [_row("left.tif")]))[0]


@pytest.mark.parametrize("levels", [(255, 254), (1, 2), (2, 1)])
def test_levels_of_a_mask_number_its_objects(levels: tuple[int, int], folder: Path) -> None:
    pixels = LEFT * np.uint8(levels[0]) + RIGHT * np.uint8(levels[1])
    Image.fromarray(pixels).save(folder / "both.png")
    example = _open(write_rows(folder / "table.csv", [_row("both.png", "both")]))[0]
    found = [LEFT, RIGHT] if levels != (2, 1) else [RIGHT, LEFT]
    assert example.kind == "several"
    for item, mask in zip(example.objects or (), found, strict=True):
        np.testing.assert_array_equal(item.mask, mask)
    np.testing.assert_array_equal(example.mask, LEFT | RIGHT)


def test_our_own_mask_image_comes_back(folder: Path) -> None:
    from wise_edge.scenes import sample

    scene = sample("test", 3).scene
    pixels = np.zeros(scene.masks[0].shape, np.uint8)
    for number, mask in enumerate(scene.masks):
        pixels[mask] = 255 - number
    Image.fromarray(pixels).save(folder / "own.png")
    found = split_levels(load_levels(folder / "own.png"), 50)
    assert len(found) == len(scene.masks) > 1
    for mask, own in zip(found, scene.masks, strict=True):
        np.testing.assert_array_equal(mask, own)


@pytest.mark.parametrize(
    ("values", "objects"),
    [((), 0), ((1,), 1), ((255,), 1), ((9,), 1), ((1, 2, 3), 3), ((1, 2, 4), 1), ((255, 253), 1), ((1, 255), 1),
     ((1, 2, 3, 4), 1), ((255, 254, 253), 3), ((65_535,), 1)],
)  # fmt: skip
def test_levels_that_number_and_levels_that_do_not(values: tuple[int, ...], objects: int) -> None:
    levels = np.zeros((3, 8), np.uint16)
    levels[1, : len(values)] = values
    found = split_levels(levels, most=3)
    assert len(found) == objects
    assert not found or np.array_equal(np.any(found, axis=0), levels > 0)


def test_a_mask_without_a_pixel_means_nothing(folder: Path) -> None:
    example = _open(write_rows(folder / "table.csv", [_row("none.png", "the plate")]))[0]
    assert (example.kind, example.objects, example.box) == ("none", (), None)
    assert example.mask is not None and not example.mask.any()


def test_rows_of_one_picture(folder: Path) -> None:
    rows = [_row(), _row("right.png", "the bowl"), _row("right.png"), _row(), _row("none.png", "the bowl")]
    data = _open(write_rows(folder / "table.csv", rows))
    assert [(data[place].id, data[place].query) for place in (0, 1)] == [("2", "the mug"), ("3", "the bowl")]
    assert [len(data[place].objects or ()) for place in (0, 1)] == [2, 1]
    np.testing.assert_array_equal(data[0].mask, LEFT | RIGHT)
    assert data.sources(2)[1:] == [folder / name for name in ("a.png", "left.png", "right.png", "none.png")]


def test_ids_and_kinds_of_columns(folder: Path) -> None:
    rows = [_row(id="first", kind="easy"), _row("right.png", "the bowl", id="", kind="")]
    data = _open(write_rows(folder / "table.csv", rows))
    assert [(data[place].id, data[place].kind) for place in (0, 1)] == [("first", "easy"), ("3", "one")]


@pytest.mark.parametrize("runs", [plain_runs, compressed_runs])
def test_run_lengths_in_json_lines(runs: Callable[[Mask], Any], folder: Path) -> None:
    file = write_rows(folder / "table.jsonl", [_row(runs(LEFT)), _row("right.png")])
    example = _open(file)[0]
    np.testing.assert_array_equal(example.mask, LEFT | RIGHT)
    assert _open(file).sources(1) == [file, folder / "a.png", folder / "right.png"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (_row("gone.png"), "row 2: its mask 'gone.png' is not a file in "),
        (_row() | {"picture": "gone.png"}, "row 2: its picture 'gone.png' is not a file in "),
        (
            _row(""),
            "row 2: its mask is '' and not the path of a file; for a sentence that means nothing in the picture, use",
        ),
        (_row(sentence=" "), "row 2: there is no sentence"),
        (_row(id="x" * 201), "row 2: its id 'x"),
        (_row(kind="x" * 41), "row 2: its kind 'x"),
    ],
)
def test_what_cannot_be_used_is_named_and_left_out(row: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(UsageError, match=rf"table.csv has no usable rows: all 1 rows .*: table.csv, {message}"):
        _open(write_rows(folder / "table.csv", [row]))
    good = _row("right.png", "the bowl") | {name: "" for name in row if name in ("id", "kind")}
    data = _open(write_rows(folder / "table.csv", [row, good]))
    assert (len(data), len(data.problems), data[0].query) == (1, 1, "the bowl")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (_row(None), "line 1: its mask is None and not the path"),
        (_row(["left.png"]), r"line 1: its mask is \['left.png'\] and not the path"),
        (_row() | {"picture": {"path": "a.png"}}, "line 1: its picture is {'path': 'a.png'} and not the path"),
        (_row(sentence=["the mug"]), "line 1: there is no sentence"),
        (_row({"counts": [2400]}), r"line 1: its mask has no size \[height, width\]"),
        (_row({"size": [40, 60], "counts": [7]}), "line 1: its mask: run lengths cover 7 pixels of 2400"),
        (_row({"size": [40_000, 60_000], "counts": [7]}), "line 1: its mask: it has 60000 x 40000 pixels"),
    ],
)
def test_nested_values_of_json_lines(row: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(UsageError, match=message):
        _open(write_rows(folder / "table.jsonl", [row]))


def test_a_later_line_of_json_that_lacks_something_is_left_out(folder: Path) -> None:
    rows = [_row(), *({name: value for name, value in _row().items() if name != lacking} for lacking in _row())]
    data = _open(write_rows(folder / "table.jsonl", [*rows, _row("right.png", "the bowl")]))
    assert list(data.ids) == ["1", "5"]
    lines = [line.partition(": ") for line in data.problems]
    assert [place for place, _, _ in lines] == [f"table.jsonl, line {number}" for number in (2, 3, 4)]
    for (_, _, reason), words in zip(lines, ("its picture", "its mask", "sentence"), strict=True):
        assert words in reason


def test_a_mask_of_another_size(folder: Path) -> None:
    Image.fromarray(LEFT[:, :50]).save(folder / "left.png")
    data = _open(write_rows(folder / "table.csv", [_row()]))
    line = f"2: its mask {folder / 'left.png'} has 50 x 40 pixels and its picture 60 x 40; save both in one size"
    with pytest.raises(UsageError, match=f"^{re.escape(line)}$"):
        data[0]
    data = _open(write_rows(folder / "table.jsonl", [_row(plain_runs(LEFT[:, :50]))]))
    with pytest.raises(UsageError, match=r"^1: its mask has 50 x 40 pixels and its picture 60 x 40"):
        data[0]


def test_a_damaged_mask_is_named(folder: Path) -> None:
    (folder / "left.png").write_bytes((folder / "left.png").read_bytes()[:50])
    with pytest.raises(UsageError, match=r"^2: .*left.png is damaged or cut short"):
        _open(write_rows(folder / "table.csv", [_row()]))[0]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "", "is empty; its first row names the columns picture, mask, sentence"),
        ("t.csv", "picture,sentence\n", r"has no column for the mask \(mask, .*\); it has 'picture', 'sentence'"),
        ("t.csv", "image,picture,mask,text\n", "has the columns 'image' and 'picture', which both name the picture"),
        ("t.csv", "picture,mask,sentence,Mask\n", "has the columns 'mask' and 'Mask', which both name the mask"),
        ("t.csv", "picture,mask,sentence\na.png,left.png\n", r"row 2: it has 2 cells and not 3; put quotes around"),
        ("t.csv", 'picture,mask,sentence\na.png,left.png,"the\n', r"row 2, cannot be read \(unexpected end of data\)"),
        ("t.csv", "picture,mask,sentence\n", "has no usable rows: it has no rows"),
        ("t.csv", "x," * 2000, "has 2,001 columns; at most 1,000 are read"),
        ("t.jsonl", '{"picture": 1}\n', "t.jsonl, line 1, has no column for the mask"),
        ("t.jsonl", "\n{\n", "t.jsonl, line 2, is not JSON"),
        ("t.jsonl", "", "has no usable rows: it has no rows"),
        ("t.xlsx", "", "t.xlsx is not a table; pass a .csv, .tsv or .jsonl file"),
    ],
)  # fmt: skip
def test_tables_of_another_form(name: str, text: str, message: str, folder: Path) -> None:
    with pytest.raises(UsageError, match=message):
        _table(folder, text, name)


def test_a_table_in_utf16_is_refused(folder: Path) -> None:
    (folder / "t.csv").write_bytes("picture,mask,sentence\n".encode("utf-16"))
    with pytest.raises(UsageError, match="is UTF-16, as PowerShell writes; save it as UTF-8"):
        _open(folder / "t.csv")
