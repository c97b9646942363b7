"""How much room an export takes on a disk, found before anything is written."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from wise_edge.bundle.manifest import BFLOAT16
from wise_edge.export.options import ExportOptions
from wise_edge.export.provenance import checkpoint_weights
from wise_edge.native.weight_files import StoredTensor
from wise_edge.policy.answers.conventions import Told, complete_entries
from wise_edge.policy.architecture import load_config, normalize_name
from wise_edge.policy.processor import read_image_settings


def stored_bytes(checkpoint: Path) -> int:
    """Return how many bytes the weights of a checkpoint have."""
    return sum(file.stat().st_size for file in checkpoint_weights(checkpoint))


def needed_bytes(
    policy: Path, tensors: Iterable[StoredTensor], sam: Path, options: ExportOptions, copies: int = 0
) -> int:
    """Return about how many bytes of a disk an export takes while it runs.

    Args:
        policy: has the policy's config and weights.
        tensors: the policy's.
        sam: the segmenter's checkpoint.
        options: of the export.
        copies: of the policy's checkpoint that are made first, to join shards and to merge an adapter.

    Raises:
        UsageError: as `complete_entries`.
    """
    written = written_bytes(policy, options, repeated_share(policy, tensors, options.told))
    return written + written_bytes(sam, options) + copies * stored_bytes(policy)


def written_bytes(checkpoint: Path, options: ExportOptions, repeated: float = 0.0) -> int:
    """Return about how many bytes an export of a checkpoint writes, intermediate files included.

    Args:
        checkpoint: its folder or file.
        options: of the export.
        repeated: what graphs hold again of the weights, see `repeated_share`.
    """
    lowered = {options.onnx_precision, options.sam_precision} != {"fp32"}
    # Float32 at most, or a lossless file next to the quantized one; a graph of lower precision exists three times, but
    # one at a time. All of bfloat16 exist in float32 again while they are compared.
    repeats = repeated * (1 + (options.onnx_precision == BFLOAT16))
    times = len(options.targets) + 2 * lowered + repeats
    return int(2 * stored_bytes(checkpoint) * times)


def repeated_share(folder: Path, tensors: Iterable[StoredTensor], told: Told) -> float:
    """Return what graphs hold again of a policy's weights: the vision tower's, for each grid after the first.

    Args:
        folder: has the config and the image processor's settings.
        tensors: the policy's.
        told: of the export.

    Returns:
        A multiple of all weights; 0 if there is one grid, or no graph.

    Raises:
        UsageError: as `complete_entries`.
    """
    config = load_config(folder).to_dict()
    images = read_image_settings(folder, config["vision_config"])
    grids = complete_entries(folder, config["model_type"], images, told)["picture"].grids
    if not told.fixed_grids or len(grids) < 2:
        return 0.0
    numbers = {normalize_name(tensor.name): math.prod(tensor.shape) for tensor in tensors}
    vision = sum(count for name, count in numbers.items() if name.startswith("visual."))
    return (len(grids) - 1) * vision / sum(numbers.values())
