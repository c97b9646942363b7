"""The disk and the time that an export takes: sizes by arithmetic, times only where something was measured."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from wise_edge.export.provenance import checkpoint_weights
from wise_edge.export.space import needed_bytes
from wise_edge.native.weight_files import list_tensors
from wise_edge.planning.memory import policy_bytes
from wise_edge.planning.plan import Choice
from wise_edge.planning.sizes import PolicySize, SamSize

_CONVERTING = 0.81
"""Converting to GGUF, of the speed of a copy: 311 of 384 MB/s with a checkpoint of 7.5 GB (docs/results.md)."""
_LARGE = 5e8
"""Weights of a policy from which on times of one with 3 billion tell something."""
_SMALL = "not measured with a policy of this size"
_BLOCK_BYTES, _MOST_BYTES, _MOST_S = 8 << 20, 256 << 20, 1.0
"""What is copied to measure a disk, and for how long."""


@dataclass(frozen=True)
class Disk:
    """What a bundle takes on a disk.

    Attributes:
        bundle_bytes: the bundle.
        peak_bytes: the most while it is made, intermediate files included.
    """

    bundle_bytes: int
    peak_bytes: int


@dataclass(frozen=True)
class Step:
    """A step of an export.

    Attributes:
        name: what is done.
        seconds: how long it takes; None if nothing was measured that tells.
        reason: where the figure is from, or why there is none.
    """

    name: str
    seconds: float | None
    reason: str


def count_disk(folder: Path, checkpoint: Path, policy: PolicySize, sam: SamSize, choice: Choice) -> Disk:
    """Return what an export takes on a disk.

    Args:
        folder: the policy's checkpoint.
        checkpoint: the segmenter's.
        policy: the policy's sizes.
        sam: the segmenter's.
        choice: what is made of them.
    """
    weights = choice.weights
    graphs = max(1, len(policy.spec.grids)) if weights.target in ("onnx", "tensorrt") else 1
    again = (graphs - 1) * policy.vision * weights.vision_bits / 8
    table = 0 if weights.holds_table else 2 * policy.table  # the token embedding, in half precision
    masks = (2 if choice.options.sam_precision == "fp16" else 4) * sam.weights
    engines = 2 if weights.target == "tensorrt" else 1  # beside the graphs that they are built from
    bundle = engines * (policy_bytes(policy, weights) + again + masks) + table
    return Disk(int(bundle), needed_bytes(folder, list_tensors(folder), checkpoint, choice.options))


def list_steps(folder: Path, place: Path, policy: PolicySize, choice: Choice) -> tuple[Step, ...]:
    """Return the steps of an export with their times.

    Args:
        folder: the policy's checkpoint.
        place: the folder that the bundle is written into.
        policy: the policy's sizes.
        choice: what is made.
    """
    steps, large = [], policy.weights >= _LARGE
    if choice.weights.target == "gguf":
        rate = measure_copy(max(checkpoint_weights(folder), key=lambda file: file.stat().st_size), place)
        seconds = None if rate is None else policy.stored_bytes / (_CONVERTING * rate)
        reason = f"{place} is not writable" if rate is None else f"this disk copies {rate / 1e6:.0f} MB/s"
        steps.append(Step("convert", seconds, reason))
        if choice.weights.bits < 16:
            steps.append(Step("quantize", None, "llama.cpp's quantizer was not measured"))
    else:
        traced = "a policy of 3B took 2443 s once, on two cores with other work (docs/results.md)"
        steps.append(Step("trace graphs", None, traced if large else _SMALL))
    if choice.weights.target == "tensorrt":
        built = "18 and 52 s for a policy of 3B in fp16 (docs/results.md)"
        steps.append(Step("build engines", None, built if large else _SMALL))
    if choice.verify:
        samples = choice.options.samples
        steps.append(Step("compare", None, f"it depends on the length of the answers to {samples} queries"))
    return tuple(steps)


def measure_copy(source: Path, place: Path) -> float | None:
    """Return how many bytes a second are copied from a file into a folder, within about a second; None if refused."""
    copied, started = 0, perf_counter()
    try:
        with source.open("rb") as reader, tempfile.TemporaryFile(dir=place) as writer:
            while copied < _MOST_BYTES and perf_counter() - started < _MOST_S:
                if not (block := reader.read(_BLOCK_BYTES)):
                    reader.seek(0)  # a small file again, or opening it would be what is measured
                writer.write(block)
                copied += len(block)
            writer.flush()
            os.fsync(writer.fileno())
    except OSError:
        return None
    return copied / (perf_counter() - started)
