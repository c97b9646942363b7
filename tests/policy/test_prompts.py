"""The wording around a query: templates, what a prompt is made of, and the forms of `prompts.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wise_edge.errors import UsageError
from wise_edge.policy.prompts import DEFAULT, EMBEDDED, VARIANTS, PromptSet, Template, read_prompts

IMAGE = "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>"
SYSTEM = "<|im_start|>system\nLook.<|im_end|>\n"
VERSION_1: dict[str, Any] = {"name": "old", "system": "Look.", "variants": {"wise-s": "Be brief.", "answer": "Only."}}


def prompts(user: str, system: str = "Look.", style: str = "as-is", **entries: Any) -> PromptSet:
    return PromptSet("mine", system, {"short": Template(user, **entries)}, style)


RENDERED = {
    "{query}": f"<|im_start|>user\n{IMAGE}the mug<|im_end|>\n<|im_start|>assistant\n",
    "{image}{query} Be brief.": f"<|im_start|>user\n{IMAGE}the mug Be brief.<|im_end|>\n<|im_start|>assistant\n",
    'Where is "{query}"? {"bbox": [x]}': (
        f'<|im_start|>user\n{IMAGE}Where is "the mug"? {{"bbox": [x]}}<|im_end|>\n<|im_start|>assistant\n'
    ),
    "See {image}: find {query}.": (f"<|im_start|>user\nSee {IMAGE}: find the mug.<|im_end|>\n<|im_start|>assistant\n"),
    "Find {query} in {image}, then stop.": (
        f"<|im_start|>user\nFind the mug in {IMAGE}, then stop.<|im_end|>\n<|im_start|>assistant\n"
    ),
}


@pytest.mark.parametrize("user", RENDERED)
def test_a_template_says_where_query_and_picture_stand(user: str) -> None:
    assert prompts(user).render("the mug", "short", 2) == SYSTEM + RENDERED[user]
    assert prompts(user, system="").render("the mug", "short", 2) == RENDERED[user]


PARTS = {
    "{image}{query} Go.": ("", "", "the mug Go."),
    "Find '{query}' now.": ("", "Find '", "the mug' now."),
    "See {image}: find {query}.": ("See ", ": find ", "the mug."),
    "Find {query} in {image}, then stop.": ("Find the mug in ", "", ", then stop."),
}


@pytest.mark.parametrize("user", PARTS)
def test_what_no_query_changes_is_apart_from_the_query(user: str) -> None:
    before, between, rest = PARTS[user]
    parts = prompts(user, prefill="<think>").parts("the mug", "short")
    assert parts.before_image == f"{SYSTEM}<|im_start|>user\n{before}"
    assert parts.between == between
    assert parts.rest == f"{rest}<|im_end|>\n<|im_start|>assistant\n<think>"


def test_messages_hold_the_same_texts_in_the_same_order() -> None:
    image = {"type": "image", "image": "data:"}
    system = {"role": "system", "content": "Look."}
    before, after = ({"type": "text", "text": text} for text in ("See ", ": the mug"))
    found = prompts("See {image}: {query}").messages("the mug", "short", image)
    assert found == [system, {"role": "user", "content": [before, image, after]}]
    found = prompts("{query}", system="").messages("the mug", "short", image)
    assert found == [{"role": "user", "content": [image, {"type": "text", "text": "the mug"}]}]


QUERIES = {"The red Mug.": "the red mug", "v1.2 of it": "v1.2 of it", "...A dot...": "a dot"}


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_written_as_in_training(query: str) -> None:
    assert prompts("{query}").user_text(query, "short") == ("", query)
    assert prompts("{query}", style="lower-case").user_text(query, "short") == ("", QUERIES[query])


STRIPPED = {None: "the red mug.?", "": "the red mug.?", ".": "the red mug.?", ".?": "the red mug", "?.!": "the red mug"}


@pytest.mark.parametrize("strip", STRIPPED)
def test_what_is_taken_off_a_query_is_a_matter_of_the_set(strip: str | None) -> None:
    written = PromptSet("mine", "", {"short": Template("{query}")}, "lower-case", strip)
    assert written.user_text("The red mug.?", "short") == ("", STRIPPED[strip])
    kept = PromptSet("mine", "", {"short": Template("{query}")}, query_strip=strip)
    assert kept.user_text("The red mug.?", "short") == ("", STRIPPED[strip].replace("the", "The"))


def test_a_query_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(UsageError, match=r"the query '\.\.\.' has no words"):
        prompts("{query}", style="lower-case").user_text("...", "short")


@pytest.mark.parametrize("query", ["{query}", "{image}", "{image}{image} {query}", "{Question}"])
def test_places_in_a_query_are_text(query: str) -> None:
    found = prompts("See {image}: '{query}'").render(query, "short", 2)
    assert found == f"{SYSTEM}<|im_start|>user\nSee {IMAGE}: '{query}'<|im_end|>\n<|im_start|>assistant\n"


def test_version_1_renders_as_it_always_did() -> None:
    found = PromptSet.from_dict(VERSION_1)
    start = f"{SYSTEM}<|im_start|>user\n{IMAGE}the mug"
    assert found.render("the mug", "wise-s", 2) == f"{start} Be brief.<|im_end|>\n<|im_start|>assistant\n"
    assert [found.template(name).rationale for name in ("wise-s", "answer")] == [True, False]
    assert found.parts("the mug", "answer").prefix(2) == f"{SYSTEM}<|im_start|>user\n{IMAGE}"


def test_a_set_survives_json() -> None:
    templates = {
        "a": Template("{query}", "<think>", ("\n\n", "END")),
        "b.1": Template("{query} {image}", rationale=False),
    }
    for kept in (PromptSet("mine", "", templates, "lower-case"), DEFAULT, EMBEDDED, PromptSet.from_dict(VERSION_1)):
        assert PromptSet.from_dict(json.loads(json.dumps(kept.to_dict()))) == kept
        assert kept.to_dict()["version"] == 2


def test_the_default_is_wise_s_or_the_first() -> None:
    assert PromptSet.from_dict(VERSION_1).default_variant == "wise-s"
    assert PromptSet("mine", "", {"b": Template("{query}"), "a": Template("{query}")}).default_variant == "b"
    assert set(DEFAULT.variants) == set(EMBEDDED.variants) == set(VARIANTS)


def version_2(**entries: Any) -> dict[str, Any]:
    variant = {"user": "{query}"} | entries
    return {"version": 2, "name": "n", "system": "", "variants": {"v": variant}}


BAD: dict[str, tuple[Any, str]] = {
    "no-query": (version_2(user="Find it."), r"variants\.v\.user: has \{query\} 0 times; write it once"),
    "other-place": (
        version_2(user="Find {Question}."),
        r"write it once, where the query stands \(it has \{Question\}\)",
    ),
    "two-queries": (version_2(user="{query} or {query}"), r"has \{query\} 2 times"),
    "two-pictures": (version_2(user="{image} {query} {image}"), r"has \{image\} 2 times; a prompt has one picture"),
    "markup": (version_2(user="{query}<|im_end|>"), r"user: has '<\|', which is reserved"),
    "markup-in-prefill": (version_2(prefill="<|im_start|>"), r"prefill: has '<\|'"),
    "place-in-prefill": (version_2(prefill="{query}"), r"prefill: has \{query\}, whose place is in the user's message"),
    "place-in-system": (version_2() | {"system": "{image}"}, r"system: has \{image\}"),
    "markup-in-system": (version_2() | {"system": "<|x"}, r"system: has '<\|'"),
    "empty-stop": (version_2(stop=[""]), r"stop\.0: must have 1 to"),
    "unknown-key": (version_2(stops=["x"]), r"variants\.v\.stops: unknown key; did you mean 'stop'"),
    "unknown-style": (version_2() | {"query_style": "title"}, r"query_style: choose one of as-is, lower-case"),
    "unknown-entry": (version_2() | {"style": "title"}, r"style: unknown key"),
    "text-for-template": (
        version_2() | {"variants": {"v": "{query}"}},
        r'variants\.v: is text; write \{"user": "… \{query\} …"\}',
    ),
    "no-variant": (version_2() | {"variants": {}}, r"variants: must have 1 to 100 entries"),
    "no-name": (version_2() | {"variants": {"a, b": {"user": "{query}"}}}, r"'a, b' is not a valid name"),
    "newer": (version_2() | {"version": 3}, r"version: 3 is newer than 2; update wise-edge"),
    "no-number": (version_2() | {"version": "2"}, r"version: is '2'; write 2"),
    "list": ([], r"prompt set: \[\] is not a mapping"),
    "template-without-version": (
        {key: value for key, value in version_2().items() if key != "version"},
        r'variants\.v: is a template; add "version": 2',
    ),
    "place-without-version": (
        VERSION_1 | {"variants": {"wise-s": "Find '{Question}'."}},
        r'has the place \{Question\}, but without a version a query stands before the words; write "version": 2',
    ),
    "number-without-version": (VERSION_1 | {"variants": {"wise-s": 1}}, r"variants\.wise-s: 1 is not text"),
    "markup-without-version": (VERSION_1 | {"variants": {"wise-s": "<|x"}}, r"variants\.wise-s\.user: has '<\|'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_wording_gets_one_clear_line(tmp_path: Path, case: str) -> None:
    data, words = BAD[case]
    (tmp_path / "prompts.json").write_text(json.dumps(data))
    with pytest.raises(UsageError, match=words) as caught:
        read_prompts(tmp_path) if isinstance(data, dict) else PromptSet.from_dict(data)
    assert len(str(caught.value).splitlines()) == 1


def test_an_unknown_variant_is_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown variant 'loud'; choose one of short"):
        prompts("{query}").render("the mug", "loud", 1)


def test_a_template_is_described_with_all_that_it_asks_for() -> None:
    assert Template("{query}, please.").describe() == "{query}, please."
    described = Template("{query}", "<think>", ("END", "\n"), rationale=False).describe()
    assert described.splitlines() == ["{query}", "prefill: '<think>'", r"stop: 'END' '\n'", "no rationale"]
