"""Data that one background process makes while the loop takes its steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any, TypeVar

from torch.utils.data import DataLoader

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
        worker_init_fn=_leave_signals_to_the_loop,
    )


def _same(item: T) -> T:
    return item


def _leave_signals_to_the_loop(worker: int) -> None:
    """Ignore Ctrl-C and SIGTERM, which reach the whole process group: the loop needs data until its step ends."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
