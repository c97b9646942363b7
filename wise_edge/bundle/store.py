"""The bundle: a directory with `bundle.json` and the artifacts that it names, written by export and run by runtimes.

Loading checks that every artifact exists inside the directory (symbolic links followed) and has the recorded size;
hashes are compared on request. In a hub's cache the files are links to its blobs, whose names are their hashes. A
bundle is written into a temporary neighbor and then renamed, so that no reader sees an incomplete one.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any

from wise_edge.bundle.card import render_card
from wise_edge.bundle.manifest import CARD_NAME, MANIFEST_NAME, SHA256, Artifact, Manifest
from wise_edge.bundle.shipped import ASSETS, SEGMENTERS, find_folder
from wise_edge.bundle.shipped import EMBEDDED as EMBEDDED
from wise_edge.bundle.shipped import EMBEDDED_START as EMBEDDED_START
from wise_edge.bundle.shipped import SHIPPED as SHIPPED
from wise_edge.drawing.units import size
from wise_edge.errors import BundleError, UsageError, VerificationError
from wise_edge.files.documents import read_json, to_json
from wise_edge.files.environment import read_int
from wise_edge.files.hashing import hash_file
from wise_edge.files.inputs import refuse_lfs_pointer, refuse_special
from wise_edge.files.writing import replacing

_SETUP = "wise-edge setup POLICY_DIR SAM_FILE"
_SHA256_LENGTH = 64
_LAST_SECOND = 253_402_300_799  # of the year 9999


def resolve_bundle(name: str | Path | None) -> Path:
    """Return the directory of a bundle.

    Args:
        name: a folder, one of `SHIPPED`, or None for the embedded one; with "@sha256:HASH" behind it, that bundle only
            if its `bundle.json` has this hash, see `check_sha256`.

    Raises:
        UsageError, VerificationError: as `check_sha256`.
    """
    given = EMBEDDED if name is None else str(name)
    shipped, pinned, sha256 = given.partition("@sha256:")
    directory = find_folder(shipped)
    if pinned:
        check_sha256(directory, sha256)
    return directory


def resolve_checkpoint(name: str, part: str) -> Path:
    """Return the folder of a checkpoint.

    Args:
        name: a folder, or one of `SHIPPED`; of a segmenter also one of `SEGMENTERS`.
        part: "policy" or "sam".
    """
    if part == "sam" and name in SEGMENTERS:
        return ASSETS / name
    return ASSETS / f"{name}-{part}" if name in SHIPPED else Path(name)


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose files exist and have the recorded sizes.

    Attributes:
        directory: its directory.
        manifest: the contents of its `bundle.json`.
    """

    directory: Path
    manifest: Manifest

    def artifact(self, role: str) -> Artifact:
        """Return the artifact of a role; raises `BundleError` if the bundle has none."""
        for artifact in self.manifest.artifacts:
            if artifact.role == role:
                return artifact
        raise BundleError(f"{self.directory} has no artifact '{role}'; export the bundle again")

    def file(self, role: str) -> Path:
        """Return the path of a role's file; raises `BundleError` if the bundle has none."""
        return self.directory / self.artifact(role).path

    @property
    def files(self) -> list[Path]:
        """The files that belong to the bundle."""
        named = (*(artifact.path for artifact in self.manifest.artifacts), MANIFEST_NAME, CARD_NAME)
        return [self.directory / name for name in named]

    @property
    def sha256(self) -> str:
        """The hash of `bundle.json`, hexadecimal, which identifies the bundle: the file holds the others' hashes."""
        return hash_file(self.directory / MANIFEST_NAME)

    @property
    def is_embedded(self) -> bool:
        """Whether its policy is a shipped one without an adapter, which knows only scenes (`wise_edge.scenes`)."""
        provenance = self.manifest.provenance
        return provenance.get("policy") in SHIPPED and "policy_adapter" not in provenance

    @property
    def evaluated_sha256(self) -> str:
        """The hash that `bundle.json` has without the record of its evaluations: that of what was evaluated.

        It is made of the file, not of the manifest, which another version may write with further entries.
        """
        if self.manifest.evaluated is None:
            return self.sha256
        data = read_json(self.directory / MANIFEST_NAME)
        rest = {name: value for name, value in data.items() if name != "evaluated"}
        return hashlib.sha256(
            _content(rest | {"schema_version": replace(self.manifest, evaluated=None).schema_version})
        ).hexdigest()

    def find_faults(self, *, hashes: bool, but: str | None = None) -> list[str]:
        """Return what is wrong with the files, one line each.

        Args:
            hashes: also compare the sha256 of every file; whether it exists, its place and its size always are.
            but: what the roles of files begin with that are left out.
        """
        judged = (artifact for artifact in self.manifest.artifacts if but is None or not artifact.role.startswith(but))
        faults = [_find_fault(self.directory, artifact, hashes) for artifact in judged]
        return [fault for fault in faults if fault is not None]

    def verify_hashes(self, but: str | None = None) -> None:
        """Compare artifacts with their hashes, see `find_faults`; raises a `BundleError` that names what is wrong."""
        _refuse(self.find_faults(hashes=True, but=but))

    def unlisted_files(self) -> list[Path]:
        """Return the files of the directory that neither the manifest names nor sign it."""
        known = set(self.files)
        found = sorted(file for file in self.directory.rglob("*") if file.is_file() and file not in known)
        signature = str(self.directory / f"{MANIFEST_NAME}.")  # its signatures: .sig, .minisig, .sigstore.json
        return [file for file in found if not str(file).startswith(signature)]


