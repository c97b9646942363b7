"""A prompt's tokens are those of its whole text, and what runtimes keep of it is the same for every query."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from policies.qwen2_vocabulary import qwen2_tokenizer
from tiny_models import SPECIAL
from wise_edge.bundle.store import load, resolve_bundle
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.errors import UsageError
from wise_edge.policy.prompts import PromptSet, Template
from wise_edge.runtimes.policy.prompt import Prompt
from wise_edge.runtimes.policy.text import PolicyText

BUNDLE = load(resolve_bundle("embedded"))
SPEC = BUNDLE.manifest.policy
GRID = (5, 3)
WORDS = {
    "first": "{query}",
    "quoted": "Please find '{query}' with its box.",
    "double": 'Where is "{query}"?',
    "space": "Find {query} and answer.",
    "line": "Find:\n{query}\nAnswer:\n",
    "lines": "Find:\n\n\n{query}\n\n",
    "bracket": "find({query})",
    "brace": '{"query": "{query}"} -> {"bbox": [x, y]}',
    "joined": "the{query}s",
    "digit": "No. 1{query}2",
    "tag": "<query>{query}</query>",
    "dash": "--{query}--",
    "umlaut": "Zeig mir »{query}« über dem Tisch",
    "chinese": "请找到{query}。",
    "tab": "\t{query}\t",
}
USERS = [
    *WORDS.values(),
    *(f"Look at {{image}}. {words}" for words in WORDS.values()),
    "{query} in {image}?",
    "Is '{query}' in {image}\n?",
    "the {query}{image}",
]
QUERIES = ["the mug", "A mug", "'tis so", '"quoted" mug', "3 mugs", "42", "(left) ring", "größte Tasse", "左边的三角形"]
QUERIES += ["s", ",", "🙂", "{query}", "é", "the red ring at the left of the large blue star"]


def merging_tokenizer() -> Tokenizer:
    """Merges across words, as no published tokenizer does: no text is cut before its bytes are merged."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [
        ("'", "t"),
        ("\u0120", "t"),
        ("'", "z"),
        ("\u0120", "s"),
        ("(", "("),
        ("\u0120", "3"),
        ("e", "s"),
        ("s", "s"),
    ]
    vocab = {letter: index for index, letter in enumerate([*letters, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


@pytest.fixture(scope="module", params=["embedded", "merging", "qwen2"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "embedded":
        return BUNDLE.file("policy.tokenizer")
    folder = tmp_path_factory.mktemp("tokenizer")
    if request.param == "qwen2":
        return qwen2_tokenizer(folder)
    file = folder / "tokenizer.json"
    merging_tokenizer().save(str(file))
    return file


def text_of(file: Path, user: str, system: str = "Look.", **entries: Any) -> PolicyText:
    prompts = PromptSet("mine", system, {"v": Template(user, **entries)})
    return PolicyText(file, replace(SPEC, prompts=prompts, default_variant="v", max_positions=4096))


def tokens_of(prompt: Prompt) -> list[int]:
    placeholder = Tokenizer.from_file(str(BUNDLE.file("policy.tokenizer"))).token_to_id("<|image_pad|>")
    return [*prompt.prefix.before, *[placeholder] * prompt.prefix.image_tokens, *prompt.prefix.after, *prompt.suffix]


@pytest.mark.parametrize("user", USERS)
def test_tokens_are_those_of_the_whole_text(tokenizer: Path, user: str) -> None:
    text = text_of(tokenizer, user)
    placeholder = text.encode("<|image_pad|>")
    for query in QUERIES:
        prompt = text.prompt(query, "v", GRID)
        expected = text.encode(text._spec.prompts.render(query, "v", 15))
        found = [*prompt.prefix.before, *placeholder * 15, *prompt.prefix.after, *prompt.suffix]
        assert found == expected, query
        assert prompt.suffix
        assert prompt.length == len(expected)
        assert prompt.prefix.grid == GRID and prompt.prefix.end == prompt.prefix.image_end + len(prompt.prefix.after)


def test_ordinary_queries_share_all_that_precedes_them(tokenizer: Path) -> None:
    shared = {
        "Please find '{query}' now.": "<|vision_end|>Please find '",
        "Look: {image} Where is\n{query}": "<|vision_end|> Where is\n",
    }
    for user, words in shared.items():
        text = text_of(tokenizer, user)
        prefix = text.prefix("v", GRID)
        assert prefix is not None
        found = text.decode(list(prefix.after))
        assert found == words or tokenizer != BUNDLE.file("policy.tokenizer")
        assert words.startswith(found)
        prefixes = [text.prompt(query, "v", GRID).prefix for query in ("the mug", "Anna's mug", "7 mugs")]
        assert prefixes == [prefix] * 3


def test_a_query_that_merges_with_the_word_before_it_shares_less(tmp_path: Path) -> None:
    merging_tokenizer().save(str(tmp_path / "tokenizer.json"))
    text = text_of(tmp_path / "tokenizer.json", "find({query}")
    usual, merged = (text.prompt(query, "v", GRID).prefix for query in ("mug", "(left) ring"))
    assert usual == text.prefix("v", GRID)
    assert text.decode(list(usual.after)) == "<|vision_end|>find("
    assert merged.before == usual.before and merged.after == usual.after[:-1]


def test_a_query_before_the_picture_leaves_no_common_prefix(tokenizer: Path) -> None:
    text = text_of(tokenizer, "{query} in {image}?")
    assert text.prefix("v", GRID) is None
    first, second = (text.prompt(query, "v", GRID) for query in ("the mug", "the ring"))
    assert first.prefix.before != second.prefix.before
    assert first.suffix == second.suffix
    assert text.decode(list(first.prefix.after)) == "<|vision_end|>"


def test_the_embedded_prompt_is_what_its_parts_were() -> None:
    text = PolicyText(BUNDLE.file("policy.tokenizer"), SPEC)
    samples = SceneDataset("test")
    for place in range(5):
        for variant in SPEC.prompts.variants:
            prompt = text.prompt(samples[place].query, variant, (4, 4))
            parts = SPEC.prompts.parts(samples[place].query, variant)
            assert tokens_of(prompt) == [*text.encode(parts.prefix(16)), *text.encode(parts.rest)]
            assert prompt.suffix == text.encode(parts.rest)


def test_wording_that_leaves_no_room_is_not_blamed_on_the_query() -> None:
    text = PolicyText(
        BUNDLE.file("policy.tokenizer"),
        replace(SPEC, prompts=PromptSet("n", "", {"v": Template("{query}" + " word" * 5000)}), default_variant="v"),
    )
    with pytest.raises(UsageError, match="the words of the variant 'v' leave no room for a query; shorten them"):
        text.prompt("the mug", "v", GRID)


ENDS = {
    "answer": (("<answer>{}</answer>", ("END",)), "answer", "<answer>{}</answer>"),
    "stop": (("It is END", ("END",)), "end", "It is "),
    "first-of-two": (("one two", ("two", "one")), None, ""),
    "part": (("It is EN", ("END",)), None, "It is EN"),
}


@pytest.mark.parametrize("case", ENDS)
def test_a_stop_text_ends_a_completion_and_is_left_out(case: str) -> None:
    (written, stops), finish, kept = ENDS[case]
    text = text_of(BUNDLE.file("policy.tokenizer"), "{query}", stop=stops)
    prompt = text.prompt("the mug", "v", GRID)
    tokens: list[int] = []
    found = None
    for token in text.encode(written):
        if found := text.accept(tokens, token, prompt, 100):
            break
    assert found == (finish or ("end" if case == "first-of-two" else None))
    assert text.completion(prompt, tokens) == kept


def test_a_prefill_is_part_of_the_completion() -> None:
    text = text_of(BUNDLE.file("policy.tokenizer"), "{query}", prefill="<think>The")
    prompt = text.prompt("the mug", "v", GRID)
    assert text.decode(prompt.suffix).endswith("assistant\n<think>The")
    assert text.completion(prompt, text.encode(" ring</think>")) == "<think>The ring</think>"
