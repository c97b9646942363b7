"""Devices, sockets and named pipes are refused wherever a file is expected; nothing waits for them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wise_edge.cli.main import main
from wise_edge.datasets.plain_pickle import load_plain_pickle
from wise_edge.errors import UsageError
from wise_edge.files.documents import read_json
from wise_edge.files.inputs import refuse_special
from wise_edge.files.targets import check_target
from wise_edge.images import load_image
from wise_edge.profiling.document import read_document
from wise_edge.profiling.wall_meter import check_wall_meter
from wise_edge.robot.recording.reader import open_recording
from wise_edge.training.recipe import load_recipe


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """A test that waits is ended."""
    signal.alarm(20)
    yield
    signal.alarm(0)


def open_bag(path: Path) -> None:
    with open_recording(path):
        pass


READERS: dict[str, Callable[[Path], object]] = {
    "bag.mcap": open_bag,
    "bundle.json": read_json,
    "image.png": load_image,
    "meter.csv": lambda path: check_wall_meter(path, 0.0),
    "profile.json": read_document,
    "recipe.yaml": lambda path: load_recipe(str(path)),
    "refs.p": load_plain_pickle,
}


@pytest.mark.parametrize("name", READERS)
def test_a_named_pipe_is_no_input(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(UsageError, match=f"{name} is a named pipe; pass a regular file"):
        READERS[name](path)
    path.rename(tmp_path / "pipe")
    path.symlink_to("pipe")
    with pytest.raises(UsageError, match=f"{name} is a named pipe"):
        READERS[name](path)


def test_a_named_pipe_in_a_bags_folder_is_no_input(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "part_0.db3")
    with pytest.raises(UsageError, match=r"part_0\.db3 is a named pipe"):
        open_bag(tmp_path)


def test_devices_and_sockets_are_no_inputs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="/dev/zero is a device; pass a regular file"):
        load_image("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        with pytest.raises(UsageError, match="s is a socket; pass a regular file"):
            read_json(tmp_path / "s")


@pytest.mark.parametrize("command", [["evaluate", "compare"], ["profile", "compare"]])
def test_commands_say_so(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "a")
    assert main([*command, str(tmp_path / "a"), str(tmp_path / "a")]) == 2
    assert "is a named pipe; pass a regular file" in capsys.readouterr().err


def test_force_does_not_replace_a_device_or_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(UsageError, match=r"is a (named pipe|device)"):
            check_target(target, force=True)


def test_files_folders_and_what_is_missing_are_left_to_their_readers(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "a", tmp_path, tmp_path / "absent", tmp_path / "loop", "a\0b", "x" * 5000):
        refuse_special(path)
