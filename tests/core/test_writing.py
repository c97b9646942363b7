"""One writer of a target, and whatever stops it leaves the old one or the new one whole."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from damage import take_away_locks
from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.files import renaming, writing
from wise_edge.files.locks import claiming, holding
from wise_edge.files.writing import atomic_write, replacing, replacing_folder

Stop = Callable[[], None]


def write_folder(target: Path, content: str, **options: Any) -> None:
    with replacing_folder(target, marker="a", **options) as folder:
        (folder / "a").write_text(content)
        (folder / "b").mkdir()
        (folder / "b" / "c").write_text(content)


def content_of(target: Path) -> str | None:
    """The content of what `write_folder` wrote, which must be whole; None if there is no target."""
    if not target.exists():
        return None
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*")) == ["a", "b", "b/c"]
    assert (target / "a").read_text() == (target / "b" / "c").read_text()
    return (target / "a").read_text()


def without(flag: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that lacks one of renameat2's flags."""
    rename = renaming._rename
    monkeypatch.setattr(renaming, "_rename", lambda a, b, asked: asked != flag and rename(a, b, asked))


def stop_at(number: int, stop: Stop, work: Stop) -> bool:
    """Call `stop` before the n-th line that the package runs in `work`; return whether there was one."""
    passed = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal passed
        if "/wise_edge/files/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            passed += 1
            if passed == number:
                sys.settrace(None)
                stop()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return passed >= number


def forked(work: Stop) -> None:
    """Run something in a process of its own that may be killed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child starts no thread
        child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where there is such a disk, since hundreds of folders are written."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        yield Path(name)


def killed() -> None:
    os._exit(9)


def terminated() -> None:
    raise SystemExit(143)


def full() -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("exchanged", "stop"),
    [
        (True, killed),
        (False, killed),
        pytest.param(False, terminated, marks=pytest.mark.slow),
        pytest.param(False, full, marks=pytest.mark.slow),
    ],
)
def test_a_folder_is_whole_wherever_its_writer_is_stopped(
    folder: Path, exchanged: bool, stop: Stop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before each line of the package, in a process of its own; the next run finds and leaves nothing else."""
    if not exchanged:
        without(renaming._EXCHANGE, monkeypatch)
    target, done, seen, missing, number = folder / "x", folder / "done", set(), 0, 0
    while not done.exists():
        number += 1
        write_folder(target, "old", force=True)

        def work() -> None:
            if not stop_at(number, stop, lambda: write_folder(target, "new", force=True)):  # noqa: B023
                done.touch()

        forked(work)
        capsys.readouterr()
        if content_of(target) is None:
            missing += 1
            with pytest.raises(UsageError, match="exists; use --force"):  # it is back before the check
                write_folder(target, "next", force=False)
            assert "has been restored" in capsys.readouterr().err
            assert content_of(target) == "old"
        seen.add(content_of(target))
        write_folder(target, "next", force=True)
        if (kept := folder / "x-2").exists():  # what was made and could not take its place
            assert content_of(kept) is not None
            shutil.rmtree(kept)
        assert {entry.name for entry in folder.iterdir()} <= {"x", "done"}
    assert seen == {"old", "new"}
    assert (missing > 0) is (stop is killed and not exchanged)
    assert number > 80


@pytest.mark.parametrize("force", [True, False])
def test_a_second_writer_is_refused_before_its_work(tmp_path: Path, force: bool) -> None:
    """In threads too, and whatever link leads to the target."""
    (tmp_path / "link").symlink_to(tmp_path / "x")
    failures: list[Exception] = []

    def second(name: str) -> None:
        try:
            with replacing_folder(tmp_path / name, force=force):
                failures.append(AssertionError("the work began"))
        except UsageError as error:
            failures.append(error)

    with replacing_folder(tmp_path / "x", force=force) as folder:
        for name in ("x", "link"):
            thread = threading.Thread(target=second, args=(name,))
            thread.start()
            thread.join()
        folder.joinpath("a").touch()
    process = rf"is being written by another process \({os.getpid()}\); wait until it has ended"
    for name, failure in zip(("x", "link"), failures, strict=True):
        assert isinstance(failure, UsageError)
        with pytest.raises(UsageError, match=f"{name} {process}"):
            raise failure
    assert [entry.name for entry in (tmp_path / "x").iterdir()] == ["a"]


@pytest.mark.parametrize("flags", [True, False])
def test_what_appears_meanwhile_is_left_and_the_new_one_is_kept(
    tmp_path: Path, flags: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not flags:
        without(renaming._NOREPLACE, monkeypatch)
    (tmp_path / "x-2").mkdir()
    with (
        pytest.raises(
            WiseEdgeError, match=r"x was created meanwhile and was not replaced; the new one is .*/x-3"
        ) as folder,
        replacing_folder(tmp_path / "x", force=False) as fresh,
    ):
        (fresh / "a").write_text("new")
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "theirs").touch()
    assert folder.value.exit_code == 1
    assert (tmp_path / "x" / "theirs").exists()
    assert (tmp_path / "x-3" / "a").read_text() == "new"
    with (
        pytest.raises(WiseEdgeError, match=r"f\.png was created meanwhile .* the new one is .*/f-2\.png"),
        replacing(tmp_path / "f.png", force=False) as fresh,
    ):
        fresh.write_text("new")
        (tmp_path / "f.png").write_text("theirs")
    assert (tmp_path / "f.png").read_text() == "theirs"
    assert (tmp_path / "f-2.png").read_text() == "new"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["f-2.png", "f.png", "x", "x-2", "x-3"]


