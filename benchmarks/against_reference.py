"""Compares a query here with one in the way of the paper's reference code: same weights and cores, ratios of one run.

    python benchmarks/against_reference.py [--bundle DIR ...] [--samples 20] [--plot FILE] [--json]

The reference way: the prompt `verbose`, transformers' `generate`, then segment-anything's predictor, in sequence and
from scratch for every query, on all cores. Ours: `wise-s`, a session of the bundle on each of its CPU backends of the
policy, with one thread or all; the first query on a new image, and a further one on it. Then, on the fastest of them:
several queries together, decode calls, and the time spent outside the engines. Figures that take long have their own
benchmarks: cold_start.py, frames.py, llama_3b.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from segment_anything import SamPredictor
from tokenizers import Tokenizer

from wise_edge.bundle.store import load, resolve_bundle, resolve_checkpoint
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.drawing.panel import PHASE_COLORS
from wise_edge.geometry import scale_box, scale_point
from wise_edge.policy.answers.tolerant import parse_answer
from wise_edge.policy.checkpoint import load_policy, read_policy_spec
from wise_edge.policy.graph_io import image_patches, patch_grid
from wise_edge.runtimes.backends import list_cpu_policies
from wise_edge.runtimes.graphs.onnx_runtime import OnnxGraph
from wise_edge.runtimes.policy.llama import LlamaPolicy
from wise_edge.runtimes.session import Session
from wise_edge.sam.checkpoint import load_segmenter

WAYS = ("reference way", "new frame", "further query", "one of 8 together")


class ReferenceWay:
    """The embedded checkpoints as the reference runs its own."""

    def __init__(self) -> None:
        folder = resolve_checkpoint("embedded", "policy")
        self._spec = read_policy_spec(folder)
        self._model = load_policy(folder)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._end = [self._tokenizer.token_to_id(token) for token in self._spec.eos_tokens]
        self._sam = load_segmenter(resolve_checkpoint("embedded", "sam"))
        self.phases: dict[str, float] = {}
        for name, module in (
            ("vision_encode", self._model.model.visual),
            ("prefill", self._model.model.language_model),
        ):
            self._time_first(name, module)

    def _time_first(self, name: str, module: Any) -> None:
        """Note what the first call of a module within a query takes, in ms."""
        begun: list[float] = []
        module.register_forward_pre_hook(lambda *_: begun.append(perf_counter()))
        module.register_forward_hook(
            lambda *_: self.phases.setdefault(name, (perf_counter() - begun.pop()) * 1e3) and None
        )

    def segment(self, image: npt.NDArray[np.uint8], query: str) -> npt.NDArray[np.bool_] | None:
        """Return a query's mask, None where no answer can be read; `phases` tells what took how long."""
        self.phases.clear()
        start = perf_counter()
        spec, size = self._spec, (image.shape[1], image.shape[0])
        grid = spec.grid_of(image)
        prompt = spec.prompts.render(query, "verbose", grid[0] * grid[1])
        ids = torch.tensor([self._tokenizer.encode(prompt, add_special_tokens=False).ids])
        patches = torch.from_numpy(image_patches(image, spec))
        columns, rows = patch_grid(spec, grid)
        prepared = perf_counter()
        with torch.no_grad():
            output = self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                mm_token_type_ids=(ids == self._model.config.image_token_id).int(),
                pixel_values=patches,
                image_grid_thw=torch.tensor([[1, rows, columns]]),
                do_sample=False,
                max_new_tokens=512,
                eos_token_id=self._end,
                pad_token_id=self._end[0],
            )
        written = perf_counter()
        frame = spec.frame(spec.picture_size(size))
        answer = parse_answer(self._tokenizer.decode(output[0, ids.shape[1] :].tolist()), spec.form, frame).answer
        if answer is None or not answer.objects:
            return None
        found = answer.objects[0]
        predictor = SamPredictor(self._sam)
        predictor.set_image(image)
        seen = perf_counter()
        masks, _, _ = predictor.predict(
            point_coords=np.array([scale_point(point, frame.size, size) for point in found.points]),
            point_labels=np.ones(len(found.points), np.int64),
            box=np.array(scale_box(found.box, frame.size, size)),
            multimask_output=False,
        )
        mask: npt.NDArray[np.bool_] = masks[0]
        known = self.phases["vision_encode"] + self.phases["prefill"]
        self.phases |= {
            "preprocess": (prepared - start) * 1e3,
            "decode": (written - prepared) * 1e3 - known,
            "mask_encode": (seen - written) * 1e3,
            "mask_decode": (perf_counter() - seen) * 1e3,
        }
        return mask


