"""The processes of a WISE training: their number, and what the first of them does for all."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import accelerate
import torch

from wise_edge.errors import UsageError, WiseEdgeError, first_line
from wise_edge.files.environment import read_launch
from wise_edge.native.process import end_with_parent
from wise_edge.training.wise.config import WiseConfig

T = TypeVar("T")


def check_processes(config: WiseConfig) -> None:
    """Check that the number of processes is the one in the recipe.

    Raises:
        UsageError: the numbers differ, or as `read_launch`.
    """
    read_launch()
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun or accelerate; if it has ended by now, joining it fails
        end_with_parent(os.getppid())
    on_cpu = not torch.cuda.is_available()  # accelerate joins CPU processes only on request
    try:
        running = accelerate.PartialState(cpu=on_cpu).num_processes
    except (ValueError, torch.distributed.DistError) as error:
        raise UsageError(f"the processes of the run cannot join: {first_line(error)}; start with torchrun") from error
    if running != config.processes:
        raise UsageError(
            f"processes: the recipe expects {config.processes}, but {running} run; start it with 'torchrun "
            f"--nproc_per_node {config.processes} -m wise_edge train …', or --set processes={running}"
        )


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
    if code is not None:
        leave_group()
    if failure is not None:
        raise failure
    if code is not None:
        raise SystemExit(code)
    return result


def leave_group() -> None:
    """Leave the group of processes before this one ends.

    Gloo's threads, which join processes without GPUs, may otherwise end it with SIGABRT while it exits.
    """
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()
