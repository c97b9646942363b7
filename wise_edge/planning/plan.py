"""What an expert would make of a policy and a segmenter for a device, why, and what it costs.

The backends are tried in the order of `weights.LADDERS`, on each the forms of the policy's weights from the most exact
one down. The first that the device can run, whose bundle fits into its memory and whose export fits into this
machine's is taken; what was tried before it is kept with the reason. What only a package lacks is no reason to be
content with a CPU where there is a GPU: the error says how to install it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wise_edge.bundle.devices import find_gpu_kind
from wise_edge.drawing.units import size
from wise_edge.errors import DeviceError, MissingExtraError, WiseEdgeError
from wise_edge.export.options import ExportOptions
from wise_edge.export.targets import find_targets
from wise_edge.planning.device import Device
from wise_edge.planning.memory import Part, building, exporting, running
from wise_edge.planning.sizes import PolicySize, SamSize
from wise_edge.planning.weights import ASKED_ONLY, IMPORTANT, LADDERS, Weights, export_options
from wise_edge.runtimes.backends import Backend, find_backend
from wise_edge.runtimes.dispatch import check_device

_MASKS = ("onnx-cuda", "onnx")
"""Backends of the segmenter beside a policy that has no engines, best first."""


@dataclass(frozen=True)
class Rejected:
    """A way that was not taken.

    Attributes:
        what: the backend, and how the weights would be stored.
        reason: why not.
    """

    what: str
    reason: str


@dataclass(frozen=True)
class Choice:
    """What is made of a policy and a segmenter.

    Attributes:
        backend: the policy's.
        mask_backend: the segmenter's.
        weights: how the policy's weights are stored.
        options: of the export.
        verify: whether the export is compared with torch.
        memory: what running the bundle takes.
        export_bytes: what exporting it takes.
        rejected: what was tried before, best first.
        notes: what else there is to know.
    """

    backend: str
    mask_backend: str
    weights: Weights
    options: ExportOptions
    verify: bool
    memory: tuple[Part, ...]
    export_bytes: int
    rejected: tuple[Rejected, ...]
    notes: tuple[str, ...]

    @property
    def gpu_bytes(self) -> int:
        """What it takes on a GPU with a memory of its own."""
        return sum(part.bytes for part in self.memory if part.on_gpu)

    @property
    def all_bytes(self) -> int:
        """What it takes in all."""
        return sum(part.bytes for part in self.memory)


@dataclass(frozen=True)
class Chooser:
    """Two checkpoints, and the machines that they are for.

    Attributes:
        policy: the policy's sizes.
        sam: the segmenter's.
        device: where the bundle will run.
        this: this machine, which exports it.
        bits: bits of the policy's weights; None takes the most that fit.
        verify: whether to compare the export with torch if memory allows.
        further: options of the export that are not chosen here.
    """

    policy: PolicySize
    sam: SamSize
    device: Device
    this: Device
    bits: int | None = None
    verify: bool = True
    further: tuple[tuple[str, object], ...] = ()

    def choose(self) -> Choice:
        """Return the first way that fits.

        Raises:
            MissingExtraError, DeviceError: a way fits but for a package, or none does; the message says what to do.
        """
        rejected: list[Rejected] = []
        installable: list[tuple[Backend, WiseEdgeError]] = []
        nearest: _TooLargeError | None = None
        for name, ladder in LADDERS.items():
            backend = find_backend(name)
            try:
                lack = self._find_lack(backend)
                find_targets((ladder[0].target,))[-1].check_family(self.policy.spec.family)
            except WiseEdgeError as error:
                rejected.append(Rejected(name, str(error)))
                continue
            for weights in ladder:
                if self.bits not in (weights.bits, None) or (self.bits is None and (name, weights) in ASKED_ONLY):
                    continue
                try:
                    choice = self._try(backend, weights, rejected)
                    if lack is not None:
                        raise lack
                except WiseEdgeError as error:
                    rejected.append(Rejected(f"{name} {weights.name}", str(error)))
                    if isinstance(error, _TooLargeError) and (weights.target == "gguf" or self._exports(weights)):
                        nearest = min(nearest or error, error, key=lambda each: each.needed)
                    if error is lack or isinstance(error, MissingExtraError):
                        installable.append((backend, error))
                        break
                    continue
                self._insist_on_gpu(backend, installable)
                return choice
        raise _advise(self, installable, nearest)

    def _try(self, backend: Backend, weights: Weights, rejected: Sequence[Rejected]) -> Choice:
        """Return the choice of a backend and a form of weights.

        Raises:
            MissingExtraError: it fits, but a package that exports it is not installed.
            WiseEdgeError: the device, the policy or the memory does not allow it.
        """
        mask = "tensorrt" if backend.name == "tensorrt" else self._choose_mask()
        on_gpu = {"policy_gpu": backend.on_gpu is True, "mask_gpu": mask != "onnx"}
        fits = self._exports(weights)
        verify = self.verify and fits
        options = self._options(weights, mask, verify, importance=fits)
        with_torch = weights.target != "gguf" or verify or (fits and weights.name in IMPORTANT)
        choice = Choice(
            backend.name,
            mask,
            weights,
            options,
            verify,
            running(self.policy, self.sam, weights, options.sam_precision, **on_gpu),
            exporting(self.policy, self.sam, weights, with_torch=with_torch),
            tuple(rejected),
            tuple(self._notes(weights, mask, verify)),
        )
        _check_fit(choice, self.device)
        if weights.target != "gguf":
            self._check_export(weights)
        if backend.name == "tensorrt":
            self._check_build(weights)
        for target in find_targets(options.targets):
            target.check(options, verify=verify)
        return choice

    def _options(self, weights: Weights, mask: str, verify: bool, *, importance: bool) -> ExportOptions:
        kinds = self.device.kind.name if self.device.kind and find_targets((weights.target,))[-1].needs_device else ""
        further = dict(self.further)
        if mask != "onnx" and verify:
            further["sam_precision"] = "fp16"
        if weights.name in IMPORTANT:
            further["importance"] = importance
        return export_options(weights, device=kinds, **further)

    def _find_lack(self, backend: Backend) -> WiseEdgeError | None:
        """Return the error of a package that the backend lacks; None if it lacks nothing.

        Raises:
            DeviceError: the device lacks something else.
        """
        device = self.device
        if backend.name == "onnx-cuda" and device.shared:
            raise DeviceError("no wheel of onnxruntime-gpu holds code for a Jetson")
        if backend.on_gpu is True and not device.has_gpu:
            raise DeviceError("no NVIDIA GPU" + ("" if device.name == "cpu" else ", see: wise-edge doctor"))
        if backend.name in ("tensorrt", "edgellm") and device.capabilities.gpu is not None:
            find_gpu_kind(device.capabilities.gpu)
        try:
            check_device(backend, device.capabilities, "policy")
        except MissingExtraError as error:
            return self._with_doctors_command(backend, error)
        except DeviceError:
            if backend.build_fits is None or backend.name in device.capabilities.builds:
                raise
            return DeviceError(f"{backend.build_advice.partition(';')[0]}; {self._command(backend)}")
        return None

    def _command(self, backend: Backend) -> str:
        """Return doctor's advice for the package of a backend on this device."""
        named = {"llama": "llama.cpp", "gpu": "ONNX Runtime", "tensorrt": "TensorRT", "rtx": "TensorRT for RTX"}
        return self.device.advice.get(named.get(backend.extra, ""), "see: wise-edge doctor")

    def _with_doctors_command(self, backend: Backend, error: MissingExtraError) -> MissingExtraError:
        command = self._command(backend) if backend.extra in ("llama", "tensorrt", "rtx") else ""
        return MissingExtraError(error.module, error.extra, remedy=command if command.startswith("run: ") else "")

    def _choose_mask(self) -> str:
        for name in _MASKS[:-1]:
            try:
                if self._find_lack(find_backend(name)) is None:
                    return name
            except DeviceError:
                continue
        return _MASKS[-1]

    def _exports(self, weights: Weights) -> bool:
        """Return whether this machine has the memory to export with torch."""
        room = self.this.memory_bytes
        return room is None or exporting(self.policy, self.sam, weights, with_torch=True) <= room

    def _check_export(self, weights: Weights) -> None:
        if not self._exports(weights):
            needed = exporting(self.policy, self.sam, weights, with_torch=True)
            raise DeviceError(
                f"the export loads the policy in float32, which takes {size(needed)} of this machine's memory; "
                f"{size(self.this.memory_bytes or 0)} may be used"
            )

    def _check_build(self, weights: Weights) -> None:
        """Raise `DeviceError` if the memory does not hold the building of engines, on the device or, for RTX, here."""
        anywhere = self.device.kind is not None and self.device.kind.builds_anywhere
        builder = self.this if anywhere else self.device
        needed = building(self.policy, weights)
        if builder.memory_bytes is not None and needed > builder.memory_bytes:
            raise DeviceError(
                f"building engines takes {size(needed)} of memory; {size(builder.memory_bytes)} may be used"
            )

    def _notes(self, weights: Weights, mask: str, verify: bool) -> Iterator[str]:
        if self.verify and not verify:
            needed = exporting(self.policy, self.sam, weights, with_torch=True)
            yield (
                f"the export is not compared with torch, which takes {size(needed)} of memory here; for a "
                "verified bundle run this on a larger machine with --device and the device's name"
            )
        if mask == "onnx" and self.device.has_gpu:
            yield "the segmenter runs on the CPU: " + (
                "ONNX Runtime has no code for a Jetson's GPU"
                if self.device.shared
                else "pip uninstall -y onnxruntime && pip install 'wise-edge[gpu]' lets it run on the GPU"
            )

    def _insist_on_gpu(self, chosen: Backend, installable: Sequence[tuple[Backend, WiseEdgeError]]) -> None:
        """Raise the error of the package for want of which a policy would run on the CPU beside a GPU."""
        if chosen.on_gpu is True or not self.device.has_gpu:
            return
        if wanting := [(backend, error) for backend, error in installable if backend.on_gpu is True]:
            raise _simplest(wanting)


