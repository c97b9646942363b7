"""From two checkpoints on this disk to a bundle that runs: plan, reuse or export, and what to type then."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from wise_edge.bundle.manifest import MANIFEST_NAME, Manifest
from wise_edge.bundle.shipped import SHIPPED
from wise_edge.bundle.store import Bundle, load, resolve_checkpoint
from wise_edge.doctor import Host
from wise_edge.drawing.units import size
from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.export.provenance import describe_checkpoint
from wise_edge.files.targets import check_folder_target
from wise_edge.planning.costs import Disk, Step, count_disk, list_steps
from wise_edge.planning.device import THIS, Device, check_name, find_device
from wise_edge.planning.plan import Choice, Chooser
from wise_edge.planning.sizes import PolicySize, SamSize, measure_policy, measure_sam
from wise_edge.planning.weights import BITS
from wise_edge.policy.answers.conventions import Told
from wise_edge.policy.foreign import describe_missing_policy
from wise_edge.policy.prompts import DEFAULT, PromptSet
from wise_edge.runtimes.backends import find_backend
from wise_edge.runtimes.opening import find_candidates
from wise_edge.sam.kinds import describe_missing_segmenter

_GENERIC = ("policy", "model", "checkpoint", "merged", "final")
"""Names of folders that say nothing of what is in them; the folder above is named with them."""
_OWN = ("PHOTO.jpg", "the mug behind the keyboard")
_SCENE = ("docs/scene.png", "the small dotted object")
"""Picture and query in the command that is printed: the user's own, or what the shipped models know."""


@dataclass(frozen=True)
class Wishes:
    """What a user says of a setup; None leaves it to the plan.

    Attributes:
        device: one of `device.NAMES`.
        bits: bits of the policy's weights.
        verify: whether to compare with torch if memory allows.
        default_wording: whether to ask a policy that brings no wording with the default one.
        form: see `Told`, as for the next two.
        picture: how images are resized.
        pixels: most pixels of an image.
        calibration: folder with images and queries.
    """

    device: str = THIS
    bits: int | None = None
    verify: bool = True
    default_wording: bool = False
    form: str | None = None
    picture: str | None = None
    pixels: int | None = None
    calibration: Path | None = None


@dataclass(frozen=True)
class Setup:
    """What is made of two checkpoints, and what it takes.

    Attributes:
        policy_name: the policy's folder as the user named it, or "embedded".
        sam_name: the segmenter's checkpoint likewise.
        out: the bundle's folder.
        device: the device that it is for.
        this: this machine.
        policy: the policy's sizes.
        sam: the segmenter's.
        choice: what is made of them.
        disk: what it takes on the disk.
        steps: what is done, with times.
        prompts: the wording if the policy's folder names none.
        bits: bits of the policy's weights that were asked for.
    """

    policy_name: str
    sam_name: str
    out: Path
    device: Device
    this: Device
    policy: PolicySize
    sam: SamSize
    choice: Choice
    disk: Disk
    steps: tuple[Step, ...]
    prompts: PromptSet | None
    bits: int | None

    @property
    def export_command(self) -> str:
        """The `wise-edge export` that makes the same bundle."""
        names = ["--policy", self.policy_name, "--sam", self.sam_name]
        verify = [] if self.choice.verify else ["--no-verify"]
        return shlex.join(
            ["wise-edge", "export", *names, *self.choice.options.arguments(), *verify, "--out", str(self.out)]
        )

    @property
    def why(self) -> str:
        """Why the choice was made."""
        backend = find_backend(self.choice.backend)
        form = "the most precise form that fits" if self.bits is None else f"the form of {self.bits} bits, as asked"
        return f"{form}: {backend.runtime}, {'GPU' if backend.on_gpu is True else 'CPU'}"

    def check_room(self) -> None:
        """Raise `WiseEdgeError` if the disk has no room for the export."""
        place = self.out.absolute().parent
        if (free := shutil.disk_usage(place).free) < self.disk.peak_bytes:
            raise WiseEdgeError(
                f"{place} has {size(free)} free, and making the bundle takes {size(self.disk.peak_bytes)}; "
                "free some space, or choose another disk with --out"
            )

    def find_bundle(self) -> Bundle | None:
        """Return the bundle that is there already if it is the one that would be made; None if there is none.

        Raises:
            UsageError: there is something else.
            BundleError: it is damaged.
        """
        check_folder_target(self.out, marker=MANIFEST_NAME, force=True)
        if not (self.out / MANIFEST_NAME).exists():
            return None
        bundle = load(self.out, verify_hashes=True)
        if difference := self._difference(bundle.manifest):
            raise UsageError(f"{self.out} is a bundle of {difference}; pass --force to replace it, or another --out")
        return bundle

    def _difference(self, manifest: Manifest) -> str:
        """Return what a bundle was made of that the plan's would not be; empty if it is the same."""
        policy, sam = (
            resolve_checkpoint(name, part) for name, part in ((self.policy_name, "policy"), (self.sam_name, "sam"))
        )
        wanted = {
            "another policy": describe_checkpoint(self.policy_name, policy, "policy"),
            "another segmenter": describe_checkpoint(self.sam_name, sam, "sam"),
            "other options": {"export": shlex.join(self.choice.options.arguments())},
        }
        for what, entries in wanted.items():
            if any(manifest.provenance.get(name) != value for name, value in entries.items()):
                return what
        if (manifest.policy, manifest.sam) != (self.policy.spec, self.sam.spec):
            return "another wording or other settings of images"
        return "an export that was not compared with torch" if self.choice.verify and not manifest.verified else ""

    def commands(self) -> list[str]:
        """Return what to type to run the bundle, which exists."""
        asked = _SCENE if self.policy_name in SHIPPED or self.sam_name in SHIPPED else _OWN
        image = ["wise-edge", "run", *asked, "--bundle", str(self.out)]
        kind, choice = self.device.kind, self.choice
        build = choice.weights.target == "tensorrt" and kind is not None and not kind.builds_anywhere
        first = [["wise-edge", "build", str(self.out)]] if build and not self.device.here else []
        return [shlex.join(words) for words in (*first, [*image, *self._named_backends()])]

    def _named_backends(self) -> list[str]:
        """Return options that name the plan's backends, if this machine would choose others by itself."""
        if not self.device.here:
            return []
        _, candidates = find_candidates(load(self.out))
        named = {"policy": self.choice.backend, "mask": self.choice.mask_backend}
        others = [part for part, rows in candidates.items() if rows[0].name != named[part]]
        return [word for part in others for word in (f"--{part}-backend", named[part])]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        choice, spec = self.choice, self.policy.spec
        return {
            "out": str(self.out),
            "device": {
                "name": self.device.name,
                "description": self.device.description,
                "gpu": self.device.kind.name if self.device.kind else None,
                "gpu_memory_usable_bytes": self.device.gpu_bytes,
                "memory_usable_bytes": self.device.memory_bytes,
            },
            "policy": {"family": spec.family, "weights": self.policy.weights, "image_tokens": spec.max_image_tokens},
            "sam": {"family": self.sam.spec.family, "weights": self.sam.weights},
            "policy_backend": choice.backend,
            "mask_backend": choice.mask_backend,
            "target": choice.weights.target,
            "precision": choice.weights.name,
            "sam_precision": choice.options.sam_precision,
            "why": self.why,
            "verify": choice.verify,
            "rejected": [asdict(each) for each in choice.rejected],
            "notes": list(choice.notes),
            "memory": [asdict(part) for part in choice.memory],
            "memory_bytes": choice.all_bytes,
            "export_memory_bytes": choice.export_bytes,
            "bundle_bytes": self.disk.bundle_bytes,
            "disk_peak_bytes": self.disk.peak_bytes,
            "steps": [asdict(step) for step in self.steps],
            "export_command": self.export_command,
        }


