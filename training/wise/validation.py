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
from wise_edge.geometry import Size, scale_box, scale_point, unite
from wise_edge.metrics import boxes_iou, giou_ciou, mask_overlap
from wise_edge.policy.answers.answer import Answer, AnsweredObject
from wise_edge.policy.answers.completion import split_completion
from wise_edge.policy.answers.tolerant import parse_answer
from wise_edge.sam.segment_anything import load as load_sam
from wise_edge.training.wise.config import ValidationConfig
from wise_edge.training.wise.data import Selection, square_image, true_objects
from wise_edge.training.wise.policy import StartPolicy


@dataclass(frozen=True)
class Figures:
    """Figures of one variant: fractions, and a token count.

    Attributes:
        ciou: summed intersection over summed union of masks, or of boxes if no SAM is used.
        giou: mean IoU of the same masks or boxes.
        box_accuracy: share of samples whose box IoU is above 0.5; of several objects every box's, and none is missing.
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
        self._frame = start.frame
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
            self._truth(self.data[index])
        except UsageError as error:
            print(f"warning: {error}; validation skips it", file=sys.stderr)
            return False
        return True

    def _score(self, model: Any, variant: str, indices: Sequence[int]) -> Iterator[tuple[float, ...]]:
        """Yield intersection, union, box accuracy, validity and rationale tokens of each sample."""
        examples = [self.data[index] for index in indices]
        form = self._start.form
        texts = decode_greedily(model, self._start, examples, variant, self._config.max_tokens, form.after)
        for example, text in zip(examples, texts, strict=True):
            answer = parse_answer(text, form, self._frame).answer
            rationale = split_completion(text).rationale or ""
            overlap = self._overlap(example, answer)
            truth = [item.box for item in self._truth(example)]
            right = answer is not None and boxes_iou([item.box for item in answer.objects], truth) > 0.5
            tokens = len(self._start.processor.tokenizer(rationale)["input_ids"])
            yield *overlap, float(right), float(answer is not None), float(tokens)

    def _truth(self, example: Example) -> tuple[AnsweredObject, ...]:
        return true_objects(example, self._frame, self._start.form)

    def _overlap(self, example: Example, answer: Answer | None) -> tuple[float, float]:
        """Return intersection and union of the masks, or of the boxes if there are none."""
        size, truth, found = self._frame.size, example.mask, None
        if self._segment is None or truth is None:
            truth = _fill(self._truth(example), size)
            found = None if answer is None else _fill(answer.objects, size)
        elif answer is not None:
            found = self._segment(example.image, answer.objects, size)
        if found is None:
            return 0.0, max(1.0, float(np.count_nonzero(truth)))  # never right, not even where nothing is meant
        return mask_overlap(found, truth)


class _Segmenter:
    """segment-anything on the CPU or the GPU of this process."""

    def __init__(self, folder: Path) -> None:
        device = accelerate.PartialState().device
        self._predictor = segment_anything.SamPredictor(load_sam(folder).to(device))

    def __call__(
        self, image: npt.NDArray[np.uint8], objects: Sequence[AnsweredObject], frame: Size
    ) -> npt.NDArray[np.bool_]:
        """Return the union of the objects' masks."""
        size = (image.shape[1], image.shape[0])
        if objects:
            self._predictor.set_image(image)
        return unite((self._mask(item, frame, size) for item in objects), size)

    def _mask(self, item: AnsweredObject, frame: Size, size: Size) -> npt.NDArray[np.bool_]:
        points = [scale_point(point, frame, size) for point in item.points]
        masks, _, _ = self._predictor.predict(
            point_coords=np.array(points, np.float32),
            point_labels=np.ones(len(points), np.int64),
            box=np.array(scale_box(item.box, frame, size), np.float32),
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


def _fill(objects: Sequence[AnsweredObject], size: Size) -> npt.NDArray[np.bool_]:
    """Return a mask of the objects' boxes, bool, H x W of a size (width, height)."""
    mask = np.zeros(size[::-1], np.bool_)
    for x1, y1, x2, y2 in (item.box for item in objects):
        mask[y1:y2, x1:x2] = True
    return mask


def _chunks(indices: range, size: int) -> Iterator[range]:
    return (indices[start : start + size] for start in range(0, len(indices), size))
