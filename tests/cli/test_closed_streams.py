"""A command whose stdout is closed, or whose reader is gone, ends quietly."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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


def test_a_reader_that_is_gone_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(COMMAND.split(), stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode in (0, 1), done.stderr) == (True, "")
