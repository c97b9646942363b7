"""Kill a command that writes at random moments; see what is left, and what the next run makes of it.

    nice -n 19 python benchmarks/faults/kills.py export --runs 200

Each run puts the old state in place, starts the command, kills it at a random moment of the time that it takes
unbroken, and looks at what is left: processes, torn or lost files. Then the command that a user would give next runs to
its end, and its place must hold what an unbroken run leaves there, no file more. Most runs fork from a process that has
imported what the command needs, so that they are cheap; a share are processes of their own, so that imports are killed
too. Every other run gets a SIGTERM instead of a SIGKILL. Exit code 1 if anything was found.

A scenario is a module `kills_NAME.py` beside this one with a `SCENARIO`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_GRACE_S = 5.0  # for a process whose parent was killed
_LIMIT_S = 900.0  # for any run


@dataclass(frozen=True)
class Scenario:
    """A command to kill.

    Attributes:
        imports: modules that forked runs find imported.
        prepare: makes in an empty folder what all runs read; called once, in a process of its own.
        reset: puts in the empty folder of a run (second argument) what is there before the command, of what was
            prepared (first).
        command: arguments of `wise-edge`; given the same two folders, as are the next three.
        then: those of the run after the kill.
        check: returns what is wrong with a run's folder right after the kill, in words.
        result: returns what an unbroken and a resumed run must have in common.
        environment: variables of the command.
        unfinished: pattern of names that a run may leave when SIGTERM has ended it, or it was stopped once.
    """

    imports: Sequence[str]
    prepare: Callable[[Path], None]
    reset: Callable[[Path, Path], None]
    command: Callable[[Path, Path], list[str]]
    then: Callable[[Path, Path], list[str]]
    check: Callable[[Path, Path], list[str]]
    result: Callable[[Path, Path], Any]
    environment: dict[str, str] = field(default_factory=dict)
    unfinished: str = "(?!)"


class Place:
    """The folders of a scenario: what was prepared, what a run writes, its temporary files and its messages."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.scenario = scenario
        self.inputs, self.run, self.temporary, self.log = (folder / name for name in ("inputs", "run", "tmp", "log"))
        os.environ.update({**scenario.environment, "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"})
        os.environ["PYTHONPATH"] = f"{ROOT}:{ROOT / 'tests' / 'support'}"
        self.inputs.mkdir()
        child = os.fork()
        if child == 0:
            try:
                scenario.prepare(self.inputs)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        if os.waitpid(child, 0)[1]:
            raise SystemExit("the scenario cannot be prepared")

    def reset(self) -> None:
        """Put the old state in place."""
        for folder in (self.run, self.temporary):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        self.scenario.reset(self.inputs, self.run)

    def start(self, arguments: Sequence[str], forked: bool) -> int:
        """Start `wise-edge` in a session of its own; return the process."""
        with self.log.open("ab") as log:
            if not forked:
                command = [sys.executable, "-m", "wise_edge", *arguments]
                return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True).pid
            child = os.fork()
            if child:
                return child
            os.setsid()
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        from wise_edge.__main__ import run_main

        sys.argv = ["wise-edge", *arguments]
        try:
            run_main()
        except SystemExit as stop:
            os._exit(stop.code if isinstance(stop.code, int) else 1)
        finally:
            os._exit(70)

    def names(self) -> set[str]:
        """Everything that lies in a run's folders, but for what an unfinished run may leave."""
        paths = (path for folder in (self.run, self.temporary) for path in folder.rglob("*"))
        names = (str(path.relative_to(self.run.parent)) for path in paths)
        return {name for name in names if not re.fullmatch(self.scenario.unfinished, name)}


def wait(process: int, until: float) -> int | None:
    """Return the exit code of a process, negative for a signal; None if it still runs at a time."""
    while time.monotonic() < until:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def left_processes(session: int) -> list[str]:
    """Return the processes of a session that still run after some time, and end them."""
    until = time.monotonic() + _GRACE_S
    while (found := _members(session)) and time.monotonic() < until:
        time.sleep(0.05)
    for process in found:
        os.kill(process, signal.SIGKILL)
    return [f"process {process} is left" for process in found]


