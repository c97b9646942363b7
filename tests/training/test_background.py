"""The process that makes batches ends with the training, even if that is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from waiting import is_alive, wait_for
from wise_edge.errors import MissingExtraError

pytest.importorskip("wise_edge.training.common", exc_type=MissingExtraError)

_TRAINING = """
import multiprocessing, time
from wise_edge.training.common.background import stream_items

class Items:  # larger than a pipe, so that the worker waits for somebody to take them
    def __len__(self):
        return 1000
    def __getitem__(self, index):
        return bytes(1_000_000)

stream = stream_items(Items(), 0, 4)
next(stream)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_worker_ends_when_the_training_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", _TRAINING], stdout=subprocess.PIPE, text=True) as training:
        assert training.stdout is not None
        (worker,) = map(int, training.stdout.readline().split())
        assert Path(f"/proc/{worker}").exists()
        training.kill()
    wait_for(lambda: not is_alive(worker))
