"""The processes of a WISE training: what a launcher says, and what the first process does for all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wise_edge.cli.main import main
from wise_edge.errors import MissingExtraError, UsageError

pytest.importorskip("wise_edge.training.wise", exc_type=MissingExtraError)

from wise_edge.training.wise.processes import on_first_process

REFUSED = """
import sys
from wise_edge.errors import UsageError
from wise_edge.training.wise.config import WiseConfig
from wise_edge.training.wise.processes import check_processes, on_first_process

def refuse():
    raise UsageError("the folder is held")

check_processes(WiseConfig(steps=1, processes=2, dtype="float32"))
assert on_first_process(lambda: "checkpoint-1") == "checkpoint-1"
try:
    on_first_process(refuse)
except UsageError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc'"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK is '-1'"),
        ({"RANK": "9", "WORLD_SIZE": "2"}, "RANK is '9'"),
        ({"LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "2"}, "LOCAL_RANK is '2'"),
    ],
)
def test_environment_that_no_launcher_makes_is_named(
    environment: dict[str, str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["train", "--recipe", "wise-embedded", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {line}")
    assert not (tmp_path / "run").exists()


def test_first_process_alone_returns_and_raises_what_its_action_does() -> None:
    def refuse() -> None:
        raise UsageError("held")

    assert on_first_process(lambda: 3) == 3
    with pytest.raises(UsageError, match="held"):
        on_first_process(refuse)


@pytest.mark.slow
def test_refusal_on_the_first_process_ends_all_with_one_line(tmp_path: Path) -> None:
    script = tmp_path / "refused.py"
    script.write_text(REFUSED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(script)], capture_output=True, text=True, env=environment, timeout=300)
    assert done.stdout == "the folder is held\n"
    assert "exitcode  : 2 " in done.stderr  # torchrun ends the other one if it is slower
