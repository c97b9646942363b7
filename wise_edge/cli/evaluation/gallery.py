"""`wise-edge evaluate gallery`: the worst samples of a run as a page, from its records, without running a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wise_edge.cli import options
from wise_edge.cli.options import option
from wise_edge.errors import UsageError

if TYPE_CHECKING:
    from wise_edge.datasets import Dataset
    from wise_edge.evaluation.gallery import Run


def gallery(
    records: Annotated[Path, typer.Argument(metavar="RECORDS", help="Records (--out) of a run.")],
    other: Annotated[
        Path | None, typer.Argument(metavar="[OTHER]", help="Records of another run on the same samples, to compare.")
    ] = None,
    out: Annotated[Path, option("FILE.html", "The page to write.", panel=options.OUTPUT)] = Path("gallery.html"),
    data: Annotated[
        Path | None, option("FILE|DIR", "The data that was evaluated; not for scenes.", panel=options.ASKED)
    ] = None,
    images: Annotated[
        Path | None, option("DIR", "Folder of the images of coco, as of evaluate.", panel=options.ASKED)
    ] = None,
    worst: Annotated[int, option("N", "Show N samples.", panel=options.OUTPUT, min=1, max=1000)] = 100,
    force: options.Force = False,
) -> None:
    """Show the worst samples of a run as a page: picture, truth, answer, rationale and IoU.

    With two runs, the samples that OTHER lost against RECORDS come first. The page is one file without scripts, which
    needs no network.
    """
    from wise_edge.datasets import DRAWN, FILES
    from wise_edge.evaluation.append_log import UNRECORDED
    from wise_edge.evaluation.compare import compare_runs
    from wise_edge.evaluation.evaluate import open_labeled
    from wise_edge.evaluation.gallery import Run
    from wise_edge.evaluation.record_log import read_log

    check_page(out, force, [records, other, data])
    paths = [path for path in (records, other) if path is not None]
    runs = [Run(path.stem, *read_log(path)) for path in paths]
    if len(runs) > 1:
        compare_runs(*((run.settings, run.records) for run in runs))
        if runs[0].name == runs[1].name:
            runs = [run._replace(name=str(path)) for path, run in zip(paths, runs, strict=True)]
    made = runs[0].settings
    if data is None and made.dataset not in DRAWN:
        raise UsageError(f"{records} is of {made.dataset}/{made.split}; pass that data with --data")
    split = None if made.dataset in FILES else made.split
    labeled, samples = open_labeled(made.dataset, data, split, made.samples, images)
    if made.data_sha256 not in (UNRECORDED, hash_data(labeled, samples)):
        raise UsageError(f"{data} is not the data of {records}, or has changed since; pass the data that was evaluated")
    write_page(out, runs, labeled, worst, force)


def hash_data(labeled: Dataset, samples: int, *, here: bool = True) -> str:
    """Return the fingerprint of the files that samples are read from; `here` as of `counting`."""
    from wise_edge.cli.output.progress import counted, counting
    from wise_edge.files.hashing import fingerprint

    files = labeled.sources(samples)
    with counting("files of the data", len(files), here=here) as count:
        return fingerprint(counted(files, count))


def check_page(out: Path, force: bool, read: Sequence[Path | None]) -> None:
    """Reject a page that cannot be written, before the work."""
    from wise_edge.files.targets import check_target

    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"a gallery is an HTML page; choose a name that ends in .html, not {out}")
    check_target(out, force=force, keep=read)


def write_page(out: Path, runs: Sequence[Run], labeled: Dataset, worst: int, force: bool) -> None:
    """Draw the worst samples and write the page."""
    from wise_edge.cli.output.progress import counted, counting
    from wise_edge.evaluation.gallery import choose, draw_cases
    from wise_edge.evaluation.gallery_page import render_gallery
    from wise_edge.files.writing import atomic_write

    chosen = choose(runs, worst)
    if not chosen:
        raise UsageError("no sample was counted, so there is nothing to show; see 'dropped' in the records")
    dropped = [f"{record.id}: {record.dropped}" for record in runs[-1].records if record.dropped is not None]
    with counting("pictures of the gallery", len(chosen)) as count:
        cases = draw_cases(labeled, counted(chosen, count), runs[-1].settings.metric_mode, options.note)
        page = render_gallery(runs, cases, [*labeled.problems, *dropped])
    atomic_write(out, page.encode(), force=force)
    typer.echo(f"gallery: {out}, {len(page) / 1e3:,.0f} kB", err=True)
