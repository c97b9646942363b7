"""Which samples this process evaluates when several share an evaluation, and how their records are joined.

`accelerate launch` and `torchrun` set it in the environment; on a cluster, pass `--shard I/N`. Processes share files
only: each writes its own, and the report is made from all of them.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.evaluation.record_log import join_shards
from wise_edge.evaluation.records import MaskRecord, Settings
from wise_edge.files.environment import read_launch

_POLL_S = 1.0
_PATIENCE_S = 3600.0
"""Time without a new record of any process after which one is taken to have ended; loading a model is part of it."""


@dataclass(frozen=True)
class Shard:
    """One process's share.

    Attributes:
        index: which share, from 0.
        count: how many there are.
        launched: whether a launcher started all processes at once, so that the first may wait for the others.
    """

    index: int = 0
    count: int = 1
    launched: bool = False

    def places(self, samples: int) -> range:
        """Return the indices of the share's samples: every `count`-th, so that shares are alike."""
        return range(self.index, samples, self.count)

    def path(self, out: Path) -> Path:
        """Return the file of this share's records; `out` itself if there is only one share."""
        return out if self.count == 1 else out.with_name(f"{out.stem}.rank{self.index}{out.suffix}")

    def gather(
        self,
        out: Path,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> list[MaskRecord] | None:
        """Join the records of all shares.

        If a launcher started the processes, the first one waits for the others, which return None.

        Args:
            out: the file after which the files of the shares are named.
            settings: of this share.
            clock: seconds.
            sleep: waits some seconds.

        Returns:
            The records of all samples in order, None if another process reports them.

        Raises:
            UsageError: the file of a share was made with other settings or is damaged.
            WiseEdgeError: no share has got a record for `_PATIENCE_S`.
        """
        paths = [Shard(index, self.count).path(out) for index in range(self.count)]
        if self.launched and self.index > 0:
            return None
        sizes, grown_s = _sizes(paths), clock()
        while (records := join_shards(paths, settings)) is None and self.launched:
            sleep(_POLL_S)
            if (now := _sizes(paths)) != sizes:
                sizes, grown_s = now, clock()
            elif clock() - grown_s > _PATIENCE_S:
                raise WiseEdgeError(
                    f"no process has added a record to {out.stem}.rank*{out.suffix} for {_PATIENCE_S / 60:g} min; see "
                    "which one ended, and run the same command with --resume"
                )
        return records


def _sizes(paths: list[Path]) -> list[int]:
    return [path.stat().st_size if path.exists() else 0 for path in paths]


def find_shard(requested: str | None) -> Shard:
    """Return this process's share.

    Args:
        requested: "I/N", I from 0 to N - 1; None reads the environment of torchrun or accelerate (RANK and WORLD_SIZE).

    Raises:
        UsageError: `requested` has another form, or as `read_launch`.
    """
    if requested is None:
        launch = read_launch()
        return Shard(launch.rank, launch.count, launched=launch.count > 1)
    parts = re.fullmatch(r"(\d{1,6})/(\d{1,6})", requested, re.ASCII)
    if parts is None or not int(parts[1]) < int(parts[2]):
        raise UsageError(f"--shard is '{requested}'; pass I/N with I from 0 to N - 1, for example 0/4")
    return Shard(int(parts[1]), int(parts[2]))


def choose_gpu() -> None:
    """Restrict this process to the GPU of its local rank, before any runtime starts CUDA.

    Of a list in CUDA_VISIBLE_DEVICES it takes one; where that is empty or -1, GPUs stay hidden.
    """
    place = read_launch().local_rank
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", str(place)).split(",")
    listed = [name.strip() for name in visible if name.strip()]
    os.environ["CUDA_VISIBLE_DEVICES"] = listed[place % len(listed)] if listed else ""
