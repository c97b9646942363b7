"""Compares two profiles: the ratios of their costs, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wise_edge.errors import UsageError
from wise_edge.metrics import RESAMPLES, bootstrap_interval
from wise_edge.profiling.document import Document
from wise_edge.profiling.words import name_run, name_source

GATED = ("total", "first_token", "energy", "memory")
"""Figures that `find_regressions` checks; single phases are only shown."""
Run = Mapping[str, Any]


@dataclass(frozen=True)
class Ratio:
    """A figure in two profiles.

    Attributes:
        name: a phase, "energy" (of a query) or "memory".
        a: in the first, ms (mean of the examples' means), J or bytes.
        b: in the second.
        ratio: b over a.
        interval: of the ratio: a 95 % bootstrap interval for times, the measurement uncertainty for energy; None for
            memory, which is read once.
    """

    name: str
    a: float
    b: float
    ratio: float
    interval: tuple[float, float] | None

    def regressed(self, most: float) -> bool:
        """Whether b exceeds a by more than the share `most`, and significantly."""
        return self.ratio > 1 + most and (self.interval is None or self.interval[0] > 1)


@dataclass(frozen=True)
class Compared:
    """A run that both profiles contain.

    Attributes:
        name: variant, and the backends in each.
        figures: the compared figures.
        ciou: cIoU in each; None if either lacks it.
        rationale_tokens: mean rationale tokens in each.
        paired: whether both asked the same queries, which are then compared one by one.
    """

    name: str
    figures: tuple[Ratio, ...]
    ciou: tuple[float, float] | None
    rationale_tokens: tuple[float, float]
    paired: bool


def compare_profiles(a: Document, b: Document) -> list[Compared]:
    """Compare the runs that two profiles share: those with the same variant and backends, else the same variant.

    Energy is compared only if the same kind of source counts in both, with the same parts in its total.

    Raises:
        UsageError: they share no run.
    """
    pairs = _pair(a["runs"], b["runs"])
    if not pairs:
        raise UsageError("the two profiles share no variant; profile both with the same --variants")
    same_source = _counting(a) == _counting(b)
    return [_compare(first, second, same_source) for first, second in pairs]


def find_unmatched(a: Document, b: Document) -> tuple[list[str], list[str]]:
    """Return the names of runs in the first, and in the second profile, that have no counterpart.

    A run has no counterpart if the other profile lacks it, or if two runs of one profile share its name.
    """
    pairs = _pair(a["runs"], b["runs"])
    only_a = [name_run(run) for run in a["runs"] if not any(run is first for first, _ in pairs)]
    only_b = [name_run(run) for run in b["runs"] if not any(run is second for _, second in pairs)]
    return only_a, only_b


def find_differences(a: Document, b: Document) -> list[str]:
    """Return a line for each other difference between two profiles, since it affects their ratios as well."""
    lines = [
        f"{name}: {first or 'none'} in A, {second or 'none'} in B"
        for name, first, second in (
            ("device", a["device"]["processor"], b["device"]["processor"]),
            ("board", a["device"]["board"], b["device"]["board"]),
            ("GPU", a["device"]["gpu"], b["device"]["gpu"]),
            ("power mode", a["conditions"]["before"]["power_mode"], b["conditions"]["before"]["power_mode"]),
            ("queries", a["data"]["name"], b["data"]["name"]),
            ("most pixels", a["data"].get("pixels"), b["data"].get("pixels")),
        )
        if first != second
    ]
    if a["bundle"]["sha256"] != b["bundle"]["sha256"]:
        lines.append(f"bundle: {a['bundle']['name']} in A, {b['bundle']['name']} in B")
    if _counting(a) != _counting(b):
        first, second = (name_source(document["power"]) or "no source" for document in (a, b))
        lines.append(f"energy: from {first} in A, from {second} in B; not compared")
    only_a, only_b = find_unmatched(a, b)
    lines += [f"{name}: only in A" for name in only_a]
    lines += [f"{name}: only in B" for name in only_b]
    for name, document in (("A", a), ("B", b)):
        lines += [f"{name} is incomplete: {document['stopped']}"] if document["stopped"] else []
        lines += [f"{name}: {change}" for change in document["conditions"]["changes"]]
    return lines


def find_regressions(compared: Sequence[Compared], most: float) -> list[str]:
    """Return a line for each figure of `GATED` that regressed by more than the share `most`."""
    return [
        f"{run.name}: {figure.name.replace('_', ' ')} x {figure.ratio:.3f}"
        for run in compared
        for figure in run.figures
        if figure.name in GATED and figure.regressed(most)
    ]


def _counting(document: Document) -> tuple[Any, ...] | None:
    """Return what must be equal for the energies of two profiles to be comparable; None without a source."""
    return next(((each["kind"], each["total"]) for each in document["power"]["sources"]), None)


def _pair(a: Sequence[Run], b: Sequence[Run]) -> list[tuple[Run, Run]]:
    for keys in (("variant", "policy", "mask"), ("variant",)):
        first, second = (_by(keys, runs) for runs in (a, b))
        if shared := [key for key in first if key in second]:
            return [(first[key], second[key]) for key in shared]
    return []


def _by(keys: Sequence[str], runs: Sequence[Run]) -> dict[tuple[str, ...], Run]:
    """Return runs by their keys, without runs that share theirs with another."""
    named: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        named.setdefault(tuple(run[key] for key in keys), []).append(run)
    return {key: found[0] for key, found in named.items() if len(found) == 1}


def _compare(a: Run, b: Run, same_source: bool) -> Compared:
    paired = [reading["example"] for reading in a["readings"]] == [reading["example"] for reading in b["readings"]]
    names = [name for name in a["latency_ms"] if name in b["latency_ms"] and name not in ("other", "overlap")]
    figures = [_compare_times(name, a, b, paired) for name in names]
    energy = _compare_energy(a, b) if same_source else None
    figures += [figure for figure in (energy, _compare_memory(a, b)) if figure is not None]
    both = [run["accuracy"]["ciou"] for run in (a, b) if run["accuracy"]]
    backends = [f"{run['policy']}, {run['mask']}" for run in (a, b)]
    return Compared(
        name=f"{a['variant']} ({' → '.join(dict.fromkeys(backends))})",
        figures=tuple(figure for figure in figures if figure is not None),
        ciou=(both[0], both[1]) if len(both) == 2 else None,
        rationale_tokens=(a["rationale_tokens"], b["rationale_tokens"]),
        paired=paired,
    )


def _compare_times(name: str, a: Run, b: Run, paired: bool) -> Ratio | None:
    first, second = (_times_ms(name, run) for run in (a, b))
    if not first.mean() > 0:
        return None
    interval = bootstrap_interval(second, first) if paired else _unpaired(first, second)
    return Ratio(name, float(first.mean()), float(second.mean()), float(second.mean() / first.mean()), interval)


def _times_ms(name: str, run: Run) -> np.ndarray[Any, Any]:
    """Return the mean time of each example, as repeats are not samples of queries; for one example, all its times."""
    found: dict[str, list[float]] = {}
    for reading in run["readings"]:
        found.setdefault(reading["example"], []).append(reading["latency_ms"][name])
    times = list(found.values())
    return np.array([np.mean(each) for each in times] if len(times) > 1 else times[0])


def _unpaired(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> tuple[float, float]:
    generator = np.random.default_rng(0)
    means = [values[generator.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1) for values in (a, b)]
    low, high = np.percentile(means[1] / means[0], (2.5, 97.5))
    return float(low), float(high)


def _compare_energy(a: Run, b: Run) -> Ratio | None:
    """Compare the energy of a query by the sources that count."""
    found = [run["energy"]["query"][:1] for run in (a, b)]
    if not all(each and each[0]["energy_j"] for each in found):
        return None
    (first,), (second,) = found
    ratio = second["energy_j"] / first["energy_j"]
    off = math.hypot(first["error_share"], second["error_share"])
    return Ratio("energy", first["energy_j"], second["energy_j"], ratio, (ratio * (1 - off), ratio * (1 + off)))


def _compare_memory(a: Run, b: Run) -> Ratio | None:
    first, second = (run["memory"]["host_peak_bytes"] for run in (a, b))
    return Ratio("memory", first, second, second / first, None) if first and second else None
