"""Evaluates policies on test scenes against the start policy's `verbose`: JSON reports, tables and a figure.

    python benchmarks/wise/results.py NAME=CHECKPOINT... --out docs/results [--variants V,V] [--samples N]
    python benchmarks/wise/results.py --out docs/results      tables and figure of existing reports

A checkpoint is a policy's folder or the name of one that ships. Tables and figure use every report in --out, so results
can be collected over several calls. Name the seeds of one setting NAME-seed0, NAME-seed1, …. Reports have no latencies,
since other work may share the machine.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wise_edge.bundle.store import EMBEDDED_START, SHIPPED, resolve_checkpoint
from wise_edge.files.hashing import hash_file

START = "start"
BASELINE = (START, "verbose")
MARKERS = {"verbose": "s", "wise": "D", "wise-infer": "o", "wise-s": "^", "answer": "v"}


class Results:
    """The reports of one folder; records and exported bundles are in `build`.

    Args:
        out: folder of the reports.
        build: folder for what is not kept.
        samples: test scenes.
    """

    def __init__(self, out: Path, build: Path, samples: int) -> None:
        self._out, self._build, self._samples = out, build, samples
        for folder in (out, build):
            folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, policy: str, variants: list[str]) -> None:
        """Evaluate what is missing of a policy, or is of other weights: each variant, and how its rationales relate."""
        for variant in variants:
            self._keep(f"{name}-{variant}", policy, lambda variant=variant: self._evaluate(name, policy, variant))
        self._keep(f"{name}-rationales", policy, lambda: self._rationales(policy))

    def _keep(self, name: str, policy: str, make: Callable[[], dict[str, Any]]) -> None:
        file = self._out / f"{name}.json"
        hashes = {"weights_sha256": weights_sha256(policy), "start_sha256": weights_sha256(EMBEDDED_START)}
        if not file.exists() or not hashes.items() <= json.loads(file.read_text()).items():
            write_json(file, {**make(), **hashes})

    def _rationales(self, policy: str) -> dict[str, Any]:
        script = [sys.executable, str(Path(__file__).parents[1] / "rationales.py"), "--json"]
        return without(json.loads(run([*script, "--policy", policy, "--samples", str(self._samples)])), "policy")

    def reports(self) -> list[dict[str, Any]]:
        """Return every report: the start policy's first, then by name and variant."""
        found = [json.loads(file.read_text()) for file in self._out.glob("*.json")]
        found = [report for report in found if "variant" in report]
        order = list(MARKERS)
        return sorted(found, key=lambda r: (r["model"] != START, r["model"], order.index(r["variant"])))

    def rationales(self) -> dict[str, dict[str, Any]]:
        """Return by policy how its concise rationales relate to its detailed ones."""
        files = sorted(self._out.glob("*-rationales.json"))
        return {file.stem.removesuffix("-rationales"): json.loads(file.read_text()) for file in files}

    def _evaluate(self, name: str, policy: str, variant: str) -> dict[str, Any]:
        report = json.loads(self._records(name, policy, variant))
        report["model"] = name
        if (name, variant) != BASELINE:
            self._records(START, EMBEDDED_START, "verbose")
            files = [
                str(self._record_file(START, EMBEDDED_START, "verbose")),
                str(self._record_file(name, policy, variant)),
            ]
            report["against_start_verbose"] = json.loads(wise_edge("evaluate", "compare", "--json", *files))["figures"]
        return without(report, "latency_ms")

    def _records(self, name: str, policy: str, variant: str) -> str:
        """Evaluate, going on with records that are there, and return the report as JSON."""
        file = self._record_file(name, policy, variant)
        options = ["--bundle", self._bundle(name, policy), "--variant", variant, "--limit", str(self._samples)]
        options += ["--free-decoding"]  # some policies put the detailed text first, which forced decoding does not
        return wise_edge("evaluate", "--json", *options, "--out", str(file), *(["--resume"] if file.exists() else []))

    def _record_file(self, name: str, policy: str, variant: str) -> Path:
        return self._build / f"{name}-{weights_sha256(policy)[:8]}-{variant}.jsonl"

    def _bundle(self, name: str, policy: str) -> str:
        if policy in SHIPPED:
            return policy
        bundle = self._build / f"{name}-{weights_sha256(policy)[:8]}.bundle"
        if not bundle.exists():
            wise_edge("export", "--policy", policy, "--sam", "embedded", "--target", "onnx", "--out", str(bundle))
        return str(bundle)


