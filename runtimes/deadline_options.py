"""What a deadline may choose: evaluated pairs of prompt variant and budget of pixels, or else the richest variants."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from wise_edge.bundle.evaluated import Evaluated, EvaluatedRun, name_choice
from wise_edge.errors import UsageError
from wise_edge.policy.picture import Grid

RICHEST_FIRST = ("wise-infer", "wise-s", "answer")
PAPER_TOKENS = {"wise-infer": 38.8, "wise-s": 22.7, "answer": 0.0}
"""Mean rationale on ReasonSeg's test set in tokens, as the paper (https://arxiv.org/abs/2604.02040) reports it."""


@dataclass(frozen=True)
class Option:
    """What a deadline may choose for an image.

    Attributes:
        variant: the prompt variant.
        pixels: most pixels of the image as the policy sees it; None for as many as the policy was opened with.
        rationale_tokens: mean tokens of its rationale elsewhere, which count until it was seen on this device.
        giou: its accuracy as the bundle records it, a fraction; None if it records nothing.
        image_tokens: tokens of the image.
        new_frame: whether the image is still to be encoded for the policy.
    """

    variant: str
    pixels: int | None
    rationale_tokens: float
    giou: float | None = None
    image_tokens: int = 1
    new_frame: bool = True

    @property
    def name(self) -> str:
        """The variant, and the budget if there is one."""
        return name_choice(self.variant, self.pixels)


def list_options(variants: Collection[str], evaluated: Evaluated | None, pixels: int | None) -> list[Option]:
    """Return what a deadline may choose, the best first.

    Args:
        variants: those of the policy.
        evaluated: what the bundle records.
        pixels: the budget that was asked for, which is kept; None leaves it to the deadline.

    Returns:
        What was evaluated, within the budget that was asked for if there is one. If that is nothing, those variants of
        `RICHEST_FIRST` that are there, within that budget.
    """
    runs: Sequence[EvaluatedRun] = evaluated.runs if evaluated else ()
    if kept := [run for run in runs if pixels in (None, run.pixels)]:
        best = sorted(kept, key=lambda run: (-run.giou, run.rationale_tokens))
        return [Option(run.variant, run.pixels, run.rationale_tokens, run.giou) for run in best]
    return [Option(name, pixels, PAPER_TOKENS[name]) for name in RICHEST_FIRST if name in variants]


def fit_options(
    options: Iterable[Option], grid_of: Callable[[int | None], Grid], held: Grid | None
) -> tuple[list[Option], list[str]]:
    """Fit options to an image.

    Args:
        options: from `list_options`.
        grid_of: returns the grid of the image's tokens within a budget; raises `UsageError` if the policy takes none.
        held: the grid as which the image is encoded already; None if it is new.

    Returns:
        The options that the policy can serve, and why it cannot serve the others, one line each.

    Raises:
        UsageError: it can serve none.
    """
    kept, refused = [], []
    for option in options:
        try:
            columns, rows = grid_of(option.pixels)
        except UsageError as error:
            refused.append(f"{option.name}: {error}")
            continue
        kept.append(replace(option, image_tokens=columns * rows, new_frame=held != (columns, rows)))
    if not kept:
        why = "; ".join(refused) or "nothing was evaluated within the pixels that were asked for"
        raise UsageError(f"a deadline has nothing to choose from: {why}")
    return kept, refused
