"""Masks of everything in an image are those of segment-anything's own generator; boxes and points make masks, too."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_masks
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.utils import amg
from torchvision.ops import nms

from wise_edge import GridOptions, MaskPrompt, Segmenter, Session
from wise_edge.bundle.store import load, resolve_bundle, resolve_checkpoint
from wise_edge.errors import BundleError, UsageError
from wise_edge.metrics import mask_iou
from wise_edge.rle import mask_of_runs
from wise_edge.runtimes.mask.generated import GeneratedMasks
from wise_edge.runtimes.mask.grid import suppress
from wise_edge.runtimes.mask.regions import remove_small_regions
from wise_edge.sam.checkpoint import load_segmenter
from wise_edge.scenes import sample

EMBEDDED = resolve_checkpoint("embedded", "sam")
LENIENT = {"points_per_side": 8, "pred_iou_thresh": 0.7, "stability_score_thresh": 0.8}


def picture(index: int, size: tuple[int, int] = (224, 224)) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.fromarray(sample("test", index).scene.image).resize(size))


@pytest.fixture(scope="module")
def embedded() -> Segmenter:
    return Segmenter.from_bundle(mask_backend="onnx", threads=1)


@pytest.fixture(scope="module")
def of_three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded segmenter, whose three other masks are like its single one: they were not trained."""
    folder = tmp_path_factory.mktemp("of-three")
    shutil.copytree(EMBEDDED, folder, dirs_exist_ok=True)
    from safetensors.torch import load_file, save_file

    weights, random = load_file(folder / "model.safetensors"), torch.Generator().manual_seed(0)
    tokens = weights["mask_decoder.mask_tokens.weight"]
    tokens[1:] = tokens[:1] + 0.5 * tokens[:1].std() * torch.randn(tokens[1:].shape, generator=random)
    for name in list(weights):
        if (first := name.replace("hypernetworks_mlps.1.", "hypernetworks_mlps.0.")) != name:
            for number in (1, 2, 3):
                weights[name.replace("mlps.1.", f"mlps.{number}.")] = weights[first].clone()
        if "iou_prediction_head.layers.2" in name:
            weights[name][1:] = weights[name][:1]
    save_file(weights, folder / "model.safetensors")
    return folder


def ask_original(sam: Any, image: npt.NDArray[np.uint8], single: bool, **options: Any) -> list[dict[str, Any]]:
    """Return the records of segment-anything's generator that have a pixel; it asks for three masks of each point."""
    generator = SamAutomaticMaskGenerator(sam, **options)
    if single:
        predict = generator.predictor.predict_torch

        def predict_one(*points: Any, multimask_output: bool, **rest: Any) -> Any:
            return predict(*points, multimask_output=False, **rest)

        generator.predictor.predict_torch = predict_one
    return [record for record in generator.generate(image) if record["area"]]


def assert_same(ours: GeneratedMasks, stock: list[dict[str, Any]], least: int) -> None:
    assert len(ours.masks) == len(stock) >= least
    for got, record in zip(ours.masks, stock, strict=True):
        assert got.point_coords == (tuple(record["point_coords"][0]),)
        assert list(got.crop_box) == record["crop_box"]
        assert got.predicted_iou == pytest.approx(record["predicted_iou"], abs=1e-4)
        assert np.count_nonzero(got.mask != record["segmentation"]) <= 1  # a logit of 0 but for rounding
        assert got.stability_score == pytest.approx(record["stability_score"], abs=3 / record["area"])
        assert abs(got.area - record["area"]) <= 1
        # segment-anything's box ends at the last pixel, pycocotools' after it
        assert got.bbox == tuple(coco_masks.toBbox(got.segmentation))
        assert np.abs(np.subtract(got.bbox, record["bbox"]) - (0, 0, 1, 1)).max() <= 1


SIZES = ((224, 224), (300, 200), (130, 260))
SETTINGS: list[dict[str, Any]] = [
    {"points_per_side": 12, "stability_score_thresh": 0.8},
    LENIENT | {"stability_score_thresh": 0.6, "points_per_batch": 5, "box_nms_thresh": 0.95},
    LENIENT | {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 0.9},
    LENIENT | {"points_per_side": 6, "crop_n_layers": 1, "crop_overlap_ratio": 0.2, "crop_nms_thresh": 0.5},
    LENIENT
    | {"points_per_side": 10, "crop_n_layers": 1, "crop_n_points_downscale_factor": 2, "min_mask_region_area": 150},
]


@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_single_masks_are_those_of_segment_anything(embedded: Segmenter, number: int) -> None:
    image, options = picture(3 if number == 0 else number, SIZES[number % 3]), SETTINGS[number]
    stock = ask_original(load_segmenter(EMBEDDED), image, True, **options)
    for segmenter in (embedded, Segmenter.from_checkpoint(EMBEDDED)):
        assert_same(segmenter.generate(image, GridOptions(**options)), stock, least=3)


