"""Compares a bundle with its checkpoints in torch: answers, boxes and masks of complete queries.

The bundle runs as it will on a device: on its own backends, opened and asked as `wise-edge run` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from wise_edge.bundle.manifest import ROUNDED_TO_BFLOAT16, Figure
from wise_edge.metrics import boxes_iou, mask_iou
from wise_edge.runtimes.results import SegmentationResult
from wise_edge.runtimes.session import Session

EXACT_MASK_IOU = 0.99
"""What the mean IoU of a bundle's masks with torch's must reach where weights are of 16 bits or more."""
BYTE_MASK_IOU = 0.95
"""Likewise where weights are of 8 bits or arithmetic is bfloat16, of 8 bits too; below that it is reported only."""

_EXACT = {"F32", "F16", "BF16", "fp32", "fp16", ""}
_BYTE = {"Q8_0", "int8", "fp8", ROUNDED_TO_BFLOAT16}


@dataclass(frozen=True)
class Pair:
    """One query as torch and as the bundle answer it."""

    name: str
    image: npt.NDArray[np.uint8]
    expected: SegmentationResult
    got: SegmentationResult

    @property
    def mask_iou(self) -> float:
        """IoU of the masks: 1 where neither answered, 0 where only one did."""
        if self.expected.mask is None or self.got.mask is None:
            return float(self.expected.mask is self.got.mask)
        return mask_iou(self.expected.mask, self.got.mask)

    @property
    def box_iou(self) -> float:
        """Lowest IoU of the objects' boxes, likewise; 0 if one has more objects."""
        if self.expected.answer_valid is not self.got.answer_valid:
            return 0.0
        return boxes_iou(*([item.box for item in result.objects] for result in (self.got, self.expected)))


def least_mask_iou(precisions: Iterable[str]) -> float | None:
    """Return the bound for a bundle with weights of these types; None if there is no bound."""
    found = set(precisions)
    if found <= _EXACT:
        return EXACT_MASK_IOU
    return BYTE_MASK_IOU if found <= _EXACT | _BYTE else None


def ask_both(
    reference: Session, session: Session, samples: Iterable[tuple[str, npt.NDArray[np.uint8], str]]
) -> list[Pair]:
    """Ask both sessions every query, each on an image that is new to them.

    Args:
        reference: runs the checkpoints in torch.
        session: runs the bundle.
        samples: names, images (HWC uint8 RGB) and queries.
    """
    pairs = []
    for name, image, query in samples:
        for each in (reference, session):
            each.forget()
        # Each session has its own copy of the image, which the results would hold, too.
        expected, got = (replace(each.segment(image, query), image=None) for each in (reference, session))
        pairs.append(Pair(name, image, expected, got))
    return pairs


def judge(backend: str, pairs: Sequence[Pair], least: float | None) -> list[Figure]:
    """Return the figures of one policy backend; the mean IoU of masks must reach `least` if that is given."""
    expected_tokens = [pair.expected.tokens.rationale for pair in pairs]
    tokens = [pair.got.tokens.rationale for pair in pairs]
    decode_ms = [pair.got.latency_ms.decode for pair in pairs]
    masks, boxes = [pair.mask_iou for pair in pairs], [pair.box_iou for pair in pairs]
    same = [pair.expected.text == pair.got.text for pair in pairs]
    return [
        Figure(f"{backend}: mask IoU with torch, mean", float(np.mean(masks)), "IoU", at_least=least),
        Figure(f"{backend}: mask IoU with torch, least", float(np.min(masks)), "IoU"),
        Figure(f"{backend}: box IoU with torch, mean", float(np.mean(boxes)), "IoU"),
        Figure(f"{backend}: the same text as torch", float(np.mean(same)), "share"),
        Figure(f"{backend}: rationale in torch", float(np.mean(expected_tokens)), "tokens"),
        Figure(f"{backend}: rationale", float(np.mean(tokens)), "tokens"),
        Figure(f"{backend}: decoding a query, median", float(np.median(decode_ms)), "ms"),
    ]


def worst(pairs: Sequence[Pair]) -> Pair:
    """Return the pair whose masks agree least."""
    return min(pairs, key=lambda pair: pair.mask_iou)
