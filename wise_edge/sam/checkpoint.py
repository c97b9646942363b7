"""Reading the description of a segmenter's checkpoint, whatever its family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError
from wise_edge.files import read_json
from wise_edge.sam.sam2 import MODEL_TYPES, read_sam2_spec
from wise_edge.sam.segment_anything import read_architecture
from wise_edge.sam.spec import SEGMENT_ANYTHING, SamSpec


def read_sam_spec(checkpoint: Path) -> SamSpec:
    """Return what a runtime must know about a checkpoint.

    Args:
        checkpoint: a folder of `segment_anything.save_sam`, a Hugging Face folder of SAM 2, or a published `.pth` file
            of segment-anything.

    Raises:
        UsageError: it is something else, or damaged.
        MissingExtraError: torch, which reads `.pth` files, is not installed.
    """
    if (config := _read_config(checkpoint)).get("model_type") in MODEL_TYPES:
        return read_sam2_spec(checkpoint, config)
    architecture = read_architecture(checkpoint)
    return SamSpec(
        family=SEGMENT_ANYTHING,
        input_size=architecture.input_size,
        low_res_size=architecture.low_res_size,
        pixel_mean=architecture.pixel_mean,
        pixel_std=architecture.pixel_std,
        multimask=checkpoint.is_file(),  # only the published models were trained to return three masks
    )


def _read_config(checkpoint: Path) -> dict[str, Any]:
    try:
        return read_json(checkpoint / "config.json")
    except UsageError:
        return {}  # a published file; `read_architecture` reports what is wrong with a folder
