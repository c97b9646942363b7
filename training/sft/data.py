"""Batches for supervised training: one background process makes scenes on the fly.

The batch of a step depends on (seed, step) alone, so a resumed run takes the same steps. Batches are drawn in pools:
the samples of a pool are sorted by length and cut into batches, which are shuffled. This keeps padding short.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from wise_edge.geometry import scale_box
from wise_edge.policy.image import resize
from wise_edge.policy.prompts import EMBEDDED
from wise_edge.scenes import KINDS, SHAPES, Sample, completion, sample
from wise_edge.training.common.background import stream_items
from wise_edge.training.sft.config import LIST, SftConfig
from wise_edge.training.sft.layers import Prefix
from wise_edge.training.sft.model import image_tokens
from wise_edge.training.sft.tokenizer import token_id

LIST_QUERY = "list all objects"
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": tuple(kind.name for kind in SHAPES.kinds),
    "color": tuple(name for name, _ in SHAPES.colors),
    "size": tuple(name for name, _ in SHAPES.sizes),
    "texture": SHAPES.textures,
}
"""Attribute that the dense heads classify -> its values."""


@dataclass(frozen=True)
class Batch:
    """The data of one step: B images of side S, T tokens, C cells of the grid of image tokens."""

    step: int
    """Index of the step, from 0."""
    images: npt.NDArray[np.uint8]
    """[B, S, S, 3], RGB."""
    ids: npt.NDArray[np.int64]
    """[B, T], prefix, query and response, padded on the right; only the prefix if no text is trained."""
    weights: npt.NDArray[np.float32]
    """[B, T], weight of each token's loss; 0 for prompt and padding."""
    classes: npt.NDArray[np.int64]
    """[B, C, 4], index of each of `ATTRIBUTES` of the object with its center in a cell; -1 if there is none."""
    boxes: npt.NDArray[np.float32]
    """[B, C, 4], XYXY of those objects, fractions of the image's side."""


@dataclass(frozen=True)
class Example:
    """One sample as token ids and arrays; see `Batch`."""

    image: npt.NDArray[np.uint8]
    prompt: list[int]
    response: list[int]
    weights: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]


def make_prefix(tokenizer: Tokenizer, config: SftConfig) -> Prefix:
    """Return the embedded prompt's prefix as token ids."""
    count = image_tokens(config.model)
    ids = tokenizer.encode(EMBEDDED.parts(LIST_QUERY, EMBEDDED.default_variant).prefix(count)).ids
    return Prefix(tuple(ids), ids.index(token_id(tokenizer, "<|image_pad|>")), count)


def list_text(labeled: Sample, rng: Random, size: int) -> str:
    """Name every object of a scene and its box, in random order: "small red ring [12, 30, 40, 58]; ..."."""
    source, target = (labeled.scene.side, labeled.scene.side), (size, size)
    objects = list(labeled.scene.objects)
    rng.shuffle(objects)
    return "; ".join(f"{item.describe()} {list(scale_box(item.box, source, target))}" for item in objects)


def task_texts(
    labeled: Sample, task: str, rng: Random, size: int, weights: Mapping[str, Sequence[float]]
) -> tuple[str, str]:
    """Return the text after the prefix and the response of one sample.

    Args:
        labeled: the sample.
        task: a prompt variant, or "list".
        rng: draws the order of the list and the length of the rationale.
        size: side of the resized square of the coordinates, px.
        weights: weights of the rationale's lengths, by variant.
    """
    if task == LIST:
        return EMBEDDED.parts(LIST_QUERY, "answer").rest, list_text(labeled, rng, size)
    return EMBEDDED.parts(labeled.request, task).rest, completion(labeled, task, rng, size, weights)


def choice_spans(labeled: Sample, text: str) -> list[tuple[int, int]]:
    """Return where a rationale chooses an object, as spans of characters.

    There it names the target or the object that the query refers to, place first (the list of all objects names places
    last), or the attribute that only the target has: "the other yellow one is".
    """
    chosen = [labeled.target]
    if labeled.query.anchor is not None:
        chosen.append(labeled.scene.objects[labeled.query.anchor])
    names = "|".join(f"{re.escape(item.place)}(?:, the|:) {re.escape(item.describe())}" for item in chosen)
    patterns = (rf"[Aa]t the ({names})", r"The (?:other|only) (\w+)(?: one)? is\b")
    return [match.span(1) for pattern in patterns for match in re.finditer(pattern, text)]


