"""What the embedded policy learns to write for a sample, by prompt variant.

The warm start does not teach compression: rationales under `verbose` are detailed, under `wise` and `wise-infer`
of all lengths and mostly long, under `wise-s` a little shorter, as those of an untrained large model would be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from wise_edge.policy.answers.answer import Answer, AnsweredObject, format_answer, object_in_frame
from wise_edge.policy.answers.form import BOX_POINTS, AnswerForm
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.scenes.rationales import LEVELS
from wise_edge.scenes.sampling import Sample

LEVEL_WEIGHTS: Mapping[str, tuple[float, ...]] = {
    "verbose": (0, 0, 0, 1),
    "wise": (15, 35, 50, 0),
    "wise-infer": (15, 35, 50, 0),
    "wise-s": (22, 43, 35, 0),
}
"""Prompt variant with a rationale to the weight of each of `LEVELS`."""


def completion(
    sample: Sample, variant: str, rng: Random, size: int, weights: Mapping[str, Sequence[float]] = LEVEL_WEIGHTS
) -> str:
    """Return the completion for a sample.

    Args:
        sample: a labeled scene.
        variant: one of `wise_edge.policy.prompts.VARIANTS`.
        rng: chooses the rationale's length.
        size: side of the resized square in which coordinates are given, px.
        weights: of `LEVELS`, by variant.
    """
    answer = f"<answer>{write_answer(sample, AnswerFrame((size, size)))}</answer>"
    if variant == "answer":
        return answer
    level = rng.choices(LEVELS, weights[variant])[0]
    text = f"<think>{sample.rationale(level)}</think>{answer}"
    return f"{text}<d_think>{sample.rationale('detailed')}</d_think>" if variant == "wise" else text


def target_answer(sample: Sample, frame: AnswerFrame) -> AnsweredObject:
    """Return the true box and points in a frame."""
    side = sample.scene.side
    return object_in_frame(sample.box, sample.points, (side, side), frame)


def write_answer(sample: Sample, frame: AnswerFrame, form: AnswerForm = BOX_POINTS) -> str:
    """Return the JSON text of `target_answer`; a list of one if the form is a list."""
    return format_answer(Answer((target_answer(sample, frame),)), form, frame)
