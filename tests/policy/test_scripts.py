"""The wording of scripts in the shapes that people write, with words of our own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from wise_edge.errors import UsageError
from wise_edge.policy.prompts import PromptSet
from wise_edge.policy.scripts import QueryWriting, ScriptWording, read_script

AS_IS, LOWER, BARE = QueryWriting(), QueryWriting(True), QueryWriting(True, ".")
Read = Callable[[str], ScriptWording]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def run(source: str) -> ScriptWording:
        (tmp_path / "script.py").write_text(dedent(source), encoding="utf-8")
        return read_script(tmp_path / "script.py")

    return run


EVALUATION = '''
    """Ask with {Question}: this is no template."""
    import argparse

    def main(args, dataset):
        print(f"asking {args.question} of {args.path}")
        parser = argparse.ArgumentParser()
        parser.add_argument("--question", help="the {Question} to ask")
        WORDS = \\
            "Show me '{Question}'." \\
            "First <think> why </think>" \\
            "<answer>{Answer}</answer>"
        if "short" in args.out:
            WORDS = "Only '{Question}'." \\
                "<answer>{Answer}</answer>"
        elif "plain" in args.out:
            WORDS = "{Question}. As JSON, please."
        for item in dataset:
            message = [{"role": "user", "content": [
                {"type": "image", "image": item["image"].resize((10, 10))},
                {"type": "text", "text": WORDS.format(
                    Question=item["text"].lower().strip("."), Answer='{"bbox": [1, 2, 3, 4]}', Caption="unused")},
            ]}]
        name = f"output_{args.query}.json"
        raise ValueError(f"no answer to {args.query} was found")
'''


def test_one_name_with_several_texts_is_as_many_templates(read: Read) -> None:
    found = read(EVALUATION)
    assert [(each.user, each.condition, each.rationale) for each in found.templates] == [
        ("Show me '{query}'.First <think> why </think><answer>{\"bbox\": [1, 2, 3, 4]}</answer>", "", True),
        ("Only '{query}'.<answer>{\"bbox\": [1, 2, 3, 4]}</answer>", "if 'short' in args.out", False),
        ("{query}. As JSON, please.", "if 'plain' in args.out", False),
    ]
    assert all(each.writing == BARE and not each.open_places for each in found.templates)
    assert [each.line for each in found.templates] == [10, 14, 17]
    assert (found.system, found.open_system) == (None, False)


SHAPES = {
    "module-constant": ('T = "Find {Question} here."\nt = T.format(Question=q)', "Find {query} here.", AS_IS),
    "parentheses": ('T = (\n"Find "\n"{Question} here."\n)\nt = T.format(Question=q.lower())',
            "Find {query} here.", LOWER),
    "plus": ('t = "Find " + query.lower() + " here, please."', "Find {query} here, please.", LOWER),
    "plus-names": ('A = "Find it: "\nB = " and say where."\nt = A + query + B',
            "Find it: {query} and say where.", AS_IS),
    "f-string": ('t = f"Find {query} here."', "Find {query} here.", AS_IS),
    "f-string-braces": ('t = f"Find {query} as {{\\"box\\": 1}}."', 'Find {query} as {"box": 1}.', AS_IS),
    "f-string-constant": ('F = "a box"\nt = f"Find {query} as {F}."', "Find {query} as a box.", AS_IS),
    "f-string-key": ('t = f"Find {item[\'text\'].lower()} in it."', "Find {query} in it.", LOWER),
    "percent": ('t = "Find %s here." % query', "Find {query} here.", AS_IS),
    "percent-name": ('T = "Find %s, 100%% sure."\nt = T % (query,)', "Find {query}, 100% sure.", AS_IS),
    "percent-key": ('t = "Find %(q)s here." % {"q": query.lower()}', "Find {query} here.", LOWER),
    "format-position": ('t = "Find {} in {}.".format(query, "it")', "Find {query} in it.", AS_IS),
    "format-number": ('t = "In {1} find {0} now.".format(query, "it")', "In it find {query} now.", AS_IS),
    "format-braces": ('t = "Find {q} as {{\\"box\\": [1]}}.".format(q=query)', 'Find {query} as {"box": [1]}.', AS_IS),
    "replace": ('T = "Find {Question} as {\\"box\\": [1]}."\nt = T.replace("{Question}", query)',
                'Find {query} as {"box": [1]}.', AS_IS),
    "join": ('t = "\\n".join(["Find this:", query, "Go."])', "Find this:\n{query}\nGo.", AS_IS),
    "attribute": ('class A:\n  def __init__(self):\n    self.words = "Find {Question} here."\n'
                  '  def ask(self, q):\n    return self.words.format(Question=q.strip())', "Find {query} here.", AS_IS),
    "default": ('def ask(q, words="Find {Question} here."):\n  return words.format(Question=q)',
            "Find {query} here.", AS_IS),
    "table": ('T = {"seg": "Find {Question} here."}\nt = T["seg"].format(Question=q)', "Find {query} here.", AS_IS),
    "parameter": ('T = "Find {Question} as {Answer}."\ndef ask(q, words):\n'
                  '  return words.format(Question=q.lower().strip(".!"), Answer="a box")\nask("x", T)',
                  "Find {query} as a box.", QueryWriting(True, ".!")),
    "triple": ('T = """\nFind {Question}\nhere.\n""".strip()\nt = T.format(Question=q)', "Find {query}\nhere.", AS_IS),
    "dedent": ('import textwrap\nt = textwrap.dedent(f"""\\\n    Find {query}\n    here.""")',
            "Find {query}\nhere.", AS_IS),
    "longer": ('t = "Find {Question}"\nt += " here."\nu = t.format(Question=q)', "Find {query} here.", AS_IS),
    "written-before": ('query = item["text"].lower().strip(".")\nt = f"Find {query} here."',
            "Find {query} here.", BARE),
    "strip-first": ('t = f"Find {query.strip(\'.\').lower()} here."', "Find {query} here.", BARE),
    "picture": ('T = "<image>\\nFind {Question} here."\nt = T.format(Question=q)',
            "{image}\nFind {query} here.", AS_IS),
    "markup": ('t = f"Look: <|vision_start|><|image_pad|><|vision_end|> find {query}"',
               "Look: {image} find {query}", AS_IS),
    "never-asked": ('SEGMENT_PROMPT = "Find {question} here."', "Find {query} here.", AS_IS),
    "never-asked-braces": ('P = "Find {question} as {\\"box\\": [1]}."', 'Find {query} as {"box": [1]}.', AS_IS),
    "unicode": ('t = f"请找到{query}， 谢谢。"', "请找到{query}， 谢谢。", AS_IS),
}  # fmt: skip


@pytest.mark.parametrize("case", SHAPES)
def test_a_text_is_found_however_it_is_put_together(read: Read, case: str) -> None:
    source, user, writing = SHAPES[case]
    (found,) = read(source).templates
    assert (found.user, found.writing, found.open_places) == (user, writing, ())


def test_a_picture_behind_the_text_stays_behind_it(read: Read) -> None:
    text = '{"type": "text", "text": f"Find {query} here."}'
    image = '{"type": "image", "image": image}'
    assert read(f"c = [{text}, {image}]").templates[0].user == "Find {query} here.{image}"
    assert read(f"c = [{image}, {text}]").templates[0].user == "Find {query} here."


SYSTEMS = {
    "text": ('"You find things."', "You find things.", False),
    "name": ("SYSTEM", "You find it.", False),
    "parts": ('[{"type": "text", "text": "You find things."}]', "You find things.", False),
    "open": ("self.system", None, True),
}


@pytest.mark.parametrize("case", SYSTEMS)
def test_the_system_message_is_found(read: Read, case: str) -> None:
    content, system, unknown = SYSTEMS[case]
    found = read(
        f'SYSTEM = "You find it."\nm = [{{"role": "system", "content": {content}}}, '
        '{"role": "user", "content": f"Find {query} here."}]'
    )
    assert (found.system, found.open_system) == (system, unknown)


def test_chosen_templates_become_a_prompt_set(read: Read) -> None:
    made = read(EVALUATION).prompts("mine", {"wise-s": 0, "answer": 1}, "Look.")
    assert isinstance(made, PromptSet)
    assert made.user_text("The Mug.", "answer") == ("", "Only 'the mug'.<answer>{\"bbox\": [1, 2, 3, 4]}</answer>")
    assert [made.template(name).rationale for name in ("wise-s", "answer")] == [True, False]
    assert made.system == "Look." and made.default_variant == "wise-s"


PREFILLS = {
    "text": ('t = p.apply_chat_template(m, tokenize=False) + "<think>"', "<think>"),
    "name": ('A = "Why: "\nt = [tok.apply_chat_template(m) + A + "<think>" for m in ms]', "Why: <think>"),
    "later": ('t = apply_chat_template(m)\nt += "<think>\\n"', "<think>\n"),
    "turn": ('t = p.apply_chat_template(m) + "<|im_start|>assistant\\n<think>"', "<think>"),
    "default": ('def ask(m, begin=""):\n  return p.apply_chat_template(m) + begin', ""),
    "none": ('t = p.apply_chat_template(m)\nu = t + ""\nn = "<think>" + end', ""),
}


@pytest.mark.parametrize("case", PREFILLS)
def test_what_a_script_adds_to_the_chat_template_begins_the_answer(read: Read, case: str) -> None:
    source, prefill = PREFILLS[case]
    found = read(f'm = f"Find {{query}} here."\n{source}')
    template = found.prompts("mine", {"wise-s": 0}, "").template("wise-s")
    assert (template.prefill, template.rationale) == (prefill, "<think>" in prefill)


BAD = {
    "two-prefills": (
        't = f"Find {query} here."\nu = p.apply_chat_template(t) + "<think>"\nv = p.apply_chat_template(t) + "So:"',
        r"the answer with 'So:', which",
    ),
    "prefill": (
        't = f"Find {query} here."\nu = p.apply_chat_template(t) + args.begin',
        r"the answer with args\.begin, which",
    ),
    "prefills": (
        'u = p.apply_chat_template(f"Find {query} here.") + (A if a else B)\nA = "<think>"\nB = "<answer>"',
        r"the answer with A if a else B, which",
    ),
    "open": (
        't = "Find {Question} or {Options}.".format(Question=q, Options=o)',
        r"line 1 has \{Options\}, which only",
    ),
    "changed": ('t = f"Find {query.title()} here."', r"changes a query by query\.title\(\), which"),
    "twice": ('t = "Find {Question}, yes {Question}.".format(Question=q)', r"has \{query\} 2 times"),
    "markup": ('t = f"<|im_start|>user find {query} here"', r"has '<\|', which is reserved"),
    "no-python": ("def f(:\n", r"script\.py, line 1: is not a Python script"),
    "zero": ("x = '\0'", "is not a Python script"),
    "deep": ("x = " + "(" * 300 + ")" * 300, "is not a Python script"),
    "deep-calls": ("x = a" + ".b()" * 600, "is nested too deeply"),
    "no-text": ("print('hello {Question}')\nx = 'a'", r"no text has a place for a query"),
    "empty": ("", "no text has a place"),
    "file-name": ('p = f"out_{query}.json"', "no text has a place"),
    "log": ('import logging\nlogging.info(f"the query was {query} indeed")', "no text has a place"),
    "itself": ("s = s + s\n" * 3, "no text has a place"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_script_of_which_no_prompt_set_can_be_made_is_refused_in_one_line(read: Read, case: str) -> None:
    source, words = BAD[case]
    with pytest.raises(UsageError, match=words) as caught:
        read(source).prompts("mine", {"wise-s": 0}, "")
    assert len(str(caught.value).splitlines()) == 1


def test_templates_that_write_a_query_differently_are_no_one_set(read: Read) -> None:
    found = read('a = f"Find {query} here."\nb = f"Find {query.lower()} there."')
    with pytest.raises(UsageError, match="write a query in different ways"):
        found.prompts("mine", {"wise-s": 0, "answer": 1}, "")


def test_a_tangle_of_names_ends(read: Read) -> None:
    names = [f"n{place}" for place in range(30)]
    lines = [f"{name} = {' + '.join(names)} + 'word '" for name in names for _ in range(4)]
    with pytest.raises(UsageError, match="no text has a place"):
        read("\n".join(lines))
    long = "t = " + " + ".join(["'a word '"] * 200) + " + query"
    (found,) = read(long).templates
    assert found.user == "a word " * 200 + "{query}"
