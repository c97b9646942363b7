"""The folder of a training run: written by one process, and continued as what it began as."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wise_edge.errors import UsageError
from wise_edge.files.documents import read_json, to_json
from wise_edge.files.hashing import fingerprint_model
from wise_edge.files.locks import holding
from wise_edge.files.targets import make_folder
from wise_edge.files.writing import atomic_write
from wise_edge.mapping import from_mapping
from wise_edge.training.common.step_log import STEPS, VALIDATIONS
from wise_edge.training.recipe import load_recipe, save_config

if TYPE_CHECKING:
    from wise_edge.training.recipe import Config

RECIPE = "recipe.yaml"
_RECORD = "run.json"
_PACKAGES = ("wise-edge", "torch", "numpy", "pillow", "tokenizers", "transformers", "trl", "peft", "segment-anything")
"""What computes a run's results."""
_WRITTEN = (STEPS, VALIDATIONS, "curves.png", "policy", "sam", "start", "best", "best.json", "samples")
_MODELS = ("bundle.json", "config.json")
"""What the folders of models hold; 'wise-edge export --force' would replace such a folder, and a run in it."""
_NAMED = 5  # differences that an error names


@dataclass(frozen=True)
class _Change:
    """What a run was continued with although it had begun otherwise."""

    step: int
    changes: tuple[str, ...]


@dataclass(frozen=True)
class _Record:
    """The content of `run.json`."""

    versions: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    changes: tuple[_Change, ...] = ()


@contextmanager
def hold_run(out: Path, resume: bool) -> Iterator[None]:
    """Make the folder of a run and keep other processes from training into it during the block.

    Raises:
        UsageError: another process trains into `out`, or as `refuse_begun`.
    """
    make_folder(out)
    with holding(out):
        refuse_begun(out, resume)
        yield


def refuse_begun(out: Path, resume: bool) -> None:
    """Refuse a folder that holds a run, unless it is to be resumed, a model, or files that a run would replace.

    Raises:
        UsageError: it holds one of these.
    """
    if any((out / name).exists() for name in (RECIPE, _RECORD)) or any(out.glob("checkpoint-*")):
        if not resume:
            raise UsageError(f"{out} holds a training run; pass --resume to continue it, or choose another --out")
        return
    for name in _MODELS:
        if (out / name).exists():
            raise UsageError(f"{out} holds a model ({name}) and no training run; choose another --out")
    for name in _WRITTEN:
        if (out / name).exists():
            raise UsageError(
                f"{out} holds no training run, but a {name}, which one would replace; choose another --out"
            )


def identify_run(
    config: Config, out: Path, step: int | None, inputs: Mapping[str, Path | str], accept_changes: bool = False
) -> None:
    """Check that a run goes on as what it began as, and record what that is in `recipe.yaml` and `run.json`.

    Call it while the run is held and before anything else is written there.

    Args:
        config: the recipe.
        out: folder of the run.
        step: steps at the checkpoint that it continues from; None: there is none, and it begins.
        inputs: name in the recipe -> file or folder that the results depend on, such as the policy to start from, or
            its fingerprint.
        accept_changes: continue whatever has changed, and record what.

    Raises:
        UsageError: the content of an input, or a key of the recipe that its class does not have in `changeable`,
            differs from what the run began with; the message names them.
    """
    versions = {name: found for name in _PACKAGES if (found := _version(name))}
    fingerprints = {name: item if isinstance(item, str) else fingerprint_model(item) for name, item in inputs.items()}
    before = _Record()
    if step is not None:
        changes = _changes_of_recipe(config, out)
        try:
            before = _read_record(out)
        except UsageError as error:
            changes.append(f"{_RECORD} can no longer be read ({error})")
        changes += _changes_of_inputs(before.inputs, fingerprints)
        if changes and not accept_changes:
            more = [f"and {len(changes) - _NAMED} more"] if len(changes) > _NAMED else []
            raise UsageError(
                f"{out} was started with other settings: {'; '.join(changes[:_NAMED] + more)}; "
                "choose another --out, or continue with --accept-changes"
            )
        _note_versions(before.versions, versions)
        if changes:
            before = replace(before, changes=(*before.changes, _Change(step, tuple(changes))))
    record = _Record(versions, fingerprints, before.changes)
    atomic_write(out / _RECORD, (to_json(asdict(record), indent=2) + "\n").encode(), force=True)
    save_config(config, out / RECIPE)


def _read_record(out: Path) -> _Record:
    file = out / _RECORD
    return from_mapping(_Record, read_json(file), f"{file}: ") if file.exists() else _Record()


def _changes_of_recipe(config: Config, out: Path) -> list[str]:
    try:
        before = _leaves(asdict(load_recipe(str(out / RECIPE))))
    except UsageError as error:
        return [f"{RECIPE} can no longer be read ({error})"]
    now = _leaves(asdict(config))
    if before["stage"] != now["stage"]:  # no key has a counterpart
        return [f"stage was {before['stage']} and is {now['stage']}"]
    return [
        f"{key} was {before.get(key)} and is {now.get(key)}"
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key) and key not in config.changeable
    ]


def _leaves(value: Any, key: str = "") -> dict[str, Any]:
    """Return the values of nested mappings and sequences by their dotted keys, as `--set` names them."""
    items: Any = ()
    if isinstance(value, dict) and value:
        items = value.items()
    elif isinstance(value, (list, tuple)) and any(isinstance(item, dict) for item in value):
        items = enumerate(value)
    found = {name: leaf for part, item in items for name, leaf in _leaves(item, f"{key}.{part}".lstrip(".")).items()}
    return found or {key: value}


def _changes_of_inputs(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [f"the files of {name} have changed" for name in now if before.get(name, now[name]) != now[name]]


def _note_versions(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    changed = [
        f"{name} {before[name]} is now {now.get(name, 'missing')}" for name in before if before[name] != now.get(name)
    ]
    if changed:
        print(f"note: steps may differ from those of an unbroken run, since {', '.join(changed)}", file=sys.stderr)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
