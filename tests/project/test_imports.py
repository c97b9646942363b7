"""Every module imports with the core dependencies alone; `import wise_edge` needs next to nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

IMPORT_ALL = """
import importlib, pkgutil, sys

class Refuse:
    '''Hides every third-party module that the core installed alone does not bring.'''

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

allowed = set(sys.argv[1].split(",")) | sys.stdlib_module_names | {"wise_edge"}
sys.meta_path.insert(0, Refuse())

import wise_edge
for module in pkgutil.walk_packages(wise_edge.__path__, "wise_edge."):
    if module.name != "wise_edge.__main__":
        importlib.import_module(module.name)
        print(module.name)
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


def test_every_module_imports_with_the_core_alone() -> None:
    core = _core_distributions()
    assert "numpy" in core
    assert "torch" not in core
    modules = [
        module
        for module, distributions in packages_distributions().items()
        if core & {canonicalize_name(name) for name in distributions}
    ]
    imported = _run(IMPORT_ALL, ",".join(modules)).split()
    assert {"wise_edge.cli.main", "wise_edge.export", "wise_edge.runtimes.base", "wise_edge.training"} <= set(imported)


def test_importing_the_package_needs_numpy_and_pillow_at_most() -> None:
    third_party = set(json.loads(_run(LIST_MODULES))) - sys.stdlib_module_names - {"wise_edge"}
    assert third_party <= {"numpy", "PIL"}
