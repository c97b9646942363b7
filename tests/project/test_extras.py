"""Which extra installs with which Python: one table, which pyproject.toml, README, the documents and messages follow.

`scripts/resolve_extras.py` holds the table against the package index, every week in CI; here a few of its combinations.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

from locations import ROOT
from wise_edge import extras
from wise_edge.cli.main import main
from wise_edge.errors import DeviceError, MissingExtraError
from wise_edge.extras import PYTHON_LIMITS, check_python

tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")

PYPROJECT = (ROOT / "pyproject.toml").read_text()
EXTRAS = tomllib.loads(PYPROJECT)["project"]["optional-dependencies"]
SCRIPT = ROOT / "scripts/resolve_extras.py"


def _table(page: Path, column: str) -> dict[str, str]:
    """Return the named column of a page's table of extras, by the names in backticks of the first column."""
    found: dict[str, str] = {}
    for block in re.findall(r"^\| extra \|.*?(?:\n\n|\Z)", page.read_text(), re.DOTALL | re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in block.strip().splitlines())
        for row in rows:
            found |= dict.fromkeys(re.findall(r"`([\w-]+)`", row[0]), row[head.index(column)])
    return found


def _declared(extra: str) -> str:
    return ", ".join(map(str, PYTHON_LIMITS.get(extra, ())))


def test_the_limits_are_of_extras() -> None:
    assert set(PYTHON_LIMITS) <= set(EXTRAS)


def test_the_documents_show_the_limits() -> None:
    shown = _table(ROOT / "docs/extras.md", "Python")
    assert shown == {extra: _declared(extra) for extra in EXTRAS}
    short = _table(ROOT / "README.md", "Python")
    assert {extra: text.partition(":")[0] for extra, text in short.items()} == {
        extra: _declared(extra) for extra in PYTHON_LIMITS
    }


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: f"extra-{extra}")  # "gpu" alone names a marker
def test_markers_leave_out_packages_exactly_where_the_limits_say_so(extra: str) -> None:
    requirements = [Requirement(line) for line in EXTRAS[extra]]
    for python, machine in product(("3.10", "3.11", "3.12", "3.13", "3.14"), ("x86_64", "aarch64")):
        environment = {"python_version": python, "platform_machine": machine, "sys_platform": "linux"}
        kept = all(line.marker is None or line.marker.evaluate(environment) for line in requirements)
        version = (int(python.split(".")[0]), int(python.split(".")[1]))
        allowed = all(limit.allows(version, machine) for limit in PYTHON_LIMITS.get(extra, ()))
        assert kept == allowed, (python, machine)


def _pretend(monkeypatch: pytest.MonkeyPatch, minor: int, machine: str) -> None:
    monkeypatch.setattr("sys.version_info", (3, minor, 12, "final", 0))
    monkeypatch.setattr(extras.platform, "machine", lambda: machine)


@pytest.mark.parametrize(
    ("extra", "minor", "machine", "message"),
    [
        ("dora", 10, "x86_64", "the extra 'dora' needs Python 3.11 or later, and this is 3.10"),
        ("edgellm", 13, "x86_64", "the extra 'edgellm' needs Python 3.10 to 3.12, and this is 3.13"),
        ("gpu", 10, "aarch64", "the extra 'gpu' needs Python 3.11 or later on aarch64, and this is 3.10"),
        ("gpu", 10, "x86_64", "run: pip install 'wise-edge[gpu]'"),
        ("dora", 11, "aarch64", "run: pip install 'wise-edge[dora]'"),
        ("tensorrt", 12, "aarch64", "the extra 'tensorrt' installs nothing on aarch64: on a Jetson run: sudo apt "),
    ],
)
def test_a_missing_package_is_not_advised_where_pip_would_leave_it_out(
    extra: str, minor: int, machine: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend(monkeypatch, minor, machine)
    assert str(MissingExtraError("some_package", extra)).startswith(f"some_package is not installed; {message}")


def test_a_command_names_the_python_before_any_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _pretend(monkeypatch, 10, "x86_64")
    out = str(tmp_path / "out")
    assert main(["export", "--policy", "embedded", "--sam", "embedded", "--target", "onnx", "--out", out]) == 4
    assert "the extra 'export' needs Python 3.11 or later, and this is 3.10" in capsys.readouterr().err
    with pytest.raises(DeviceError, match="run it with another interpreter"):
        check_python("train")
    check_python("onnx")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """`scripts/resolve_extras.py`, or a skip if it can ask no index."""
    spec = importlib.util.spec_from_file_location("resolve_extras", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if module.find_uv() is None:
        pytest.skip("uv is not installed")
    if failure := module.resolve(["rich"], "3.12", "x86_64")[1]:
        pytest.skip(f"the package index does not answer: {failure}")
    return module


@pytest.mark.slow
def test_an_extra_resolves_where_it_is_declared_to_and_nowhere_else(script: ModuleType) -> None:
    assert script.judge("ros", "3.10", "aarch64")[1] is None
    assert script.judge("dora", "3.10", "x86_64") == ("excluded: 3.11 or later", None)
    assert script.resolve(EXTRAS["dora"], "3.11", "x86_64")[0] >= {"dora-rs", "pyarrow"}


@pytest.mark.slow
def test_a_table_that_the_index_contradicts_is_noticed(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "PYTHON_LIMITS", {"ros": (extras.PythonLimit((3, 12)),)})
    assert "it resolves now" in script.judge("ros", "3.11", "x86_64")[1]
    assert script.judge("dora", "3.10", "x86_64")[1] == "its markers leave out dora-rs"
    monkeypatch.setitem(script.EXTRAS, "dora", ["dora-rs>=1.0"])
    assert "dora-rs>=1.0" in script.judge("dora", "3.10", "x86_64")[1]


@pytest.mark.slow
def test_uv_locks_all_extras_for_all_pythons_together(script: ModuleType, tmp_path: Path) -> None:
    """In a folder of its own: a lock names the index that was asked, which must not get into the repository."""
    project = PYPROJECT.partition("[tool.setuptools]")[0].replace('dynamic = ["version"]', 'version = "0"')
    (tmp_path / "pyproject.toml").write_text(project.replace('readme = "README.md"', ""))
    command = [script.find_uv(), "lock", "--no-config", "--no-python-downloads"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    locked = re.findall(r'^name = "(.+)"$', (tmp_path / "uv.lock").read_text(), re.MULTILINE)
    assert {script.package_name(line) for lines in EXTRAS.values() for line in lines} <= set(locked)
