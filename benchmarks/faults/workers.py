"""Runs mutants in processes that are forked from a warm one, so that a mutant may hang or end its process.

A worker tells each outcome through a pipe, in the order of the mutants. If it ends early, the mutant at fault is the
one that follows the last told, and another worker goes on behind it.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NoReturn

from mutation import mutate
from oracle import Outcome, as_dict, bound_memory, judge

WALL_S = 180
"""Longest time without an outcome, after which a worker that does not compute is ended; it counts as a hang."""


@dataclass(frozen=True)
class Loader:
    """Something that reads what a user brings.

    Attributes:
        name: unique.
        make: writes valid files into an empty folder.
        read: reads them from a folder; raises `WiseEdgeError` if it refuses them.
        files: pattern of the files that are mutated.
        share: of the mutants, compared with other loaders: less for slow ones.
    """

    name: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    files: str = "*"
    share: float = 1.0


class Mutants:
    """A loader's valid files, and the mutants of them by their numbers.

    Args:
        loader: the loader.
        folder: an empty folder for its files.
        seed: of all mutants.
    """

    def __init__(self, loader: Loader, folder: Path, seed: int) -> None:
        self.loader = loader
        self._seed = seed
        self._valid, self._copy = folder / "valid", folder / loader.name.replace(" ", "-")
        self._valid.mkdir(parents=True)
        self._copy.mkdir()
        if code := _wait(_fork(lambda: loader.make(self._valid))):
            raise SystemExit(f"{loader.name}: its valid files could not be written (status {code})")
        self._contents = {file: file.read_bytes() for file in sorted(self._valid.rglob("*")) if file.is_file()}
        self._chosen = [file for file in self._contents if file.match(loader.files)]
        self._states: dict[Path, tuple[int, int, int]] = {}
        if not self._chosen:
            raise SystemExit(f"{loader.name}: no valid file matches {loader.files}")
        if code := _wait(_fork(lambda: loader.read(self.write(-1)))):
            raise SystemExit(f"{loader.name}: its valid files are refused (status {code})")

    def write(self, number: int) -> Path:
        """Write a mutant into a folder and return it; the mutant -1 is the valid files."""
        self._restore()
        if number >= 0:
            random = Random(f"{self._seed}/{self.loader.name}/{number}")
            file = random.choice(self._chosen)
            place = self._copy / file.relative_to(self._valid)
            place.write_bytes(mutate(file.name, self._contents[file], random))
            self._states.pop(place)
        return self._copy

    def keep(self, number: int, target: Path) -> None:
        """Copy a mutant's folder."""
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.write(number), target, symlinks=True, dirs_exist_ok=True)

    def _restore(self) -> None:
        """Make the folder hold the valid files again, and nothing else."""
        for place in sorted(self._copy.rglob("*"), reverse=True):
            if (self._valid / place.relative_to(self._copy)) not in self._contents and not place.is_dir():
                place.unlink()
        for file, content in self._contents.items():
            place = self._copy / file.relative_to(self._valid)
            if not place.is_file() or self._states.get(place) != _state(place):
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
                self._states[place] = _state(place)


def run_mutants(mutants: Mutants, numbers: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
    """Yield the outcome of each mutant, in order."""
    left = list(numbers)
    while left:
        reader, writer = os.pipe()
        worker = _fork(lambda left=left, writer=writer: _work(mutants, left, writer))
        os.close(writer)
        told = 0
        try:
            for told, line in enumerate(_read_lines(reader), 1):
                yield left[told - 1], Outcome(**json.loads(line))
        except TimeoutError:
            os.kill(worker, signal.SIGKILL)
            _wait(worker)
            yield left[told], Outcome("hang", "no outcome", f"nothing within {WALL_S} s")
            told += 1
        else:
            code = _wait(worker)
            if told < len(left):
                yield left[told], _explain(code)
                told += 1
        finally:
            os.close(reader)
            with suppress(ChildProcessError, ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
                os.waitpid(worker, 0)
        left = left[told:]


def _work(mutants: Mutants, numbers: Sequence[int], writer: int) -> None:
    bound_memory()
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    mutants.loader.read(mutants.write(-1))  # caches that live as long as the process are no mutant's
    for number in numbers:
        outcome = judge(mutants.loader.read, mutants.write(number))
        os.write(writer, json.dumps(as_dict(outcome)).encode() + b"\n")


def _read_lines(reader: int) -> Iterator[bytes]:
    """Yield the lines from a pipe until its other end is closed; raises TimeoutError without one for `WALL_S`."""
    rest = b""
    while True:
        if not select.select([reader], [], [], WALL_S)[0]:
            raise TimeoutError
        if not (data := os.read(reader, 1 << 16)):
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _explain(code: int) -> Outcome:
    number = -code
    if number == signal.SIGPROF:
        return Outcome("hang", "computing", "the CPU time ran out")
    what = signal.Signals(number).name if number > 0 else f"exit code {code}"
    return Outcome("abort", what, f"the process ended: {what}")


def _fork(work: Callable[[], object]) -> int:
    if (child := os.fork()) == 0:
        _end(work)
    return child


def _end(work: Callable[[], object]) -> NoReturn:
    code = 70
    try:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        work()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _wait(child: int) -> int:
    """Return a process's exit code, or minus the number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _state(file: Path) -> tuple[int, int, int]:
    found = file.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino
