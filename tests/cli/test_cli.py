"""The real entry point: exit codes, where errors go, and how little help imports.

Exit codes are tested through `main`, since Typer's test runner bypasses its error handler.
"""

from __future__ import annotations

import errno
import getpass
import json
import os
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import typer

import wise_edge
from locations import ROOT
from wise_edge import errors
from wise_edge.cli import main as entry
from wise_edge.cli.common import version


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """A replacement for the application, to which a test adds the command that fails its way."""
    app = typer.Typer(add_completion=False)
    app.callback()(lambda: None)
    monkeypatch.setattr(entry, "app", app)
    monkeypatch.delenv("WISE_EDGE_DEBUG", raising=False)
    return app


def _raise_from(app: typer.Typer, error: BaseException) -> None:
    @app.command("fail")
    def fail() -> None:
        raise error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.WiseEdgeError("broken"), 1),
        (errors.UsageError("broken"), 2),
        (errors.DeviceError("broken"), 4),
        (errors.VerificationError("broken"), 5),
        (errors.BundleError("broken"), 1),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(
    command: typer.Typer, capsys: pytest.CaptureFixture[str], error: errors.WiseEdgeError, code: int
) -> None:
    _raise_from(command, error)
    assert entry.main(["fail"]) == code
    assert capsys.readouterr() == ("", "error: broken\n")


