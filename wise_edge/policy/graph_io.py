"""What a policy's graphs are called, take and return: export writes this contract, the runtimes rely on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.policy.image import fit_picture, patchify
from wise_edge.policy.spec import PolicySpec

Batch = dict[str, npt.NDArray[Any]]
"""Inputs or outputs of a graph by name."""


def patch_grid(spec: PolicySpec) -> int:
    """Return the number of patches along a side of the image."""
    return spec.input_size // spec.patch_size


def patch_values(spec: PolicySpec) -> int:
    """Return the number of values of one patch."""
    return 3 * spec.temporal_patch_size * spec.patch_size**2


def image_patches(image: npt.NDArray[np.uint8], spec: PolicySpec) -> npt.NDArray[np.float32]:
    """Return the vision tower's `pixel_values` for an image.

    Args:
        image: HWC uint8 RGB, any size; resized as the policy wants it.
        spec: the policy.

    Returns:
        float32 [patches, patch_values].
    """
    sizes = spec.patch_size, spec.temporal_patch_size, spec.merge_size
    return patchify(fit_picture(image, spec), *sizes, spec.image_mean, spec.image_std)


def past_names(layers: int) -> list[str]:
    """Return the names of the keys and values that the language model takes, in the graph's order."""
    return _cache_names("past", layers)


def present_names(layers: int) -> list[str]:
    """Return the names of the keys and values that the language model returns, in the graph's order."""
    return _cache_names("present", layers)


def _cache_names(stem: str, layers: int) -> list[str]:
    return [f"{stem}_{kind}_{layer}" for layer in range(layers) for kind in ("key", "value")]


def empty_cache(spec: PolicySpec) -> Batch:
    """Return a cache of no tokens: float32 [1, kv_heads, 0, head_dim] for each name of `past_names`."""
    empty = np.zeros((1, spec.num_kv_heads, 0, spec.head_dim), np.float32)
    return dict.fromkeys(past_names(spec.num_layers), empty)


def next_cache(outputs: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """Return the cache for the next run: the keys and values among a run's outputs, under their names as inputs."""
    names = zip(past_names(layers), present_names(layers), strict=True)
    return {past: outputs[present] for past, present in names}
