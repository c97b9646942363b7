"""Which prompts one call of a mask decoder takes together, and what backends without memory say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import TypeVar

from wise_edge.errors import UsageError
from wise_edge.runtimes.base import MaskPrompt
from wise_edge.sam.spec import MOST_PROMPTS, SamSpec

NO_MEMORY = (
    "this segmenter has no memory of earlier frames; export SAM 2.1 or EdgeTAM from a checkpoint of the video model "
    "(--sam sam2.1_hiera_tiny.pt)"
)
"""Why a segmenter cannot follow objects, and what to do."""
_NUMBERS_ON_CPU = 256 * 256
"""Numbers of low-resolution masks, one a prompt, beyond which a CPU gains nothing by a call of several prompts: it
takes one prompt of 1024 px at a time, four of 512, all of 256 (docs/log.md)."""
Output = TypeVar("Output")


def _form(prompt: MaskPrompt) -> tuple[int, bool, bool]:
    return len(prompt.points), prompt.box is None, prompt.previous is None


def most_together(spec: SamSpec, *, on_gpu: bool) -> int:
    """Return how many prompts of an image one call of the mask decoder takes at most."""
    return MOST_PROMPTS if on_gpu else min(MOST_PROMPTS, max(1, _NUMBERS_ON_CPU // spec.low_res_size**2))


def check_memory(spec: SamSpec) -> None:
    """Raise `UsageError` if a segmenter has no memory."""
    if spec.memory is None:
        raise UsageError(NO_MEMORY)


def decode_together(
    prompts: Sequence[MaskPrompt], decode: Callable[[list[MaskPrompt]], Iterable[Output]], most: int
) -> list[Output]:
    """Decode prompts in few calls: those of one form together, wherever they stand.

    Args:
        prompts: of one image.
        decode: makes the output of each prompt of a call.
        most: the most that one call takes.

    Returns:
        The outputs in the order of the prompts.
    """
    order = sorted(range(len(prompts)), key=lambda place: _form(prompts[place]))
    calls = split_prompts([prompts[place] for place in order], most)
    made = dict(zip(order, (output for call in calls for output in decode(call)), strict=True))
    return [made[place] for place in range(len(prompts))]


def split_prompts(prompts: Sequence[MaskPrompt], most: int) -> Iterator[list[MaskPrompt]]:
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
