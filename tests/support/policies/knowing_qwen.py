"""Tiny policies of the real architectures that know an answer: their head is solved so that they write given texts.

All other weights stay random, so the states that the head reads differ for every context. The head maps each state on
the way through a text to the text's next token, in the least squares of as many states as it has columns. A backend
that computes another state, from a wrong position, picture or prompt, writes something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tiny_qwen import make_qwen, save_qwen
from wise_edge.policy.answers.conventions import Told
from wise_edge.policy.checkpoint import read_policy_spec
from wise_edge.runtimes.policy.torch_policy import TorchPolicy

WIDTH = 384
_HEADS = {"num_attention_heads": 24, "num_key_value_heads": 4}
_SCALE = 20.0  # logit of the right token; the others are near 0


@dataclass(frozen=True)
class Lesson:
    """What a policy must write.

    Attributes:
        image: HWC uint8 RGB.
        query: normalized.
        variant: the prompt variant.
        text: the completion.
    """

    image: npt.NDArray[np.uint8]
    query: str
    variant: str
    text: str


def make_knowing_qwen(
    family: str,
    folder: Path,
    lessons: Sequence[Lesson],
    told: Told | None = None,
    prepare: Callable[[Path], None] | None = None,
) -> Path:
    """Write a checkpoint folder of a family that knows some lessons.

    Args:
        family: one of transformers' names.
        folder: to write.
        lessons: what it must write; all texts together have fewer tokens than `WIDTH`.
        told: what an export of it will be told of its pictures, which the states depend on.
        prepare: changes the folder's other files, on which the states depend too.
    """
    model = make_qwen(family, width=WIDTH, max_position_embeddings=1024, **_HEADS)
    save_qwen(model, folder)
    if prepare is not None:
        prepare(folder)
    policy = TorchPolicy(folder, read_policy_spec(folder, told=told))
    states, targets = zip(*(_walk(policy, lesson) for lesson in lessons), strict=True)
    rows, tokens = np.concatenate(states), np.concatenate(targets)
    if len(rows) > WIDTH:
        raise ValueError(f"the lessons have {len(rows)} tokens, at most {WIDTH}")
    wanted = np.zeros((len(rows), model.lm_head.weight.shape[0]))
    wanted[np.arange(len(rows)), tokens] = _SCALE
    head, *_ = np.linalg.lstsq(rows.astype(np.float64), wanted, rcond=None)
    with torch.no_grad():
        model.lm_head.weight.copy_(torch.from_numpy(head.T))
    save_qwen(model, folder)
    if prepare is not None:
        prepare(folder)
    return folder


def _walk(policy: TorchPolicy, lesson: Lesson) -> tuple[npt.NDArray[np.float32], list[int]]:
    """Return the states before each token of a lesson's text and of the end token behind it, and these tokens."""
    encoded = policy.encode(lesson.image)
    prompt = policy._text.prompt(lesson.query, lesson.variant, encoded.grid)
    tokens = policy._text.encode(lesson.text)
    seen: list[torch.Tensor] = []
    hook = policy._model.lm_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    normed: list[torch.Tensor] = []
    inner = policy._model.model.language_model.norm.register_forward_hook(lambda *state: normed.append(state[2][0]))
    with torch.no_grad():
        policy._prefill(encoded, prompt.prefix, [*prompt.suffix, *tokens])
    hook.remove()
    inner.remove()
    end = policy._text._tokenizer.token_to_id("<|im_end|>")
    return normed[-1][-len(tokens) - 1 :].numpy(), [*tokens, end]
