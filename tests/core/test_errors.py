"""Errors carry their exit code; a missing extra is reported with the command that installs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from wise_edge import errors
from wise_edge.extras import check_packages, require

EXIT_CODES = {
    errors.WiseEdgeError: 1,
    errors.UsageError: 2,
    errors.MissingExtraError: 3,
    errors.DeviceError: 4,
    errors.VerificationError: 5,
    errors.BundleError: 1,
    errors.QueryCancelledError: 1,
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


def test_require_does_not_hide_what_an_installed_module_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_installed.py").write_text("import its_own_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="its_own_dependency"):
        require("half_installed", extra="onnx")


def test_check_packages_names_the_first_missing_one_and_imports_none() -> None:
    check_packages("data", "os", "this")
    assert "this" not in sys.modules
    with pytest.raises(errors.MissingExtraError, match=r"^no_such_package .* pip install 'wise-edge\[data\]'"):
        check_packages("data", "os", "no_such_package", "nor_such_a_one")


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("the key 'a\nb' is unknown", "the key 'a b' is unknown"),
        ("the red\x1b[31m \u2028 mug\0", "the red\\x1b[31m   mug\\x00"),
        ("half \ud800 a character", "half \\ud800 a character"),
        ("Größe, 大きさ", "Größe, 大きさ"),
    ],
)
def test_a_message_is_one_line_that_a_terminal_can_show(message: str, line: str) -> None:
    assert str(errors.UsageError(message)) == line
    assert line.encode()


def test_a_message_says_what_to_do_however_long_its_quotation() -> None:
    message = f"x.json: '{'9' * 100_000}' is not a number; copy it again"
    shown = str(errors.BundleError(message))
    assert len(shown) == errors.BundleError.longest
    assert shown.startswith("x.json: '999") and shown.endswith("' is not a number; copy it again")


def test_a_check_names_all_that_it_found() -> None:
    faults = "; ".join(f"policy.layer{number}.engine was altered: the sha256 differs" for number in range(40))
    assert str(errors.VerificationError(faults)) == faults


@pytest.mark.parametrize(
    ("message", "line"), [("one\ntwo", "one"), ("\n  \n two \nthree", "two"), ("", "ValueError"), (" \n", "ValueError")]
)
def test_the_first_line_of_an_error(message: str, line: str) -> None:
    assert errors.first_line(ValueError(message)) == line
