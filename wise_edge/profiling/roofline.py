"""What a query would cost on a device that is not at hand: an estimate from arithmetic, bytes and published peaks.

A phase can be no faster than its arithmetic at the device's peak, nor than its bytes at the memory's bandwidth (the
roofline, https://doi.org/10.1145/1498765.1498785). How near devices come to that bound is taken from measurements that
others published (`roofline_data.PUBLISHED`): the median share, of the device's family and the runtime where there are
some. Each of them is estimated by the rest, and by how much that is off is part of the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from wise_edge.errors import UsageError
from wise_edge.profiling.roofline_data import (
    DEVICES,
    POLICIES,
    PUBLISHED,
    QUANTS,
    SEGMENTERS,
    Device,
    Phase,
    Policy,
    Published,
    Quant,
    Segmenter,
)

RATIONALE_TOKENS = {"verbose": 112, "wise-infer": 39, "wise-s": 23, "answer": 0}
"""The paper's means, by variant (https://arxiv.org/abs/2604.02040)."""
ANSWER_STEPS = 24
"""Eight numbers of three digits; the rest of an answer is forced."""
QUERY_TOKENS = 60
"""A query with its variant's words; the instruction before the image is kept between queries."""
_HALF_BYTES = 2


@dataclass(frozen=True)
class Work:
    """What a phase takes.

    Attributes:
        flops: multiplications and additions.
        bytes: weights, keys and values that are read.
        fp4: whether it is computed in 4 bits.
    """

    flops: float
    bytes: float
    fp4: bool = False

    def bound_ms(self, device: Device) -> float:
        """Return what it takes at least."""
        peak = device.fp4_tflops if self.fp4 and device.fp4_tflops else device.compute_tflops
        return 1e3 * max(self.flops / (peak * 1e12), self.bytes / (device.bandwidth_gb_s * 1e9))


@dataclass(frozen=True)
class Share:
    """How near published measurements come to the bound.

    Attributes:
        middle: the median.
        low: the lowest.
        high: the highest.
        rows: how many there are.
        of: what they are of.
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
        bound_ms: it takes this at least.
        estimate_ms: it will take about this; None without published measurements.
        low_ms: with the best of the published shares.
        high_ms: with the worst of them.
        share: what that rests on.
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
    """A published measurement beside what is estimated without it.

    Attributes:
        row: the measurement.
        estimate_ms: from the others; None where it is the only one of its kind.
        deviation: of the estimate, a share of the measurement.
    """

    row: Published
    estimate_ms: float | None
    deviation: float | None


Named = TypeVar("Named", Policy, Segmenter, Device, Quant)


def find(table: Sequence[Named], name: str, option: str) -> Named:
    """Return an entry of a table by its name; raises `UsageError` that lists all names."""
    for entry in table:
        if entry.name == name:
            return entry
    raise UsageError(f"unknown {option} '{name}'; choose one of {', '.join(entry.name for entry in table)}")


def image_tokens(policy: Policy, side_px: int | None = None) -> int:
    """Return how many tokens a square image becomes; raises `UsageError` where its patches do not divide the side."""
    side_px = policy.side_px if side_px is None else side_px
    if side_px <= 0 or side_px % (2 * policy.patch_px):
        raise UsageError(f"{policy.name} takes images whose side is a multiple of {2 * policy.patch_px} px")
    return (side_px // (2 * policy.patch_px)) ** 2


def layer_parameters(policy: Policy) -> int:
    """Return the weights of the language model's layers, which every token reads."""
    attention = policy.hidden * policy.head_dim * 2 * (policy.heads + policy.kv_heads)
    return policy.layers * (attention + 3 * policy.hidden * policy.feed_forward)


def vision_parameters(policy: Policy) -> int:
    """Return the weights of the vision tower's layers and of what brings its tokens to the language model."""
    width = policy.vision_hidden
    matrices = 3 if policy.vision_gated else 2
    layer = 4 * width**2 + matrices * width * policy.vision_feed_forward
    return policy.vision_layers * layer + _merger_parameters(policy)


def _merger_parameters(policy: Policy) -> int:
    """Return the weights of what turns four patches into a token, which run once a token."""
    four = 4 * policy.vision_hidden
    return policy.mergers * (four**2 + four * policy.hidden)


