"""From checkpoints to a bundle: convert, compare with torch, write all or nothing."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from wise_edge.bundle.manifest import MANIFEST_NAME, Artifact, Figure, Manifest
from wise_edge.bundle.roles import TOKENIZER
from wise_edge.bundle.store import (
    check_space,
    creation_time,
    describe_file,
    load,
    resolve_checkpoint,
    write_manifest,
)
from wise_edge.errors import UsageError
from wise_edge.export.options import ExportOptions
from wise_edge.export.progress import Progress
from wise_edge.export.provenance import describe_checkpoint, describe_tools
from wise_edge.export.source.adapter import merge_checkpoint
from wise_edge.export.source.calibration import CalibrationSample, read_calibration
from wise_edge.export.source.policy import PolicyCheckpoint
from wise_edge.export.source.shards import join_shards
from wise_edge.export.space import needed_bytes, stored_bytes
from wise_edge.export.targets import MERGED, Target, find_targets
from wise_edge.export.to_onnx.bf16 import cpu_equivalent
from wise_edge.export.to_onnx.segmenter import SamSource
from wise_edge.export.to_onnx.verify import check_figures
from wise_edge.files.temporary import scratch_in
from wise_edge.files.writing import naming, replacing_folder
from wise_edge.native.weight_files import list_tensors
from wise_edge.policy.adapter_names import fit_adapter
from wise_edge.policy.answers.conventions import Told
from wise_edge.policy.architecture import load_config
from wise_edge.policy.checkpoint import read_policy_spec
from wise_edge.policy.folder import check_policy_folder
from wise_edge.policy.prompts import PromptSet, read_prompts
from wise_edge.policy.shards import ShardedPolicy, find_shards
from wise_edge.sam.checkpoint import read_sam_spec

_TOKENIZER_FILE = f"{TOKENIZER}.json"


class QueryCheck(Protocol):
    """Asks a bundle and its checkpoints the same complete queries."""

    def __call__(self, bundle: Path, policy: Path, samples: Sequence[CalibrationSample]) -> Sequence[Figure]:
        """Return how far answers and masks agree.

        Args:
            bundle: folder of a bundle that runs on this machine's CPU.
            policy: the policy's checkpoint, an adapter merged.
            samples: images and queries to ask.

        Returns:
            Figures with bounds; none if no backend of this machine runs the bundle's policy.
        """
        ...


@dataclass(frozen=True)
class _Export:
    """The two checkpoints of an export, and what to make of them."""

    source: PolicyCheckpoint
    segmenter: SamSource
    samples: Sequence[CalibrationSample]
    targets: Sequence[Target]
    options: ExportOptions
    progress: Progress

    def write(self, folder: Path) -> Iterator[Artifact]:
        """Write all files of a bundle except its manifest."""
        for target in self.targets:
            yield from target.write(self.source, folder, self.options, self.progress)
        shutil.copyfile(self.source.tokenizer, folder / _TOKENIZER_FILE)
        yield describe_file(folder, _TOKENIZER_FILE, TOKENIZER, "tokenizer.json")
        precision, fp16_arithmetic = self.options.sam_precision, self.options.fp16_arithmetic
        yield from self.segmenter.export(folder, precision, fp16_arithmetic, self.samples, self.progress)

    def compare(self, folder: Path) -> list[Figure]:
        """Compare each part of a bundle with torch."""
        figures: list[Figure] = []
        for target in self.targets:
            figures += target.compare(self.source, folder, self.options, self.progress)
        precision, fp16_arithmetic = self.options.sam_precision, self.options.fp16_arithmetic
        return figures + self.segmenter.compare(folder, precision, fp16_arithmetic, self.progress)


def export_bundle(
    policy: str,
    sam: str,
    target: Path,
    options: ExportOptions | None = None,
    *,
    verify: QueryCheck | None,
    adapter: Path | None = None,
    prompts: PromptSet | None = None,
    force: bool = False,
    progress: Progress,
) -> Manifest:
    """Export a policy and a segmenter into a new bundle.

    Args:
        policy: Hugging Face folder of a policy with `prompts.json`, or one of the names that ship.
        sam: a segmenter's checkpoint that `read_sam_spec` reads, or one of the names that ship.
        target: the bundle's directory.
        options: what to make; None makes ONNX graphs.
        verify: asks complete queries after each part was compared with torch; a bundle counts as verified only if that
            measured something. None compares nothing.
        adapter: PEFT folder to merge into the policy first.
        prompts: the wording of a policy whose folder names none, as a published one's.
        force: replace an existing bundle.
        progress: called at each step.

    Raises:
        UsageError: a checkpoint, an option or the target does not fit.
        MissingExtraError: a package that a target needs is not installed.
        VerificationError: the export differs from its checkpoint; nothing is written.
        DeviceError: a kind of GPU lacks what the options ask for; nothing is written.
    """
    options = options or ExportOptions()
    targets = find_targets(options.targets)
    for chosen in targets:
        chosen.check(options, verify=verify is not None)
    (base, shards), sam_checkpoint = _open_policy(policy), _open_sam(sam)
    family = load_config(base).model_type
    for chosen in targets:
        chosen.check_family(family)
    read_sam_spec(sam_checkpoint).row.check_packages()  # a checkpoint that is none is found before the policy is merged
    created = creation_time()
    samples = read_calibration(options.calibration, options.samples)
    if shards is not None:
        read_prompts(_worded(base, adapter))  # what would fail later is found before the work
    tensors = list_tensors(base) if shards is None else shards.tensors()
    needed = needed_bytes(base, tensors, sam_checkpoint, options, (shards is not None) + (adapter is not None))
    read = (base, sam_checkpoint, adapter, options.calibration)
    with replacing_folder(target, marker=MANIFEST_NAME, force=force, keep=read) as folder, scratch_in(folder.parent):
        check_space(folder.parent.parent, needed)
        told = options.told
        with (
            _joined(base, shards, folder.parent, progress) as whole,
            _merged(whole, adapter, folder.parent, progress, told, verify=verify is not None) as (
                policy_folder,
                figures,
            ),
        ):
            source = PolicyCheckpoint(policy_folder, samples, progress, read_policy_spec(policy_folder, prompts, told))
            for chosen in targets:
                chosen.check_policy(source, options)
            export = _Export(source, SamSource(sam_checkpoint), samples, targets, options, progress)
            manifest = Manifest(
                name=target.resolve().name,
                created=created,
                policy=source.spec,
                sam=export.segmenter.spec,
                artifacts=tuple(export.write(folder)),
                verified=False,
                verification=(),
                provenance=describe_checkpoint(policy, policy_folder, "policy", adapter)
                | describe_checkpoint(sam, sam_checkpoint, "sam")
                | {"export": shlex.join(options.arguments())}
                | describe_tools(),
            )
            write_manifest(folder, manifest)
            if verify is not None:
                verified = _verified(export, folder, manifest, verify)
                write_manifest(folder, replace(verified, verification=(*figures, *verified.verification)))
            for chosen in targets:
                chosen.finish(folder, options, progress)
            return load(folder).manifest


def _verified(export: _Export, folder: Path, manifest: Manifest, verify: QueryCheck) -> Manifest:
    """Compare a bundle with its checkpoints, part by part and then in complete queries; return its new manifest."""
    with cpu_equivalent(folder, manifest) as checked:
        figures = export.compare(checked)
        check_figures(figures)
        export.progress("comparing answers and masks with torch")
        export.source.release()  # the queries load it again, and it would be in memory twice
        queries = verify(checked, export.source.folder, export.samples)
        check_figures(queries)
    return replace(manifest, verified=bool(queries), verification=(*figures, *queries))


def export_merged(
    policy: str, adapter: Path | None, target: Path, *, verify: bool = True, force: bool, progress: Progress
) -> None:
    """Write the policy's checkpoint with its shards joined and its adapter merged, for other converters.

    Raises:
        UsageError: there are neither shards nor an adapter, a folder does not fit, or the target exists.
        VerificationError: the merged policy differs from base and adapter; nothing is written.
    """
    base, shards = _open_policy(policy)
    if adapter is None and shards is None:
        raise UsageError(f"--target {MERGED} merges an adapter; name one with --adapter, or use {policy} as it is")
    with replacing_folder(target, marker="config.json", force=force, keep=(base, adapter)) as folder:
        check_space(folder.parent.parent, stored_bytes(base) * ((shards is not None) + (adapter is not None)))
        if adapter is not None:
            fitted = fit_adapter(adapter, load_config(base), base=base)
            with _joined(base, shards, folder.parent, progress) as whole:
                check_figures(list(merge_checkpoint(whole, fitted, folder, progress, verify=verify)))
        elif shards is not None:
            join_shards(shards, folder, progress)


def _open_policy(name: str) -> tuple[Path, ShardedPolicy | None]:
    """Return the folder that describes a policy, and its shards if its weights lie in some."""
    checkpoint = resolve_checkpoint(name, "policy")
    if folder := find_shards(checkpoint):
        shards = ShardedPolicy(folder)
        return shards.config_folder, shards
    check_policy_folder(checkpoint)
    return checkpoint, None


def _worded(base: Path, adapter: Path | None) -> Path:
    """Return which of the two names the words that were trained."""
    return adapter if adapter and (adapter / "prompts.json").is_file() else base


def _open_sam(name: str) -> Path:
    checkpoint = resolve_checkpoint(name, "sam")
    if not checkpoint.exists():
        raise UsageError(f"{checkpoint} is not a checkpoint; name one with --sam, or pass 'embedded'")
    return checkpoint


@contextmanager
def _joined(base: Path, shards: ShardedPolicy | None, scratch: Path, progress: Progress) -> Iterator[Path]:
    """Yield the policy's folder: the base itself, or a temporary one in `scratch` with its shards joined."""
    if shards is None:
        yield base
        return
    with tempfile.TemporaryDirectory(dir=scratch, prefix="joined.") as temporary:
        folder = Path(temporary)
        with naming(base, folder):
            join_shards(shards, folder, progress)
            yield folder


@contextmanager
def _merged(
    base: Path, adapter: Path | None, scratch: Path, progress: Progress, told: Told, verify: bool
) -> Iterator[tuple[Path, Sequence[Figure]]]:
    """Yield the policy's folder, and how its merged adapter was compared with the adapter beside its base.

    The folder is the base itself, or a temporary one in `scratch` with the adapter merged.
    """
    if adapter is None:
        yield base, ()
        return
    fitted = fit_adapter(adapter, load_config(base), base=base)
    read_policy_spec(base, read_prompts(_worded(base, adapter)), told)  # what would fail below is found before the work
    with tempfile.TemporaryDirectory(dir=scratch, prefix="merged.") as temporary:
        folder = Path(temporary)
        with naming(base, folder):
            figures = list(merge_checkpoint(base, fitted, folder, progress, verify=verify))
            check_figures(figures)
            yield folder, figures
