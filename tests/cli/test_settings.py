"""Defaults from variables and from wise-edge.toml: which comes first, what a file may say, where values are from."""

from __future__ import annotations

import json
import os
import re
from itertools import chain
from pathlib import Path

import pytest

from locations import ROOT
from wise_edge.cli import main as entry
from wise_edge.cli.common import settings
from wise_edge.cli.common.tree import GIVES_WAY_TO, Tree

COMMANDS = Tree(entry.app).commands
NEVER = {
    "out",
    "mask",
    "overlay",
    "report",
    "rerun",
    "force",
    "resume",
    "accept_changes",
    "overrides",
    "query",
    "source",
}
"""What to write, what to replace and what to read: asked for on the command line only."""


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a project, in a folder of which the command runs."""
    for name in [name for name in os.environ if name.startswith(settings.PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    inner = tmp_path / "project" / "inner"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    return inner.parent


def _write(folder: Path, text: str) -> Path:
    file = folder / settings.FILE_NAME
    file.write_text(text)
    return file


def _write_own(text: str) -> Path:
    file = settings.user_file()
    assert file is not None
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return file


def _shown(capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[object, str | None]]:
    """Return each setting's value and origin as `config show` says them."""
    capsys.readouterr()
    assert entry.main(["config", "show", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["settings"]
    return {
        " ".join(filter(None, (each["command"], each["setting"]))): (each["value"], each["origin"]) for each in found
    }


def _refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert entry.main([*(arguments or ("bundle", "show"))]) == 2
    return capsys.readouterr().err


def test_command_line_before_environment_before_file_before_default(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _shown(capsys)["variant"] == (None, None)
    own = _write_own('variant = "of-the-user"\nthreads = 2\n')
    assert _shown(capsys)["variant"] == ("of-the-user", f"{own}:1")
    file = _write(project, '# ours\nvariant = "of-the-project"\n')
    assert _shown(capsys)["variant"] == ("of-the-project", f"{file}:2")
    assert _shown(capsys)["threads"] == ("2", f"{own}:2")
    image = str(ROOT / "docs" / "scene.png")
    assert "unknown variant 'of-the-project'" in _refused(capsys, "run", image, "the ring")
    monkeypatch.setenv("WISE_EDGE_VARIANT", "of-the-environment")
    assert _shown(capsys)["variant"] == ("of-the-environment", "$WISE_EDGE_VARIANT")
    assert "unknown variant 'of-the-environment'" in _refused(capsys, "run", image, "the ring")
    assert "unknown variant 'given'" in _refused(capsys, "run", image, "the ring", "--variant", "given")


def test_a_table_is_for_its_command(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _write(project, "max-objects = 3\n\n[evaluate]\nmax-objects = 7\n")
    shown = _shown(capsys)
    assert shown["run max-objects"] == ("3", f"{file}:1")
    assert shown["evaluate max-objects"] == ("7", f"{file}:4")


def test_a_wrong_default_is_named_with_its_origin(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _write(project, "max-objects = 0\n")
    assert f"(from {file}:1)" in _refused(capsys, "run", "a.png", "the ring")
    _write(project, 'policy-backend = "nothing"\n')
    image = str(ROOT / "docs" / "scene.png")
    assert f"defaults in effect: --policy-backend nothing (from {file}:1)" in _refused(capsys, "run", image, "the ring")
    monkeypatch.setenv("WISE_EDGE_PIXELS", "x")
    assert "WISE_EDGE_PIXELS" in _refused(capsys, "run", image, "the ring")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('\npolcy-backend = "onnx"\n', ":2: unknown key 'polcy-backend'; did you mean 'policy-backend'?"),
        ("out = 'x'\n", ":1: unknown key 'out'"),
        ("force = true\n", ":1: unknown key 'force'"),
        ("pixels = true\n", ":1: 'pixels' must be text or a number"),
        ("variant = ['a']\n", ":1: 'variant' must be text or a number"),
        ("[evaluat]\npixels = 3\n", ":1: unknown command [evaluat]; did you mean 'evaluate'?"),
        ("[run]\nhost = 'x'\n", ":2: 'host' is not a setting of run; it has bundle, "),
        ("[run.deeper]\nhost = 'x'\n", ":1: unknown command [run.deeper]"),
        ("[doctor]\nhost = 'x'\n", ":2: 'host' is not a setting of doctor; it has no settings"),
        ("pixels = \n", " is not valid TOML: "),
        ("a." * 40_000 + "b = 1", " is not valid TOML: a line has more than 4,096 characters"),
        ("[" * 4000 + "]", " is not valid TOML: "),
        ("[serve]\nhost = '0.0.0.0'\n", ":2: a project may not set 'host'; write it into "),
        ("forwarded-allow-ips = '*'\n", ":1: a project may not set 'forwarded-allow-ips'"),
        ("bundle = ''\n", ":1: 'bundle' is empty; leave it out"),
        ("bundle = '/etc'\n", ":1: the bundle of a project must be next to wise-edge.toml, and /etc is not"),
        ("bundle = '../other'\n", ":1: the bundle of a project must be next to"),
        ("bundle = 'link'\n", ":1: the bundle of a project must be next to"),
    ],
)
def test_what_a_file_of_a_project_may_not_say(
    project: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "link").symlink_to("/etc")
    file = _write(project, text)
    err = _refused(capsys)
    assert err.startswith(f"error: {file}{said}")
    assert err.count("\n") == 1
    assert entry.main(["bundle", "--help"]) == 0  # help answers


def test_the_user_may_say_more(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write_own("bundle = '/somewhere'\n[serve]\nhost = '0.0.0.0'\n")
    shown = _shown(capsys)
    assert (shown["bundle"][0], shown["host"][0]) == ("/somewhere", "0.0.0.0")


def test_a_bundle_lies_where_the_file_says(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _write(project, f'bundle = "bundles/mug@sha256:{"0" * 64}"\n')
    expected = f"{project}/bundles/mug@sha256:{'0' * 64}"
    assert _shown(capsys)["bundle"] == (expected, f"{file}:1")
    said = _refused(capsys, "run", str(ROOT / "docs" / "scene.png"), "the ring")
    assert f"note: the bundle is {expected}, as set by {file}:1" in said  # a stranger's folder chooses unseen
    _write(project, 'bundle = "embedded-start"\n')
    assert _shown(capsys)["bundle"][0] == "embedded-start"


def test_files_that_others_can_write_are_not_read(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _write(project, "pixels = 3\n")
    file.chmod(0o666)
    assert entry.main(["config", "show"]) == 0
    err = capsys.readouterr().err
    assert f"note: {file} is ignored: anyone can write to it; if you trust it, set WISE_EDGE_CONFIG={file}\n" == err
    assert _shown(capsys)["pixels"] == (None, None)
    file.chmod(0o644)
    monkeypatch.setenv(settings.FILE_VARIABLE, str(file))
    assert _shown(capsys)["pixels"] == ("3", f"{file}:1")
    monkeypatch.setenv(settings.FILE_VARIABLE, settings.NO_FILE)
    assert _shown(capsys)["pixels"] == (None, None)
    monkeypatch.setenv(settings.FILE_VARIABLE, str(project / "missing.toml"))
    assert "cannot read" in _refused(capsys)


def test_a_file_of_another_user_is_not_trusted(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _write(project, "pixels = 3\n")
    fields = list(file.stat())
    fields[4] = 12345  # st_uid
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(Path, "lstat", lambda self: os.stat_result(fields))
    assert settings._distrust(file) == "it belongs to another user"


def test_a_default_gives_way_to_an_option_that_excludes_it(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WISE_EDGE_VARIANT", "wise-s")
    monkeypatch.setenv("WISE_EDGE_PIXELS", "100000")
    assert entry.main(["evaluate", "--oracle-prompt", "--limit", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["variant"] is None
    assert "remove --variant" in _refused(capsys, "evaluate", "--oracle-prompt", "--variant", "wise-s")


def test_defaults_are_for_the_commands_that_read_them(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`profile compare` refuses --threads on the command line, but a default is of no concern to it."""
    monkeypatch.setenv("WISE_EDGE_THREADS", "2")
    assert "a.json" in _refused(capsys, "profile", "compare", "a.json", "b.json")
    assert "does not accept --threads" in _refused(capsys, "profile", "--threads", "2", "compare", "a.json", "b.json")


def test_a_misspelled_variable_is_told(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WISE_EDGE_BUNDEL", "x")
    assert entry.main(["config", "show"]) == 0
    assert "WISE_EDGE_BUNDEL is not a known variable; did you mean 'WISE_EDGE_BUNDLE'?" in capsys.readouterr().err


@pytest.mark.parametrize("words", COMMANDS)
def test_settings_are_named_alike_everywhere(words: tuple[str, ...]) -> None:
    page = (ROOT / "docs" / "command-line.md").read_text()
    for key, parameter in settings.settings_of(COMMANDS[words]).items():
        assert parameter.envvar == settings.PREFIX + key.upper().replace("-", "_")
        assert parameter.name not in NEVER
        assert not parameter.is_flag
        assert re.search(rf"^\| `{key}` \| `{parameter.envvar}` \|", page, re.MULTILINE), key
        for other in COMMANDS.values():  # one variable, one meaning
            twin = settings.settings_of(other).get(key)
            assert twin is None or twin.help == parameter.help


def test_what_gives_way_exists() -> None:
    names = {param.name for command in COMMANDS.values() for param in command.params}
    assert names.issuperset({*GIVES_WAY_TO, *chain(*GIVES_WAY_TO.values())})