class EngineTime:
    """How long the engines of a process run: ONNX Runtime's graphs and llama.cpp's models."""

    def __init__(self) -> None:
        self.ms = 0.0

    def watch(self, session: Session) -> None:
        """Count what the engines of a session take from here on."""
        policy, mask = session.policy, session.mask
        graphs = [value for part in (policy, mask) for value in vars(part).values()]
        for graph in graphs:
            if isinstance(graph, OnnxGraph):
                graph._session = _Watched(graph._session, {"run"}, self)
        if isinstance(policy, LlamaPolicy):
            model = policy._model
            model._llama = _Watched(model._llama, {"llama_decode"}, self)
            model._mtmd = _Watched(model._mtmd, {"mtmd_encode_chunk", "mtmd_helper_decode_image_chunk"}, self)


class _Watched:
    """Something whose named functions are timed."""

    def __init__(self, inner: Any, names: set[str], total: EngineTime) -> None:
        self._inner, self._names, self._total = inner, names, total

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._names:
            return found

        def timed(*arguments: Any, **named: Any) -> Any:
            start = perf_counter()
            try:
                return found(*arguments, **named)
            finally:
                self._total.ms += (perf_counter() - start) * 1e3

        return timed


def spent_ms(work: Callable[..., Any], *arguments: Any) -> float:
    start = perf_counter()
    work(*arguments)
    return (perf_counter() - start) * 1e3


def open_ways(bundles: list[str]) -> dict[str, Session]:
    """Return a session for each bundle, CPU backend of its policy and number of threads."""
    return {
        f"{Path(bundle).name}, {backend}, {threads} thread{'s' * (threads > 1)}": Session.from_bundle(
            bundle, policy_backend=backend, threads=threads
        )
        for bundle in bundles
        for backend in list_cpu_policies(a.role for a in load(resolve_bundle(bundle)).manifest.artifacts)
        for threads in (1, os.cpu_count() or 1)
    }


def measure_ways(ways: dict[str, Session], samples: int) -> list[dict[str, Any]]:
    """Return what a first and a further query take, the reference way in front."""
    reference, scenes = ReferenceWay(), SceneDataset("test")
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ("reference", *ways)}
    for place in range(samples + 1):  # the first warms up
        example, other = scenes[place], scenes[place + 1].query
        once = spent_ms(reference.segment, example.image, example.query)
        spent["reference"].append((once, once))
        for name, session in ways.items():
            session.forget()
            first = spent_ms(session.segment, example.image, example.query)
            spent[name].append((first, spent_ms(session.segment, example.image, other)))
    rows = {name: [median(column) for column in zip(*times[1:], strict=True)] for name, times in spent.items()}
    base = rows["reference"][0]
    return [
        {"way": name, "first_ms": first, "further_ms": further, "first": base / first, "further": base / further}
        for name, (first, further) in rows.items()
    ]


def measure_phases(session: Session, samples: int, count: int = 8) -> dict[str, dict[str, float]]:
    """Return each way's phases, medians in ms; what an earlier query on the image paid for is 0."""
    reference, scenes = ReferenceWay(), SceneDataset("test")
    found: dict[str, list[dict[str, float]]] = {}
    queries = [scenes[place].query for place in range(count)]
    for place in range(samples + 1):
        example = scenes[place]
        session.forget()
        if reference.segment(example.image, example.query) is None:
            continue
        results = [session.segment(example.image, query) for query in (example.query, scenes[place + 1].query)]
        together = session.segment_many(example.image, queries)
        share = {name: sum(asdict(r.latency_ms)[name] for r in together) / count for name in PHASE_COLORS}
        rows = [dict(reference.phases), *(asdict(result.latency_ms) for result in results), share]
        for way, row in zip(WAYS, rows, strict=True):
            found.setdefault(way, []).append(row)
    return {way: {name: median(row[name] for row in rows[1:]) for name in PHASE_COLORS} for way, rows in found.items()}


