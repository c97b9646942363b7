"""What a policy's graphs are called, take and return: export writes this contract, the runtimes rely on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.bundle.roles import DECODER, VISION
from wise_edge.policy.image import fit_picture, patchify
from wise_edge.policy.picture import Grid
from wise_edge.policy.spec import PolicySpec

Batch = dict[str, npt.NDArray[Any]]
"""Inputs or outputs of a graph by name."""


DEEPSTACK = "deepstack_embeds"
"""What Qwen3-VL's vision tower returns beside the embeddings, and its language model adds after its first layers."""


def vision_graphs(spec: PolicySpec) -> dict[Grid, str]:
    """Return the role of the vision tower's graph for each grid of image tokens; empty if pictures have any grid."""
    if spec.picture.side is not None:
        return dict.fromkeys(spec.grids, VISION)
    return {(columns, rows): f"{VISION}.{columns}x{rows}" for columns, rows in spec.grids}


def policy_graphs(spec: PolicySpec) -> tuple[str, ...]:
    """Return the roles of a policy's graphs."""
    return *vision_graphs(spec).values(), DECODER


def patch_grid(spec: PolicySpec, grid: Grid) -> tuple[int, int]:
    """Return the number of patches along the width and along the height of an image, given its grid of tokens."""
    columns, rows = grid
    return columns * spec.merge_size, rows * spec.merge_size


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
    return picture_patches(fit_picture(image, spec), spec)


def picture_patches(picture: npt.NDArray[np.uint8], spec: PolicySpec) -> npt.NDArray[np.float32]:
    """Return what `image_patches` does for an image that has been resized."""
    sizes = spec.patch_size, spec.temporal_patch_size, spec.merge_size
    return patchify(picture, *sizes, spec.image_mean, spec.image_std)


def vision_outputs(spec: PolicySpec) -> list[str]:
    """Return the names of what the vision tower returns, in the graph's order."""
    return ["image_embeds", DEEPSTACK] if spec.deepstack_layers else ["image_embeds"]


def deepstack_rows(
    spec: PolicySpec, tokens: int, features: npt.NDArray[np.float32] | None = None, start: int = 0
) -> Batch:
    """Return what the language model takes beside embeddings, positions and cache: nothing but for Qwen3-VL.

    Args:
        spec: the policy.
        tokens: how many the language model runs over.
        features: the vision tower's, float32 [layers, image tokens, hidden]; None if no image is among the tokens.
        start: place of the first image token.

    Returns:
        float32 [layers, tokens, hidden] under `DEEPSTACK`, 0 for text.
    """
    if not spec.deepstack_layers:
        return {}
    rows = np.zeros((spec.deepstack_layers, tokens, spec.hidden_size), np.float32)
    if features is not None:
        rows[:, start : start + features.shape[1]] = features
    return {DEEPSTACK: rows}


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
