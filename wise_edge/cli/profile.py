"""`wise-edge profile`: what a mask costs on this device, in milliseconds and joules."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from wise_edge.cli.options import BundleOption, JsonOption, MaskBackendOption

if TYPE_CHECKING:
    from wise_edge.profiler import Cost, Meter, PartEnergy


def profile(
    bundle: BundleOption = None,
    scenes: Annotated[int, typer.Option("--scenes", metavar="N", min=1, help="Synthetic test scenes to ask.")] = 20,
    repeat: Annotated[int, typer.Option(metavar="N", min=1, help="How often each is asked.")] = 1,
    variants: Annotated[
        str, typer.Option(metavar="NAMES", help="Prompt variants, separated by commas.")
    ] = "verbose,wise-infer,wise-s,answer",
    backends: Annotated[
        str, typer.Option("--backends", metavar="NAMES", help="Runtimes of the policy, separated by commas.")
    ] = "auto",
    mask_backend: MaskBackendOption = "auto",
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="CPU threads; the runtime's choice where left out.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what queries cost on this device, by phase.

    Energy is that of what tells its power (a Jetson: the board; a desktop: its GPU alone, else its processor), where it
    does so surely; elsewhere the reason is given.
    """
    from wise_edge.datasets.scenes import SceneDataset
    from wise_edge.profiler import profile_session
    from wise_edge.runtimes.session import Session

    dataset = SceneDataset("test")
    examples = [dataset[place] for place in range(scenes)]
    costs: list[Cost] = []
    with _open_meter().running() as meter:
        for backend in backends.split(","):
            session = Session.from_bundle(bundle, policy_backend=backend, mask_backend=mask_backend, threads=threads)
            for variant in variants.split(","):
                typer.echo(f"measuring {variant} on {session.policy.name}", err=True)
                costs.append(profile_session(session, examples, variant, repeat, meter))
    if as_json:
        source = None if meter.source is None else meter.source.name
        document = {"power_source": source, "idle_w": meter.idle_w, "costs": [cost.to_dict() for cost in costs]}
        typer.echo(json.dumps(document))
    else:
        _print(costs, meter)


def _open_meter() -> Meter:
    """Return a meter on the best source of this machine, or one that says why there is none."""
    from wise_edge.errors import DeviceError
    from wise_edge.nvml import find_gpu_power
    from wise_edge.power import find_battery, find_jetson_rails, find_rapl
    from wise_edge.profiler import Meter

    refused = []
    for find in (find_jetson_rails, find_gpu_power, find_rapl, find_battery):
        try:
            source = find()
        except DeviceError as error:
            refused.append(str(error))
            continue
        if source is not None:
            return Meter(source)
    return Meter(None, "; ".join(refused) or "this machine tells its power nowhere that is known")


def _print(costs: list[Cost], meter: Meter) -> None:
    from rich.console import Console
    from rich.table import Table

    from wise_edge.panel import milliseconds

    console = Console()

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False)

    for cost in costs:
        counts = f"{cost.queries} queries after {cost.warm_up} to warm up"
        title = f"{cost.variant} on {cost.policy} and {cost.mask}: {counts}"
        table = Table("phase", "p50", "p90", "p99", "mean", "95 %", title=title, title_justify="left")
        for name, spread in cost.latency_ms.items():
            low, high = spread.interval
            times = [spread.p50, spread.p90, spread.p99, spread.mean]
            table.add_row(name.replace("_", " "), *map(milliseconds, times), f"{low:.1f} to {high:.1f} ms")
        console.print(table)
        step = "" if cost.step_ms is None else f", {cost.step_ms:.2f} ms each"
        say(
            f"{cost.rationale_tokens:.1f} tokens of rationale, {cost.decode_steps:.1f} runs of the language model{step}"
        )
        reasons = {energy.reason for energy in cost.energy.values() if energy.reason}
        for part, energy in cost.energy.items():
            if energy.energy_j is not None:
                say(f"energy, {part.replace('_', ' ')}: {_energy(energy)}")
        for reason in sorted(reasons):
            say(f"energy not measured: {reason}")
    if meter.source is not None:
        idle = "not measured" if meter.idle_w is None else f"{meter.idle_w:.2f} W"
        say(f"power from {meter.source.name}, idle {idle}")


def _energy(energy: PartEnergy) -> str:
    net = "" if energy.net_j is None else f", {energy.net_j:.3g} J above idle"
    return f"{energy.energy_j:.3g} J ± {energy.error_share:.1%}{net} ({energy.times} in {energy.window_s:.1f} s)"
