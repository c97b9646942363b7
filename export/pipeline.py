"""From checkpoints to a verified bundle: convert, compare with torch, write all or nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from wise_edge.bundle.manifest import BFLOAT16, Artifact, Figure, Manifest
from wise_edge.bundle.store import (
    MANIFEST_NAME,
    SHIPPED,
    check_space,
    creation_time,
    describe_file,
    hash_file,
    resolve_checkpoint,
    write_manifest,
)
from wise_edge.errors import UsageError
from wise_edge.export.progress import Progress
from wise_edge.export.source.adapter import merge_adapter
from wise_edge.export.source.calibration import CalibrationSample, read_calibration
from wise_edge.export.source.policy import PolicySource
from wise_edge.export.to_edgellm import target as edgellm
from wise_edge.export.to_gguf import target as gguf_target
from wise_edge.export.to_gguf.tensors import weight_files
from wise_edge.export.to_onnx import segmenter as sam_target
from wise_edge.export.to_onnx import target as onnx_target
from wise_edge.export.to_onnx.bf16 import cpu_equivalent
from wise_edge.export.to_onnx.segmenter import SamSource
from wise_edge.export.to_onnx.verify import check_figures
from wise_edge.export.to_tensorrt.bundle import add_engines, check_devices
from wise_edge.extras import require
from wise_edge.files import check_folder_target, replacing_folder

TARGETS = ("onnx", "gguf", "tensorrt", "edgellm")
_TOKENIZER = "policy.tokenizer.json"
_TOOLS = (
    "torch",
    "transformers",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "gguf",
    "llama-cpp-python",
    "peft",
    "tensorrt",
    "tensorrt_rtx",
)

Check = Callable[[Path, Path], Sequence[Figure]]
"""Runs a bundle that is about to be written (first) against the policy's checkpoint (second), end to end."""


@dataclass(frozen=True)
class ExportOptions:
    """What to make of a policy.

    Attributes:
        targets: some of `TARGETS`; "tensorrt" makes the graphs of "onnx" too, from which its engines are built.
        quant: type of the language model's matrices in GGUF.
        vision_quant: type of the vision tower's matrices in GGUF.
        device: kinds of GPU that "tensorrt" and "edgellm" are for, see `devices.parse_gpu_kinds`; else empty.
        onnx_precision: of the policy's ONNX graphs, one of `onnx_target.PRECISIONS`.
        sam_precision: of the segmenter, one of `sam_target.PRECISIONS`.
        edgellm_quant: what Edge-LLM's language model is brought to, one of `edgellm.METHODS`.
        importance: quantize columns that matter with more care.
        verify: compare with torch; without, the bundle says that nobody did.
        samples: how many images and queries to measure with.
        calibration: folder of them; None takes synthetic scenes.
    """

    targets: tuple[str, ...] = ("onnx",)
    device: str = ""
    quant: str = "F16"
    vision_quant: str = "F16"
    onnx_precision: str = "fp32"
    sam_precision: str = "fp32"
    edgellm_quant: str = "fp16"
    importance: bool = True
    verify: bool = True
    samples: int = 8
    calibration: Path | None = None

    def __post_init__(self) -> None:
        """Raise `UsageError` for what there is not, before any work is done."""
        if unknown := sorted(set(self.targets) - set(TARGETS)):
            raise UsageError(f"unknown target '{unknown[0]}'; choose {', '.join(TARGETS)}")
        if bool({"tensorrt", "edgellm"} & set(self.targets)) != bool(self.device):
            raise UsageError(
                "--target tensorrt and edgellm need --device, nothing else does; for example --device orin"
            )
        if self.samples < 1:
            raise UsageError(f"--samples is {self.samples}; at least 1 is needed")
        for precision, known in (
            (self.onnx_precision, onnx_target.PRECISIONS),
            (self.sam_precision, sam_target.PRECISIONS),
        ):
            if precision not in known:
                raise UsageError(f"unknown precision '{precision}'; choose {', '.join(known)}")
        if BFLOAT16 in (self.onnx_precision, self.sam_precision) and "tensorrt" not in self.targets:
            raise UsageError("graphs in bf16 run on TensorRT alone; add --target tensorrt and --device, or take fp16")
        gguf_target.check_types(self.quant, self.vision_quant, self.importance)

    @property
    def makes_graphs(self) -> bool:
        """Whether the policy becomes ONNX graphs."""
        return "onnx" in self.targets or "tensorrt" in self.targets

    @property
    def fp16_arithmetic(self) -> bool:
        """Whether graphs compute in half precision beside weights of 8 or 4 bits: faster on a GPU, slower on a CPU."""
        return "tensorrt" in self.targets


