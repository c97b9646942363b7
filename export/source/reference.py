"""Answers of a policy's checkpoint in torch, in float32: the reference that exports are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from wise_edge.export.source.calibration import CalibrationSample
from wise_edge.native.tokenizer import open_tokenizer
from wise_edge.policy.graph_io import Batch, deepstack_rows, empty_cache, patch_grid, picture_patches
from wise_edge.policy.image import fit_picture, resize
from wise_edge.policy.picture import Grid
from wise_edge.policy.spec import PolicySpec

MAX_ANSWER_TOKENS = 256
"""Where an answer of the reference ends if no end token comes; the runtimes allow more, comparisons need no more."""


@dataclass(frozen=True)
class Reference:
    """One greedy answer, token by token.

    Attributes:
        name: the sample's.
        image: HWC uint8 RGB, the image in the policy's size.
        grid: columns and rows of its tokens.
        before: tokens before the image.
        after: tokens between the image and the answer.
        completion: the answer's tokens.
        logits: float32 [completion, vocabulary], from which each of them was chosen.
    """

    name: str
    image: npt.NDArray[np.uint8]
    grid: Grid
    before: list[int]
    after: list[int]
    completion: list[int]
    logits: npt.NDArray[np.float32]

    @property
    def image_tokens(self) -> int:
        """Tokens of the image."""
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> int:
        """Tokens of prompt and answer, the image's included."""
        return len(self.before) + self.image_tokens + len(self.after) + len(self.completion)


class TorchReference:
    """Answers with a checkpoint.

    Args:
        model: transformers' model of any of the families, float32.
        spec: the policy.
        tokenizer: tokenizer.json.
    """

    def __init__(self, model: Any, spec: PolicySpec, tokenizer: Path) -> None:
        self.model = model
        self._spec = spec
        self._tokenizer = open_tokenizer(tokenizer)
        self._eos = [self._tokenizer.token_to_id(token) for token in spec.eos_tokens]

    def answer(self, sample: CalibrationSample) -> Reference:
        """Answer greedily under the policy's default variant."""
        spec = self._spec
        image, grid = fit_picture(sample.image, spec), spec.grid_of(sample.image)
        image_tokens = grid[0] * grid[1]
        ids = self._encode(spec.prompts.render(sample.query, spec.default_variant, image_tokens))
        start = ids.index(self.model.config.image_token_id)
        with torch.no_grad():
            output = self.model.generate(
                **self._inputs(ids, image),
                attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
                do_sample=False,
                max_new_tokens=min(MAX_ANSWER_TOKENS, spec.max_positions - len(ids)),
                eos_token_id=self._eos,
                pad_token_id=self._eos[0],
                output_logits=True,
                return_dict_in_generate=True,
            )
        completion = output.sequences[0, len(ids) :].tolist()
        logits = torch.cat(output.logits).numpy()
        return Reference(sample.name, image, grid, ids[:start], ids[start + image_tokens :], completion, logits)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=False)
        return text

    def repeat(self, reference: Reference) -> torch.Tensor:
        """Run the model once over a prompt and its answer; return its logits float32 [tokens, vocabulary]."""
        placeholder = self.model.config.image_token_id
        written = [token for token in reference.completion if token != placeholder]  # no embedding belongs to that one
        ids = [*reference.before, *[placeholder] * reference.image_tokens, *reference.after, *written]
        with torch.no_grad():
            logits: torch.Tensor = self.model(**self._inputs(ids, reference.image)).logits[0]
        return logits

    def graph_inputs(self, reference: Reference) -> tuple[Batch, Batch]:
        """Return the inputs of vision tower and language model for a prompt and its answer, named as in their graphs.

        The language model's cache is empty: it gets all tokens at once.
        """
        seen: dict[str, Any] = {}
        language = self.model.model.language_model
        hook = language.register_forward_pre_hook(lambda *call: seen.update(call[2]), with_kwargs=True)
        try:
            self.repeat(reference)
        finally:
            hook.remove()
        positions = seen["position_ids"][-3:].numpy()  # transformers may prepend the tokens' places
        embeds, deeper = seen["inputs_embeds"].numpy(), seen.get("deepstack_visual_embeds")
        features = None if deeper is None else torch.stack(list(deeper)).numpy()
        return vision_inputs(self._spec, reference, reference.grid), {
            "inputs_embeds": embeds,
            "position_ids": positions,
            **empty_cache(self._spec),
            **deepstack_rows(self._spec, embeds.shape[1], features, start=len(reference.before)),
        }

    def _inputs(self, ids: Sequence[int], image: npt.NDArray[np.uint8]) -> dict[str, Any]:
        columns, rows = patch_grid(self._spec, self._spec.image_grid(image.shape[1::-1]))
        tokens = torch.tensor([ids])
        return {
            "input_ids": tokens,
            "pixel_values": torch.from_numpy(picture_patches(image, self._spec)),
            "image_grid_thw": torch.tensor([[1, rows, columns]]),
            "mm_token_type_ids": (tokens == self.model.config.image_token_id).int(),
        }

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def vision_inputs(spec: PolicySpec, reference: Reference, grid: Grid) -> Batch:
    """Return the inputs of the vision tower's graph for a prompt's image, stretched to a grid of tokens."""
    return {"pixel_values": picture_patches(resize(reference.image, spec.grid_size(grid)), spec)}
