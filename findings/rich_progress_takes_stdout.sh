#!/usr/bin/env bash
# rich 15.0.0: while a progress bar is drawn on stderr, what a program prints to a file goes to the terminal.
#
# Source: `rich.progress.Progress(redirect_stdout=True)` of https://rich.readthedocs.io/en/stable/reference/progress.html
# ("Enable redirection of stdout, so print may be used"): it redirects to the bar's own console, wherever stdout leads.
#
# A good engineer would put the bar on stderr (console=Console(stderr=True)) so that `tool > file` works, try it in a script
# or a test, where stderr is no terminal and nothing is redirected, and see the lines in the file. In a terminal the file
# is empty. redirect_stdout=sys.stdout.isatty() keeps both.
#
# Seen, of one line printed beside the bar:
#   stderr a pipe       in the file: 1 line    on stderr: 0
#   stderr a terminal   in the file: 0 lines   on stderr: 1
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check rich==15.0.0

cat > "$work/tool.py" <<'PYTHON'
from rich.console import Console
from rich.progress import track

for _ in track(range(1), console=Console(stderr=True)):
    print("a result")
PYTHON
cat > "$work/show.py" <<'PYTHON'
import os
import pty
import subprocess
import sys
from pathlib import Path


def run(terminal: bool) -> tuple[int, int]:
    """Run the tool with stdout in a file; return how often its line is there and on stderr."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    with Path("results").open("wb") as stdout:
        process = subprocess.Popen(
            [sys.executable, "tool.py"], stdout=stdout, stderr=theirs, env=os.environ | {"TERM": "xterm"}
        )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65_536):
            shown += part
    except OSError:  # a terminal whose other end is closed
        pass
    process.wait()
    return Path("results").read_bytes().count(b"a result"), shown.count(b"a result")


for name, terminal, expected in (("a pipe", False, (1, 0)), ("a terminal", True, (0, 1))):
    found = run(terminal)
    print(f"stderr {name:13}in the file: {found[0]}   on stderr: {found[1]}")
    if found != expected:
        sys.exit(f"changed: expected {expected}")
PYTHON
cd "$work"
"$work/venv/bin/python" "$work/show.py"
