"""Which prompts one call of a mask decoder takes together, and what backends without memory say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice

from wise_edge.errors import UsageError
from wise_edge.runtimes.base import MaskPrompt
from wise_edge.sam.spec import MOST_PROMPTS, SamSpec

NO_MEMORY = (
    "this segmenter has no memory of earlier frames; export SAM 2.1 or EdgeTAM from a checkpoint of the video model "
    "(--sam sam2.1_hiera_tiny.pt)"
)
"""Why a segmenter cannot follow objects, and what to do."""


def _form(prompt: MaskPrompt) -> tuple[int, bool, bool]:
    return len(prompt.points), prompt.box is None, prompt.previous is None


def check_memory(spec: SamSpec) -> None:
    """Raise `UsageError` if a segmenter has no memory."""
    if spec.memory is None:
        raise UsageError(NO_MEMORY)


def split_prompts(prompts: Sequence[MaskPrompt], most: int = MOST_PROMPTS) -> Iterator[list[MaskPrompt]]:
    """Yield prompts in their order, in lists that one call takes.

    A prompt of fewer points could be padded to the number of another, but a padded prompt gives another mask.

    Args:
        prompts: of one image.
        most: the largest list.

    Yields:
        Prompts that have equally many points, and all or none of them a box, and a mask.
    """
    for _, alike in groupby(prompts, key=_form):
        while call := list(islice(alike, most)):
            yield call
