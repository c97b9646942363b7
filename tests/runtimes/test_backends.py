"""A backend is one row of the table: everything that lists, chooses, explains or opens backends reads it there."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fake_session import ROW, UNINSTALLED
from locations import SUPPORT
from wise_edge.bundle.store import EMBEDDED, load, resolve_bundle
from wise_edge.cli.main import main
from wise_edge.errors import DeviceError, MissingExtraError
from wise_edge.images import save_png
from wise_edge.runtimes import backends
from wise_edge.runtimes.backends import BACKENDS
from wise_edge.runtimes.dispatch import DeviceCapabilities, list_candidates, list_rejected

MANIFEST = load(resolve_bundle(EMBEDDED)).manifest
READY = DeviceCapabilities(("numpy",), ("fictional",))


@pytest.fixture
def image(tmp_path: Path) -> str:
    save_png(np.full((56, 56, 3), 128, np.uint8), tmp_path / "image.png")
    return str(tmp_path / "image.png")


def register(monkeypatch: pytest.MonkeyPatch, row: backends.Backend = ROW) -> None:
    monkeypatch.setattr(backends, "BACKENDS", (row, *BACKENDS))


def test_auto_chooses_it_and_run_explains_why(
    image: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register(monkeypatch)
    assert main(["run", image, "the ring", "--explain"]) == 0
    out = capsys.readouterr().out
    assert "policy fictional: the fictional runtime is installed" in out
    assert "mask fictional: the fictional runtime is installed" in out


def test_a_name_chooses_it_for_one_part(
    image: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backends, "BACKENDS", (*BACKENDS, ROW))
    run = ["run", image, "the ring", "--json", "--mask-backend", "onnx"]
    assert main([*run, "--policy-backend", "fictional"]) == 0
    chosen = json.loads(capsys.readouterr().out)["backends"]
    assert (chosen["policy"]["name"], chosen["mask"]["name"]) == ("fictional", "onnx")
    assert chosen["policy"]["reason"] == "asked for by name"


def test_dispatch_rejects_it_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)
    assert list_candidates(MANIFEST, READY, "policy")[0] is ROW
    with pytest.raises(MissingExtraError, match=r"numpy is not installed; run: pip install 'wise-edge\[fiction\]'"):
        list_candidates(MANIFEST, DeviceCapabilities(()), "mask", "fictional")
    with pytest.raises(DeviceError, match="built for nothing; build it again"):
        list_candidates(MANIFEST, DeviceCapabilities(("numpy",)), "mask", "fictional")
    bare = replace(MANIFEST, artifacts=())
    with pytest.raises(
        DeviceError, match=r"no policy\.decoder for the fictional runtime; export it with --target fiction"
    ):
        list_candidates(bare, READY, "policy", "fictional")
    assert list_rejected(MANIFEST, DeviceCapabilities(("numpy",)), "mask", "onnx")[0].startswith("fictional: this")


def test_doctor_lists_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    register(monkeypatch)
    assert main(["doctor", "--json"]) == 0
    found = {finding["name"]: finding["data"] for finding in json.loads(capsys.readouterr().out)}
    assert found["policy backends"]["available"][0] == found["mask backends"]["available"][0] == "fictional"

    register(monkeypatch, UNINSTALLED)
    assert main(["doctor", "--json"]) == 0
    found = {finding["name"]: finding["data"] for finding in json.loads(capsys.readouterr().out)}
    assert "no_such_package is not installed" in found["policy backends"]["lacking"]["fictional"]
    assert "fictional" not in {*found["mask backends"]["available"], *found["mask backends"]["lacking"]}


def test_help_names_it() -> None:
    """Typer reads help texts when the commands are imported, so a process registers the row before that."""
    code = (
        f"import sys; sys.path.insert(0, {str(SUPPORT)!r})\n"
        "from wise_edge.runtimes import backends\n"
        "from fake_session import ROW\n"
        "backends.BACKENDS = (*backends.BACKENDS, ROW)\n"
        "from wise_edge.cli.main import main\n"
        "main(['run', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    words = " ".join(done.stdout.replace("│", " ").split())
    assert "policy: auto, tensorrt, edgellm, onnx-cuda, llama-gpu, onnx, llama, torch or fictional." in words
    assert "segmenter: auto, tensorrt, onnx-cuda, onnx, torch or fictional." in words


def test_an_export_is_compared_on_the_cpu_backends_that_it_has_files_for() -> None:
    onnx, llama = (backends.find_backend(name).parts["policy"].roles for name in ("onnx", "llama"))
    assert backends.list_cpu_policies(onnx) == ["onnx"]
    assert backends.list_cpu_policies({*onnx, *llama, "engines.plan"}) == ["onnx", "llama"]
    assert backends.list_cpu_policies(["sam.decoder"]) == []


def test_each_row_names_modules_that_open_its_parts() -> None:
    for row in BACKENDS:
        for part, support in row.parts.items():
            assert callable(getattr(importlib.import_module(support.module), f"open_{part}")), (row.name, part)