def test_a_folder_that_another_process_adds_to_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "bundle.json").touch()
    with (
        holding(target),
        pytest.raises(UsageError, match=rf"{target} is being written by another process"),
        replacing_folder(target, marker="bundle.json"),
    ):
        pytest.fail("the work began")
    with replacing_folder(target, marker="bundle.json"), pytest.raises(UsageError), holding(target):
        pass


def test_a_file_that_another_process_appends_to_is_not_replaced(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with claiming(log):
        log.write_text("record\n")
        with pytest.raises(WiseEdgeError, match=r"is being written by another process.*log-2\.jsonl"):
            atomic_write(log, b"report", force=True)
        assert (log.read_text(), (tmp_path / "log-2.jsonl").read_text()) == ("record\n", "report")
        atomic_write(log, b"joined", force=True, held=True)
    atomic_write(log, b"report", force=True)
    assert log.read_bytes() == b"report"


def test_force_replaces_no_other_folder_that_appears_meanwhile(tmp_path: Path) -> None:
    with (
        pytest.raises(WiseEdgeError, match=r"x exists and has no a; choose another folder; the new one is .*/x-2"),
        replacing_folder(tmp_path / "x", marker="a", force=True),
    ):
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "theirs").touch()
    assert (tmp_path / "x" / "theirs").exists()


def test_what_a_link_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "f").symlink_to("disk/f")
    (tmp_path / "x").symlink_to("disk/x")
    for _ in range(2):
        atomic_write(tmp_path / "f", b"content", force=True)
        write_folder(tmp_path / "x", "content", force=True)
    assert (tmp_path / "f").is_symlink()
    assert (tmp_path / "x").is_symlink()
    assert (tmp_path / "disk" / "f").read_bytes() == b"content"
    assert content_of(tmp_path / "disk" / "x") == "content"
    assert sorted(entry.name for entry in (tmp_path / "disk").iterdir()) == ["f", "x"]


def test_long_names_have_scratches_of_their_own(tmp_path: Path) -> None:
    for letters in ("x" * 254, "ü" * 127):
        with replacing_folder(tmp_path / f"{letters}a") as one, replacing_folder(tmp_path / f"{letters[:-1]}b") as two:
            assert one != two
    assert len(list(tmp_path.iterdir())) == 4
    with pytest.raises(UsageError, match="File name too long"), replacing_folder(tmp_path / ("x" * 256), marker="a"):
        pytest.fail("the work began")


def test_a_link_in_the_place_of_the_scratch_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "new").touch()
    (tmp_path / ".x.wise-edge").symlink_to("theirs")
    with pytest.raises(UsageError, match=r"\.x\.wise-edge is a link"), replacing_folder(tmp_path / "x"):
        pytest.fail("the work began")
    assert (tmp_path / "theirs" / "new").exists()


def test_a_scratch_of_another_user_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(file: Path) -> None:  # as in a folder of mode 700 that root made
        raise PermissionError(13, "Permission denied", str(file))

    (tmp_path / ".x.wise-edge").mkdir()
    monkeypatch.setattr(Path, "touch", denied)
    line = r"\.x\.wise-edge belongs to another user"
    with pytest.raises(UsageError, match=line), replacing_folder(tmp_path / "x"):
        pytest.fail("the work began")


def test_without_locks_a_scratch_is_not_taken_for_a_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_away_locks(monkeypatch)
    with replacing_folder(tmp_path / "x") as fresh:
        (fresh / "a").touch()
        line = r"\.x\.wise-edge exists: another process is writing"
        with pytest.raises(UsageError, match=line), replacing_folder(tmp_path / "x"):
            pytest.fail("the work began")
    assert (tmp_path / "x" / "a").exists()
    write_folder(tmp_path / "x", "next")


def test_errors_name_the_target_and_what_to_do(tmp_path: Path) -> None:
    for error, line in (
        (OSError(28, "No space left on device"), r"cannot write \S+/x: No space left on device; free some space"),
        (OSError(30, "Read-only file system", "FRESH/a"), r"cannot write \S+/x: Read-only file system; choose another"),
        (
            RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos"),
            "/x: not all of it could be written",
        ),
        (OSError("100 requested and 36 written"), "/x: not all of it could be written; free some space"),
        (
            ValueError("Error while serializing: I/O error: File too large (os error 27)"),
            "/x: File too large; write to",
        ),
        (UsageError("FRESH/a is wrong"), r"^\S+/x/a is wrong$"),
    ):
        with pytest.raises(WiseEdgeError, match=line), replacing_folder(tmp_path / "x") as fresh:
            if isinstance(error, OSError) and error.filename:
                error.filename = str(fresh / "a")
            error.args = tuple(
                str(part).replace("FRESH", str(fresh)) if isinstance(part, str) else part for part in error.args
            )
            raise error
    other = OSError(5, "Input/output error", "/data/weights")
    with pytest.raises(OSError, match="/data/weights"), replacing_folder(tmp_path / "x"):
        raise other
    with pytest.raises(ValueError, match="a bug"), replacing_folder(tmp_path / "x"):
        raise ValueError("a bug")
    assert list(tmp_path.iterdir()) == []
    assert writing._scratch_name("x") == ".x.wise-edge"


def test_a_git_repository_keeps_its_history(tmp_path: Path) -> None:
    (tmp_path / "x" / ".git").mkdir(parents=True)
    (tmp_path / "x" / "bundle.json").touch()
    with (
        pytest.raises(UsageError, match="x is a git repository; choose another folder"),
        replacing_folder(tmp_path / "x", marker="bundle.json"),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_folder_where_a_disk_is_mounted_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "x")
    with pytest.raises(UsageError, match="is a mount point"), replacing_folder(tmp_path / "x"):
        pytest.fail("the work began")
