"""Measures a standing query in a video: what a draft saves, and how well masks follow without the policy.

    python benchmarks/tracking.py [--bundle DIR] [--policy-backend NAME] [--videos 20] [--frames 16] [--json]

A video is a test scene past which the camera pans by two pixels per frame. First the query runs on every frame, with
the last frame's completion as a draft and without. Then the segmenter follows the first frame's mask, prompted as in
`wise_edge.runtimes.tracking` (box and points of the last mask), and also with that mask.

Last, a gray bar half as wide again as the object passes in front of it. `Session.track` follows the object by prompts
and, if the bundle's segmenter has one, by its memory; the clock never asks the policy again, but a memory that lost the
object does. Videos whose object the policy misses on the first frame are left out.
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

from wise_edge.errors import UsageError
from wise_edge.geometry import interior_points, mask_box
from wise_edge.metrics import mask_iou
from wise_edge.runtimes.base import MaskPrompt
from wise_edge.runtimes.session import Session
from wise_edge.runtimes.tracking import Stamped
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


def pass_in_front(frames: list[Frame]) -> list[Frame]:
    """Return the frames with a gray bar in front, which goes from the object's left side to its right side."""
    found = []
    for place, (image, mask) in enumerate(frames):
        left, _, right, _ = mask_box(mask)
        width = (right - left) * 3 // 2
        begin = left - width + (width + right - left) * place // max(1, len(frames) - 1)
        bar = slice(max(0, begin), max(0, begin + width))
        image, mask = image.copy(), mask.copy()
        image[:, bar], mask[:, bar] = 128, False
        found.append((image, mask))
    return found


def follow_hidden(session: Session, frames: list[Frame], query: str, *, memory: bool) -> dict[str, list[float]] | None:
    """Follow an object that a bar hides for a while; None if the policy finds another one.

    Returns:
        The IoU with what is seen before and after it is hidden, on frames that show half of it; of the frames that
        show nothing of it, 1 for each on which nothing is found; and how often the policy was asked.
    """
    half, asked = frames[0][1].sum() / 2, set[float]()
    found: dict[str, list[float]] = {"before": [], "hidden": [], "after": []}
    video = [Stamped(image, place / 30) for place, (image, _) in enumerate(frames)]
    for (_, truth), tracked in zip(frames, session.track(video, query, ground_every_s=1e6, memory=memory), strict=True):
        iou = 0.0 if tracked.mask is None else mask_iou(tracked.mask, truth)
        if not asked and iou < 0.5:
            return None
        asked.add(tracked.grounded_stamp_s)
        if not truth.any():
            found["hidden"].append(float(not tracked.objects))
        elif truth.sum() > half:
            found["after" if found["hidden"] else "before"].append(iou)
    return found | {"asked": [float(len(asked))]}


def measure_hidden(session: Session, options: argparse.Namespace) -> dict[str, Any]:
    """Return the means of `follow_hidden` by prompts and by the memory; None without one."""
    means: dict[str, Any] = {}
    for memory in (False, True):
        name, rows = "memory" if memory else "prompts", []
        try:
            for place in range(options.videos):
                item = sample("test", place)
                frames = pass_in_front(list(pan(item, options.frames)))
                rows.append(follow_hidden(session, frames, item.request, memory=memory))
        except UsageError as error:  # no memory
            means |= {name: None, f"{name}_reason": str(error)}
            continue
        kept = [row for row in rows if row is not None]
        means[name] = {"videos": len(kept)} | {
            part: float(np.mean([value for row in kept for value in row[part]]))
            for part in ("before", "hidden", "after", "asked")
        }
    return means


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
        "behind_a_bar": measure_hidden(session, options),
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
    for name in ("prompts", "memory"):
        if (means := found["behind_a_bar"][name]) is None:
            print(f"behind a bar, by {name}: {found['behind_a_bar'][f'{name}_reason']}")
            continue
        print(
            f"behind a bar, by {name}: IoU {means['before']:.3f} before and {means['after']:.3f} after, said to be "
            f"hidden on {means['hidden']:.1%} of the frames; the policy was asked {means['asked']:.1f} times in each "
            f"of {means['videos']} videos"
        )


if __name__ == "__main__":
    main()
