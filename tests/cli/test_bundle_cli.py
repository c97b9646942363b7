"""`wise-edge bundle` and the model card show what a bundle contains, what is wrong with it and how two differ."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from wise_edge.bundle.card import render_card
from wise_edge.bundle.diff import compare_manifests, wording_changes
from wise_edge.bundle.manifest import CARD_NAME, Manifest
from wise_edge.bundle.store import check_space, creation_time, load, resolve_bundle, write_manifest
from wise_edge.cli.main import main
from wise_edge.errors import BundleError, UsageError
from wise_edge.files.hashing import hash_file
from wise_edge.files.writing import replacing_folder
from wise_edge.policy.picture import PictureGeometry
from wise_edge.policy.prompts import PromptSet, Template

EMBEDDED = resolve_bundle("embedded")


@pytest.fixture
def manifest() -> Manifest:
    return load(EMBEDDED).manifest


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    target = tmp_path / "b"
    shutil.copytree(EMBEDDED, target)
    return target


def rewrite(bundle: Path, **changes: object) -> None:
    write_manifest(bundle, replace(load(bundle).manifest, **changes))  # type: ignore[arg-type]


def test_show_prints_the_manifest_as_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "show", "--json"]) == 0

    shown = json.loads(capsys.readouterr().out)
    assert shown.pop("sha256") == hash_file(EMBEDDED / "bundle.json")
    assert Manifest.from_dict(shown) == Manifest.from_dict(json.loads((EMBEDDED / "bundle.json").read_text()))


def test_show_names_every_file_and_figure(manifest: Manifest, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "show", "embedded"]) == 0

    printed = capsys.readouterr().out
    assert all(artifact.path in printed for artifact in manifest.artifacts)
    judged = [figure for figure in manifest.verification if (figure.at_least, figure.at_most) != (None, None)]
    assert printed.count("passed") == len(judged)


def test_a_whole_bundle_verifies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "verify", "embedded", "--require-verified", "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["verified"] is True


def failing(bundle: Path) -> None:
    figure = replace(load(bundle).manifest.verification[0], value=1.0)
    rewrite(bundle, verification=(figure,))


def damage(bundle: Path) -> dict[str, str]:
    """Damage each file in another way; return what must be said of each."""
    failing(bundle)
    data = bytearray((bundle / "sam.encoder.onnx").read_bytes())
    data[100] ^= 1
    (bundle / "sam.encoder.onnx").write_bytes(bytes(data))
    (bundle / "sam.decoder.onnx").unlink()
    (bundle / "policy.vision.onnx").write_bytes(b"")
    (bundle / "policy.decoder.onnx").unlink()
    (bundle / "policy.decoder.onnx").symlink_to(__file__)
    return {
        "sam.encoder.onnx": "was altered",
        "sam.decoder.onnx": "is missing",
        "policy.vision.onnx": "has 0 bytes",
        "policy.decoder.onnx": "outside the bundle",
        "check": "failed",
    }


def test_everything_that_is_wrong_is_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = damage(bundle)

    assert main(["bundle", "verify", str(bundle), "--require-verified"]) == 5

    error = capsys.readouterr().err
    assert error.count("\n") == 1
    faults = error.split("; ")
    assert len(faults) == len(said) + 1  # and the remedy
    for name, words in said.items():
        assert any(name in fault and words in fault for fault in faults), name


def test_faults_are_listed_as_json(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = damage(bundle)

    assert main(["bundle", "verify", str(bundle), "--json"]) == 5

    assert len(json.loads(capsys.readouterr().out)["faults"]) == len(said)


@pytest.mark.parametrize("text", [None, "", "{", "[]"])
def test_a_damaged_manifest_is_a_fault(bundle: Path, text: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "bundle.json").unlink()
    if text is not None:
        (bundle / "bundle.json").write_text(text)

    assert main(["bundle", "verify", str(bundle)]) == 5
    assert "bundle.json" in capsys.readouterr().err
    assert main(["bundle", "verify", str(bundle / "nowhere")]) == 2


def test_files_that_nobody_named_are_noted(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / CARD_NAME).write_text("a card belongs to it")
    (bundle / "notes.txt").write_text("mine")

    assert main(["bundle", "verify", str(bundle)]) == 0

    out, err = capsys.readouterr()
    files = len(json.loads((bundle / "bundle.json").read_text())["artifacts"])
    assert out.startswith(f"{bundle} is intact: all {files} hashes match; ")
    noted = err.splitlines()
    assert len(noted) == 1
    assert "notes.txt is not part of the bundle" in noted[0]


UNFIT: dict[str, tuple[Callable[[Path], None], list[str], int, str]] = {
    "figure": (failing, [], 5, "policy.vision"),
    "unverified": (lambda b: rewrite(b, verified=False, verification=()), [], 0, "never compared"),
    "required": (lambda b: rewrite(b, verified=False, verification=()), ["--require-verified"], 5, "never compared"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_was_recorded_is_judged(bundle: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    change, options, code, words = UNFIT[case]
    change(bundle)

    assert main(["bundle", "verify", str(bundle), *options]) == code
    captured = capsys.readouterr()
    assert words in captured.out + captured.err


def test_a_bundle_equals_itself_whatever_its_name_and_time(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(bundle, name="other", created="2020-01-01T00:00:00+00:00")

    assert main(["bundle", "diff", "embedded", str(bundle)]) == 0
    assert "are the same" in capsys.readouterr().out


def test_differences_are_found_by_meaning(manifest: Manifest) -> None:
    prompts = manifest.policy.prompts
    changed = PromptSet(
        prompts.name, prompts.system, dict(prompts.variants) | {"wise-s": Template("{query}, in a hurry.")}
    )
    other = replace(
        manifest,
        policy=replace(manifest.policy, prompts=changed, picture=PictureGeometry.square(224)),
        artifacts=manifest.artifacts[1:],
        provenance=dict(manifest.provenance) | {"recipe": "mine"},
    )

    found = compare_manifests(manifest, other)

    assert [(d.part, d.what) for d in found] == [
        ("policy", "picture"),
        ("prompts", "wise-s"),
        ("artifacts", "policy.vision"),
        ("provenance", "recipe"),
    ]
    assert (found[0].before.side, found[0].after.side) == (112, 224)
    assert wording_changes(found[1]) == ["-{image}{query} Think briefly, answer.", "+{query}, in a hurry."]
    assert found[2].after is None


def test_diff_exits_as_diff_does_and_prints_both_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "diff", "embedded", "embedded-start"]) == 1

    printed, error = capsys.readouterr()
    assert "policy: embedded -> embedded-start" in printed
    assert error == ""


def test_the_card_holds_files_figures_prompts_and_origin(manifest: Manifest) -> None:
    card = render_card(manifest, "5" * 64)

    told = [artifact.sha256[:16] for artifact in manifest.artifacts]
    told += [figure.what for figure in manifest.verification]
    told += [*(each.user for each in manifest.policy.prompts.variants.values()), *manifest.provenance]
    assert all(words in card for words in told)
    assert card.startswith("---\nlibrary_name: wise-edge\n")


def test_the_card_of_what_nobody_compared_says_so(manifest: Manifest) -> None:
    assert "and its answers may be wrong" in render_card(replace(manifest, verified=False, verification=()), "5" * 64)


def test_the_card_is_written_with_the_manifest(bundle: Path, manifest: Manifest) -> None:
    write_manifest(bundle, manifest)

    assert (bundle / CARD_NAME).read_text() == render_card(manifest, hash_file(bundle / "bundle.json"))


def test_the_time_can_be_given_so_that_a_build_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert creation_time() == "1970-01-02T00:00:00+00:00"

    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH is 'yesterday'"):
        creation_time()


def test_too_little_room_is_said_before_writing(tmp_path: Path) -> None:
    check_space(tmp_path, 1)

    with pytest.raises(UsageError, match=r"B free, but about 1,000,000,000 GB are needed"):
        check_space(tmp_path, 10**18)


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), replacing_folder(tmp_path / "b") as folder:
        (folder / "half").write_bytes(b"half")
        raise KeyboardInterrupt

    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_refused_by_every_command(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "sam.decoder.onnx").unlink()

    codes = [main(["bundle", "show", str(bundle)]), main(["bundle", "diff", str(bundle), "embedded"])]

    assert codes == [BundleError.exit_code] * 2
    assert capsys.readouterr().err.count("sam.decoder.onnx is missing") == 2
