"""What all tests share: no network, no deadlines for hypothesis, device tests skipped where the device is missing."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import settings

import wise_edge  # noqa: F401 - switches telemetry off before a test imports onnxruntime itself

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported; nothing here may fetch from a hub
os.environ["WISE_EDGE_CONFIG"] = "none"  # what a developer keeps in files is none of the tests' business
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch: tests run side by side, and tiny models gain nothing

# Shared machines stall for longer than the default 200 ms. CI draws the same examples every time: what is new there
# is then the change, and a new example is found at a desk.
settings.register_profile("wise-edge", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("wise-edge")

DEVICES = {
    "gpu": (shutil.which("nvidia-smi") is not None, "needs an NVIDIA GPU (no nvidia-smi found)"),
    "jetson": (Path("/etc/nv_tegra_release").exists(), "needs an NVIDIA Jetson (no /etc/nv_tegra_release)"),
}
"""Marker -> (the device is here, reason for skipping)."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker, (present, reason) in DEVICES.items():
            if marker in item.keywords and not present:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_unconfigure() -> None:
    """Close the two files on /dev/null that `llama_cpp._utils` opens when it is imported and never closes."""
    if (utils := sys.modules.get("llama_cpp._utils")) is not None:
        utils.outnull_file.close()
        utils.errnull_file.close()


@pytest.fixture(scope="session")
def tiny_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a policy and a segmenter with random weights."""
    from tiny_models import save_checkpoints  # torch and transformers: only for the tests that need them

    return save_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoints: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle exported from `tiny_checkpoints`, verified."""
    from wise_edge.cli.export import EndToEnd
    from wise_edge.export.options import ExportOptions
    from wise_edge.export.pipeline import export_bundle

    policy, sam = map(str, tiny_checkpoints)
    target = tmp_path_factory.mktemp("bundles") / "tiny"
    options = ExportOptions(samples=2)
    export_bundle(policy, sam, target, options, verify=EndToEnd(sam, target), progress=lambda *_: None)
    return target
