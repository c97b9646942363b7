"""Validation of a policy during GRPO: greedy decoding of held-out samples, masks of the answers, and figures.

With several processes, each decodes its share and gets all figures.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import numpy.typing as npt
import segment_anything
import torch

from wise_edge.bundle.store import resolve_checkpoint
from wise_edge.datasets import Example
from wise_edge.errors import UsageError
from wise_edge.geometry import Box, box_iou, scale_box, scale_point
from wise_edge.metrics import giou_ciou, mask_overlap
from wise_edge.policy.answers.answer import AnsweredObject
from wise_edge.policy.answers.completion import split_completion
from wise_edge.policy.answers.form import BOX_POINTS
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.policy.answers.tolerant import parse_answer
from wise_edge.sam.segment_anything import load_sam
from wise_edge.training.wise.config import ValidationConfig
from wise_edge.training.wise.data import Selection, square_image, true_answer
from wise_edge.training.wise.policy import StartPolicy


@dataclass(frozen=True)
class Figures:
    """Figures of one variant: fractions, and a token count.

    Attributes:
        ciou: summed intersection over summed union of masks, or of boxes if no SAM is used.
        giou: mean IoU of the same masks or boxes.
        box_accuracy: share of samples whose box IoU is above 0.5.
        valid_rate: share of samples with a readable answer.
        rationale_tokens: mean number of tokens inside `<think>`.
    """

    ciou: float
    giou: float
    box_accuracy: float
    valid_rate: float
    rationale_tokens: float


class Validator:
    """Validates policies of a run on one selection of samples.

    Args:
        config: what to decode, and how.
        start: processor, prompts and input size.

    Unusable samples (a damaged image, no box) are named on stderr and skipped.

    Raises:
        UsageError: the data or the SAM checkpoint cannot be read, or no sample is usable.
    """

    def __init__(self, config: ValidationConfig, start: StartPolicy) -> None:
        self._config = config
        self._start = start
        self.data = Selection(config.data, "validation.data")
        self._usable = [index for index in range(len(self.data)) if self._is_usable(index)]
        if not self._usable:
            raise UsageError("validation.data: no sample is usable; choose other data")
        self._segment = None if config.sam is None else _Segmenter(resolve_checkpoint(config.sam, "sam"))

    def run(self, model: Any) -> dict[str, Figures]:
        """Decode with a model that can generate; return the figures of each variant."""
        return {variant: self._figures(model, variant) for variant in self._config.variants}

    def _figures(self, model: Any, variant: str) -> Figures:
        state, count = accelerate.PartialState(), len(self._usable)
        most = math.ceil(count / state.num_processes)  # weights may be sharded, so all processes decode equally often
        places = range(state.process_index, most * state.num_processes, state.num_processes)
        scores: list[tuple[float, ...]] = []
        for batch in _chunks(places, self._config.batch_size):
            found = self._score(model, variant, [self._usable[min(place, count - 1)] for place in batch])
            scores += [score for place, score in zip(batch, found, strict=True) if place < count]
        rows = np.array(accelerate.utils.gather_object(scores), np.float64)
        giou, ciou = giou_ciou(rows[:, 0], rows[:, 1])
        means = [float(value) for value in rows[:, 2:].mean(axis=0)]
        return Figures(ciou, giou, *means)

    def _is_usable(self, index: int) -> bool:
        try:
            true_answer(self.data[index], self._start.input_size)
        except UsageError as error:
            print(f"warning: {error}; validation skips it", file=sys.stderr)
            return False
        return True

    def _score(self, model: Any, variant: str, indices: Sequence[int]) -> Iterator[tuple[float, ...]]:
        """Yield intersection, union, box accuracy, validity and rationale tokens of each sample."""
        examples = [self.data[index] for index in indices]
        texts = decode_greedily(model, self._start, examples, variant, self._config.max_tokens, "</answer>")
        for example, text in zip(examples, texts, strict=True):
            side = self._start.input_size
            read = parse_answer(text, BOX_POINTS, AnswerFrame((side, side))).answer
            answer = read.objects[0] if read else None
            rationale = split_completion(text).rationale or ""
            overlap = self._overlap(example, answer)
            right = answer is not None and box_iou(answer.box, true_answer(example, side).box) > 0.5
            tokens = len(self._start.processor.tokenizer(rationale)["input_ids"])
            yield *overlap, float(right), float(answer is not None), float(tokens)

    def _overlap(self, example: Example, answer: AnsweredObject | None) -> tuple[float, float]:
        if self._segment is None or example.mask is None:
            truth = true_answer(example, self._start.input_size).box
            return (0.0, float(_area(truth))) if answer is None else _box_overlap(answer.box, truth)
        if answer is None:
            return 0.0, float(np.count_nonzero(example.mask))
        height, width = example.image.shape[:2]
        square = (self._start.input_size, self._start.input_size)
        box = scale_box(answer.box, square, (width, height))
        points = [scale_point(point, square, (width, height)) for point in answer.points]
        return mask_overlap(self._segment(example.image, box, points), example.mask)


class _Segmenter:
    """segment-anything on the CPU or the GPU of this process."""

    def __init__(self, folder: Path) -> None:
        device = accelerate.PartialState().device
        self._predictor = segment_anything.SamPredictor(load_sam(folder).to(device))

    def __call__(
        self, image: npt.NDArray[np.uint8], box: Box, points: Sequence[tuple[int, int]]
    ) -> npt.NDArray[np.bool_]:
        self._predictor.set_image(image)
        masks, _, _ = self._predictor.predict(
            point_coords=np.array(points, np.float32),
            point_labels=np.ones(len(points), np.int64),
            box=np.array(box, np.float32),
            multimask_output=False,
        )
        mask: npt.NDArray[np.bool_] = masks[0]
        return mask


def decode_greedily(
    model: Any,
    start: StartPolicy,
    examples: Sequence[Example],
    variant: str,
    max_tokens: int,
    stop: str | None = None,
) -> list[str]:
    """Decode a completion for each sample greedily.

    Args:
        model: transformers' model.
        start: its processor, prompts and input size.
        examples: samples to decode together.
        variant: prompt variant.
        max_tokens: longest completion.
        stop: text that ends a completion, in addition to the model's end token.
    """
    processor = start.processor
    prompts = [start.messages(item.query, variant) for item in examples]
    text = processor.apply_chat_template(prompts, add_generation_prompt=True, tokenize=False)
    images = [[square_image(item, start.input_size)] for item in examples]
    inputs = processor(text=text, images=images, padding=True, return_tensors="pt").to(model.device)
    options: dict[str, Any] = {"do_sample": False, "repetition_penalty": 1.0, "max_new_tokens": max_tokens}
    if stop is not None:
        options |= {"stop_strings": [stop], "tokenizer": processor.tokenizer}
    together = accelerate.PartialState().num_processes > 1
    with torch.no_grad():  # inference_mode would leave its tensors in weights that FSDP shards
        written = model.generate(**inputs, **options, synced_gpus=together)
    texts: list[str] = processor.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def mean_ciou(figures: Mapping[str, Figures]) -> float:
    """Return the mean cIoU over variants."""
    return sum(item.ciou for item in figures.values()) / len(figures)


def mean_tokens(figures: Mapping[str, Figures]) -> float:
    """Return the mean number of rationale tokens over variants."""
    return sum(item.rationale_tokens for item in figures.values()) / len(figures)


def _box_overlap(a: Box, b: Box) -> tuple[float, float]:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inner = max(0, width) * max(0, height)
    return float(inner), float(_area(a) + _area(b) - inner)


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _chunks(indices: range, size: int) -> Iterator[range]:
    return (indices[start : start + size] for start in range(0, len(indices), size))
