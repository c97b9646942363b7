"""`wise-edge setup`: two checkpoints on this disk in, the bundle for this device and the line that runs it out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wise_edge.cli import options
from wise_edge.cli.options import flag, option
from wise_edge.drawing.units import duration, number, size
from wise_edge.files.documents import to_json
from wise_edge.policy.answers.form import FORMS

if TYPE_CHECKING:
    from wise_edge.bundle.store import Bundle
    from wise_edge.planning.setup import Setup


def setup(
    policy: Annotated[str, typer.Argument(metavar="POLICY_DIR", help="Hugging Face folder of the policy.")],
    sam: Annotated[str, typer.Argument(metavar="SAM_FILE", help="Checkpoint of the segmenter: a file or a folder.")],
    out: Annotated[
        Path | None, option("DIR", "Folder of the bundle; by default named after the policy.", panel=options.OUTPUT)
    ] = None,
    dry_run: Annotated[
        bool, flag("--dry-run", "Show the plan, with its reasons, memory, disk and time; export nothing.")
    ] = False,
    device: Annotated[
        str,
        option("NAME", "Device to run on: this, cpu, or one that --list names.", panel=options.DEVICE),
    ] = "this",
    bits: Annotated[
        int | None, option("16|8|4", "Bits of the policy's weights; by default the most that fit.", panel=options.MODEL)
    ] = None,
    default_wording: Annotated[
        bool,
        flag(
            "--default-wording",
            "Use the default wording, for a published policy without prompts.json.",
            panel=options.MODEL,
        ),
    ] = False,
    form: Annotated[
        str | None,
        option("NAME|FILE", f"Form of the answers: {', '.join(FORMS)}, or a file.", panel=options.MODEL),
    ] = None,
    picture: Annotated[
        str | None,
        option("HOW", "How images are resized: square[:SIDE] or aspect[:LEAST-MOST].", panel=options.MODEL),
    ] = None,
    pixels: Annotated[
        int | None,
        option("N", "Most pixels of an image as the policy sees it; fewer is faster.", panel=options.MODEL, min=1),
    ] = None,
    calibration: Annotated[
        Path | None, option("DIR", "Folder of images, each with its queries in a .txt file; scenes if omitted.")
    ] = None,
    verify: Annotated[bool, flag("--verify/--no-verify", "Compare the bundle with torch if memory allows.")] = True,
    as_json: options.Json = False,
    force: Annotated[bool, flag("--force", "Replace another bundle.", panel=options.OUTPUT)] = False,
) -> None:
    """Make the bundle that fits this device from a policy and a segmenter, check it, and print how to run it."""
    from wise_edge.extras import check_python

    check_python("export")
    from wise_edge.planning.setup import Wishes, plan_setup

    wishes = Wishes(device, bits, verify, default_wording, form, picture, pixels, calibration)
    planned = plan_setup(policy, sam, wishes, out=out)
    if dry_run:
        if as_json:
            typer.echo(to_json(planned.to_dict()))
        else:
            _print_plan(planned, stderr=False)
        return
    if not as_json:
        _print_plan(planned, stderr=True)
    bundle = None if force else planned.find_bundle()
    reused = bundle is not None
    if bundle is None:
        bundle = _export(planned, force)
    answered = _ask(planned, bundle) if planned.device.here else None
    _report(planned, bundle, reused, answered, as_json)


def _export(planned: Setup, force: bool) -> Bundle:
    from wise_edge.bundle.store import load
    from wise_edge.cli.export import EndToEnd
    from wise_edge.cli.output.progress import ProgressLine
    from wise_edge.export.pipeline import export_bundle

    planned.check_room()
    check = EndToEnd(planned.sam_name, planned.out) if planned.choice.verify else None
    with ProgressLine() as progress:
        export_bundle(
            planned.policy_name,
            planned.sam_name,
            planned.out,
            planned.choice.options,
            verify=check,
            prompts=planned.prompts,
            force=force,
            progress=progress,
        )
    return load(planned.out)


def _ask(planned: Setup, bundle: Bundle) -> dict[str, Any]:
    """Ask the bundle on this device, on the plan's backends, about a scene; return what ran and how long it took."""
    from wise_edge.export.source.calibration import read_calibration
    from wise_edge.runtimes.session import Session

    sample = read_calibration(planned.choice.options.calibration, 1)[0]
    policy, mask = planned.choice.backend, planned.choice.mask_backend
    session = Session.from_bundle(bundle, policy_backend=policy, mask_backend=mask, verify_hashes=False)
    result = session.segment(sample.image, sample.query)
    chosen = {part: choice.name for part, choice in result.backends.items()}
    return {"query": sample.query, "status": result.status, "backends": chosen, "total_ms": result.latency_ms.total}


