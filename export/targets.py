"""The table of export targets: the pipeline, the options and `wise-edge export --help` read every target from here.

A new target is one object in `TARGETS` and the module that does its work. The methods import that module only when
they are called, so that the table itself imports with the core alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wise_edge.errors import UsageError
from wise_edge.extras import check_packages
from wise_edge.policy.families import FAMILIES

if TYPE_CHECKING:
    from wise_edge.bundle.manifest import Artifact, Figure
    from wise_edge.export.options import ExportOptions
    from wise_edge.export.progress import Progress
    from wise_edge.export.source.policy import PolicyCheckpoint

MERGED = "hf"
"""The target that makes no bundle: the policy's checkpoint, shards joined and adapter merged, for other converters."""


class Target(ABC):
    """A form in which a bundle holds the policy.

    Attributes:
        name: its name for `--target`.
        help: what it is for, in a few words.
        extra: the extra of wise-edge that installs its packages.
        packages: top-level import names of these packages.
        families: the policies that it can hold, by transformers' names.
        reads: fields of `ExportOptions` that apply to it, and to no target that does not list them too.
        needs_device: whether it is made for kinds of GPU that `--device` names.
        graphs_on_gpu: whether the bundle's ONNX graphs are for a GPU, where they may compute in 16 bits throughout.
        builds_on: names of the targets whose artifacts it needs; they come earlier in `TARGETS`.
        fixed_grids: whether what it writes takes images of a few grids alone.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    extra: ClassVar[str] = "export"
    packages: ClassVar[tuple[str, ...]] = ()
    families: ClassVar[tuple[str, ...]] = FAMILIES
    reads: ClassVar[tuple[str, ...]] = ()
    needs_device: ClassVar[bool] = False
    graphs_on_gpu: ClassVar[bool] = False
    builds_on: ClassVar[tuple[str, ...]] = ()
    fixed_grids: ClassVar[bool] = False

    def check_packages(self) -> None:
        """Raise `MissingExtraError` if one of the packages is not installed."""
        check_packages(self.extra, *self.packages)

    def check(self, options: ExportOptions, *, verify: bool = True) -> None:
        """Reject what cannot be made here, before any work is done.

        Args:
            options: what to make.
            verify: whether it will be compared.

        Raises:
            MissingExtraError: a package is not installed.
            UsageError: options contradict each other.
            DeviceError: a kind of GPU lacks what the options ask for.
        """
        self.check_packages()

    def check_family(self, family: str) -> None:
        """Raise `UsageError` that names the targets which can hold a policy's family, if this one cannot."""
        if family not in self.families:
            able = ", ".join(target.name for target in TARGETS if family in target.families)
            raise UsageError(f"--target {self.name} cannot hold a {family} policy; choose {able}")

    def check_policy(self, source: PolicyCheckpoint, options: ExportOptions) -> None:
        """Reject a policy that cannot be converted, before any target converts it.

        Raises:
            UsageError: the checkpoint does not fit the target.
        """
        return

    @abstractmethod
    def write(
        self, source: PolicyCheckpoint, folder: Path, options: ExportOptions, progress: Progress
    ) -> Iterable[Artifact]:
        """Write files into a bundle's folder and return their entries.

        Raises:
            UsageError: the checkpoint does not fit the target.
        """

    @abstractmethod
    def compare(
        self, source: PolicyCheckpoint, folder: Path, options: ExportOptions, progress: Progress
    ) -> Iterable[Figure]:
        """Compare the files of `write` with torch, and return what was measured and its bounds."""

    def finish(self, folder: Path, options: ExportOptions, progress: Progress) -> None:
        """Add to a bundle that was compared, its manifest included."""
        return


class OnnxTarget(Target):
    """ONNX graphs of vision tower and language model."""

    name = "onnx"
    help = "ONNX Runtime"
    packages = ("torch", "transformers", "safetensors", "onnx", "onnxscript", "onnxruntime", "segment_anything")
    families = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
    reads = ("onnx_precision",)
    fixed_grids = True

    def check_policy(self, source: PolicyCheckpoint, options: ExportOptions) -> None:
        """See `Target`."""
        from wise_edge.export.to_onnx.target import check_attention

        check_attention(source.folder)

    def write(
        self, source: PolicyCheckpoint, folder: Path, options: ExportOptions, progress: Progress
    ) -> Iterable[Artifact]:
        """Write the graphs and the token embedding."""
        from wise_edge.export.to_onnx.target import export_policy

        return export_policy(source, folder, options.onnx_precision, options.fp16_arithmetic, progress)

    def compare(
        self, source: PolicyCheckpoint, folder: Path, options: ExportOptions, progress: Progress
    ) -> Iterable[Figure]:
        """Compare the graphs' outputs with torch's."""
        from wise_edge.export.to_onnx.target import compare_policy

        return compare_policy(source, folder, options.onnx_precision, progress)


