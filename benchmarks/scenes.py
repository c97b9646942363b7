"""Measures scenes per second on one core, as a training reads them: image, masks, query, rationale and points.

    python benchmarks/scenes.py [--count N] [--rounds N] [--json]

The rate is per second of CPU time, so other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import statistics
import time

from figures import print_result

from wise_edge.scenes import SIDE_PX, sample

TARGET_PER_SECOND = 150


def measure(first: int, count: int) -> float:
    """Return scenes per second over `count` training samples from index `first` on."""
    start = time.process_time()
    for index in range(first, first + count):
        item = sample("train", index)
        item.rationale("detailed")
        _ = item.points
    return count / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how fast scenes are generated on one core.")
    parser.add_argument("--count", type=int, default=300, help="scenes a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    measure(0, 20)  # warm up
    rates = [measure(1000 + number * options.count, options.count) for number in range(options.rounds)]
    result = {
        "side_px": SIDE_PX,
        "scenes": options.count * options.rounds,
        "scenes_per_second_p50": round(statistics.median(rates), 1),
        "scenes_per_second_min": round(min(rates), 1),
        "target_per_second": TARGET_PER_SECOND,
    }
    print_result(
        result,
        options.json,
        f"{result['scenes']} scenes of {SIDE_PX} x {SIDE_PX} px on one core:",
        f"  {result['scenes_per_second_p50']} a second, at least {result['scenes_per_second_min']} in any round",
        f"  target {TARGET_PER_SECOND} a second",
    )


if __name__ == "__main__":
    main()
