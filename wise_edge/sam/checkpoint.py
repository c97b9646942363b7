"""What a segmenter's checkpoint is, whichever family it belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wise_edge.sam.sam2 import MODEL_TYPES, read_sam2_spec
from wise_edge.sam.segment_anything import read_architecture
from wise_edge.sam.spec import SEGMENT_ANYTHING, SamSpec


def read_sam_spec(checkpoint: Path) -> SamSpec:
    """Return what a runtime must know of a checkpoint.

    Args:
        checkpoint: folder of `segment_anything.save_sam`, Hugging Face folder of SAM 2, or a published `.pth` file of
            segment-anything.

    Raises:
        UsageError: it is none of them.
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
        multimask=checkpoint.is_file(),  # only the published models were trained to give three
    )


def _read_config(checkpoint: Path) -> dict[str, Any]:
    try:
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # `read_architecture` says what is wrong
    return config if isinstance(config, dict) else {}
