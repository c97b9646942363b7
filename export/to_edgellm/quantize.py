"""Run NVIDIA's quantization with our own images and texts, in a separate process.

    python -m wise_edge.export.to_edgellm.quantize CHECKPOINT OUT METHOD SAMPLES

It registers itself with torch, logs to stdout and downloads data if it gets none; a child process isolates all that.
SAMPLES is a folder with `samples.json`, whose `samples` are a list of [image, query, text].
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from tensorrt_edgellm.quantization.quantize import quantize_and_export

from wise_edge.files.documents import read_json

_MOST_BYTES = 100_000_000  # of 1,000 samples with the longest queries and answers


def main(checkpoint: str, out: str, method: str, samples: str) -> None:
    """Write a checkpoint whose language model is quantized."""
    folder = Path(samples)
    listed: list[tuple[str, str, str]] = read_json(folder / "samples.json", _MOST_BYTES)["samples"]

    def images() -> Iterator[tuple[Any, str]]:
        for image, query, _ in listed:
            yield Image.open(folder / image).convert("RGB"), query

    def texts() -> Iterator[str]:
        yield from (text for _, _, text in listed)

    quantize_and_export(
        model_dir=checkpoint,
        output_dir=out,
        quantization=None if method == "fp16" else method,
        device="cpu",
        text_dataset=texts,
        image_dataset=images,
        num_samples=len(listed),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
