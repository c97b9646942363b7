"""Measures what the power sampler of `wise-edge profile` costs: share of a core, and latency of the profiled queries.

    python benchmarks/profile_overhead.py [--queries N] [--json]

The three rails of a Jetson Orin Nano are files in memory, read at the sampler's own rate; waiting for the I2C bus of a
real sensor is not included. Queries with and without the sampler alternate, on the embedded models. A profile measures
latencies while the sampler rests; the ratio here applies to its windows for energy.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from jetson_trees import BOARDS, write_tree
from wise_edge.datasets.base import Example
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.metrics import bootstrap_interval
from wise_edge.power.rails import find_jetson_rails
from wise_edge.power.sampler import PowerSampler
from wise_edge.runtimes.session import Session

BLOCK = 5  # queries per turn
FASTEST = Path("/dev/shm")


def write_rails(root: Path) -> None:
    write_tree(root, BOARDS["orin-nano"])
    for channel in (1, 2, 3):
        folder = root / "sys/class/hwmon/hwmon1"
        (folder / f"in{channel}_input").write_text("5072\n")
        (folder / f"curr{channel}_input").write_text("1234\n")


def ask(session: Session, example: Example) -> float:
    session.forget()
    return session.segment(example.image, example.query).latency_ms.total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=400, help=f"of each kind, in blocks of {BLOCK}")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=FASTEST if FASTEST.is_dir() else None) as folder:
        root = Path(folder)
        write_rails(root)
        source = find_jetson_rails(root)
        assert source is not None
        session, dataset = Session.from_bundle(), SceneDataset("test")
        examples = [dataset[place] for place in range(BLOCK)]
        times_ms: dict[bool, list[float]] = {True: [], False: []}
        busy_s = sampled_s = 0.0
        readings = 0
        for example in examples:
            ask(session, example)
        for _ in range(max(1, options.queries // BLOCK)):
            with PowerSampler(source).running() as sampler:
                (thread,) = (each for each in threading.enumerate() if each.name == "power")
                clock = time.pthread_getcpuclockid(thread.ident)  # type: ignore[arg-type]
                began, busy = time.perf_counter(), time.clock_gettime(clock)
                times_ms[True] += [ask(session, example) for example in examples]
                busy_s += time.clock_gettime(clock) - busy
                sampled_s += time.perf_counter() - began
                readings += len(sampler.trace().times_s)
            times_ms[False] += [ask(session, example) for example in examples]
    with_it, without = np.array(times_ms[True]), np.array(times_ms[False])
    figures = {
        "queries": len(with_it),
        "readings_hz": readings / sampled_s,
        "core_share": busy_s / sampled_s,
        "latency_ratio": float(with_it.mean() / without.mean()),
        "latency_ratio_interval": bootstrap_interval(with_it, without),
        "median_ratio": float(np.median(with_it) / np.median(without)),
    }
    if options.json:
        print(json.dumps(figures, indent=1))
        return
    low, high = figures["latency_ratio_interval"]
    print(f"{figures['readings_hz']:.0f} readings a second take {figures['core_share']:.2%} of a core")
    print(f"latency x {figures['latency_ratio']:.4f} ({low:.4f} to {high:.4f}), median x {figures['median_ratio']:.4f}")


if __name__ == "__main__":
    main()
