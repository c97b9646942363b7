"""Loaders of data: images, labeled data sets in all their forms, plain pickles, queries beside images."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet  # noqa: F401 - warm, before the fork
import pycocotools.mask  # noqa: F401
from oracle import Fault
from PIL import Image
from workers import Loader

from dataset_files import mask_rows, write_grefcoco, write_parquet, write_reasonseg, write_refcoco, write_refcocog_2k
from own_files import TOOLS, write_coco, write_table
from wise_edge.datasets import open_dataset
from wise_edge.datasets.coco_masks import read_segmentation
from wise_edge.datasets.labeled_tables import read_objects
from wise_edge.datasets.plain_pickle import load_plain_pickle
from wise_edge.errors import UsageError
from wise_edge.export.source.calibration import read_calibration
from wise_edge.images import load_image
from wise_edge.images.depth import StreamDepth
from wise_edge.images.sources import find_images
from wise_edge.profiling.own_images import read_images

_PIXELS = np.random.default_rng(0).integers(0, 256, (24, 31, 3), np.uint8)
_GRAY = _PIXELS[..., 0]
_DEEP = (_GRAY.astype(np.uint16) << 4) + 3


def _write_images(folder: Path) -> None:
    """Write an image in each format and kind of pixel, as people have them."""
    color, gray = Image.fromarray(_PIXELS), Image.fromarray(_GRAY)
    for name in ("a.png", "a.jpg", "a.bmp", "a.webp", "a.tiff", "a.gif", "a.ppm"):
        color.save(folder / name)
    exif = Image.Exif()
    exif[0x0112] = 6
    color.save(folder / "turned.jpg", exif=exif)
    color.convert("CMYK").save(folder / "cmyk.jpg")
    color.convert("P").save(folder / "palette.png")
    gray.convert("1").save(folder / "bits.png")
    color.convert("RGBA").save(folder / "alpha.png")
    gray.convert("LA").save(folder / "gray-alpha.png")
    for name in ("deep.png", "deep.tiff", "deep.pgm"):
        Image.fromarray(_DEEP).save(folder / name)
    color.save(folder / "packed.tiff", compression="tiff_lzw")
    color.save(folder / "deflated.tiff", compression="tiff_adobe_deflate")
    color.save(folder / "moving.gif", save_all=True, append_images=[color.rotate(90), gray.convert("RGB")])
    color.save(folder / "moving.webp", save_all=True, append_images=[color.rotate(180)])
    color.save(folder / "progressive.jpg", progressive=True, quality=70)


def _read_images(folder: Path) -> None:
    refused = None
    for file in sorted(folder.iterdir()):
        try:
            pixels = load_image(file)
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
                raise Fault(f"pixels {pixels.dtype} {pixels.shape}")
            load_image(file.read_bytes(), upright=False, stream=StreamDepth())
        except UsageError as error:
            refused = error
    if refused is not None:
        raise refused


def _read_all(name: str, folder: Path, split: str) -> None:
    """Read every example of a data set; those that cannot be read are refused one by one."""
    data = open_dataset(name, folder, split)
    refused = None
    for index in range(min(len(data), 20)):
        try:
            example = data[index]
            if example.mask is not None and example.mask.shape != example.image.shape[:2]:
                raise Fault("a mask of another size")
        except UsageError as error:
            refused = error
    if refused is not None:
        raise refused


def _read_own_files(name: str, pattern: str, folder: Path) -> None:
    """Read every file of a pattern as one's own data; some are refused."""
    refused = None
    for file in sorted(folder.rglob(pattern)):
        try:
            _read_all(name, file, "")
        except UsageError as error:
            refused = error
    if refused is not None:
        raise refused


def _write_coco_of_each_tool(folder: Path) -> None:
    for tool in TOOLS:
        write_coco(folder / tool, tool, 2)


def _write_tables(folder: Path) -> None:
    for suffix in (".csv", ".tsv", ".jsonl"):
        write_table(folder / suffix[1:], 2, suffix)
    runs = json.loads((folder / "jsonl" / "table.jsonl").read_text().splitlines()[0])
    runs["mask"] = {"size": [224, 224], "counts": [1000, 500, 224 * 224 - 1500]}
    (folder / "jsonl" / "runs.jsonl").write_text(json.dumps(runs) + "\n")


def _write_mask_files(folder: Path) -> None:
    gray = Image.fromarray((_GRAY > 128).astype(np.uint8) * 255)
    forms = {"gray.png": gray, "bits.png": gray.convert("1"), "palette.png": gray.convert("P"), "a.tiff": gray}
    forms |= {"alpha.png": gray.convert("RGBA"), "la.png": gray.convert("LA"), "deep.png": Image.fromarray(_DEEP)}
    lines = ["picture,mask,sentence"]
    Image.fromarray(_PIXELS).save(folder / "picture.bmp")
    for name, image in forms.items():
        image.save(folder / name)
        lines.append(f"picture.bmp,{name},mask of {name}")
    (folder / "table.csv").write_text("\n".join(lines))