def load(directory: str | Path, *, verify_hashes: bool = False) -> Bundle:
    """Open a bundle.

    Args:
        directory: the bundle's directory.
        verify_hashes: also compare the sha256 of every file; sizes are always compared.

    Raises:
        UsageError: the directory does not exist.
        BundleError: `bundle.json` is missing, malformed or of a newer schema, or a file is missing, is outside the
            directory, or differs from its recorded size or hash.
    """
    bundle = read_bundle(directory)
    _refuse(bundle.find_faults(hashes=verify_hashes))
    return bundle


def read_bundle(directory: str | Path) -> Bundle:
    """Read a bundle's manifest without looking at its files, which `Bundle.find_faults` does.

    Raises:
        UsageError: the directory does not exist.
        BundleError: `bundle.json` is missing, malformed or of a newer schema.
    """
    root = Path(directory)
    return Bundle(root, _read_manifest(_find_manifest(root)))


def check_sha256(directory: str | Path, expected: str) -> None:
    """Compare the hash of a bundle's `bundle.json`, before it is read, with the one that its maker published.

    Args:
        directory: the bundle's directory.
        expected: sha256, hexadecimal, with or without "sha256:" in front.

    Raises:
        UsageError: `expected` is no sha256, or the directory does not exist.
        BundleError: `bundle.json` is missing.
        VerificationError: it has another hash.
    """
    wanted = expected.strip().lower().removeprefix("sha256:")
    if not SHA256.fullmatch(wanted):
        raise UsageError(f"{expected[:80]!r} is not a SHA-256 hash; pass the 64 hexadecimal digits that export printed")
    if (found := hash_file(_find_manifest(Path(directory)))) != wanted:
        raise VerificationError(
            f"{directory} is another bundle: its {MANIFEST_NAME} has sha256:{found}, not sha256:{wanted}; do not use "
            "it, or ask its maker for the new hash"
        )


def _find_manifest(root: Path) -> Path:
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder; pass a bundle's, or make one of a checkpoint: {_SETUP}")
    file = root / MANIFEST_NAME
    if not file.exists():
        if (root / "config.json").is_file():
            raise BundleError(f"{root} is a checkpoint and not a bundle; make one of it: {_SETUP}")
        raise BundleError(f"{root} is not a bundle: it has no {MANIFEST_NAME}")
    refuse_special(file)
    return file


