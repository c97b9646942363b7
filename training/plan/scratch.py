"""The plan of a training from scratch: of a small policy, or of a small segmenter."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from wise_edge.drawing.units import number
from wise_edge.training.plan.parts import MemoryPart, TrainingPlan
from wise_edge.training.sam.config import SamConfig
from wise_edge.training.sam.segmenters import build_segmenter, read_padded_spec
from wise_edge.training.sft.config import SftConfig
from wise_edge.training.sft.model import build_policy
from wise_edge.training.sft.tokenizer import SPECIAL_TOKENS

NOT_DERIVED = "the activations of a batch are not estimated"


def plan_scratch(config: SftConfig | SamConfig, out: Path) -> TrainingPlan:
    """Return the plan of a training; `out` is the folder of the run."""
    if isinstance(config, SftConfig):
        ids = {token: number for number, token in enumerate(SPECIAL_TOKENS)}
        with torch.device("meta"):
            model: nn.Module = build_policy(config.model, config.vocab_size, ids, config.seed)
        kind, scenes = "policy", config.batch_size
    else:
        if config.start is not None:
            read_padded_spec(config.start, "start")
        # Not on "meta": MobileSAM's class computes with numbers of a tensor.
        model, kind, scenes = build_segmenter(config.model), "sam", config.scenes_per_step
    weights = sum(parameter.numel() for parameter in model.parameters())
    averaged = kind == "policy"
    state_bytes = weights * (12 + 4 * averaged)  # weights and their moments, and the average of the weights
    memory = (
        MemoryPart("weights, gradient and moments", f"{weights:.3g} x (4 + 4 + 8) B at most", weights * 16.0),
        *([MemoryPart("average of the weights", f"{weights:.3g} x 4 B", weights * 4.0)] if averaged else []),
        MemoryPart("activations", "", None, reason=NOT_DERIVED),
    )
    facts = (
        ("model", f"{kind} of {number(weights)} weights"),
        ("data", "scenes, drawn as they are needed"),
        ("steps", f"{config.total_steps}, each of {scenes} scenes"),
    )
    return TrainingPlan(facts, memory, 2.0 * state_bytes + 4 * weights, str(out / kind))
