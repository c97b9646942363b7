"""Compares masks of the embedded segmenter with int8 and float32 image encoders, prompted by true boxes and points.

    python benchmarks/sam_int8.py [--samples 200] [--bundle DIR]

Exports the embedded models with `--sam-precision int8` (calibrated on 16 scenes of the train split), unless --bundle
names such a bundle.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from wise_edge.bundle.store import load, resolve_bundle
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.metrics import mask_iou
from wise_edge.runtimes.base import MaskPrompt
from wise_edge.runtimes.session import Session


def export(out: Path) -> None:
    command = [sys.executable, "-m", "wise_edge", "export", "--policy", "embedded", "--sam", "embedded"]
    command += ["--sam-precision", "int8", "--samples", "16", "--no-verify", "--out", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the segmenter in int8 with float32.")
    parser.add_argument("--samples", type=int, default=200, help="test scenes")
    parser.add_argument("--bundle", type=Path, help="a bundle with an int8 segmenter")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bundle = options.bundle or Path(scratch) / "int8"
        if options.bundle is None:
            export(bundle)
        masks = [Session.from_bundle(b, mask_backend="onnx", threads=1).mask for b in ("embedded", bundle)]
        sizes = [load(resolve_bundle(b)).artifact("sam.encoder").bytes for b in ("embedded", bundle)]
    dataset = SceneDataset("test")
    ious, spent_ms = [], [[], []]
    for place in range(options.samples):
        example = dataset[place]
        outputs = []
        for mask, spent in zip(masks, spent_ms, strict=True):
            frame = mask.encode(example.image)
            outputs.append(mask.decode(frame, MaskPrompt(example.box, example.points)).mask)
            spent.append(frame.encode_ms)
        ious.append(mask_iou(*outputs))
    print(f"image encoder {sizes[0] / 1000:.0f} kB -> {sizes[1] / 1000:.0f} kB")
    print(f"mask IoU with float32 over {len(ious)} scenes: mean {np.mean(ious):.4f}, least {np.min(ious):.4f}")
    print(f"encoding, int8 / float32: {np.median(spent_ms[1]) / np.median(spent_ms[0]):.2f} of the time")


if __name__ == "__main__":
    main()
