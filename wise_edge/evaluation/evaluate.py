"""Accuracy and cost on labeled data: one record per sample, and figures with 95 % bootstrap intervals from records.

Every sample runs as if its image were new, so latencies do not depend on the order. Figures are fractions (not
percent), token counts and milliseconds. `wise_edge.metrics` defines how a sample without a valid answer counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wise_edge.bundle.store import Bundle
from wise_edge.datasets import DRAWN, FILES, Dataset, Example, open_dataset
from wise_edge.errors import UsageError
from wise_edge.evaluation.records import MaskRecord, Record, is_counted, shown_figures
from wise_edge.files.hashing import hash_file
from wise_edge.geometry import unite
from wise_edge.metrics import RESAMPLES, Overlap, bootstrap_interval, boxes_iou, measure_overlap, ratio
from wise_edge.policy.prompts import normalize_query
from wise_edge.rle import compressed_runs
from wise_edge.runtimes.base import MaskBackend, MaskPrompt
from wise_edge.runtimes.results import SegmentationResult
from wise_edge.runtimes.session import Session

DEFAULT_SPLITS = {
    **dict.fromkeys(DRAWN, "test"),
    "reasonseg": "test",
    "refcoco": "testA",
    "refcoco+": "testA",
    "refcocog": "test",
    "grefcoco": "val",
    **dict.fromkeys(FILES, ""),
}
"""The data sets with masks, each with the split of the paper's table."""

DEFAULT_SCENES = 100
QUANTILES = {"p50": 50, "p90": 90}


def open_labeled(
    name: str, data: Path | None, split: str | None, limit: int | None, images: Path | None = None
) -> tuple[Dataset, int]:
    """Open a data set with masks and return how many of its samples are evaluated.

    Args:
        name: a key of `DEFAULT_SPLITS`.
        data: its folder or file; None for scenes.
        split: name of the split; None uses that of the paper's table.
        limit: how many samples, from the first on; None uses 100 scenes, or all samples of another data set.
        images: as of `open_dataset`.

    Returns:
        The data set and the number of samples, at least 1.

    Raises:
        UsageError: the data set or split is unknown, or it has fewer samples than `limit`.
    """
    if name not in DEFAULT_SPLITS:
        raise UsageError(f"unknown dataset '{name}'; choose one of {', '.join(DEFAULT_SPLITS)}")
    if split is not None and name in FILES:
        raise UsageError(f"--dataset {name} is one file without splits; remove --split")
    dataset = open_dataset(name, data, DEFAULT_SPLITS[name] if split is None else split, images)
    if limit is None:
        limit = DEFAULT_SCENES if name in DRAWN else len(dataset)
    if not 1 <= limit <= len(dataset):
        raise UsageError(f"--limit is {limit}; the {dataset.split} split has 1 to {len(dataset)} samples")
    return dataset, limit


def evaluate_session(
    session: Session, dataset: Dataset, places: Iterable[int], variant: str | None = None, mode: str = "lisa"
) -> Iterator[Record]:
    """Yield the records of some samples, from image and query to mask.

    Args:
        session: the session to evaluate.
        dataset: labeled data with masks.
        places: indices of the samples.
        variant: prompt variant; None uses the bundle's default.
        mode: one of `wise_edge.metrics.METRIC_MODES`.
    """
    for index, example in _read(dataset, places):
        if isinstance(example, UsageError):
            yield Record(**_unread(index, dataset, example), **_UNASKED)
        else:
            session.forget()
            yield score_result(index, example, session.segment(example.image, example.query, variant), mode)


def evaluate_masks(
    backend: MaskBackend[Any], dataset: Dataset, places: Iterable[int], mode: str = "lisa"
) -> Iterator[MaskRecord]:
    """Yield the records of some samples, with the segmenter prompted by the true box and points."""
    for index, example in _read(dataset, places):
        if isinstance(example, UsageError):
            yield MaskRecord(**_unread(index, dataset, example))
        else:
            yield score_mask(index, example, backend, mode)


def score_result(index: int, example: Example, result: SegmentationResult, mode: str = "lisa") -> Record:
    """Compare a result with its sample's truth."""
    return Record(
        **_compared(
            index, example, result.mask, [each.score for each in result.objects], asdict(result.latency_ms), mode
        ),
        answer_valid=result.answer_valid,
        box_iou=_boxes_agree(result, example),
        found=_count_found(result),
        rationale_tokens=result.tokens.rationale,
        answer_tokens=result.tokens.answer,
        text=result.text,
    )


def score_mask(index: int, example: Example, backend: MaskBackend[Any], mode: str = "lisa") -> MaskRecord:
    """Prompt the segmenter with the true box and points of each object and compare its masks with the truth.

    If nothing is meant there is no prompt, and nothing is marked.
    """
    start = perf_counter()
    frame = backend.encode(example.image)
    prompts = [MaskPrompt(item.box, item.points) for item in example.objects or ()]
    outputs = backend.decode_many(frame, prompts)
    latency_ms = {
        "preprocess": frame.preprocess_ms,
        "mask_encode": frame.encode_ms,
        "mask_decode": sum(output.decode_ms for output in outputs),
        "total": (perf_counter() - start) * 1000.0,
    }
    size = (example.image.shape[1], example.image.shape[0])
    mask, scores = unite((output.mask for output in outputs), size), [output.mask_score for output in outputs]
    return MaskRecord(**_compared(index, example, mask, scores, latency_ms, mode))