@pytest.mark.parametrize("number", (1, 3))
def test_three_masks_of_a_point_are_those_of_segment_anything(of_three: Path, number: int) -> None:
    image, options = picture(number + 10, (300, 200)), SETTINGS[number] | {"box_nms_thresh": 0.99}
    stock = ask_original(load_segmenter(of_three), image, False, **options)

    ours = Segmenter.from_checkpoint(of_three).generate(image, GridOptions(**options, multimask=True))

    assert_same(ours, stock, least=5)
    assert ours.made == 3 * options["points_per_side"] ** 2 * (5 if number == 3 else 1)
    if number == 1:
        assert len({each.point_coords for each in ours.masks}) < len(ours.masks)


def test_what_is_dropped_is_counted(embedded: Segmenter) -> None:
    options, points = GridOptions(points_per_side=6, stability_score_thresh=0.9), [0]
    result = embedded.generate(picture(0), options, lambda: points.append(1))

    assert sum(points) == options.total((224, 224)) == 36
    assert GridOptions(6, crop_n_layers=1, crop_n_points_downscale_factor=2).total((224, 224)) == 36 + 4 * 9

    assert result.made == 36 == len(result.masks) + sum(result.dropped.values())
    assert result.dropped.keys() <= {"pred_iou_thresh", "stability_score_thresh", "box_nms_thresh", "empty"}
    assert result.best["predicted_iou"] >= max(each.predicted_iou for each in result.masks)
    nothing = embedded.generate(picture(0), GridOptions(points_per_side=2, pred_iou_thresh=1))
    assert (nothing.masks, nothing.dropped) == ((), {"pred_iou_thresh": 4})
    assert 0 < nothing.best["predicted_iou"] < 1


def test_prompts_make_the_masks_of_a_session(embedded: Segmenter) -> None:
    session, image = Session.from_bundle(mask_backend="onnx", threads=1), picture(4, (300, 200))
    prompts = [
        MaskPrompt((20, 30, 150, 160)),
        MaskPrompt((60, 30, 190, 160), ((100, 90),)),
        MaskPrompt(points=((100, 90), (110, 95))),
        *(MaskPrompt(points=((x, 70), (x, 90))[: 1 + x % 2]) for x in range(20, 280, 13)),
    ]

    result = embedded.segment(image, prompts)

    expected = session.find_masks(image, prompts)
    assert len(result.masks) == len(prompts)
    for got, prompt, output in zip(result.masks, prompts, expected, strict=True):
        np.testing.assert_array_equal(got.mask, output.mask)
        assert (got.predicted_iou, got.box) == (output.score, prompt.box)
        assert got.point_coords == prompt.points
        assert got.area == np.count_nonzero(output.mask)
    assert session.segmenter.segment(image, []).masks == ()


def test_other_tools_read_the_masks(embedded: Segmenter) -> None:
    result = embedded.generate(picture(0), GridOptions(**LENIENT))
    document = result.to_coco("a.jpg")
    assert [entry["file_name"] for entry in document["images"]] == ["a.jpg"]
    assert [entry["name"] for entry in document["categories"]] == ["object"]
    for got, entry in zip(result.masks, document["annotations"], strict=True):
        np.testing.assert_array_equal(mask_of_runs(entry["segmentation"]), got.mask)
        assert entry["area"] == coco_masks.area(entry["segmentation"]) == np.count_nonzero(got.mask)
        assert list(entry["bbox"]) == coco_masks.toBbox(entry["segmentation"]).tolist()
        assert entry["score"] == entry["predicted_iou"] == got.predicted_iou


def test_an_overlay_shows_each_mask_above_larger_ones(embedded: Segmenter) -> None:
    image = picture(0)
    result = embedded.generate(image, GridOptions(**LENIENT))
    drawn = result.overlay(image)
    union = np.any([each.mask for each in result.masks], axis=0)
    np.testing.assert_array_equal((drawn != image).any(axis=2), union)
    smallest = min(result.masks, key=lambda each: each.area).mask
    assert len(np.unique((drawn.astype(int) - image * (5 / 9))[smallest].round(-1), axis=0)) < 12  # a tint and a line
    with pytest.raises(UsageError, match="the masks are of an image of 224 x 224, got 30 x 20"):
        result.overlay(picture(0, (30, 20)))


