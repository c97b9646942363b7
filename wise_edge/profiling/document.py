"""The document of a profile, which `wise-edge profile` prints as JSON, writes, draws and compares.

`assets/profile.schema.json` is its schema. It contains every reading, so that others can draw their own conclusions.
"""

from __future__ import annotations

import csv
import io
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from wise_edge import __version__
from wise_edge.errors import DeviceError, UsageError
from wise_edge.files.documents import read_json
from wise_edge.power.jetson import read_jetson
from wise_edge.power.nvml import read_gpu
from wise_edge.profiling.conditions import Conditions, find_changes
from wise_edge.profiling.meter import Meter
from wise_edge.profiling.readings import Measured
from wise_edge.profiling.schema import find_fault
from wise_edge.profiling.windows import PartEnergy

FORMAT = "wise-edge profile"
VERSION = 1
Document = dict[str, Any]
_MOST_BYTES = 256_000_000
"""Of a document; a reading has about 500 bytes, and a sensor's samples 20 each."""
_REMEDY = "pass a file that 'wise-edge profile --out FILE.json' wrote"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""How a text begins that a spreadsheet runs as a formula; full-width signs do where East Asian text is set."""


def describe_device() -> dict[str, Any]:
    """Return names and sizes of the device; None for what is unknown."""
    jetson = read_jetson()
    try:
        gpu = read_gpu()
    except DeviceError:
        gpu = None
    return {
        "board": jetson.model if jetson else platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "gpu": gpu.name if gpu else None,
        "gpu_driver": gpu.driver if gpu else None,
        "gpu_power_limit_w": gpu.power_limit_w if gpu else None,
        "jetpack": jetson.jetpack if jetson else None,
        "system": platform.release(),
    }


def make_document(
    setup: Mapping[str, Any],
    measured: Sequence[Measured],
    meter: Meter,
    before: Conditions,
    after: Conditions,
    stopped: str | None = None,
) -> Document:
    """Assemble the document of a profile.

    Args:
        setup: "bundle" and "data": what was asked, ready for JSON.
        measured: what each variant did on each pair of backends.
        meter: the meter that ran meanwhile.
        before: conditions before the first query.
        after: conditions after the last query.
        stopped: why the profile ended early; None if it did not.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "wise_edge": __version__,
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "stopped": stopped,
        "device": describe_device(),
        **setup,
        "power": {"reason": meter.reason, "sources": [asdict(facts) for facts in meter.facts()]},
        "conditions": {
            "before": asdict(before),
            "after": asdict(after),
            "changes": find_changes(before, after),
        },
        "runs": [_run(each, meter) for each in measured],
    }


def read_document(file: Path) -> Document:
    """Read a document that `wise-edge profile` wrote; raises `UsageError` if it is another file or incomplete."""
    found = read_json(file, _MOST_BYTES, _REMEDY)
    if found.get("format") != FORMAT:
        raise UsageError(f"{file} is not a profile; {_REMEDY}")
    if found.get("version") != VERSION:
        raise UsageError(
            f"{file} has version {found.get('version')!r:.40} of the format, not {VERSION}; profile again or update"
        )
    if (fault := find_fault(found)) is not None:
        raise UsageError(f"{file} is not a complete profile: {fault}; {_REMEDY}")
    return found


def to_csv(document: Document) -> str:
    """Return every reading as a line of CSV, with a column in ms for each phase."""
    phases = [f"{name}_ms" for name in document["runs"][0]["readings"][0]["latency_ms"]] if document["runs"] else []
    counts = ("rationale_tokens", "answer_tokens", "decode_steps", "valid", "intersection_px", "union_px")
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["variant", "policy", "mask", "example", *phases, *counts])
    for run in document["runs"]:
        for reading in run["readings"]:
            spent = [f"{value:.4f}" for value in reading["latency_ms"].values()]
            named = map(_as_text, (run["variant"], run["policy"], run["mask"], reading["example"]))
            lines.writerow([*named, *spent, *(reading[count] for count in counts)])
    return text.getvalue()


def _as_text(value: str) -> str:
    """Return a text as a field that spreadsheets show and do not run.

    Source: https://owasp.org/www-community/attacks/CSV_Injection.
    """
    return f"'{value}" if value.startswith(_FORMULA) else value


def _run(measured: Measured, meter: Meter) -> dict[str, Any]:
    energy = {part: meter.energy(window, measured.on_gpu) for part, window in measured.windows.items()}
    accuracy = measured.accuracy
    return {
        "variant": measured.variant,
        "policy": measured.policy,
        "mask": measured.mask,
        "queries": len(measured.readings),
        "warm_up": measured.warm_up,
        "latency_ms": {name: asdict(spread) for name, spread in measured.latency_ms.items()},
        "rationale_tokens": measured.mean("rationale_tokens"),
        "answer_tokens": measured.mean("answer_tokens"),
        "decode_steps": measured.mean("decode_steps"),
        "step_ms": measured.step_ms,
        "step_j": _step_energy(energy["policy_write"], measured.write_steps),
        "valid_rate": measured.mean("valid"),
        "accuracy": None if accuracy is None else asdict(accuracy),
        "memory": asdict(measured.memory),
        "energy": {part: [asdict(each) for each in found] for part, found in energy.items()},
        "timeline": _timeline(measured, meter),
        "readings": [asdict(reading) for reading in measured.readings],
    }


def _step_energy(write: Sequence[PartEnergy], steps: int) -> float | None:
    """Return the energy of one decode step in J, which includes its share of the query's prefill."""
    return write[0].energy_j / steps if write and write[0].energy_j is not None and steps else None


def _timeline(measured: Measured, meter: Meter) -> dict[str, Any]:
    """Return the median query's phases, in ms since its start, and the power around that time."""
    start_s = min(span.start_s for span in measured.median.spans)
    end_s = start_s + measured.median.total_ms / 1e3
    margin_s = 0.2 * (end_s - start_s)
    traces = []
    for place, trace in enumerate(meter.traces):
        if meter.why_not(place, measured.on_gpu) is not None:
            continue
        times_s, power_w = trace.power(start_s - margin_s, end_s + margin_s)
        at_ms = [round((at_s - start_s) * 1e3, 3) for at_s in times_s.tolist()]
        traces.append({"source": trace.source.name, "time_ms": at_ms, "power_w": power_w.tolist()})
    spans = [
        {"phase": span.phase, "start_ms": (span.start_s - start_s) * 1e3, "end_ms": (span.end_s - start_s) * 1e3}
        for span in measured.median.spans
    ]
    return {"total_ms": measured.median.total_ms, "spans": spans, "power": traces}


def _processor() -> str | None:
    """Return the processor's name if the kernel reports it (it does on x86)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)
