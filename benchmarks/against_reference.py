"""A query here against the way of the paper's reference code, on the same weights and cores, as ratios in one run.

    python benchmarks/against_reference.py [--bundle DIR ...] [--samples 20] [--json]

The reference way: the prompt `verbose`, transformers' `generate`, then segment-anything's predictor, one after the
other, everything from scratch for every query, all cores. Ours: `wise-s`, the session of a bundle, on every policy
backend that it has for the CPU, with one thread or all; a first query on a new frame, and a further one on it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from segment_anything import SamPredictor
from tokenizers import Tokenizer

from wise_edge.agreement import policy_backends
from wise_edge.answer import parse_answer
from wise_edge.bundle import load, resolve_bundle, resolve_checkpoint
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.geometry import scale_box, scale_point
from wise_edge.policy_checkpoint import load_policy, read_policy_spec
from wise_edge.qwen_image import patchify, resize_square
from wise_edge.runtimes.session import Session
from wise_edge.sam_model import load_sam


class ReferenceWay:
    """The embedded checkpoints as the reference runs its own."""

    def __init__(self) -> None:
        folder = resolve_checkpoint("embedded", "policy")
        self._spec = read_policy_spec(folder)
        self._model = load_policy(folder)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._end = [self._tokenizer.token_to_id(token) for token in self._spec.eos_tokens]
        self._sam = load_sam(resolve_checkpoint("embedded", "sam"))

    def segment(self, image: npt.NDArray[np.uint8], query: str) -> npt.NDArray[np.bool_] | None:
        """Return the mask of what a query names; None where the answer cannot be read."""
        spec, size = self._spec, (image.shape[1], image.shape[0])
        prompt = spec.prompts.render(query, "verbose", spec.image_grid**2)
        ids = torch.tensor([self._tokenizer.encode(prompt, add_special_tokens=False).ids])
        square = resize_square(image, spec.input_size)
        side = spec.input_size // spec.patch_size
        with torch.no_grad():
            output = self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                mm_token_type_ids=(ids == self._model.config.image_token_id).int(),
                pixel_values=torch.from_numpy(patchify(square)),
                image_grid_thw=torch.tensor([[1, side, side]]),
                do_sample=False,
                max_new_tokens=512,
                eos_token_id=self._end,
                pad_token_id=self._end[0],
            )
        answer = parse_answer(self._tokenizer.decode(output[0, ids.shape[1] :].tolist()), spec.input_size).answer
        if answer is None:
            return None
        frame = (spec.input_size, spec.input_size)
        predictor = SamPredictor(self._sam)
        predictor.set_image(image)
        masks, _, _ = predictor.predict(
            point_coords=np.array([scale_point(point, frame, size) for point in answer.points]),
            point_labels=np.ones(2, np.int64),
            box=np.array(scale_box(answer.box, frame, size)),
            multimask_output=False,
        )
        mask: npt.NDArray[np.bool_] = masks[0]
        return mask


def spent_ms(work: Callable[..., Any], *arguments: Any) -> float:
    start = perf_counter()
    work(*arguments)
    return (perf_counter() - start) * 1e3


def measure(bundles: list[str], samples: int) -> dict[str, Any]:
    ways = {
        f"{Path(bundle).name}, {backend}, {threads} thread{'s' * (threads > 1)}": Session.from_bundle(
            bundle, policy_backend=backend, threads=threads
        )
        for bundle in bundles
        for backend in policy_backends(a.role for a in load(resolve_bundle(bundle)).manifest.artefacts)
        for threads in (1, os.cpu_count() or 1)
    }
    reference, scenes = ReferenceWay(), SceneDataset("test")
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ("reference", *ways)}
    for place in range(samples + 1):  # the first warms up
        example, other = scenes[place], scenes[place + 1].query
        once = spent_ms(reference.segment, example.image, example.query)
        spent["reference"].append((once, once))
        for name, session in ways.items():
            fresh = session.afresh()
            first = spent_ms(fresh.segment, example.image, example.query)
            spent[name].append((first, spent_ms(fresh.segment, example.image, other)))
    rows = {name: [median(column) for column in zip(*times[1:], strict=True)] for name, times in spent.items()}
    base = rows["reference"][0]
    return {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} cores",
        "samples": samples,
        "rows": [
            {"way": name, "first_ms": first, "further_ms": further, "first": base / first, "further": base / further}
            for name, (first, further) in rows.items()
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare a query with the reference's way.")
    parser.add_argument("--bundle", action="append", help="bundle, or several; the embedded one where left out")
    parser.add_argument("--samples", type=int, default=20, help="test scenes")
    parser.add_argument("--json", action="store_true", help="print a JSON document")
    options = parser.parse_args()
    found = measure(options.bundle or ["embedded"], options.samples)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{found['machine']}, median of {found['samples']} scenes; times faster than the reference way")
    for row in found["rows"]:
        print(
            f"{row['way']:28} new frame {row['first_ms']:7.1f} ms {row['first']:6.1f} x   "
            f"further query {row['further_ms']:7.1f} ms {row['further']:6.1f} x"
        )


if __name__ == "__main__":
    main()