def test_the_name_of_an_extra_survives(command: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    _raise_from(command, errors.MissingExtraError("onnxruntime", "onnx"))
    assert entry.main(["fail"]) == 3
    assert capsys.readouterr().err == ("error: onnxruntime is not installed; run: pip install 'wise-edge[onnx]'\n")


def test_a_long_message_stays_on_one_line(command: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    _raise_from(command, errors.UsageError("first\nsecond " + "x" * 300))
    assert entry.main(["fail"]) == 2
    assert capsys.readouterr().err == "error: first second " + "x" * 300 + "\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "mask.png"), "mask.png; free some space and run it again"),
        (OSError(errno.EROFS, "Read-only file system", b"mask.png"), "mask.png; choose another place"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), "x" * 200 + "; use a shorter name"),
        (OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b"), "a: b"),
        (OSError(errno.EIO, "Input/output error"), "check the disk (dmesg)"),
    ],
)
def test_what_the_system_refuses_is_no_bug(
    command: typer.Typer, capsys: pytest.CaptureFixture[str], error: OSError, line: str
) -> None:
    _raise_from(command, error)
    assert entry.main(["fail"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {error.strerror}") and said.endswith(f"{line}\n") and said.count("\n") == 1


def test_a_lack_of_memory_is_no_bug(command: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    _raise_from(command, MemoryError("Unable to allocate 20.9 GiB"))
    assert entry.main(["fail"]) == 1
    assert capsys.readouterr().err.startswith("error: out of memory (Unable to allocate 20.9 GiB)")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--recipe", "embedded-sam", "--out", ""], "the argument after --out is empty"),
        (["train", "--recipe", "embedded-sam", "--out="], "--out is empty"),
        (["bundle", "verify", ""], "the argument after verify is empty"),
        (["build", ""], "the argument after build is empty"),
        ([""], "the command is empty"),
        (["bundle", "verify", "a\0b"], "the argument after verify contains a NUL byte"),
        (["bundle", "verify", "--sha256=\0"], "contains a NUL byte"),
        (["run", "picture.png", "a ring", "--deadline-ms", "nan"], "--deadline-ms is nan"),
        (["run", "picture.png", "a ring", "--deadline-ms", "-inf"], "--deadline-ms is -inf"),
    ],
)
def test_values_that_nobody_means_are_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--max-megabytes", "1e308"],
        ["serve", "--time-limit", "1e308"],
        ["serve", "--threads", "2147483648"],
        ["profile", "--threads", "2147483648"],
        ["profile", "--window", "1e308"],
    ],
)
def test_numbers_have_an_upper_bound_too(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(arguments) == 2
    assert f"Invalid value for '{arguments[1]}'" in capsys.readouterr().err


def test_a_loop_of_links_is_no_bug(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert entry.main(["profile", "--out", str(tmp_path / "loop" / "x.html")]) in (1, 2)
    err = capsys.readouterr().err
    assert (err.startswith("error: "), err.count("\n")) == (True, 1)


class Panic(BaseException):
    """As pyo3's PanicException, a panic of a library in Rust: no Exception."""


@pytest.mark.parametrize("error", [Panic("overflow"), OSError("of a library")])
def test_what_a_library_raises_is_one_line(
    command: typer.Typer, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    _raise_from(command, error)
    assert entry.main(["fail"]) == 1
    assert capsys.readouterr().err.startswith(f"internal error: {type(error).__name__}: {error} (this is a bug")


def test_what_a_check_found_is_printed_in_full(command: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    faults = "; ".join(f"policy.layer{number}.engine was altered: the sha256 differs" for number in range(80))
    _raise_from(command, errors.VerificationError(faults))
    assert entry.main(["fail"]) == 5
    assert capsys.readouterr().err == f"error: {faults}\n"


def test_a_bug_is_reported_without_a_traceback(command: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    _raise_from(command, ZeroDivisionError("of [nothing]"))
    assert entry.main(["fail"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("internal error: ZeroDivisionError: of [nothing] (this is a bug: set WISE_EDGE_DEBUG=1")
    assert message.count("\n") == 1


def test_a_bug_shows_its_traceback_on_request(
    command: typer.Typer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WISE_EDGE_DEBUG", "1")
    _raise_from(command, ZeroDivisionError("broken"))
    assert entry.main(["fail"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_an_interrupt_exits_with_130(command: typer.Typer) -> None:
    _raise_from(command, KeyboardInterrupt())
    assert entry.main(["fail"]) == 130


@pytest.mark.parametrize(("behind", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
@pytest.mark.parametrize("error", [ImportError("initialization failed"), errors.DeviceError("does not start")])
def test_an_error_that_a_signal_caused_is_the_signal(
    command: typer.Typer, capsys: pytest.CaptureFixture[str], error: Exception, behind: BaseException, code: int
) -> None:
    error.__cause__ = behind
    _raise_from(command, error)
    assert entry.main(["fail"]) == code
    assert capsys.readouterr() == ("", "")


def test_a_command_may_choose_its_exit_code(command: typer.Typer) -> None:
    _raise_from(command, typer.Exit(5))
    assert entry.main(["fail"]) == 5


@pytest.mark.parametrize("arguments", [["no-such-command"], ["--no-such-option"], ["run"]])
def test_arguments_that_do_not_parse_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Usage: wise-edge" in err


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("help", "for help type wise-edge -h"),
        ("help run", "for help type wise-edge run -h"),
        ("bundle help show", "for help type wise-edge bundle show -h"),
        ("predict a.png mug", "did you mean wise-edge run?"),
        ("version", "did you mean wise-edge --version?"),
        ("rnu a.png mug", "Did you mean 'run'?"),
        ("evaluate t.csv", "did you mean --data t.csv?"),
        ("evaluate x.json", "did you mean --data x.json?"),
        ("run a.png --prompt mug", "--prompt; the query is the last argument"),
        ("track 0 --text mug", "--text; the query is the last argument"),
        ("run a.png mug --show", "--show; did you mean --overlay FILE?"),
        ("run a.png mug --device cuda", "--device; pass --policy-backend and --mask-backend"),
        ("run a.png mug --bundel b", "--bundel; did you mean --bundle?"),
        ("setup --sho", "--sho"),
        ("doctor --prompt mug", "--prompt"),
    ],
)
def test_names_that_there_are_not_are_explained(line: str, advice: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(line.split()) == 2
    assert capsys.readouterr().err.rstrip().endswith(advice)


@pytest.mark.parametrize("name", ["--version", "-V"])
def test_version(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main([name]) == 0
    assert capsys.readouterr().out == f"wise-edge {wise_edge.__version__}\n"


def test_the_version_for_reports_of_bugs(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--version", "--verbose"]) == 0
    text = capsys.readouterr().out
    assert entry.main(["--version", "--verbose", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["wise-edge"] == wise_edge.__version__
    assert facts["packages"]["numpy"] == metadata.version("numpy")
    assert {"typer", "rich", "tokenizers"} <= set(facts["packages"])
    for value in (facts["python"], facts["platform"], facts["packages"]["numpy"]):
        assert value in text
    personal = {socket.gethostname(), getpass.getuser(), str(Path.home()), str(ROOT)} - {"root", "/root", "localhost"}
    assert [word for word in personal if word in text] == []
    assert entry.main(["--version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"wise-edge": wise_edge.__version__}


def test_the_version_imports_no_library() -> None:
    code = "import sys; from wise_edge.cli.main import main; main(['--version', '--verbose']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"onnxruntime", "rich", "torch", "transformers"}.isdisjoint(done.stdout.splitlines()[-1].split())


def test_the_commit_is_that_of_the_installed_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    monkeypatch.setattr("importlib.metadata.PathDistribution.read_text", lambda self, name: None)
    package = tmp_path / "wise_edge"
    package.mkdir()
    monkeypatch.setattr(wise_edge, "__file__", str(package / "__init__.py"))
    assert version.find_commit() is None
    (package / "__init__.py").touch()
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "One")
    commit = git("rev-parse", "HEAD")
    assert version.find_commit() == commit[:12]
    (package / "__init__.py").write_text("changed")
    assert version.find_commit() == f"{commit[:12]}-dirty"
    recorded = json.dumps({"url": "https://example.org", "vcs_info": {"vcs": "git", "commit_id": "0123"}})
    monkeypatch.setattr("importlib.metadata.PathDistribution.read_text", lambda self, name: recorded)
    assert version.find_commit() == "0123"


@pytest.mark.parametrize("arguments", [["--verbose"], ["--json", "doctor"], ["--verbose", "run", "a.png", "x"]])
def test_what_goes_with_the_version_alone(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(arguments) == 2
    assert capsys.readouterr().err == f"error: {arguments[0]} before the command goes with --version\n"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--help"]) == 0
    out = capsys.readouterr().out
    for name in ("run", "evaluate", "demo", "train", "export"):
        assert f" {name} " in out


def test_help_imports_no_stage_and_nothing_heavy() -> None:
    """What makes help fast; `benchmarks/cold_start.py` says how fast it is."""
    code = "import sys; from wise_edge.cli.main import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = done.stdout.splitlines()[-1].split()
    assert "typer" in modules
    assert {"numpy", "onnxruntime", "PIL", "rich", "tokenizers", "torch", "transformers"}.isdisjoint(modules)
    stages = [
        name for name in modules if name.startswith(("wise_edge.export.", "wise_edge.runtimes.", "wise_edge.train"))
    ]
    tables = {"wise_edge.runtimes.backends", "wise_edge.export.targets", "wise_edge.export.precisions"}
    assert set(stages) <= tables  # of names, for the help texts


def test_a_reader_that_leaves_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "wise_edge", "--version"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait()


def test_training_says_which_python_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.version_info", (3, 10, 12, "final", 0))
    assert entry.main(["train", "--recipe", "embedded-sam", "--out", "unused"]) == 4
    assert "Python 3.11" in capsys.readouterr().err
