"""Measures each GGUF type on test scenes: size, cIoU, tokens and tokens per second of the embedded policy.

    python benchmarks/quantization.py --out docs/results/quantization.json [--samples 200] [--types Q8_0,Q4_K_M]

Each type of the language model is made with and without an importance matrix (types that require one only with it); the
vision tower is F16; the reference row is torch in float32. cIoU differences are paired over scenes, with 95 % bootstrap
intervals. Accuracy that --out already has is kept. Speed is measured last and again each time, all types in turn, in
several rounds: decoding alone, on one thread. The figure is written next to the document.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from wise_edge.datasets.scenes import SceneDataset
from wise_edge.export.precisions import NEED_IMPORTANCE, TEXT_TYPES
from wise_edge.export.to_gguf.quantize import tensor_types
from wise_edge.runtimes.base import Decoding
from wise_edge.runtimes.session import Session

LOSSLESS = ("F32", "F16", "BF16", "Q8_0")
"""Types that an importance matrix does not change."""
TIMED_SCENES = 10
TIMED_ROUNDS = 3


def wise_edge(*arguments: str) -> str:
    command = [sys.executable, "-m", "wise_edge", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def settings(types: list[str]) -> list[tuple[str, bool]]:
    """Return each type with whether columns are weighted."""
    plain = [(kind, False) for kind in types if kind not in NEED_IMPORTANCE]
    return plain + [(kind, True) for kind in types if kind not in LOSSLESS]


def evaluate(build: Path, name: str, samples: int, *model: str) -> dict[str, Any]:
    """Return the report of a model and, but for torch itself, its difference from torch."""
    records = build / f"{name}.jsonl"
    resume = ["--resume"] if records.exists() else []
    report = json.loads(
        wise_edge(
            "evaluate", "--json", "--free-decoding", *model, "--limit", str(samples), "--out", str(records), *resume
        )
    )
    if name != "torch":
        files = [str(build / "torch.jsonl"), str(records)]
        report["against_torch"] = json.loads(wise_edge("evaluate", "compare", "--json", *files))["figures"]["ciou"]
    return report


def export(build: Path, kind: str, importance: bool) -> Path:
    bundle = build / f"{kind}{'-importance' if importance else ''}"
    if not bundle.exists():
        options = ["--target", "gguf", "--quant", kind, "--importance" if importance else "--no-importance"]
        checkpoints = ["--policy", "embedded", "--sam", "embedded"]
        wise_edge("export", *checkpoints, *options, "--no-verify", "--out", str(bundle))
    return bundle


def measure(build: Path, kind: str, importance: bool, samples: int) -> dict[str, Any]:
    bundle = export(build, kind, importance)
    report = evaluate(build, bundle.name, samples, "--bundle", str(bundle))
    file = bundle / "policy.gguf"
    return {
        "type": kind,
        "importance": importance,
        "bytes": file.stat().st_size,
        "tensor_types": tensor_types(file),
        **figures(report),
        "ciou_minus_torch": report["against_torch"],
    }


def figures(report: dict[str, Any]) -> dict[str, Any]:
    names = ("ciou", "box_accuracy", "answer_valid_share", "rationale_tokens_mean")
    return {name: report[name] for name in names if name in report}


def time_all(rows: list[dict[str, Any]], build: Path) -> None:
    """Give every row the tokens it decodes in a second: the median of rounds in which each type has its turn."""
    one_by_one = Decoding(forced=False)
    bundles = [export(build, row["type"], row["importance"]) for row in rows]
    sessions = [Session.from_bundle(bundle, threads=1, decoding=one_by_one) for bundle in bundles]
    rounds = [[speed(session) for session in sessions] for _ in range(TIMED_ROUNDS)]
    for row, speeds in zip(rows, zip(*rounds, strict=True), strict=True):
        row["tokens_per_s"] = median(speeds)


def speed(session: Session) -> float:
    """Return tokens decoded a second, over some scenes."""
    dataset = SceneDataset("test")
    steps, spent_ms = 0, 0.0
    for place in range(TIMED_SCENES):
        example = dataset[place]
        result = session.segment(example.image, example.query)
        steps += result.tokens.decode_steps
        spent_ms += result.latency_ms.decode
    return steps / spent_ms * 1e3


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| type | importance | kB | tensors | cIoU | minus torch | tokens | tokens/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        low, high = row["ciou_minus_torch"]["interval"]
        kinds = ", ".join(f"{count} {kind}" for kind, count in row["tensor_types"].items())
        change = f"{row['ciou_minus_torch']['difference']:+.3f} ({low:+.3f} to {high:+.3f})"
        cells = [row["type"], "yes" if row["importance"] else "", f"{row['bytes'] / 1000:.0f}", kinds]
        cells += [f"{row['ciou']:.3f}", change, f"{row['rationale_tokens_mean']:.1f}", f"{row['tokens_per_s']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def same_place(rows: list[dict[str, Any]]) -> dict[tuple[float, float], list[str]]:
    """Return for each size in MB and cIoU the types that have it: narrow rows make several types one."""
    places: dict[tuple[float, float], list[str]] = {}
    for row in rows:
        kinds = places.setdefault((row["bytes"] / 1e6, round(row["ciou"], 3)), [])
        if row["type"] not in kinds:
            kinds.append(row["type"])
    return places


def draw(rows: list[dict[str, Any]], torch_ciou: float, path: Path) -> None:
    """Draw cIoU over the file's size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
    axes.axhline(torch_ciou, color="gray", linestyle="--", label="torch, float32")
    for importance, marker, label in ((False, "o", "columns alike"), (True, "^", "importance matrix")):
        chosen = [row for row in rows if row["importance"] is importance]
        axes.scatter(
            [row["bytes"] / 1e6 for row in chosen], [row["ciou"] for row in chosen], marker=marker, s=50, label=label
        )
    places = same_place(rows)
    for (megabytes, ciou), kinds in places.items():
        gaps = [other - ciou for size, other in places if size == megabytes and 0 < abs(other - ciou) < 0.003]
        side = "center" if not gaps else "top" if gaps[0] > 0 else "bottom"
        axes.annotate(
            ", ".join(kinds), (megabytes, ciou), xytext=(7, 0), textcoords="offset points", va=side, fontsize=7
        )
    axes.set(xlabel="language model, MB", ylabel="cIoU on test scenes")
    axes.set_xscale("log")
    axes.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure every GGUF type of the embedded policy.")
    parser.add_argument("--out", type=Path, required=True, help="JSON document; the figure lies beside it")
    parser.add_argument("--build", type=Path, default=Path("build/quantization"), help="where bundles and records go")
    parser.add_argument("--samples", type=int, default=200, help="test scenes")
    parser.add_argument("--types", default=",".join(TEXT_TYPES), help="types, separated by commas")
    options = parser.parse_args()
    options.build.mkdir(parents=True, exist_ok=True)
    document = json.loads(options.out.read_text()) if options.out.exists() else {"rows": []}
    done = {(row["type"], row["importance"]) for row in document["rows"]}
    if todo := [setting for setting in settings(options.types.split(",")) if setting not in done]:
        torch = evaluate(options.build, "torch", options.samples, "--policy", "embedded", "--sam", "embedded")
        document |= {"samples": options.samples, "torch": figures(torch)}
    for kind, importance in todo:
        document["rows"].append(measure(options.build, kind, importance, options.samples))
        document["rows"].sort(key=lambda row: (-row["bytes"], row["type"], row["importance"]))
        options.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        print(f"{kind} {importance}", file=sys.stderr)
    time_all(document["rows"], options.build)
    options.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    draw(document["rows"], document["torch"]["ciou"], options.out.with_suffix(".png"))
    print(f"torch: cIoU {document['torch']['ciou']:.3f}, {document['torch']['rationale_tokens_mean']:.1f} tokens\n")
    print(table(document["rows"]))


if __name__ == "__main__":
    main()
