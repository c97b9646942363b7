"""Evaluate WISE runs against their start policy: JSON reports, paired comparisons, a table and a figure.

    python benchmarks/wise_results.py --start CHECKPOINT --runs RUNS --out docs/results [--samples 500]

RUNS holds folders of `wise-edge train`. Each policy, and the start policy, is exported to ONNX and evaluated on test
scenes; what is already in --out is not done again. Run several seeds of one setting as NAME-seed0, NAME-seed1, ….
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

START = "start"
VARIANTS = {START: ("verbose", "wise-infer", "wise-s")}
TRAINED_VARIANTS = ("wise-infer", "wise-s")
BASELINE = f"{START}-verbose"


def evaluate(name: str, policy: Path, out: Path, samples: int) -> None:
    """Write report and records of a policy under each variant, and how it compares with the start's `verbose`."""
    todo = [v for v in VARIANTS.get(name, TRAINED_VARIANTS) if not (out / f"{name}-{v}.json").exists()]
    if todo:
        with tempfile.TemporaryDirectory() as scratch:
            bundle = Path(scratch) / "bundle"
            call("export", "--policy", policy, "--sam", "embedded", "--target", "onnx", "--out", bundle)
            for variant in todo:
                evaluate_variant(bundle, f"{name}-{variant}", variant, out, samples)
    if not (out / f"{name}-rationales.json").exists():
        script = Path(__file__).with_name("rationales.py")
        arguments = [sys.executable, script, "--policy", policy, "--samples", str(samples), "--json"]
        text = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True).stdout
        record = json.loads(text) | {"policy": name}
        (out / f"{name}-rationales.json").write_text(json.dumps(record, indent=2) + "\n")


def evaluate_variant(bundle: Path, name: str, variant: str, out: Path, samples: int) -> None:
    """Write the report of one variant and its comparison; the records stay out of the repository."""
    records = out / "records"
    records.mkdir(exist_ok=True)
    options = ("--bundle", bundle, "--variant", variant, "--limit", samples, "--out", records / f"{name}.jsonl")
    report = json.loads(call("evaluate", "--json", *options, "--force"))
    report["model"] = name.removesuffix(f"-{variant}")
    if name != BASELINE:
        compared = call("evaluate", "compare", "--json", records / f"{BASELINE}.jsonl", records / f"{name}.jsonl")
        report["against_start_verbose"] = json.loads(compared)["figures"]
    (out / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")


def call(*arguments: object) -> str:
    """Run wise-edge and return what it printed."""
    command = [sys.executable, "-m", "wise_edge", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def write_table(reports: list[dict[str, Any]]) -> str:
    """Return the reports as a Markdown table."""
    lines = [
        "| policy | variant | rationale tokens | cIoU | against start `verbose` | box IoU > 0.5 | against it |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for report in reports:
        figures = [report["model"], report["variant"], f"{report['rationale_tokens_mean']:.1f}"]
        for name in ("ciou", "box_accuracy"):
            figures += [f"{report[name]:.3f}", change(report, name)]
        lines.append(f"| {' | '.join(figures)} |")
    return "\n".join(lines)


def change(report: dict[str, Any], figure: str) -> str:
    """Return the difference from the baseline with its interval."""
    if "against_start_verbose" not in report:
        return ""
    found = report["against_start_verbose"][figure]
    low, high = found["interval"]
    return f"{found['difference']:+.3f} ({low:+.3f} to {high:+.3f})"


def draw(reports: list[dict[str, Any]], path: Path) -> None:
    """Draw cIoU over rationale tokens; seeds of one setting share a color."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    settings = list(dict.fromkeys(re.sub(r"-seed\d+$", "", report["model"]) for report in reports))
    for number, setting in enumerate(settings):
        for variant, marker in (("verbose", "s"), ("wise-infer", "o"), ("wise-s", "^")):
            found = [r for r in reports if re.sub(r"-seed\d+$", "", r["model"]) == setting and r["variant"] == variant]
            if not found:
                continue
            tokens, cious = ([report[name] for report in found] for name in ("rationale_tokens_mean", "ciou"))
            label = f"{setting}, {variant}"
            axes.scatter(tokens, cious, marker=marker, color=f"C{number}", s=60, label=label)
            for report in found:
                low, high = report["intervals"]["ciou"]
                axes.plot([report["rationale_tokens_mean"]] * 2, [low, high], color=f"C{number}", alpha=0.3)
    axes.set(xlabel="rationale tokens", ylabel="cIoU, with its 95 % interval", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Evaluate WISE runs against their start policy.")
    parser.add_argument("--start", type=Path, required=True, help="checkpoint that the runs started from")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs' folders")
    parser.add_argument("--out", type=Path, required=True, help="where reports, table and figure go")
    parser.add_argument("--samples", type=int, default=500, help="test scenes")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    policies = {START: options.start}
    policies |= {path.parent.name: path for path in sorted(options.runs.glob("*/policy"))}
    for name, policy in policies.items():
        evaluate(name, policy, options.out, options.samples)
    order = [f"{name}-{variant}" for name in policies for variant in VARIANTS.get(name, TRAINED_VARIANTS)]
    reports = [json.loads((options.out / f"{name}.json").read_text()) for name in order]
    draw(reports, options.out / "tokens-ciou.png")
    print(write_table(reports))


if __name__ == "__main__":
    main()
