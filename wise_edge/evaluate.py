"""Accuracy and cost on labelled data: one record a sample, and figures with 95 % bootstrap intervals from records.

A sample without a readable answer has intersection 0 and the truth's area as union, and its box is wrong. Figures are
fractions (not percent), token counts and milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np

from wise_edge.errors import UsageError
from wise_edge.geometry import box_iou
from wise_edge.metrics import RESAMPLES, bootstrap_interval, mask_overlap
from wise_edge.runtimes.base import MaskBackend, SegmentationResult
from wise_edge.runtimes.session import Session
from wise_edge.scenes import KINDS, SPLITS, Sample, sample

BOX_THRESHOLD = 0.5
QUANTILES = {"p50": 50, "p90": 90}

Terms = dict[str, tuple[float, float]]
"""Figure name to what a sample adds to its numerator and its denominator."""


@dataclass(frozen=True)
class MaskRecord:
    """What one sample gave when the segmenter was prompted with the truth.

    Attributes:
        index: place in the split.
        kind: kind of query.
        query: the words.
        intersection_px: pixels of mask and truth.
        union_px: pixels of mask or truth.
        score: the segmenter's own estimate of the IoU; None without a mask.
        latency_ms: phase to milliseconds, with "total".
    """

    index: int
    kind: str
    query: str
    intersection_px: int
    union_px: int
    score: float | None
    latency_ms: Mapping[str, float]

    @property
    def iou(self) -> float:
        """Intersection over union of the masks; a truth is never empty."""
        return self.intersection_px / self.union_px

    def terms(self) -> Terms:
        """Return what the sample adds to each figure."""
        return {"giou": (self.iou, 1.0), "ciou": (self.intersection_px, self.union_px)}


@dataclass(frozen=True)
class Record(MaskRecord):
    """What one sample gave from picture and query to mask.

    Attributes:
        answer_valid: whether an answer could be read.
        box_iou: IoU of predicted and true box; 0 without an answer.
        rationale_tokens: tokens inside `<think>`.
        answer_tokens: tokens inside `<answer>`.
        text: the policy's whole completion.
    """

    answer_valid: bool
    box_iou: float
    rationale_tokens: int
    answer_tokens: int
    text: str

    def terms(self) -> Terms:
        """Return what the sample adds to each figure."""
        return super().terms() | {
            "box_accuracy": (self.box_iou > BOX_THRESHOLD, 1.0),
            "valid_rate": (self.answer_valid, 1.0),
            "rationale_tokens_mean": (self.rationale_tokens, 1.0),
            "answer_tokens_mean": (self.answer_tokens, 1.0),
        }


def score_result(index: int, labelled: Sample, result: SegmentationResult) -> Record:
    """Compare a result with the truth of its sample."""
    intersection, union = 0, int(labelled.mask.sum())
    if result.mask is not None:
        intersection, union = mask_overlap(result.mask, labelled.mask)
    return Record(
        index=index,
        kind=labelled.query.kind,
        query=result.query,
        intersection_px=intersection,
        union_px=union,
        score=result.score,
        latency_ms=asdict(result.latency_ms),
        answer_valid=result.answer_valid,
        box_iou=0.0 if result.box is None else box_iou(result.box, labelled.box),
        rationale_tokens=result.tokens.rationale,
        answer_tokens=result.tokens.answer,
        text=result.text,
    )


def score_mask(index: int, labelled: Sample, backend: MaskBackend[Any]) -> MaskRecord:
    """Prompt the segmenter with the true box and points of a sample and compare its mask with the truth."""
    start = perf_counter()
    frame = backend.encode(labelled.scene.image)
    output = backend.decode(frame, labelled.box, labelled.points)
    latency_ms = {
        "preprocess": frame.preprocess_ms,
        "mask_encode": frame.encode_ms,
        "mask_decode": output.decode_ms,
        "total": (perf_counter() - start) * 1000.0,
    }
    intersection, union = mask_overlap(output.mask, labelled.mask)
    return MaskRecord(index, labelled.query.kind, labelled.request, intersection, union, output.score, latency_ms)


def check_scenes(split: str, limit: int) -> None:
    """Refuse a split or a number of samples that the scenes do not have.

    Raises:
        UsageError: the split is unknown, or the limit is below 1 or above the split's size.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split '{split}'; choose one of {', '.join(SPLITS)}")
    if not 1 <= limit <= len(SPLITS[split]):
        raise UsageError(f"--limit is {limit}; the {split} split has 1 to {len(SPLITS[split])} samples")


def evaluate_scenes(session: Session, split: str, limit: int, variant: str | None) -> Iterator[Record]:
    """Yield the records of the first ``limit`` scenes of a split, from picture and query to mask.

    Args:
        session: what is evaluated.
        split: a key of `SPLITS`.
        limit: number of samples.
        variant: prompt variant; None takes the bundle's default.
    """
    for index in range(limit):
        labelled = sample(split, index)
        yield score_result(index, labelled, session.segment(labelled.scene.image, labelled.request, variant))


def evaluate_masks(backend: MaskBackend[Any], split: str, limit: int) -> Iterator[MaskRecord]:
    """Yield the records of the first ``limit`` scenes of a split, the segmenter prompted with true box and points."""
    for index in range(limit):
        yield score_mask(index, sample(split, index), backend)


def summarize(records: Sequence[MaskRecord]) -> dict[str, Any]:
    """Turn records into figures, over all samples and by kind of query.

    Args:
        records: at least one, all of one class.

    Returns:
        "samples", one number a figure, "latency_ms" (phase to p50 and p90), "intervals" (the same figures, each as
        [low, high], 95 %), and "by_kind" (kind to all of this).
    """
    by_kind = {kind: [record for record in records if record.kind == kind] for kind in KINDS}
    return _figures(records) | {"by_kind": {kind: _figures(found) for kind, found in by_kind.items() if found}}


def _figures(records: Sequence[MaskRecord]) -> dict[str, Any]:
    terms = [record.terms() for record in records]
    values: dict[str, Any] = {"samples": len(records)}
    intervals: dict[str, Any] = {}
    for name in terms[0]:
        tops, bottoms = zip(*(term[name] for term in terms), strict=True)
        values[name] = sum(tops) / sum(bottoms)
        intervals[name] = list(bootstrap_interval(tops, bottoms))
    phases = records[0].latency_ms
    latencies = {phase: [record.latency_ms[phase] for record in records] for phase in phases}
    values["latency_ms"] = {phase: _quantiles(times) for phase, times in latencies.items()}
    intervals["latency_ms"] = {phase: _quantile_intervals(times) for phase, times in latencies.items()}
    return values | {"intervals": intervals}


def _quantiles(times: Iterable[float]) -> dict[str, float]:
    return {name: float(np.percentile(list(times), share)) for name, share in QUANTILES.items()}


def _quantile_intervals(times: Sequence[float]) -> dict[str, list[float]]:
    drawn = np.asarray(times)[np.random.default_rng(0).integers(len(times), size=(RESAMPLES, len(times)))]
    return {
        name: [float(edge) for edge in np.percentile(np.percentile(drawn, share, axis=1), (2.5, 97.5))]
        for name, share in QUANTILES.items()
    }
