#!/usr/bin/env bash
# accelerate 1.15.0: `accelerate launch --cpu --num_processes 2` runs one process and exits with 0.
#
# Source: `accelerate launch --help` ("--num_processes: The total number of processes to be launched in parallel"); met in
# https://github.com/huggingface/accelerate/issues/2741, too.
#
# A good engineer would rehearse a training for several GPUs on a laptop with this line, see it succeed, and not notice that
# nothing was distributed: no warning is printed even if every default is given. Assert the number of processes in the
# script; torch's own launcher starts two.
#
# Seen:
#   accelerate launch    rank 0 of 1
#   torchrun             rank 0 of 2, rank 1 of 2
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu saves torch's 3 GB of CUDA libraries.
"$work/venv/bin/pip" install --quiet --disable-pip-version-check accelerate==1.15.0 torch==2.14.1 numpy

cat > "$work/show.py" <<'PY'
from accelerate import Accelerator

accelerator = Accelerator(cpu=True)
print(f"rank {accelerator.process_index} of {accelerator.num_processes}", flush=True)
PY

expect() { # label, what to see, command
    local label=$1 expected=$2 seen
    shift 2
    seen=$(HOME=$work OMP_NUM_THREADS=1 "$@" "$work/show.py" 2> "$work/errors" | grep '^rank' | sort | paste -sd, | sed 's/,/, /g') ||
        { cat "$work/errors"; exit 1; }
    printf '%-20s %s\n' "$label" "$seen"
    [ "$seen" = "$expected" ] || { echo "changed: expected '$expected'"; exit 1; }
}
expect 'accelerate launch' 'rank 0 of 1' "$work/venv/bin/accelerate" launch --cpu --num_processes 2 --num_machines 1 \
    --mixed_precision no --dynamo_backend no
! grep -i process "$work/errors" || { echo 'changed: it warns'; exit 1; }
expect 'torchrun' 'rank 0 of 2, rank 1 of 2' "$work/venv/bin/torchrun" --nproc_per_node 2
