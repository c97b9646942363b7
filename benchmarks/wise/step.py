"""Shows where the time of a WISE training step goes: medians over the steps of runs.

    python benchmarks/wise/step.py RUN... [--json]

The figures come from a run's log, so they depend on its machine and on that machine's other work. The first step is
left out. `update` is the time outside generation and rewards: the forward passes of both policies, the backward pass
and the optimizer.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median

from wise_edge.training.common.step_log import read_log

PARTS = {"generation": "time/generation_s", "rewards": "time/rewards_s"}


def measure(run: Path) -> dict[str, float]:
    """Return the median seconds of a step of a run and of its parts."""
    steps = [record for record in read_log(run / "train.jsonl") if "step_time" in record][1:]
    if not steps:
        raise SystemExit(f"{run}: its train.jsonl has no second step")
    rows = [{name: record[key] for name, key in PARTS.items()} | {"step": record["step_time"]} for record in steps]
    for row in rows:
        row["update"] = row["step"] - row["generation"] - row["rewards"]
    return {f"{name}_s": round(median(row[name] for row in rows), 2) for name in ("step", *PARTS, "update")}


def main() -> None:
    parser = argparse.ArgumentParser(description="Say where the seconds of WISE training steps went.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    found = {run.name: measure(run) for run in options.runs}
    if options.json:
        print(json.dumps(found))
        return
    for name, seconds in found.items():
        shares = ", ".join(
            f"{part} {seconds[f'{part}_s']:.1f} s ({seconds[f'{part}_s'] / seconds['step_s']:.0%})"
            for part in (*PARTS, "update")
        )
        print(f"{name}: {seconds['step_s']:.1f} s a step: {shares}")


if __name__ == "__main__":
    main()
