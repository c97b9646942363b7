"""Checks that the memory of a session does not grow over thousands of images.

    python benchmarks/frames.py [--bundle DIR] [--policy-backend NAME] [--frames 10000] [--json]

Every image is new to the session (a test scene with another pixel changed), of one of three sizes, and gets one query,
or eight together every hundredth time. Resident memory is read every 100 images. Exits with 1 if it grew by more than
2 % after the first 500.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
from figures import print_result
from PIL import Image

from wise_edge.datasets.scenes import SceneDataset
from wise_edge.runtimes.session import Session

SIZES = ((224, 224), (320, 240), (160, 200))
SCENES = 50
ALLOWED = 0.02


def resident_mb() -> float:
    """Return the process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="Watch the memory of one session.")
    parser.add_argument("--bundle", help="bundle; the embedded one where left out")
    parser.add_argument("--policy-backend", default="auto", help="runtime of the policy")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--json", action="store_true", help="print a JSON document")
    options = parser.parse_args()
    session = Session.from_bundle(options.bundle, policy_backend=options.policy_backend, threads=1)
    scenes = SceneDataset("test")
    examples = [scenes[place] for place in range(SCENES)]
    queries = [example.query for example in examples[:8]]
    pictures = [np.asarray(Image.fromarray(e.image).resize(SIZES[n % 3])) for n, e in enumerate(examples)]
    readings, start = [], perf_counter()
    for number in range(options.frames):
        image = pictures[number % SCENES].copy()
        image[0, 0] = (number % 256, number // 256 % 256, number // 65536)
        if number % 100:
            session.segment(image, examples[number % SCENES].query)
        else:
            session.segment_many(image, queries)
            readings.append(resident_mb())
    readings.append(resident_mb())
    early, late = readings[min(5, len(readings) - 1)], max(readings[6:], default=readings[-1])
    found = {
        "policy": session.policy.name,
        "frames": options.frames,
        "seconds": perf_counter() - start,
        "after_500_mb": early,
        "largest_later_mb": late,
        "growth": late / early - 1,
        "readings_mb": readings,
    }
    print_result(
        found,
        options.json,
        f"{found['frames']} frames in {found['seconds']:.0f} s with {found['policy']}: "
        f"{early:.1f} MB after 500, at most {late:.1f} MB later, {found['growth']:+.2%}",
    )
    sys.exit(found["growth"] > ALLOWED)


if __name__ == "__main__":
    main()