def _members(session: int) -> list[int]:
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if its == str(session) and state != "Z":
            members.append(int(stat.parent.name))
    return members


def measure(place: Place, forked: bool) -> float:
    """Run unbroken; return how long that took, s."""
    place.reset()
    started = time.monotonic()
    code = wait(place.start(place.scenario.command(place.inputs, place.run), forked), started + _LIMIT_S)
    if code != 0:
        raise SystemExit(f"the unbroken run ended with {code}: {place.log.read_text()[-2000:]}")
    return time.monotonic() - started


def kill_once(place: Place, forked: bool, number: int, after_s: float, expected: Any, names: set[str]) -> list[str]:
    """Run, kill, look, run again, look; return what is wrong."""
    scenario = place.scenario
    place.reset()
    process = place.start(scenario.command(place.inputs, place.run), forked)
    code = wait(process, time.monotonic() + after_s)
    if code is None:
        os.kill(process, number)
        code = wait(process, time.monotonic() + _LIMIT_S)
    problems = left_processes(process) + [f"after the kill: {line}" for line in scenario.check(place.inputs, place.run)]
    if number == signal.SIGTERM:
        if code not in (0, 128 + signal.SIGTERM, -signal.SIGTERM):
            problems.append(f"SIGTERM ended it with {code}")
        problems += [f"SIGTERM left {name}" for name in sorted(place.names() - names)[:3]]
    code = wait(place.start(scenario.then(place.inputs, place.run), True), time.monotonic() + _LIMIT_S)
    if code != 0:
        return [*problems, f"the next run ended with {code}"]
    problems += [f"after the next run: {line}" for line in scenario.check(place.inputs, place.run)]
    problems += [f"left behind: {name}" for name in sorted(place.names() - names)[:3]]
    result = scenario.result(place.inputs, place.run)
    if result != expected:
        problems.append(f"the next run made something else than an unbroken one{_differences(result, expected)}")
    return problems


def _differences(result: Any, expected: Any) -> str:
    """Return which parts of two results differ, and the beginning of both, if results have named parts."""
    if not isinstance(result, dict) or not isinstance(expected, dict):
        return ""
    names = [name for name in sorted({*result, *expected}, key=str) if result.get(name) != expected.get(name)]
    pairs = (f"{name}: {expected.get(name)!r:.300} became {result.get(name)!r:.300}" for name in names[:3])
    return f" in {len(names)} parts: {'; '.join(pairs)}"


def main() -> None:
    """Kill as often as asked, or for as long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", help="NAME of a kills_NAME.py")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--real", type=float, default=0.2, help="share of the runs that are processes of their own")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
    scenario: Scenario = import_module(f"kills_{options.scenario}").SCENARIO
    draw, started = random.Random(options.seed), time.monotonic()
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(scenario, Path(folder))
        for name in ("wise_edge.cli.main", *scenario.imports):
            import_module(name)
        durations = {forked: measure(place, forked) for forked in (False, True)}
        expected, names = scenario.result(place.inputs, place.run), place.names()
        print(f"unbroken: {durations[False]:.1f} s, {durations[True]:.1f} s forked", flush=True)
        done = 0
        while done < options.runs and time.monotonic() - started < 60 * options.minutes:
            forked, number = draw.random() >= options.real, (signal.SIGKILL, signal.SIGTERM)[done % 2]
            after_s = draw.uniform(0, durations[forked])
            for problem in kill_once(place, forked, number, after_s, expected, names):
                found[problem.replace(folder, "")] += 1
                print(f"run {done}, {number.name} after {after_s:.3f} s: {problem}", flush=True)
            done += 1
    print(json.dumps({"scenario": options.scenario, "runs": done, "found": found}), flush=True)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
