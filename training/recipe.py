"""Recipes: short YAML files that override the defaults of frozen dataclasses.

The `stage` key chooses the dataclass; every other key must be one of its fields. Nested dataclasses are nested
mappings, tuples are lists, and `--set phases.0.steps=100` reaches into both. The resolved config is saved in the
folder of the run, so that the run can be repeated from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.files.documents import parse_yaml, read_yaml
from wise_edge.files.inputs import refuse_special
from wise_edge.files.writing import atomic_write
from wise_edge.mapping import from_mapping

if TYPE_CHECKING:
    from wise_edge.training.distill.config import DistillConfig
    from wise_edge.training.sam.config import SamConfig
    from wise_edge.training.sft.config import SftConfig
    from wise_edge.training.wise.config import WiseConfig

    Config = SftConfig | SamConfig | DistillConfig | WiseConfig

STAGES = {
    "sft": ("SftConfig", "train_sft"),
    "sam": ("SamConfig", "train_sam"),
    "distill": ("DistillConfig", "train_distill"),
    "wise": ("WiseConfig", "train_wise"),
}
"""Value of a recipe's `stage` key, which also names its package -> dataclass in `config`, function in `train`."""


def load_recipe(name_or_path: str, overrides: list[str] | None = None) -> Config:
    """Read a recipe, apply overrides and build its config.

    Args:
        name_or_path: name of a recipe of this package ("embedded-policy") or path of a YAML file.
        overrides: "key=value" items; keys may be dotted ("optimizer.muon_lr", "phases.0.steps"), values are YAML.

    Raises:
        UsageError: the recipe is missing or not a mapping, or a key or value is invalid; the message names the key.
        MissingExtraError: a package that the stage needs is not installed.
    """
    mapping = _read_recipe(find_recipe(name_or_path))
    for override in overrides or []:
        _apply_override(mapping, override)
    stage = mapping.get("stage")
    if not isinstance(stage, str) or stage not in STAGES:
        raise UsageError(f"stage: {stage!r} is not a training stage; use one of {', '.join(STAGES)}")
    module = import_module(f"wise_edge.training.{stage}.config")
    config: Config = from_mapping(getattr(module, STAGES[stage][0]), mapping)
    return config


def train_function(config: Config) -> Callable[[Config, Path, bool, bool], Path | None]:
    """Return the function that trains from a config.

    Its arguments are the config, the folder of the run, whether to resume it, and whether to accept that the recipe, or
    what it names, has changed since the run began. It returns the folder of the trained model, or None if the training
    was stopped or leaves that to another process.
    """
    module = import_module(f"wise_edge.training.{config.stage}.train")
    function: Callable[[Config, Path, bool, bool], Path | None] = getattr(module, STAGES[config.stage][1])
    return function


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes that come with the package, sorted."""
    folder = files("wise_edge.training") / "recipes"
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def find_recipe(name_or_path: str) -> Path:
    """Return the file of a named recipe or of a path; raises UsageError if it does not exist."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        refuse_special(path)
        if not path.is_file():
            raise UsageError(f"recipe {name_or_path} does not exist; pass the path of a YAML file or a recipe's name")
        return path
    if name_or_path not in recipe_names():
        raise UsageError(f"recipe {name_or_path!r} is unknown; use one of {', '.join(recipe_names())} or a .yaml file")
    return Path(str(files("wise_edge.training") / "recipes" / f"{name_or_path}.yaml"))


def save_config(config: Any, path: Path) -> None:
    """Write the resolved config, atomically, as YAML that `load_recipe` reads back to an equal config."""
    yaml = require("yaml", "train")  # not at the top: `recipe_names` needs the core alone
    text: str = yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False)
    atomic_write(path, text.encode(), force=True)


def _read_recipe(path: Path) -> dict[str, Any]:
    mapping = read_yaml(path, remedy="fix the recipe")
    if not isinstance(mapping, dict):
        raise UsageError(f"recipe {path} must be a mapping of keys to values")
    return mapping


def _apply_override(mapping: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {override}: write KEY=VALUE")
    value = parse_yaml(text, f"--set {override}: the value", "quote it or write another")
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
        raise UsageError(f"--set {override}: {part} is a value and has no keys")
    return child


def _index(node: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise UsageError(f"--set {override}: {part} must be an index from 0 to {len(node) - 1}")
    return int(part)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
