"""Estimates the phases of a query from arithmetic, bytes, and the published peaks of a device.

A phase cannot be faster than its arithmetic at the device's peak, nor than its bytes at the memory bandwidth (the
roofline, https://doi.org/10.1145/1498765.1498785). How close devices come to that bound is learned from published
measurements (`published.PUBLISHED`): the median share of the device's family and runtime, if there are any. Every
published measurement is also estimated from the others, and the deviation is part of the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from wise_edge.errors import UsageError
from wise_edge.profiling.roofline.published import PUBLISHED, Published
from wise_edge.profiling.roofline.shapes import (
    DEVICES,
    POLICIES,
    QUANTS,
    SEGMENTERS,
    DevicePeaks,
    Phase,
    PolicyShape,
    Quant,
    SegmenterShape,
    find,
)
from wise_edge.profiling.roofline.work import (
    Work,
    decode_work,
    image_tokens,
    prefill_work,
    segmenter_work,
    vision_work,
)

RATIONALE_TOKENS = {"verbose": 112, "wise-infer": 39, "wise-s": 23, "answer": 0}
"""The paper's mean rationale lengths, by variant (https://arxiv.org/abs/2604.02040)."""
ANSWER_STEPS = 24
"""Eight numbers of three digits; the rest of the answer is forced."""
QUERY_TOKENS = 60
"""A query with the wording of its variant; the instruction before the image is cached between queries."""


@dataclass(frozen=True)
class Share:
    """How close published measurements come to the bound.

    Attributes:
        middle: the median.
        low: the lowest.
        high: the highest.
        rows: how many measurements there are.
        of: the device family, or the devices, that they come from.
    """

    middle: float
    low: float
    high: float
    rows: int
    of: str


@dataclass(frozen=True)
class PhaseEstimate:
    """An estimate of one phase.

    Attributes:
        phase: its name.
        flops: multiplications and additions.
        bytes: what is read.
        bound_ms: lower bound of its time.
        estimate_ms: estimated time; None without published measurements.
        low_ms: estimate with the best published share.
        high_ms: estimate with the worst one.
        share: the published shares that it rests on.
    """

    phase: str
    flops: float
    bytes: float
    bound_ms: float
    estimate_ms: float | None
    low_ms: float | None
    high_ms: float | None
    share: Share | None


@dataclass(frozen=True)
class Deviation:
    """A published measurement, and its estimate from the others.

    Attributes:
        row: the measurement.
        estimate_ms: from the others; None if it is the only one of its kind.
        deviation: of the estimate from the measurement, as a share of the measurement.
    """

    row: Published
    estimate_ms: float | None
    deviation: float | None


def estimate_query(
    policy: PolicyShape,
    quant: Quant,
    segmenter: SegmenterShape,
    device: DevicePeaks,
    variant: str,
    side_px: int | None = None,
) -> list[PhaseEstimate]:
    """Estimate the phases of a query on a new image.

    Args:
        policy: the vision-language model.
        quant: how its language model is stored; the vision tower and the segmenter run in 16 bits.
        segmenter: the model that makes the mask.
        device: where they run.
        variant: a key of `RATIONALE_TOKENS`.
        side_px: image side; None means the paper's 840, or the closest side that the model accepts.

    Raises:
        UsageError: the variant is unknown, or the model does not accept the side.
    """
    if variant not in RATIONALE_TOKENS:
        raise UsageError(f"unknown variant '{variant}'; choose one of {', '.join(RATIONALE_TOKENS)}")
    tokens = image_tokens(policy, side_px)
    steps = RATIONALE_TOKENS[variant] + ANSWER_STEPS
    step = decode_work(policy, quant, tokens + QUERY_TOKENS + steps // 2)
    work: dict[Phase, tuple[Work, int]] = {
        "vision_encode": (vision_work(policy, tokens), 1),
        "prefill": (prefill_work(policy, quant, tokens + QUERY_TOKENS), 1),
        "decode": (step, steps),
        "mask_encode": (segmenter_work(segmenter), 1),
    }
    return [_estimate(phase, each, times, device, quant) for phase, (each, times) in work.items()]


def check_published() -> list[Deviation]:
    """Estimate every published measurement from the others."""
    found = []
    for row in PUBLISHED:
        others = [other for other in PUBLISHED if other is not row]
        device, quant = find(DEVICES, row.device, "device"), _quant_of(row)
        share = _find_share(row.phase, device, quant, others)
        estimate = None if share is None else _work_of(row).bound_ms(device) / share.middle
        found.append(Deviation(row, estimate, None if estimate is None else estimate / row.value_ms - 1))
    return found


def _estimate(phase: Phase, work: Work, times: int, device: DevicePeaks, quant: Quant) -> PhaseEstimate:
    bound_ms = times * work.bound_ms(device)
    share = _find_share(phase, device, quant, PUBLISHED)
    return PhaseEstimate(
        phase=phase,
        flops=times * work.flops,
        bytes=times * work.bytes,
        bound_ms=bound_ms,
        estimate_ms=None if share is None else bound_ms / share.middle,
        low_ms=None if share is None else bound_ms / share.high,
        high_ms=None if share is None else bound_ms / share.low,
        share=share,
    )


def _find_share(phase: Phase, device: DevicePeaks, quant: Quant, rows: Iterable[Published]) -> Share | None:
    """Return the shares of the most similar measurements: of the device's family, else of any family."""
    same = [
        row for row in rows if row.phase == phase and (phase == "mask_encode" or _computes_alike(row, quant, phase))
    ]
    family = [row for row in same if find(DEVICES, row.device, "device").family == device.family]
    chosen = family or same
    if not chosen:
        return None
    shares = [_work_of(row).bound_ms(find(DEVICES, row.device, "device")) / row.value_ms for row in chosen]
    of = device.family if family else ", ".join(sorted({row.device for row in same}))
    return Share(median(shares), min(shares), max(shares), len(shares), of)


def _computes_alike(row: Published, quant: Quant, phase: Phase) -> bool:
    other = _quant_of(row)
    if phase == "vision_encode":
        return True  # the vision tower runs in 16 bits, whatever the language model's weights are
    return other.fp4 == quant.fp4 and (phase == "prefill" or other.runtime == quant.runtime)


def _quant_of(row: Published) -> Quant:
    """Return the quantization of a measurement; 16 bits, which is what is estimated, if the source names none."""
    return find(QUANTS, row.quant or "fp16", "quant")


def _work_of(row: Published) -> Work:
    if row.phase == "mask_encode":
        return segmenter_work(find(SEGMENTERS, row.model, "segmenter"))
    policy, quant = find(POLICIES, row.model, "model"), _quant_of(row)
    if row.phase == "vision_encode":
        return vision_work(policy, row.tokens)
    if row.phase == "prefill":
        return prefill_work(policy, quant, row.tokens)
    return decode_work(policy, quant, row.tokens)
