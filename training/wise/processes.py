"""The processes of a WISE training: their number, and what the first of them does for all."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import accelerate
import torch

from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.training.wise.config import WiseConfig

T = TypeVar("T")

_PLACES = (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
"""What a launcher sets: the place of a process and their number, over all machines and on this one.

https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables
"""


def check_processes(config: WiseConfig) -> None:
    """Check that the number of processes is the one in the recipe.

    Raises:
        UsageError: the numbers differ, or the environment of a launcher contradicts itself.
    """
    for place, count in _PLACES:
        _check_place(place, count)
    on_cpu = not torch.cuda.is_available()  # accelerate joins CPU processes only on request
    running = accelerate.PartialState(cpu=on_cpu).num_processes
    if running != config.processes:
        raise UsageError(
            f"processes: the recipe expects {config.processes}, but {running} run; start it with 'torchrun "
            f"--nproc_per_node {config.processes} -m wise_edge train …', or --set processes={running}"
        )


def _check_place(place: str, count: str) -> None:
    for name in (place, count):
        if not os.environ.get(name, "0").isdecimal():
            raise UsageError(f"{name} is '{os.environ[name]}' and no number; start with torchrun, or unset it")
    index, number = int(os.environ.get(place, "0")), int(os.environ.get(count, "1"))
    if count in os.environ and index >= number:
        raise UsageError(f"{place} is {index}, but {count} is {number}; start with torchrun, or unset both")


def on_first_process(action: Callable[[], T]) -> T:
    """Run something on the first process alone, and return its result on all of them.

    All processes must call this. What is raised on the first ends the others too, which say nothing.
    """
    state = accelerate.PartialState()
    shared: list[T | int | None] = [None, None]  # the result, or else the exit code
    failure: BaseException | None = None
    if state.is_main_process:
        try:
            shared[0] = action()
        except BaseException as error:
            failure = error
            shared[1] = error.exit_code if isinstance(error, WiseEdgeError) else 1
    result, code = accelerate.utils.broadcast_object_list(shared)
    if failure is not None:
        raise failure
    if code is not None:
        raise SystemExit(code)
    return result
