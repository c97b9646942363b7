"""Made-up documents of profiles in which every part of a report has something to show."""

from __future__ import annotations

from typing import Any

from wise_edge.profiling.words import PART_LABELS
from wise_edge.runtimes.spans import PHASES


def spread(value: float) -> dict[str, Any]:
    return {"p50": value, "p90": value * 1.1, "p99": value * 1.3, "mean": value, "interval": [value * 0.9, value * 1.1]}


def make_run(variant: str, decode_ms: float, ciou: float | None, power: bool) -> dict[str, Any]:
    latency = dict.fromkeys(PHASES, 10.0) | {"decode": decode_ms, "overlap": 0.0, "other": 1.0, "first_token": 30.0}
    latency["total"] = 51.0 + decode_ms
    spans, at_ms = [], 0.0
    for phase in PHASES:
        spans.append({"phase": phase, "start_ms": at_ms, "end_ms": at_ms + latency[phase]})
        at_ms += latency[phase]
    times = [float(ms) for ms in range(-20, 220, 5)]
    trace = {"source": "Jetson rails", "time_ms": times, "power_w": [8.0 + 6.0 * (0 < ms < 150) for ms in times]}
    part = {
        "energy_j": 1.5,
        "net_j": 0.5,
        "reason": None,
        "times": 12,
        "window_s": 1.6,
        "samples": 320,
        "largest_gap_s": 0.006,
        "error_share": 0.011,
    }
    refused = part | {"energy_j": None, "net_j": None, "reason": "3 samples in 60 ms", "error_share": None}
    accuracy = {"ciou": ciou, "ciou_interval": [0.7, 0.9], "giou": 0.8, "giou_interval": [0.7, 0.9]}
    reading = {
        "example": "test-0",
        "latency_ms": latency,
        "rationale_tokens": 15,
        "answer_tokens": 46,
        "decode_steps": 31,
        "valid": True,
        "intersection_px": 90,
        "union_px": 100,
    }
    return {
        "variant": variant,
        "policy": "llama",
        "mask": "onnx",
        "queries": 2,
        "warm_up": 3,
        "latency_ms": {name: spread(value) for name, value in latency.items()},
        "rationale_tokens": 15.0,
        "answer_tokens": 46.0,
        "decode_steps": 31.0,
        "step_ms": 1.5,
        "step_j": 0.02 if power else None,
        "valid_rate": 1.0,
        "accuracy": accuracy if ciou is not None else None,
        "memory": {"host_peak_bytes": 160_000_000, "gpu_bytes": None},
        "energy": dict.fromkeys(PART_LABELS, [refused] if power else []) | {"query": [part] if power else []},
        "timeline": {"total_ms": latency["total"], "spans": spans, "power": [trace] if power else []},
        "readings": [reading, reading],
    }


def make_document(*, power: bool = True, ciou: float | None = 0.8) -> dict[str, Any]:
    source = {
        "name": "Jetson rails (ina3221)",
        "kind": "power",
        "parts": ["VDD_IN"],
        "total": ["VDD_IN"],
        "interval_s": 0.005,
        "resolution": 0.04,
        "readings": 4000,
        "dropped": 0,
        "largest_gap_s": 0.006,
        "idle_before_w": 5.0,
        "idle_after_w": 5.2,
        "lost": None,
    }
    state = {
        "power_mode": "15W",
        "clocks": [{"name": "cpu0", "now_hz": 729600000, "least_hz": 729600000, "most_hz": 1728000000}],
        "temperatures_c": {"gpu-thermal": 51.0},
        "throttled": {},
        "gpu": None,
        "slept_s": 0.0,
        "unix_minus_monotonic_s": 0.0,
    }
    return {
        "format": "wise-edge profile",
        "version": 1,
        "wise_edge": "0",
        "written": "2026-01-01T00:00:00+00:00",
        "stopped": None,
        "device": {
            "board": "NVIDIA Jetson <Orin>",
            "processor": None,
            "cores": 6,
            "memory_bytes": 8_000_000_000,
            "gpu": None,
            "gpu_driver": None,
            "gpu_power_limit_w": None,
            "jetpack": "6.2",
            "system": "5.15",
        },
        "bundle": {"name": "embedded", "sha256": "0" * 64},
        "data": {"name": "scenes/test", "queries": 2, "repeat": 1},
        "power": {"reason": None if power else "no sensor", "sources": [source] if power else []},
        "conditions": {"before": state, "after": state, "changes": []},
        "runs": [make_run("verbose", 120.0, ciou, power), make_run("wise-s", 40.0, ciou, power)],
    }
