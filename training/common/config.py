"""Recipes: short YAML files that override the defaults of frozen dataclasses.

A recipe's `stage` key chooses the dataclass; every other key must be one of its fields. Nested dataclasses are
nested mappings, tuples are lists, and `--set phases.0.steps=100` reaches into both. What was resolved is saved
beside the checkpoint, so that a run can be repeated from its own folder.
"""

from __future__ import annotations

import dataclasses
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.mapping import from_mapping

if TYPE_CHECKING:
    from wise_edge.training.sam.config import SamConfig
    from wise_edge.training.sft.config import SftConfig
    from wise_edge.training.wise.config import WiseConfig


STAGES = {
    "sft": ("wise_edge.training.sft.config", "SftConfig"),
    "sam": ("wise_edge.training.sam.config", "SamConfig"),
    "wise": ("wise_edge.training.wise.config", "WiseConfig"),
}
"""Value of a recipe's `stage` key -> (module, dataclass); imported only when a recipe asks for it."""


def load_recipe(name_or_path: str, overrides: list[str] | None = None) -> SftConfig | SamConfig | WiseConfig:
    """Read a recipe, apply overrides and build its config.

    Args:
        name_or_path: Name of a recipe of this package ("embedded-policy") or path of a YAML file.
        overrides: "key=value" items; keys may be dotted ("optimizer.muon_lr", "phases.0.steps"), values are YAML.

    Raises:
        UsageError: The recipe is missing or not a mapping, or a key or value does not fit; the line names the key.
    """
    mapping = _read_yaml(find_recipe(name_or_path))
    for override in overrides or []:
        _apply_override(mapping, override)
    stage = mapping.get("stage")
    if stage not in STAGES:
        raise UsageError(f"stage: {stage!r} is not a training stage; use one of {', '.join(STAGES)}")
    module, name = STAGES[stage]
    config: SftConfig | SamConfig | WiseConfig = from_mapping(getattr(import_module(module), name), mapping)
    return config


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes that come with the package, sorted."""
    folder = files("wise_edge.training") / "recipes"
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def find_recipe(name_or_path: str) -> Path:
    """Return the file of a named recipe or of a path; raises UsageError when there is none."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UsageError(f"recipe {name_or_path}: no such file")
        return path
    if name_or_path not in recipe_names():
        raise UsageError(f"recipe {name_or_path!r} is unknown; use one of {', '.join(recipe_names())} or a .yaml file")
    return Path(str(files("wise_edge.training") / "recipes" / f"{name_or_path}.yaml"))


def save_config(config: Any, path: Path) -> None:
    """Write the resolved config as YAML that `load_recipe` reads back to an equal config."""
    yaml = require("yaml", "train")
    path.write_text(yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False), encoding="utf-8")


def _read_yaml(path: Path) -> dict[str, Any]:
    yaml = require("yaml", "train")
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe {path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(mapping, dict):
        raise UsageError(f"recipe {path}: must be a mapping of keys to values")
    return mapping


def _apply_override(mapping: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {override}: write key=value")
    yaml = require("yaml", "train")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {override}: the value is not YAML") from error
    *parents, last = key.split(".")
    node: Any = mapping
    for part in parents:
        node = _child(node, part, override)
    if isinstance(node, list):
        node[_index(node, last, override)] = value
    else:
        node[last] = value


def _child(node: Any, part: str, override: str) -> Any:
    child = node[_index(node, part, override)] if isinstance(node, list) else node.setdefault(part, {})
    if not isinstance(child, (dict, list)):
        raise UsageError(f"--set {override}: {part} holds a value, not keys")
    return child


def _index(node: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise UsageError(f"--set {override}: {part} must be an index from 0 to {len(node) - 1}")
    return int(part)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
