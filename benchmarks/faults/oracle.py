"""What a loader may do with a damaged file: accept it, or refuse it with one line. All else is a fault."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from wise_edge.errors import WiseEdgeError

CPU_S = 10
"""A loader may compute for this long, all threads together; the kernel then ends the process, which counts as a
hang."""
ADDRESS_BYTES = 4 << 30
"""What a loader may map or allocate beyond the process with its imports; an allocation beyond fails."""
RESIDENT_BYTES = 1 << 30
"""What a loader may touch."""
ROOT = Path(__file__).parents[2]
_OUT_OF_MEMORY = re.compile(r"bad_alloc|[Uu]nable to allocate|[Cc]annot allocate memory|not enough memory")


class Fault(Exception):
    """What a loader must not do, as its message says."""


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant.

    Attributes:
        kind: "accepted", "refused", "uncaught", "hang" or "abort".
        where: what tells one fault from another; empty without one.
        text: the refusal, or the traceback.
    """

    kind: str
    where: str = ""
    text: str = ""


def judge(read: Callable[[Path], object], folder: Path) -> Outcome:
    """Let a loader read a folder, in this process."""
    before = _resident_bytes("VmRSS")
    _forget_peak()
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
    try:
        read(folder)
        outcome = Outcome("accepted")
    except WiseEdgeError as error:
        outcome = _judge_refusal(error)
    except BaseException as error:
        outcome = Outcome("uncaught", _place(error), "".join(traceback.format_exception(error))[-6000:])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if outcome.kind != "uncaught" and (grown := _resident_bytes("VmHWM") - before) > RESIDENT_BYTES:
        return Outcome("uncaught", "memory", f"{grown / 1e9:.1f} GB were taken, then: {outcome.kind} {outcome.text}")
    return outcome


def bound_memory() -> None:
    """Let the process allocate no more than `ADDRESS_BYTES` beyond what it has."""
    limit = _resident_bytes("VmSize") + ADDRESS_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run_command(*arguments: str, succeeds: tuple[int, ...] = (0, 5)) -> None:
    """Run a command of wise-edge in this process, and judge its exit code and what it prints.

    Args:
        arguments: those of the command line.
        succeeds: exit codes of a command that could read everything, as one that found what it looked for.

    Raises:
        WiseEdgeError: it refused.
        Fault: it did neither.
    """
    from wise_edge.cli.main import main

    os.environ["WISE_EDGE_DEBUG"] = "1"  # so that the traceback of a bug is seen
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # strict, as a terminal's
    errors = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    with redirect_stdout(printed), redirect_stderr(errors):
        code = main(list(arguments))
        printed.flush()
        errors.flush()
    out, told = (stream.buffer.getvalue().decode("utf-8") for stream in (printed, errors))
    lines = [line for line in told.splitlines() if line.startswith("error: ")]
    if "Traceback (most recent call last)" in told or "internal error" in told:
        raise Fault(told)
    if code not in succeeds or (code and lines):
        if len(lines) != 1 and "Usage: " not in told:
            raise Fault(f"exit code {code} with {len(lines)} lines of error: {told}")
        raise WiseEdgeError(lines[0] if lines else "usage")
    if "--json" in arguments and out:
        try:
            json.loads(out, parse_constant=_refuse_constant)
        except ValueError as error:
            raise Fault(f"exit code {code}, and what was printed is no JSON: {error}: {out[:200]}") from error


def _judge_refusal(error: WiseEdgeError) -> Outcome:
    line, chain = str(error), _chain(error)
    kinds = [type(one).__name__ for one in chain]
    if any(isinstance(one, MemoryError) or _OUT_OF_MEMORY.search(str(one)[:2000]) for one in chain):
        trace = "".join(traceback.format_exception(error))[-6000:]
        return Outcome("uncaught", f"memory, {_place(chain[-1])}", trace)
    if len(line.splitlines()) != 1 or len(line) > error.longest or not line.strip():
        where = f"message of {len(line.splitlines())} lines, {len(line)} characters"
        return Outcome(
            "uncaught", f"{re.sub(r'[0-9]+', 'N', where)} {_place(error)}", f"{where}: {line[:2000]} {kinds}"
        )
    return Outcome("refused", "", line)


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        following = following.__cause__ or following.__context__
    return found


def _place(error: BaseException) -> str:
    """Return the class of an error and the innermost line of the project that it came from."""
    if isinstance(error, Fault):
        return _place_in_text(str(error))
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(frame.filename)]
    at = f"{Path(own[-1].filename).resolve().relative_to(ROOT)}:{own[-1].lineno}" if own else "outside"
    return f"{type(error).__name__} {at}"


def _place_in_text(text: str) -> str:
    frames = [(file, line) for file, line in re.findall(r'File "([^"]+)", line (\d+)', text) if _is_own(file)]
    kinds = re.findall(r"^([\w.]+(?:Error|Exception|Warning|Interrupt)\b)", text, re.MULTILINE)
    if not frames:
        return f"command: {text[:60]}"
    file, line = frames[-1]
    return f"{kinds[-1] if kinds else 'error'} {Path(file).resolve().relative_to(ROOT)}:{line}"


def _is_own(file: str) -> bool:
    path = Path(file).resolve()
    return path.is_relative_to(ROOT) and "benchmarks" not in path.relative_to(ROOT).parts[:1]


def _resident_bytes(entry: str) -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next((int(line.split()[1]) << 10 for line in file if line.startswith(f"{entry}:")), 0)


def _forget_peak() -> None:
    """Start the kernel's record of the largest memory anew (https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html)."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        print("the peak of memory cannot be reset here; it is that of all mutants so far", file=sys.stderr)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as JSON-ready data."""
    return {"kind": outcome.kind, "where": outcome.where, "text": outcome.text}
