"""The families of segmenters that become graphs, behind one interface."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from wise_edge.export.to_onnx.hq_sam import HqSamGraphs
from wise_edge.export.to_onnx.sam import SegmentAnythingGraphs
from wise_edge.export.to_onnx.sam2 import Sam2Graphs
from wise_edge.sam.checkpoint import read_sam_spec
from wise_edge.sam.families import PADDED, PADDED_HQ, STRETCHED
from wise_edge.sam.spec import SamSpec


class SegmenterGraphs(Protocol):
    """A checkpoint of one family: the parts that become graphs, and its own forward passes.

    Attributes:
        spec: the segmenter.
        features: names of the encoder's outputs.
        encoder: image to features.
        decoder: features and prompts to masks.
    """

    @property
    def spec(self) -> SamSpec: ...
    @property
    def features(self) -> tuple[str, ...]: ...
    @property
    def encoder(self) -> nn.Module: ...
    @property
    def decoder(self) -> nn.Module: ...

    def embed(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the features of an image float32 [1, 3, S, S], normalized."""
        ...

    def predict(
        self, features: tuple[Tensor, ...], points: Tensor, box: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the single mask and the three others with their scores, computed by the library itself.

        Args:
            features: of `embed`.
            points: float32 [P, N, 2], inside the object of each prompt; N may be 0. Pixels of the square of the
                prompts.
            box: float32 [P, 2, 2], two corners.
            mask: float32 [P, 1, L, L], logits; None if the prompts have no mask.
        """
        ...


LAYOUTS: dict[str, Callable[[Path], SegmenterGraphs]] = {
    PADDED: SegmentAnythingGraphs,
    PADDED_HQ: HqSamGraphs,
    STRETCHED: Sam2Graphs,
}
"""The class for each layout."""


def open_graphs(checkpoint: Path) -> SegmenterGraphs:
    """Load a segmenter's checkpoint.

    Raises:
        UsageError: it belongs to no family.
    """
    return LAYOUTS[read_sam_spec(checkpoint).row.layout](checkpoint)