def _report(planned: Setup, bundle: Bundle, reused: bool, answered: dict[str, Any] | None, as_json: bool) -> None:
    commands, device = planned.commands(), planned.device
    if as_json:
        done = {
            "sha256": bundle.sha256,
            "reused": reused,
            "verified": bundle.manifest.verified,
            "first_query": answered,
        }
        typer.echo(to_json({"plan": planned.to_dict(), "bundle": str(planned.out), **done, "commands": commands}))
        return
    state = "is there already, made of the same checkpoints with the same options" if reused else "is written"
    typer.echo(f"bundle    {planned.out} {state}; bundle.json sha256:{bundle.sha256}")
    figures = len(bundle.manifest.verification)
    typer.echo(f"checked   {f'{figures} comparisons with torch' if bundle.manifest.verified else 'not with torch'}")
    if answered is not None:
        ran = " and ".join(answered["backends"].values())
        typer.echo(f"answered  one query in {answered['total_ms'] / 1e3:.1f} s on {ran}: {answered['status']}")
    if not device.here:
        typer.echo(f"copy {planned.out} to {device.description}, and there:")
    for command in commands:
        typer.echo(command)


def _print_plan(planned: Setup, *, stderr: bool) -> None:
    from wise_edge.cli.output.tables import open_console, show_facts

    console = open_console(stderr=stderr)
    show_facts(console, _facts(planned))
    console.print(f"{'same as':11}{planned.export_command}", markup=False, soft_wrap=True)  # in one piece, to be copied


def _facts(planned: Setup) -> Iterator[tuple[str, str]]:
    """Yield the plan for people."""
    choice, spec, disk = planned.choice, planned.policy.spec, planned.disk
    yield "device", f"{planned.device.description}: {_rooms(planned)} may be used"
    weights = number(planned.policy.weights)
    tokens = f"up to {spec.max_image_tokens} image tokens"
    yield "policy", f"{planned.policy_name}: {spec.family}, {weights} weights, {tokens}"
    yield "segmenter", f"{planned.sam_name}: {planned.sam.spec.family}, {number(planned.sam.weights)} weights"
    segmenter = f"segmenter {choice.options.sam_precision} on {choice.mask_backend}"
    yield "plan", f"{choice.weights.name} on {choice.backend}, {segmenter}"
    yield "why", planned.why
    for reason, tried in groupby(choice.rejected, lambda each: each.reason):
        yield "rejected", f"{', '.join(each.what for each in tried)}: {reason}"
    parts = ", ".join(f"{part.name} {size(part.bytes)}" for part in choice.memory)
    yield "memory", f"{size(choice.all_bytes)} to run it: {parts}"
    yield "", f"{size(choice.export_bytes)} to export it"
    yield "disk", f"{size(disk.bundle_bytes)}, up to {size(disk.peak_bytes)} during the export"
    for step in planned.steps:
        known = "not known" if step.seconds is None else f"about {duration(step.seconds)}"
        yield "time", f"{step.name}: {known} ({step.reason})"
    yield from (("note", note) for note in choice.notes)


def _rooms(planned: Setup) -> str:
    rooms = ((planned.device.gpu_bytes, "GPU memory"), (planned.device.memory_bytes, "memory"))
    return " and ".join(f"{size(room)} of {what}" for room, what in rooms if room is not None) or "any memory"
