"""The numbers that launchers and users set in the environment, read and checked in one place."""

from __future__ import annotations

import os
import re
import reprlib
from dataclasses import dataclass

from wise_edge.errors import UsageError

MOST_PROCESSES = 999_999


@dataclass(frozen=True)
class Launch:
    """The place of this process among those that a launcher started.

    Attributes:
        rank: its place among all, from 0.
        count: how many there are.
        local_rank: its place among those of this machine, from 0.
    """

    rank: int
    count: int
    local_rank: int


def read_launch() -> Launch:
    """Return what torchrun, accelerate or a script of the same kind has set; one process if nothing is.

    Source: https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables.

    Raises:
        UsageError: a variable is no number, or they contradict each other.
    """
    remedy = "start with torchrun, or unset it"
    count = read_int("WORLD_SIZE", 1, MOST_PROCESSES, remedy)
    rank = read_int("RANK", 0, (count or MOST_PROCESSES) - 1, f"WORLD_SIZE is {count}; {remedy}")
    if count is not None and count > 1 and rank is None:
        raise UsageError(f"WORLD_SIZE is {count}, but RANK is not set; {remedy}")
    local_count = read_int("LOCAL_WORLD_SIZE", 1, count or MOST_PROCESSES, remedy)
    local_rank = read_int("LOCAL_RANK", 0, (local_count or count or MOST_PROCESSES) - 1, remedy)
    return Launch(rank or 0 if count else 0, count or 1, local_rank or 0)


def read_int(name: str, least: int, most: int, remedy: str) -> int | None:
    """Return an integer of the environment, None if it is not set.

    Args:
        name: the variable.
        least: its smallest value.
        most: its largest value.
        remedy: what to do if it has none of these, for the message.

    Raises:
        UsageError: it is no integer, or out of these bounds.
    """
    given = os.environ.get(name)
    if given is None:
        return None
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", given) or not least <= int(given) <= most:
        raise UsageError(f"{name} is {reprlib.repr(given)}; it must be an integer from {least} to {most}: {remedy}")
    return int(given)
