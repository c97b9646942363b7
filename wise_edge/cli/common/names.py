"""The names that options take, for `--list` and for completion: what there is here, without opening a model.

Completion runs at every press of a key, so nothing here imports more than the tables that hold the names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from wise_edge.bundle.shipped import EMBEDDED, MANIFEST_NAME, SEGMENTERS, SHIPPED, find_folder
from wise_edge.cli.common.settings import Words
from wise_edge.errors import UsageError
from wise_edge.files.documents import read_json, read_text

_MOST_BYTES = 4_000_000
_MOST_FOLDERS = 1000
Names = dict[str, str]
"""Name to a description; empty if the name says it all."""


@dataclass(frozen=True)
class Place:
    """What a command line says so far that names depend on.

    Attributes:
        bundle: the bundle that the options, the environment or a file choose; None for the embedded one.
    """

    bundle: str | None = None


def names_of(words: Words, parameter: Any, place: Place) -> Names | None:
    """Return the names that an option or an argument takes; None if it takes no names."""
    own = {**_OF_ALL, **_OF_COMMANDS.get(words[:1], {}), **_OF_COMMANDS.get(words, {})}
    source = own.get(parameter.name)
    return None if source is None or getattr(parameter, "is_flag", False) else source(place)


def takes_names(words: Words, command: Any) -> bool:
    """Return whether a command, or one of a group, has an option or an argument that takes names."""
    own = {**_OF_ALL, **_OF_COMMANDS.get(words[:1], {}), **_OF_COMMANDS.get(words, {})}
    below = getattr(command, "commands", {}) if words else {}
    return any(each.name in own for each in command.params) or any(
        takes_names((*words, name), subcommand) for name, subcommand in below.items()
    )


def list_names(words: Words, command: Any, place: Place) -> dict[str, Names]:
    """Return what the options and arguments of a command take, those of a group's commands too."""
    listed: dict[str, Names] = {}
    for parameter in command.params:
        label = max(parameter.opts, key=len) if parameter.param_type_name == "option" else parameter.metavar
        if found := names_of(words, parameter, place) or _LISTED.get(parameter.name, _plain(()))(place):
            listed[label] = found
    for name, subcommand in getattr(command, "commands", {}).items():
        for label, found in list_names((*words, name), subcommand, place).items():
            if found not in listed.values():  # three commands take a bundle, under three names
                listed[label] = found
    return listed


def find_bundles(place: Place) -> Names:
    """Return the bundles that ship, those in and below the working directory, and neighbors of the chosen one."""
    found = {name: _describe_bundle(find_folder(name)) for name in SHIPPED}
    folders = [Path()]
    if place.bundle and place.bundle.partition("@")[0] not in SHIPPED:
        folders.append(Path(place.bundle.partition("@")[0]).parent)
    for folder in folders:
        for candidate in (folder, *_folders(folder)):
            if (candidate / MANIFEST_NAME).is_file():
                found.setdefault(str(candidate), _describe_bundle(candidate))
    return found


def find_recipes(place: Place) -> Names:
    """Return the recipes of this package, each with its stage and the first sentence of its comment."""
    found = {}
    for file in sorted(files("wise_edge.training").joinpath("recipes").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            text = read_text(Path(str(file)), _MOST_BYTES)
            comment = " ".join(re.match(r"(?:#.*\n)*", text)[0].replace("#", " ").split())  # type: ignore[index]
            stage = re.search(r"^stage: (\w+)", text, re.MULTILINE)
            sentence = re.split(r"(?<=[.:])\s", comment, maxsplit=1)[0].rstrip(".:")
            found[file.name.removesuffix(".yaml")] = f"{stage[1] if stage else '?'}: {sentence}"
    return found


def find_variants(place: Place) -> Names:
    """Return the prompt variants of the bundle."""
    policy = _read_manifest(find_folder((place.bundle or EMBEDDED).partition("@")[0])).get("policy", {})
    variants, default = policy.get("prompts", {}).get("variants", {}), policy.get("default_variant")
    return {name: "the default" if name == default else "" for name in variants}


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for _, path in zip(range(_MOST_FOLDERS), folder.iterdir(), strict=False) if path.is_dir())
    except OSError:
        return []


