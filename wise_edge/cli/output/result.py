"""One result as lines for the terminal, and as what an overlay shows."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wise_edge.drawing.overlay import DrawnObject
from wise_edge.drawing.panel import Caption, phases
from wise_edge.drawing.report import Drawing
from wise_edge.drawing.units import joules, milliseconds
from wise_edge.runtimes.deadline import DeadlineChoice
from wise_edge.runtimes.objects import SegmentedObject
from wise_edge.runtimes.results import NOTHING, SegmentationResult

BAR_CELLS = 24
_LEAST_FOR_BARS = 60
"""Columns of a terminal below which the bars of phases have no room."""


def result_table(result: SegmentationResult, console: Console, *, energy: bool = False, explain: bool = False) -> Table:
    """Lay a result out as labeled lines.

    Args:
        result: what to show.
        console: prints the result; its encoding decides whether bars are drawn with block characters.
        energy: also say the energy, or why it was not measured.
        explain: also say why each backend was chosen, and what a deadline chose from.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in _outcome(result):
        table.add_row(label, Text(printable(text)))
    table.add_row("tokens", Text(_tokens(result)))
    block = "" if console.width < _LEAST_FOR_BARS else "█" if "utf" in console.encoding.lower() else "#"
    table.add_row("latency", _latency(asdict(result.latency_ms), block))
    if result.deadline is not None:
        table.add_row("deadline", Text(deadline_lines(result.deadline, result.latency_ms.total, explain=explain)))
    if energy:
        table.add_row("energy", Text(energy_line(result)))
    table.add_row("backends", Text(backend_lines(result) if explain else _backends(result)))
    return table


def result_line(name: str, result: SegmentationResult) -> str:
    """Return a result on one of several pictures as a line.

    Args:
        name: of the picture.
        result: on it.
    """
    told = {"nothing": "nothing found", "unreadable": no_answer_line(result)}.get(result.status) or _found(result)
    facts = [told, milliseconds(result.latency_ms.total)]
    if result.energy_j is not None:
        facts.append(f"{result.energy_j['total']:.3g} J")
    if result.deadline is not None and result.latency_ms.total > result.deadline.deadline_ms:
        facts.append(f"deadline missed by {result.latency_ms.total - result.deadline.deadline_ms:.0f} ms")
    return printable(f"{name}: {'; '.join(facts)}")


def result_drawing(result: SegmentationResult, image: npt.NDArray[np.uint8]) -> Drawing:
    """Return a result as it is drawn on its image (HWC uint8 RGB)."""
    return Drawing(image, tuple(DrawnObject(item.mask, item.box, item.points, item.label) for item in result.objects))


def result_caption(result: SegmentationResult, notes: tuple[str, ...] = ()) -> Caption:
    """Return what is written next to the image; `notes` follow on lines of their own."""
    return Caption(
        query=result.query,
        variant=result.variant,
        rationale=result.rationale if result.answer_valid else result.text,
        rationale_tokens=result.tokens.rationale,
        answer_tokens=result.tokens.answer,
        latency_ms=asdict(result.latency_ms),
        notes=(*notes, *(f"empty mask: {item.mask_reason}" for item in result.objects if item.mask_reason)),
        problem={"found": None, "nothing": NOTHING, "unreadable": no_answer_line(result)}[result.status],
    )


def printable(text: str) -> str:
    """Escape control characters, so that no name, query or policy's text can control the terminal, and surrogates."""
    return "".join(
        c if unicodedata.category(c) not in ("Cc", "Cs") else c.encode("unicode_escape").decode() for c in text
    )


def energy_line(result: SegmentationResult) -> str:
    """Return the energy of the query in J, or why it was not measured."""
    if result.energy_j is None:
        return f"not measured: {result.energy_reason}"
    parts = ", ".join(f"{phase.replace('_', ' ')} {joules(spent)}" for phase, spent in result.energy_j.items())
    return f"{parts} ({result.energy_source})"


def no_answer_line(result: SegmentationResult) -> str:
    """Say that the policy's text holds no answer, and why."""
    return f"no answer: {result.reason}"


def _outcome(result: SegmentationResult) -> list[tuple[str, str]]:
    lines = [("query", result.query), ("variant", result.variant), ("rationale", result.rationale or "(none)")]
    if result.mask is None:
        return [*lines, ("answer", no_answer_line(result)), ("text", result.text or "(empty)")]
    several = len(result.objects) > 1
    if not result.objects:
        lines.append(("answer", NOTHING))
    for item in result.objects:
        described = dict(_object(item))
        lines += [(f"object {item.number}", "; ".join(described.values()))] if several else described.items()
    if several:
        lines.append(("mask", f"of all: {_share(result.mask)}"))
    return [*lines, ("repairs", "; ".join(result.repairs))] if result.repairs else lines


def _object(item: SegmentedObject) -> Iterator[tuple[str, str]]:
    if item.label is not None:
        yield "label", item.label
    x1, y1, x2, y2 = item.box
    yield "box", f"{x1}, {y1} to {x2}, {y2}"
    if item.points:
        yield "points", " and ".join(f"{x}, {y}" for x, y in item.points)
    score = "" if item.score is None else f", score {item.score:.2f}"
    yield "mask", item.mask_reason or f"{_share(item.mask)}{score}"


def _share(mask: npt.NDArray[np.bool_]) -> str:
    area, (height, width) = int(np.count_nonzero(mask)), mask.shape
    return f"{area} px, {area / mask.size:.1%} of {width} x {height}"


def _tokens(result: SegmentationResult) -> str:
    tokens = result.tokens
    return (
        f"{tokens.rationale} rationale + {tokens.answer} answer; prompt {tokens.prompt}, {tokens.image} of them image"
    )


def _latency(latency_ms: Mapping[str, float], block: str) -> Table:
    spent = sum(phases(latency_ms).values())
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="magenta", no_wrap=True)
    for phase, value in latency_ms.items():
        if phase != "total":
            share = value / spent if spent else 0.0
            table.add_row(phase.replace("_", " "), milliseconds(value), block * round(share * BAR_CELLS))
    table.add_row("total", milliseconds(latency_ms["total"]), "", style="bold")
    return table


def deadline_lines(choice: DeadlineChoice, total_ms: float, *, explain: bool) -> str:
    """Say what a deadline chose, and whether it was met; also what it chose from, if that is to be explained."""
    met = "met" if total_ms <= choice.deadline_ms else f"missed by {milliseconds(total_ms - choice.deadline_ms)}"
    considered = choice.considered if explain else ()
    return "\n  ".join([f"{choice.deadline_ms:g} ms {met}; {choice.reason}", *considered])


def backend_lines(result: SegmentationResult) -> str:
    """Say why each backend was chosen, and why not those that are preferred to it."""
    lines = []
    for part, choice in result.backends.items():
        lines += [f"{part} {choice.name}: {choice.reason}", *(f"  not {why}" for why in choice.rejected)]
    return "\n".join(lines)


def _found(result: SegmentationResult) -> str:
    if len(result.objects) > 1 and result.mask is not None:
        return f"{len(result.objects)} objects, {_share(result.mask)}"
    described = dict(_object(result.objects[0]))
    described.pop("points", None)
    return "; ".join(f"box {text}" if part == "box" else text for part, text in described.items())


def _backends(result: SegmentationResult) -> str:
    return ", ".join(f"{part} {choice.name}" for part, choice in result.backends.items())
