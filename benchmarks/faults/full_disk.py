"""Run every command that writes on disks that fill up while it works, and on one that is read-only.

    nice -n 19 python benchmarks/faults/full_disk.py [CASE…]

Each command runs unbroken on a disk in memory; then again and again with less room than it needs, from none on, so that
it fills up at another write each time; then with the disk read-only. A failed run must end with exit code 1 (2 on the
read-only disk, before the work) and one line, leave no scratch, and lose nothing that it has computed: its result is
printed or kept, and with room the next command ends well. Needs the right to mount: root, or user namespaces. Exit code
1 if anything was found.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PAGE = 4096
_SIZE = 256 * 2**20
_LIMIT_S = 600.0
_BROKEN = ("Traceback", "internal error", "Exception ignored")


@dataclass(frozen=True)
class Case:
    """A command that writes.

    Attributes:
        command: its arguments, given the folder of what it reads and the one of what it writes.
        kept: returns whether a failed run has kept what it computed, given what it printed and the folder it wrote to.
        then: arguments of the next run, with room; None runs the command again.
        reset: puts what is there before the command.
        imports: modules that the runs find imported.
        to_disk: whether stdout is a file on the disk.
        always: whether the command ends well without room, since the file only saves time.
    """

    command: Callable[[Path, Path], list[str]]
    kept: Callable[[str, Path], bool] = lambda out, run: True
    then: Callable[[Path, Path], list[str] | None] = lambda inputs, run: None
    reset: Callable[[Path, Path], None] = lambda inputs, run: None
    imports: Sequence[str] = ("wise_edge.runtimes.session", "onnxruntime")
    to_disk: bool = False
    always: bool = False


def _query(inputs: Path) -> list[str]:
    return ["run", str(inputs / "image.png"), "the red ring", "--json"]


def _evaluate(inputs: Path, run: Path) -> list[str]:
    return ["evaluate", "--limit", "3", "--variant", "answer", "--out", str(run / "records.jsonl"), "--json"]


def _profile(inputs: Path, run: Path) -> list[str]:
    asked = ["profile", "--scenes", "1", "--variants", "answer", "--window", "0.1", "--json"]
    return [*asked, *(part for kind in ("json", "html", "csv") for part in ("--out", str(run / f"profile.{kind}")))]


def _bag(inputs: Path, run: Path) -> list[str]:
    return ["bag", str(inputs / "bag"), "--query", "the red ring", "--out", str(run / "out"), "--json"]


def _is_json(out: str, run: Path) -> bool:
    try:
        json.loads(out)
    except ValueError:
        return False
    return True


def _cases() -> dict[str, Case]:
    merge, sam = (import_module(f"kills_{name}").SCENARIO for name in ("merge", "sam"))
    return {
        "run": Case(
            lambda inputs, run: [*_query(inputs), "--mask", str(run / "m.png"), "--overlay", str(run / "o.png")],
            kept=_is_json,
            then=lambda inputs, run: [*_query(inputs), "--mask", str(run / "n.png")],
        ),
        "deadline": Case(lambda inputs, run: [*_query(inputs), "--deadline-ms", "500"], kept=_is_json, always=True),
        "stdout": Case(lambda inputs, run: _query(inputs), to_disk=True),
        "demo": Case(lambda inputs, run: ["demo", "--scenes", "1", "--out", str(run / "demo")]),
        "evaluate": Case(_evaluate, then=lambda inputs, run: [*_evaluate(inputs, run), "--resume"]),
        "profile": Case(_profile, kept=_is_json, then=lambda inputs, run: [*_profile(inputs, run), "--force"]),
        "bag": Case(
            _bag,
            then=lambda inputs, run: [*_bag(inputs, run), "--resume"],
            imports=("wise_edge.runtimes.session", "rosbags.typesys", "mcap.writer"),
        ),
        "report": Case(
            lambda inputs, run: [*_bag(inputs, run.parent), "--report", str(run / "report.html")],
            kept=lambda out, run: _is_json(out, run) or not (run.parent / "out").exists(),
            then=lambda inputs, run: [],
        ),
        "merge": Case(
            merge.command,
            kept=lambda out, run: not merge.check(run.parents[1] / "inputs", run),
            reset=merge.reset,
            imports=merge.imports,
        ),
        "train": Case(sam.command, then=sam.then, imports=sam.imports),
    }


def _prepare(folder: Path) -> None:
    import numpy as np
    from kills_merge import prepare as prepare_merge
    from kills_sam import SCENARIO

    from bag_writing import write_bag
    from wise_edge.images import save_png
    from wise_edge.scenes import sample

    picture = sample("test", 0).scene.image
    save_png(picture, folder / "image.png")
    write_bag(folder / "bag", 3, draw=lambda number: np.ascontiguousarray(picture))
    prepare_merge(folder)
    SCENARIO.prepare(folder)


class Disk:
    """A disk in memory, of which as much is free as asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run, self._ballast = folder, folder / "run", folder / "ballast"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "none", str(folder)], check=True)

    def free(self) -> int:
        """Return the free pages."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize // _PAGE

    def fill(self, left: int) -> None:
        """Leave some pages free."""
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, self.free() - left) * _PAGE)

    def relieve(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)

    def mount(self, how: str) -> None:
        """Make it read-only ("ro") or writable ("rw")."""
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.folder)], check=True)


class Bench:
    """Runs commands, and says what is wrong with how they end."""

    def __init__(self, disk: Disk, inputs: Path, temporary: Path) -> None:
        self.disk, self.inputs, self._temporary = disk, inputs, temporary
        self._out, self._err = temporary.with_name("stdout"), temporary.with_name("stderr")

    def run(self, arguments: Sequence[str], out: Path | None = None) -> tuple[int, str, str]:
        """Return exit code, stdout and stderr of a command."""
        from kills import wait

        child = os.fork()
        if child == 0:
            try:
                os.dup2(os.open(out or self._out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
                os.dup2(os.open(self._err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
                sys.argv = ["wise-edge", *arguments]
                import_module("wise_edge.__main__").run_main()
            except SystemExit as stop:
                os._exit(stop.code if isinstance(stop.code, int) else 1)
            finally:
                os._exit(70)
        code = wait(child, time.monotonic() + _LIMIT_S)
        return -1 if code is None else code, self._out.read_text(), self._err.read_text()

    def reset(self, case: Case) -> None:
        """Put what is there before a command."""
        self.disk.relieve()
        for folder in (self.disk.run, self.disk.folder / "out", self._temporary):
            shutil.rmtree(folder, ignore_errors=True)
        for left in self.disk.folder.iterdir():
            left.unlink()
        for folder in (self.disk.run, self._temporary):
            folder.mkdir()
        case.reset(self.inputs, self.disk.run)

    def try_case(self, case: Case, codes: Sequence[int], again: bool = True) -> list[str]:
        """Run a command as the disk is; return what is wrong."""
        arguments = case.command(self.inputs, self.disk.run)
        code, out, err = self.run(arguments, self.disk.run / "stdout" if case.to_disk else None)
        problems = [f"{word!r}: {err[-300:]}" for word in _BROKEN if word in err]
        refused_first = code == 2 and "free, but about" in err
        if code not in ([0] if case.always else codes) and not refused_first:
            problems.append(f"exit code {code}: {err[-300:]}")
        if code and sum(line.startswith("error: ") for line in err.splitlines()) != 1:
            problems.append(f"not one line: {err[-300:]}")
        problems += [f"left: {path.name}" for path in self.disk.run.rglob(".*.wise-edge")]
        if code == 1 and not case.kept(out, self.disk.run):
            problems.append(f"lost: {err[-300:]}")
        then = case.then(self.inputs, self.disk.run)
        if again and code and then != []:
            self.disk.relieve()
            code, _, err = self.run(then or arguments)
            problems += [f"the next run, with room: {code}: {err[-300:]}"] if code else []
        return problems


def _try_all(bench: Bench, name: str, case: Case, steps: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for module in case.imports:
        import_module(module)
    bench.reset(case)
    before = bench.disk.free()
    found.update(bench.try_case(case, [0]))
    written = sum(path.stat().st_size for path in bench.disk.run.rglob("*") if path.is_file())
    need = max(before - bench.disk.free(), 2 * written // _PAGE)  # what is replaced is there until the end
    tried = sorted({round(need * 1.5 * step / steps) for step in range(steps)} | {0, 1, 2, 3})
    for left in tried:
        bench.reset(case)
        bench.disk.fill(left)
        found.update(bench.try_case(case, [0, 1]))
    bench.reset(case)
    bench.disk.mount("ro")
    try:
        if not case.to_disk:  # a shell that cannot open it starts no command
            found.update(bench.try_case(case, [1, 2], again=False))
    finally:
        bench.disk.mount("rw")
    print(
        f"{name}: needs {need * _PAGE / 1e3:.0f} kB, {len(tried)} sizes and read-only: {dict(found) or 'well'}",
        flush=True,
    )
    return found


def main() -> None:
    """Try the cases that are asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--steps", type=int, default=12, help="amounts of room to try for each command")
    options = parser.parse_args()
    if "WISE_EDGE_NAMESPACE" not in os.environ:  # mounts are private to a namespace, and end with it
        own = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
        os.execvpe(own[0], [*own, sys.executable, *sys.argv], {**os.environ, "WISE_EDGE_NAMESPACE": "1"})
    support = ROOT / "tests" / "support"
    sys.path[:0] = [str(ROOT), str(support), str(support / "robot")]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        inputs, temporary = folder / "inputs", folder / "tmp"
        for made in (inputs, temporary):
            made.mkdir()
        os.environ |= {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
        child = os.fork()
        if child == 0:
            try:
                _prepare(inputs)
                os._exit(0)
            finally:
                os._exit(1)
        if os.waitpid(child, 0)[1]:
            raise SystemExit("the inputs cannot be prepared")
        bench = Bench(Disk(folder / "disk"), inputs, temporary)
        found: Counter[str] = Counter()
        try:
            for name, case in _cases().items():
                if not options.cases or name in options.cases:
                    os.environ["XDG_CACHE_HOME"] = str(bench.disk.run / "cache" if case.always else folder / "cache")
                    found += _try_all(bench, name, case, options.steps)
        finally:
            subprocess.run(["umount", str(bench.disk.folder)], check=True)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
