"""Feeds damaged and malicious files to everything that reads what a user brings; see `mutation.py` for the damage.

    python benchmarks/faults/mutants.py [--mutants 100000] [--loader NAME]... [--json] [--keep DIR]
    python benchmarks/faults/mutants.py --loader NAME --mutant NUMBER [--seed 0]    # one, with what became of it

A loader may accept a mutant, or refuse it with a `WiseEdgeError` of one line. The others are faults: uncaught
exceptions (a message of several lines, more memory than `oracle.RESIDENT_BYTES` or `oracle.ADDRESS_BYTES`, and JSON
with NaN count as such), hangs (`oracle.CPU_S`) and processes that ended. Exits with 1 if there is a fault. Each mutant
follows from the seed, its loader and its number.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

ROOT = Path(__file__).parents[2]
_SUPPORT = ("tests/support", *(f"tests/support/{name}" for name in ("robot", "labeled", "service")))
sys.path[:0] = [str(ROOT / path) for path in ("", "benchmarks", *_SUPPORT)]
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

from figures import make_parser  # noqa: E402
from oracle import Outcome, judge  # noqa: E402
from workers import Loader, Mutants, run_mutants  # noqa: E402

KINDS = ("accepted", "refused", "uncaught", "hang", "abort")
_FAULTS = KINDS[2:]


@dataclass
class Tally:
    """What became of a loader's mutants.

    Attributes:
        counts: kind of outcome to mutants.
        faults: where a fault is to the number of its mutants and the first of them, with its text.
        took_s: time of all mutants.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[Any]] = field(default_factory=dict)
    took_s: float = 0.0

    def add(self, number: int, outcome: Outcome) -> bool:
        """Count an outcome; return whether it is a fault that was not seen before."""
        self.counts[outcome.kind] += 1
        if outcome.kind not in _FAULTS:
            return False
        found = self.faults.setdefault(f"{outcome.kind}: {outcome.where}", [0, number, outcome.text])
        found[0] += 1
        return found[0] == 1

    @property
    def failed(self) -> int:
        """Mutants that ended in a fault."""
        return sum(self.counts[kind] for kind in _FAULTS)


def find_loaders(patterns: Sequence[str]) -> list[Loader]:
    """Return the loaders with a name that a pattern fits; all without patterns."""
    import loading_data
    import loading_documents
    import loading_models
    import loading_robot

    modules = (loading_documents, loading_models, loading_data, loading_robot)
    loaders = [loader for module in modules for loader in module.LOADERS]
    return [loader for loader in loaders if not patterns or any(fnmatch(loader.name, each) for each in patterns)]


def share_out(loaders: Sequence[Loader], mutants: int) -> Iterator[tuple[Loader, int]]:
    """Yield each loader with its number of mutants."""
    total = sum(loader.share for loader in loaders)
    done, due = 0, 0.0
    for loader in loaders:
        due += mutants * loader.share / total
        yield loader, round(due) - done
        done = round(due)


def run_loader(loader: Loader, first: int, count: int, seed: int, folder: Path, keep: Path | None) -> Tally:
    mutants, tally, start = Mutants(loader, folder, seed), Tally(), monotonic()
    for number, outcome in run_mutants(mutants, range(first, first + count)):
        if tally.add(number, outcome):
            print(f"{loader.name} --mutant {number}: {outcome.kind} {outcome.where}", file=sys.stderr, flush=True)
            if keep is not None:
                mutants.keep(number, keep / f"{loader.name.replace(' ', '-')}-{number}")
    tally.took_s = monotonic() - start
    return tally


def show_one(loader: Loader, number: int, seed: int, folder: Path) -> int:
    """Run one mutant in this process, where a debugger sees it."""
    outcome = judge(loader.read, Mutants(loader, folder, seed).write(number))
    print(f"{outcome.kind} {outcome.where}\n{outcome.text}")
    return int(outcome.kind in _FAULTS)


def print_tallies(tallies: dict[str, Tally]) -> None:
    print(f"{'loader':28}{'mutants':>9}" + "".join(f"{kind:>10}" for kind in KINDS) + f"{'s':>8}")
    total: Counter[str] = Counter()
    for name, tally in tallies.items():
        total += tally.counts
        print(_line(name, tally.counts, tally.took_s))
    print(_line("all", total, sum(tally.took_s for tally in tallies.values())))
    for name, tally in tallies.items():
        for where, (count, number, text) in tally.faults.items():
            last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
            print(f"{name} --mutant {number}: {count} x {where}: {last.strip()[:160]}")


def _line(name: str, counts: Counter[str], took_s: float) -> str:
    return f"{name:28}{counts.total():9}" + "".join(f"{counts[kind]:10}" for kind in KINDS) + f"{took_s:8.0f}"


def as_document(tallies: dict[str, Tally], seed: int) -> dict[str, Any]:
    loaders = {
        name: {"mutants": tally.counts.total(), **{kind: tally.counts[kind] for kind in KINDS}, "took_s": tally.took_s}
        | {"faults": {where: {"mutants": fault[0], "first": fault[1]} for where, fault in tally.faults.items()}}
        for name, tally in tallies.items()
    }
    sums = {kind: sum(tally.counts[kind] for tally in tallies.values()) for kind in KINDS}
    return {"seed": seed, "mutants": sum(sums.values()), **sums, "loaders": loaders}


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--mutants", type=int, default=100_000, help="of all loaders together")
    parser.add_argument("--loader", action="append", default=[], metavar="NAME", help="only these; * and ? are read")
    parser.add_argument("--mutant", type=int, metavar="NUMBER", help="run this one of a loader, and show its traceback")
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="begin with this mutant of each loader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="save the first mutant of each fault here")
    options = parser.parse_args()
    loaders = find_loaders(options.loader)
    if not loaders or (options.mutant is not None and len(loaders) > 1):
        parser.error(f"--loader must name one of: {', '.join(loader.name for loader in find_loaders([]))}")
    tallies: dict[str, Tally] = {}
    with TemporaryDirectory(prefix="mutants-") as scratch:
        if options.mutant is not None:
            return show_one(loaders[0], options.mutant, options.seed, Path(scratch) / "one")
        for place, (loader, count) in enumerate(share_out(loaders, options.mutants)):
            folder = Path(scratch) / str(place)
            tallies[loader.name] = run_loader(loader, options.first, count, options.seed, folder, options.keep)
            print(
                _line(loader.name, tallies[loader.name].counts, tallies[loader.name].took_s),
                file=sys.stderr,
                flush=True,
            )
    if options.json:
        import json

        print(json.dumps(as_document(tallies, options.seed), indent=1))
    else:
        print_tallies(tallies)
    return int(any(tally.failed for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
