"""The contents of `bundle.json`, as frozen dataclasses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from wise_edge.errors import BundleError, UsageError
from wise_edge.mapping import from_mapping
from wise_edge.policy.prompts import PromptSet

SCHEMA_VERSION = 3
_OLDEST_SCHEMA = 2
"""Schema 2 spells "artifacts" as "artefacts"; nothing else differs."""
TEXT_TOKENS = 2048
"""Room beside the image, for instruction, query and completion."""
BFLOAT16 = "bf16"
"""Precision of graphs that TensorRT runs and ONNX Runtime does not: its kernels for bfloat16 are few."""
ROUNDED_TO_BFLOAT16 = "bf16 in fp32"
"""Precision of graphs that stand in for those where an export is verified on a CPU: float32, rounded as often."""


@dataclass(frozen=True)
class PolicySpec:
    """What a runtime must know to run the policy.

    Attributes:
        family: architecture, transformers' name of it: "qwen2_vl", "qwen2_5_vl" or "qwen3_vl".
        input_size: side in pixels of the square that images are resized to; the frame of the answers.
        patch_size: side of a patch in pixels.
        merge_size: patches along a side that make one image token.
        temporal_patch_size: how often a still image is repeated along time.
        image_mean: per-channel mean of images scaled to 0 to 1.
        image_std: per-channel standard deviation of images scaled to 0 to 1.
        prompts: the wording the policy was trained with.
        default_variant: the prompt variant used when none is asked for.
        image_token: the tokenizer's placeholder for one image token.
        eos_tokens: tokens that end a completion.
        hidden_size: width of the language model.
        num_layers: layers of the language model.
        num_kv_heads: key/value heads of a layer.
        head_dim: width of a head.
        max_positions: longest sequence in tokens, prompt and completion together.
    """

    family: str
    input_size: int
    patch_size: int
    merge_size: int
    temporal_patch_size: int
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    prompts: PromptSet
    default_variant: str
    image_token: str
    eos_tokens: tuple[str, ...]
    hidden_size: int
    num_layers: int
    num_kv_heads: int
    head_dim: int
    max_positions: int

    @property
    def image_grid(self) -> int:
        """Image tokens along a side of the image."""
        return self.input_size // (self.patch_size * self.merge_size)

    @property
    def context_tokens(self) -> int:
        """Tokens that a runtime makes room for: the 128,000 of the published models would fill a device."""
        return min(self.max_positions, self.image_grid**2 + TEXT_TOKENS)


@dataclass(frozen=True)
class SamSpec:
    """What a runtime must know to run the segmenter.

    Attributes:
        family: architecture, "segment_anything" (images keep their proportions and are padded to the square) or
            "sam2" (they are stretched to it).
        input_size: side in pixels of the square that the encoder takes.
        low_res_size: side of the decoder's masks and of the mask that it takes as a prompt.
        pixel_mean: per-channel mean of images from 0 to 255.
        pixel_std: per-channel standard deviation of images from 0 to 255.
        multimask: whether the best scored of the decoder's three masks is taken, as the reference of WISE and Seg-Zero
            does; otherwise its single one.
    """

    family: str
    input_size: int
    low_res_size: int
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    multimask: bool


@dataclass(frozen=True)
class Artifact:
    """One file of a bundle.

    Attributes:
        role: what the file is for, for example "policy.decoder"; unique in a bundle.
        format: "onnx", "npy", "engine", "gguf" ...
        precision: "fp32", "fp16", "fp8", "int8", "int4" or a GGUF type: what a graph computes with, or its weights are
            rounded to. Graphs of fp32 too store weights in half precision where that holds them exactly. Empty without
            weights.
        path: relative to the bundle, forward slashes.
        bytes: size of the file.
        sha256: hash of the file, hexadecimal.
    """

    role: str
    format: str
    precision: str
    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Figure:
    """One comparison of an export with its checkpoint, judged or, without a bound, reported only.

    Attributes:
        what: what was compared.
        value: what came out.
        unit: unit of the value and of its bound.
        at_most: the largest value that passes.
        at_least: the smallest value that passes.
    """

    what: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the value lies within its bounds; what is not a number does not."""
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        return low <= self.value <= high


@dataclass(frozen=True)
class Manifest:
    """The whole of `bundle.json`.

    Attributes:
        name: the bundle's name.
        created: time of the export, UTC, ISO 8601.
        policy: how to run the policy.
        sam: how to run the segmenter.
        artifacts: the files.
        verified: whether the export was compared with the checkpoints; without, it may give anything.
        verification: how far the export is from the checkpoints.
        provenance: the checkpoints ("policy", "sam": "embedded" or a folder), their hashes and the tools' versions.
        schema_version: version of this layout.
    """

    name: str
    created: str
    policy: PolicySpec
    sam: SamSpec
    artifacts: tuple[Artifact, ...]
    verified: bool
    verification: tuple[Figure, ...]
    provenance: Mapping[str, str]
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data, the schema version first."""
        policy = {field.name: getattr(self.policy, field.name) for field in fields(self.policy)}
        return {
            "schema_version": self.schema_version,
            "name": self.name,
            "created": self.created,
            "policy": policy | {"prompts": self.policy.prompts.to_dict()},
            "sam": asdict(self.sam),
            "artifacts": [asdict(artifact) for artifact in self.artifacts],
            "verified": self.verified,
            "verification": [asdict(figure) for figure in self.verification],
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Manifest:
        """Build a manifest from `to_dict`'s data.

        Raises:
            BundleError: the schema is newer than this version reads, or an entry is missing or of the wrong type.
        """
        _check_schema(data)
        entries = dict(data)
        if data["schema_version"] == 2 and "artefacts" in entries:
            entries["artifacts"] = entries.pop("artefacts")
        try:
            manifest = from_mapping(cls, entries)
        except UsageError as error:
            raise BundleError(f"malformed ({error}); export the bundle again") from error
        return replace(manifest, schema_version=SCHEMA_VERSION)


def _check_schema(data: Mapping[str, Any]) -> None:
    version = data.get("schema_version") if isinstance(data, Mapping) else None
    if not isinstance(version, int):
        raise BundleError("malformed (no schema_version); export the bundle again")
    if version > SCHEMA_VERSION:
        raise BundleError(f"the bundle has schema {version}, this wise-edge reads {SCHEMA_VERSION}; update wise-edge")
    if version < _OLDEST_SCHEMA:
        raise BundleError(f"the bundle has schema {version}, this wise-edge reads {SCHEMA_VERSION}; export it again")
