"""Compares masks of segmenters' graphs in each precision with torch's, prompted by true boxes and points of scenes.

    python benchmarks/sam_precisions.py [--sams embedded,DIR] [--precisions fp32,fp16,int8] [--samples 100]

Graphs are calibrated on 16 scenes of the train split, and run by ONNX Runtime on the CPU. Random weights say nothing of
accuracy: give checkpoints that were trained on scenes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from wise_edge.bundle.store import resolve_checkpoint
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.export.source.calibration import read_calibration
from wise_edge.export.to_onnx.segmenter import SamSource
from wise_edge.metrics import mask_iou
from wise_edge.runtimes.base import MaskPrompt
from wise_edge.runtimes.graphs.onnx_runtime import OnnxGraph
from wise_edge.runtimes.mask.graph import GraphMask
from wise_edge.runtimes.mask.torch_mask import open_torch_mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sams", default="embedded", help="names of segmenters that ship, or checkpoints")
    parser.add_argument("--precisions", default="fp32,fp16,int8")
    parser.add_argument("--samples", type=int, default=100, help="test scenes")
    options = parser.parse_args()
    examples = [SceneDataset("test")[place] for place in range(options.samples)]
    calibration = read_calibration(None, 16)
    for name in options.sams.split(","):
        checkpoint = resolve_checkpoint(name, "sam")
        source, torch = SamSource(checkpoint), open_torch_mask(checkpoint)
        prompts = [MaskPrompt(example.box, example.points) for example in examples]
        expected = [torch.decode(torch.encode(e.image), p).mask for e, p in zip(examples, prompts, strict=True)]
        truth = np.mean([mask_iou(mask, example.mask) for mask, example in zip(expected, examples, strict=True)])
        print(f"{name}: {source.spec.family}, mask IoU with the truth in torch {truth:.3f}", flush=True)
        for precision in options.precisions.split(","):
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                artifacts = source.export(folder, precision, False, calibration, lambda *_: None)
                graphs = [OnnxGraph(folder / f"sam.{part}.onnx") for part in ("encoder", "decoder")]
                mask = GraphMask("onnx", source.spec, *graphs)
                pairs = zip(examples, prompts, expected, strict=True)
                ious = [mask_iou(mask.decode(mask.encode(e.image), p).mask, other) for e, p, other in pairs]
            encoder, decoder = (artifact.bytes / 1e6 for artifact in artifacts)
            print(
                f"  {precision:5} encoder {encoder:6.2f} MB  decoder {decoder:6.2f} MB  "
                f"mask IoU with torch: mean {np.mean(ious):.4f}, least {np.min(ious):.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
