"""Write a tokenizer.json from the vocabulary of Qwen2 that llama.cpp's sources carry: all of it, or what tests need.

    pip download --no-deps --no-binary :all: llama-cpp-python==0.3.36    # 60 MB; then unpack it
    python scripts/extract_vocabulary.py vendor/llama.cpp/models/ggml-vocab-qwen2.gguf tests/support/data/qwen2.json.gz
    python scripts/extract_vocabulary.py vendor/llama.cpp/models/ggml-vocab-qwen2.gguf build/qwen2.json --all
    WISE_EDGE_QWEN2=build/qwen2.json pytest tests/runtimes/test_writing_forms.py -k vocabulary

The extract has every merge of punctuation and white space, and those of the words below behind each such character. It
cuts texts of them as the whole vocabulary does: the merges that Qwen2 applies to them are all there, in their order.
The vocabulary is Qwen's (https://huggingface.co/Qwen/Qwen2-7B, Apache-2.0), its numbers here are not.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import string
from pathlib import Path

import gguf
from tokenizers import pre_tokenizers

SPLIT = (  # https://huggingface.co/Qwen/Qwen2-7B/blob/main/tokenizer.json
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MARKUP = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
WORDS = (
    *("think", "answer", "d", "bbox", "points", "point", "label", "json", "The", "the", "ring", "red", "mug", "big"),
    *("small", "left", "dotted", "Find", "it", "Answer", "only", "Think", "briefly", "step", "by", "explain", "s", "a"),
    *("b", "x", "n", "p", "y", "u", "i", "system", "user", "assistant", "é", "ü", "日本", "center", "box", "End"),
)
MARKS = [*string.punctuation, " ", "\n", "\t", ""]


def main() -> None:
    """Write the file that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--all", action="store_true", help="write the whole vocabulary")
    options = parser.parse_args()
    fields = gguf.GGUFReader(options.gguf).fields
    merges = [tuple(line.split(" ")) for line in fields["tokenizer.ggml.merges"].contents()]
    if not options.all:
        merges = _needed(merges)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *dict.fromkeys("".join(pair) for pair in merges)]
    text = json.dumps(_tokenizer(tokens, merges), ensure_ascii=False, separators=(",", ":"))
    data = text.encode()
    options.out.write_bytes(gzip.compress(data, mtime=0) if options.out.suffix == ".gz" else data)
    print(f"{options.out}: {len(tokens)} tokens, {len(merges)} merges, {options.out.stat().st_size} bytes")


def _needed(merges: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    marks = {_spell(mark) for mark in MARKS}
    used = {pair for pair in merges if {*"".join(pair)} <= marks}
    for word in WORDS:
        for mark in MARKS:
            used |= _applied(list(_spell(mark + word)), ranks)
    return sorted(used, key=ranks.__getitem__)


def _applied(pieces: list[str], ranks: dict[tuple[str, ...], int]) -> set[tuple[str, ...]]:
    """Return the merges that byte-pair encoding applies to a word, the most frequent pair first."""
    applied = set()
    while pairs := [pair for pair in itertools.pairwise(pieces) if pair in ranks]:
        best = min(pairs, key=ranks.__getitem__)
        applied.add(best)
        place = list(itertools.pairwise(pieces)).index(best)
        pieces[place : place + 2] = ["".join(best)]
    return applied


def _spell(text: str) -> str:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return "".join(piece for piece, _ in byte_level.pre_tokenize_str(text))


def _tokenizer(tokens: list[str], merges: list[tuple[str, ...]]) -> dict[str, object]:
    bytes_only = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False},
                bytes_only,
            ],
        },
        "decoder": bytes_only,
        "added_tokens": [{"id": len(tokens) + place, "content": name, **special} for place, name in enumerate(MARKUP)],
        "model": {
            "type": "BPE",
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [list(pair) for pair in merges],
        },
    }


if __name__ == "__main__":
    main()
