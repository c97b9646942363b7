"""A target is one object in one table: the command lists it, exports with it and refuses what it finds different."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from wise_edge.bundle.manifest import Artifact, Figure
from wise_edge.bundle.store import describe_file, load
from wise_edge.cli.export import EndToEnd
from wise_edge.cli.main import main
from wise_edge.errors import UsageError
from wise_edge.export import targets
from wise_edge.export.options import ExportOptions
from wise_edge.export.pipeline import export_bundle
from wise_edge.export.progress import Progress
from wise_edge.export.source.policy import PolicyCheckpoint
from wise_edge.export.to_onnx import segmenter


class Listing(targets.Target):
    """Writes the layers' number, and reads it again to compare."""

    name = "listing"
    help = "a list"

    def __init__(self) -> None:
        self.error = 0

    def write(
        self, source: PolicyCheckpoint, folder: Path, options: ExportOptions, progress: Progress
    ) -> Iterable[Artifact]:
        (folder / "list.json").write_text(json.dumps(source.spec.num_layers + self.error))
        yield describe_file(folder, "list.json", "policy.list", "json")

    def compare(
        self, source: PolicyCheckpoint, folder: Path, options: ExportOptions, progress: Progress
    ) -> Iterable[Figure]:
        listed = json.loads((folder / "list.json").read_text())
        yield Figure("policy.list", abs(listed - source.spec.num_layers), "layers", at_most=0)

    def finish(self, folder: Path, options: ExportOptions, progress: Progress) -> None:
        progress(f"finishing a list of {len(load(folder).manifest.verification)} figures")


@pytest.fixture
def listing(monkeypatch: pytest.MonkeyPatch) -> Listing:
    """The table with one more target; the segmenter's graphs and the queries have their own tests."""
    target = Listing()
    monkeypatch.setattr(targets, "TARGETS", (*targets.TARGETS, target))
    monkeypatch.setattr(segmenter, "export_onnx", lambda module, example, i, o, path, **_: path.write_bytes(b"graph"))
    monkeypatch.setattr(segmenter.SamSource, "compare", lambda *_: [])
    monkeypatch.setattr(EndToEnd, "__call__", lambda *_: [Figure("mask IoU with torch, mean", 1.0, "IoU")])
    return target


def export(checkpoints: tuple[Path, Path], out: Path, target: str = "listing") -> int:
    policy, sam = map(str, checkpoints)
    return main(["export", "--policy", policy, "--sam", sam, "--target", target, "--samples", "1", "--out", str(out)])


@pytest.mark.parametrize("samples", [0, -1, 1001, 2**31])
def test_samples_are_bounded(samples: int) -> None:
    with pytest.raises(UsageError, match=f"--samples is {samples}; choose 1 to 1000"):
        ExportOptions(samples=samples)


def test_one_object_is_a_target(
    listing: Listing, tiny_checkpoints: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(tiny_checkpoints, tmp_path / "b") == 0

    manifest = load(tmp_path / "b", verify_hashes=True).manifest
    assert manifest.artifacts[0].role == "policy.list"
    assert manifest.verification[0] == Figure("policy.list", 0, "layers", at_most=0)
    assert manifest.verified
    assert "finishing a list of 2 figures" in capsys.readouterr().err


def test_what_it_finds_different_is_not_written(
    listing: Listing, tiny_checkpoints: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing.error = 1

    assert export(tiny_checkpoints, tmp_path / "b") == 5

    assert "policy.list 1 (at most 0)" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("listing")
def test_help_and_errors_name_it(
    tiny_checkpoints: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--help"]) == 0
    assert "listing (a list)" in " ".join(capsys.readouterr().out.replace("│", " ").split())

    assert export(tiny_checkpoints, tmp_path / "b", "onnx,tflite") == 2
    assert "unknown target 'tflite'; choose onnx, gguf, tensorrt, edgellm, listing" in capsys.readouterr().err


def test_a_missing_package_of_a_target_is_named(
    listing: Listing, tiny_checkpoints: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(Listing, "packages", ("a_package_of_nobody",))

    assert export(tiny_checkpoints, tmp_path / "b") == 3

    assert "a_package_of_nobody is not installed; run: pip install 'wise-edge[export]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_family_that_it_cannot_hold_is_refused_with_the_targets_that_can(
    listing: Listing, tiny_checkpoints: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(Listing, "families", ("qwen2_vl",))

    assert export(tiny_checkpoints, tmp_path / "b") == 2

    able = ", ".join(target.name for target in targets.TARGETS if "qwen2_5_vl" in target.families)
    assert f"--target listing cannot hold a qwen2_5_vl policy; choose {able}" in capsys.readouterr().err
    assert able.startswith("onnx, gguf")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("listing")
def test_only_complete_queries_make_a_bundle_verified(tiny_checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    policy, sam = map(str, tiny_checkpoints)
    options = ExportOptions(targets=("listing",), samples=1)
    quiet = lambda *_: None  # noqa: E731
    with pytest.raises(TypeError, match="verify"):
        export_bundle(policy, sam, tmp_path / "b", options, progress=quiet)  # type: ignore[call-arg]

    compared = export_bundle(policy, sam, tmp_path / "a", options, verify=lambda *_: [], progress=quiet)
    skipped = export_bundle(policy, sam, tmp_path / "b", options, verify=None, progress=quiet)

    assert [figure.what for figure in compared.verification] == ["policy.list"]
    assert (compared.verified, skipped.verified, skipped.verification) == (False, False, ())


def test_targets_come_after_those_that_they_build_on() -> None:
    found = targets.find_targets(["edgellm", "tensorrt"])

    assert [target.name for target in found] == ["onnx", "tensorrt", "edgellm"]
    for place, target in enumerate(targets.TARGETS):
        assert set(target.builds_on) <= {earlier.name for earlier in targets.TARGETS[:place]}
    with pytest.raises(UsageError, match="unknown target 'hf'"):
        targets.find_targets(["onnx", "hf"])
