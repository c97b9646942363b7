#!/usr/bin/env bash
# torch 2.14.1: a DataLoader's worker ends within seconds of a killed trainer (SIGKILL, out of memory) if its batches are
# tensors, and never if they are NumPy arrays or other objects of more than 64 kB.
#
# Source: torch/utils/data/_utils/worker.py. Each worker has a `ManagerWatchdog`, which looks every 5 s whether the
# trainer still lives.
#
# A good engineer would read of the watchdog and rely on it. It ends the worker's loop, but the process then waits for the
# thread of its queue, which cannot hand over what nobody takes: the pipe's reading end is open in the worker itself, so
# the write waits for ever instead of failing. Tensors travel in shared memory, and their handles fit into the pipe.
# Have the worker ask the kernel in `worker_init_fn`: prctl(PR_SET_PDEATHSIG, SIGKILL).
#
# Seen, 15 s after a SIGKILL of the trainer:
#   tensors          ended
#   NumPy arrays     runs
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu saves torch's 3 GB of CUDA libraries.
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy

cat > "$work/train.py" <<'PY'
import sys
import time

import numpy
import torch
from torch.utils.data import DataLoader


class Batches:
    def __len__(self):
        return 1000

    def __getitem__(self, index):
        batch = numpy.zeros(100_000, numpy.uint8)
        return torch.from_numpy(batch) if sys.argv[1] == "tensors" else batch


def same(batch):
    return batch


batches = iter(DataLoader(Batches(), batch_size=None, num_workers=1, prefetch_factor=4, collate_fn=same))
next(batches)
print(batches._workers[0].pid, flush=True)
time.sleep(600)
PY

expect() { # what the batches are, what their worker does
    local worker seen=ended
    "$work/venv/bin/python" "$work/train.py" "$1" > "$work/worker" &
    local trainer=$!
    until [ -s "$work/worker" ]; do sleep 0.2; kill -0 "$trainer"; done
    worker=$(< "$work/worker")
    sleep 2 # it makes the next batches
    kill -KILL "$trainer"
    wait "$trainer" 2> /dev/null || true
    for _ in $(seq 15); do sleep 1; done
    if kill -KILL "$worker" 2> /dev/null; then seen=runs; fi
    printf '%-16s %s\n' "$1" "$seen"
    [ "$seen" = "$2" ] || { echo "changed: expected '$2'"; exit 1; }
    rm "$work/worker"
}
expect tensors ended
expect arrays runs
