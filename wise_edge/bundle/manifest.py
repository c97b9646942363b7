"""The contents of `bundle.json`, as frozen dataclasses."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any

from wise_edge.bundle.evaluated import Evaluated
from wise_edge.bundle.shipped import MANIFEST_NAME as MANIFEST_NAME
from wise_edge.errors import BundleError, UsageError
from wise_edge.mapping import from_mapping
from wise_edge.policy.picture import SQUARE
from wise_edge.policy.spec import PolicySpec
from wise_edge.ranges import Checked, Name, Range, Text
from wise_edge.sam.spec import SamSpec

CARD_NAME = "README.md"
SCHEMA_VERSION = 4
EVALUATED_SCHEMA = 5
SAM_SCHEMA = 6
_OLDEST_SCHEMA = 2
"""Schema 2 spells "artifacts" as "artefacts". Schemas 2 and 3 stretch pictures to a square of `input_size`. Schema 5 is
schema 4 with a record of evaluations; a bundle without one keeps schema 4, which earlier versions read. Schema 6 has a
segmenter of a family, or an entry of it or of a graph, that versions before it do not know."""
SHA256 = re.compile("[0-9a-f]{64}")
BFLOAT16 = "bf16"
"""Precision of graphs that TensorRT runs and ONNX Runtime does not, since it has few kernels for bfloat16."""
ROUNDED_TO_BFLOAT16 = "bf16 in fp32"
"""Precision of the graphs that replace bfloat16 ones when an export is verified on a CPU: float32 with the same
rounding."""


@dataclass(frozen=True)
class Artifact(Checked):
    """One file of a bundle.

    Attributes:
        role: purpose of the file, for example "policy.decoder"; unique in a bundle.
        format: "onnx", "npy", "engine", "gguf" ...
        precision: "fp32", "fp16", "fp8", "int8", "int4" or a GGUF type: the type that a graph computes with or that
            its weights are rounded to. An fp32 graph also stores weights in half precision if that is exact. Empty for
            files without weights.
        path: path relative to the bundle, with forward slashes; in every spelling unique in a bundle.
        bytes: size of the file.
        sha256: hash of the file, hexadecimal.
        float32_layers: layers of a graph of 16 bits that compute in float32, since numbers of the calibration overflow
            or vanish there; torch's names.
    """

    role: Name
    format: Name
    precision: Annotated[str, Range(0, 100)]
    path: Name
    bytes: Annotated[int, Range(0, 2**63 - 1)]
    sha256: str
    float32_layers: tuple[Name, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if "\0" in self.path:
            raise ValueError(f"path: {self.path[:80]!r} holds a NUL, which no file's name has")
        if not SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256: {self.sha256[:80]!r} is not 64 hexadecimal digits")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data without an empty `float32_layers`, which earlier versions do not know."""
        return {name: value for name, value in asdict(self).items() if value != ()}


@dataclass(frozen=True)
class Figure:
    """One comparison of an export with its checkpoint; without a bound it is only reported, not judged.

    Attributes:
        what: what was compared.
        value: the result.
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
        """Whether the value is within its bounds; NaN is not."""
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        return low <= self.value <= high


@dataclass(frozen=True)
class Manifest(Checked):
    """The content of `bundle.json`.

    Attributes:
        name: the bundle's name.
        created: time of the export, UTC, ISO 8601.
        policy: how to run the policy.
        sam: how to run the segmenter.
        artifacts: the files.
        verified: whether the export was compared with the checkpoints; if not, its results may be wrong.
        verification: the comparisons of the export with the checkpoints.
        provenance: the checkpoints ("policy", "sam": "embedded" or a folder), their hashes and the tools' versions.
        evaluated: how accurate variants and budgets of pixels are; None if nothing was recorded.
    """

    name: Name
    created: Annotated[str, Range(0, 100)]
    policy: PolicySpec
    sam: SamSpec
    artifacts: tuple[Artifact, ...]
    verified: bool
    verification: tuple[Figure, ...]
    provenance: Mapping[str, Text]
    evaluated: Evaluated | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))
        _refuse_repeated("role", [artifact.role for artifact in self.artifacts])
        for run in self.evaluated.runs if self.evaluated else ():
            if run.variant not in self.policy.prompts.variants:
                raise ValueError(f"evaluated: the policy has no variant {run.variant[:80]!r}")
        _refuse_repeated("path", [MANIFEST_NAME, CARD_NAME, *(artifact.path for artifact in self.artifacts)])

    @property
    def schema_version(self) -> int:
        """The oldest schema that holds all of it."""
        if self.sam.is_new or any(artifact.float32_layers for artifact in self.artifacts):
            return SAM_SCHEMA
        return EVALUATED_SCHEMA if self.evaluated else SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data, the schema version first."""
        policy = {field.name: getattr(self.policy, field.name) for field in fields(self.policy)}
        parts = {name: asdict(policy[name]) for name in ("picture", "coordinates", "form")}
        evaluated = {"evaluated": asdict(self.evaluated)} if self.evaluated else {}
        return {
            "schema_version": self.schema_version,
            "name": self.name,
            "created": self.created,
            "policy": policy | parts | {"prompts": self.policy.prompts.to_dict()},
            "sam": self.sam.to_dict(),
            "artifacts": [artifact.to_dict() for artifact in self.artifacts],
            "verified": self.verified,
            "verification": [asdict(figure) for figure in self.verification],
            "provenance": dict(self.provenance),
            **evaluated,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Manifest:
        """Build a manifest from `to_dict`'s data.

        Raises:
            BundleError: the schema is newer than this version reads, or an entry is missing or of the wrong type.
        """
        _check_schema(data)
        entries = {key: value for key, value in data.items() if key != "schema_version"}
        if data["schema_version"] == 2 and "artefacts" in entries:
            entries["artifacts"] = entries.pop("artefacts")
        policy = entries.get("policy")
        if data["schema_version"] < 4 and isinstance(policy, Mapping) and "input_size" in policy:
            others = {name: value for name, value in policy.items() if name != "input_size"}
            entries["policy"] = others | {"picture": {"kind": SQUARE, "side": policy["input_size"]}}
        try:
            return from_mapping(cls, entries)
        except UsageError as error:
            raise BundleError(f"malformed ({error}); export the bundle again") from error


def _refuse_repeated(entry: str, values: Sequence[str]) -> None:
    """Raise ValueError if two values are one, whatever their case, Unicode's composition and the form of a path.

    Some file systems take such paths for one file.
    """
    seen: dict[str, str] = {}
    for value in values:
        spelled = str(PurePosixPath(unicodedata.normalize("NFC", unicodedata.normalize("NFD", value).casefold())))
        if spelled in seen:
            raise ValueError(f"artifacts: two files have the {entry} {seen[spelled][:80]!r}")
        seen[spelled] = value


def _check_schema(data: Mapping[str, Any]) -> None:
    version = data.get("schema_version") if isinstance(data, Mapping) else None
    if not isinstance(version, int):
        raise BundleError("malformed (no schema_version); export the bundle again")
    problem = f"the bundle has schema {version}, this wise-edge reads {_OLDEST_SCHEMA} to {SAM_SCHEMA}"
    if version > SAM_SCHEMA:
        raise BundleError(f"{problem}; update wise-edge")
    if version < _OLDEST_SCHEMA:
        raise BundleError(f"{problem}; export it again")
