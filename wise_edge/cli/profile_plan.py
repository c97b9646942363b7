"""`wise-edge profile plan`: estimates what a query would cost on a device that is not at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wise_edge.cli import options
from wise_edge.cli.options import option
from wise_edge.files.documents import to_json

if TYPE_CHECKING:
    from rich.table import Table

    from wise_edge.profiling.roofline.estimate import Deviation, PhaseEstimate
    from wise_edge.profiling.roofline.shapes import DevicePeaks, PolicyShape, Quant


def plan(
    model: Annotated[str, option("NAME", "The policy, for example qwen2.5-vl-3b.")] = "qwen2.5-vl-3b",
    quant: Annotated[
        str, option("NAME", "Quantization of its weights: int4, nvfp4, ... (TensorRT) or Q4_K_M, ... (llama.cpp).")
    ] = "int4",
    sam: Annotated[str, option("NAME", "The segmenter: sam-vit-b, sam-vit-l or sam-vit-h.")] = "sam-vit-b",
    device: Annotated[str, option("NAME", "The device, for example orin-nx.")] = "orin-nx",
    variant: Annotated[str, option("NAME", "The prompt variant whose phases are listed.")] = "wise-s",
    side: Annotated[
        int | None,
        option("PX", "Side of the resized image.", show_default="840, or the closest that the model accepts"),
    ] = None,
    check: Annotated[
        bool, options.flag("--check", "List every published measurement with its estimate from the others.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Estimate the cost of a query on a device that is not at hand; nothing is measured.

    The bound follows from arithmetic, bytes and the device's published peaks; the estimate divides it by the share of
    the bound that published measurements reach.
    """
    from wise_edge.errors import DeviceError
    from wise_edge.profiling.roofline.estimate import RATIONALE_TOKENS, check_published, estimate_query
    from wise_edge.profiling.roofline.shapes import DEVICES, POLICIES, QUANTS, SEGMENTERS, find
    from wise_edge.profiling.roofline.work import image_tokens, resident_bytes

    policy = find(POLICIES, model, "model")
    weights = find(QUANTS, quant, "quant")
    segmenter = find(SEGMENTERS, sam, "segmenter")
    target = find(DEVICES, device, "device")
    if weights.fp4 and target.fp4_tflops is None:
        raise DeviceError(f"{target.description} has no 4-bit floating-point arithmetic; choose --quant int4")
    names = [variant, *(name for name in RATIONALE_TOKENS if name != variant)]
    estimates = {name: estimate_query(policy, weights, segmenter, target, name, side) for name in names}
    deviations = check_published()
    resident_gb = resident_bytes(policy, weights) / 1e9
    if as_json:
        document = {
            "estimate": True,
            "device": asdict(target),
            "model": asdict(policy),
            "quant": asdict(weights),
            "segmenter": asdict(segmenter),
            "image_tokens": image_tokens(policy, side),
            "weights_gb": resident_gb,
            "variants": {name: _variant(phases, target) for name, phases in estimates.items()},
            "published": [asdict(each) for each in deviations],
        }
        typer.echo(to_json(document))
        return
    _print(policy, weights, target, variant, estimates, resident_gb)
    _print_check(deviations, check)


def _variant(phases: Sequence[PhaseEstimate], device: DevicePeaks) -> dict[str, Any]:
    slowest_ms = _sum(phase.high_ms for phase in phases)
    return {
        "phases": [asdict(phase) for phase in phases],
        "bound_ms": sum(phase.bound_ms for phase in phases),
        "estimate_ms": _sum(phase.estimate_ms for phase in phases),
        "energy_j_at_most": None if slowest_ms is None else slowest_ms / 1e3 * device.power_w,
    }


def _sum(values: Iterable[float | None]) -> float | None:
    """Add up the values of all phases; None if one is unknown."""
    found = list(values)
    return None if None in found else sum(value for value in found if value is not None)


def _print(
    policy: PolicyShape,
    quant: Quant,
    device: DevicePeaks,
    variant: str,
    estimates: Mapping[str, Sequence[PhaseEstimate]],
    resident_gb: float,
) -> None:
    from wise_edge.cli.output.tables import open_console, show
    from wise_edge.drawing.units import joules, milliseconds

    console = open_console()
    console.print(
        f"estimated, not measured: {policy.name} {quant.name} on {device.description}, {variant}", markup=False
    )
    table = _table("", "GFLOP", "GB", "bound", "estimate", "range", "share")
    for phase in estimates[variant]:
        low, high, share = phase.low_ms, phase.high_ms, phase.share
        table.add_row(
            phase.phase.replace("_", " "),
            f"{phase.flops / 1e9:,.0f}",
            f"{phase.bytes / 1e9:.1f}",
            milliseconds(phase.bound_ms),
            "-" if phase.estimate_ms is None else milliseconds(phase.estimate_ms),
            "-" if low is None or high is None or low == high else f"{milliseconds(low)} to {milliseconds(high)}",
            "-" if share is None else f"{share.middle:.0%} ({share.rows})",
        )
    show(console, table)
    totals = _table("", "bound", "estimate", f"at most, at {device.power_w:.0f} W")
    for name, phases in estimates.items():
        figures = _variant(phases, device)
        about, most_j = figures["estimate_ms"], figures["energy_j_at_most"]
        row = ("-", "-") if about is None else (milliseconds(about), joules(most_j))
        totals.add_row(name, milliseconds(figures["bound_ms"]), *row)
    show(console, totals)
    foreign = [phase for phase in estimates[variant] if phase.share and phase.share.of != device.family]
    for phase in foreign:
        name = phase.phase.replace("_", " ")
        console.print(f"{name}: based on measurements of {phase.share.of if phase.share else ''}", markup=False)
    fits = "" if resident_gb < device.memory_gb else ": too large for the device"
    console.print(f"policy weights: {resident_gb:.1f} of {device.memory_gb:.0f} GB{fits}", markup=False)
    console.print(
        "Mask decoding is not estimated (kernel launches dominate it: a few ms). Phases are added up as if sequential.",
        markup=False,
    )


def _table(*headings: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=True)
    return table


def _print_check(deviations: Sequence[Deviation], each: bool) -> None:
    from wise_edge.cli.output.tables import open_console

    console = open_console()
    known = [abs(found.deviation) for found in deviations if found.deviation is not None]
    console.print(
        f"{len(deviations)} published measurements, each estimated from the others: median error {median(known):.0%}, "
        f"largest {max(known):.0%}; {len(deviations) - len(known)} are the only ones of their kind."
        + ("" if each else " --check lists them."),
        markup=False,
    )
    for found in deviations if each else ():
        row = found.row
        kept = row.quant or "(precision not published)"
        what = f"{row.device}, {row.model} {kept}, {row.phase.replace('_', ' ')} of {row.tokens} tokens"
        estimate = (
            "nothing to estimate from"
            if found.estimate_ms is None
            else f"{found.estimate_ms:.1f} ms, {found.deviation:+.0%}"
        )
        console.print(f"{what}: {row.value_ms:.1f} ms; from the others: {estimate} ({row.source})", soft_wrap=True)
