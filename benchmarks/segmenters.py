"""Segmenters' encoder and decoder on the CPU, side by side with samexporter's files of the same weights in its runner.

    python benchmarks/segmenters.py --scratch DIR [--models vit_b,mobile_sam] [--images 3] [--prompts 32]
        [--samexporter PYTHON] [--json]

Weights are random. Each side works in a process of its own, which takes an image after its turn, in alternation; CPU
time is user and system, peak memory the kernel's VmHWM. PYTHON is an interpreter with samexporter (`pip install
samexporter`, which pins older versions); without it only this project's side is measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from figures import make_parser, print_figures

MODELS = {"vit_b": "vit_b", "mobile_sam": "mobile"}
"""The models, and samexporter's names of them."""
COMMON = """
import json, re, resource, sys, time
import numpy as np
image = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8)
def core_s():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
def answer(work):
    for _ in sys.stdin:
        start, held = time.perf_counter(), core_s()
        extra = work()
        peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1e6
        shown = {"s": time.perf_counter() - start, "core_s": core_s() - held, "peak_gb": peak, **(extra or {})}
        print(json.dumps(shown), flush=True)
"""
OURS = """
from pathlib import Path
from wise_edge.bundle.roles import MASK_GRAPHS
from wise_edge.runtimes.base import MaskPrompt
from wise_edge.runtimes.graphs.onnx_runtime import CPU, OnnxGraph, gains_by_fusion
from wise_edge.runtimes.mask.graph import GraphMask
from wise_edge.sam.checkpoint import read_sam_spec
folder, checkpoint, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
spec = read_sam_spec(checkpoint)
graphs = (OnnxGraph(folder / f"{role}.onnx", CPU, None, gains_by_fusion(role, "fp32", spec)) for role in MASK_GRAPHS)
mask = GraphMask("onnx", spec, *graphs)
corners = np.sort(np.random.default_rng(1).integers(0, 1080, (max(count, 1), 2, 2)), axis=1)
prompts = [MaskPrompt((int(a[0]), int(a[1]), int(b[0]) + 1, int(b[1]) + 1), ()) for a, b in corners]
def once():
    mask.decode(mask.encode(image), prompts[0])
def batches():
    encoded, times = batches.encoded, {}
    for name, calls in (("batched", [prompts]), ("one_by_one", [[each] for each in prompts])):
        held = core_s()
        for call in calls:
            list(mask.decode_raw(encoded, call, False))
        times[name] = core_s() - held
    return times
if count:
    batches.encoded = mask.encode(image)
answer(batches if count else once)
"""
THEIRS = """
from samexporter.sam_onnx import SegmentAnythingONNX
model = SegmentAnythingONNX(sys.argv[1], sys.argv[2])
prompt = [{"type": "rectangle", "data": [400, 300, 900, 800], "label": 1}]
def once():
    model.predict_masks(model.encode(image), prompt)
answer(once)
"""


class Side:
    """A process that segments an image whenever it is asked."""

    def __init__(self, python: str, program: str, *arguments: str) -> None:
        command = [python, "-c", COMMON + program, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def take(self) -> dict[str, float]:
        """Return what the next image takes."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"a side ended with exit code {self._process.wait()}")
        found: dict[str, float] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def make_checkpoint(name: str, scratch: Path) -> Path:
    """Write a checkpoint with random weights, unless it is there."""
    import torch

    file = scratch / f"{name}.pt"
    if file.exists():
        return file
    if name == "vit_b":
        from segment_anything import sam_model_registry
    else:
        from mobile_sam import sam_model_registry
    torch.manual_seed(0)
    sam = sam_model_registry["vit_b" if name == "vit_b" else "vit_t"]()
    for parameter_name, parameter in sam.named_parameters():
        if "rel_pos" in parameter_name or "pos_embed" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.3)
    torch.save(sam.state_dict(), file)
    return file


def export_ours(checkpoint: Path, scratch: Path) -> Path:
    """Export a checkpoint's two graphs, unless they are there."""
    folder = scratch / f"{checkpoint.stem}.graphs"
    if not folder.exists():
        from wise_edge.export.to_onnx.segmenter import SamSource

        folder.mkdir()
        SamSource(checkpoint).export(folder, "fp32", False, [], lambda *_: None)
    return folder


def export_theirs(python: str, checkpoint: Path, kind: str) -> list[str]:
    """Export a checkpoint with samexporter as its readme does, unless the files are there."""
    files = []
    for part, options in (("encoder", ()), ("decoder", ("--return-single-mask",))):
        file = checkpoint.with_name(f"samexporter.{checkpoint.stem}.{part}.onnx")
        command = [python, "-m", f"samexporter.export_{part}", "--checkpoint", str(checkpoint), "--output", str(file)]
        if not file.exists():
            subprocess.run([*command, "--model-type", kind, *options], check=True, stdout=subprocess.DEVNULL)
        files.append(str(file))
    return files


def compare(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure a model, in alternation with samexporter, and prompts in a batch and one by one."""
    checkpoint = make_checkpoint(name, options.scratch)
    folder = export_ours(checkpoint, options.scratch)
    sides = {"wise_edge": Side(sys.executable, OURS, str(folder), str(checkpoint), "0")}
    if options.samexporter:
        files = export_theirs(options.samexporter, checkpoint, MODELS[name])
        sides["samexporter"] = Side(options.samexporter, THEIRS, *files)
    taken: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(options.images):
        for side, process in sides.items():
            taken[side].append(process.take())
    for process in sides.values():
        process.close()
    figures: dict[str, Any] = {}
    for side, rows in taken.items():
        figures[f"{name}, {side}, core s"] = float(np.median([row["core_s"] for row in rows]))
        figures[f"{name}, {side}, peak GB"] = rows[-1]["peak_gb"]
    if len(taken) == 2:
        for unit in ("core s", "peak GB"):
            ours, theirs = (figures[f"{name}, {side}, {unit}"] for side in ("wise_edge", "samexporter"))
            figures[f"{name}, ratio of {unit}"] = ours / theirs
    if options.prompts:
        side_by_side = Side(sys.executable, OURS, str(folder), str(checkpoint), str(options.prompts))
        times = side_by_side.take()
        side_by_side.close()
        figures[f"{name}, {options.prompts} boxes, one by one / batched"] = times["one_by_one"] / times["batched"]
        figures[f"{name}, a box in a batch, core ms"] = 1e3 * times["batched"] / options.prompts
    return figures


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--scratch", type=Path, required=True, help="checkpoints and exports stay here (1.2 GB)")
    parser.add_argument("--models", default="vit_b,mobile_sam")
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=32, help="boxes on one picture; 0 leaves them out")
    parser.add_argument("--samexporter", help="an interpreter with samexporter")
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {}
    for name in filter(None, options.models.split(",")):
        figures |= compare(name, options)
    print_figures(figures, options.json)


if __name__ == "__main__":
    main()
