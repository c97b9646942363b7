"""How large a policy and a segmenter are, from configs and the headers of their weights: no number is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from wise_edge.errors import UsageError
from wise_edge.export.space import stored_bytes
from wise_edge.native.weight_files import StoredTensor, list_tensors
from wise_edge.policy.answers.conventions import Told
from wise_edge.policy.architecture import EMBEDDING, HEAD, load_config, normalize_tensors
from wise_edge.policy.checkpoint import read_policy_spec
from wise_edge.policy.prompts import PromptSet
from wise_edge.policy.shards import find_shards
from wise_edge.policy.spec import PolicySpec
from wise_edge.sam.checkpoint import read_sam_spec
from wise_edge.sam.kinds import describe_missing_segmenter
from wise_edge.sam.spec import SamSpec
from wise_edge.sam.weights import read_weights

_BLOCK = 256
"""Weights that share the scales of a K-quant; a matrix with other rows becomes a type of more bits."""


@dataclass(frozen=True)
class PolicySize:
    """A policy, and how many weights it has where.

    Attributes:
        spec: what a runtime must know of it.
        layers: weights of the language model's layers.
        ragged: those of them in matrices whose rows are no whole blocks of a K-quant.
        table: weights of the token embedding.
        own_head: whether the head has weights of its own, as many as the embedding.
        vision: weights of the vision tower.
        largest: weights of the largest tensor.
        heads: attention heads of the language model.
        vocabulary: rows of the embedding.
        vision_heads: attention heads of the vision tower.
        vision_width: its width.
        stored_bytes: bytes of its files.
    """

    spec: PolicySpec
    layers: int
    ragged: int
    table: int
    own_head: bool
    vision: int
    largest: int
    heads: int
    vocabulary: int
    vision_heads: int
    vision_width: int
    stored_bytes: int

    @property
    def weights(self) -> int:
        """All weights."""
        return self.layers + self.table * (1 + self.own_head) + self.vision

    @property
    def patches(self) -> int:
        """Patches of the largest image, which attend to one another in the vision tower."""
        return self.spec.max_image_tokens * self.spec.merge_size**2


@dataclass(frozen=True)
class SamSize:
    """A segmenter, and how large it is.

    Attributes:
        spec: what a runtime must know of it.
        weights: all weights.
        largest: numbers of the largest array in its image encoder, as a rule of a global attention.
        stored_bytes: bytes of its files.
    """

    spec: SamSpec
    weights: int
    largest: int
    stored_bytes: int


def measure_policy(folder: Path, prompts: PromptSet | None = None, told: Told | None = None) -> PolicySize:
    """Return a policy's sizes.

    Args:
        folder: its checkpoint.
        prompts: the wording, if the folder's does not count.
        told: what counts more than what the folder says of pictures and answers.

    Raises:
        UsageError: it is no checkpoint that can be exported as it is; see `read_policy_spec`.
        MissingExtraError: a package that reads it is not installed.
    """
    from wise_edge.export.source.tensors import is_tied  # needs torch, as reading a checkpoint does

    if find_shards(folder):
        raise UsageError(
            f"{folder} holds verl's shards; join them: wise-edge export --policy {folder} --target hf --out JOINED"
        )
    spec = read_policy_spec(folder, prompts, told)
    tensors = normalize_tensors(list_tensors(folder))
    vision = {name for name in tensors if name.startswith("visual.")}
    layers = [tensor for name, tensor in tensors.items() if name not in {*vision, EMBEDDING, HEAD}]
    config = load_config(folder)
    return PolicySize(
        spec=spec,
        layers=sum(map(_count, layers)),
        ragged=sum(_count(tensor) for tensor in layers if len(tensor.shape) > 1 and tensor.shape[-1] % _BLOCK),
        table=_count(tensors[EMBEDDING]),
        own_head=HEAD in tensors and not is_tied(config.to_dict()),
        vision=sum(_count(tensors[name]) for name in vision),
        largest=max(map(_count, tensors.values())),
        heads=int(config.text_config.num_attention_heads),
        vocabulary=tensors[EMBEDDING].shape[0],
        vision_heads=int(config.vision_config.num_heads),
        vision_width=int(getattr(config.vision_config, "embed_dim", None) or config.vision_config.hidden_size),
        stored_bytes=stored_bytes(folder),
    )


def measure_sam(checkpoint: Path) -> SamSize:
    """Return a segmenter's sizes; raises as `read_sam_spec`."""
    if not checkpoint.exists():
        raise UsageError(describe_missing_segmenter(checkpoint))
    spec = read_sam_spec(checkpoint)
    weights = sum(tensor.numel() for tensor in read_weights(checkpoint).values())
    return SamSize(spec, weights, spec.row.open().count_largest(checkpoint), stored_bytes(checkpoint))


def _count(tensor: StoredTensor) -> int:
    return math.prod(tensor.shape)
