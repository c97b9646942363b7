"""Renders a profile as one self-contained page: no network, no script; it follows the reader's light or dark theme."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from wise_edge.drawing.units import joules, milliseconds, size
from wise_edge.drawing.web import render, section, table
from wise_edge.profiling import words
from wise_edge.profiling.charts import (
    color_of,
    draw_distribution,
    draw_phases,
    draw_timeline,
    draw_tradeoff,
)
from wise_edge.profiling.document import Document
from wise_edge.runtimes.spans import PHASES

_SHOWN = (*PHASES, "other")


def render_page(document: Document) -> str:
    """Return the page of a profile: HTML that fetches nothing."""
    runs = document["runs"]
    title = f"What a mask costs on {_device(document)}"
    longest_ms = max(run["timeline"]["total_ms"] for run in runs)
    blocks = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(_subtitle(document))}</p>",
        _doubts(document),
        "<h2>At a glance</h2>",
        section(_glance(runs)),
        *(f"<p>{escape(line)}</p>" for line in words.describe_energy(document["power"])),
        *_tradeoff(runs),
        "<h2>Where the time goes</h2>",
        "<p>Mean phases, stacked; the number is the mean of the complete query.</p>",
        section(draw_phases(runs, _SHOWN) + _legend(_SHOWN)),
        "<h2>How much it varies</h2>",
        "<p>One dot per query, outliers included. Lines: p50 (thick), p90, and p99 (dashed).</p>",
        section(draw_distribution(runs)),
        "<h2>A median query</h2>",
        f"<p>{escape(_power_note(document))}</p>",
        *(
            f"<h3>{escape(name)}</h3>{section(draw_timeline(run, PHASES, longest_ms))}"
            for name, run in zip(words.name_rows(runs), runs, strict=True)
        ),
        "<h2>Energy</h2>",
        *_energy(document),
        "<h2>All figures</h2>",
        *(
            f"<details><summary>{escape(words.name_run(run))}</summary>{section(_figures(run))}</details>"
            for run in runs
        ),
        "<h2>Conditions</h2>",
        section(_conditions(document)),
        f"<footer>wise-edge {escape(document['wise_edge'])}, {escape(document['written'])}</footer>",
    ]
    return render(title, blocks)


def _subtitle(document: Document) -> str:
    device, data = document["device"], document["data"]
    asked = f"{data['queries']} queries of {data['name']}" + (
        f", {data['repeat']} times each" if data["repeat"] > 1 else ""
    )
    pixels = f"at most {data['pixels']} pixels" if data.get("pixels") else None
    cores = f"{device['cores']} processors" if device["cores"] else None
    what = [device["board"], cores, f"bundle {document['bundle']['name']}", asked, pixels]
    return ", ".join(part for part in what if part)


def _device(document: Document) -> str:
    """Return the common name of a device: a Jetson's board, otherwise the GPU or the processor."""
    device = document["device"]
    names = [device["board"] if device["jetpack"] else None, device["gpu"], device["processor"], device["board"]]
    return str(next(name for name in names if name))


def _doubts(document: Document) -> str:
    lines = words.describe_doubts(document)
    return (
        f'<section class="doubts"><ul>{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul></section>'
        if lines
        else ""
    )


def _glance(runs: Sequence[Mapping[str, Any]]) -> str:
    head = ("", "rationale tokens", "cIoU", "first token", "p50", "p90", "p99", "energy", "memory")
    rows = []
    for name, run in zip(words.name_rows(runs), runs, strict=True):
        accuracy, latency = run["accuracy"], run["latency_ms"]
        energy_j = words.query_energy_j(run)
        rows.append(
            (
                name,
                f"{run['rationale_tokens']:.1f}",
                "–" if accuracy is None else _with_interval(accuracy["ciou"], accuracy["ciou_interval"]),
                milliseconds(latency["first_token"]["p50"]),
                *(milliseconds(latency["total"][key]) for key in ("p50", "p90", "p99")),
                "–" if energy_j is None else joules(energy_j),
                size(run["memory"]["host_peak_bytes"]),
            )
        )
    return table(head, rows)


