"""No output replaces an input of the same command, whatever name or link leads to it, even with --force."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fake_session
from locations import ASSETS
from wise_edge.cli.main import main
from wise_edge.errors import UsageError
from wise_edge.files.targets import check_folder_target, check_target, refuse_input


def same(folder: Path) -> Path:
    return folder / "input.png"


def spelled_otherwise(folder: Path) -> Path:
    (folder / "sub").mkdir()
    return folder / "sub" / ".." / "input.png"


def relative(folder: Path) -> Path:
    return Path(os.path.relpath(folder / "input.png"))


def symbolic(folder: Path) -> Path:
    (folder / "link.png").symlink_to("input.png")
    return folder / "link.png"


def hard(folder: Path) -> Path:
    (folder / "link.png").hardlink_to(folder / "input.png")
    return folder / "link.png"


def through_a_linked_folder(folder: Path) -> Path:
    (folder / "other").symlink_to(folder)
    return folder / "other" / "input.png"


WAYS = [same, spelled_otherwise, relative, symbolic, hard, through_a_linked_folder]


@pytest.mark.parametrize("way", WAYS)
def test_run_never_replaces_its_image(
    way: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_session.install(monkeypatch)
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(tmp_path / "input.png")
    before, target = (tmp_path / "input.png").read_bytes(), way(tmp_path)
    for option in ("--overlay", "--mask"):
        assert main(["run", str(tmp_path / "input.png"), "the red ring", option, str(target), "--force"]) == 2
        assert f"{target} would replace what this command reads" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "input.png").read_bytes() == before
    other = tmp_path / "other.png"
    assert main(["run", str(tmp_path / "input.png"), "the red ring", "--overlay", str(other), "--force"]) == 0


def test_an_image_that_is_a_link_keeps_its_file(tmp_path: Path) -> None:
    symbolic(tmp_path)
    (tmp_path / "input.png").touch()
    with pytest.raises(UsageError, match="would replace"):
        check_target(tmp_path / "input.png", force=True, keep=[tmp_path / "link.png"])


def test_a_file_in_an_input_folder_is_kept_and_a_new_one_may_join(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.json").touch()
    inputs = [tmp_path / "data", None, tmp_path / "missing"]
    with pytest.raises(UsageError, match="would replace"):
        check_target(tmp_path / "data" / "a.json", force=True, keep=inputs)
    check_target(tmp_path / "data" / "records.jsonl", keep=inputs)


def test_a_folder_that_is_or_holds_an_input_is_kept(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for name in ("bundle.json", "sam.pth"):
        (bundle / name).touch()
    (tmp_path / "alias").symlink_to(bundle)
    for source in (bundle, bundle / "sam.pth", tmp_path / "alias"):
        with pytest.raises(UsageError, match="would replace"):
            check_folder_target(bundle, marker="bundle.json", force=True, keep=[source])
    with pytest.raises(UsageError, match="would replace"):
        check_folder_target(tmp_path / "alias", marker="bundle.json", force=True, keep=[bundle / "sam.pth"])
    check_folder_target(bundle, marker="bundle.json", force=True, keep=[tmp_path])  # what lies around it stays
    refuse_input(tmp_path / "new", [bundle])


def test_reports_and_records_never_replace_a_bundles_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = shutil.copytree(ASSETS / "embedded", tmp_path / "bundle")
    manifest = bundle / "bundle.json"
    before = manifest.read_bytes()
    for command in (["profile"], ["evaluate", "--limit", "1"]):
        assert main([*command, "--bundle", str(bundle), "--out", str(manifest), "--force"]) == 2
        assert "would replace what this command reads" in " ".join(capsys.readouterr().err.split())
    assert manifest.read_bytes() == before


def test_demo_never_replaces_its_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("contact-sheet.png", "own-verbose.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
        assert main(["demo", "--image", str(tmp_path / name), "--query", "it", "--out", str(tmp_path)]) == 2
        assert "would replace what this command reads" in " ".join(capsys.readouterr().err.split())


def test_export_never_replaces_its_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = shutil.copytree(ASSETS / "embedded-policy", tmp_path / "policy")
    (policy / "bundle.json").touch()
    before = {file: file.read_bytes() for file in policy.iterdir()}
    adapter = ["--adapter", str(tmp_path / "adapter")]
    for options in (["--sam", "embedded"], ["--target", "hf", *adapter]):
        assert main(["export", "--policy", str(policy), *options, "--out", str(policy), "--force"]) == 2
        assert "would replace what this command reads" in " ".join(capsys.readouterr().err.split())
    assert {file: file.read_bytes() for file in policy.iterdir()} == before


def test_a_training_never_replaces_the_policy_it_starts_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = shutil.copytree(ASSETS / "embedded-policy", tmp_path / "policy")
    for recipe, key in (("embedded-lengths", "start"), ("wise-embedded", "model")):
        command = ["train", "--recipe", recipe, "--set", f"{key}={policy}", "--out", str(tmp_path)]
        assert main(command) == 2
        assert "would replace what this command reads" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "recipe.yaml").exists()
