#!/usr/bin/env bash
# datasets 5.2.0 cannot make a data set from a generator whose first 1000 rows hold empty lists: the order of rows decides.
#
# Of a detection set whose first images show nothing, `boxes` is [] in each of them. `Dataset.from_generator` infers the
# types from the first rows that it writes (writer_batch_size, 1000) alone, takes an empty list for a list of nulls, and
# stops at the first box: "Couldn't cast array of type ... to null". The same rows in another order, or fewer than 1000
# empty ones, are read. `Dataset.from_list` reads all orders. Features that are passed are a way out.
# Reported: https://github.com/huggingface/datasets/issues/7222 and 5965, both for other readers.
#
# Seen on 2026-11-30, Python 3.11: 999 empty lists first: read; 1000 first: DatasetGenerationError (TypeError); the box
# first: read; from_list, 1000 first: read.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check datasets==5.2.0
export HF_HOME="$folder/home" HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1
"$folder/venv/bin/python" - <<'PYTHON'
from datasets import Dataset
from datasets.exceptions import DatasetGenerationError

EMPTY, BOX = {"boxes": []}, {"boxes": [[1, 2, 3, 4]]}


def generated(rows):
    try:
        return "read" if len(Dataset.from_generator(lambda: iter(rows))) == len(rows) else "cut"
    except DatasetGenerationError as error:
        return f"{type(error).__name__} ({type(error.__cause__).__name__})"


few, many, turned = [EMPTY] * 999 + [BOX], [EMPTY] * 1000 + [BOX], [BOX] + [EMPTY] * 1000
found = [generated(few), generated(many), generated(turned), "read" if Dataset.from_list(many)[1000] == BOX else "cut"]
print(f"999 empty lists first: {found[0]}; 1000 first: {found[1]}; the box first: {found[2]}; from_list: {found[3]}")
if found != ["read", "DatasetGenerationError (TypeError)", "read", "read"]:
    raise SystemExit("changed: empty lists at the start are taken otherwise")
PYTHON