def _write_pickle(folder: Path) -> None:
    refs = [
        {"ref_id": 1, "ann_id": 7, "split": "val", "sentences": [{"sent": "the mug", "tokens": ["the", "mug"]}]},
        {"area": 1.5, "ids": [1, 2, None, True], "name": "\u00e9" * 20},
    ]
    for protocol in (0, 2, 4):
        (folder / f"refs{protocol}.p").write_bytes(pickle.dumps(refs, protocol=protocol))


def _write_saved_table(folder: Path) -> None:
    import datasets

    rows = mask_rows(3)
    datasets.Dataset.from_list(rows).save_to_disk(str(folder / "ReasonSeg_test"))


def _write_calibration(folder: Path) -> None:
    Image.fromarray(_PIXELS).save(folder / "a.png")
    (folder / "a.txt").write_text("the mug\nthe bowl left of it\n")


def _read_own(folder: Path) -> None:
    read_calibration(folder, 4)
    (folder / "a.txt").write_bytes((folder / "a.txt").read_bytes().split(b"\n")[0])
    read_images(find_images(folder), None)


def _read_segmentation(folder: Path) -> None:
    for name in ("polygons.json", "runs.json"):
        try:
            raw = json.loads((folder / name).read_text())
        except (ValueError, RecursionError):
            continue
        try:
            read_segmentation(raw, (31, 24)).paint()
        except ValueError as error:
            raise UsageError(str(error)[:200]) from error  # its callers say where


def _write_segmentation(folder: Path) -> None:
    (folder / "polygons.json").write_text(json.dumps([[1, 1, 20, 1, 20, 12.5, 1, 12], [3, 3, 4, 9, 8, 8]]))
    (folder / "runs.json").write_text(json.dumps({"size": [24, 31], "counts": [10, 20, 24 * 31 - 30]}))


def _read_solution(folder: Path) -> None:
    try:
        read_objects((folder / "solution.txt").read_bytes().decode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise UsageError(str(error)[:200]) from error  # its caller says which row


LOADERS = (
    Loader("image", _write_images, _read_images, "*", share=6.0),
    Loader(
        "ReasonSeg",
        lambda f: write_reasonseg(f / "val", 2),
        lambda f: _read_all("reasonseg", f, "val"),
        "*.json",
        share=3.0,
    ),
    Loader(
        "ReasonSeg images",
        lambda f: write_reasonseg(f / "val", 1),
        lambda f: _read_all("reasonseg", f, "val"),
        "*.jpg",
        share=2.0,
    ),
    Loader(
        "RefCOCO", lambda f: write_refcoco(f, 3), lambda f: _read_all("refcoco", f, "testA"), "refcoco/*", share=3.0
    ),
    Loader(
        "gRefCOCO", lambda f: write_grefcoco(f, 3), lambda f: _read_all("grefcoco", f, "val"), "grefcoco/*", share=3.0
    ),
    Loader("own COCO", _write_coco_of_each_tool, lambda f: _read_own_files("coco", "*.json", f), "*.json", share=3.0),
    Loader("own tables", _write_tables, lambda f: _read_own_files("table", "*.[ctj]*", f), "*.[ctj]*", share=3.0),
    Loader("mask files", _write_mask_files, lambda f: _read_own_files("table", "*.csv", f), "*.png", share=3.0),
    Loader(
        "training table",
        lambda f: write_refcocog_2k(f, "train", 2),
        lambda f: _read_all("refcocog-2k", f, "train"),
        "*.parquet",
        share=0.3,
    ),
    Loader(
        "table with masks",
        lambda f: write_parquet(f / "test-0.parquet", mask_rows(2)),
        lambda f: _read_all("reasonseg", f, "test"),
        "*.parquet",
        share=2.0,
    ),
    Loader("saved table", _write_saved_table, lambda f: _read_all("reasonseg", f, "test"), "*", share=2.0),
    Loader(
        "plain pickle",
        _write_pickle,
        lambda f: [load_plain_pickle(file) for file in sorted(f.glob("*.p"))],
        "*.p",
        share=6.0,
    ),
    Loader("segmentation", _write_segmentation, _read_segmentation, "*.json", share=4.0),
    Loader(
        "solution",
        lambda f: (f / "solution.txt").write_text("<box>(1,2),(30,40)</box><points>(3,4),(5,6)</points>"),
        _read_solution,
        share=1.0,
    ),
    Loader(
        "solution of several",
        lambda f: (f / "solution.txt").write_text('[{"bbox_2d": [1, 2, 30, 40], "point_2d": [3, 4]}]'),
        _read_solution,
        share=1.0,
    ),
    Loader("calibration and own images", _write_calibration, _read_own, "*", share=3.0),
)
