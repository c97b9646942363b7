"""Recipes: short YAML files that override the defaults of frozen dataclasses.

A recipe's `stage` key chooses the dataclass; every other key must be one of its fields. Nested dataclasses are
nested mappings, tuples are lists, and `--set phases.0.steps=100` reaches into both. What was resolved is saved
beside the checkpoint, so that a run can be repeated from its own folder.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wise_edge.errors import UsageError
from wise_edge.extras import require

if TYPE_CHECKING:
    from wise_edge.training.sam.config import SamConfig
    from wise_edge.training.sft.config import SftConfig
    from wise_edge.training.wise.config import WiseConfig

T = TypeVar("T")
_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
"""Numbers such as 1e-4, which YAML 1.1 reads as text for want of a dot."""

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
    config: SftConfig | SamConfig | WiseConfig = build_config(getattr(import_module(module), name), mapping)
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


def build_config(cls: type[T], mapping: Mapping[str, Any], where: str = "") -> T:
    """Build a frozen dataclass from a mapping, refusing unknown keys and values of another type.

    Args:
        cls: The dataclass; its fields may be bool, int, float, str, `X | None`, tuples, string-keyed dicts and
            dataclasses.
        mapping: What the recipe holds; missing keys keep their defaults.
        where: Dotted prefix used in errors.

    Raises:
        UsageError: A key is unknown or missing, or a value does not fit; also what `__post_init__` raises as
            ValueError.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in mapping:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UsageError(f"{where}{key}: unknown key{hint}")
    values = {key: _convert(hints[key], value, f"{where}{key}") for key, value in mapping.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise UsageError(f"{where or 'recipe'}: {str(error).partition('__init__() ')[2] or error}") from error
    except ValueError as error:
        raise UsageError(f"{where}{error}") from error


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


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else _convert(inner, value, where)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return build_config(typing.cast("type[Any]", hint), value, f"{where}.")
    if origin is tuple and isinstance(value, (list, tuple)):
        return _convert_tuple(arguments, value, where)
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    if hint in (bool, int, str) and type(value) is hint:
        return value
    wanted = getattr(hint, "__name__", str(hint)) if origin is None else str(hint)
    raise UsageError(f"{where}: {value!r} is not {'a mapping' if dataclasses.is_dataclass(hint) else wanted}")


def _convert_tuple(arguments: tuple[Any, ...], value: list[Any] | tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise UsageError(f"{where}: needs {len(arguments)} values, has {len(value)}")
    pairs = zip(arguments, value, strict=True)
    return tuple(_convert(hint, item, f"{where}.{i}") for i, (hint, item) in enumerate(pairs))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
