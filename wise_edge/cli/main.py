"""The `wise-edge` command line: the Typer application, and the function that turns errors into exit codes.

stdout is for results only; errors go to stderr as one plain line. They are printed without Rich, which would interpret
the `[onnx]` in "pip install 'wise-edge[onnx]'" as markup.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from wise_edge import __version__
from wise_edge.__main__ import run_main as run_main  # where console scripts look that were installed before it moved
from wise_edge.cli import options
from wise_edge.cli.build import build
from wise_edge.cli.bundle import app as bundle
from wise_edge.cli.common import completion as completions
from wise_edge.cli.common.settings import Defaults, read_defaults
from wise_edge.cli.common.tree import Tree
from wise_edge.cli.completion import completion
from wise_edge.cli.config import app as config
from wise_edge.cli.demo import demo
from wise_edge.cli.doctor import doctor
from wise_edge.cli.evaluation.evaluate import app as evaluate
from wise_edge.cli.export import export
from wise_edge.cli.masks import masks
from wise_edge.cli.profile import app as profile
from wise_edge.cli.prompts import app as prompts
from wise_edge.cli.robot.bag import bag
from wise_edge.cli.robot.dora import dora
from wise_edge.cli.robot.ros2 import ros2
from wise_edge.cli.run import run
from wise_edge.cli.serve import serve
from wise_edge.cli.setup import setup
from wise_edge.cli.track import track
from wise_edge.cli.train import train
from wise_edge.errors import UsageError, WiseEdgeError, one_line
from wise_edge.files.documents import to_json
from wise_edge.files.refusals import explain_refusal

app = typer.Typer(
    help="Image and sentence in, mask out: concise reasoning segmentation on edge devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[bool, options.flag("--version", "Print the version and exit.", "-V")] = False,
    verbose: Annotated[
        bool,
        options.flag("--verbose", "With --version: also commit, system, device and packages, for a bug report."),
    ] = False,
    as_json: Annotated[bool, options.flag("--json", "With --version: print one JSON document.")] = False,
) -> None:
    if version:
        typer.echo(_version_text(verbose, as_json))
        raise typer.Exit
    if verbose or as_json:
        raise UsageError(f"{'--verbose' if verbose else '--json'} before the command goes with --version")
    if context.invoked_subcommand is None:
        raise UsageError("name a command; wise-edge -h lists them")


def _version_text(verbose: bool, as_json: bool) -> str:
    if not verbose:
        return to_json({"wise-edge": __version__}) if as_json else f"wise-edge {__version__}"
    from wise_edge.cli.common.version import describe_version, format_version

    facts = describe_version()
    return to_json(facts) if as_json else format_version(facts)


for command in (demo, run, masks, track, setup, train, export, build, bag, serve, dora, doctor, completion):
    app.command()(command)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(ros2)
app.add_typer(evaluate, name="evaluate")
app.add_typer(bundle, name="bundle")
app.add_typer(profile, name="profile")
app.add_typer(prompts, name="prompts")
app.add_typer(config, name="config")


def main(argv: list[str] | None = None) -> int:
    """Run one command line and turn its outcome into an exit code.

    Args:
        argv: the arguments without the program's name; None means those of the process.

    Returns:
        0 for success, 1 to 5 as in `wise_edge.errors` (2 also for invalid arguments), 130 for Ctrl-C, 143 for SIGTERM.
    """
    argv = sys.argv[1:] if argv is None else argv
    tree = Tree(app)
    if shell := os.environ.get(completions.VARIABLE):
        return _answer(tree, argv, shell)
    try:
        _check_arguments(argv)
        tree.defaults = _read_defaults(tree, argv)
        tree.root(args=argv, prog_name="wise-edge", default_map=tree.defaults.as_map())
    except SystemExit as stop:  # from Typer: done, invalid arguments, interrupted, reader gone
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:  # outside of a command, where Typer makes it a SystemExit
        return 130
    except BaseException as error:  # a panic of a library in Rust is no Exception
        if (code := _signal_behind(error)) is not None:
            return code
        if isinstance(error, WiseEdgeError):
            if isinstance(error, UsageError) and tree.in_effect:
                print_error(f"note: defaults in effect: {', '.join(tree.in_effect)}")
            print_error(f"error: {error}")
            return error.exit_code
        if os.environ.get("WISE_EDGE_DEBUG") == "1":
            traceback.print_exception(error)
        elif isinstance(error, MemoryError):
            print_error(f"error: out of memory ({error or 'MemoryError'}); close other programs")
        elif isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # Path.resolve before 3.13
            print_error(f"error: {error}; remove the links that lead back to themselves")
        elif reason := explain_refusal(error):
            print_error(f"error: {one_line(reason)}")
        else:
            print_error(
                f"internal error: {type(error).__name__}: {one_line(str(error))} "
                "(this is a bug: set WISE_EDGE_DEBUG=1 for the traceback and report it)"
            )
        return 1
    return 0


def _answer(tree: Tree, words: Sequence[str], shell: str) -> int:
    """Answer a shell that asks what may follow; errors would stand in the middle of what is being typed."""
    try:
        found = completions.answer(tree.root, words, shell, _read_defaults(tree, ["--help"]))
    except Exception:
        found = "files"
    typer.echo(found)
    return 0


def _read_defaults(tree: Tree, argv: Sequence[str]) -> Defaults:
    """Return what the files of settings say; help and completion answer without a file that is wrong."""
    lenient = not {"-h", "--help", "-V", "--version"}.isdisjoint(argv)
    try:
        defaults = read_defaults(tree.commands)
    except UsageError:
        if lenient:
            return Defaults()
        raise
    for line in () if lenient else defaults.notes:
        print_error(f"note: {line}")
    return defaults


def _check_arguments(argv: Sequence[str]) -> None:
    """Reject what no command takes: an empty argument (a path would mean this folder), and one that no system takes."""
    for place, argument in enumerate(argv):
        name, _, value = argument.partition("=")
        empty = not argument or (name.startswith("--") and argument != name and not value)
        if "\0" in argument or empty:
            of = name if argument and empty else f"the argument after {argv[place - 1]}" if place else "the command"
            raise UsageError(
                f"{of} is empty; pass the path, query or value that belongs there"
                if empty
                else f"{of} contains a NUL byte; remove it"
            )


def _signal_behind(error: BaseException | None) -> int | None:
    """Return the exit code of Ctrl-C or SIGTERM if an error stems from one: modules in C raise ImportError instead."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return 130
        if isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM:  # others are a library's, as uvicorn's
            return 128 + signal.SIGTERM
        error = error.__cause__ or error.__context__
    return None


def flush_stdout() -> str | None:
    """Flush stdout, and return why that is refused; None if it is not, or only since the reader (`head`) is gone."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # leave nothing to flush at exit
        return None if isinstance(error, BrokenPipeError) else explain_refusal(error)
    return None


def print_error(line: str) -> None:
    """Print the line of an error on stderr."""
    print(line, file=sys.stderr)
