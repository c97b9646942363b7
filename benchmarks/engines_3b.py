"""Measures a policy of the shape of Qwen2.5-VL-3B from checkpoint to TensorRT for RTX engines: memory and time.

    python benchmarks/engines_3b.py --scratch DIR [--precisions fp16,int4] [--layers 36] [--json FILE]

Needs no GPU; DIR needs several times the 7.5 GB of the checkpoint, which is created there (random weights, images of
840 px) and kept for later runs. Export and build run in their own processes; reported is the peak of their anonymous
memory, read every 0.2 s, which must fit into RAM. Memory-mapped files do not count.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from engines import BUILD
from gguf_streaming import find_checkpoint

from wise_edge.bundle.devices import parse_gpu_kinds
from wise_edge.bundle.store import load
from wise_edge.export.to_tensorrt.plan import plan_engines

DEVICE = "sm89"
_EXPORT = """
import sys
from pathlib import Path
from wise_edge.export.source import reference
from wise_edge.export.options import ExportOptions
from wise_edge.export.pipeline import export_bundle
reference.MAX_ANSWER_TOKENS = 16  # random weights never end an answer, and each token takes seconds
checkpoint, out, precision = sys.argv[1:]
# A kit: the graphs of engines, which are not built here but below, each by itself.
options = ExportOptions(targets=("tensorrt",), device="orin", onnx_precision=precision, samples=1)
say = lambda step, share=None: print(step, file=sys.stderr)
export_bundle(checkpoint, "embedded", Path(out), options, verify=None, progress=say)
"""


def measure(command: list[str]) -> dict[str, Any]:
    """Run a process; return its seconds, its peak of anonymous memory in bytes and its output."""
    started, peak_kb = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        lines = status.read_text().splitlines()
        peak_kb = max(peak_kb, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)
        time.sleep(0.2)
    output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode} at {peak_kb / 1e6:.1f} GB: {' '.join(command)[:200]}")
    return {"s": time.perf_counter() - started, "peak_bytes": peak_kb * 1024, "output": output.strip()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--precisions", default="fp16,int4")
    parser.add_argument("--layers", type=int, default=36)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    checkpoint = find_checkpoint(options.scratch, options.layers)
    rows = []
    for precision in options.precisions.split(","):
        bundle, plan = options.scratch / f"bundle-{precision}", options.scratch / f"plan-{precision}.json"
        shutil.rmtree(bundle, ignore_errors=True)
        found = measure([sys.executable, "-c", _EXPORT, str(checkpoint), str(bundle), precision])
        rows.append({"step": f"{precision} export", "s": found["s"], "peak_bytes": found["peak_bytes"]})
        plan.write_text(plan_engines(load(bundle), parse_gpu_kinds(DEVICE)).to_json())
        for graph in ("policy.vision", "policy.decoder"):
            found = measure([sys.executable, "-c", BUILD, str(bundle), str(plan), graph])
            built = json.loads(found["output"])
            rows.append(
                {
                    "step": f"{precision} {graph}",
                    "s": built["s"],
                    "peak_bytes": found["peak_bytes"],
                    "engine_bytes": built["engine_bytes"],
                    "types": built["types"],
                }
            )
            (options.scratch / f"{bundle.name}.{graph}.engine").unlink()
        shutil.rmtree(bundle)
        for row in rows[-3:]:
            size = f"  engine {row['engine_bytes'] / 1e9:.2f} GB" if "engine_bytes" in row else ""
            print(f"{row['step']:22} {row['s']:6.0f} s  peak {row['peak_bytes'] / 1e9:5.1f} GB{size}", flush=True)
    if options.json:
        document = {"layers": options.layers, "device": DEVICE, "rows": rows}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