def test_the_policy_is_not_read(tmp_path: Path) -> None:
    shutil.copytree(resolve_bundle(None), tmp_path / "bundle")
    bundle = load(tmp_path / "bundle")
    for artifact in bundle.manifest.artifacts:
        if artifact.role.startswith("policy."):
            (bundle.directory / artifact.path).write_bytes(bytes(artifact.bytes))

    assert len(Segmenter.from_bundle(bundle).segment(picture(0), [MaskPrompt(points=((40, 40),))]).masks) == 1

    encoder = bundle.file("sam.encoder")
    encoder.write_bytes(bytes(encoder.stat().st_size))
    with pytest.raises(BundleError, match=r"sam.encoder.onnx was altered"):
        Segmenter.from_bundle(bundle)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"points_per_side": 0}, "points_per_side must be from 1 to 256, got int 0"),
        ({"points_per_side": 2.5}, "points_per_side must be from 1 to 256"),
        ({"pred_iou_thresh": float("nan")}, "pred_iou_thresh must be from 0 to 1, got float nan"),
        ({"stability_score_thresh": 1.5}, "stability_score_thresh must be from 0 to 1"),
        ({"box_nms_thresh": "0.7"}, "box_nms_thresh must be from 0 to 1, got str '0.7'"),
        ({"crop_n_layers": 9}, "crop_n_layers must be from 0 to 4"),
        ({"min_mask_region_area": -1}, "min_mask_region_area must be from 0 to 25,000,000"),
        ({"multimask": 3}, "multimask must be True, False or None"),
        (
            {"points_per_side": 4, "crop_n_layers": 3, "crop_n_points_downscale_factor": 2},
            "layer 3 of crops has no points: 4 points per side are divided by 2 at each layer",
        ),
    ],
)
def test_options_out_of_range_are_one_line(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        GridOptions(**options)


def test_wrong_pictures_and_prompts_are_one_line(embedded: Segmenter) -> None:
    with pytest.raises(UsageError, match="the image of 2 x 2 pixels is too small for 2 layers of crops"):
        embedded.generate(np.zeros((2, 2, 3), np.uint8), GridOptions(crop_n_layers=2))
    with pytest.raises(UsageError, match="a prompt needs a box, or a point inside the object"):
        MaskPrompt()
    with pytest.raises(UsageError, match=r"the point \(300, 4\) is outside the image, which is 224 x 224"):
        embedded.segment(picture(0), [MaskPrompt(points=((300, 4),))])
    with pytest.raises(UsageError, match=r"the box \(300, 4, 310, 9\) is outside"):
        embedded.segment(picture(0), [MaskPrompt((300, 4, 310, 9))])
    assert embedded.generate(np.zeros((1, 1, 3), np.uint8), GridOptions(points_per_side=2)).image_size == (1, 1)


@pytest.mark.parametrize("size", [(640, 480), (31, 97), (8, 8), (1920, 1080)])
@pytest.mark.parametrize(
    ("layers", "overlap", "factor"), [(0, 512 / 1500, 1), (2, 512 / 1500, 2), (2, 0.0, 3), (1, 0.9, 1)]
)
def test_crops_and_points_are_those_of_segment_anything(
    size: tuple[int, int], layers: int, overlap: float, factor: int
) -> None:
    options = GridOptions(crop_n_layers=layers, crop_overlap_ratio=overlap, crop_n_points_downscale_factor=factor)
    boxes, of_layers = amg.generate_crop_boxes(size[::-1], layers, overlap)
    assert options.crops(size) == [(layer, tuple(box)) for layer, box in zip(of_layers, boxes, strict=True)]
    for layer, grid in enumerate(amg.build_all_layer_point_grids(32, layers, factor)):
        np.testing.assert_array_equal(options.points(layer, size), grid * np.array(size))


@given(
    st.lists(st.tuples(*[st.integers(0, 12)] * 4, st.integers(0, 3)), max_size=40),
    st.sampled_from([0.0, 0.3, 0.7, 1.0]),
)
def test_boxes_are_suppressed_as_by_torchvision(drawn: list[tuple[int, ...]], most: float) -> None:
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h, _ in drawn], np.float32).reshape(-1, 4)
    scores = np.array([score / 3 for *_, score in drawn], np.float32)
    expected = nms(torch.from_numpy(boxes), torch.from_numpy(scores), most)
    assert suppress(boxes, scores, most).tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(6))
def test_small_regions_are_removed_as_by_opencv(seed: int) -> None:
    pytest.importorskip("cv2")
    rng = np.random.default_rng(seed)
    coarse = rng.random((9, 13)) < (0.3, 0.5, 0.7)[seed % 3]
    mask = np.kron(coarse, np.ones((5, 7), bool)) ^ (rng.random((45, 91)) < 0.02)
    for least in (2, 40, 400, 10_000):
        expected, by_holes = amg.remove_small_regions(mask, least, "holes")
        expected, by_islands = amg.remove_small_regions(expected, least, "islands")
        ours = mask.copy()
        assert remove_small_regions(ours, least) == (by_holes or by_islands)
        np.testing.assert_array_equal(ours, expected)


def test_batches_make_the_same_masks(embedded: Segmenter) -> None:
    generate = partial(embedded.generate, picture(3))
    few, many = (generate(GridOptions(**LENIENT, points_per_batch=size)) for size in (3, 64))
    assert len(few.masks) == len(many.masks) > 2
    assert all(mask_iou(a.mask, b.mask) == 1 for a, b in zip(few.masks, many.masks, strict=True))
