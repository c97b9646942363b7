"""The memory of a segmenter over four graphs, after SAM 2's video predictor.

Source: https://github.com/facebookresearch/sam2/blob/main/sam2/modeling/sam2_base.py; the tests compare it with
transformers' `Sam2VideoModel` and `EdgeTamVideoModel`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wise_edge.runtimes.base import Graph, MaskPrompt, RememberedMask
from wise_edge.runtimes.mask.bank import ObjectBank, stack
from wise_edge.runtimes.mask.calls import split_prompts
from wise_edge.runtimes.mask.objects import ObjectMemory
from wise_edge.sam.video.memory import MOST_OBJECTS, NO_OBJECT, MemorySpec

if TYPE_CHECKING:
    from wise_edge.runtimes.mask.graph import GraphMask, GraphMaskImage

_NO_POINT = -1.0  # of point_labels


class GraphMemory(ObjectMemory["GraphMaskImage"]):
    """Follows objects with a segmenter's graphs.

    Args:
        mask: the segmenter, whose decoder also returns object_scores float32 [P] and object_pointers float32
            [P, 4, C].
        spec: how much is remembered.
        attention: image_embeddings, memory, memory_age, pointers and pointer_age to conditioned_embeddings.
        encoder: image_embeddings, low_res_masks, object_scores and is_prompted to memory.
    """

    def __init__(self, mask: GraphMask, spec: MemorySpec, attention: Graph, encoder: Graph) -> None:
        super().__init__()
        self._mask = mask
        self._spec = spec
        self._attention = attention
        self._encoder = encoder
        self._most = min(MOST_OBJECTS, attention.largest("memory", 0) or MOST_OBJECTS)
        self._banks: dict[int, ObjectBank] = {}

    def _start(self, encoded: GraphMaskImage, prompts: Mapping[int, MaskPrompt]) -> dict[int, RememberedMask]:
        numbers = iter(prompts)
        alone = [replace(prompt, previous=None) for prompt in prompts.values()]
        found: dict[int, RememberedMask] = {}
        for call in split_prompts(alone, self._most):
            start = perf_counter()
            outputs = self._mask.decode_call(encoded, call)
            points = len(call[0].points) + (0 if call[0].box is None else 2)
            least, most = self._spec.multimask_points
            of_call = [next(numbers) for _ in call]
            found |= self._remember(encoded, of_call, outputs, least <= points <= most, start, prompted=True)
        return found

    def _find(self, encoded: GraphMaskImage, numbers: Sequence[int]) -> dict[int, RememberedMask]:
        found: dict[int, RememberedMask] = {}
        for place in range(0, len(numbers), self._most):
            start, call = perf_counter(), numbers[place : place + self._most]
            outputs = self._mask.run_decoder(
                {**encoded.features, "image_embeddings": self._recall(encoded, call)},
                np.zeros((len(call), 1, 2), np.float32),
                np.full((len(call), 1), _NO_POINT, np.float32),
            )
            found |= self._remember(encoded, call, outputs, self._spec.multimask_following, start, prompted=False)
        return found

    def _drop(self, number: int) -> None:
        del self._banks[number]

    def _recall(self, encoded: GraphMaskImage, numbers: Sequence[int]) -> Any:
        """Return the image as the memories of objects let it be seen, [B, C, G, G]."""
        banks = [self._banks[number] for number in numbers]
        memory, memory_age = stack([bank.list_memories(self.time) for bank in banks], self._spec.frames)
        pointers, pointer_age = stack([bank.list_pointers(self.time) for bank in banks], self._spec.pointers)
        seen = self._attention.run(
            {
                "image_embeddings": encoded.features["image_embeddings"],
                "memory": memory,
                "memory_age": memory_age,
                "pointers": pointers,
                "pointer_age": pointer_age,
            }
        )
        return seen["conditioned_embeddings"]

    def _remember(
        self,
        encoded: GraphMaskImage,
        numbers: Sequence[int],
        outputs: Mapping[str, npt.NDArray[np.float32]],
        multimask: bool,
        start_s: float,
        *,
        prompted: bool,
    ) -> dict[int, RememberedMask]:
        """Choose a mask for each object, and remember it."""
        rows, scores, visible = np.arange(len(numbers)), outputs["iou_predictions"], outputs["object_scores"]
        chosen = 1 + scores[:, 1:].argmax(axis=1) if multimask else np.zeros(len(numbers), np.int64)
        logits = outputs["low_res_masks"][rows, chosen]
        logits = np.where(visible[:, None, None] > 0, logits, np.float32(NO_OBJECT))
        memory = self._encoder.run(
            {
                "image_embeddings": encoded.features["image_embeddings"],
                "low_res_masks": logits[:, None],
                "object_scores": visible,
                "is_prompted": np.full(len(numbers), prompted, np.float32),
            }
        )["memory"]
        share_ms = (perf_counter() - start_s) * 1e3 / len(numbers)
        found: dict[int, RememberedMask] = {}
        for row, number in enumerate(numbers):
            bank = self._banks.setdefault(number, ObjectBank(self._spec))
            bank.add(self.time, memory[row], outputs["object_pointers"][row, chosen[row]], prompted)
            output = self._mask.enlarge(encoded, logits[row], float(scores[row, chosen[row]]), share_ms)
            found[number] = RememberedMask(**vars(output), object_score=float(visible[row]))
        return found
