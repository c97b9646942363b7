"""Measures a standing query in a video: what a draft saves, and how well masks follow without the policy.

    python benchmarks/tracking.py [--bundle DIR] [--policy-backend NAME] [--videos 20] [--frames 16] [--json]

A video is a test scene past which the camera pans by two pixels per frame. First the query runs on every frame, with
the last frame's completion as a draft and without. Then the segmenter follows the first frame's mask, prompted as in
`wise_edge.runtimes.tracking` (box and points of the last mask), and also with that mask.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.geometry import interior_points, mask_box
from wise_edge.metrics import mask_iou
from wise_edge.runtimes.base import MaskPrompt
from wise_edge.runtimes.session import Session
from wise_edge.scenes import SIDE_PX, Sample, sample
from wise_edge.scenes.render import render

STEP = 2 / SIDE_PX

Frame = tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]
"""An image, and the mask of what is asked for."""


def pan(item: Sample, count: int) -> Iterator[Frame]:
    """Yield a scene as a camera sees it that turns away from where there is most room."""
    lefts = [spec.center[0] - spec.radius for spec in item.scene.objects]
    rights = [1 - spec.center[0] - spec.radius for spec in item.scene.objects]
    direction = -1 if min(lefts) > min(rights) else 1
    steps = min(count, int(max(min(lefts), min(rights)) / STEP))
    for step in range(max(1, steps)):
        shift = direction * step * STEP
        specs = tuple(replace(spec, center=(spec.center[0] + shift, spec.center[1])) for spec in item.scene.objects)
        drawn = render(specs, SIDE_PX, Random(item.scene.seed))
        yield drawn.image, drawn.masks[item.query.target]


def ask_each(session: Session, frames: list[Frame], query: str, *, drafts: bool) -> list[tuple[str, float, int]]:
    """Return text, milliseconds of the policy behind the vision tower, and decode calls of each frame but the first."""
    session.forget()
    rows = []
    for image, _ in frames:
        if not drafts:
            session.forget()
        result = session.segment(image, query)
        spent = result.latency_ms
        rows.append((result.text, spent.prefill + spent.decode, result.tokens.decode_steps))
    return rows[1:]


def follow(session: Session, frames: list[Frame], *, with_mask: bool) -> list[float]:
    """Return the IoU with the truth on each frame but the first, where the truth's own mask is given."""
    mask, logits, found = frames[0][1], None, []
    for image, truth in frames[1:]:
        prompt = MaskPrompt(mask_box(mask), interior_points(mask), logits if with_mask else None)
        output = session.mask.decode(session.mask.encode(image), prompt)
        found.append(mask_iou(output.mask, truth))
        if output.mask.any():
            mask, logits = output.mask, output.logits
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    session = Session.from_bundle(options.bundle, policy_backend=options.policy_backend, threads=1)
    asked: dict[bool, list[tuple[str, float, int]]] = {True: [], False: []}
    followed: dict[bool, list[float]] = {True: [], False: []}
    for place in range(options.videos):
        item = sample("test", place)
        frames = list(pan(item, options.frames))
        for drafts, rows in asked.items():
            rows += ask_each(session, frames, item.request, drafts=drafts)
        for with_mask, values in followed.items():
            values += follow(session, frames, with_mask=with_mask)
    ms = {drafts: median(row[1] for row in rows) for drafts, rows in asked.items()}
    calls = {drafts: float(np.mean([row[2] for row in rows])) for drafts, rows in asked.items()}
    same = float(np.mean([a[0] == b[0] for a, b in zip(asked[True], asked[False], strict=True)]))
    return {
        "policy": session.policy.name,
        "frames": len(asked[True]),
        "without_draft_ms": ms[False],
        "with_draft_ms": ms[True],
        "draft_speedup": ms[False] / ms[True],
        "calls_without_draft": calls[False],
        "calls_with_draft": calls[True],
        "same_text": same,
        "follow_iou_box_and_points": float(np.mean(followed[False])),
        "follow_iou_and_mask": float(np.mean(followed[True])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure drafts and following in videos.")
    parser.add_argument("--bundle", help="bundle; the embedded one where left out")
    parser.add_argument("--policy-backend", default="auto", help="runtime of the policy")
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--frames", type=int, default=16, help="frames of a video at most")
    parser.add_argument("--json", action="store_true", help="print a JSON document")
    options = parser.parse_args()
    found = measure(options)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{found['frames']} frames of {options.videos} videos, {found['policy']}")
    print(
        f"draft: {found['with_draft_ms']:.1f} ms instead of {found['without_draft_ms']:.1f} "
        f"({found['draft_speedup']:.2f} x), {found['calls_with_draft']:.1f} calls instead of "
        f"{found['calls_without_draft']:.1f}, the same text in {found['same_text']:.1%}"
    )
    print(
        f"following: IoU {found['follow_iou_box_and_points']:.3f} by box and points, "
        f"{found['follow_iou_and_mask']:.3f} with the last mask besides"
    )


if __name__ == "__main__":
    main()
