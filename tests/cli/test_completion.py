"""Completion as a shell asks for it, in real shells where they are installed, and the same names by `--list`."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from locations import ROOT
from wise_edge.cli import main as entry
from wise_edge.cli.common import names
from wise_edge.cli.common.completion import SCRIPTS, VARIABLE
from wise_edge.cli.common.names import Place
from wise_edge.cli.common.tree import Tree

COMMANDS = Tree(entry.app).commands
PATIENCE_S = 60.0
"""Until a shell that says nothing is given up."""


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):  # type: ignore[no-untyped-def]
    """A function that returns what may follow words: other kinds, and candidates with descriptions."""
    monkeypatch.chdir(tmp_path)

    def complete(*words: str, shell: str = "bash") -> tuple[str, dict[str, str]]:
        monkeypatch.setenv(VARIABLE, shell)
        assert entry.main(list(words)) == 0
        said = capsys.readouterr()
        assert said.err == ""
        kind, *lines = said.out.splitlines()
        return kind, {value: text for value, _, text in (line.partition("\t") for line in lines)}

    return complete


@pytest.mark.parametrize(
    ("words", "kind", "some"),
    [
        ([""], "none", {"run", "evaluate", "profile"}),
        (["ev"], "none", {"evaluate"}),
        (["profile", "p"], "none", {"plan"}),
        (["run", "--pol"], "none", {"--policy-backend"}),
        (["run", "-"], "none", {"--bundle", "--json", "--help", "--list"}),
        (["export", "--no-v"], "none", {"--no-verify"}),
        (["run", ""], "files", set()),
        (["run", "a.png", ""], "files", set()),
        (["run", "a.png", "--out", "o", "--save", "mask,o"], "none", {"mask,overlay", "mask,outlines"}),
        (["run", "a.png", "--overlay-style", "p"], "none", {"panel", "plain"}),
        (["run", "--mask", ""], "files", set()),
        (["run", "--bundle", "emb"], "dirs", {"embedded", "embedded-start"}),
        (["run", "--bundle", "", "--json"], "none", {"--json"}),
        (["run", "a.png", "a ring", "--variant", "w"], "none", {"wise", "wise-infer", "wise-s"}),
        (["run", "--variant", "=", "wise-i"], "none", {"wise-infer"}),
        (["run", "--variant", "="], "none", {"verbose", "wise-s"}),
        (["profile", "--variants", "answer,verb"], "none", {"answer,verbose"}),
        (["evaluate", "--policy-backend", "ll"], "none", {"llama", "llama-gpu"}),
        (["train", "--recipe", "wise-e"], "files", {"wise-embedded"}),
        (["export", "--device", "orin,th"], "none", {"orin,thor"}),
        (["export", "--quant", "Q4"], "none", {"Q4_K_M", "Q4_0"}),
        (["build", "--device", "th"], "none", {"thor"}),
        (["setup", "a", "b", "--device", "c"], "none", {"cpu"}),
        (["setup", "e"], "dirs", {"embedded", "embedded-start"}),
        (["setup", "a", ""], "files", {"embedded"}),
        (["profile", "plan", "--device", "agx"], "none", {"agx-orin", "agx-orin-32"}),
        (["profile", "plan", "--quant", "Q4"], "none", {"Q4_K_M", "Q4_0"}),
        (["bundle", "show", ""], "dirs", {"embedded"}),
        (["track", ""], "files", set()),
        (["prompts", "read", ""], "files", set()),
        (["evaluate", "gallery", ""], "files", set()),
        (["completion", ""], "none", {"bash", "zsh", "fish"}),
        (["no-such-command", ""], "none", {"run"}),
    ],
)
def test_what_may_follow(ask, words: list[str], kind: str, some: set[str]) -> None:  # type: ignore[no-untyped-def]
    found = ask(*words)
    assert found[0] == kind
    assert some <= set(found[1])
    last = words[-1] if words[-1] != "=" else ""
    assert all(each.startswith(last) for each in found[1])


def test_variants_are_those_of_the_bundle(ask, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    manifest = {"policy": {"prompts": {"variants": {"own": ""}}, "default_variant": "own", "family": "x"}}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "bundle.json").write_text(json.dumps(manifest))
    assert ask("run", "--bundle", "mine", "--variant", "")[1] == {"own": "the default"}
    assert "mine" in ask("run", "--bundle", "")[1]
    (tmp_path / "mine" / "bundle.json").write_text("{")
    assert ask("run", "--bundle", "mine", "--variant", "") == ("none", {})


def test_fish_gets_whole_words(ask) -> None:  # type: ignore[no-untyped-def]
    assert "--variant=wise-s" in ask("run", "--variant=w", shell="fish")[1]


def test_an_error_is_no_answer(ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "wise-edge.toml").write_text("broken")
    monkeypatch.delenv("WISE_EDGE_CONFIG", raising=False)
    assert "run" in ask("")[1]
    monkeypatch.setattr(names, "find_variants", None)
    monkeypatch.setattr("wise_edge.cli.common.completion.names_of", None)
    assert ask("run", "--variant", "") == ("files", {})


def test_completing_imports_nothing_heavy() -> None:
    code = "import sys; from wise_edge.cli.main import main; main(sys.argv[1:]); print(*sys.modules)"
    for words in (
        ["run", "--bundle", ""],
        ["run", "--variant", ""],
        ["export", "--target", ""],
        ["train", "--recipe", ""],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, env={**os.environ, VARIABLE: "bash"}
        )
        modules = done.stdout.splitlines()[-1].split()
        assert len(done.stdout.splitlines()) > 2
        assert {"numpy", "onnxruntime", "PIL", "rich", "tokenizers", "torch", "yaml"}.isdisjoint(modules)


def test_a_shell_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for shell, script in SCRIPTS.items():
        assert entry.main(["completion", shell]) == 0
        assert capsys.readouterr().out == script
        monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
        assert entry.main(["completion"]) == 0
        assert capsys.readouterr().out == script
    assert entry.main(["completion", "tcsh"]) == 2
    assert capsys.readouterr().err == "error: no completion for the shell 'tcsh'; choose one of bash, zsh, fish\n"


class Terminal:
    """A shell at a terminal, to which keys are sent."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        self._process, self._master = pty.fork()
        if self._process == 0:
            os.chdir(folder)
            os.execvpe(command[0], command, environment)
        self._said = ""

    def send(self, keys: str) -> None:
        """Type, and forget what was said before."""
        self._said = ""
        os.write(self._master, keys.encode())

    def wait_for(self, pattern: str) -> str:
        """Return what the shell says, once a pattern is in it."""
        while not re.search(pattern, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\a", "", self._said)):
            assert select.select([self._master], [], [], PATIENCE_S)[0], f"{pattern} is not in {self._said!r}"
            self._said += os.read(self._master, 4096).decode(errors="replace")
            if "\x1b[c" in self._said[-200:] or "\x1b[0c" in self._said[-200:]:  # fish asks what terminal this is
                os.write(self._master, b"\x1b[?62;c")
        return self._said

    def close(self) -> None:
        """End the shell."""
        os.close(self._master)
        os.waitpid(self._process, 0)


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "PS1='ready> '"),
    "zsh": (["zsh", "-f", "-i"], "PS1='ready> '; autoload -Uz compinit; compinit -u -D; bindkey -e"),
    "fish": (["fish", "--no-config", "-i"], "function fish_prompt; echo 'ready> '; end"),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_real_shell_completes(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "bin" / "wise-edge"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m wise_edge "$@"\n')
    program.chmod(0o755)
    work = tmp_path / "work"
    (work / "pictures").mkdir(parents=True)
    (work / "pictures" / "scene one.png").touch()
    script = tmp_path / "script"
    script.write_text(SCRIPTS[shell])
    environment = {
        **os.environ,
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "TERM": "xterm",
        "COLUMNS": "120",
    }
    command, prepare = SHELLS[shell]
    terminal = Terminal(command, environment, work)
    try:
        terminal.send(f"{prepare}; source {script}; echo 'is re''ady'\n")
        terminal.wait_for("is ready\r")
        terminal.send("wise-edge eval\t")
        terminal.wait_for("uate ")
        terminal.send("--policy-backend lla\t")
        terminal.wait_for("llama")
        terminal.send("\x15wise-edge run x y --variant wise-\t\t")
        said = terminal.wait_for("wise-infer")
        assert "wise-s" in terminal.wait_for("wise-s"), said
        terminal.send("\x15wise-edge run pic\t")
        terminal.wait_for("tures/")
        terminal.send("sce\t")
        terminal.wait_for(r"ne\\ one\.png|scene one\.png")
        terminal.send("\x15wise-edge run x y --variant=verb\t")
        terminal.wait_for("verbose|ose")
        terminal.send("\x15exit\n")
    finally:
        terminal.close()


@pytest.mark.parametrize("words", [words for words in COMMANDS if names.takes_names(words, COMMANDS[words])])
def test_list_answers_for_every_command_that_takes_names(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.main([*words, "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert entry.main([*words, "--list"]) == 0
    said = capsys.readouterr().out
    for label, found in listed.items():
        assert found and label in said and all(name in said for name in found)


def test_what_a_list_holds(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def listed(*words: str) -> dict[str, dict[str, str]]:
        assert entry.main([*words, "--list", "--json"]) == 0
        found: dict[str, dict[str, str]] = json.loads(capsys.readouterr().out)
        return found

    monkeypatch.chdir(tmp_path)
    recipes = listed("train")["--recipe"]
    assert set(recipes) == {file.stem for file in (ROOT / "training" / "recipes").glob("*.yaml")}
    assert all(text.partition(": ")[0] in ("sft", "sam", "distill", "wise") for text in recipes.values())
    export = listed("export")
    assert {"--target", "--device", "--quant", "--vision-quant", "--onnx-precision", "--sam-precision"} <= set(export)
    assert set(listed("profile", "plan")) >= {"--model", "--quant", "--sam", "--device"}
    assert "reasonseg" in listed("evaluate")["--dataset"]
    shutil.copytree(ROOT / "wise_edge" / "assets" / "embedded", tmp_path / "mine")
    assert set(listed("bundle")["DIR"]) == {"embedded", "embedded-start", "mine"}
    assert listed("bundle")["DIR"]["mine"].startswith("qwen2_5_vl, onnx fp32, 10 MB")
    assert "wise-s" in listed("prompts")["--variant"]


def test_a_command_without_names_has_no_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["doctor", "--list"]) == 2
    assert entry.main(["doctor", "-h"]) == 0
    assert "--list" not in capsys.readouterr().out
    assert entry.main(["run", "-h"]) == 0
    assert "--list" in capsys.readouterr().out


def test_variants_in_a_folder_without_a_bundle() -> None:
    assert names.find_variants(Place("/nowhere")) == {}
