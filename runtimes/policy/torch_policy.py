"""A Qwen-VL policy on torch, through transformers: the reference that graphs are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wise_edge.bundle.store import Bundle
from wise_edge.extras import require
from wise_edge.policy.checkpoint import load_policy, read_policy_spec
from wise_edge.policy.graph_io import image_patches
from wise_edge.policy.picture import Grid
from wise_edge.policy.spec import PolicySpec
from wise_edge.runtimes.backends import Backend
from wise_edge.runtimes.base import PolicyOutput, Request
from wise_edge.runtimes.checkpoints import find_checkpoint
from wise_edge.runtimes.policy.common import BasePolicy
from wise_edge.runtimes.policy.prompt import Prefix
from wise_edge.runtimes.policy.writing import Writer

if TYPE_CHECKING:
    from torch import Tensor


def open_policy(bundle: Bundle, row: Backend, *, pixels: int | None = None, **_: Any) -> TorchPolicy:
    """Open the checkpoint of a bundle's policy; see `wise_edge.runtimes.backends.Support`."""
    return TorchPolicy(find_checkpoint(bundle, "policy"), bundle.manifest.policy.within(pixels))


@dataclass(frozen=True)
class TorchPolicyImage:
    """An image's embeddings, and those that Qwen3-VL adds in its first layers; each query runs the complete prompt."""

    grid: Grid
    patches: Tensor
    embeds: Tensor
    deeper: list[Tensor]
    preprocess_ms: float
    vision_encode_ms: float
    prefill_ms: float = 0.0


class TorchPolicy(BasePolicy):
    """Runs a policy's checkpoint, on a GPU if torch finds one.

    Args:
        folder: Hugging Face folder with `prompts.json`.
        spec: what the policy expects, if the folder's own account does not count, as with a bundle that was told.

    Raises:
        UsageError: the folder is not such a folder.
        MissingExtraError: torch or transformers is not installed.
    """

    def __init__(self, folder: Path, spec: PolicySpec | None = None) -> None:
        super().__init__("torch", spec or read_policy_spec(folder), folder / "tokenizer.json")
        self._writer = Writer(self._text, self._spec)
        self.device = "cuda" if require("torch", "export").cuda.is_available() else "cpu"
        self._model = load_policy(folder, self.device)

    def encode(self, image: npt.NDArray[np.uint8], pixels: int | None = None) -> TorchPolicyImage:
        """Prepare an image for queries; see `PolicyBackend`."""
        torch = require("torch", "export")
        spec = self._within(pixels)
        start = perf_counter()
        patches = image_patches(image, spec)
        columns, rows = spec.grid_of(image)
        grid = torch.tensor([[1, rows * spec.merge_size, columns * spec.merge_size]], device=self.device)
        prepared = perf_counter()
        with torch.no_grad():
            seen = self._model.model.visual(torch.from_numpy(patches).to(self.device), grid_thw=grid)
        if self.device == "cuda":
            torch.cuda.synchronize()  # work on a GPU is queued; without waiting, it would count as prefill
        deeper = getattr(seen, "deepstack_features", None) or []
        return TorchPolicyImage(
            (columns, rows),
            grid,
            seen.pooler_output,
            deeper,
            (prepared - start) * 1e3,
            (perf_counter() - prepared) * 1e3,
        )

    def generate(self, encoded: TorchPolicyImage, request: Request) -> PolicyOutput:
        """Write greedily; see `PolicyBackend`."""
        torch = require("torch", "export")
        start = perf_counter()
        prompt = self._prompt(request, encoded.grid)
        cache, position = None, 0

        def run(tokens: Sequence[int]) -> npt.NDArray[np.float32]:
            nonlocal cache, position
            if cache is None:
                logits, cache, position = self._prefill(encoded, prompt.prefix, tokens)
                return logits
            embeds = self._model.get_input_embeddings()(torch.tensor([list(tokens)], device=self.device))
            places = torch.arange(position, position + len(tokens), device=self.device).expand(3, 1, -1)
            position += len(tokens)
            return self._run(embeds, places, cache)

        with torch.no_grad():
            return self._writer.write(run, prompt, request).output(self._text, prompt, start)

    def _prefill(
        self, encoded: TorchPolicyImage, prefix: Prefix, suffix: Sequence[int]
    ) -> tuple[npt.NDArray[np.float32], Any, int]:
        """Run the complete prompt; return the last token's logits, the cache and the position after the prompt."""
        torch = require("torch", "export")
        image_token = self._model.config.image_token_id
        ids = [*prefix.before, *[image_token] * prefix.image_tokens, *prefix.after, *suffix]
        tokens = torch.tensor([ids], device=self.device)
        is_image = tokens == image_token
        embeds = self._model.get_input_embeddings()(tokens)
        embeds = embeds.masked_scatter(is_image[..., None], encoded.embeds)
        positions, _ = self._model.model.get_rope_index(
            tokens, mm_token_type_ids=is_image.int(), image_grid_thw=encoded.patches
        )
        cache = require("transformers", "export").DynamicCache(config=self._model.config.text_config)
        deeper = {"visual_pos_masks": is_image, "deepstack_visual_embeds": encoded.deeper} if encoded.deeper else {}
        return self._run(embeds, positions, cache, **deeper), cache, int(positions.max()) + 1

    def _run(self, embeds: Tensor, positions: Tensor, cache: Any, **deeper: Any) -> npt.NDArray[np.float32]:
        output = self._model.model.language_model(
            inputs_embeds=embeds, position_ids=positions, past_key_values=cache, use_cache=True, **deeper
        )
        logits: npt.NDArray[np.float32] = self._model.lm_head(output.last_hidden_state[0, -1]).float().cpu().numpy()
        return logits
