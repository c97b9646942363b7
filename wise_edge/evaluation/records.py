"""What an evaluation records of each sample, and with which settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wise_edge.evaluation.append_log import UNRECORDED
from wise_edge.ranges import Checked, Count, Index, NotNegative, Share, Text

BOX_THRESHOLD = 0.5

_COUNTING = ("n_acc", "t_acc", "count_accuracy")
"""Figures that say something only where a query may mean several objects, or none."""

LABELS = {
    "giou": "gIoU",
    "ciou": "cIoU",
    "n_acc": "N-acc",
    "t_acc": "T-acc",
    "count_accuracy": "right number",
    "box_accuracy": f"box IoU > {BOX_THRESHOLD:g}",
    "valid_rate": "valid",
    "rationale_tokens_mean": "rationale tokens",
    "answer_tokens_mean": "answer tokens",
}
"""Figure to what people call it."""

Terms = dict[str, tuple[float, float]]
"""Figure to what a sample adds to its numerator and its denominator."""


@dataclass(frozen=True)
class MaskRecord(Checked):
    """The record of one sample whose segmenter was prompted with the truth.

    Attributes:
        index: position in the split.
        id: name in the data set.
        kind: kind of query; None if the data set has no kinds.
        query: what to find.
        intersection_px: pixels in both mask and truth, as the metric mode counts them.
        union_px: pixels in mask or truth, likewise.
        iou: the sample's IoU, a fraction, likewise.
        dropped: why the sample counts in no figure; None if it counts.
        score: the segmenter's own estimate of the IoU, of several objects their mean; None without a mask, or without a
            pixel in it.
        latency_ms: phase to milliseconds, with "total"; empty if the sample could not be read.
        mask: the predicted mask as COCO's compressed runs, of several objects the union; None if there is none.
        meant: number of objects that the query means; None if it is not known, as in files of earlier versions.
    """

    index: Index
    id: Text
    kind: Text | None
    query: Text
    intersection_px: Index
    union_px: Index
    iou: Share
    dropped: Text | None
    score: float | None
    latency_ms: Mapping[str, NotNegative]
    mask: Mapping[str, Any] | None
    meant: Index | None = field(default=None, kw_only=True)

    def terms(self) -> Terms:
        """Return what the sample adds to each figure."""
        return {"giou": (self.iou, 1.0), "ciou": (self.intersection_px, self.union_px)}


@dataclass(frozen=True)
class Record(MaskRecord):
    """The record of one sample from image and query to mask.

    Attributes:
        answer_valid: whether the completion holds an answer.
        box_iou: lowest IoU of the pairs of predicted and true boxes; 0 if their numbers differ or the answer is not
            valid, 1 if there are none.
        rationale_tokens: tokens inside `<think>`.
        answer_tokens: tokens inside `<answer>`.
        text: the policy's complete completion.
        found: number of objects in the answer whose masks have a pixel; None if the answer is not valid, and in files
            of earlier versions.
    """

    answer_valid: bool
    box_iou: Share
    rationale_tokens: Index
    answer_tokens: Index
    text: Text
    found: Index | None = field(default=None, kw_only=True)

    def terms(self) -> Terms:
        """Return what the sample adds to each figure; to those that it does not count in, 0 to the denominator.

        N-acc and T-acc are the shares of samples without and with a target that are taken for such
        (https://github.com/henghuiding/ReLA); an answer that is not valid is right in neither.
        """
        return super().terms() | {
            **self._counting(),
            "box_accuracy": (self.box_iou > BOX_THRESHOLD, 1.0),
            "valid_rate": (self.answer_valid, 1.0),
            "rationale_tokens_mean": (self.rationale_tokens, 1.0),
            "answer_tokens_mean": (self.answer_tokens, 1.0),
        }

    def _counting(self) -> Terms:
        if self.meant is None:
            return {}
        return {
            "n_acc": (0.0, 0.0) if self.meant else (self.found == 0, 1.0),
            "t_acc": (bool(self.found), 1.0) if self.meant else (0.0, 0.0),
            "count_accuracy": (self.found == self.meant, 1.0),
        }


def shown_figures(records: Sequence[MaskRecord]) -> list[str]:
    """Return the figures in which a sample counts, without those of counting where every query means one object."""
    terms = [record.terms() for record in records]
    counting = any(record.meant not in (None, 1) for record in records)
    return [name for name in terms[0] if is_counted(name, terms) and (counting or name not in _COUNTING)]


def is_counted(figure: str, terms: Sequence[Terms]) -> bool:
    """Return whether a sample counts in a figure."""
    return figure not in _COUNTING or any(term[figure][1] for term in terms)


@dataclass(frozen=True)
class Settings(Checked):
    """What records were made with; records made with other settings are never mixed in.

    Attributes:
        dataset: name of the data set.
        split: name of the split.
        samples: how many of the split, from the first on; of all shards together.
        metric_mode: one of `wise_edge.metrics.METRIC_MODES`.
        prompt: the segmenter's prompt: "predicted" or "truth".
        variant: prompt variant; None if no policy ran.
        model_sha256: of the bundle or the checkpoints.
        backends: part ("policy", "mask") to backend.
        shard: index of this share of the samples, from 0.
        shards: number of shares.
        decoding: `wise_edge.runtimes.base.Decoding.summary`; None if no policy ran. Files without it were decoded
            freely.
        pixels: most pixels of an image as the policy sees it; None for as many as the model takes.
        data_sha256: fingerprint of the files that the samples are read from, of all shards together.
        version: of wise-edge.
    """

    dataset: Text
    split: Text
    samples: Index
    metric_mode: Text
    prompt: Text
    variant: Text | None
    model_sha256: Text
    backends: Mapping[str, str]
    shard: Index = 0
    shards: Count = 1
    decoding: str | None = "free"
    pixels: Count | None = None
    data_sha256: str = UNRECORDED
    version: str = UNRECORDED

    @property
    def record_class(self) -> type[MaskRecord]:
        """The class of the run's records."""
        return MaskRecord if self.prompt == "truth" else Record
