"""What imports with the core alone, and what names its extra; `import wise_edge` imports no other package."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import packages_distributions, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import wise_edge
from wise_edge.bundle import store
from wise_edge.runtimes import session

EXTRAS = {
    "export": {
        *(f"wise_edge.export.{name}" for name in ("pipeline", "source", "to_gguf", "to_onnx")),
    },
    "edgellm": {"wise_edge.export.to_edgellm"},
    "train": {f"wise_edge.training.{name}" for name in ("common", "distill", "plan", "sam", "sft", "wise")},
}
"""Extra -> packages and modules that need it; everything outside of them imports with the core alone."""

IMPORT_ALL = """
import importlib, json, pkgutil, sys

class CoreOnly:
    '''A finder that does not see the third-party modules that the core installed alone does not bring.'''

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return self.finder.find_spec(name, path, target) if name.partition(".")[0] in allowed else None

allowed = set(sys.argv[1].split(",")) | sys.stdlib_module_names | {"wise_edge"}
sys.meta_path[:] = map(CoreOnly, sys.meta_path)

import wise_edge
from wise_edge.errors import MissingExtraError

needed = {}
for module in pkgutil.walk_packages(wise_edge.__path__, "wise_edge.", onerror=lambda name: None):
    if module.name != "wise_edge.__main__":
        try:
            importlib.import_module(module.name)
            needed[module.name] = None
        except MissingExtraError as error:
            needed[module.name] = error.extra
print(json.dumps(needed))
"""

LIST_MODULES = """
import json, sys
before = set(sys.modules)
import wise_edge
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def _run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _core_distributions() -> set[str]:
    """Return wise-edge's dependencies without extras, and theirs, as canonical names."""
    found: set[str] = set()
    waiting = ["wise-edge"]
    while waiting:
        for line in requires(waiting.pop()) or []:
            requirement = Requirement(line)
            name = canonicalize_name(requirement.name)
            if name not in found and (not requirement.marker or requirement.marker.evaluate({"extra": ""})):
                found.add(name)
                waiting.append(name)
    return found


def test_modules_import_with_the_core_alone_or_name_their_extra() -> None:
    core = _core_distributions()
    assert "numpy" in core
    assert "torch" not in core
    modules = [
        module
        for module, distributions in packages_distributions().items()
        if core & {canonicalize_name(name) for name in distributions}
    ]
    needed = json.loads(_run(IMPORT_ALL, ",".join(modules)))
    for extra, packages in EXTRAS.items():
        assert {name for name, missing in needed.items() if missing == extra} == packages
    assert set(needed.values()) == {None, *EXTRAS}
    assert {"wise_edge.cli.main", "wise_edge.export", "wise_edge.runtimes.base", "wise_edge.training"} <= set(needed)


def test_importing_the_package_imports_no_other_package() -> None:
    assert set(json.loads(_run(LIST_MODULES))) - sys.stdlib_module_names == {"wise_edge"}


def test_public_names_are_imported_when_they_are_used() -> None:
    types = {"Session", "Decoding", "SegmentationResult", "Stamped", "Segmenter", "MaskPrompt", "GridOptions"}
    functions = {"load_image", "load_bundle"}
    assert {*types, *functions, "open_video", "to_coco"} == set(wise_edge.__all__)
    assert {*wise_edge.__all__, "__version__"} == set(dir(wise_edge))
    for name in wise_edge.__all__:
        assert callable(getattr(wise_edge, name))
    assert wise_edge.Session is session.Session
    assert wise_edge.load_bundle is store.load
    with pytest.raises(AttributeError, match="module 'wise_edge' has no attribute 'Sessions'"):
        wise_edge.Sessions  # noqa: B018
