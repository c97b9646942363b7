"""`wise-edge masks`: masks of everything in pictures, or of given boxes and points, without a policy."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wise_edge.cli import options
from wise_edge.cli.options import option
from wise_edge.errors import UsageError, WiseEdgeError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from wise_edge.outputs.saving import Kind
    from wise_edge.runtimes.mask.generated import GeneratedMasks

KINDS: tuple[Kind, ...] = ("overlay", "json", "coco")
_GRID, _CROPS = "Grid", "Crops"
_BUNDLE = ("bundle", "mask_backend", "threads")
_GIVEN = ("pictures", "box", "point", "sam", *_BUNDLE, "out", "save", "overlay", "as_json", "force")


def masks(
    context: typer.Context,
    pictures: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="Pictures: files, folders, patterns in quotes ('photos/**/*.jpg'), - for one from standard input, or "
            "@FILE for a list of paths (@- from standard input).",
        ),
    ],
    box: Annotated[
        list[str] | None,
        option(
            "X1,Y1,X2,Y2",
            "Segment what this box is around, in pixels, instead of everything; once for each object.",
            panel=options.ASKED,
        ),
    ] = None,
    point: Annotated[
        list[str] | None,
        option(
            "X,Y[,X,Y...]",
            "Segment what these points are inside of, instead of everything; once for each object.",
            panel=options.ASKED,
        ),
    ] = None,
    bundle: options.Bundle = None,
    sam: Annotated[
        str | None,
        option("CKPT", "Segmenter's checkpoint to run with torch instead of a bundle.", panel=options.MODEL),
    ] = None,
    mask_backend: options.MaskBackend = "auto",
    threads: options.Threads = None,
    points_per_side: Annotated[int, option("N", "Points along each side of a picture.", panel=_GRID)] = 32,
    points_per_batch: Annotated[
        int, option("N", "Prompt at most N points at once; a decoder takes 16 at most.", panel=_GRID)
    ] = 64,
    pred_iou_thresh: Annotated[
        float, option("T", "Drop masks whose IoU the segmenter predicts to be T or less.", panel=_GRID)
    ] = 0.88,
    stability_score_thresh: Annotated[
        float,
        option("T", "Drop masks whose IoU at two thresholds of their logits is below T.", panel=_GRID),
    ] = 0.95,
    stability_score_offset: Annotated[
        float, option("X", "How far these thresholds are from the usual one.", panel=_GRID)
    ] = 1.0,
    box_nms_thresh: Annotated[
        float, option("T", "Of masks whose boxes have an IoU above T, keep the best one.", panel=_GRID)
    ] = 0.7,
    min_mask_region_area: Annotated[
        int, option("PX", "Remove holes and islands of fewer pixels from masks.", panel=_GRID)
    ] = 0,
    multimask: Annotated[
        bool | None,
        options.flag(
            "--multimask/--single-mask",
            "Take a decoder's three masks of each point, or its single one; by default what it was trained for.",
            panel=_GRID,
        ),
    ] = None,
    crop_n_layers: Annotated[
        int, option("N", "Search crops, too, for small objects: 4 in layer 1, 16 in layer 2, ...", panel=_CROPS)
    ] = 0,
    crop_nms_thresh: Annotated[float, option("T", "As --box-nms-thresh, between crops.", panel=_CROPS)] = 0.7,
    crop_overlap_ratio: Annotated[
        float, option("S", "How far crops of layer 1 overlap, as a share of the shorter side.", panel=_CROPS)
    ] = 512 / 1500,
    crop_n_points_downscale_factor: Annotated[
        int, option("N", "Divide the points along a side by N from each layer to the next.", panel=_CROPS)
    ] = 1,
    overlay: Annotated[
        Path | None, option("FILE", "Write the picture with the masks drawn in: .png or .jpg.", panel=options.OUTPUT)
    ] = None,
    out: options.OutFolder = None,
    save: Annotated[str | None, options.kinds_to_save(KINDS)] = None,
    as_json: Annotated[
        bool, options.flag("--json", "Print one line of JSON per picture instead of text.", panel=options.OUTPUT)
    ] = False,
    force: options.Force = False,
) -> None:
    """Segment everything in pictures, or what boxes and points mark. No policy is opened.

    A grid of points prompts it; masks of a good predicted IoU and stability are kept, of those that overlap the best
    one. Names and defaults are those of segment-anything's SamAutomaticMaskGenerator.
    """
    from wise_edge.bundle.shipped import SEGMENTERS, SHIPPED
    from wise_edge.bundle.store import load, resolve_bundle, resolve_checkpoint
    from wise_edge.cli.common.pictures import check_files, open_pictures, plan_files
    from wise_edge.cli.output.masks import MaskResults
    from wise_edge.cli.output.progress import counting
    from wise_edge.images.sources import find_pictures
    from wise_edge.runtimes.base import MaskPrompt
    from wise_edge.runtimes.mask.grid import GridOptions
    from wise_edge.runtimes.segmenter import Segmenter
    from wise_edge.scenes.recognition import OTHER_PICTURE, is_scene_like

    given: dict[str, Any] = {field.name: context.params[field.name] for field in fields(GridOptions)}
    try:
        grid = GridOptions(**given)
    except UsageError as error:
        name, *rest = str(error).split(" ", 1)
        raise UsageError(" ".join([f"--{name.replace('_', '-')}" if name in given else name, *rest])) from error
    prompts = [MaskPrompt(_split("--box", each, 4)) for each in box or ()]
    prompts += [MaskPrompt(points=_pairs(_split("--point", each))) for each in point or ()]
    if prompts:
        options.refuse_options(context, but=_GIVEN, command=f"masks {'--box' if box else '--point'}")
    if sam is not None:
        options.refuse_options(context, but=[*(set(context.params) - set(_BUNDLE))], command="masks --sam")
    found = find_pictures(pictures)
    loaded = load(resolve_bundle(bundle)) if sam is None else None
    checkpoint = None if sam is None else resolve_checkpoint(sam, "sam")
    files, coco = plan_files(found, {"overlay": overlay}, out, save, KINDS)
    targets = [file for planned in files for _, file in planned] + ([coco] if coco else [])
    check_files(targets, out, found, [checkpoint] if loaded is None else loaded.files, force)
    readings = open_pictures(found, out, loaded)
    if checkpoint is None:
        segmenter = Segmenter.from_bundle(loaded, mask_backend=mask_backend, threads=threads)
    else:
        segmenter = Segmenter.from_checkpoint(checkpoint)
    judged = (loaded.manifest.provenance.get("sam") if loaded else sam) in (*SHIPPED, *SEGMENTERS)
    results = MaskResults(len(found), coco, as_json, force)

    def make(image: npt.NDArray[np.uint8]) -> GeneratedMasks:
        if prompts:
            return segmenter.segment(image, prompts)
        points = grid.total((image.shape[1], image.shape[0]))
        with counting("points", points, here=len(found) == 1) as count_point:
            return segmenter.generate(image, grid, count_point)

    with counting("pictures", len(found)) as count, results:
        for picture, image, wanted in zip(found, readings, files, strict=True):
            if isinstance(image, UsageError):
                results.skip(image)
            else:
                try:
                    results.add(picture, image, make(image), wanted)
                except UsageError as error:
                    if len(found) == 1:
                        raise
                    results.skip(UsageError(f"{picture}: {error}"))
                if judged and not is_scene_like(image):
                    options.note(OTHER_PICTURE)
                    judged = False  # once is enough
            count()
    if results.skipped:
        raise WiseEdgeError(f"{results.skipped} of {len(found)} pictures could not be segmented; each is named above")


def _split(option: str, text: str, count: int | None = None) -> tuple[Any, ...]:
    """Return the numbers of a box, or of any number of points."""
    try:
        numbers = tuple(int(part) if part.strip().lstrip("+-").isdigit() else float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or len(numbers) % 2 or count not in (None, len(numbers)):
        form = "X1,Y1,X2,Y2, such as 40,60,200,180" if count else "X,Y, such as 40,60"
        raise UsageError(f"{option} is {text[:80]!r}; pass pixels of the picture as {form}")
    return numbers


def _pairs(numbers: tuple[Any, ...]) -> tuple[tuple[Any, Any], ...]:
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))
