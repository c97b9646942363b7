"""Measures building TensorRT for RTX engines ahead of time, for SM86, SM89 and SM120 at once, in fp16: time and memory.

    python benchmarks/engines.py --scratch DIR [--segmenters embedded,vit_b,hiera-tiny] [--json FILE]

Needs no GPU. The segmenters are the embedded one and, of published size with random weights, Segment Anything's vit_b,
SAM 2's hiera-tiny, mobile_sam, edgetam and efficientvit-l0; the policy is the embedded one. Each engine is built in its
own process, whose peak memory is the kernel's VmHWM. Exported bundles stay in DIR (which needs 2 GB) for later runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from segment_anything import build_sam_vit_b

from wise_edge.bundle.devices import parse_gpu_kinds
from wise_edge.bundle.roles import GRAPHS
from wise_edge.bundle.store import load
from wise_edge.export.options import ExportOptions
from wise_edge.export.pipeline import export_bundle
from wise_edge.export.to_tensorrt.plan import plan_engines

DEVICES = "sm86,sm89,sm120"
BUILD = """
import json, sys, time
from pathlib import Path
from wise_edge.bundle.store import load
from wise_edge.bundle.devices import parse_gpu_kinds
from wise_edge.bundle.engines import BuildPlan, source_hash
from wise_edge.export.to_tensorrt.build import EngineRequest, build_engine
folder, plan, graph = Path(sys.argv[1]), BuildPlan.read(Path(sys.argv[2])), sys.argv[3]
bundle = load(folder)
ranges = next(part.ranges for part in plan.graphs if part.graph == graph)
targets = parse_gpu_kinds(",".join(plan.targets))
request = EngineRequest(graph, bundle.file(graph), source_hash(bundle, graph), ranges, targets)
started = time.perf_counter()
sidecar = build_engine(request, folder.parent / f"{folder.name}.{graph}.engine", lambda share: None)
seconds = time.perf_counter() - started
peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"s": seconds, "peak_bytes": peak, "engine_bytes": sidecar.bytes, "types": sidecar.types}))
"""


def make_segmenter(name: str, scratch: Path) -> str:
    """Return the checkpoint of a segmenter, made with random weights where it is not embedded."""
    if name == "embedded":
        return name
    torch.manual_seed(0)
    target = scratch / (name if name in FOLDERS else f"{name}.pt")
    if not target.exists() and name in FOLDERS:
        FOLDERS[name]().save_pretrained(target)
    elif not target.exists():
        torch.save(FILES[name]().state_dict(), target)
    return str(target)


def _make_edgetam() -> Any:
    arguments = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    trunk = transformers.TimmWrapperConfig(architecture="repvit_m1", model_args=arguments)
    vision = transformers.EdgeTamVisionConfig(backbone_config=trunk)
    return transformers.EdgeTamModel(transformers.EdgeTamConfig(vision_config=vision))


def _make_mobile_sam() -> Any:
    from mobile_sam import sam_model_registry

    return sam_model_registry["vit_t"]()


def _make_efficientvit() -> Any:
    from efficientsam.sam_model_zoo import create_efficientvit_sam_model

    return create_efficientvit_sam_model("efficientvit-sam-l0", pretrained=False)


FILES: dict[str, Callable[[], Any]] = {
    "vit_b": build_sam_vit_b,
    "mobile_sam": _make_mobile_sam,
    "efficientvit-l0": _make_efficientvit,
}
FOLDERS: dict[str, Callable[[], Any]] = {
    "hiera-tiny": lambda: transformers.Sam2Model(transformers.Sam2Config()),
    "edgetam": _make_edgetam,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--segmenters", default="embedded,vit_b,hiera-tiny")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.segmenters.split(","):
        folder = arguments.scratch / f"bundle-{name}"
        if not folder.exists():
            options = ExportOptions(onnx_precision="fp16", sam_precision="fp16", samples=2)
            sam = make_segmenter(name, arguments.scratch)
            export_bundle(
                "embedded",
                sam,
                folder,
                options,
                verify=None,
                progress=lambda step, share=None: print(step, file=sys.stderr),
            )
        plan = arguments.scratch / f"{folder.name}.json"
        plan.write_text(plan_engines(load(folder), parse_gpu_kinds(DEVICES)).to_json())
        for graph in GRAPHS:
            if graph.startswith("policy") and name != "embedded":
                continue
            command = [sys.executable, "-c", BUILD, str(folder), str(plan), graph]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row = {"model": f"{name} {graph}", **json.loads(done.stdout)}
            rows.append(row)
            print(
                f"{row['model']:28} {row['s']:6.1f} s  peak {row['peak_bytes'] / 1e9:5.2f} GB  "
                f"engine {row['engine_bytes'] / 1e6:6.1f} MB"
            )
    if arguments.json:
        arguments.json.write_text(json.dumps({"devices": DEVICES, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
