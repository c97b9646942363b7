"""transformers' own video models, to hold memories against: one session for each object, streamed frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from tiny_video_models import SIDE
from wise_edge.runtimes.base import MaskPrompt


class StockVideo:
    """Follows objects with `forward` of a video model, in a session for each, to which prompts are given as it asks.

    One session for all would round the masks of every object on a frame where one of them has a prompt.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._sessions: dict[int, Any] = {}
        self._processor = transformers.Sam2VideoProcessor(
            transformers.Sam2ImageProcessor(size={"height": SIDE, "width": SIDE}),
            transformers.Sam2VideoVideoProcessor(size={"height": SIDE, "width": SIDE}),
        )

    def run(
        self, frame: npt.NDArray[np.uint8], time: int, prompts: Mapping[int, MaskPrompt]
    ) -> dict[int, tuple[npt.NDArray[np.float32], float]]:
        """Return the mask's logits [L, L] and the object's score of each object on the next frame."""
        for number in prompts:
            self._sessions.setdefault(number, self._processor.init_video_session(dtype=torch.float32))
        return {number: self._step(number, frame, time, prompts.get(number)) for number in self._sessions}

    def _step(
        self, number: int, frame: npt.NDArray[np.uint8], time: int, prompt: MaskPrompt | None
    ) -> tuple[npt.NDArray[np.float32], float]:
        session = self._sessions[number]
        inputs = self._processor(images=frame, return_tensors="pt")
        if prompt is not None:
            self._processor.add_inputs_to_inference_session(
                session, time, number,
                input_points=[[[list(point) for point in prompt.points]]] if prompt.points else None,
                input_labels=[[[1] * len(prompt.points)]] if prompt.points else None,
                input_boxes=None if prompt.box is None else [[list(prompt.box)]],
                original_size=frame.shape[:2],
            )  # fmt: skip
        found = self._model(session, frame_idx=time, frame=inputs["pixel_values"][0])
        return found.pred_masks[0, 0].numpy(), float(found.object_score_logits)
