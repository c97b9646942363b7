"""What an evaluation keeps of each sample, and the settings that it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BOX_THRESHOLD = 0.5

Terms = dict[str, tuple[float, float]]
"""Figure name to what a sample adds to its numerator and its denominator."""


@dataclass(frozen=True)
class MaskRecord:
    """What one sample gave when the segmenter was prompted with the truth.

    Attributes:
        index: place in the split.
        id: name in the data set.
        kind: kind of query; None where the data set has no kinds.
        query: the words.
        intersection_px: pixels of mask and truth, as the metric mode counts them.
        union_px: pixels of mask or truth, likewise.
        iou: the sample's IoU, a fraction, likewise.
        dropped: why the sample counts in no figure; None where it counts.
        score: the segmenter's own estimate of the IoU; None without a mask.
        latency_ms: phase to milliseconds, with "total"; empty where the sample could not be read.
        mask: the predicted mask as COCO's compressed runs; None where there is none.
    """

    index: int
    id: str
    kind: str | None
    query: str
    intersection_px: int
    union_px: int
    iou: float
    dropped: str | None
    score: float | None
    latency_ms: Mapping[str, float]
    mask: Mapping[str, Any] | None

    def terms(self) -> Terms:
        """Return what the sample adds to each figure."""
        return {"giou": (self.iou, 1.0), "ciou": (self.intersection_px, self.union_px)}


@dataclass(frozen=True)
class Record(MaskRecord):
    """What one sample gave from image and query to mask.

    Attributes:
        answer_valid: whether an answer could be read.
        box_iou: IoU of predicted and true box; 0 where one of them is missing, 1 where both are.
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


@dataclass(frozen=True)
class Settings:
    """What records were made with; records of other settings never join them.

    Attributes:
        dataset: name of the data set.
        split: which part of it.
        samples: how many of the split, from the first; all shards together.
        metric_mode: one of `wise_edge.metrics.METRIC_MODES`.
        prompt: what the segmenter was prompted with: "predicted" or "truth".
        variant: prompt variant; None where no policy was asked.
        model_sha256: of the bundle or the checkpoints.
        backends: part to backend.
        shard: which part of the samples, from 0.
        shards: into how many parts they were divided.
        decoding: "forced" or "free", see `wise_edge.runtimes.base.Decoding`; None where no policy was asked. Files
            that do not say were written freely.
    """

    dataset: str
    split: str
    samples: int
    metric_mode: str
    prompt: str
    variant: str | None
    model_sha256: str
    backends: Mapping[str, str]
    shard: int = 0
    shards: int = 1
    decoding: str | None = "free"

    @property
    def record_class(self) -> type[MaskRecord]:
        """The class of the run's records."""
        return MaskRecord if self.prompt == "truth" else Record
