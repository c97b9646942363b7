"""What deadlines learn from a query that was answered."""

from __future__ import annotations

import math

from wise_edge.runtimes.base import PolicyOutput
from wise_edge.runtimes.deadline import Decode, FrameCost, LatencyHistory
from wise_edge.runtimes.image_cache import CachedImage
from wise_edge.runtimes.results import SegmentationResult


def observe_query(
    history: LatencyHistory,
    result: SegmentationResult,
    output: PolicyOutput,
    new: CachedImage | None,
    *,
    drafted: bool,
) -> None:
    """Add what a query took to a history; one without a mask was cheaper than others will be and is left out.

    Args:
        history: of the session.
        result: of the query.
        output: what the policy wrote.
        new: the image, if nothing of it was known.
        drafted: whether there was a draft.
    """
    if not result.objects:
        return
    spent, frame = result.latency_ms, None
    query_ms = output.prefill_ms + spent.mask_decode
    if new is not None:
        policy_ms = new.policy.preprocess_ms + new.policy.vision_encode_ms + new.policy.prefill_ms
        frame_ms = max(0.0, spent.total - query_ms - output.decode_ms)
        frame = FrameCost(frame_ms, min(policy_ms, frame_ms), math.prod(new.grid))
    steps = 0 if drafted else output.tokens.decode_steps
    history.observe(
        result.variant,
        result.pixels,
        frame=frame,
        query_ms=query_ms,
        decode=Decode(output.decode_ms, steps, output.tokens.rationale),
    )
