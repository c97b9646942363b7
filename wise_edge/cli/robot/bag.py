"""`wise-edge bag`: run a query on a recorded camera."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wise_edge.cli import options
from wise_edge.cli.options import option
from wise_edge.drawing.units import milliseconds
from wise_edge.files.documents import to_json

if TYPE_CHECKING:
    from wise_edge.robot.bags import BagReport


def bag(
    source: Annotated[Path, typer.Argument(metavar="IN", help="rosbag2 folder, or an .mcap, .db3 or ROS 1 .bag file.")],
    query: Annotated[str, option("QUERY", "What to find in every image.", panel=options.ASKED)],
    out: Annotated[Path, option("DIR", "Folder of the new rosbag2.", panel=options.OUTPUT)],
    topic: Annotated[
        str | None, option("NAME", "Topic of the images; needed if several have images.", panel=options.ASKED)
    ] = None,
    storage: Annotated[str, option("NAME", "Storage of the new bag: mcap or sqlite3.", panel=options.OUTPUT)] = "mcap",
    results_only: Annotated[
        bool, options.flag("--results-only", "Do not copy the input's messages into the new bag.", panel=options.OUTPUT)
    ] = False,
    rerun: options.Rerun = None,
    report: Annotated[
        Path | None, option("FILE", "Also write an HTML page of latencies and dropped frames.", panel=options.OUTPUT)
    ] = None,
    force: options.Force = False,
    resume: Annotated[bool, options.flag("--resume", "Resume an unfinished run.", panel=options.OUTPUT)] = False,
    variant: options.Variant = None,
    bundle: options.Bundle = None,
    policy_backend: options.PolicyBackend = "auto",
    mask_backend: options.MaskBackend = "auto",
    as_json: options.Json = False,
) -> None:
    """Write a bag with the mask, box and rationale of every image, at the image's stamps; ROS is not needed.

    Also reports what a live run would have done: which frames the policy would have dropped at the recorded rate, and
    how old its answers would have been.
    """
    from wise_edge.bundle.store import load, resolve_bundle
    from wise_edge.cli.output.progress import ProgressLine
    from wise_edge.files.targets import check_target
    from wise_edge.files.writing import atomic_write
    from wise_edge.robot.bag_page import render_bag
    from wise_edge.robot.bags import open_job
    from wise_edge.robot.rerun_log import check_rerun, open_rerun
    from wise_edge.runtimes.deadline import check_choice
    from wise_edge.runtimes.session import Session

    loaded = load(resolve_bundle(bundle))
    inputs = [source, *loaded.files]
    if report is not None:
        check_target(report, force=force, keep=inputs)
    check_rerun(rerun, force=force, keep=inputs)
    check_choice(loaded.manifest.policy.prompts.variants, variant)
    with ExitStack() as stack:
        job = stack.enter_context(
            open_job(
                source,
                topic,
                query,
                out,
                variant=variant,
                storage=storage,
                copy=not results_only,
                resume=resume,
                model_sha256=loaded.sha256,
            )
        )
        notes = [*job.recording.notes, *job.plan.notes]
        _say(notes)
        session = Session.from_bundle(loaded, policy_backend=policy_backend, mask_backend=mask_backend)
        observe = stack.enter_context(open_rerun(rerun, session, force=force)) or (lambda frame, result: None)
        show = stack.enter_context(ProgressLine())
        done = job.run(session, progress=lambda done, count: show("running", done / count), observe=observe)
        _say(later := [note for note in job.recording.notes if note not in notes])
    figures = _figures(done) | {"notes": notes + later}
    try:
        if report is not None:
            title = f"{query}, in {source.name}"
            atomic_write(report, render_bag(title, done, _facts(figures)).encode(), force=force)
    finally:  # the figures are shown even if the disk is full
        _show(figures, done, out, as_json)


def _show(figures: dict[str, Any], done: BagReport, out: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(to_json(figures))
        return
    reused = f" ({done.reused} from an earlier run)" if done.reused else ""
    typer.echo(f"{out}: {done.frames} images{reused}, {done.found} with a mask")
    for name, value in _facts(figures)[2:]:
        typer.echo(f"{name}: {value}")


def _say(notes: list[str]) -> None:
    for note in notes:
        options.note(note)


def _facts(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Return names and values to show."""
    facts = [("images", f"{figures['frames']}"), ("with a mask", f"{figures['found']}")]
    if figures["unreadable"]:
        facts.append(("could not be read", "{unreadable}, the first because {unreadable_reason}".format(**figures)))
    latency = _spread(figures, "took_ms")
    facts.append(("latency per image", latency))
    if figures["bits"]:
        facts.append(("bits per channel", "{bits} of 16, the most that an image used".format(**figures)))
    if figures["clock_reason"]:
        facts.append(("times", figures["clock_reason"]))
    if figures["rate_hz"] is not None:
        seen = "{grounded} of {frames} answered by the policy, {dropped} dropped".format(**figures)
        facts.append((f"live at {figures['rate_hz']:.1f} Hz", seen))
    if figures["age_ms_p50"] is not None:
        age = _spread(figures, "age_ms")
        facts.append(("age of the newest answer", age))
    return facts


def _spread(figures: dict[str, Any], name: str) -> str:
    p50, p99 = (milliseconds(figures[f"{name}_{quantile}"]) for quantile in ("p50", "p99"))
    return f"{p50} at the median, {p99} at p99"


def _figures(report: BagReport) -> dict[str, Any]:
    import numpy as np

    live = report.replay
    ages = [None if live is None else live.age_percentile_s(share) for share in (50, 99)]
    p50, p99 = np.percentile([ms for ms in report.took_ms if ms is not None], (50, 99)).tolist()
    return {
        "frames": report.frames,
        "found": report.found,
        "unreadable": report.unreadable,
        "unreadable_reason": report.reason,
        "bits": report.bits,
        "reused": report.reused,
        "topics": list(report.topics),
        "took_ms_p50": p50,
        "took_ms_p99": p99,
        "clock_reason": report.clock,
        "rate_hz": None if live is None else live.rate_hz,
        "grounded": None if live is None else len(live.grounded),
        "dropped": None if live is None else live.dropped,
        "age_ms_p50": None if ages[0] is None else ages[0] * 1e3,
        "age_ms_p99": None if ages[1] is None else ages[1] * 1e3,
    }
