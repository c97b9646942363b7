"""The differences between two bundles, entry by entry of their manifests."""

from __future__ import annotations

from dataclasses import dataclass, fields
from difflib import unified_diff
from typing import Any

from wise_edge.bundle.manifest import Artifact, Manifest
from wise_edge.policy.spec import PolicySpec
from wise_edge.sam.spec import SamSpec


@dataclass(frozen=True)
class Difference:
    """One entry that differs.

    Attributes:
        part: "policy", "prompts", "sam", "artifacts", "verification", "evaluated" or "provenance".
        what: name of the entry in that part.
        before: its value in the first bundle, None if it has none.
        after: its value in the second bundle, None if it has none.
    """

    part: str
    what: str
    before: Any
    after: Any


def compare_manifests(first: Manifest, second: Manifest) -> list[Difference]:
    """Return the differences of two manifests, apart from name and creation time."""
    return [
        *_specs("policy", first.policy, second.policy),
        *_entries("prompts", _prompts(first.policy), _prompts(second.policy)),
        *_specs("sam", first.sam, second.sam),
        *_entries("artifacts", _files(first), _files(second)),
        *_entries("verification", _figures(first), _figures(second)),
        *_entries("evaluated", _evaluated(first), _evaluated(second)),
        *_entries("provenance", dict(first.provenance), dict(second.provenance)),
    ]


def wording_changes(difference: Difference) -> list[str]:
    """Return the changed lines of a text, removed ones with "-" and added ones with "+" in front."""
    before, after = ((text or "").splitlines() for text in (difference.before, difference.after))
    return [line for line in unified_diff(before, after, lineterm="", n=0) if not line.startswith(("---", "+++", "@@"))]


def _specs(part: str, first: PolicySpec | SamSpec, second: PolicySpec | SamSpec) -> list[Difference]:
    names = [field.name for field in fields(first) if field.name != "prompts"]
    return _entries(part, *({name: getattr(spec, name) for name in names} for spec in (first, second)))


def _prompts(policy: PolicySpec) -> dict[str, Any]:
    prompts = policy.prompts
    variants = {variant: template.describe() for variant, template in prompts.variants.items()}
    return {key: value for key, value in prompts.to_dict().items() if key not in ("version", "variants")} | variants


def _files(manifest: Manifest) -> dict[str, Any]:
    return {artifact.role: _described(artifact) for artifact in manifest.artifacts}


def _described(artifact: Artifact) -> dict[str, Any]:
    described = artifact.to_dict()
    del described["role"]
    return described


def _figures(manifest: Manifest) -> dict[str, Any]:
    return {"verified": manifest.verified, **{figure.what: figure.value for figure in manifest.verification}}


def _evaluated(manifest: Manifest) -> dict[str, Any]:
    if (evaluated := manifest.evaluated) is None:
        return {}
    return {"with": str(evaluated), **{f"{run.name}, gIoU": run.giou for run in evaluated.runs}}


def _entries(part: str, first: dict[str, Any], second: dict[str, Any]) -> list[Difference]:
    names = [*first, *(name for name in second if name not in first)]
    pairs = ((name, first.get(name), second.get(name)) for name in names)
    return [Difference(part, name, before, after) for name, before, after in pairs if before != after]
