"""A bundle round-trips; altered, missing and foreign files are named; writing is all or nothing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from specs import POLICY, SAM
from wise_edge.bundle import store as bundles
from wise_edge.bundle.manifest import MANIFEST_NAME, SAM_SCHEMA, SCHEMA_VERSION, Figure, Manifest
from wise_edge.bundle.store import describe_file, load, write_manifest
from wise_edge.cli.main import main
from wise_edge.errors import BundleError, UsageError
from wise_edge.files.writing import replacing_folder
from wise_edge.policy.picture import PictureGeometry


def make_manifest(folder: Path) -> Manifest:
    return Manifest(
        name="tiny",
        created="2030-01-01T00:00:00+00:00",
        policy=POLICY,
        sam=SAM,
        artifacts=(describe_file(folder, "weights.bin", "policy.decoder", "onnx", "fp16"),),
        verified=True,
        verification=(Figure("policy.decoder, decode", 1.5e-6, "relative error", at_most=1e-4),),
        provenance={"policy": "embedded"},
    )


def write_bundle(target: Path, content: bytes = b"weights", *, force: bool = False) -> Path:
    with replacing_folder(target, marker=MANIFEST_NAME, force=force) as folder:
        (folder / "weights.bin").write_bytes(content)
        write_manifest(folder, make_manifest(folder))
    return target


def edit_manifest(bundle: Path, **changes: Any) -> None:
    file = bundle / "bundle.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_artifact(bundle: Path, **changes: Any) -> None:
    entry = json.loads((bundle / "bundle.json").read_text())["artifacts"][0]
    edit_manifest(bundle, artifacts=[entry | changes])


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def test_what_is_written_is_read(bundle: Path) -> None:
    opened = load(bundle, verify_hashes=True)

    assert opened.manifest == make_manifest(bundle)
    assert opened.file("policy.decoder").read_bytes() == b"weights"


def test_a_missing_role_is_named(bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"sam\.encoder"):
        load(bundle).file("sam.encoder")


def test_a_different_size_is_always_noticed(bundle: Path) -> None:
    (bundle / "weights.bin").write_bytes(b"weights, and more")

    with pytest.raises(BundleError, match=r"weights\.bin has 17 bytes"):
        load(bundle)


def test_different_content_of_the_same_size_is_noticed_on_request(bundle: Path) -> None:
    (bundle / "weights.bin").write_bytes(b"Weights")

    load(bundle)
    with pytest.raises(BundleError, match=r"weights\.bin was altered"):
        load(bundle, verify_hashes=True)


def test_a_missing_file_is_named(bundle: Path) -> None:
    (bundle / "weights.bin").unlink()

    with pytest.raises(BundleError, match=r"weights\.bin is missing"):
        load(bundle)


@pytest.mark.parametrize("path", ["../secret", "/etc/hostname", "inner/../../secret", "..\\secret"])
def test_a_path_out_of_the_bundle_is_rejected(bundle: Path, path: str) -> None:
    (bundle.parent / "secret").write_bytes(b"weights")
    edit_artifact(bundle, path=path)

    with pytest.raises(BundleError, match="outside the bundle"):
        load(bundle)


def test_a_link_out_of_the_bundle_is_rejected(bundle: Path) -> None:
    (bundle.parent / "secret").write_bytes(b"weights")
    (bundle / "weights.bin").unlink()
    (bundle / "weights.bin").symlink_to("../secret")

    with pytest.raises(BundleError, match="outside the bundle"):
        load(bundle)


@pytest.fixture
def snapshot(bundle: Path) -> Path:
    """The bundle as a hub's cache keeps it, below a folder of its repository."""
    repository = bundle.parent / "models--me--mug"
    snapshot, blobs = repository / "snapshots" / ("5" * 40) / "orin", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in bundle.iterdir():
        content = file.read_bytes()
        name = hashlib.sha256(content).hexdigest() if file.suffix == ".bin" else hashlib.sha1(content).hexdigest()
        (blobs / name).write_bytes(content)
        (snapshot / file.name).symlink_to(f"../../../blobs/{name}")
    return snapshot


def test_a_bundle_in_a_hubs_cache_is_read(snapshot: Path) -> None:
    loaded = load(snapshot, verify_hashes=True)
    assert loaded.file("policy.decoder").read_bytes() == b"weights"
    assert loaded.unlisted_files() == []


def test_a_link_to_another_blob_is_altered_content(snapshot: Path) -> None:
    link = snapshot / "weights.bin"
    for name in ("0" * 64, "0" * 40):  # as large and as small files are named
        link.unlink()
        (snapshot.parents[2] / "blobs" / name).write_bytes(b"Weights")
        link.symlink_to(f"../../../blobs/{name}")
        with pytest.raises(BundleError, match=r"weights\.bin was altered"):
            load(snapshot)


@pytest.mark.parametrize("target", ["../../../secret", "../../../blobs/../secret", "../../../blobs/inner/secret"])
def test_a_link_out_of_the_hubs_blobs_is_rejected(snapshot: Path, target: str) -> None:
    link = snapshot / "weights.bin"
    link.unlink()
    (snapshot.parents[2] / "blobs" / "inner").mkdir()
    link.symlink_to(target)
    link.resolve().write_bytes(b"weights")
    with pytest.raises(BundleError, match=r"weights\.bin is a link .* outside the bundle .cp -rL"):
        load(snapshot)


