"""Supervised steps before GRPO that teach the form of the completions, with TRL's SFTTrainer.

Demonstrations come from scenes, or from a JSON-lines file of `image` (a path relative to the file), `query` and
`completion`. An adapter is merged at the end; GRPO starts from the result and is regularized toward it.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import trl
from PIL import Image

from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.files.documents import parse_json, read_lines
from wise_edge.images import load_image
from wise_edge.policy.answers.form import BOX_POINTS, AnswerForm
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.policy.image import resize
from wise_edge.scenes import LEVELS, Sample, sample, write_answer
from wise_edge.training.wise.arguments import lora_config, quantization_config, trackers
from wise_edge.training.wise.checkpoints import staging_folder
from wise_edge.training.wise.config import WarmStartConfig, WiseConfig
from wise_edge.training.wise.data import lazy_rows
from wise_edge.training.wise.final_policy import write_policy
from wise_edge.training.wise.policy import StartPolicy
from wise_edge.training.wise.reward_config import ORDERS
from wise_edge.training.wise.trainer import keep_adapter_precise, keep_generation_config_savable

_COLUMNS = ("image", "query", "completion")
_FIRST_SCENE = 1_000_000_000  # far beyond the scenes that GRPO and the training of the embedded policy use


def warm_start(config: WiseConfig, start: StartPolicy, folder: Path) -> Path:
    """Train on demonstrations and write the result as one Hugging Face folder.

    Args:
        config: the recipe, with `warm_start`.
        start: the policy before the warm start.
        folder: the folder to write, in the folder of the run; if it exists, the warm start is already done.

    Returns:
        `folder`.

    Raises:
        UsageError: the demonstrations cannot be read.
        WiseEdgeError: the loss is not finite.
    """
    assert config.warm_start is not None
    if folder.exists():
        return folder
    scratch = staging_folder(folder.parent) / folder.name
    trainer = _build_trainer(config, config.warm_start, start, scratch)
    keep_adapter_precise(trainer.model)
    keep_generation_config_savable(trainer.model)
    with redirect_stdout(sys.stderr):
        loss = trainer.train().training_loss
    if not math.isfinite(loss):
        raise WiseEdgeError("the loss of the warm start is not finite; lower warm_start.learning_rate")
    trainer.save_model(str(scratch / "model"))
    if trainer.is_world_process_zero():
        adapter = config.lora is not None
        write_policy(start, scratch / "model", folder, dtype=config.dtype, adapter=adapter)
        shutil.rmtree(scratch)
    trainer.accelerator.wait_for_everyone()
    return folder


def _build_trainer(config: WiseConfig, warm: WarmStartConfig, start: StartPolicy, scratch: Path) -> Any:
    per_device = max(1, min(config.rollouts_per_device, warm.batch_size // config.processes))
    arguments = trl.SFTConfig(
        output_dir=str(scratch),
        seed=config.seed,
        use_cpu=not torch.cuda.is_available(),
        bf16=config.bf16,
        model_init_kwargs={"dtype": config.dtype},
        max_steps=warm.steps,
        learning_rate=warm.learning_rate,
        lr_scheduler_type="linear",
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=max(1, warm.batch_size // (per_device * config.processes)),
        activation_checkpointing=config.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        max_length=None,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        save_strategy="no",
        report_to=trackers(config.report_to),
        disable_tqdm=not sys.stderr.isatty(),
    )
    return trl.SFTTrainer(
        model=start.name,
        args=arguments,
        processing_class=start.copy_processor(),
        train_dataset=demonstrations(warm, start, config.order, config.seed),
        peft_config=None if config.lora is None else lora_config(config.lora),
        quantization_config=quantization_config(config),
    )


def demonstrations(warm: WarmStartConfig, start: StartPolicy, order: str, seed: int) -> Any:
    """Return rows in TRL's prompt-completion form: prompt, image and completion.

    Raises:
        UsageError: the file is missing or malformed; the message says where.
    """
    if warm.data == "scenes":
        count, load = warm.steps * warm.batch_size, _scene_loader(start, order, seed)
    else:
        records = read_demonstrations(Path(warm.data))
        count, load = len(records), _file_loader(records, start)

    def row(index: int) -> dict[str, Any]:
        image, query, completion = load(index)
        return {
            "prompt": start.training_messages(query, order),
            "image": Image.fromarray(resize(image, (start.input_size, start.input_size))),
            "completion": [{"role": "assistant", "content": completion}],
        }

    return lazy_rows(count, row)


def write_completion(
    labeled: Sample, order: str, rng: Random, frame: AnswerFrame, form: AnswerForm = BOX_POINTS
) -> str:
    """Return a scene's completion in one of `ORDERS`; the drawn length of the concise part is mostly long."""
    level = rng.choices(LEVELS[:3], (15, 35, 50))[0]
    parts = {
        "think": labeled.rationale(level),
        "answer": write_answer(labeled, frame, form),
        "d_think": labeled.rationale("detailed"),
    }
    return "".join(f"<{tag}>{parts[tag]}</{tag}>" for tag in ORDERS[order])


def read_demonstrations(file: Path) -> list[dict[str, str]]:
    """Read a JSON-lines file of demonstrations; paths of images are resolved against its folder.

    Raises:
        UsageError: the file is unreadable or empty, or a line lacks a text or its image.
    """
    lines = enumerate(read_lines(file, remedy="set warm_start.data to a file of demonstrations"), start=1)
    records = [_read_line(file, number, line) for number, line in lines if line.strip()]
    if not records:
        raise UsageError(f"warm_start.data: {file} has no demonstrations")
    return records


def _read_line(file: Path, number: int, line: bytes) -> dict[str, str]:
    where = f"warm_start.data: {file} line {number}"
    record = parse_json(line, where, "fix the line")
    for name in _COLUMNS:
        if not isinstance(record.get(name), str):
            raise UsageError(f"{where} has no text {name!r}")
    image = file.parent / record["image"]
    if not os.path.isfile(image):  # also for a name that no file can have, of which Path's own raises
        raise UsageError(f"{where}: the image {str(image)[:200]!r} does not exist")
    return {**record, "image": str(image)}


_Loader = Callable[[int], "tuple[np.ndarray[Any, np.dtype[np.uint8]], str, str]"]


def _scene_loader(start: StartPolicy, order: str, seed: int) -> _Loader:
    def load(index: int) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], str, str]:
        labeled = sample("train", _FIRST_SCENE + index)
        text = write_completion(labeled, order, Random(f"{seed}/warm/{index}"), start.frame, start.form)
        return labeled.scene.image, labeled.request, text

    return load


def _file_loader(records: list[dict[str, str]], start: StartPolicy) -> _Loader:
    def load(index: int) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], str, str]:
        record = records[index]
        return load_image(Path(record["image"])), record["query"], record["completion"]

    return load