def plot_phases(phases: dict[str, dict[str, float]], file: Path) -> None:
    """Draw each way as a bar of its phases, all of them once and ours again to a scale of their own."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ours = list(WAYS[1:])
    figure, axes = pyplot.subplots(2, 1, figsize=(9, 4.6), height_ratios=[4, 3], layout="constrained")
    for axis, ways in zip(axes, (list(WAYS), ours), strict=True):
        lefts = [0.0] * len(ways)
        for name, color in PHASE_COLORS.items():
            values = [phases[way][name] for way in ways]
            shade = [channel / 255 for channel in color]
            axis.barh(ways, values, left=lefts, color=shade, label=name.replace("_", " "))
            lefts = [left + value for left, value in zip(lefts, values, strict=True)]
        for place, total in enumerate(lefts):
            axis.text(total, place, f" {total:.0f} ms", va="center")
        axis.invert_yaxis()
        axis.set_xlim(0, 1.12 * max(lefts))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(loc="lower right", frameon=False, ncols=2)
    axes[1].set_xlabel("ms a query")
    figure.savefig(file, dpi=120)


def measure_batch(session: Session, samples: int, count: int = 8) -> float:
    """Return how many times faster a query of a batch on a known image is than one by itself."""
    scenes, ratios = SceneDataset("test"), []
    queries = [scenes[place].query for place in range(count)]
    for place in range(samples + 1):
        image = scenes[place].image
        session.forget()
        session.segment(image, queries[0])
        single = sum(spent_ms(session.segment, image, query) for query in queries)
        ratios.append(single / spent_ms(session.segment_many, image, queries))
    return median(ratios[1:])


def count_calls(session: Session, samples: int) -> int:
    """Return the most decode calls that a query took beyond its rationale's tokens and its answer's digits."""
    scenes, most = SceneDataset("test"), -(10**9)
    for place in range(samples):
        session.forget()
        result = session.segment(scenes[place].image, scenes[place].query)
        answer = result.text.partition("<answer>")[2]
        digits = sum(character.isdigit() for character in answer) - 2  # not those of points_1 and points_2
        most = max(most, result.tokens.decode_steps - result.tokens.rationale - digits)
    return most


def measure_overhead(session: Session, samples: int) -> dict[str, float]:
    """Return what queries take outside of their engines: medians in ms and shares of the total."""
    scenes, engines = SceneDataset("test"), EngineTime()
    engines.watch(session)
    rows = []
    for place in range(samples + 1):
        image = scenes[place].image
        session.forget()
        for query in (scenes[place].query, scenes[place + 1].query):
            engines.ms = 0.0
            total = spent_ms(session.segment, image, query)
            rows.append((total - engines.ms, (total - engines.ms) / total))
    first, further = np.median(rows[2::2], axis=0), np.median(rows[3::2], axis=0)
    return {
        "first_ms": float(first[0]),
        "first_share": float(first[1]),
        "further_ms": float(further[0]),
        "further_share": float(further[1]),
    }


def judge(name: str, value: float, sign: str, aim: float) -> dict[str, Any]:
    met = value >= aim if sign == ">=" else value <= aim
    return {"figure": name, "value": value, "aim": f"{sign} {aim}", "met": met}


def measure(bundles: list[str], samples: int) -> dict[str, Any]:
    ways = open_ways(bundles)
    rows = measure_ways(ways, samples)
    best = max(rows[1:], key=lambda row: row["further"])["way"]
    phases = measure_phases(ways[best], samples)
    overhead = measure_overhead(ways[best], samples)
    figures = [
        ("first query on a new frame, times the reference way", max(row["first"] for row in rows), ">=", 10),
        ("further query on the frame, times the reference way", max(row["further"] for row in rows), ">=", 40),
        ("8 queries on a frame together, times one by one", measure_batch(ways[best], samples), ">=", 1.5),
        ("decode calls beyond rationale tokens and digits", count_calls(ways[best], samples), "<=", 10),
        ("outside of the engines, further query, share", overhead["further_share"], "<=", 0.05),
        ("outside of the engines, further query, ms", overhead["further_ms"], "<=", 1),
        ("outside of the engines, new frame, share", overhead["first_share"], "<=", 0.05),
        ("outside of the engines, new frame, ms", overhead["first_ms"], "<=", 1),
    ]
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.get_num_threads()} threads",
        "samples": samples,
        "best": best,
        "rows": rows,
        "phases_ms": phases,
        "figures": [judge(*figure) for figure in figures],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare a query with the reference's way.")
    parser.add_argument("--bundle", action="append", help="bundle, or several; the embedded one where left out")
    parser.add_argument("--samples", type=int, default=20, help="test scenes")
    parser.add_argument("--plot", type=Path, help="draw where the time goes, as PNG")
    parser.add_argument("--json", action="store_true", help="print a JSON document")
    options = parser.parse_args()
    found = measure(options.bundle or ["embedded"], options.samples)
    if options.plot:
        plot_phases(found["phases_ms"], options.plot)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    print(f"{found['machine']}, median of {found['samples']} scenes; times faster than the reference way")
    for row in found["rows"]:
        print(
            f"{row['way']:28} new frame {row['first_ms']:7.1f} ms {row['first']:6.1f} x   "
            f"further query {row['further_ms']:7.1f} ms {row['further']:6.1f} x"
        )
    print(f"with {found['best']}:")
    for figure in found["figures"]:
        met = "met" if figure["met"] else "MISSED"
        print(f"{figure['figure']:54} {figure['value']:8.3g}  aim {figure['aim']:8} {met}")


if __name__ == "__main__":
    main()