def _refuse(faults: list[str]) -> None:
    if faults:
        raise BundleError(f"{'; '.join(faults)}; copy or export the bundle again")


def _read_manifest(file: Path) -> Manifest:
    try:
        data = read_json(file, remedy="export the bundle again")
    except UsageError as error:
        raise BundleError(str(error)) from error
    try:
        return Manifest.from_dict(data)
    except BundleError as error:
        raise BundleError(f"{file}: {error}") from error


def _find_fault(root: Path, artifact: Artifact, hashes: bool) -> str | None:
    relative = PurePosixPath(artifact.path)
    file = root / relative
    outside = f"{root / MANIFEST_NAME} names {artifact.path!r}, which is outside the bundle: do not use it"
    if relative.is_absolute() or ".." in relative.parts or "\\" in artifact.path:
        return outside
    try:
        if not file.is_file():
            return f"{file} is missing"
        if not (place := file.resolve()).is_relative_to(root.resolve()):
            if not _is_hub_blob(root.resolve(), place):
                return f"{file} is a link to {place}, outside the bundle (cp -rL copies what links lead to)"
            hashes |= len(place.name) != _SHA256_LENGTH
            if not hashes and place.name != artifact.sha256:
                return f"{file} was altered: it is a link to another file than the recorded one"
        if (size := file.stat().st_size) != artifact.bytes:
            refuse_lfs_pointer(file)
            return f"{file} has {size} bytes instead of the recorded {artifact.bytes}"
        if hashes and hash_file(file) != artifact.sha256:
            return f"{file} was altered: the sha256 differs from the recorded one"
    except UsageError as error:
        return str(error)
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}"
    return None


def _is_hub_blob(root: Path, place: Path) -> bool:
    """Return whether a bundle lies in a cache of Hugging Face's hub, and a file among the same repository's.

    A snapshot there is a folder of links to `blobs`, where large files are named by their sha256, small ones by git's
    hash (https://huggingface.co/docs/huggingface_hub/guides/manage-cache).
    """
    return any(folder.name == "snapshots" and place.parent == folder.parent / "blobs" for folder in root.parents)


def describe_file(
    directory: Path, path: str, role: str, file_format: str, precision: str = "", float32_layers: Sequence[str] = ()
) -> Artifact:
    """Return the manifest's entry for a file in a bundle's directory."""
    file = directory / path
    size, sha256 = file.stat().st_size, hash_file(file)
    return Artifact(role, file_format, precision, path, size, sha256, tuple(float32_layers))


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `bundle.json` and the model card with the same content for people, each atomically."""
    content = _content(manifest.to_dict())
    card = render_card(manifest, hashlib.sha256(content).hexdigest()).encode()
    for name, data in ((CARD_NAME, card), (MANIFEST_NAME, content)):
        with replacing(directory / name) as fresh:
            fresh.write_bytes(data)


def _content(data: Mapping[str, Any]) -> bytes:
    return (to_json(data, indent=2, ensure_ascii=False) + "\n").encode()


def creation_time() -> str:
    """Return the time to record in a manifest, UTC, ISO 8601: now, or SOURCE_DATE_EPOCH for reproducible exports.

    Raises:
        UsageError: SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/) is not a number of
            seconds from then to the year 9999.
    """
    given_s = read_int("SOURCE_DATE_EPOCH", 0, _LAST_SECOND, "seconds since 1970")
    moment = datetime.now(timezone.utc) if given_s is None else datetime.fromtimestamp(given_s, timezone.utc)
    return moment.isoformat(timespec="seconds")


def check_space(folder: Path, needed: int) -> None:
    """Raise `UsageError` if the disk of a folder has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UsageError(f"{folder} has {size(free)} free, but about {size(needed)} are needed; free some space")