def export_bundle(
    policy: str,
    sam: str,
    target: Path,
    options: ExportOptions | None = None,
    *,
    adapter: Path | None = None,
    force: bool = False,
    check: Check | None = None,
    progress: Progress,
) -> Manifest:
    """Export a policy and a segmenter into a new bundle.

    Args:
        policy: Hugging Face folder of a policy with `prompts.json`, or one of the names that ship.
        sam: checkpoint folder of `wise_edge.sam.segment_anything`, or one of the names that ship.
        target: the bundle's directory.
        options: what to make; None makes ONNX graphs.
        adapter: PEFT folder to merge into the policy first.
        force: replace a bundle that is there.
        check: compares the whole bundle, end to end.
        progress: told what is being done.

    Raises:
        UsageError: a checkpoint, an option or the target does not fit.
        MissingExtraError: a package of the export extra is missing.
        VerificationError: the export differs from its checkpoint; nothing is written.
        DeviceError: a kind of GPU cannot be served; nothing is written.
    """
    options = options or ExportOptions()
    for package in ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "safetensors", "segment_anything"):
        require(package, "export")
    precisions = (options.onnx_precision, options.sam_precision)
    devices = check_devices(options.device, precisions, build="tensorrt" in options.targets) if options.device else ()
    if "edgellm" in options.targets:
        edgellm.check_method(options.edgellm_quant, devices)
    base = _open(policy, "policy")
    check_folder_target(target, marker=MANIFEST_NAME, force=force)
    with replacing_folder(target) as folder, _merged(base, adapter, folder.parent, progress) as policy_folder:
        sam_checkpoint = _open(sam, "sam")
        check_space(folder, _space(policy_folder, options) + _space(sam_checkpoint, options))
        samples = partial(read_calibration, options.calibration, options.samples)
        source = PolicySource(policy_folder, samples, progress)
        segmenter = SamSource(sam_checkpoint)
        artifacts = (
            *_export_policy(source, folder, options, progress),
            *_export_sam(segmenter, folder, options, samples, progress),
        )
        manifest = Manifest(
            name=target.resolve().name,
            created=creation_time(),
            policy=source.spec,
            sam=segmenter.spec,
            artifacts=artifacts,
            verified=False,
            verification=(),
            provenance=_provenance(policy, policy_folder, "policy", adapter)
            | _provenance(sam, sam_checkpoint, "sam")
            | _tools(),
        )
        write_manifest(folder, manifest)
        if options.verify:
            with cpu_equivalent(folder, manifest) as checked:
                figures = [
                    *_compare_policy(source, checked, options, progress),
                    *segmenter.compare(checked, options.sam_precision, options.fp16_arithmetic, progress),
                ]
                check_figures(figures)
                if check is not None:
                    progress("comparing answers and masks with torch")
                    figures += check(checked, policy_folder)
                    check_figures(figures)
            manifest = replace(manifest, verified=True, verification=tuple(figures))
            write_manifest(folder, manifest)
        if "tensorrt" in options.targets:
            manifest = add_engines(folder, devices, progress)
    return manifest


