"""A profile's facts in words, for the terminal and the page alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PARTS = {
    "query": "a query",
    "policy_frame": "policy, image",
    "policy_write": "policy, query",
    "mask_encode": "segmenter, image",
    "mask_decode": "segmenter, mask",
}
"""What energy is measured of, in words."""


def name_run(run: Mapping[str, Any]) -> str:
    """Return what a run is called: variant and backends."""
    return f"{run['variant']} on {run['policy']} and {run['mask']}"


def name_rows(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the shortest names that tell runs apart: the variant, and the backend where there are several."""
    several = len({run["policy"] for run in runs}) > 1
    return [f"{run['variant']} · {run['policy']}" if several else str(run["variant"]) for run in runs]


def name_source(power: Mapping[str, Any]) -> str | None:
    """Return the name of the source that counts, with the parts that it adds up; None where there is none."""
    sources = power["sources"]
    return ", ".join([sources[0]["name"], *filter(None, [" + ".join(sources[0]["total"])])]) if sources else None


def describe_energy(power: Mapping[str, Any]) -> list[str]:
    """Return a line for a table that has the energy of queries: what that is of; none without a source."""
    name = name_source(power)
    return [] if name is None else [f"energy by {name}"]


def describe_power(power: Mapping[str, Any]) -> list[str]:
    """Return a line for each source of power: how it was read, and what the device takes idle."""
    if power["reason"]:
        return [f"energy not measured: {power['reason']}"]
    lines = []
    for source in power["sources"]:
        moments = (("before", source["idle_before_w"]), ("after", source["idle_after_w"]))
        told = ", ".join(f"{'not measured' if watts is None else f'{watts:.2f} W'} {when}" for when, watts in moments)
        gap = "" if source["largest_gap_s"] is None else f", largest gap {source['largest_gap_s'] * 1e3:.0f} ms"
        unit = "W" if source["kind"] == "power" else "J"
        gap += "" if source["resolution"] is None else f", steps of {source['resolution']:.3g} {unit}"
        lines.append(f"power from {source['name']}: {source['readings']} readings{gap}; idle {told}")
    return lines


def describe_doubts(document: Mapping[str, Any]) -> list[str]:
    """Return what makes a profile's figures doubtful, a line each."""
    stopped = [f"incomplete: {document['stopped']}"] if document["stopped"] else []
    lost = [f"{source['name']}: {source['lost']}" for source in document["power"]["sources"] if source["lost"]]
    return [*stopped, *document["conditions"]["changes"], *lost]


def joules(value: float) -> str:
    """Write an energy the way a reader wants it: "1.23 J", "45.6 mJ"."""
    return f"{value:.2f} J" if abs(value) >= 0.9995 else f"{value * 1e3:.3g} mJ"  # 999.5 mJ would be 1e+03 mJ
