"""Every option of every command, with values that nobody means: a result or one clear line, never an internal error.

Each option gets every value by turns: all values times all options are 4,455 commands, which take minutes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import typer
from typer.models import ArgumentInfo, OptionInfo

import fake_session
from wise_edge.cli import main as entry
from wise_edge.errors import WiseEdgeError
from wise_edge.images import save_png

LONG, DEEP = "x" * 300, "d/" * 2500
TEXTS = (
    "", " ", "\n", "a\0b", LONG, DEEP, "-", "--", "-1", "nan", ",", "a,,b", "*", "[", "{}", "%s", "~", "é\udcff",
    "[red]", "k=v", "file.txt", "file.txt/x", "folder", "loop", "loop/x", "dangling", "closed/x", "/", ".", "..",
    "/dev/null", "/dev/full", "pipe", "no/such/file", "embedded", "auto", "embedded@sha256:0", "@sha256:", "1/2",
    "out.png", "out.html", "out.json", "10.0.0.256", "::1", "all",
)  # fmt: skip
NUMBERS = (
    "", "x", "nan", "inf", "-inf", "-1", "0", "1", "1e308", "1e400", "1e-320", "2147483648", "9" * 30, "9" * 5000,
    "0x10", "1_0", "²", "1.5",
)  # fmt: skip
EACH = 3
"""Values that one option gets."""
REQUIRED = {
    "run": ["picture.png", "the ring"],
    "masks": ["picture.png"],
    "track": ["picture.png", "the ring"],  # a video of one frame
    "setup": ["embedded", "embedded", "--dry-run"],
    "train": ["--recipe", "embedded-sam", "--out", "run"],
    "export": ["--policy", "embedded", "--sam", "embedded", "--out", "bundle"],
    "build": ["folder"],
    "bag": ["folder", "--query", "the ring", "--out", "bag"],
    "evaluate compare": ["file.txt", "file.txt"],
    "evaluate table": ["file.txt"],
    "evaluate gallery": ["file.txt"],
    "bundle diff": ["embedded", "embedded-start"],
    "profile compare": ["file.txt", "file.txt"],
}
"""What a command needs besides the option that is tried."""
Info = OptionInfo | ArgumentInfo


def _commands(app: typer.Typer = entry.app, before: str = "") -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the words and the function of each command, except ros2, which hands all arguments on to ROS."""
    if before and app.registered_callback is not None and app.registered_callback.callback is not None:
        yield before, app.registered_callback.callback
    for command in app.registered_commands:
        assert command.callback is not None
        if not (command.context_settings or {}).get("ignore_unknown_options"):
            yield f"{before} {command.name or command.callback.__name__}".strip(), command.callback
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from _commands(group.typer_instance, str(group.name))


COMMANDS = dict(_commands())


def _parameters(function: Callable[..., Any]) -> Iterator[tuple[str, Info, bool]]:
    """Yield name and description of each parameter with a value, and whether that is a number."""
    for name, hint in get_type_hints(function, include_extras=True).items():
        infos = [extra for extra in get_args(hint)[1:] if isinstance(extra, Info)]
        if infos and get_args(hint)[0] is not bool:
            kinds = {get_args(hint)[0], *get_args(get_args(hint)[0])}
            yield name, infos[0], not kinds.isdisjoint({int, float})


def _attempts(words: str) -> Iterator[list[str]]:
    """Yield the arguments of each attempt of a command: one parameter at a time with a value that nobody means."""
    place, positional = len(words), 0  # another beginning for each command
    for name, info, numeric in _parameters(COMMANDS[words]):
        values = NUMBERS if numeric else TEXTS
        for value in (values[(place + step) % len(values)] for step in range(EACH)):
            given = [*REQUIRED.get(words, [])]
            if isinstance(info, ArgumentInfo):
                given[positional : positional + 1] = [value]
            else:
                option = next(iter(info.param_decls or ()), f"--{name.replace('_', '-')}")
                if option in given:
                    del given[given.index(option) : given.index(option) + 2]
                given += [option, value]
            yield given
        place, positional = place + EACH, positional + isinstance(info, ArgumentInfo)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with what the values name, in which no command gets to its work."""

    def reach(*_: object, **__: object) -> None:
        raise WiseEdgeError("the work was reached")

    fake_session.install(monkeypatch)
    for name in (
        "wise_edge.evaluation.evaluate.evaluate_session",
        "wise_edge.export.pipeline.replacing_folder",
        "wise_edge.profiling.measure.profile_session",
        "wise_edge.robot.bags.open_job",
        "wise_edge.runtimes.segmenter.Segmenter.from_bundle",
        "wise_edge.robot.dora.open_dataflow",
        "wise_edge.service.server.run_server",
        "wise_edge.training.recipe.train_function",
        "wise_edge.cli.demo._write_images",
    ):
        monkeypatch.setattr(name, reach)
    monkeypatch.setattr("wise_edge.robot.dora.check_dataflow", lambda: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "inner" / "folder"
    (folder / "folder").mkdir(parents=True)
    (folder / "closed").mkdir(mode=0)
    save_png(np.zeros((40, 50, 3), np.uint8), folder / "picture.png")
    (folder / "file.txt").write_text("nothing that anybody reads\n")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nothing")
    os.mkfifo(folder / "pipe")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("words", [words for words in COMMANDS if any(_parameters(COMMANDS[words]))])
def test_any_value_gets_a_result_or_one_line(words: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = set(place.rglob("*"))
    for arguments in _attempts(words):
        code = entry.main([*words.split(), *arguments])
        tried = f"{words} {[argument[:40] for argument in arguments]}"
        said = capsys.readouterr().err
        errors = [line.startswith("error: ") for line in said.splitlines()]
        assert code in range(6), tried
        assert "internal error" not in said, tried
        assert len(said) < 4000, tried
        if code and not said.startswith("Usage: "):  # Typer's own lines
            assert errors[-1:] == [True] and sum(errors) == 1, f"{tried}: {said}"  # after notes and progress
        for made in sorted(set(place.rglob("*")) - known, reverse=True):  # for the next attempt
            made.rmdir() if made.is_dir() and not made.is_symlink() else made.unlink()
