"""The wording of a profile's facts, shared by the terminal and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PART_LABELS = {
    "query": "a query",
    "policy_frame": "policy, image",
    "policy_write": "policy, query",
    "mask_encode": "segmenter, image",
    "mask_decode": "segmenter, mask",
}
"""Label of each of `wise_edge.profiling.readings.PARTS`."""


def name_run(run: Mapping[str, Any]) -> str:
    """Return the name of a run: its variant and backends."""
    return f"{run['variant']} (policy {run['policy']}, masks {run['mask']})"


def name_rows(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the shortest names that distinguish runs: the variant, and the backend if there are several."""
    several = len({run["policy"] for run in runs}) > 1
    return [f"{run['variant']} · {run['policy']}" if several else str(run["variant"]) for run in runs]


def name_source(power: Mapping[str, Any]) -> str | None:
    """Return the name of the source that counts, with the parts that it adds up; None without a source."""
    sources = power["sources"]
    return ", ".join([sources[0]["name"], *filter(None, [" + ".join(sources[0]["total"])])]) if sources else None


def describe_energy(power: Mapping[str, Any]) -> list[str]:
    """Return a line below a table of energies that names their source; no line without a source."""
    name = name_source(power)
    return [] if name is None else [f"energy by {name}"]


def describe_power(power: Mapping[str, Any]) -> list[str]:
    """Return a line for each power source: how it was read, and the idle power."""
    if power["reason"]:
        return [f"energy not measured: {power['reason']}"]
    lines = []
    for source in power["sources"]:
        moments = (("before", source["idle_before_w"]), ("after", source["idle_after_w"]))
        idle = ", ".join(f"{'not measured' if watts is None else f'{watts:.2f} W'} {when}" for when, watts in moments)
        gap = "" if source["largest_gap_s"] is None else f", largest gap {source['largest_gap_s'] * 1e3:.0f} ms"
        unit = "W" if source["kind"] == "power" else "J"
        gap += "" if source["resolution"] is None else f", steps of {source['resolution']:.3g} {unit}"
        lines.append(f"power from {source['name']}: {source['readings']} readings{gap}; idle {idle}")
    return lines


def describe_doubts(document: Mapping[str, Any]) -> list[str]:
    """Return a line for each reason to doubt a profile's figures."""
    stopped = [f"incomplete: {document['stopped']}"] if document["stopped"] else []
    lost = [f"{source['name']}: {source['lost']}" for source in document["power"]["sources"] if source["lost"]]
    return [*stopped, *document["conditions"]["changes"], *lost]


def query_energy_j(run: Mapping[str, Any]) -> float | None:
    """Return the energy of a query by the source that counts; None if it was not measured."""
    found = run["energy"]["query"]
    return found[0]["energy_j"] if found else None