def resident_bytes(policy: Policy, quant: Quant) -> float:
    """Return what the weights take of memory, vision tower in 16 bits, without keys, values and room to compute."""
    table = policy.vocabulary * policy.hidden
    copies = 1 if policy.tied else 2
    return (
        layer_parameters(policy) * quant.bits / 8
        + copies * table * quant.head_bits / 8
        + _HALF_BYTES * vision_parameters(policy)
    )


def vision_work(policy: Policy, tokens: int) -> Work:
    """Return what encoding an image takes, in 16 bits."""
    patches = 4 * tokens
    weights, mergers = vision_parameters(policy), _merger_parameters(policy)
    products = 2 * (weights - mergers) * patches + 2 * mergers * tokens
    attention = 4 * patches**2 * policy.vision_hidden * (policy.vision_layers - policy.vision_windowed)
    window = 64  # patches of 112 px
    attention += 4 * patches * window * policy.vision_hidden * policy.vision_windowed
    return Work(products + attention, _HALF_BYTES * weights)


def prefill_work(policy: Policy, quant: Quant, tokens: int) -> Work:
    """Return what running a prompt takes; the output layer runs for its last token only."""
    attention = 2 * tokens**2 * policy.heads * policy.head_dim * policy.layers  # causal: half of all pairs
    head = policy.vocabulary * policy.hidden
    weights = layer_parameters(policy)
    read = weights * quant.bits / 8 + head * quant.head_bits / 8
    return Work(2 * weights * tokens + attention + 2 * head, read, quant.fp4)


def decode_work(policy: Policy, quant: Quant, context: int) -> Work:
    """Return what one token takes behind a context of so many."""
    weights, head = layer_parameters(policy), policy.vocabulary * policy.hidden
    keys = 2 * policy.layers * policy.kv_heads * policy.head_dim * context
    attention = 4 * context * policy.heads * policy.head_dim * policy.layers
    read = weights * quant.bits / 8 + head * quant.head_bits / 8 + _HALF_BYTES * keys
    return Work(2 * (weights + head) + attention, read, quant.fp4)


def segmenter_work(segmenter: Segmenter) -> Work:
    """Return what encoding an image for a mask takes, in 16 bits."""
    tokens, width, window = 4096, segmenter.hidden, 14
    padded = 70**2  # windows of 14 do not divide 64 patches
    whole, windowed = 4, segmenter.layers - 4
    weights = segmenter.layers * 12 * width**2
    feed_forward = 2 * segmenter.layers * 8 * width**2 * tokens
    projections = 2 * 4 * width**2 * (whole * tokens + windowed * padded)
    attention = 4 * width * (whole * tokens**2 + windowed * padded * window**2)
    neck = 2 * tokens * (width * 256 + 9 * 256 * 256)
    return Work(feed_forward + projections + attention + neck, _HALF_BYTES * weights)


def plan(
    policy: Policy, quant: Quant, segmenter: Segmenter, device: Device, variant: str, side_px: int | None = None
) -> list[PhaseEstimate]:
    """Estimate the phases of a query on a new image.

    Args:
        policy: the vision-language model.
        quant: how its language model is kept; the vision tower and the segmenter run in 16 bits.
        segmenter: what makes the mask.
        device: where.
        variant: a key of `RATIONALE_TOKENS`.
        side_px: of the image; None takes the paper's 840, or what comes next to it.

    Raises:
        UsageError: the variant is unknown, or the side does not fit the model.
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


def _estimate(phase: Phase, work: Work, times: int, device: Device, quant: Quant) -> PhaseEstimate:
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


def _find_share(phase: Phase, device: Device, quant: Quant, rows: Iterable[Published]) -> Share | None:
    """Return the shares of the nearest kind: of this family and way to compute, else of any family."""
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
        return True  # in 16 bits, whatever the language model's weights are
    return other.fp4 == quant.fp4 and (phase == "prefill" or other.runtime == quant.runtime)


def _quant_of(row: Published) -> Quant:
    """Return how a measurement's weights were kept; 16 bits where nobody says so, which is what is estimated."""
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