def test_a_link_within_the_bundle_is_followed(bundle: Path) -> None:
    (bundle / "weights.bin").rename(bundle / "real.bin")
    (bundle / "weights.bin").symlink_to("real.bin")

    assert load(bundle, verify_hashes=True).file("policy.decoder").read_bytes() == b"weights"


@pytest.mark.parametrize(("change", "remedy"), [(1, "update wise-edge"), (-5, "export it again")])
def test_an_unsupported_schema_is_rejected_with_the_remedy(bundle: Path, change: int, remedy: str) -> None:
    edit_manifest(bundle, schema_version=SAM_SCHEMA + change)

    with pytest.raises(BundleError, match=rf"bundle\.json: .*{remedy}"):
        load(bundle)


@pytest.mark.parametrize("schema", [2, 3])
def test_older_schemas_are_read(bundle: Path, schema: int) -> None:
    file = bundle / "bundle.json"
    data = json.loads(file.read_text())
    for name in ("picture", "coordinates", "form"):
        del data["policy"][name]
    data["policy"]["input_size"] = 840
    if schema == 2:
        data["artefacts"] = data.pop("artifacts")
    file.write_text(json.dumps(data | {"schema_version": schema}))

    manifest = load(bundle).manifest
    assert manifest.artifacts[0].role == "policy.decoder"
    assert manifest.policy == replace(POLICY, picture=PictureGeometry.square(840))
    assert manifest.to_dict()["schema_version"] == SCHEMA_VERSION


def test_layers_that_stay_float32_are_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = make_manifest(bundle)
    named = replace(manifest.artifacts[0], float32_layers=("blocks.0.mlp.lin1", "blocks.3.mlp.lin2"))

    write_manifest(bundle, replace(manifest, artifacts=(named,)))

    assert load(bundle).manifest.artifacts == (named,)
    assert load(bundle).manifest.to_dict()["schema_version"] == SAM_SCHEMA
    assert "float32_layers" not in manifest.to_dict()["artifacts"][0]  # earlier versions know no such entry
    words = "policy.decoder: float32 instead of fp16, whose numbers overflow or vanish there"
    assert f"{words}: `blocks.0.mlp.lin1`, `blocks.3.mlp.lin2`." in (bundle / "README.md").read_text()
    assert main(["bundle", "show", str(bundle)]) == 0
    assert f"{words}: blocks.0.mlp.lin1, blocks.3.mlp.lin2." in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("value", "passed"), [(0.5, True), (0.2, False), (0.9, False), (float("nan"), False)])
def test_a_figure_passes_within_its_bounds(value: float, passed: bool) -> None:
    assert Figure("mask IoU", value, "", at_least=0.4, at_most=0.6).passed is passed


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": "1"}', '{"schema_version": 1}'])
def test_an_invalid_manifest_is_rejected(bundle: Path, text: str) -> None:
    (bundle / "bundle.json").write_text(text)

    with pytest.raises(BundleError, match=r"bundle\.json"):
        load(bundle)


@pytest.mark.parametrize(
    "changes",
    [
        {"bytes": "7"},
        {"bytes": True},
        {"path": None},
        {"compressed": True},
    ],
)
def test_an_entry_of_the_wrong_type_is_rejected(bundle: Path, changes: dict[str, Any]) -> None:
    edit_artifact(bundle, **changes)

    with pytest.raises(BundleError, match=next(iter(changes))):
        load(bundle)


def test_a_folder_without_a_manifest_is_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no bundle\.json"):
        load(tmp_path)
    with pytest.raises(UsageError, match="not a folder"):
        load(tmp_path / "nowhere")


def test_nothing_is_overwritten_without_force(bundle: Path) -> None:
    with pytest.raises(UsageError, match="--force"):
        write_bundle(bundle, b"other")

    assert load(bundle, verify_hashes=True).file("policy.decoder").read_bytes() == b"weights"


def test_force_replaces_a_bundle(bundle: Path) -> None:
    (bundle / "left over").touch()

    write_bundle(bundle, b"other", force=True)

    assert sorted(file.name for file in bundle.iterdir()) == ["README.md", "bundle.json", "weights.bin"]
    assert load(bundle, verify_hashes=True).file("policy.decoder").read_bytes() == b"other"
    assert [entry.name for entry in bundle.parent.iterdir()] == ["bundle"]


def test_force_does_not_replace_other_folders(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()

    with pytest.raises(UsageError, match=r"has no bundle\.json"):
        write_bundle(tmp_path, force=True)

    assert (tmp_path / "thesis.txt").exists()


def test_a_failure_leaves_the_old_bundle(bundle: Path) -> None:
    with pytest.raises(RuntimeError), replacing_folder(bundle) as folder:
        (folder / "half").write_bytes(b"written")
        raise RuntimeError

    assert load(bundle, verify_hashes=True)
    assert [entry.name for entry in bundle.parent.iterdir()] == ["bundle"]


def test_the_grid_follows_from_the_sizes() -> None:
    assert POLICY.max_image_tokens == 4**2
    assert replace(POLICY, picture=PictureGeometry.square(840)).max_image_tokens == 30**2


def test_checkpoints_are_found() -> None:
    assert bundles.resolve_checkpoint("embedded", "sam").name == "embedded-sam"
    assert bundles.resolve_checkpoint("/some/folder", "sam") == Path("/some/folder")