def _describe_bundle(folder: Path) -> str:
    manifest = _read_manifest(folder)
    policy, artifacts = manifest.get("policy", {}), manifest.get("artifacts", [])
    formats = dict.fromkeys(f"{each.get('format')} {each.get('precision')}".strip() for each in artifacts)
    kinds = [kind for kind in formats if not kind.startswith(("json", "tokenizer", "npy"))]
    verified = "" if manifest.get("verified") else ", not verified"
    size = sum(each.get("bytes", 0) for each in artifacts)
    return f"{policy.get('family')}, {', '.join(kinds)}, {size / 1e6:.0f} MB{verified}"


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Return a manifest as it is; an empty one for what cannot be read."""
    try:
        return read_json(folder / MANIFEST_NAME, _MOST_BYTES)
    except UsageError:
        return {}


def _plain(names: Iterable[str]) -> Callable[[Place], Names]:
    return lambda place: dict.fromkeys(names, "")


def _backends(part: str) -> Callable[[Place], Names]:
    def find(place: Place) -> Names:
        from wise_edge.runtimes.backends import list_backends

        listed = {each.name: f"{each.runtime}{' on a GPU' * (each.on_gpu is True)}" for each in list_backends(part)}
        return {"auto": "the first one that runs here", **listed}

    return find


def _gpus(place: Place) -> Names:
    from wise_edge.bundle.devices import GPU_KINDS, THIS

    return {kind.name: kind.description for kind in GPU_KINDS} | {THIS: "the GPU of this machine"}


def _devices(place: Place) -> Names:
    return {"this": "this machine", "cpu": "its CPU alone", **_shapes("DEVICES")(place)}


def _targets(place: Place) -> Names:
    from wise_edge.export.targets import MERGED, TARGETS

    return {target.name: target.help for target in TARGETS} | {MERGED: "the merged checkpoint alone"}


def _precisions(table: str) -> Callable[[Place], Names]:
    def find(place: Place) -> Names:
        from wise_edge.export import precisions

        return dict.fromkeys(getattr(precisions, table), "")

    return find


def _shapes(table: str) -> Callable[[Place], Names]:
    def find(place: Place) -> Names:
        from wise_edge.profiling.roofline import shapes

        return {each.name: getattr(each, "description", "") for each in getattr(shapes, table)}

    return find


def _forms(place: Place) -> Names:
    from wise_edge.policy.answers.form import FORMS

    return dict.fromkeys(FORMS, "")


def _datasets(place: Place) -> Names:
    from wise_edge.datasets import NAMES

    return dict.fromkeys(NAMES, "")


def _outputs(place: Place) -> Names:
    from wise_edge.cli.run import KINDS

    return dict.fromkeys(KINDS, "")


def _mask_outputs(place: Place) -> Names:
    from wise_edge.cli.masks import KINDS

    return dict.fromkeys(KINDS, "")


Sources = Mapping[str, Callable[[Place], Names]]
_OF_ALL: Sources = {
    "bundle": find_bundles,
    "variant": find_variants,
    "variants": find_variants,
    "policy_backend": _backends("policy"),
    "backends": _backends("policy"),
    "mask_backend": _backends("mask"),
    "form": _forms,
    "shell": _plain(("bash", "zsh", "fish")),
}
"""Parameter to its names, in every command that has it."""
_CHECKPOINTS: Sources = {"policy": _plain(("embedded", "embedded-start")), "sam": _plain(("embedded", *SEGMENTERS))}
_OF_COMMANDS: Mapping[Words, Sources] = {
    ("run",): {"save": _outputs, "overlay_style": _plain(("panel", "plain"))},
    ("masks",): {"save": _mask_outputs, "sam": _CHECKPOINTS["sam"]},
    ("train",): {"recipe": find_recipes},
    ("export",): {
        **_CHECKPOINTS,
        "target": _targets,
        "device": _gpus,
        "quant": _precisions("TEXT_TYPES"),
        "vision_quant": _precisions("VISION_TYPES"),
        "onnx_precision": _precisions("ONNX_PRECISIONS"),
        "sam_precision": _precisions("SAM_PRECISIONS"),
        "edgellm_quant": _precisions("EDGELLM_METHODS"),
        "coordinates": _plain(("pixels", "per-mille", "pixels,yx", "per-mille,yx")),
        "picture": _plain(("square", "aspect")),
    },
    ("setup",): {
        **_CHECKPOINTS,
        "device": _devices,
        "bits": _plain(("16", "8", "4")),
        "picture": _plain(("square", "aspect")),
    },
    ("build",): {"device": _gpus},
    ("bag",): {"storage": _plain(("mcap", "sqlite3"))},
    ("bundle",): {"directory": find_bundles, "first": find_bundles, "second": find_bundles},
    ("prompts",): {"source": find_bundles},
    ("prompts", "read"): {"variant": _plain(())},  # NAME=NUMBER
    ("profile", "plan"): {
        "model": _shapes("POLICIES"),
        "quant": _shapes("QUANTS"),
        "sam": _shapes("SEGMENTERS"),
        "device": _shapes("DEVICES"),
        "variant": _plain(("verbose", "wise-infer", "wise-s", "answer")),
    },
}
"""The same for commands, by the words that call them; those of a group are for its commands too."""
_LISTED: Sources = {"dataset": _datasets}
"""Names whose module takes too long to import for a completion."""
