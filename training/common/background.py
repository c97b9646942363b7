"""Data that one background process makes while the loop takes its steps."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from typing import Any, TypeVar

from torch.utils.data import DataLoader

from wise_edge.native.process import end_with_parent

T = TypeVar("T")


def stream_items(items: Any, start: int, ahead: int) -> Iterator[T]:
    """Yield the items of a map-style dataset in order; one background process makes them.

    Args:
        items: has a length and returns item i for index i.
        start: index of the first item.
        ahead: number of items that are made in advance.
    """
    yield from DataLoader(
        items,
        batch_size=None,
        sampler=range(start, len(items)),
        num_workers=1,
        prefetch_factor=ahead,
        collate_fn=_same,
        worker_init_fn=partial(_begin_worker, os.getpid()),
    )


def _same(item: T) -> T:
    return item


def _begin_worker(parent: int, worker: int) -> None:
    """End when the loop is killed: torch's own watchdog waits for ever to hand over items that nobody takes.

    Ignore Ctrl-C and SIGTERM, which reach the whole process group: the loop needs data until its step ends.
    """
    end_with_parent(parent)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