def weights_sha256(policy: str) -> str:
    """Return the hash of a checkpoint's weights."""
    return hash_file(resolve_checkpoint(policy, "policy") / "model.safetensors")


def wise_edge(*arguments: str) -> str:
    """Run wise-edge and return what it printed."""
    return run([sys.executable, "-m", "wise_edge", *arguments])


def run(command: list[str]) -> str:
    """Run a command and return what it printed."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def write_json(file: Path, data: Any) -> None:
    """Write a document a person can read."""
    file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def without(data: Any, key: str) -> Any:
    """Return a document without a key, wherever it stands."""
    if isinstance(data, dict):
        return {name: without(value, key) for name, value in data.items() if name != key}
    return [without(value, key) for value in data] if isinstance(data, list) else data


def setting_of(report: dict[str, Any]) -> str:
    """Return what the seeds of one setting share."""
    return re.sub(r"-seed\d+$", "", report["model"])


def table(reports: list[dict[str, Any]]) -> str:
    """Return reports as a Markdown table."""
    lines = [
        "| policy | variant | rationale tokens | cIoU | against start `verbose` | box IoU > 0.5 | against it |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for report in reports:
        cells = [report["model"], f"`{report['variant']}`", f"{report['rationale_tokens_mean']:.1f}"]
        for name in ("ciou", "box_accuracy"):
            cells += [f"{report[name]:.3f}", change(report, name)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def rationales_table(found: dict[str, dict[str, Any]]) -> str:
    """Return how rationales under `wise` relate, as a Markdown table."""
    lines = [
        "| policy | concise tokens | detailed tokens | similarity | its p10 | names the object | if the box is right |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, figures in found.items():
        cells = [f"{figures[f'{part}_tokens_mean']:.1f}" for part in ("concise", "detailed")]
        cells += [f"{figures[f'similarity_{part}']:.3f}" for part in ("mean", "p10")]
        cells += [f"{figures['names_target_share']:.3f}", str(figures["names_target_share_of_right"])]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def change(report: dict[str, Any], figure: str) -> str:
    """Return the difference from the baseline with its interval."""
    if "against_start_verbose" not in report:
        return ""
    found = report["against_start_verbose"][figure]
    low, high = found["interval"]
    return f"{found['difference']:+.3f} ({low:+.3f} to {high:+.3f})"


def draw(reports: list[dict[str, Any]], path: Path) -> None:
    """Draw cIoU over rationale tokens; a color is a setting, a marker a variant."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
    colors = {setting: f"C{number}" for number, setting in enumerate(dict.fromkeys(map(setting_of, reports)))}
    labeled = set()
    for report in reports:
        setting, variant, tokens = setting_of(report), report["variant"], report["rationale_tokens_mean"]
        label = f"{setting}, {variant}"
        axes.plot([tokens] * 2, report["intervals"]["ciou"], color=colors[setting], alpha=0.15, linewidth=3)
        axes.scatter(
            tokens,
            report["ciou"],
            marker=MARKERS[variant],
            color=colors[setting],
            s=70,
            alpha=0.85,
            zorder=3,
            label=None if label in labeled else label,
        )
        labeled.add(label)
    axes.set(xlabel="rationale tokens, mean", ylabel="cIoU, with its 95 % interval", xscale="log", xlim=(12, 125))
    axes.set_xticks([15, 20, 30, 50, 70, 100], ["15", "20", "30", "50", "70", "100"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Evaluate policies against the start policy's `verbose`.")
    parser.add_argument("policies", nargs="*", metavar="NAME=CHECKPOINT", help="what to evaluate")
    parser.add_argument("--out", type=Path, required=True, help="where reports and figure go")
    parser.add_argument("--build", type=Path, default=Path("build/results"), help="where records and bundles go")
    parser.add_argument("--variants", default="wise-infer,wise-s", help="prompt variants, separated by commas")
    parser.add_argument("--samples", type=int, default=500, help="test scenes")
    options = parser.parse_args()
    results = Results(options.out, options.build, options.samples)
    for item in options.policies:
        name, _, policy = item.partition("=")
        results.add(name, policy or parser.error(f"{item}: want NAME=CHECKPOINT"), options.variants.split(","))
    reports = results.reports()
    draw(reports, options.out / "tokens-ciou.png")
    print(table(reports), rationales_table(results.rationales()), sep="\n\n")


if __name__ == "__main__":
    main()