def summarize(records: Sequence[MaskRecord]) -> dict[str, Any]:
    """Compute figures from records, over all samples and by kind of query.

    Args:
        records: of one class; at least one is not dropped.

    Returns:
        "samples" (those that count), "dropped" (those that do not), "empty_masks" (answers for which the segmenter
        marked no pixel), one number per figure, "latency_ms" (phase to p50 and p90), "intervals" (the same figures,
        each as [low, high], 95 %), and "by_kind" (kind to the same). Figures of none or several objects are left out
        where every query means one. A figure in which no sample of a kind counts is None, and so is its interval.

    Raises:
        UsageError: every sample was dropped.
    """
    kept = [record for record in records if record.dropped is None]
    if not kept:
        raise UsageError(f"none of the {len(records)} samples counts; the first one: {records[0].dropped}")
    names = shown_figures(kept)
    kinds = dict.fromkeys(record.kind for record in kept if record.kind is not None)
    by_kind = {kind: _figures([record for record in kept if record.kind == kind], names) for kind in kinds}
    empty = sum(record.mask is not None and record.score is None for record in kept)
    return _figures(kept, names) | {"dropped": len(records) - len(kept), "empty_masks": empty, "by_kind": by_kind}


def hash_models(*paths: Path) -> str:
    """Return one hexadecimal SHA-256 of files and all files in folders; it changes whenever a model does."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(f"{file.relative_to(path)} {hash_file(file)}\n".encode())
    return digest.hexdigest()


def hash_bundle(bundle: Bundle) -> str:
    """Return what `hash_models` returns for the manifest of a bundle, without its record of evaluations."""
    return hashlib.sha256(f". {bundle.evaluated_sha256}\n".encode()).hexdigest()


def _read(dataset: Dataset, places: Iterable[int]) -> Iterator[tuple[int, Example | UsageError]]:
    """Yield index and example; the error if it is damaged or its query is invalid."""
    for index in places:
        found: Example | UsageError
        try:
            found = dataset[index]
            normalize_query(found.query)
        except UsageError as error:
            found = error
        yield index, found


_UNASKED: dict[str, Any] = {
    "answer_valid": False,
    "box_iou": 0.0,
    "rationale_tokens": 0,
    "answer_tokens": 0,
    "text": "",
}


def _unread(index: int, dataset: Dataset, error: UsageError) -> dict[str, Any]:
    name = dataset.ids[index]
    overlap = asdict(Overlap(0, 0, 0.0, str(error).removeprefix(f"{name}: ")))
    return {"index": index, "id": name, "kind": None, "query": "", **overlap} | {
        "score": None,
        "latency_ms": {},
        "mask": None,
    }


def _compared(
    index: int,
    example: Example,
    mask: NDArray[np.bool_] | None,
    scores: Sequence[float | None],
    latency_ms: Mapping[str, float],
    mode: str,
) -> dict[str, Any]:
    """Return the fields of a `MaskRecord`, with the scores of the objects whose masks `mask` unites."""
    if example.mask is None:
        raise UsageError(f"{example.id} has no mask to compare with; evaluate one of {', '.join(DEFAULT_SPLITS)}")
    known = [score for score in scores if score is not None]
    return {
        "index": index,
        "id": example.id,
        "kind": example.kind,
        "query": example.query,
        **asdict(measure_overlap(mask, example.mask, example.ignore, mode)),
        "score": sum(known) / len(known) if known else None,
        "latency_ms": latency_ms,
        "mask": compressed_runs(mask) if scores and mask is not None else None,
        "meant": None if example.objects is None else len(example.objects),
    }


def _boxes_agree(result: SegmentationResult, example: Example) -> float:
    found = [item.box for item in result.objects]
    return boxes_iou(found, [item.box for item in example.objects or ()]) if result.answer_valid else 0.0


def _count_found(result: SegmentationResult) -> int | None:
    return sum(bool(item.mask.any()) for item in result.objects) if result.answer_valid else None


def _figures(records: Sequence[MaskRecord], names: Sequence[str]) -> dict[str, Any]:
    terms = [record.terms() for record in records]
    values: dict[str, Any] = {"samples": len(records)}
    intervals: dict[str, Any] = {}
    for name in names:
        tops, bottoms = zip(*(term[name] for term in terms), strict=True)
        counted = is_counted(name, terms)
        values[name] = ratio(tops, bottoms) if counted else None
        intervals[name] = list(bootstrap_interval(tops, bottoms)) if counted else None
    phases = [phase for phase in records[0].latency_ms if all(phase in record.latency_ms for record in records)]
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
