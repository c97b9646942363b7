"""What a segmenter's checkpoint is, by the names of its tensors or the type in its config."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from wise_edge.bundle.shipped import EMBEDDED, SEGMENTERS
from wise_edge.errors import UsageError
from wise_edge.files.documents import read_json
from wise_edge.sam.families import Family, describe_supported, list_forms
from wise_edge.sam.names import SHARED_POSITIONS
from wise_edge.sam.weights import list_first, read_weights

UNUSED = ("pixel_mean", "pixel_std", SHARED_POSITIONS)
"""Entries of complete checkpoints that are no weights of segment-anything."""

_PUBLISHED = (
    (r"sam_vit_(b_01ec64|l_0b3195|h_4b8939)\.pth", "dl.fbaipublicfiles.com/segment_anything"),
    (r"sam2_hiera_(tiny|small|base_plus|large)\.pt", "dl.fbaipublicfiles.com/segment_anything_2/072824"),
    (r"sam2\.1_hiera_(tiny|small|base_plus|large)\.pt", "dl.fbaipublicfiles.com/segment_anything_2/092824"),
    (r"mobile_sam\.pt", "github.com/ChaoningZhang/MobileSAM/raw/master/weights"),
    (r"efficientvit_sam_x?l[0-2]\.pt", "huggingface.co/mit-han-lab/efficientvit-sam/resolve/main"),
    (r"sam_hq_vit_(b|l|h|tiny)\.pth", "huggingface.co/lkeab/hq-sam/resolve/main"),
    (r"edgetam\.pt", "github.com/facebookresearch/EdgeTAM/raw/main/checkpoints"),
)
"""The authors' files, and where they lie; see https://github.com/facebookresearch/segment-anything#model-checkpoints,
https://github.com/facebookresearch/sam2#download-checkpoints, https://github.com/ChaoningZhang/MobileSAM,
https://github.com/mit-han-lab/efficientvit, https://github.com/SysCV/sam-hq#model-checkpoints and
https://github.com/facebookresearch/EdgeTAM."""
_HUB = r"(facebook/sam|yonigozlan/EdgeTAM|syscv-community/sam-hq|nielsr/slimsam|Zigeng/SlimSAM)[\w.-]*"
"""Names of folders on the hub in a form that is read."""
_FOREIGN_TYPES = {"sam3": "SAM 3 without its tracker"}
"""Beginning of a config's model_type to the kind of a model that is no segmenter alone."""
_FOREIGN_TENSORS = (
    (r"image_encoder\.features\.", "RepViT-SAM"),
    (r"prompt_encoder\.(invalid_points|bbox_)", "EfficientSAM"),
    (r"lora|linear_[ab]_[qv]|[Aa]dapter|prompt_generator", "a SAM with adapters beside its weights"),
)
"""Patterns of names that only a kind of model outside the table has."""
_WEIGHTS = (".pth", ".pt", ".safetensors", ".bin", ".ckpt")


class Kind(NamedTuple):
    """What a checkpoint is: its family, and the `Form.kind` in which it is."""

    family: Family
    form: str


def find_kind(checkpoint: Path) -> Kind:
    """Return what a checkpoint is.

    Args:
        checkpoint: a file or folder.

    Raises:
        UsageError: it is of no family or holds further weights; the message names what it is, and what to pass.
        MissingExtraError: torch, which reads files, is not installed.
    """
    if checkpoint.is_file():
        return _judge(checkpoint, read_weights(checkpoint))
    config = checkpoint / "config.json"
    if not config.is_file():
        raise UsageError(_describe_missing(checkpoint))
    model_type = str(read_json(config).get("model_type"))
    for family, form in list_forms():
        if model_type in form.types:
            return Kind(family, form.kind)
    foreign = (kind for start, kind in _FOREIGN_TYPES.items() if model_type.startswith(start))
    title = next(foreign, f"a model of type {model_type!r}")
    raise UsageError(f"{config} describes {title}; {describe_supported()}")


def _judge(file: Path, names: Iterable[str]) -> Kind:
    present = sorted(set(names) - set(UNUSED))

    def matches(pattern: str | None) -> bool:
        return pattern is not None and any(re.search(pattern, name) for name in present)

    for pattern, other in _FOREIGN_TENSORS:
        if matches(pattern):
            raise UsageError(f"{file} holds {other}, which is not supported; {describe_supported()}")
    found = next(((family, form) for family, form in list_forms() if matches(form.sign)), None)
    if found is None:
        raise UsageError(
            f"{file} holds another model than a segmenter (see {list_first(present)}); {describe_supported()}"
        )
    family, form = found
    if form.parts and (strange := [name for name in present if not name.startswith(form.parts)]):
        raise UsageError(
            f"{file} holds more than the weights of {family.title}: {list_first(strange)}; save the model's alone"
        )
    return Kind(family, form.kind)


def describe_missing_segmenter(path: Path) -> str:
    """Say of a path that does not exist what to pass, and of a published checkpoint how to get it."""
    for pattern, place in _PUBLISHED:
        if re.fullmatch(pattern, path.name):
            return f"{path} does not exist; download it: curl -L -o {path} https://{place}/{path.name}"
    if re.fullmatch(_HUB, str(path)):
        return f"there is no folder {path}; download it: hf download {path} --local-dir {path.name}"
    return f"{path} does not exist; pass a segmenter's checkpoint, or one of {', '.join((EMBEDDED, *SEGMENTERS))}"


def _describe_missing(folder: Path) -> str:
    """Say what is wrong with a path that is neither a file nor a folder with a config."""
    if not folder.exists():
        return describe_missing_segmenter(folder)
    if (folder / "bundle.json").is_file():
        return f"{folder} is a bundle; pass the segmenter's checkpoint that it was exported from"
    if files := sorted(file for file in folder.iterdir() if file.suffix in _WEIGHTS):
        return f"{folder} has no config.json; pass the file in it, for example {files[0]}"
    return f"{folder} is not a checkpoint: it has neither config.json nor weights; {describe_supported()}"