class _TooLargeError(DeviceError):
    """A choice does not fit into the memory of its device.

    Args:
        choice: the choice.
        needed: what it takes of the memory.
        room: what may be used.
        what: the memory's name.
    """

    def __init__(self, choice: Choice, needed: int, room: int, what: str) -> None:
        self.choice, self.needed = choice, needed
        super().__init__(f"it takes {size(needed)} of {what}; {size(room)} may be used")


def _check_fit(choice: Choice, device: Device) -> None:
    """Raise `_TooLargeError` if a choice does not fit into the memory of its device."""
    gpu, whole = choice.gpu_bytes, choice.all_bytes
    rooms = (
        ((gpu, device.gpu_bytes, "GPU memory"), (whole - gpu, device.memory_bytes, "memory"))
        if device.gpu_bytes is not None
        else ((whole, device.memory_bytes, "memory"),)
    )
    for needed, room, what in rooms:
        if room is not None and needed > room:
            raise _TooLargeError(choice, needed, room, what)


def _simplest(installable: Sequence[tuple[Backend, WiseEdgeError]]) -> WiseEdgeError:
    """Return the error that names the package which is the simplest to install: llama.cpp, else the best backend's."""
    return next((error for backend, error in installable if backend.extra == "llama"), installable[0][1])


def _advise(
    chooser: Chooser, installable: Sequence[tuple[Backend, WiseEdgeError]], nearest: _TooLargeError | None
) -> WiseEdgeError:
    """Return the error to raise if no way fits."""
    if installable:
        return _simplest(installable)
    device = chooser.device
    if nearest is None:
        return DeviceError(
            f"the policy cannot be exported for {device.description} (--dry-run with another --device, or without "
            "--bits, says what can)"
        )
    largest = sorted(nearest.choice.memory, key=lambda part: -part.bytes)[:3]
    parts = ", ".join(f"{part.name} {size(part.bytes)}" for part in largest)
    elsewhere = "" if not device.has_gpu or not device.here else ", or a larger machine with --device for its engines"
    return DeviceError(
        f"no form of the policy fits on {device.description}: the smallest is {nearest.choice.backend} "
        f"{nearest.choice.weights.name}, and {nearest} ({parts}); use fewer --pixels, a smaller policy or segmenter, "
        f"close other programs{elsewhere}"
    )
