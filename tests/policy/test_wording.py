"""Where the wording of a prompt set does not fit the form of the answers, or its own entries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wise_edge.policy.answers.form import BOX_LABEL_LIST, BOX_POINTS
from wise_edge.policy.chat_template import default_system
from wise_edge.policy.prompts import DEFAULT, EMBEDDED, VARIANTS, PromptSet, Template
from wise_edge.policy.wording import check_wording

BOTH = "<think>why</think><answer>%s</answer> {query}"
OURS = '{"bbox": [1], "points_1": [1], "points_2": [1]}'
LIST = '[{"bbox_2d": [1], "point_2d": [1]}]'


def wording(user: str, system: str = "", **entries: Any) -> PromptSet:
    return PromptSet("mine", system, dict.fromkeys(VARIANTS, Template(user, **entries)))


def test_the_shipped_sets_fit() -> None:
    assert check_wording(EMBEDDED, BOX_POINTS) == []
    told = check_wording(DEFAULT, BOX_POINTS)
    assert told == []


RIGHT = {
    "no-keys": (wording("Find {query}."), BOX_POINTS),
    "keys": (wording(BOTH % OURS), BOX_POINTS),
    "keys-of-a-shipped-form": (wording(BOTH % LIST), None),
    "single-quotes": (wording(BOTH % OURS.replace('"', "'")), BOX_POINTS),
    "keys-in-the-system-message": (wording("{query}", f"Answer <think>x</think> {OURS}"), BOX_POINTS),
    "no-rationale": (wording(f"<answer>{OURS}</answer> {{query}}", rationale=False), BOX_POINTS),
    "begun-rationale": (wording(f"<answer>{OURS}</answer> {{query}}", prefill="<think>"), BOX_POINTS),
}


@pytest.mark.parametrize("case", RIGHT)
def test_wording_that_fits_is_left_alone(case: str) -> None:
    prompts, form = RIGHT[case]
    assert check_wording(prompts, form) == []


WRONG = {
    "other-keys": (wording(BOTH % LIST), BOX_POINTS, "bbox_2d, point_2d, but answers of the form box-points have bbox"),
    "which-form": (wording(BOTH % LIST), BOX_POINTS, "export with the form box-point-list"),
    "a-key-less": (wording(BOTH % '{"bbox": [1]}'), BOX_POINTS, "names the keys bbox, but"),
    "label": (wording(BOTH % LIST), BOX_LABEL_LIST, "have bbox_2d, label"),
    "no-form": (wording(BOTH % '{"box": 1}'), None, "names the keys box, which are those of no shipped form"),
    "place": (wording("Find {query} as {Answer}."), BOX_POINTS, "has {Answer}, which is written as it is"),
    "place-in-system": (wording("{query}", "As {Answer}."), BOX_POINTS, "has {Answer}"),
    "picture": (wording("<image>\n{query}"), BOX_POINTS, "has <image>, which is written as it is; write {image}"),
    "rationale-asked": (
        wording(BOTH % OURS, rationale=False),
        BOX_POINTS,
        "asks for <think>, but its rationale is false",
    ),
    "not-asked": (
        wording(f"<answer>{OURS}</answer> {{query}}"),
        BOX_POINTS,
        "for no <think>, but its rationale is true",
    ),
    "begun-too-far": (
        wording("{query}", prefill='<answer>{"bbox": [12, ', rationale=False),
        BOX_POINTS,
        "more than the beginning of an answer up to its first value",
    ),
    "space": (wording("{query}", prefill="<think>The "), BOX_POINTS, "prefill that ends with a space"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wording_that_does_not_fit_is_named(case: str) -> None:
    prompts, form, words = WRONG[case]
    remarks = check_wording(prompts, form)
    assert any(words in remark.text and remark.wrong for remark in remarks), remarks


def test_missing_variants_only_limit_what_can_be_asked() -> None:
    (remark,) = check_wording(PromptSet("mine", "", {"wise-s": Template("{query}")}), BOX_POINTS)
    assert not remark.wrong and remark.text.startswith("lacks verbose, wise, wise-infer, answer;")


STATED = "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
UNSTATED = (
    "{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}"
)
DOUBLE = UNSTATED.replace("'", '"')
TEMPLATES: dict[str, tuple[str, object, str | None]] = {
    "jinja": ("chat_template.jinja", STATED, "You help."),
    "quoted": ("chat_template.jinja", STATED.replace("\n", "\\n"), "You help."),
    "none": ("chat_template.jinja", UNSTATED, ""),
    "none-double-quotes": ("chat_template.jinja", DOUBLE, ""),
    "none-tight": ("chat_template.jinja", UNSTATED.replace(" + ", "+"), ""),
    "else": (
        "chat_template.jinja",
        DOUBLE + r'{%- else %}{{- "<|im_start|>system\nYou help.<|im_end|>\n" }}',
        "You help.",
    ),
    "json": ("chat_template.json", {"chat_template": STATED}, "You help."),
    "tokenizer": ("tokenizer_config.json", {"chat_template": STATED}, "You help."),
    "several": ("tokenizer_config.json", {"chat_template": [{"name": "default", "template": STATED}]}, "You help."),
    "by-name": (
        "tokenizer_config.json",
        {"chat_template": [{"name": "tool_use", "template": UNSTATED}, {"name": "default", "template": STATED}]},
        "You help.",
    ),
    "no-template": ("tokenizer_config.json", {}, None),
    "no-file": ("other.json", {}, None),
}


@pytest.mark.parametrize("case", TEMPLATES)
def test_the_system_message_of_a_chat_template_is_found(tmp_path: Path, case: str) -> None:
    name, content, system = TEMPLATES[case]
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    assert default_system(tmp_path) == system


@pytest.mark.parametrize("case", ["jinja", "none", "none-double-quotes", "none-tight", "else"])
def test_it_is_what_transformers_writes(tmp_path: Path, case: str) -> None:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    template = str(TEMPLATES[case][1]) + ("{% endif %}" if case != "jinja" else "")
    whole = f"{{% for message in messages %}}{template}<|im_start|>user\n{{% endfor %}}"
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    written = environment.from_string(whole).render(messages=[{"role": "user", "content": "x"}])
    system = TEMPLATES[case][2]
    assert written == (f"<|im_start|>system\n{system}<|im_end|>\n" if system else "") + "<|im_start|>user\n"


def test_an_empty_system_message_is_held_against_the_chat_template() -> None:
    remarks = check_wording(wording("{query}"), BOX_POINTS, "You help.")
    assert remarks[0].wrong and "then writes 'You help.'" in remarks[0].text
    assert check_wording(wording("{query}"), BOX_POINTS, "") == []
    assert check_wording(wording("{query}", "Mine."), BOX_POINTS, "You help.") == []
