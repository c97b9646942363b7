"""Starts every command that writes twice at once on one target: one must win, the other must say so.

    python benchmarks/faults/two_writers.py [--repeat 40] [--only NAME] [--json]

The second starts at a random moment of the first one's run, in a fork of a process that has imported everything; each
tenth time both are processes of their own. Counted is how the pairs ended. Exits with 1 if a pair was at fault: both
were refused, a refusal was not one line with its code, or the target differs, apart from times, from what either makes
alone, or something lies beside it.

"meanwhile" are pairs of which one was refused because the other was running, not because it had ended.
"one after the other" are pairs of commands that may replace or continue what is there, which both ended with 0.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from figures import make_parser, print_figures
from writers import WRITERS, Writer

REAL_EVERY = 10
LIMIT_S = 600


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    errors: str


class Running:
    """A command in a process, its output in files beside its folder.

    Args:
        argv: the command's arguments.
        folder: where it runs.
        real: whether in a new interpreter; otherwise in a fork of this one.
    """

    def __init__(self, argv: list[str], folder: Path, number: int, real: bool) -> None:
        self._errors = folder.with_name(f"{folder.name}.{number}.err")
        self._status: int | None = None
        with self._errors.open("wb") as stream:
            if real:
                command = [sys.executable, "-m", "wise_edge", *argv]
                self._pid = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=stream).pid
                return
            self._pid = os.fork()
            if self._pid == 0:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.dup2(stream.fileno(), 2)
                _run_forked(argv, folder)

    def end(self, stop: bool = False) -> Ended:
        """Wait until it has ended, after SIGTERM if it is to stop."""
        if stop:
            os.kill(self._pid, signal.SIGTERM)
        status = self.poll(wait_s=LIMIT_S)
        if status is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            return Ended(-99, f"no end within {LIMIT_S} s")
        return Ended(status, self._errors.read_text(errors="replace"))

    def poll(self, wait_s: float = 0.0) -> int | None:
        """Return the exit code, or None while it runs."""
        until_s = time.monotonic() + wait_s
        while self._status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > until_s:
                break
            else:
                time.sleep(0.01)
        return self._status

    def told(self, word: str) -> bool:
        """Return whether it has printed a word."""
        return word in self._errors.read_text(errors="replace")


def _run_forked(argv: list[str], folder: Path) -> None:
    from wise_edge.cli.main import main

    code = 70
    try:
        os.chdir(folder)
        code = main(argv)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


class Pairs:
    """Pairs of one writer's commands.

    Args:
        writer: the writer.
        folder: an empty folder to work in.
        draw: of the moments.
    """

    def __init__(self, writer: Writer, folder: Path, draw: random.Random) -> None:
        self._writer, self._folder, self._draw = writer, folder, draw
        self._port = _free_port()
        self.counted: Counter[str] = Counter()
        self.faults: list[str] = []
        self._alone_s, self._alone = 0.0, []
        for number in (0, 1):
            place = self._fresh(f"alone-{number}")
            began_s = time.monotonic()
            running = Running(self._argv(number), place, number, real=False)
            ended = self._served(running) if writer.serves else running.end()
            self._alone_s = time.monotonic() - began_s
            if ended.code:
                raise RuntimeError(f"{writer.name} fails alone: {ended}")
            self._alone.append((writer.read(place), _names(place)))

    def run(self, number: int) -> None:
        """Run a pair and count how it ended."""
        place, real = self._fresh(f"pair-{number}"), number % REAL_EVERY == REAL_EVERY - 1
        delay_s = self._draw.random() ** 2 * self._alone_s * (2.0 if real else 1.1)
        first = Running(self._argv(0), place, 0, real)
        time.sleep(delay_s)
        second = Running(self._argv(1), place, 1, real)
        both = self._serving(first, second) if self._writer.serves else [first.end(), second.end()]
        kind, fault = self._judge(both, place)
        self.counted[kind] += 1
        if fault:
            self.faults.append(f"{self._writer.name} {number} (+{delay_s:.2f} s): {fault}: {both}")
        else:
            shutil.rmtree(place)

    def _judge(self, both: list[Ended], place: Path) -> tuple[str, str | None]:
        """Return how a pair ended, and what is wrong with that."""
        writer = self._writer
        winners = [number for number, ended in enumerate(both) if ended.code == 0]
        kind = ("both refused", "one won", "one after the other")[len(winners)]
        if not winners:
            return kind, "nobody won"
        if len(winners) == 2 and not writer.replaces:
            return "both won", "both ended with 0"
        if any(re.search(writer.meanwhile, ended.errors) for ended in both):
            kind = "one won meanwhile"
        for ended in both:
            if ended.code and (fault := _refusal_fault(ended, writer)):
                return kind, fault
        try:
            found = writer.read(place)
        except Exception as error:  # whatever a reader raises of a torn target
            return kind, f"the target cannot be read: {error!r}"
        if all(found != self._alone[winner][0] for winner in winners):
            return kind, "the target is not what a winner makes alone"
        if more := _names(place) - self._alone[winners[-1]][1] - self._alone[winners[0]][1]:
            return kind, f"left: {sorted(more)}"
        return kind, None

    def _served(self, running: Running) -> Ended:
        while running.poll() is None and not running.told("serving"):
            time.sleep(0.02)
        return running.end(stop=True)

    def _serving(self, *both: Running) -> list[Ended]:
        """Wait until one has ended and the other serves, which is asked and stopped."""
        while True:
            over = [each for each in both if each.poll() is not None]
            serving = [each for each in both if each not in over and each.told("serving")]
            if len(over) == 2 or len(serving) == 2 or (over and serving):
                return [each.end(stop=each in serving) for each in both]
            time.sleep(0.02)

    def _fresh(self, name: str) -> Path:
        place = self._folder / name
        place.mkdir()
        self._writer.make(place)
        return place

    def _argv(self, number: int) -> list[str]:
        return [part.replace("PORT", str(self._port)) for part in self._writer.commands[number]]


def _refusal_fault(ended: Ended, writer: Writer) -> str | None:
    lines = [line for line in ended.errors.splitlines() if line.startswith(("error", "internal error"))]
    if ended.code not in writer.codes:
        return f"exit code {ended.code}"
    if len(lines) != 1 or not re.search(f"{writer.meanwhile}|{writer.afterwards}", lines[0]):
        return f"refused with {lines}"
    return None


def _names(place: Path) -> set[str]:
    """Return the names of what lies in a folder, and beside its target."""
    return {str(path.relative_to(place)) for path in place.rglob("*")}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--repeat", type=int, default=40, help="pairs of a fast command; slow ones get fewer")
    parser.add_argument("--only", help="names of commands, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chosen = [writer for writer in WRITERS if options.only is None or writer.name in options.only.split(",")]
    for name in ("onnxruntime", "torch", "tokenizers", "wise_edge.cli.main"):
        __import__(name)
    figures: dict[str, Any] = {}
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="two-writers-") as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/caches"
        for writer in chosen:
            work = Path(folder) / writer.name.replace(" ", "-")
            work.mkdir()
            pairs = Pairs(writer, work, random.Random(f"{options.seed} {writer.name}"))
            for number in range(max(2, round(options.repeat * writer.share))):
                pairs.run(number)
            figures[writer.name] = dict(pairs.counted)
            faults += pairs.faults
            print(f"{writer.name}: {figures[writer.name]}", *pairs.faults, sep="\n  ", file=sys.stderr, flush=True)
    print_figures(figures | {"at fault": len(faults)}, options.json)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
