"""Errors carry their exit code and say how to mend; files are written whole or not at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from wise_edge import errors
from wise_edge.extras import check_packages, require
from wise_edge.files import atomic_write

EXIT_CODES = {
    errors.WiseEdgeError: 1,
    errors.UsageError: 2,
    errors.MissingExtraError: 3,
    errors.DeviceError: 4,
    errors.VerificationError: 5,
    errors.BundleError: 1,
}


@pytest.mark.parametrize(("kind", "code"), EXIT_CODES.items())
def test_exit_codes(kind: type[errors.WiseEdgeError], code: int) -> None:
    assert issubclass(kind, errors.WiseEdgeError)
    assert kind.exit_code == code
    assert kind.__name__ in (errors.__doc__ or "")


def test_require_returns_the_module() -> None:
    assert require("os.path", extra="onnx") is os.path


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.inner", "wise_edge.no_such_module"])
def test_require_names_the_pip_line(module: str) -> None:
    with pytest.raises(errors.MissingExtraError, match=r"run: pip install 'wise-edge\[onnx\]'") as caught:
        require(module, extra="onnx")
    assert str(caught.value).startswith(f"{module} is not installed")


def test_require_does_not_hide_what_an_installed_module_misses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_installed.py").write_text("import its_own_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="its_own_dependency"):
        require("half_installed", extra="onnx")


def test_check_packages_names_the_first_missing_one_and_imports_none() -> None:
    check_packages("train", "os", "this")
    assert "this" not in sys.modules
    with pytest.raises(errors.MissingExtraError, match=r"^no_such_package .* pip install 'wise-edge\[train\]'"):
        check_packages("train", "os", "no_such_package", "nor_such_a_one")


def test_atomic_write_makes_an_ordinary_file(tmp_path: Path) -> None:
    target = tmp_path / "result.bin"
    atomic_write(target, b"whole")
    assert target.read_bytes() == b"whole"
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert target.stat().st_mode == ordinary.stat().st_mode


def test_atomic_write_replaces_only_when_forced(tmp_path: Path) -> None:
    target = tmp_path / "result.bin"
    target.write_bytes(b"old")
    with pytest.raises(errors.UsageError, match="use --force"):
        atomic_write(target, b"new")
    assert target.read_bytes() == b"old"
    atomic_write(target, b"new", force=True)
    assert target.read_bytes() == b"new"


def test_atomic_write_names_what_is_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match="is a folder"):
        atomic_write(tmp_path, b"")
    with pytest.raises(errors.UsageError, match="does not exist; create it first"):
        atomic_write(tmp_path / "missing" / "result.bin", b"")


def test_atomic_write_leaves_nothing_behind_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wise_edge.files.os.fsync", full_disk)
    with pytest.raises(errors.UsageError, match=r"cannot write .*: No space left on device"):
        atomic_write(tmp_path / "result.bin", b"half")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_atomic_write_reports_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(errors.UsageError, match="Permission denied"):
        atomic_write(tmp_path / "result.bin", b"")
