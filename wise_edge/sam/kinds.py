"""What a segmenter's checkpoint is, by the names of its tensors or the type in its config."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from wise_edge.errors import UsageError
from wise_edge.files.documents import read_json
from wise_edge.sam.names import SHARED_POSITIONS, VIDEO_PARTS
from wise_edge.sam.weights import SUPPORTED, read_weights

OWN, SAM_FILE, SAM_MODEL, SAM2_FILE, SAM2_MODEL = "own", "segment-anything", "SamModel", "SAM 2", "Sam2Model"
"""A folder of this project; a file with segment-anything's names; a folder or file with the names of transformers'
class for it; the same for SAM 2."""
UNUSED = ("pixel_mean", "pixel_std", SHARED_POSITIONS)
"""Entries of complete checkpoints that are no weights of segment-anything."""

_MODEL_TYPES = {"segment_anything": OWN, "sam": SAM_MODEL, "sam2": SAM2_MODEL, "sam2_video": SAM2_MODEL}
_PUBLISHED = (
    (r"sam_vit_(b_01ec64|l_0b3195|h_4b8939)\.pth", "segment_anything"),
    (r"sam2_hiera_(tiny|small|base_plus|large)\.pt", "segment_anything_2/072824"),
    (r"sam2\.1_hiera_(tiny|small|base_plus|large)\.pt", "segment_anything_2/092824"),
)
"""Meta's files, and where they lie; see https://github.com/facebookresearch/segment-anything#model-checkpoints and
https://github.com/facebookresearch/sam2#download-checkpoints."""
_FOREIGN_TYPES = {"sam_hq": "HQ-SAM", "sam3": "SAM 3", "edgetam": "EdgeTAM"}
"""Beginning of a config's model_type to the kind."""
_OWN_TENSORS = {
    SAM_FILE: ("image_encoder.", "prompt_encoder.", "mask_decoder."),
    SAM_MODEL: ("vision_encoder.", "prompt_encoder.", "mask_decoder."),
    SAM2_FILE: ("image_encoder.", "sam_prompt_encoder.", "sam_mask_decoder.", "no_mem_embed", *VIDEO_PARTS),
    SAM2_MODEL: ("vision_encoder.", "prompt_encoder.", "mask_decoder.", "no_memory_embedding"),
}
_KNOWN_BY = {
    SAM2_FILE: ("image_encoder.trunk.", "sam_mask_decoder."),
    SAM2_MODEL: ("vision_encoder.backbone.",),
    SAM_MODEL: ("vision_encoder.",),
    SAM_FILE: ("image_encoder.patch_embed.", "image_encoder.blocks."),
}
"""How names begin that no kind behind it has; whether a checkpoint is complete is seen when it is loaded."""
_FOREIGN_TENSORS = (
    (r"mask_decoder\.(hf_|hq_|compress_vit)", "HQ-SAM"),
    (r"(^|\.)(detector|detector_model|tracker|tracker_model)\.|vision_encoder\.backbone\.embeddings\.", "SAM 3"),
    (r"image_encoder\.trunk\.body\.|timm_model|spatial_perceiver", "EdgeTAM"),
    (r"image_encoder\.patch_embed\.seq\.", "MobileSAM"),
    (r"image_encoder\.backbone\.", "EfficientViT-SAM"),
    (r"image_encoder\.features\.", "RepViT-SAM"),
    (r"prompt_encoder\.(invalid_points|bbox_)", "EfficientSAM"),
    (r"lora|linear_[ab]_[qv]|[Aa]dapter|prompt_generator", "a SAM with adapters beside its weights"),
)
"""Patterns of names that only another kind of model has."""
_WEIGHTS = (".pth", ".pt", ".safetensors", ".bin", ".ckpt")


def find_kind(checkpoint: Path) -> str:
    """Return what a checkpoint is: `OWN`, `SAM_FILE`, `SAM_MODEL`, `SAM2_FILE` or `SAM2_MODEL`.

    Args:
        checkpoint: a file or folder.

    Raises:
        UsageError: it is none of them or holds further weights; the message names what it is, and what to pass.
        MissingExtraError: torch, which reads files, is not installed.
    """
    if checkpoint.is_file():
        return _judge(checkpoint, read_weights(checkpoint))
    config = checkpoint / "config.json"
    if not config.is_file():
        raise UsageError(_describe_missing(checkpoint))
    model_type = str(read_json(config).get("model_type"))
    if model_type in _MODEL_TYPES:
        return _MODEL_TYPES[model_type]
    known = (kind for start, kind in _FOREIGN_TYPES.items() if model_type.startswith(start))
    raise UsageError(f"{config} describes {next(known, f'a model of type {model_type!r}')}; {SUPPORTED}")


def _judge(file: Path, names: Iterable[str]) -> str:
    present = sorted(set(names) - set(UNUSED))
    for pattern, other in _FOREIGN_TENSORS:
        if any(re.search(pattern, name) for name in present):
            raise UsageError(f"{file} holds {other}, which is not supported; {SUPPORTED}")
    kind = next((kind for kind, starts in _KNOWN_BY.items() if any(n.startswith(starts) for n in present)), None)
    if kind is None:
        raise UsageError(f"{file} holds another model than a segmenter (see {_first(present)}); {SUPPORTED}")
    if strange := [name for name in present if not name.startswith(_OWN_TENSORS[kind])]:
        raise UsageError(f"{file} holds more than the weights of {kind}: {_first(strange)}; save the model's alone")
    return kind


def _first(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more


def describe_missing_segmenter(path: Path) -> str:
    """Say of a path that does not exist what to pass, and of a published checkpoint how to get it."""
    for pattern, folder in _PUBLISHED:
        if re.fullmatch(pattern, path.name):
            return f"{path} does not exist; download it: curl -o {path} https://dl.fbaipublicfiles.com/{folder}/{path.name}"
    if re.fullmatch(r"facebook/sam[\w.-]+", str(path)):
        return f"there is no folder {path}; download it: hf download {path} --local-dir {path.name}"
    return f"{path} does not exist; pass a segmenter's checkpoint, or 'embedded'"


def _describe_missing(folder: Path) -> str:
    """Say what is wrong with a path that is neither a file nor a folder with a config."""
    if not folder.exists():
        return describe_missing_segmenter(folder)
    if (folder / "bundle.json").is_file():
        return f"{folder} is a bundle; pass the segmenter's checkpoint that it was exported from"
    if files := sorted(file for file in folder.iterdir() if file.suffix in _WEIGHTS):
        return f"{folder} has no config.json; pass the file in it, for example {files[0]}"
    return f"{folder} is not a checkpoint: it has neither config.json nor weights; {SUPPORTED}"