def dense_targets(labeled: Sample, side: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return classes [side * side, 4] and boxes [side * side, 4] of a grid of cells; see `Batch`.

    If two objects share a cell, the larger one counts.
    """
    classes = np.full((side * side, len(ATTRIBUTES)), -1, np.int64)
    boxes = np.zeros((side * side, 4), np.float32)
    for item in sorted(labeled.scene.objects, key=lambda item: item.area_px):
        column, row = (min(int(value * side), side - 1) for value in item.center)
        cell = row * side + column
        classes[cell] = [values.index(getattr(item, name)) for name, values in ATTRIBUTES.items()]
        boxes[cell] = np.asarray(item.box, np.float32) / labeled.scene.side
    return classes, boxes


class BatchPools:
    """The pools of a training by index: a map-style dataset.

    Args:
        config: the training.
        tokenizer: the policy's tokenizer.
    """

    def __init__(self, config: SftConfig, tokenizer: Tokenizer) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self._prefix = make_prefix(tokenizer, config)
        self._digits = np.array([token_id(tokenizer, str(digit)) for digit in range(10)])
        self._end = token_id(tokenizer, "<|im_end|>")
        self.spans = pool_spans(config)

    def __len__(self) -> int:
        """Return the number of pools."""
        return len(self.spans)

    def __getitem__(self, index: int) -> list[Batch]:
        """Make the batches of one pool, in the order of their steps."""
        start, stop = self.spans[index]
        size = self._config.batch_size
        examples = [self._example(i, start) for i in range(start * size, stop * size)]
        examples.sort(key=lambda example: len(example.prompt) + len(example.response))
        order = list(range(stop - start))
        Random(f"{self._config.seed}/order/{start}").shuffle(order)
        return [
            self._collate(start + step, examples[place * size : (place + 1) * size]) for step, place in enumerate(order)
        ]

    def _example(self, index: int, step: int) -> Example:
        config = self._config
        rng = Random(f"{config.seed}/{index}")
        kind = rng.choices(range(len(KINDS)), [config.kind_weights[kind] for kind in KINDS])[0]
        labeled = sample("train", config.first_scene + index * len(KINDS) + kind)  # kinds take turns by index
        image = resize(labeled.scene.image, (config.model.image_size, config.model.image_size))
        classes, boxes = dense_targets(labeled, int(self._prefix.image_count**0.5))
        prompt, response, weights = list(self._prefix.ids), list[int](), np.zeros(0, np.float32)
        if mixture := mixture_at(config, step):
            task = rng.choices(list(mixture), list(mixture.values()))[0]
            levels = config.phases[phase_at(config, step)[0]].level_weights
            suffix, text = task_texts(labeled, task, rng, config.model.image_size, levels)
            prompt += self._tokenizer.encode(suffix).ids
            encoding = self._tokenizer.encode(text)
            response = [*encoding.ids, self._end]
            weights = self._weigh(response, encoding.offsets, choice_spans(labeled, text))
        return Example(image, prompt, response, weights, classes, boxes)

    def _weigh(
        self, response: list[int], offsets: list[tuple[int, int]], spans: list[tuple[int, int]]
    ) -> npt.NDArray[np.float32]:
        weights = np.where(np.isin(response, self._digits), self._config.digit_weight, 1.0).astype(np.float32)
        for place, (start, stop) in enumerate(offsets):
            if any(start < end and begin < stop for begin, end in spans):
                weights[place] = self._config.choice_weight
        return weights

    def _collate(self, step: int, examples: list[Example]) -> Batch:
        length = max(len(example.prompt) + len(example.response) for example in examples)
        ids = np.full((len(examples), length), self._end, np.int64)
        weights = np.zeros((len(examples), length), np.float32)
        for row, example in enumerate(examples):
            start, stop = len(example.prompt), len(example.prompt) + len(example.response)
            ids[row, :stop] = example.prompt + example.response
            weights[row, start:stop] = example.weights
        return Batch(
            step,
            np.stack([example.image for example in examples]),
            ids,
            weights,
            np.stack([example.classes for example in examples]),
            np.stack([example.boxes for example in examples]),
        )


def pool_spans(config: SftConfig) -> list[tuple[int, int]]:
    """Return the half-open span of steps of each pool; no pool crosses the boundary of a phase."""
    spans, start = [], 0
    for phase in config.phases:
        stop = start + phase.steps
        spans += [(i, min(i + config.pool_batches, stop)) for i in range(start, stop, config.pool_batches)]
        start = stop
    return spans


def phase_at(config: SftConfig, step: int) -> tuple[int, int]:
    """Return the index of the phase of a step, and the step's position in it."""
    for index, phase in enumerate(config.phases):
        if step < phase.steps:
            return index, step
        step -= phase.steps
    return len(config.phases) - 1, config.phases[-1].steps


def mixture_at(config: SftConfig, step: int) -> dict[str, float]:
    """Return the weights of the text tasks at a step, blended with the previous phase."""
    index, place = phase_at(config, step)
    phase = config.phases[index]
    before = config.phases[index - 1].mixture if index else {}
    if not before or place >= phase.blend_steps:
        return dict(phase.mixture)
    share = place / phase.blend_steps
    old, new = sum(before.values()), sum(phase.mixture.values())
    tasks = dict.fromkeys([*before, *phase.mixture])
    return {t: (1 - share) * before.get(t, 0.0) / old + share * phase.mixture.get(t, 0.0) / new for t in tasks}


def stream_batches(config: SftConfig, tokenizer: Tokenizer, start_step: int) -> Iterator[Batch]:
    """Yield the batch of each step from `start_step` on; one background process makes them."""
    pools = BatchPools(config, tokenizer)
    first = next((i for i, (_, stop) in enumerate(pools.spans) if stop > start_step), len(pools))
    made: Iterator[list[Batch]] = stream_items(pools, first, ahead=2)
    for pool in made:
        yield from (batch for batch in pool if batch.step >= start_step)
