"""Compares decoding on llama.cpp, with the shape of Qwen2.5-VL-3B: the paper's long rationale, and a short one forced.

    python benchmarks/llama_3b.py --scratch DIR [--type Q4_K_M] [--layers 36] [--threads N] [--json FILE]

Random weights, an image of 840 px (900 image tokens). The text is meaningless, so its length is set: a rationale of
112 tokens and an answer, one token per call, as in the reference; and a rationale of 23 tokens, then the answer forced
as in `runtimes/policy/writing.py`, with eight numbers of three digits. Times are by phase. Decoding reads every weight
once per token, so memory bandwidth bounds it: the same run measures that by summing an array larger than any cache,
with as many threads. DIR needs 15 GB; the checkpoint is created there and kept for later runs.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf_streaming import find_checkpoint

from wise_edge.export.to_gguf.convert import PolicyGguf
from wise_edge.export.to_gguf.quantize import quantize_gguf
from wise_edge.native.llama import LlamaModel
from wise_edge.policy.answers.completion import split_completion
from wise_edge.policy.checkpoint import read_policy_spec
from wise_edge.runtimes.base import Decoding, Request
from wise_edge.runtimes.policy.text import PolicyText
from wise_edge.runtimes.policy.writing import Writer

LONG, SHORT = 112, 23
"""Tokens of a rationale: Seg-Zero's and WISE-S's on ReasonSeg's test set (arXiv 2604.02040)."""
SIDE = 840


def make_files(scratch: Path, layers: int, kind: str) -> tuple[Path, Path, Path]:
    """Return checkpoint, language model and vision tower, created if they are missing."""
    checkpoint = find_checkpoint(scratch, layers)
    text, vision = scratch / f"text-{layers}-{kind}.gguf", scratch / f"vision-{layers}-F16.gguf"
    policy = PolicyGguf(checkpoint)
    if not vision.exists():
        policy.write_vision(vision.with_suffix(".part"), "F16", lambda *_: None)
        vision.with_suffix(".part").rename(vision)
    if not text.exists():
        whole = scratch / "text-F16.part"
        policy.write_text(whole, "F16", lambda *_: None)
        quantize_gguf(whole, text.with_suffix(".part"), kind)
        text.with_suffix(".part").rename(text)
        whole.unlink()
    return checkpoint, text, vision


def growing_text() -> Iterator[str]:
    """Yield texts, each a word longer than the last."""
    text = "The"
    for word in cycle(["red", "ring", "is", "at", "the", "left", "of", "a", "blue", "star,"]):
        yield text
        text += f" {word}"


def measure_bandwidth(threads: int, size: int = 1 << 30) -> float:
    """Return the bytes per second that threads read from memory, the best of five rounds."""
    parts = np.array_split(np.ones(size // 8, np.int64), threads)
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            start = perf_counter()
            list(pool.map(np.sum, parts))
            best = max(best, size / (perf_counter() - start))
    return best


class Scripted:
    """A language model that runs for timing only and returns logits of our own, which set the lengths."""

    def __init__(self, model: LlamaModel, position: int, suffix: int, script: list[int]) -> None:
        self._model, self._position, self._suffix, self._script = model, position, suffix, script
        self._logits = np.zeros(model._vocabulary, np.float32)
        self._written = 0
        self.prefill_s = 0.0
        self.decode_s: list[float] = []

    def __call__(self, tokens: Any) -> npt.NDArray[np.float32]:
        """Run tokens after the earlier ones; return logits that let the script's next token win."""
        start = perf_counter()
        self._model.append(tokens, self._position)
        spent = perf_counter() - start
        self._position += len(tokens)
        if not self.prefill_s:
            self.prefill_s = spent
            self._written = len(tokens) - self._suffix
        else:
            self.decode_s.append(spent)
            self._written += len(tokens)
        self._logits[:] = 0
        if self._written < len(self._script):
            self._logits[self._script[self._written]] = 1
        return self._logits


def measure(scratch: Path, layers: int, kind: str, threads: int) -> dict[str, Any]:
    checkpoint, text, vision = make_files(scratch, layers, kind)
    spec = read_policy_spec(checkpoint)
    words = PolicyText(checkpoint / "tokenizer.json", spec)
    writer = Writer(words, spec)
    bandwidth = measure_bandwidth(threads)
    model = LlamaModel(text, vision, 2048 + spec.max_image_tokens, threads=threads)
    phases: dict[str, float] = {}
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    start = perf_counter()
    grid = spec.grid_of(image)
    prefix = words.prompt("the red ring", "wise-s", grid).prefix
    model.append(prefix.before, 0)
    picture = model.encode(image)
    phases["vision_encode_s"] = perf_counter() - start
    start = perf_counter()
    position = model.append_image(picture, len(prefix.before))
    model.append(prefix.after, position)
    phases["prefill_picture_s"] = perf_counter() - start
    ways = {}
    for name, variant, tokens, forced in (("long", "verbose", LONG, False), ("short", "wise-s", SHORT, True)):
        prompt = words.prompt("the red ring", variant, grid)
        rationale = next(text for text in growing_text() if len(words.encode(text)) >= tokens)
        answer = '{"bbox": [100, 200, 300, 400], "points_1": [150, 250], "points_2": [250, 350]}'
        script = words.encode(f"<think>{rationale}</think><answer>{answer}</answer>")
        model.truncate(prefix.end)
        run = Scripted(model, prefix.end, len(prompt.suffix), script)
        written = writer.write(run, prompt, Request("the red ring", variant, Decoding(forced)))
        counts = words.count(split_completion(words.decode(written.tokens)), prompt, written.forced, written.steps)
        ways[name] = {
            "rationale_tokens": counts.rationale,
            "answer_tokens": counts.answer,
            "calls": len(run.decode_s),
            "prefill_s": run.prefill_s,
            "decode_s": sum(run.decode_s),
            "call_ms": median(run.decode_s) * 1e3,
        }
    limit = bandwidth / text.stat().st_size
    rate = 1e3 / ways["long"]["call_ms"]
    return {
        "type": kind,
        "layers": layers,
        "threads": threads,
        "weights_gb": text.stat().st_size / 1e9,
        "bandwidth_gb_per_s": bandwidth / 1e9,
        "tokens_per_s_limit": limit,
        "tokens_per_s": rate,
        "share_of_limit": rate / limit,
        "frame": phases,
        "long_one_by_one": ways["long"],
        "short_forced": ways["short"],
        "decode_ratio": ways["long"]["decode_s"] / ways["short"]["decode_s"],
        "query_ratio": sum(ways["long"][part] for part in ("prefill_s", "decode_s"))
        / sum(ways["short"][part] for part in ("prefill_s", "decode_s")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a 3B-shaped policy on llama.cpp.")
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--type", default="Q4_K_M", help="GGUF type of the language model")
    parser.add_argument("--layers", type=int, default=36)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options.scratch, options.layers, options.type, options.threads)
    document = json.dumps(found, indent=1)
    if options.json:
        options.json.write_text(document + "\n")
    print(document)


if __name__ == "__main__":
    main()
