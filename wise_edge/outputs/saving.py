"""A result as the content of a file, of the kind that its name's suffix or a word says."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from wise_edge.errors import UsageError
from wise_edge.files.documents import to_json
from wise_edge.images import encode_image
from wise_edge.outputs.outlines import to_svg
from wise_edge.outputs.pictures import cut_out
from wise_edge.runtimes.results import SegmentationResult

Kind = Literal["json", "coco", "outlines", "overlay", "mask", "cutout"]
SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "json": (".json",),
    "coco": (".json",),
    "outlines": (".svg",),
    "overlay": (".png", ".jpg", ".jpeg"),
    "mask": (".png",),
    "cutout": (".png",),
}
"""Of the files of each kind; a suffix without a kind means the first one that has it."""


def kind_of(path: str | Path, kind: Kind | None = None) -> Kind:
    """Return what a file will hold: `kind` if its suffix fits, else what the suffix means.

    Raises:
        UsageError: the suffix means nothing, or does not fit.
    """
    suffix = Path(path).suffix.lower()
    if kind is not None and kind not in get_args(Kind):
        raise UsageError(f"unknown kind of output {kind!r}; known: {', '.join(get_args(Kind))}")
    kinds = [each for each in (SUFFIXES if kind is None else (kind,)) if suffix in SUFFIXES[each]]
    if not kinds:
        known = dict.fromkeys(suffix for each in ([kind] if kind else SUFFIXES) for suffix in SUFFIXES[each])
        written = "a result is written" if kind is None else f"the kind {kind} is written"
        raise UsageError(f"{path}: {written} to files that end in {', '.join(known)}")
    return kinds[0]


def encode_result(
    result: SegmentationResult, image: npt.NDArray[np.uint8] | None, kind: Kind, suffix: str, file_name: str | Path
) -> bytes:
    """Return the content of a file.

    Args:
        result: what to write.
        image: HWC uint8 RGB, for overlays and cut-outs; None takes the one that the result holds.
        kind: what the file holds.
        suffix: of the file.
        file_name: of the image, for COCO.

    Raises:
        UsageError: there is no image; or a mask or cut-out is asked for of a result without an answer.
    """
    mask = result.mask
    if mask is None and kind in ("mask", "cutout"):
        raise UsageError(f"there is no {kind}, since there is no answer: {result.reason}")
    if kind == "json":
        return f"{to_json(result.to_dict())}\n".encode()
    if kind == "coco":
        return f"{to_json(result.to_coco(file_name))}\n".encode()
    if kind == "outlines":
        return to_svg(result).encode()
    if kind == "mask":
        return encode_image(result.mask_image())
    if kind == "cutout" and mask is not None:
        return encode_image(cut_out(mask, result.require_image(image)))
    return encode_image(result.overlay(image), suffix)