def _tradeoff(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    chart = draw_tradeoff(runs)
    if chart is None:
        return []
    caption = "Up is more accurate, left is faster. Discs grow with the rationale; lines are 95 % intervals."
    return ["<h2>What a rationale buys</h2>", f"<p>{caption}</p>", section(chart)]


def _power_note(document: Document) -> str:
    where = "When each phase ran, for the query with the median total."
    if document["power"]["sources"]:
        return where
    reason = document["power"]["reason"]
    return f"{where} Power was not read{f': {reason}' if reason else ''}."


def _energy(document: Document) -> list[str]:
    notes = "".join(f"<p>{escape(line)}</p>" for line in words.describe_power(document["power"]))
    if not document["power"]["sources"]:
        return [notes]
    caption = (
        "<p>Each part was repeated on its own in a window long enough for the sensor; the energy is per repetition.</p>"
    )
    head = ("", "energy", "uncertainty", "above idle", "repeated", "window", "readings", "largest gap", "source")
    blocks = [notes, caption]
    for name, run in zip(words.name_rows(document["runs"]), document["runs"], strict=True):
        found = [
            (words.PART_LABELS[part], source["name"], each)
            for part, energies in run["energy"].items()
            for source, each in zip(document["power"]["sources"], energies, strict=True)
        ]
        refused = dict.fromkeys(f"{part}: {each['reason']}" for part, _, each in found if each["reason"])
        reasons = "".join(f"<p>{escape(line)}</p>" for line in refused)
        blocks.append(
            f"<h3>{escape(name)}</h3>{section(table(head, (_energy_row(*each) for each in found)) + reasons)}"
        )
    return blocks


def _energy_row(part: str, source: str, each: Mapping[str, Any]) -> tuple[str, ...]:
    window = (
        f"{each['times']} ×",
        f"{each['window_s']:.2f} s",
        str(each["samples"]),
        f"{each['largest_gap_s'] * 1e3:.0f} ms",
    )
    return (
        part,
        "not measurable" if each["energy_j"] is None else joules(each["energy_j"]),
        "–" if each["error_share"] is None else f"{each['error_share']:.1%}",
        "–" if each["net_j"] is None else joules(each["net_j"]),
        *(window if each["times"] else ("–",) * len(window)),
        source,
    )


def _figures(run: Mapping[str, Any]) -> str:
    head = ("phase", "p50", "p90", "p99", "mean", "95 % of the mean")
    rows = [
        (
            name.replace("_", " "),
            *(milliseconds(spread[key]) for key in ("p50", "p90", "p99", "mean")),
            f"{spread['interval'][0]:.2f} to {spread['interval'][1]:.2f} ms",
        )
        for name, spread in run["latency_ms"].items()
    ]
    counts = f"{run['queries']} queries after {run['warm_up']} warm-up queries; {run['decode_steps']:.1f} decode steps"
    step = "" if run["step_ms"] is None else f", {run['step_ms']:.2f} ms each"
    return table(head, rows) + f"<p>{escape(counts + step)}</p>"


def _conditions(document: Document) -> str:
    before, after = (document["conditions"][when] for when in ("before", "after"))
    rows: list[tuple[str, ...]] = [("power mode", before["power_mode"] or "none", after["power_mode"] or "none")]
    pinned = [_pinned(when["clocks"]) for when in (before, after)]
    rows.append(("clocks", *pinned))
    rows += _rows_of(_clocks(before), _clocks(after))
    rows += _rows_of(_temperatures(before), _temperatures(after))
    device = [(key.replace("_", " "), str(value), "") for key, value in document["device"].items() if value is not None]
    return table(("", "before", "after"), rows) + "<h3>Device</h3>" + table(("", "", ""), device)


def _rows_of(before: Mapping[str, str], after: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Return a row for each name that is in either state."""
    return [(name, before.get(name, "–"), after.get(name, "–")) for name in {**before, **after}]


def _clocks(state: Mapping[str, Any]) -> dict[str, str]:
    return {
        clock["name"]: f"{clock['now_hz'] / 1e6:.0f} of {clock['most_hz'] / 1e6:.0f} MHz" for clock in state["clocks"]
    }


def _temperatures(state: Mapping[str, Any]) -> dict[str, str]:
    known = dict(state["temperatures_c"])
    if state["gpu"] and state["gpu"]["temperature_c"] is not None:
        known["GPU"] = state["gpu"]["temperature_c"]
    return {name: f"{celsius:.0f} °C" for name, celsius in known.items()}


def _pinned(clocks: Sequence[Mapping[str, Any]]) -> str:
    """Say whether clocks can change; `jetson_clocks` pins them."""
    if not clocks:
        return "unknown"
    return "pinned" if all(clock["least_hz"] == clock["most_hz"] for clock in clocks) else "change with load"


def _with_interval(value: float, interval: Sequence[float]) -> str:
    return f"{value:.3f} ({interval[0]:.2f} to {interval[1]:.2f})"


def _legend(phases: Iterable[str]) -> str:
    entries = (
        f'<span><i style="background:{color_of(name)}"></i>{escape(name.replace("_", " "))}</span>' for name in phases
    )
    return f'<div class="legend">{"".join(entries)}</div>'