def export_merged(policy: str, adapter: Path | None, target: Path, *, force: bool, progress: Progress) -> None:
    """Write the policy's checkpoint with its adapter merged, for converters of others.

    Raises:
        UsageError: there is no adapter, a folder does not fit, or the target exists.
    """
    if adapter is None:
        raise UsageError(f"--target hf merges an adapter; name one with --adapter, or take {policy} as it is")
    check_folder_target(target, marker="config.json", force=force)
    with replacing_folder(target) as folder:
        merge_adapter(_open(policy, "policy"), adapter, folder, progress)


def _open(name: str, part: str) -> Path:
    folder = resolve_checkpoint(name, part)
    if not folder.is_dir() and not (part == "sam" and folder.is_file()):
        raise UsageError(f"{folder} is not a checkpoint; name one for --{part}, or 'embedded'")
    return folder


@contextmanager
def _merged(base: Path, adapter: Path | None, scratch: Path, progress: Progress) -> Iterator[Path]:
    """Give the policy's folder: the base itself, or a temporary one in `scratch` with the adapter merged."""
    if adapter is None:
        yield base
        return
    with tempfile.TemporaryDirectory(dir=scratch, prefix="merged.") as merged:
        merge_adapter(base, adapter, Path(merged), progress)
        yield Path(merged)


def _space(checkpoint: Path, options: ExportOptions) -> int:
    """Return about how many bytes an export of a checkpoint writes, intermediate files included."""
    stored = sum(file.stat().st_size for file in _weights(checkpoint))
    lowered = options.makes_graphs and {options.onnx_precision, options.sam_precision} != {"fp32"}
    # Float32 at most, or a lossless file beside the quantized one; a graph that is lowered is there three times.
    return 2 * stored * (len(options.targets) + 2 * lowered)


def _export_policy(source: PolicySource, out: Path, options: ExportOptions, progress: Progress) -> Iterator[Artifact]:
    if options.makes_graphs:
        onnx_target.check_family(source.spec)
        yield from onnx_target.export_policy(source, out, options.onnx_precision, options.fp16_arithmetic, progress)
    if "gguf" in options.targets:
        types = (options.quant, options.vision_quant)
        yield from gguf_target.export_gguf(source, out, *types, options.importance, progress)
    if "edgellm" in options.targets:
        yield from edgellm.export_edgellm(source, out, options.edgellm_quant, progress)
    shutil.copyfile(source.tokenizer, out / _TOKENIZER)
    yield describe_file(out, _TOKENIZER, "policy.tokenizer", "tokenizer.json")


def _export_sam(
    segmenter: SamSource,
    out: Path,
    options: ExportOptions,
    read: Callable[[], list[CalibrationSample]],
    progress: Progress,
) -> list[Artifact]:
    samples = [] if options.sam_precision == "fp32" else read()
    return segmenter.export(out, options.sam_precision, options.fp16_arithmetic, samples, progress)


def _compare_policy(source: PolicySource, out: Path, options: ExportOptions, progress: Progress) -> Iterator[Figure]:
    if options.makes_graphs:
        yield from onnx_target.compare_policy(source, out, options.onnx_precision, progress)
    if "gguf" in options.targets:
        yield from gguf_target.compare_gguf(source, out, options.quant, options.vision_quant, progress)
    if "edgellm" in options.targets:
        yield from edgellm.compare_edgellm(source, out, options.edgellm_quant, progress)


def _weights(checkpoint: Path) -> list[Path]:
    return [checkpoint] if checkpoint.is_file() else weight_files(checkpoint)


def _recipes(checkpoint: Path) -> list[Path]:
    """Return the resolved recipe that a training left beside the weights."""
    return [file for file in (checkpoint / "recipe.yaml",) if file.is_file()]


def _provenance(name: str, folder: Path, part: str, adapter: Path | None = None) -> dict[str, str]:
    merged = {} if adapter is None else {f"{part}_adapter": str(adapter.resolve())}
    return merged | {
        part: name if name in SHIPPED else str(Path(name).resolve()),
        **{f"{part}_{file.name}_sha256": hash_file(file) for file in (*_weights(folder), *_recipes(folder))},
    }


def _tools() -> dict[str, str]:
    found = {}
    for package in _TOOLS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
