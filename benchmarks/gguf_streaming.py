"""Measures converting a checkpoint of the shape of Qwen2.5-VL-3B (7.5 GB, random weights) to GGUF: memory and speed.

    python benchmarks/gguf_streaming.py --scratch DIR [--layers 36] [--type F16]

Creates the checkpoint in DIR (kept for later runs; DIR needs 25 GB) and converts it in its own process. Compares the
process's peak memory, the kernel's ru_maxrss (which includes mapped pages of files), with 1 GB plus twice the largest
tensor, and its MB/s with `cp` of the same checkpoint to the same disk. Both may read from the page cache.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

from wise_edge.bundle.store import resolve_checkpoint
from wise_edge.export.to_gguf.convert import PolicyGguf
from wise_edge.policy.prompts import DEFAULT

SHARDS = 2
_TOKENS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
_SIDE_PX = 840
_COPIED = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
_CONVERT = """
import json, resource, sys, time
from pathlib import Path
from wise_edge.export.to_gguf.convert import PolicyGguf
source, out, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
started = time.perf_counter()
policy = PolicyGguf(source)
loaded_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
policy.write_text(out / "text.gguf", kind, lambda *_: None)
policy.write_vision(out / "vision.gguf", kind, lambda *_: None)
peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"s": time.perf_counter() - started, "peak_bytes": peak_kb * 1024, "loaded_bytes": loaded_kb * 1024}))
"""


def find_checkpoint(scratch: Path, layers: int) -> Path:
    """Return the folder of a policy like `make_checkpoint`'s in a scratch folder; make it if it is not there yet."""
    folder = scratch / f"qwen2.5-vl-{layers}-layers"
    if not (folder / "preprocessor_config.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # In a separate process: a child's ru_maxrss begins with that of the process that starts it.
        make = multiprocessing.get_context("spawn").Process(target=make_checkpoint, args=(folder, layers))
        make.start()
        make.join()
    return folder


def make_checkpoint(folder: Path, layers: int) -> None:
    """Write a policy shard by shard: sizes of Qwen2.5-VL-3B-Instruct, images of 840 px, the embedded tokenizer."""
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": layers,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128000,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 2048,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters() if name != "lm_head.weight"}
    generator = torch.Generator().manual_seed(0)
    names = sorted(shapes)
    weight_map = {}
    for shard in range(SHARDS):
        part = names[shard::SHARDS]
        file = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        save_file({name: draw(shapes[name], generator) for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    embedded = resolve_checkpoint("embedded", "policy")
    tokens = transformers.AutoConfig.from_pretrained(embedded)
    config.update({name: getattr(tokens, name) for name in _TOKENS})
    config.save_pretrained(folder)
    (folder / "prompts.json").write_text(json.dumps(DEFAULT.to_dict()))
    for name in _COPIED:
        shutil.copyfile(embedded / name, folder / name)
    processor = json.loads((embedded / "preprocessor_config.json").read_text())
    processor["size"] = {"shortest_edge": _SIDE_PX**2, "longest_edge": _SIDE_PX**2}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def draw(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.bfloat16).normal_(std=0.02, generator=generator)


def copy_s(files: list[Path], out: Path) -> float:
    """Return the seconds that `cp` takes, including flushing the copy to disk."""
    out.mkdir()
    started = time.perf_counter()
    subprocess.run(["cp", *map(str, files), str(out)], check=True)
    subprocess.run(["sync", *map(str, out.iterdir())], check=True)
    spent = time.perf_counter() - started
    shutil.rmtree(out)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description="Convert a checkpoint of the shape of Qwen2.5-VL-3B.")
    parser.add_argument("--scratch", type=Path, required=True, help="folder with room for 25 GB")
    parser.add_argument("--layers", type=int, default=36, help="layers of the language model")
    parser.add_argument("--type", default="F16", choices=("F32", "F16", "BF16"), help="type to convert to")
    options = parser.parse_args()
    source = find_checkpoint(options.scratch, options.layers)
    files = sorted(source.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    copying = copy_s(files, options.scratch / "copy")
    out = options.scratch / "gguf"
    out.mkdir()
    command = [sys.executable, "-c", _CONVERT, str(source), str(out), options.type]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    shutil.rmtree(out)
    tensors = PolicyGguf(source)._tensors
    width = 4 if options.type == "F32" else 2
    largest = width * max(torch.Size(tensors.shape(name)).numel() for name in tensors)
    bound = 1e9 + 2 * largest
    print(f"checkpoint {size / 1e9:.2f} GB, largest tensor {largest / 1e6:.0f} MB as {options.type}")
    print(f"cp {copying:.1f} s, {size / 1e6 / copying:.0f} MB/s")
    print(f"to {options.type} {found['s']:.1f} s, {size / 1e6 / found['s']:.0f} MB/s, {copying / found['s']:.2f} of cp")
    print(
        f"peak memory {found['peak_bytes'] / 1e6:.0f} MB ({found['loaded_bytes'] / 1e6:.0f} MB before the first "
        f"tensor), bound {bound / 1e6:.0f} MB: {'within' if found['peak_bytes'] <= bound else 'BEYOND'}"
    )
    sys.exit(found["peak_bytes"] > bound)


if __name__ == "__main__":
    main()
