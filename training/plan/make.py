"""The plan of any recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from wise_edge.training.plan.parts import TrainingPlan

if TYPE_CHECKING:
    from wise_edge.training.distill.config import DistillConfig
    from wise_edge.training.recipe import Config
    from wise_edge.training.sam.config import SamConfig
    from wise_edge.training.sft.config import SftConfig


def make_plan(config: Config, out: Path, resume: bool) -> TrainingPlan:
    """Check what a training reads, and return what it will do and need; nothing is written.

    Args:
        config: the recipe.
        out: folder of the run.
        resume: whether it goes on with a run in `out`.

    Raises:
        UsageError: `out` holds a run and `resume` is not set, or the recipe's model or data cannot be used.
        MissingExtraError: a package that the stage needs is not installed.
    """
    from wise_edge.training.common.run import refuse_begun
    from wise_edge.training.wise.config import WiseConfig

    refuse_begun(out, resume)
    if config.stage == "distill":
        from wise_edge.training.plan.distill import plan_distill

        return plan_distill(cast("DistillConfig", config), out)
    if not isinstance(config, WiseConfig):
        from wise_edge.training.plan.scratch import plan_scratch

        return plan_scratch(cast("SftConfig | SamConfig", config), out)
    from wise_edge.training.plan.wise import plan_wise
    from wise_edge.training.wise.data import Selection
    from wise_edge.training.wise.policy import open_policy
    from wise_edge.training.wise.train import quiet_libraries

    with quiet_libraries():
        start = open_policy(config)
        data = Selection(config.data, "data")
        Selection(config.validation.data, "validation.data")
        return plan_wise(config, start, len(data), out)
