"""`wise-edge demo`: scenes or your own image, answered with long and short rationales, as a table and as images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wise_edge.cli import options
from wise_edge.cli.options import option

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from rich.table import Table

    from wise_edge.runtimes.results import SegmentationResult
    from wise_edge.runtimes.session import Session

MOST_SCENES = 50
SHEET_NAME = "contact-sheet.png"


@dataclass(frozen=True)
class Case:
    """An image with its query.

    Attributes:
        name: prefix of its file names.
        image: HWC uint8 RGB.
        query: what to find.
        truth: HxW bool, the true mask; None if unknown.
    """

    name: str
    image: npt.NDArray[np.uint8]
    query: str
    truth: npt.NDArray[np.bool_] | None


@dataclass(frozen=True)
class Way:
    """One of the compared ways to answer: a policy with a prompt variant."""

    label: str
    session: Session
    variant: str


@dataclass(frozen=True)
class Outcome:
    """The result of one way on a case; `iou` compares its mask with the truth, None without a truth."""

    case: Case
    way: Way
    result: SegmentationResult
    iou: float | None


def demo(
    image: Annotated[Path | None, option("FILE", "An image of your own, with --query.")] = None,
    query: Annotated[str | None, option("QUERY", "What to find in --image.")] = None,
    out: Annotated[Path, option("DIR", "Folder for the images; replaces those of an earlier demo.")] = Path(
        "build/demo"
    ),
    scenes: Annotated[int, option("N", "Number of test scenes, from the first on; kinds of query alternate.")] = 5,
    bundle: options.Bundle = None,
    policy_backend: options.PolicyBackend = "auto",
    mask_backend: options.MaskBackend = "auto",
) -> None:
    """Show what long and short rationales cost, on a few images with the variants verbose and wise-s.

    A policy that has neither is asked in its default variant. Without --bundle, verbose runs the embedded policy from
    before its WISE training and wise-s the one from after it.
    Writes one overlay per image and variant, and a contact sheet of all.
    """
    from wise_edge.cli.output.tables import open_console, show
    from wise_edge.files.locks import holding
    from wise_edge.files.targets import check_target, make_folder

    own = image is not None or query is not None
    cases = _own_case(image, query) if own else _scene_cases(scenes)
    check_target(make_folder(out) / SHEET_NAME, force=True, keep=[image])
    with holding(out):
        ways = _open_ways(bundle, policy_backend, mask_backend)
        for case in cases:
            for way in ways:
                check_target(_card_file(out, case, way), force=True, keep=[image])
        rows = _run(ways, cases)
        _write_images(rows, out)
    show(open_console(), _table(rows))
    typer.echo(f"Contact sheet: {out / SHEET_NAME}")
    if bundle is None:
        typer.echo("The embedded models are tiny and know only synthetic shapes; they do not work on photographs.")


def _own_case(image: Path | None, query: str | None) -> list[Case]:
    from wise_edge.errors import UsageError
    from wise_edge.images import load_image
    from wise_edge.policy.prompts import normalize_query

    if image is None or query is None:
        raise UsageError("--image and --query go together; pass both, or neither to use scenes")
    words = normalize_query(query)
    return [Case("own", load_image(image, say=options.note), words, None)]


def _scene_cases(count: int) -> list[Case]:
    from wise_edge.errors import UsageError
    from wise_edge.scenes import sample

    if not 1 <= count <= MOST_SCENES:
        raise UsageError(f"--scenes is {count}; choose 1 to {MOST_SCENES}")
    samples = [sample("test", index) for index in range(count)]
    return [
        Case(f"scene-{index:02d}", labeled.scene.image, labeled.request, labeled.mask)
        for index, labeled in enumerate(samples)
    ]


def _open_ways(bundle: Path | None, policy_backend: str, mask_backend: str) -> list[Way]:
    from wise_edge.bundle.store import EMBEDDED_START
    from wise_edge.runtimes.session import Session

    session = Session.from_bundle(bundle, policy_backend=policy_backend, mask_backend=mask_backend)
    if bundle is not None:
        known = [variant for variant in ("verbose", "wise-s") if variant in session.policy.variants]
        return [Way(variant, session, variant) for variant in known or [session.policy.default_variant]]
    start = Session.from_bundle(EMBEDDED_START, policy_backend=policy_backend, mask_backend=mask_backend)
    return [Way("start, verbose", start, "verbose"), Way("trained, wise-s", session, "wise-s")]


def _run(ways: Sequence[Way], cases: Sequence[Case]) -> list[list[Outcome]]:
    """Answer every case in every way, with a progress bar on stderr if that is a terminal."""
    from wise_edge.cli.output.progress import counted, counting

    for way in ways:
        way.session.segment(cases[0].image, cases[0].query, way.variant)  # the first run of a graph takes longer
    with counting("answers", len(cases) * len(ways)) as count:
        outcomes = list(counted(_outcomes(ways, cases), count))
    return [outcomes[start : start + len(ways)] for start in range(0, len(outcomes), len(ways))]


def _outcomes(ways: Sequence[Way], cases: Sequence[Case]) -> Iterator[Outcome]:
    from wise_edge.metrics import mask_iou

    for case in cases:
        for way in ways:
            way.session.forget()  # so that the second variant cannot reuse the embeddings of the first
            result = way.session.segment(case.image, case.query, way.variant)
            iou = None
            if case.truth is not None:
                iou = 0.0 if result.mask is None else mask_iou(result.mask, case.truth)
            yield Outcome(case, way, result, iou)


def _write_images(rows: Sequence[Sequence[Outcome]], out: Path) -> None:
    import numpy as np

    from wise_edge.cli.output.result import result_caption, result_drawing
    from wise_edge.drawing.report import Cell, contact_sheet, overlay_card
    from wise_edge.images import save_png

    sheet_rows = []
    for row in rows:
        cells = []
        for outcome in row:
            drawing = result_drawing(outcome.result, outcome.case.image)
            notes = () if outcome.iou is None else (f"mask IoU with the truth: {outcome.iou:.2f}",)
            caption = replace(result_caption(outcome.result, notes), variant=outcome.way.label)
            cells.append(Cell(drawing, caption))
            card = overlay_card(drawing, caption)
            save_png(np.asarray(card), _card_file(out, outcome.case, outcome.way), force=True)
        sheet_rows.append(cells)
    backends = rows[0][0].result.backends
    shown = f"the first {len(rows)} test scenes, none left out" if rows[0][0].case.truth is not None else "your image"
    subtitle = ", ".join([shown, *(f"{part} on {choice.name}" for part, choice in backends.items())])
    sheet = contact_sheet("wise-edge: the same query, a long and a short rationale", subtitle, sheet_rows)
    save_png(np.asarray(sheet), out / SHEET_NAME, force=True)


def _card_file(out: Path, case: Case, way: Way) -> Path:
    return out / f"{case.name}-{way.variant}.png"


def _table(rows: Sequence[Sequence[Outcome]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from wise_edge.cli.output.result import printable
    from wise_edge.drawing.units import milliseconds

    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("query", overflow="fold")
    table.add_column("answered by", no_wrap=True)
    for heading in ("rationale\ntokens", "IoU with\nground truth", "latency"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        for number, outcome in enumerate(row):
            result = outcome.result
            table.add_row(
                Text(printable(result.query) if number == 0 else ""),
                Text(outcome.way.label),
                str(result.tokens.rationale),
                "no answer" if result.mask is None else "-" if outcome.iou is None else f"{outcome.iou:.2f}",
                milliseconds(result.latency_ms.total),
            )
    return table
