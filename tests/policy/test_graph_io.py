"""The names and shapes that export writes into a policy's graphs and the runtimes ask for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from specs import POLICY
from wise_edge.policy.graph_io import (
    deepstack_rows,
    empty_cache,
    image_patches,
    next_cache,
    past_names,
    patch_grid,
    patch_values,
    present_names,
    vision_outputs,
)


def test_the_cache_is_ordered_by_layer_and_starts_empty() -> None:
    assert past_names(2) == ["past_key_0", "past_value_0", "past_key_1", "past_value_1"]
    cache = empty_cache(POLICY)
    assert list(cache) == past_names(POLICY.num_layers)
    assert {array.shape for array in cache.values()} == {(1, POLICY.num_kv_heads, 0, POLICY.head_dim)}


def test_what_a_run_returned_is_what_the_next_one_takes() -> None:
    outputs = {name: np.array([place]) for place, name in enumerate(present_names(2))}

    assert next_cache({"logits": np.zeros(1), **outputs}, 2) == dict(zip(past_names(2), outputs.values(), strict=True))


def test_an_image_of_any_size_becomes_the_patches_of_the_square() -> None:
    patches = image_patches(np.zeros((30, 50, 3), np.uint8), POLICY)

    columns, rows = patch_grid(POLICY, POLICY.image_grid((112, 112)))
    assert patches.shape == (columns * rows, patch_values(POLICY))
    assert columns == rows == 4 * POLICY.merge_size


def test_only_a_policy_with_deepstack_hands_its_language_model_more() -> None:
    assert vision_outputs(POLICY) == ["image_embeds"]
    assert deepstack_rows(POLICY, 5) == {}

    deep = replace(POLICY, deepstack_layers=2)
    assert vision_outputs(deep) == ["image_embeds", "deepstack_embeds"]
    assert not deepstack_rows(deep, 5)["deepstack_embeds"].any()
    features = np.random.default_rng(0).standard_normal((2, 3, POLICY.hidden_size), np.float32)
    rows = deepstack_rows(deep, 5, features, start=1)["deepstack_embeds"]
    np.testing.assert_array_equal(rows[:, 1:4], features)
    assert not rows[:, [0, 4]].any()
