"""A small byte-level BPE tokenizer in the style of Qwen2, trained on the texts of scenes.

Each digit is a token, and Qwen2.5-VL's special tokens have their usual names, so any tool that reads a Qwen tokenizer
reads this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer

from wise_edge.policy.prompts import EMBEDDED, VARIANTS
from wise_edge.scenes import completion, sample

SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's, from https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct/blob/main/tokenizer.json."""

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Qwen2.5-VL's, in its order."""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a tokenizer.

    Args:
        texts: training texts; the same texts yield the same tokenizer.
        vocab_size: upper bound of its size, including special tokens.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = NFC()
    tokenizer.pre_tokenizer = Sequence(
        [Split(Regex(SPLIT_PATTERN), behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Added after training, so that their ids follow the vocabulary's, as in Qwen's.
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    return tokenizer


def scene_texts(count: int, seed: int, size: int) -> Iterator[str]:
    """Yield `count` texts of training scenes: queries and completions of every variant in turn.

    Args:
        count: number of texts.
        seed: seed of the rationales' lengths.
        size: side of the resized square of the coordinates, px.
    """
    rng = Random(f"{seed}/tokenizer")
    for i in range(count):
        variant = VARIANTS[i % len(VARIANTS)]
        if i % len(VARIANTS) == 0:
            labeled = sample("train", i // len(VARIANTS))
        user = "".join(EMBEDDED.user_text(labeled.request, variant))
        yield f"system\n{EMBEDDED.system}\nuser\n{user}\nassistant\n{completion(labeled, variant, rng, size)}"


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the id of each special token."""
    return {token: token_id(tokenizer, token) for token in SPECIAL_TOKENS}


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of a token; raises KeyError if the tokenizer does not have it."""
    index = tokenizer.token_to_id(token)
    if index is None:
        raise KeyError(token)
    return index
