"""`wise-edge prompts` shows wording, reads it from a script, and says where it does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tiny_qwen import make_qwen, save_qwen
from wise_edge.cli.main import main
from wise_edge.policy.answers.conventions import Conventions, write_conventions
from wise_edge.policy.answers.form import FORMS
from wise_edge.policy.checkpoint import read_policy_spec
from wise_edge.policy.prompts import DEFAULT, EMBEDDED, read_prompt_file

SCRIPT = """
WORDS = "Show '{Question}', <think> why </think><answer>{Answer}</answer>"
if args.short:
    WORDS = "Only '{Question}': <answer>{Answer}</answer>"
text = WORDS.format(Question=item["text"].lower().strip("."), Answer='{"bbox": [1], "points_1": [1], "points_2": [1]}')
"""
FORMED = '<answer>{"bbox": [1], "points_1": [1], "points_2": [1]}</answer>'


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "evaluate.py").write_text(SCRIPT)
    return tmp_path / "evaluate.py"


def test_show_renders_every_variant_of_a_bundle_a_folder_or_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.json").write_text(json.dumps(EMBEDDED.to_dict()))
    expected = {name: EMBEDDED.render("the red ring", name, 1) for name in EMBEDDED.variants}
    for source in ("embedded", str(tmp_path), str(tmp_path / "prompts.json")):
        assert main(["prompts", "show", source, "--query", "the red  ring", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["prompts"] == expected
    assert main(["prompts", "show", "--variant", "answer", "--query", "the red ring"]) == 0
    assert capsys.readouterr().out == f"--- answer\n{expected['answer']}\n"


def test_read_lists_templates_and_writes_the_chosen_ones(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompts", "read", str(script)]) == 0
    listed = capsys.readouterr().out
    assert "1  line 2; the query in lower case and without . at its ends" in listed
    assert "2  line 4; if args.short;" in listed and f"Only '{{query}}': {FORMED}" in listed
    out = script.with_name("prompts.json")
    chosen = ["--variant", "wise-s=1", "--variant", "answer=2", "--system", "Look."]
    assert main(["prompts", "read", str(script), *chosen, "--out", str(out)]) == 0
    made = read_prompt_file(out)
    assert (made.name, made.system, made.query_style, made.query_strip) == ("evaluate", "Look.", "lower-case", ".")
    assert made.user_text("The Mug.", "answer") == ("", f"Only 'the mug': {FORMED}")
    assert main(["prompts", "check", str(out)]) == 0
    assert "note: lacks verbose, wise, wise-infer" in capsys.readouterr().out


def test_the_chat_template_beside_the_result_gives_the_system_message(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = script.with_name("prompts.json")
    assert main(["prompts", "read", str(script), "--variant", "wise-s=1", "--out", str(out)]) == 0
    assert "note: the script has no system message" in capsys.readouterr().err
    assert read_prompt_file(out).system == ""
    template = "{% if loop.first %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    script.with_name("chat_template.jinja").write_text(template)
    assert main(["prompts", "check", str(out.parent)]) == 5
    assert "wrong: system: is empty, but" in capsys.readouterr().out
    assert main(["prompts", "read", str(script), "--variant", "wise-s=1", "--out", str(out), "--force"]) == 0
    assert read_prompt_file(out).system == "You help."
    assert main(["prompts", "check", str(out.parent)]) == 0


REFUSED = {
    "several": (["--out", "{new}"], "has 2 templates; name those to write"),
    "number": (["--variant", "wise-s=3"], "pass NAME=NUMBER with a number from 1 to 2"),
    "zero": (["--variant", "wise-s=0"], "from 1 to 2"),
    "no-number": (["--variant", "wise-s"], "pass NAME=NUMBER"),
    "twice": (["--variant", "a=1", "--variant", "a=2"], "names a twice"),
    "name": (["--variant", "a b=1"], "'a b' is not a valid name"),
    "exists": (["--variant", "a=1", "--out", "{old}"], "exists; use --force"),
    "itself": (["--variant", "a=1", "--out", "{script}", "--force"], "evaluate.py"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_choices_are_refused_and_nothing_is_written(
    script: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    arguments, words = REFUSED[case]
    old, new = script.with_name("old.json"), script.with_name("new.json")
    old.write_text("{}")
    paths = {"old": old, "new": new, "script": script}
    given = [argument.format(**paths) if argument.startswith("{") else argument for argument in arguments]
    assert main(["prompts", "read", str(script), *given]) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1
    assert old.read_text() == "{}" and not new.exists() and script.read_text() == SCRIPT


def test_check_fails_where_keys_differ_from_the_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.json"
    user = '{query}: <think>x</think><answer>[{"bbox_2d": [1], "point_2d": [1]}]</answer>'
    file.write_text(json.dumps({"version": 2, "name": "m", "system": "", "variants": {"wise-s": {"user": user}}}))
    assert main(["prompts", "check", str(file), "--form", "box-points"]) == 5
    captured = capsys.readouterr()
    assert "wrong: wise-s: names the keys bbox_2d, point_2d" in captured.out and "1 problem to fix" in captured.err
    assert main(["prompts", "check", str(file), "--form", "box-point-list"]) == 0
    assert main(["prompts", "check", str(file), "--form", "boxes"]) == 2
    assert main(["prompts", "check", str(tmp_path / "none.json")]) in (1, 2)


def test_a_form_in_a_file_counts_as_it_does_for_an_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    form = {"name": "own", "fields": [{"key": "square", "kind": "box"}]}
    user = '{query}: <think>x</think><answer>{"square": [1]}</answer>'
    mine = {"version": 2, "name": "m", "system": "", "variants": {"wise-s": {"user": user}}}
    (tmp_path / "prompts.json").write_text(json.dumps(mine))
    (tmp_path / "own.json").write_text(json.dumps(form))
    assert main(["prompts", "check", str(tmp_path)]) == 5
    assert "those of no shipped form" in capsys.readouterr().out
    assert main(["prompts", "check", str(tmp_path), "--form", str(tmp_path / "own.json")]) == 0
    (tmp_path / "policy.json").write_text(json.dumps({"form": form}))
    assert main(["prompts", "check", str(tmp_path)]) == 0
    assert main(["prompts", "check", str(tmp_path), "--form", "box-points"]) == 5


@pytest.mark.parametrize("told", [None, "box-label-list"])
def test_the_default_wording_of_a_checkpoint_is_shown_as_its_bundle_will_have_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], told: str | None
) -> None:
    folder = save_qwen(make_qwen("qwen3_vl", max_position_embeddings=4096), tmp_path / "stock")
    (folder / "prompts.json").write_text(json.dumps(DEFAULT.to_dict()))
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["size"] = {"shortest_edge": 65536, "longest_edge": 16777216}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    if told:
        write_conventions(folder, Conventions(form=FORMS[told]))
    capsys.readouterr()

    assert main(["prompts", "show", str(folder), "--query", "the mug", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["prompts"]
    prompts = read_policy_spec(folder).prompts
    assert shown == {name: prompts.render("the mug", name, 1) for name in prompts.variants}
    assert "from 0 to 1000" in shown["wise-s"] and ("bbox_2d" in shown["wise-s"]) == bool(told)
    assert main(["prompts", "check", str(folder)]) == 0