def plan_setup(
    policy: str, sam: str, wishes: Wishes | None = None, *, out: Path | None = None, host: Host | None = None
) -> Setup:
    """Plan what to make of two checkpoints for a device; writes nothing but a file for a second, to measure the disk.

    Args:
        policy: Hugging Face folder of a policy, or one of the names that ship.
        sam: a segmenter's checkpoint, or one of the names that ship.
        wishes: what the user says.
        out: the bundle's folder; None names one in the current folder after the policy.
        host: where this machine is examined; see `examine`.

    Raises:
        UsageError: a checkpoint or a wish does not fit.
        MissingExtraError: a package is not installed.
        DeviceError: no form of the policy fits.
    """
    wishes = wishes or Wishes()
    folder, checkpoint = resolve_checkpoint(policy, "policy"), resolve_checkpoint(sam, "sam")
    _check_presence(folder, checkpoint)
    prompts = DEFAULT if wishes.default_wording and not (folder / "prompts.json").is_file() else None
    told = Told(picture=wishes.picture, pixels=wishes.pixels, form=wishes.form)
    check_name(wishes.device)
    if wishes.bits not in (None, *BITS):
        raise UsageError(f"--bits is {wishes.bits}; choose {', '.join(map(str, BITS))}")
    if out is not None:
        check_folder_target(out, marker=MANIFEST_NAME, force=True)
    if wishes.calibration is not None:
        from wise_edge.export.source.calibration import read_calibration  # needs torch, as the export does

        read_calibration(wishes.calibration, 1)
    segmenter = measure_sam(checkpoint)
    measured = measure_policy(folder, prompts, told)
    device, this = find_device(wishes.device, host)
    options = {name: getattr(wishes, name) for name in ("form", "picture", "pixels", "calibration")}
    chooser = Chooser(measured, segmenter, device, this, wishes.bits, wishes.verify, tuple(options.items()))
    choice = chooser.choose()
    if any(target in ("onnx", "tensorrt") for target in choice.options.targets):  # their images have fixed grids
        measured = measure_policy(folder, prompts, replace(told, fixed_grids=True))
    place = out or Path(_name(folder if policy == str(folder) else Path(policy), choice))
    disk = count_disk(folder, checkpoint, measured, segmenter, choice)
    steps = list_steps(folder, place.absolute().parent, measured, choice)
    return Setup(policy, sam, place, device, this, measured, segmenter, choice, disk, steps, prompts, wishes.bits)


def _check_presence(policy: Path, sam: Path) -> None:
    """Raise `UsageError` if a checkpoint does not exist, with one message for both."""
    described = ((policy, describe_missing_policy), (sam, describe_missing_segmenter))
    if missing := [describe(path) for path, describe in described if not path.exists()]:
        raise UsageError("; ".join(missing))


def _name(policy: Path, choice: Choice) -> str:
    """Return the name of a bundle: the policy's, the target's and the precision's."""
    names = [policy.resolve().name, policy.resolve().parent.name] if len(policy.parts) > 1 else [policy.name]
    known = next((name for name in names if not re.fullmatch(rf"({'|'.join(_GENERIC)})?(-?\d+)?", name)), names[0])
    return f"{known}-{choice.weights.target}-{choice.weights.name}"
