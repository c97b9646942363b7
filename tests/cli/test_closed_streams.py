"""A command whose stdout is closed, or whose reader is gone, ends quietly."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wise_edge.bundle.store import resolve_bundle

COMMAND = f"{sys.executable} -m wise_edge --version"


@pytest.mark.parametrize("closed", [">&-", "<&-", "<&- >&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(closed: str) -> None:
    done = subprocess.run(["sh", "-c", f"{COMMAND} {closed}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "" or ">&-" not in closed


def test_no_file_gets_the_number_of_a_closed_stream() -> None:
    opened = "import sys, wise_edge.__main__ as entry; entry._open_closed_streams(); print(open('/dev/zero').fileno(), "
    code = f"{opened} file=sys.stderr)"
    done = subprocess.run(["sh", "-c", f'{sys.executable} -c "{code}" <&- >&-'], capture_output=True, check=False)
    assert int(done.stderr) > 2


def test_text_that_stdout_cannot_encode_is_escaped(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "b") + b"\xff\xc3\xa9"
    shutil.copytree(os.fsencode(resolve_bundle(None)), folder)
    command = [sys.executable, "-m", "wise_edge", "bundle", "verify", folder]
    for encoding, shown in (("utf-8", b"b\\udcff\xc3\xa9 is intact: all"), ("ascii", b"hashes match")):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, capture_output=True, env=environment, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert shown in done.stdout


def test_a_reader_that_is_gone_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(COMMAND.split(), stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode in (0, 1), done.stderr) == (True, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    done = subprocess.run(f"{COMMAND} >/dev/full", shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "error: No space left on device: stdout; free some space and run it again\n",
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_work_does_not_end_since_its_progress_cannot_be_told() -> None:
    """A training that logs to a full disk goes on."""
    code = "import sys; sys.argv = ['wise-edge', 'bundle', 'show', '--json']; from wise_edge import __main__ as entry; "
    code += "from wise_edge.cli import main; show = main.main; "
    code += "main.main = lambda: print('progress', file=sys.stderr, flush=True) or show(); entry.run_main()"
    done = subprocess.run(f'{sys.executable} -c "{code}" 2>/dev/full', shell=True, capture_output=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith(b"{")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_is_told_is_told_at_once(unbuffered: str) -> None:
    code = "import os, sys; from wise_edge import __main__ as entry; from wise_edge.cli import main; "
    code += "main.main = lambda: print('told', file=sys.stderr) or os._exit(0); entry.run_main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        check=False,
    )
    assert done.stderr == b"told\n"
