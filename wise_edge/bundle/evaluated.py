"""What a bundle records of its evaluations: how accurate it is with each prompt variant and budget of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from wise_edge.ranges import Checked, Count, Name, NotNegative, Range, Share

MOST_RUNS = 100


@dataclass(frozen=True)
class EvaluatedRun(Checked):
    """One evaluation.

    Attributes:
        variant: the prompt variant.
        pixels: most pixels of an image as the policy saw it; None for as many as the bundle takes.
        giou: mean of the samples' IoU, a fraction; deadlines choose by it.
        ciou: summed intersection over summed union, a fraction.
        rationale_tokens: mean tokens of a rationale.
        answer_tokens: mean tokens of an answer.
        log_sha256: hash of the evaluation's log, hexadecimal.
    """

    variant: Name
    pixels: Count | None
    giou: Share
    ciou: Share
    rationale_tokens: NotNegative
    answer_tokens: NotNegative
    log_sha256: Name

    @property
    def name(self) -> str:
        """The variant, and the budget if there is one."""
        return name_choice(self.variant, self.pixels)


@dataclass(frozen=True)
class Evaluated(Checked):
    """Evaluations on the same samples with the same settings, which may be compared.

    Attributes:
        dataset: name of the data set.
        split: name of the split.
        samples: how many of them count.
        metric_mode: one of `wise_edge.metrics.METRIC_MODES`.
        decoding: `wise_edge.runtimes.base.Decoding.summary`.
        backends: part ("policy", "mask") to the backend that ran it.
        data_sha256: fingerprint of the files that the samples were read from.
        runs: the evaluations, the best first.
    """

    dataset: Name
    split: Name
    samples: Count
    metric_mode: Name
    decoding: Name
    backends: Mapping[str, Name]
    data_sha256: Name
    runs: Annotated[tuple[EvaluatedRun, ...], Range(1, MOST_RUNS)]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "backends", dict(self.backends))
        names = [run.name for run in self.runs]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"runs: {repeated[0]} is there twice")

    def __str__(self) -> str:
        """Say on what, and with what."""
        ran = ", ".join(f"{part} {backend}" for part, backend in self.backends.items())
        return f"{self.samples} samples of {self.dataset}/{self.split}, {ran}"


def name_choice(variant: str, pixels: int | None) -> str:
    """Return a variant and a budget of pixels as text."""
    return variant if pixels is None else f"{variant} at {pixels} px"
