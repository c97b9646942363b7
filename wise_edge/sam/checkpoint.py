"""Reading the description of a segmenter's checkpoint, whatever its family."""

from __future__ import annotations

from pathlib import Path

from wise_edge.sam.kinds import OWN, SAM2_FILE, SAM2_MODEL, find_kind
from wise_edge.sam.sam2 import read_sam2_spec
from wise_edge.sam.segment_anything import read_architecture
from wise_edge.sam.spec import SEGMENT_ANYTHING, SamSpec


def read_sam_spec(checkpoint: Path) -> SamSpec:
    """Return what a runtime must know about a checkpoint.

    Args:
        checkpoint: a folder of `segment_anything.save_sam`; a Hugging Face folder of `SamModel`, `Sam2Model` or
            `Sam2VideoModel`; or a file of segment-anything or SAM 2, as published or as trainings wrap it.

    Raises:
        UsageError: it is something else, or damaged.
        MissingExtraError: torch, which reads files, is not installed.
    """
    kind = find_kind(checkpoint)
    if kind in (SAM2_FILE, SAM2_MODEL):
        return read_sam2_spec(checkpoint)
    architecture = read_architecture(checkpoint)
    return SamSpec(
        family=SEGMENT_ANYTHING,
        input_size=architecture.input_size,
        low_res_size=architecture.low_res_size,
        pixel_mean=architecture.pixel_mean,
        pixel_std=architecture.pixel_std,
        multimask=kind != OWN,  # only the published models were trained to return three masks
    )
