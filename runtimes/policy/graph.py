"""A Qwen-VL policy over graphs: a vision tower for each grid of an image, and a language model with explicit cache.

The backend keeps the keys and values of what stands before an image, an encoded image those up to the query; a query
pays for its own words and the completion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.bundle.roles import DECODER, EMBEDDING, TOKENIZER
from wise_edge.bundle.store import Bundle
from wise_edge.errors import BundleError, UsageError
from wise_edge.files.mapped import is_mapped
from wise_edge.native.loading import loading
from wise_edge.policy.graph_io import (
    DEEPSTACK,
    Batch,
    deepstack_rows,
    empty_cache,
    image_patches,
    next_cache,
    vision_graphs,
)
from wise_edge.policy.picture import Grid
from wise_edge.policy.spec import PolicySpec
from wise_edge.runtimes.base import Graph, PolicyOutput, Request
from wise_edge.runtimes.policy.common import BasePolicy
from wise_edge.runtimes.policy.prompt import Prefix, common_length, image_positions, text_positions
from wise_edge.runtimes.policy.writing import Writer


@dataclass(eq=False)
class GraphPolicyImage:
    """What the vision tower returned for an image, and its keys and values behind the words of the latest prefix."""

    grid: Grid
    features: Batch
    preprocess_ms: float
    vision_encode_ms: float
    prefill_ms: float = 0.0
    prefix: Prefix | None = None
    cache: Batch = field(default_factory=dict)


class GraphPolicy(BasePolicy):
    """Runs a policy's graphs.

    Args:
        name: backend name.
        spec: the policy.
        vision: for each grid of image tokens pixel_values to image_embeds, and for Qwen3-VL to deepstack_embeds.
        decoder: inputs_embeds, position_ids, past keys and values, and for Qwen3-VL deepstack_embeds to logits and
            present keys and values.
        embedding: token embedding, a float array [vocabulary, hidden], as .npy.
        tokenizer: tokenizer.json.
    """

    def __init__(
        self,
        name: str,
        spec: PolicySpec,
        vision: Mapping[Grid, Graph],
        decoder: Graph,
        embedding: Path,
        tokenizer: Path,
    ) -> None:
        super().__init__(name, spec, tokenizer)
        self._vision = vision
        self._decoder = decoder
        self._embedding = _open_embedding(embedding, self._text.vocabulary, spec.hidden_size)
        self._writer = Writer(self._text, spec)
        self._system: tuple[tuple[int, ...], Batch] | None = None  # tokens before the image, their keys and values

    @classmethod
    def of_bundle(
        cls, name: str, bundle: Bundle, pixels: int | None, open_graph: Callable[[str], Graph]
    ) -> GraphPolicy:
        """Run a bundle's policy on graphs that are opened by their roles.

        Raises:
            BundleError: the bundle lists no grids.
            UsageError: none of them has as few pixels as asked for.
        """
        if not bundle.manifest.policy.grids:
            raise BundleError(f"{bundle.directory} lists no grids of images for its graphs; export it again")
        spec = cls._limit(bundle.manifest.policy, pixels)
        vision = _VisionGraphs(vision_graphs(spec), open_graph)
        vision[spec.grids[0]]  # what is wrong with the graphs is found before the first image
        return cls(name, spec, vision, open_graph(DECODER), bundle.file(EMBEDDING), bundle.file(TOKENIZER))

    def encode(self, image: npt.NDArray[np.uint8], pixels: int | None = None) -> GraphPolicyImage:
        """Prepare an image for queries, see `PolicyBackend`; budgets choose among the grids that were exported."""
        spec = self._within(pixels)
        grid = spec.grid_of(image)
        graph = self._vision[grid]
        start = perf_counter()
        patches = image_patches(image, spec)
        prepared = perf_counter()
        features = graph.run({"pixel_values": patches})
        seen = perf_counter()
        encoded = GraphPolicyImage(grid, features, (prepared - start) * 1e3, (seen - prepared) * 1e3)
        if prefix := self._text.prefix(self._variant, grid):
            self._prefill(encoded, prefix)
            encoded.prefill_ms = (perf_counter() - seen) * 1e3
        return encoded

    def generate(self, encoded: GraphPolicyImage, request: Request) -> PolicyOutput:
        """Write greedily; see `PolicyBackend`."""
        start = perf_counter()
        prompt = self._prompt(request, encoded.grid)
        cache, position = self._prefill(encoded, prompt.prefix), prompt.prefix.end

        def run(tokens: Sequence[int]) -> npt.NDArray[np.float32]:
            nonlocal cache, position
            logits, cache = self._run(self._embed(tokens), text_positions(position, len(tokens)), cache)
            position += len(tokens)
            return logits

        return self._writer.write(run, prompt, request).output(self._text, prompt, start)

    @staticmethod
    def _limit(spec: PolicySpec, pixels: int | None) -> PolicySpec:
        fewer = spec.within(pixels)
        if not set(fewer.grids) <= set(spec.grids):
            raise UsageError(
                f"the bundle's graphs take {spec.picture}, whatever pixels says; choose llama or torch, or export it "
                "again with --pixels"
            )
        return fewer

    def _prefill(self, encoded: GraphPolicyImage, prefix: Prefix) -> Batch:
        """Return the keys and values of a prompt's beginning; the image keeps them for the next query."""
        held, encoded.prefix = encoded.prefix, None
        if held != prefix:
            if held is not None and held.before == prefix.before and _on_host(encoded.cache):
                self._change_words(encoded, held, prefix)
            else:
                self._prefill_image(encoded, prefix)
        encoded.prefix = prefix
        return encoded.cache

    def _change_words(self, encoded: GraphPolicyImage, held: Prefix, prefix: Prefix) -> None:
        """Replace the words between image and query."""
        kept = common_length(held.after, prefix.after)
        tokens = held.length - len(held.after) + kept
        encoded.cache = {name: array[:, :, :tokens] for name, array in encoded.cache.items()}
        if more := prefix.after[kept:]:
            positions = text_positions(prefix.image_end + kept, len(more))
            encoded.cache = self._run(self._embed(more), positions, encoded.cache)[1]

    def _prefill_image(self, encoded: GraphPolicyImage, prefix: Prefix) -> None:
        if self._system is None or self._system[0] != prefix.before:
            rows, positions = self._embed(prefix.before), text_positions(0, len(prefix.before))
            self._system = prefix.before, self._run(rows, positions, empty_cache(self._spec))[1]
        places = [
            image_positions(len(prefix.before), prefix.grid),
            text_positions(prefix.image_end, len(prefix.after)),
        ]
        rows = np.concatenate([encoded.features["image_embeds"][None], self._embed(prefix.after)], axis=1)
        deeper = encoded.features.get(DEEPSTACK)
        encoded.cache = self._run(rows, np.concatenate(places, axis=2), self._system[1], deeper)[1]

    def _run(
        self,
        embeds: npt.NDArray[np.float32],
        positions: npt.NDArray[np.int64],
        cache: Batch,
        deeper: npt.NDArray[np.float32] | None = None,
    ) -> tuple[npt.NDArray[np.float32], Batch]:
        """Run the language model on a cache; return the last token's logits and the longer cache.

        `deeper` are the deeper features of the image that the tokens begin with.
        """
        deepstack = deepstack_rows(self._spec, embeds.shape[1], deeper)
        outputs = self._decoder.run({"inputs_embeds": embeds, "position_ids": positions, **cache, **deepstack})
        return outputs["logits"][0, -1], next_cache(outputs, self._spec.num_layers)

    def _embed(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        rows: npt.NDArray[np.float32] = self._embedding[list(ids)][None].astype(np.float32)
        return rows


class _VisionGraphs(dict[Grid, Graph]):
    """The vision tower's graphs, each opened when its first image comes: a camera needs but one of them."""

    def __init__(self, roles: Mapping[Grid, str], open_graph: Callable[[str], Graph]) -> None:
        super().__init__()
        self._roles = roles
        self._open_graph = open_graph

    def __missing__(self, grid: Grid) -> Graph:
        graph = self[grid] = self._open_graph(self._roles[grid])
        return graph


def _on_host(cache: Batch) -> bool:
    return all(isinstance(array, np.ndarray) for array in cache.values())


def _open_embedding(file: Path, vocabulary: int, hidden_size: int) -> npt.NDArray[Any]:
    """Open a table of at least `vocabulary` rows, mapped first: numpy then compares its size with the file's."""
    remedy = "export the bundle again"
    with loading(file, "an array", remedy, error=BundleError):
        table: npt.NDArray[Any] = np.lib.format.open_memmap(file, mode="r")
        if not is_mapped(file):
            table = np.array(table)
    if table.ndim != 2 or table.shape[1] != hidden_size or len(table) < vocabulary or table.dtype.kind != "f":
        raise BundleError(
            f"{file} has {table.dtype} {list(table.shape)}, the policy has {vocabulary} tokens and is {hidden_size} "
            f"wide; {remedy}"
        )
    return table
