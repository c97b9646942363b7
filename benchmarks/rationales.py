"""Measures how well a policy's concise rationales represent its detailed ones, on test scenes under `wise`.

    python benchmarks/rationales.py [--policy CHECKPOINT] [--samples N] [--json]

The complete completion is decoded greedily. Reported are the similarity of concise and detailed text (by the encoder of
the rewards), their lengths in tokens, and the share of concise texts that name the target: their last sentence holds
its description, and its place if another object of the scene has the same description. A policy that chooses the wrong
object names the wrong one, so the share is also reported for completions with a correct box (IoU > 0.5).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from figures import print_result

from wise_edge.datasets import open_dataset
from wise_edge.evaluation.records import BOX_THRESHOLD
from wise_edge.geometry import box_iou
from wise_edge.mapping import from_mapping
from wise_edge.policy.answers.completion import split_completion
from wise_edge.policy.answers.form import BOX_POINTS
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.policy.answers.tolerant import parse_answer
from wise_edge.policy.checkpoint import load_policy
from wise_edge.scenes import Sample, sample, target_answer
from wise_edge.training.wise.config import WiseConfig
from wise_edge.training.wise.policy import StartPolicy, open_policy
from wise_edge.training.wise.similarity import DEFAULT_MODEL, cosine_similarities, load_encoder
from wise_edge.training.wise.validation import decode_greedily

BATCH = 64
MAX_TOKENS = 400


def names_target(text: str, labeled: Sample) -> bool:
    """Return whether the last sentence of a rationale names the object that the query asks for."""
    name, conclusion = labeled.target.describe(), text.rstrip(". ").rpartition(". ")[2]
    alone = sum(item.describe() == name for item in labeled.scene.objects) == 1
    return name in conclusion and (alone or f"at the {labeled.target.place}" in conclusion)


def boxes_right(text: str, labeled: Sample, frame: AnswerFrame) -> bool:
    """Return whether a completion's box is the target's; both are in a frame."""
    answer = parse_answer(text, BOX_POINTS, frame).answer
    return answer is not None and box_iou(answer.objects[0].box, target_answer(labeled, frame).box) > BOX_THRESHOLD


def decode(start: StartPolicy, count: int) -> list[str]:
    """Return the completions of the first test scenes."""
    model, dataset = load_policy(Path(start.name)), open_dataset("scenes", None, "test")
    texts: list[str] = []
    for first in range(0, count, BATCH):
        examples = [dataset[index] for index in range(first, min(first + BATCH, count))]
        texts += decode_greedily(model, start, examples, "wise", MAX_TOKENS)
    return texts


def measure(policy: str, count: int) -> dict[str, Any]:
    """Return the figures of a policy."""
    start = open_policy(from_mapping(WiseConfig, {"steps": 1, "model": policy, "dtype": "float32"}))
    texts, scenes = decode(start, count), [sample("test", index) for index in range(count)]
    parts = [split_completion(text) for text in texts]
    concise, detailed = [part.rationale or "" for part in parts], [part.detailed or "" for part in parts]
    encoder = load_encoder(DEFAULT_MODEL, "cpu")
    similar = cosine_similarities(encoder, concise, detailed)
    lengths = [[len(ids) for ids in start.processor.tokenizer(texts)["input_ids"]] for texts in (concise, detailed)]
    named = np.array([names_target(text, labeled) for text, labeled in zip(concise, scenes, strict=True)])
    right = np.array([boxes_right(*pair, start.frame) for pair in zip(texts, scenes, strict=True)])
    return {
        "policy": policy,
        "samples": count,
        "similarity_mean": round(float(np.mean(similar)), 4),
        "similarity_cut": encoder.cut,
        "similarity_p10": round(float(np.percentile(similar, 10)), 4),
        "concise_tokens_mean": round(float(np.mean(lengths[0])), 2),
        "detailed_tokens_mean": round(float(np.mean(lengths[1])), 2),
        "box_accuracy": round(float(np.mean(right)), 4),
        "names_target_share": round(float(np.mean(named)), 4),
        "names_target_share_of_right": round(float(np.mean(named[right])), 4) if right.any() else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare concise and detailed rationales of a policy.")
    parser.add_argument("--policy", default="embedded", help="checkpoint folder, or 'embedded'")
    parser.add_argument("--samples", type=int, default=500, help="test scenes")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    result = measure(options.policy, options.samples)
    print_result(
        result,
        options.json,
        f"{result['samples']} test scenes under 'wise', {options.policy}:",
        f"  similarity of concise and detailed text {result['similarity_mean']}, p10 {result['similarity_p10']}",
        f"  {result['similarity_cut']} of the texts are longer than the similarity model reads",
        f"  tokens {result['concise_tokens_mean']} and {result['detailed_tokens_mean']}",
        f"  the concise text names the object asked for in {result['names_target_share']:.1%} of all completions",
        f"  and, of those with box IoU > 0.5, in {result['names_target_share_of_right']}",
    )


if __name__ == "__main__":
    main()
