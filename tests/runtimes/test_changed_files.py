"""A bundle that changes under a running session: replaced, it is the old one to it; altered in place, it is an error.

Without these checks an altered table gives other answers, and a cut one ends the process with SIGBUS.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from wise_edge.bundle.roles import EMBEDDING, GGUF_TEXT, GGUF_VISION
from wise_edge.bundle.store import describe_file, load, resolve_bundle, resolve_checkpoint, write_manifest
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.errors import BundleError
from wise_edge.files import mapped
from wise_edge.files.writing import replacing_folder
from wise_edge.runtimes.session import Session

SCENE = SceneDataset("test")[0]
BACKENDS = {"onnx": EMBEDDING, "llama": GGUF_TEXT}
"""Backends with the file that they map if it is large."""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded bundle, with files for llama.cpp if that is installed."""
    folder = Path(shutil.copytree(resolve_bundle(None), tmp_path_factory.mktemp("bundles") / "both"))
    if find_spec("llama_cpp") is not None:
        from wise_edge.export.to_gguf.convert import PolicyGguf

        policy, files = (
            PolicyGguf(resolve_checkpoint("embedded", "policy")),
            {"t.gguf": GGUF_TEXT, "v.gguf": GGUF_VISION},
        )
        policy.write_text(folder / "t.gguf", "F16", lambda *_: None)
        policy.write_vision(folder / "v.gguf", "F16", lambda *_: None)
        added = [describe_file(folder, name, role, "gguf", "F16") for name, role in files.items()]
        manifest = load(folder).manifest
        write_manifest(folder, replace(manifest, artifacts=(*manifest.artifacts, *added)))
    return folder


@pytest.fixture
def bundle(both: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(both, tmp_path / "bundle"))


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    pytest.importorskip({"onnx": "onnxruntime", "llama": "llama_cpp"}[name])
    return name


@pytest.fixture
def all_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "MAPPED_ABOVE_BYTES", 0)


def open_session(bundle: Path, backend: str) -> Session:
    return Session.from_bundle(bundle, policy_backend=backend, mask_backend="onnx", threads=1)


def ask(session: Session) -> tuple[Any, ...]:
    session.forget()
    result = session.segment(SCENE.image, SCENE.query)
    assert result.mask is not None
    return result.rationale, result.box, result.points, int(result.mask.sum())


def is_mapped_now(file: Path) -> bool:
    return str(file) in Path("/proc/self/maps").read_text()


def overwrite(file: Path) -> None:
    """Write other content of the same size into a file, as `cp` over it does."""
    with file.open("r+b") as stream:
        stream.write(bytes(file.stat().st_size))


def test_small_files_are_read_and_may_change(bundle: Path, backend: str) -> None:
    session = open_session(bundle, backend)
    first = ask(session)
    file = load(bundle).file(BACKENDS[backend])
    assert not is_mapped_now(file)
    overwrite(file)
    os.truncate(file, 0)
    assert ask(session) == first


@pytest.mark.parametrize("change", [overwrite, lambda file: os.truncate(file, 0)], ids=["overwritten", "cut"])
@pytest.mark.usefixtures("all_mapped")
def test_a_mapped_file_that_changes_in_place_is_an_error(
    bundle: Path, backend: str, change: Callable[[Path], None]
) -> None:
    session = open_session(bundle, backend)
    ask(session)
    file = load(bundle).file(BACKENDS[backend])
    assert is_mapped_now(file)
    change(file)
    for call in (
        lambda: ask(session),
        lambda: session.segment_many(SCENE.image, [SCENE.query]),
        lambda: session.find_mask(SCENE.image, (1, 1, 9, 9), ()),
    ):
        with pytest.raises(BundleError, match=f"{file.name} was altered while it is in use"):
            call()


@pytest.mark.usefixtures("all_mapped")
def test_an_answer_of_files_that_change_meanwhile_is_dropped(
    bundle: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part, method in (("policy", "generate"), ("mask", "decode_many")):
        session = open_session(bundle, backend)
        whole = getattr(getattr(session, part), method)

        def change_meanwhile(*arguments: Any, whole: Any = whole) -> Any:
            os.utime(load(bundle).file(BACKENDS[backend]))
            return whole(*arguments)

        monkeypatch.setattr(getattr(session, part), method, change_meanwhile)
        with pytest.raises(BundleError, match="was altered while it is in use"):
            ask(session) if part == "policy" else session.find_mask(SCENE.image, (1, 1, 9, 9), ())


@pytest.mark.usefixtures("all_mapped")
def test_a_bundle_that_is_replaced_stays_what_it_was(bundle: Path, backend: str) -> None:
    session = open_session(bundle, backend)
    first = ask(session)
    file = load(bundle).file(BACKENDS[backend])
    with replacing_folder(bundle) as fresh:  # as export --force does
        shutil.copytree(resolve_bundle("embedded-start"), fresh, dirs_exist_ok=True)
    assert ask(session) == first
    assert ask(open_session(bundle, "onnx")) != first
    shutil.rmtree(bundle)
    assert not file.exists()
    assert ask(session) == first