class GgufTarget(Target):
    """GGUF files of language model and vision tower."""

    name = "gguf"
    help = "llama.cpp"
    packages = ("gguf",)
    reads = ("quant", "vision_quant", "importance")

    def check(self, options: ExportOptions, *, verify: bool = True) -> None:
        """See `Target`; quantizing and comparing need llama-cpp-python too."""
        from wise_edge.export.precisions import QUANTIZATION_TYPES
        from wise_edge.native.llama_library import require_llama

        super().check(options, verify=verify)
        if verify or {options.quant, options.vision_quant} & set(QUANTIZATION_TYPES):
            require_llama()

    def check_policy(self, source: PolicyCheckpoint, options: ExportOptions) -> None:
        """See `Target`."""
        from wise_edge.export.to_gguf.convert import PolicyGguf

        PolicyGguf(source.folder).check()

    def write(
        self, source: PolicyCheckpoint, folder: Path, options: ExportOptions, progress: Progress
    ) -> Iterable[Artifact]:
        """Write both files, quantized as asked."""
        from wise_edge.export.to_gguf.target import export_gguf

        return export_gguf(source, folder, options.quant, options.vision_quant, options.importance, progress)

    def compare(
        self, source: PolicyCheckpoint, folder: Path, options: ExportOptions, progress: Progress
    ) -> Iterable[Figure]:
        """Compare llama.cpp's tokens and logits with torch's."""
        from wise_edge.export.to_gguf.target import compare_gguf

        return compare_gguf(source, folder, options.quant, options.vision_quant, progress)


class TensorrtTarget(Target):
    """TensorRT engines of all graphs of a bundle, the segmenter's included."""

    name = "tensorrt"
    help = "TensorRT engines"
    families = OnnxTarget.families
    needs_device = True
    graphs_on_gpu = True
    builds_on = ("onnx",)
    reads = ("onnx_precision",)

    def check(self, options: ExportOptions, *, verify: bool = True) -> None:
        """See `Target`; what a GPU lacks would fail the build of every engine."""
        from wise_edge.export.to_tensorrt.target import check_builders

        super().check(options, verify=verify)
        check_builders(options.gpu_kinds, (options.onnx_precision, options.sam_precision))

    def write(
        self, source: PolicyCheckpoint, folder: Path, options: ExportOptions, progress: Progress
    ) -> Iterable[Artifact]:
        """Write nothing: engines are built in `finish`, from graphs that were compared."""
        return ()

    def compare(
        self, source: PolicyCheckpoint, folder: Path, options: ExportOptions, progress: Progress
    ) -> Iterable[Figure]:
        """Compare nothing: the graphs were compared, and engines run only on their GPU."""
        return ()

    def finish(self, folder: Path, options: ExportOptions, progress: Progress) -> None:
        """Add a build plan, and the engines that can be built on this machine."""
        from wise_edge.export.to_tensorrt.target import add_engines

        add_engines(folder, options.gpu_kinds, progress)


class EdgellmTarget(Target):
    """A checkpoint that TensorRT Edge-LLM builds engines from."""

    name = "edgellm"
    help = "TensorRT Edge-LLM"
    extra = "edgellm"
    packages = ("tensorrt_edgellm", "modelopt", "datasets")
    families = ("qwen2_5_vl", "qwen3_vl")  # Edge-LLM 0.11 exports no vision tower of Qwen2-VL
    needs_device = True
    reads = ("edgellm_quant",)

    def check(self, options: ExportOptions, *, verify: bool = True) -> None:
        """See `Target`."""
        from wise_edge.bundle.devices import check_types
        from wise_edge.export.precisions import EDGELLM_METHODS

        number_type = EDGELLM_METHODS[options.edgellm_quant]
        check_types([number_type], options.gpu_kinds, f"--edgellm-quant {options.edgellm_quant}")
        super().check(options, verify=verify)

    def check_policy(self, source: PolicyCheckpoint, options: ExportOptions) -> None:
        """See `Target`."""
        from wise_edge.export.to_edgellm.target import check_policy

        check_policy(source, options.edgellm_quant)

    def write(
        self, source: PolicyCheckpoint, folder: Path, options: ExportOptions, progress: Progress
    ) -> Iterable[Artifact]:
        """Write the checkpoint, quantized as asked."""
        from wise_edge.export.to_edgellm.target import export_edgellm

        return export_edgellm(source, folder, options.edgellm_quant, progress)

    def compare(
        self, source: PolicyCheckpoint, folder: Path, options: ExportOptions, progress: Progress
    ) -> Iterable[Figure]:
        """Compare the graphs that Edge-LLM would build from with torch."""
        from wise_edge.export.to_edgellm.target import compare_edgellm

        return compare_edgellm(source, folder, options.edgellm_quant, progress)


ONNX, GGUF, EDGELLM = OnnxTarget(), GgufTarget(), EdgellmTarget()
TARGETS: tuple[Target, ...] = (ONNX, GGUF, TensorrtTarget(), EDGELLM)


def find_targets(names: Collection[str]) -> tuple[Target, ...]:
    """Return the targets of these names and those that they build on, in the table's order.

    Raises:
        UsageError: a name is unknown.
    """
    known = [target.name for target in TARGETS]
    if unknown := sorted(set(names) - set(known)):
        raise UsageError(f"unknown target '{unknown[0]}'; choose {', '.join(known)}, or {MERGED} alone")
    chosen = set(names)
    for target in reversed(TARGETS):
        if target.name in chosen:
            chosen.update(target.builds_on)
    return tuple(target for target in TARGETS if target.name in chosen)


def describe_targets() -> str:
    """Return the help text of `--target`."""
    listed = ", ".join(f"{target.name} ({target.help})" for target in TARGETS)
    return f"What to export to, separated by commas: {listed}; or {MERGED} alone (checkpoint, joined and merged)."
