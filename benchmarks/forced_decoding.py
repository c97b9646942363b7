"""Compares forced with free decoding: whether answers are the same, and what calls and time it saves.

    python benchmarks/forced_decoding.py [--bundle DIR] [--policy-backend NAME] [--samples 500] [--variants V,V]

Test scenes, one thread, greedy. Texts are compared up to `</answer>`, since free decoding may write one more token.
Exits with 1 if an answer differs.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from wise_edge.datasets.scenes import SceneDataset
from wise_edge.runtimes.base import Decoding
from wise_edge.runtimes.results import SegmentationResult
from wise_edge.runtimes.session import Session


def answer(result: SegmentationResult) -> str:
    return result.text.partition("</answer>")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare forced with free decoding.")
    parser.add_argument("--bundle", help="bundle; the embedded one where left out")
    parser.add_argument("--policy-backend", default="auto", help="runtime of the policy")
    parser.add_argument("--samples", type=int, default=500, help="test scenes")
    parser.add_argument("--variants", default="verbose,wise-infer,wise-s,answer", help="prompt variants")
    options = parser.parse_args()
    sessions = [
        Session.from_bundle(
            options.bundle, policy_backend=options.policy_backend, threads=1, decoding=Decoding(forced=forced)
        )
        for forced in (True, False)
    ]
    scenes = SceneDataset("test")
    differing = 0
    print(f"{options.samples} scenes, {sessions[0].policy.name}")
    for variant in options.variants.split(","):
        rows, same = [], 0
        for place in range(options.samples):
            example = scenes[place]
            results = [session.segment(example.image, example.query, variant) for session in sessions]
            same += answer(results[0]) == answer(results[1])
            rows.append([(r.tokens.decode_steps, r.latency_ms.decode) for r in results])
        differing += options.samples - same
        (steps, ms), (free_steps, free_ms) = np.mean(rows, axis=0)
        print(
            f"{variant:10} same answers {same} of {options.samples}; calls {steps:.1f} instead of {free_steps:.1f}; "
            f"{ms / free_ms:.2f} of the time"
        )
    sys.exit(differing > 0)


if __name__ == "__main__":
    main()
