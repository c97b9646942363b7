"""What an export is asked to make, validated before any work is done."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path

from wise_edge.bundle.devices import GpuKind, parse_gpu_kinds
from wise_edge.bundle.manifest import BFLOAT16
from wise_edge.errors import UsageError
from wise_edge.export import targets as table
from wise_edge.export.precisions import (
    EDGELLM_METHODS,
    NEED_IMPORTANCE,
    ONNX_PRECISIONS,
    SAM_PRECISIONS,
    TEXT_TYPES,
    VISION_TYPES,
)
from wise_edge.native.cuda import find_capability
from wise_edge.policy.answers.conventions import Told

MOST_SAMPLES = 1000
"""All of them are held in memory and asked twice."""


@dataclass(frozen=True)
class ExportOptions:
    """What to make of a policy and a segmenter.

    Attributes:
        targets: names from the table in `wise_edge.export.targets`.
        device: kinds of GPU for the targets that need them, see `devices.parse_gpu_kinds`; empty for the others.
        quant: GGUF type of the language model, one of `TEXT_TYPES`.
        vision_quant: GGUF type of the vision tower, one of `VISION_TYPES`.
        onnx_precision: precision of the policy's ONNX graphs, one of `ONNX_PRECISIONS`.
        sam_precision: precision of the segmenter, one of `SAM_PRECISIONS`.
        edgellm_quant: quantization of Edge-LLM's language model, one of `EDGELLM_METHODS`.
        importance: whether to measure which columns of a matrix matter, and to quantize those with more care.
        samples: number of images and queries to calibrate and compare with, 1 to `MOST_SAMPLES`.
        calibration: folder that holds them; None uses synthetic scenes.
        coordinates: what the policy's answers count, see `conventions.Told`, as for the next four.
        picture: how images are resized.
        pixels: most pixels of an image.
        grids: the only grids of image tokens.
        form: how answers are written.

    Raises:
        UsageError: a name is unknown, or options contradict each other.
    """

    targets: tuple[str, ...] = ("onnx",)
    device: str = ""
    quant: str = "F16"
    vision_quant: str = "F16"
    onnx_precision: str = "fp32"
    sam_precision: str = "fp32"
    edgellm_quant: str = "fp16"
    importance: bool = True
    samples: int = 8
    calibration: Path | None = None
    coordinates: str | None = None
    picture: str | None = None
    pixels: int | None = None
    grids: str | None = None
    form: str | None = None

    def __post_init__(self) -> None:
        """Raise `UsageError` for options that cannot be met."""
        self._check_targets()
        for option, name, known in (
            ("--quant", self.quant, TEXT_TYPES),
            ("--vision-quant", self.vision_quant, VISION_TYPES),
            ("--onnx-precision", self.onnx_precision, ONNX_PRECISIONS),
            ("--sam-precision", self.sam_precision, SAM_PRECISIONS),
            ("--edgellm-quant", self.edgellm_quant, EDGELLM_METHODS),
        ):
            _check_name(option, name, known)
        self._check_read()
        if not 1 <= self.samples <= MOST_SAMPLES:
            raise UsageError(f"--samples is {self.samples}; choose 1 to {MOST_SAMPLES}")
        _ = self.told
        if self.quant in NEED_IMPORTANCE and not self.importance:
            raise UsageError(f"{self.quant} needs an importance matrix; omit --no-importance")

    def _check_targets(self) -> None:
        chosen = table.find_targets(self.targets)
        if any(target.needs_device for target in chosen) != bool(self.device):
            names = " and ".join(target.name for target in table.TARGETS if target.needs_device)
            raise UsageError(f"--target {names} need --device, and no other target accepts it; add --device orin")
        if BFLOAT16 in (self.onnx_precision, self.sam_precision) and not self.fp16_arithmetic:
            names = " or ".join(target.name for target in table.TARGETS if target.graphs_on_gpu)
            raise UsageError(f"bf16 graphs run on TensorRT alone; add --target {names} and --device, or use fp16")

    def _check_read(self) -> None:
        """Reject an option that none of the targets reads, which would change nothing without a word."""
        read = {name for target in table.find_targets(self.targets) for name in target.reads}
        for field in fields(self):
            owners = [target.name for target in table.TARGETS if field.name in target.reads]
            if owners and field.name not in read and getattr(self, field.name) != field.default:
                option = "--no-importance" if field.name == "importance" else f"--{field.name.replace('_', '-')}"
                raise UsageError(f"{option} applies to --target {' and '.join(owners)} alone; add it or omit {option}")

    def arguments(self) -> list[str]:
        """Return the arguments of `wise-edge export` that ask for these options; defaults are left out."""
        found: list[str] = []
        for field in fields(self):
            value, option = getattr(self, field.name), f"--{field.name.replace('_', '-')}"
            if field.name == "targets":
                found += ["--target", ",".join(value)]
            elif field.name == "importance":
                found += [] if value else ["--no-importance"]
            elif value != field.default:
                found += [option, str(value)]
        return found

    @property
    def told(self) -> Told:
        """What the options say of the policy; raises `UsageError` if one is malformed."""
        fixed = any(target.fixed_grids for target in table.find_targets(self.targets))
        return Told(self.coordinates, self.picture, self.pixels, self.grids, fixed, self.form)

    @property
    def fp16_arithmetic(self) -> bool:
        """Whether graphs with weights of 8 or 4 bits compute in half precision: faster on a GPU, slower on a CPU."""
        return any(target.graphs_on_gpu for target in table.find_targets(self.targets))

    @property
    def gpu_kinds(self) -> tuple[GpuKind, ...]:
        """The kinds of GPU that `device` names.

        Raises:
            UsageError, DeviceError: as `parse_gpu_kinds`.
        """
        return parse_gpu_kinds(self.device, find_capability())


def _check_name(option: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise UsageError(f"unknown {option} '{name}'; choose one of {', '.join(known)}")
