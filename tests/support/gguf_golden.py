"""Digests of what llama.cpp's own converter makes of the models of `tiny_qwen`, kept in `data/gguf.json`.

    python tests/support/gguf_golden.py LLAMA_CPP     writes them anew; LLAMA_CPP is a checkout of llama.cpp (made with
                                              the one in llama-cpp-python 0.3.36), and sentencepiece is installed

The official converter knows a pre-tokenizer by a hash of what the tokenizer makes of a text; the tiny tokenizer is
none that it knows, so it is told what it would find for the published models.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent / "data" / "gguf.json"
TYPES = ("F32", "F16", "BF16")
PARTS = ("text", "vision")
LABELS = ("general.name", "general.size_label")
"""Metadata that only names the file; the converters may differ in it."""

_OFFICIAL = """
import sys
llama_cpp = sys.argv.pop(1)
sys.path[:0] = [f"{llama_cpp}/gguf-py", llama_cpp]
import conversion.base
pre_tokenizer = sys.argv.pop(1)
conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: pre_tokenizer
import convert_hf_to_gguf
convert_hf_to_gguf.main()
"""


def digest(file: Path) -> dict[str, Any]:
    """Return a GGUF file's tensors (type, shape, hash of the bytes) in order, and its metadata."""
    from gguf import GGUFReader

    reader = GGUFReader(file)
    tensors = [
        [tensor.name, tensor.tensor_type.name, [int(side) for side in tensor.shape], _hash(tensor.data)]
        for tensor in reader.tensors
    ]
    fields = {name: _short(field.contents()) for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    return {"tensors": tensors, "metadata": {name: fields[name] for name in sorted(fields) if name not in LABELS}}


def _hash(data: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(data).tobytes()).hexdigest()[:16]


def _short(value: Any) -> Any:
    if isinstance(value, list) and len(value) > 16:
        return f"{len(value)} entries, {hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]}"
    return value


def main() -> None:
    from tiny_qwen import FAMILIES, make_qwen, save_qwen

    golden = {}
    with tempfile.TemporaryDirectory() as scratch:
        for family in FAMILIES:
            folder = save_qwen(make_qwen(family), Path(scratch) / family)
            pre_tokenizer = "qwen35" if family == "qwen3_5" else "qwen2"
            for kind in TYPES:
                for part in PARTS:
                    out = Path(scratch) / f"{family}-{kind}-{part}.gguf"
                    options = ["--outtype", kind.lower(), "--outfile", out, *["--mmproj"] * (part == "vision")]
                    options += ["--no-mtp"] * (family == "qwen3_5" and part == "text")  # it has no layers that draft
                    command = [sys.executable, "-c", _OFFICIAL, sys.argv[1], pre_tokenizer, folder, *options]
                    subprocess.run([str(word) for word in command], check=True, capture_output=True)
                    golden[f"{family} {kind} {part}"] = digest(out)
    GOLDEN.write_text(json.dumps(golden, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
