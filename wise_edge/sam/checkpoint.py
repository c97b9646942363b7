"""Reading a segmenter's checkpoint, whatever its family."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from wise_edge.sam.kinds import find_kind
from wise_edge.sam.spec import SamSpec
from wise_edge.sam.video.checkpoint import FAMILIES, read_memory


def read_sam_spec(checkpoint: Path) -> SamSpec:
    """Return what a runtime must know about a checkpoint.

    Args:
        checkpoint: a file or folder of one of the families in `wise_edge.sam.families`: as its authors publish it, as
            trainings wrap it, in transformers' form, or in this project's own.

    Raises:
        UsageError: it is something else, or damaged.
        MissingExtraError: torch, which reads files, is not installed.
    """
    family = find_kind(checkpoint).family
    spec = family.open().read_spec(checkpoint)
    return replace(spec, memory=read_memory(checkpoint)) if family.name in FAMILIES else spec


def load_segmenter(checkpoint: Path) -> Any:
    """Load a checkpoint that `read_sam_spec` reads.

    Returns:
        The model of its family's library, a `torch.nn.Module`, float32, on the CPU, in evaluation mode.

    Raises:
        UsageError: a file is missing, damaged or does not fit; the message names it.
        MissingExtraError: torch or the family's library is not installed.
    """
    family = find_kind(checkpoint).family
    family.check_packages()
    return family.open().load(checkpoint)
