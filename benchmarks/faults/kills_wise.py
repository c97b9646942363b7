"""Killing the WISE training of an adapter on the embedded policy, from its warm start to its final policy.

Its validations are more frequent than its checkpoints, so the best policy may be of a later step than the checkpoint.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from kills import Scenario
from trained import plain, prepare, train

_SEALED = ("best", "policy", "start", "checkpoint-*")
_NO_TWO_HAVE = ("seconds", "step_time", "time/generation_s", "time/rewards_s")
_STATES = ("*.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")
_RECIPE = """
stage: wise
model: embedded-start
steps: 3
dtype: float32
bf16: false
gradient_checkpointing: false
threads: 1
order: no-detailed
prompts_per_step: 1
rollouts: 4
rollouts_per_device: 2
max_completion_tokens: 90
learning_rate: 1.0e-2
schedule: linear
lora: {rank: 4, alpha: 8}
warm_start: {steps: 1, batch_size: 2, learning_rate: 1.0e-4}
data: {name: scenes, split: train, samples: 2}
validation:
  data: {name: scenes, split: validation, samples: 2}
  every: 1
  variants: [wise-s]
  max_tokens: 70
checkpoint_every: 2
samples_every: 1
report_to: []
"""


def _check(inputs: Path, run: Path) -> list[str]:
    """Return what is torn, and whether the best policy lies under the figures of another."""
    from wise_edge.files.documents import read_json
    from wise_edge.training.wise.checkpoints import is_sound

    out = run / "out"
    wrong = [f"{place.name} is torn" for name in _SEALED for place in out.glob(name) if not is_sound(place)]
    for name in ("run.json", "best.json"):
        if (out / name).exists():
            read_json(out / name)
    if (out / "policy").exists() and not is_sound(out / "policy", source=out / "best"):
        wrong.append("policy is not made from best")
    return wrong


def _result(inputs: Path, run: Path) -> Any:
    """Return the newest checkpoint's state and all other files, without times."""
    import torch
    from safetensors.torch import load_file

    from wise_edge.training.common.step_log import read_log
    from wise_edge.training.wise.checkpoints import newest_checkpoint

    out, found = run / "out", dict[str, Any]()
    newest = newest_checkpoint(out)
    for file in [] if newest is None else [file for name in _STATES for file in newest.glob(name)]:
        load = load_file if file.suffix == ".safetensors" else partial(torch.load, weights_only=False)
        found[f"{newest}/{file.name}"] = plain(load(file))
    for file in sorted(path for path in out.rglob("*") if path.is_file()):
        name = str(file.relative_to(out))
        if file.suffix == ".jsonl" and file.parent == out:
            found[name] = [{k: v for k, v in record.items() if k not in _NO_TWO_HAVE} for record in read_log(file)]
            if len(found[name]) != len(file.read_text().splitlines()):
                found[name] = "has a torn line"
        elif not name.startswith("checkpoint-") and file.name not in ("sha256.json", "training_args.bin"):
            found[name] = file.read_bytes()
    return found


SCENARIO = Scenario(
    imports=("wise_edge.training.wise.train",),
    prepare=partial(prepare, _RECIPE),
    reset=lambda inputs, run: None,
    command=partial(train, ()),
    then=partial(train, ("--resume",)),
    check=_check,
    result=_result,
    unfinished=r"run/out/checkpoint-\d+(/.*)?",
)
