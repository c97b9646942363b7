"""Merging a LoRA adapter into the model that it was trained on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.native.weight_files import check_finite
from wise_edge.policy.adapter_names import FittedAdapter, whole_reason

_WORDS = 24  # tokens of text in a probe


def attach_adapter(model: Any, adapter: FittedAdapter, *, base: str | Path) -> Any:
    """Return PEFT's model of a base with an adapter beside it, not yet merged.

    Args:
        model: transformers' model of the base, which is changed.
        adapter: the adapter, fitted to this base.
        base: the base's name, for messages.

    Raises:
        UsageError: PEFT does not accept the adapter, or it holds values that are not finite.
    """
    peft = require("peft", "train")
    tensors = {name: tensor.read() for name, tensor in adapter.tensors.items()}
    check_finite(adapter.folder, tensors)
    try:
        with _without_warnings():
            attached = peft.get_peft_model(model, adapter.config)
            peft.set_peft_model_state_dict(attached, tensors)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UsageError(f"{adapter.folder} does not fit {base}: {whole_reason(error)}") from error
    return attached.eval()


def merge_attached(attached: Any) -> Any:
    """Merge the adapter of `attach_adapter` and return transformers' model.

    PEFT adds to matrices in place. Where the base's head is its embedding, it would change both at once, twice if the
    adapter is tied too, so the head gets numbers of its own first. If the two are the same afterward, they are tied
    again; if not, both entries of the config that tie them are cleared, and the head is saved like any other matrix
    (https://github.com/huggingface/peft/issues/2777).

    Raises:
        UsageError: PEFT cannot merge an adapter of this kind.
    """
    torch = require("torch", "train")
    base = attached.get_base_model()
    head, embedding = base.get_output_embeddings(), base.get_input_embeddings()
    inner_head, inner_embedding = _inner(head), _inner(embedding)
    tied = inner_head.weight is inner_embedding.weight
    if tied and not (inner_head is head and inner_embedding is embedding):  # one of them is part of the adapter
        inner_head.weight = torch.nn.Parameter(inner_head.weight.detach().clone())
    try:
        with _without_warnings():
            merged = attached.merge_and_unload()
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise UsageError(f"PEFT cannot merge this adapter: {whole_reason(error)}") from error
    if tied or merged.config.tie_word_embeddings:  # a config may tie what the files store apart
        _tie_if_equal(merged)
    return merged


def _inner(layer: Any) -> Any:
    """Return the base's own layer below what PEFT wraps around it."""
    if hasattr(layer, "original_module"):
        layer = layer.original_module
    return layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer


def _tie_if_equal(model: Any) -> None:
    torch = require("torch", "train")
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    equal = torch.equal(head.weight, embedding.weight)
    if equal:
        head.weight = embedding.weight
    for config in (model.config, model.config.text_config):
        config.tie_word_embeddings = equal
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)


def probe(model: Any) -> Any:
    """Return a policy's logits float32 [1, tokens, vocabulary] for a few tokens of image and text.

    The tokens are spread over the vocabulary and the image is noise of four tokens, so that every matrix of the model
    takes part at the price of one short prompt: two models are compared without the files of a prompt.
    """
    torch = require("torch", "train")
    config, vision = model.config, model.config.vision_config
    side = 2 * vision.spatial_merge_size
    values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    pixels = torch.randn(side * side, values, generator=torch.Generator().manual_seed(0))
    words = torch.linspace(0, config.text_config.vocab_size - 1, _WORDS).long()
    special = torch.tensor([config.image_token_id, config.video_token_id])
    words = words[~torch.isin(words, special)]
    image = torch.tensor([config.vision_start_token_id, *[config.image_token_id] * 4, config.vision_end_token_id])
    tokens = torch.cat([image, words])[None]
    with torch.no_grad():
        return model(
            input_ids=tokens,
            pixel_values=pixels.to(next(model.parameters()).dtype),
            image_grid_thw=torch.tensor([[1, side, side]]),
            mm_token_type_ids=(tokens == config.image_token_id).int(),
        ).logits.float()


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Hide PEFT's warnings: about names that transformers will drop, and about the ties that are cared for here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
