"""What hashes prove: a bundle's own manifest finds accidents, the hash of `bundle.json` finds whatever else differs."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from wise_edge import Session
from wise_edge.bundle.manifest import CARD_NAME, MANIFEST_NAME, Manifest
from wise_edge.bundle.store import EMBEDDED, check_sha256, load, resolve_bundle, write_manifest
from wise_edge.cli.main import main
from wise_edge.errors import BundleError, UsageError, VerificationError
from wise_edge.files.hashing import hash_file

SHIPPED = resolve_bundle(EMBEDDED)
HASH = hash_file(SHIPPED / MANIFEST_NAME)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "b"))


def forge(bundle: Path) -> None:
    """Alter a file, and the manifest with it."""
    file = bundle / "policy.tokenizer.json"
    file.write_text(file.read_text() + "\n")
    opened = json.loads((bundle / MANIFEST_NAME).read_text())
    for entry in opened["artifacts"]:
        if entry["path"] == file.name:
            entry |= {"bytes": file.stat().st_size, "sha256": hash_file(file)}
    write_manifest(bundle, Manifest.from_dict(opened))


@pytest.mark.parametrize("given", [HASH, HASH.upper(), f"sha256:{HASH}", f" SHA256:{HASH}\n"])
def test_the_published_hash_is_recognized(bundle: Path, given: str) -> None:
    check_sha256(bundle, given)
    assert main(["bundle", "verify", str(bundle), "--sha256", given]) == 0


@pytest.mark.parametrize("given", ["", "sha256:", HASH[:-1], HASH + "0", "g" * 64, "md5:" + HASH, "x" * 10_000])
def test_what_is_no_hash_is_refused(bundle: Path, given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="not a SHA-256 hash"):
        check_sha256(bundle, given)
    assert main(["bundle", "verify", str(bundle), f"--sha256={given}"]) == UsageError.exit_code
    assert len(capsys.readouterr().err) < 200


def test_a_forged_bundle_is_only_found_by_its_published_hash(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forge(bundle)

    assert main(["bundle", "verify", str(bundle)]) == 0
    assert "intact" in capsys.readouterr().out
    assert main(["bundle", "verify", str(bundle), "--sha256", HASH]) == VerificationError.exit_code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert HASH in err and hash_file(bundle / MANIFEST_NAME) in err


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 10**6])
def test_the_hash_is_compared_before_the_manifest_is_read(bundle: Path, content: bytes) -> None:
    (bundle / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(VerificationError, match="is another bundle"):
        check_sha256(bundle, HASH)


def test_a_pinned_bundle_is_the_only_one_that_runs(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pinned = f"{bundle}@sha256:{HASH}"
    assert resolve_bundle(pinned) == bundle
    assert resolve_bundle(f"{EMBEDDED}@sha256:{HASH}") == SHIPPED
    Session.from_bundle(pinned, mask_backend="onnx", policy_backend="onnx")
    forge(bundle)
    with pytest.raises(VerificationError, match="is another bundle"):
        Session.from_bundle(pinned)
    for command in (["run", __file__, "the red ring"], ["serve"], ["evaluate"], ["profile"], ["demo", "--out", "."]):
        assert main([*command, "--bundle", pinned]) == VerificationError.exit_code, command
    assert capsys.readouterr().out == ""


def test_the_hash_is_told(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("show", "verify"):
        assert main(["bundle", command, str(bundle)]) == 0
        assert HASH in capsys.readouterr().out
        assert main(["bundle", command, str(bundle), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["sha256"] == HASH


def test_the_card_holds_the_hash_of_the_manifest_beside_it(bundle: Path) -> None:
    assert HASH in (SHIPPED / CARD_NAME).read_text()
    write_manifest(bundle, replace(load(bundle).manifest, name="another"))
    changed = hash_file(bundle / MANIFEST_NAME)
    assert changed != HASH
    assert changed in (bundle / CARD_NAME).read_text()


def _entries(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    first = asdict(load(SHIPPED).manifest.artifacts[0]) | {"role": "role", "path": "a/file.bin"}
    return [first, *(first | {"role": "other", "path": "other"} | change for change in changes)]


@pytest.mark.parametrize(
    ("artifacts", "named"),
    [
        (_entries({"role": "role"}), "the role 'role'"),
        (_entries({}, {"role": "third"}), "the path 'other'"),
        (_entries({"path": "a/file.bin"}), "the path 'a/file.bin'"),
        (_entries({"path": "./a//file.bin"}), "the path 'a/file.bin'"),
        (_entries({"path": "A/File.BIN"}), "the path 'a/file.bin'"),
        (_entries({"path": "é"}, {"path": "e\u0301", "role": "third"}), "the path 'é'"),
        (_entries({"path": MANIFEST_NAME}), "the path 'bundle.json'"),
        (_entries({"path": "Readme.md"}), "the path 'README.md'"),
        (_entries({"sha256": "0" * 63}), "sha256"),
        (_entries({"bytes": -1}), "bytes"),
    ],
)
def test_a_manifest_that_names_one_thing_twice_is_refused(
    bundle: Path, artifacts: list[dict[str, Any]], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads((bundle / MANIFEST_NAME).read_text())
    (bundle / MANIFEST_NAME).write_text(json.dumps(data | {"artifacts": artifacts}))
    with pytest.raises(BundleError) as refused:
        load(bundle)
    assert named in str(refused.value)
    assert main(["bundle", "verify", str(bundle)]) == VerificationError.exit_code
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_a_signature_of_the_manifest_covers_the_bundle(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The recipe of docs/bundle.md, with the real program."""
    key, signers, manifest = bundle.parent / "key", bundle.parent / "signers", bundle / MANIFEST_NAME

    def sign(*arguments: object) -> int:
        command = ["ssh-keygen", *map(str, arguments)]
        with manifest.open("rb") as content:
            return subprocess.run(command, stdin=content, capture_output=True, check=False).returncode

    def is_signed() -> bool:
        named = ("-f", signers, "-I", "me@example.org", "-n", "wise-edge-bundle", "-s", f"{manifest}.sig")
        return sign("-Y", "verify", *named) == 0 and main(["bundle", "verify", str(bundle)]) == 0

    assert sign("-q", "-t", "ed25519", "-N", "", "-f", key) == 0
    signers.write_text(f"me@example.org {key.with_suffix('.pub').read_text()}")
    assert sign("-Y", "sign", "-f", key, "-n", "wise-edge-bundle", manifest) == 0
    assert is_signed()
    assert "not part of the bundle" not in capsys.readouterr().err
    (bundle / "policy.tokenizer.json").write_text("{}")
    assert not is_signed()  # the hash in the manifest differs
    shutil.copy(SHIPPED / "policy.tokenizer.json", bundle)
    assert is_signed()
    forge(bundle)
    assert not is_signed()  # the manifest differs
