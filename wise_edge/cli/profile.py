"""`wise-edge profile`: measures what a mask costs on this device, in milliseconds and joules.

`profile compare` compares two of its reports; `profile plan` estimates the cost on a device that is not at hand.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wise_edge.cli import options
from wise_edge.cli.options import option
from wise_edge.cli.profile_compare import compare
from wise_edge.cli.profile_plan import plan
from wise_edge.files.documents import to_json

if TYPE_CHECKING:
    from wise_edge.datasets.base import Example
    from wise_edge.profiling.document import Document
    from wise_edge.profiling.readings import Measured

_USUAL = ("verbose", "wise-infer", "wise-s", "answer")
app = typer.Typer(invoke_without_command=True)
app.command()(compare)
app.command()(plan)

_SCENES = 20


@app.callback()
def profile(
    context: typer.Context,
    bundle: options.Bundle = None,
    scenes: Annotated[
        int | None,
        option("N", "Number of synthetic test scenes to use.", panel=options.ASKED, min=1, show_default=str(_SCENES)),
    ] = None,
    images: Annotated[Path | None, option("DIR", "Use your own images instead.", panel=options.ASKED)] = None,
    query: Annotated[
        str | None,
        option(
            "QUERY",
            "The query for all --images; without it, NAME.txt next to each image holds its query.",
            panel=options.ASKED,
        ),
    ] = None,
    dataset: Annotated[
        str | None, option("NAME", "Use a labeled data set instead, as in evaluate.", panel=options.ASKED)
    ] = None,
    data: Annotated[Path | None, option("DIR", "Folder of --dataset.", panel=options.ASKED)] = None,
    split: Annotated[str | None, option("NAME", "Split of --dataset.", panel=options.ASKED)] = None,
    limit: Annotated[
        int, option("N", "Use only the first N samples of --dataset or images of --images.", panel=options.ASKED, min=1)
    ] = _SCENES,
    repeat: Annotated[int, option("N", "How many times to run each query.", panel=options.ASKED, min=1)] = 1,
    variants: Annotated[
        str | None,
        option(
            "NAME,...",
            f"Prompt variants, separated by commas; by default the bundle's of {', '.join(_USUAL)}.",
            panel=options.MODEL,
        ),
    ] = None,
    pixels: options.Pixels = None,
    backends: Annotated[
        str, option("NAME,...", "Backends of the policy, separated by commas.", panel=options.MODEL)
    ] = "auto",
    mask_backend: options.MaskBackend = "auto",
    threads: options.Threads = None,
    power: Annotated[
        Path | None,
        option("FILE", "Log of a wall meter (CSV: time, power_w), read after all measurements.", panel="Measurement"),
    ] = None,
    window: Annotated[
        float,
        option(
            "SECONDS",
            "Seconds for which each part is repeated to measure its energy.",
            panel="Measurement",
            min=0.1,
            max=3600,
        ),
    ] = 1.5,
    out: Annotated[
        list[Path] | None,
        option("FILE", "Write the report to a .html, .json or .csv file; repeatable.", panel=options.OUTPUT),
    ] = None,
    force: options.Force = False,
    details: Annotated[
        bool,
        options.flag("--details", "Print the phases of each run, too; reports always have them.", panel=options.OUTPUT),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Measure what queries cost on this device, phase by phase, and the accuracy of their masks on labeled data.

    Energy covers whatever reports its power: the board of a Jetson; on a desktop the GPU and the processor, or only the
    processor if no GPU is used. Energy that cannot be measured reliably is reported with the reason instead. After
    Ctrl-C, everything measured so far is reported and marked as incomplete.
    """
    if context.invoked_subcommand is not None:
        options.refuse_options(context)
        return
    from wise_edge.bundle.store import read_bundle, resolve_bundle
    from wise_edge.cli.output.profile import print_profile
    from wise_edge.images.sources import find_images
    from wise_edge.power.find import find_sources
    from wise_edge.profiling.conditions import read_conditions
    from wise_edge.profiling.document import make_document
    from wise_edge.profiling.lock import running_alone
    from wise_edge.profiling.measure import profile_session
    from wise_edge.profiling.meter import Meter
    from wise_edge.profiling.wall_meter import check_wall_meter
    from wise_edge.runtimes.session import Session

    pictures = find_images(images) if images is not None else []
    reads = [data, power, *pictures, *(picture.with_suffix(".txt") for picture in pictures)]
    _check_out(out or [], [*reads, *read_bundle(resolve_bundle(bundle)).files], force)
    compared, asked = _choose(bundle, backends, mask_backend, variants, pixels)
    if power is not None:
        check_wall_meter(power, time.time())
    name, examples = _open_examples(scenes, images, query, (dataset, data, split, limit))
    data_asked = {"name": name, "queries": len(examples), "repeat": repeat, "pixels": pixels}
    setup = _describe(bundle) | {"data": data_asked}
    done: list[Measured] = []
    failure: BaseException | None = None
    before = read_conditions()

    def open_session(backend: str) -> Session:
        return Session.from_bundle(
            bundle, policy_backend=backend, mask_backend=mask_backend, threads=threads, pixels=pixels
        )

    with running_alone():
        session = open_session(compared[0])  # before the meter: the device it runs on decides which sources count
        meter = Meter(*find_sources(session.on_gpu), wall_meter=power, window_s=window)
        try:
            with meter.running():
                for number, backend in enumerate(compared):
                    session = open_session(backend) if number else session
                    typer.echo(f"measuring {','.join(asked)} on {session.policy.name}", err=True)
                    for measured in profile_session(session, examples, asked, repeat, meter):
                        done.append(measured)  # one at a time: the rest may be interrupted
        except BaseException as error:  # Ctrl-C too: do not throw away minutes of measurements
            if not done:
                raise
            failure = error
    stopped = None if failure is None else str(failure) if isinstance(failure, Exception) else "interrupted"
    document = make_document(setup, done, meter, before, read_conditions(), stopped)
    try:
        _write(document, out or [], force)
    finally:  # what took minutes is shown even if the disk is full
        if as_json:
            typer.echo(to_json(document))
        else:
            print_profile(document, details)
    if failure is not None:
        raise failure


def _choose(
    bundle: Path | None, backends: str, mask_backend: str, variants: str | None, pixels: int | None
) -> tuple[list[str], list[str]]:
    """Return the names of the backends and variants to measure; raises if one of them cannot run here."""
    from wise_edge.bundle.store import load, resolve_bundle
    from wise_edge.errors import UsageError
    from wise_edge.runtimes.opening import find_candidates

    compared = options.split_names("--backends", "policy backend", backends)
    opened = load(resolve_bundle(bundle))
    has = list(opened.manifest.policy.within(pixels).prompts.variants)
    usual = [name for name in _USUAL if name in has] or has
    asked = usual if variants is None else options.split_names("--variants", "variant", variants, has)
    first = [find_candidates(opened, name, mask_backend)[1]["policy"][0].name for name in compared]
    if twice := [name for name in first if first.count(name) > 1]:
        raise UsageError(f"--backends {backends} measures {twice[0]} twice, since auto chooses it here; remove one")
    return compared, asked


def _open_examples(
    scenes: int | None,
    images: Path | None,
    query: str | None,
    labeled: tuple[str | None, Path | None, str | None, int],
) -> tuple[str, list[Example]]:
    """Return the name of the data and its examples."""
    from wise_edge.errors import UsageError
    from wise_edge.evaluation.evaluate import open_labeled
    from wise_edge.images.sources import find_images
    from wise_edge.policy.prompts import normalize_query
    from wise_edge.profiling.own_images import read_images

    name, data, split, limit = labeled
    if sum(given is not None for given in (scenes, images, name)) > 1:
        raise UsageError("--scenes, --images and --dataset exclude each other; choose one")
    if query is not None and images is None:
        raise UsageError("--query needs --images; pass the folder of the images to ask")
    if images is not None:
        files = find_images(images)
        if len(files) > limit:
            typer.echo(f"using the first {limit} of {len(files)} images; raise --limit to use more", err=True)
        return str(images), read_images(files[:limit], query, say=options.note)
    opened, count = open_labeled("scenes" if name is None else name, data, split, limit if scenes is None else scenes)
    examples = [opened[place] for place in range(count)]
    for example in examples:
        try:
            normalize_query(example.query)
        except UsageError as error:
            raise UsageError(f"{example.id}: {error}") from error
    return f"{opened.name}/{opened.split}", examples


def _describe(bundle: Path | None) -> dict[str, Any]:
    """Return the bundle's name and the sha256 of its manifest, which identifies the bundle in reports."""
    from wise_edge.bundle.store import EMBEDDED, read_bundle, resolve_bundle

    return {"bundle": {"name": str(bundle or EMBEDDED), "sha256": read_bundle(resolve_bundle(bundle)).sha256}}


_FORMATS = (".html", ".json", ".csv")


def _check_out(files: list[Path], inputs: list[Path | None], force: bool) -> None:
    from wise_edge.errors import UsageError
    from wise_edge.files.targets import check_target

    for file in files:
        if [other.resolve() for other in files].count(file.resolve()) > 1:
            raise UsageError(f"--out names {file} twice; remove one")
        if file.suffix not in _FORMATS:
            raise UsageError(f"--out {file}: unknown report type; use .html, .json or .csv")
        check_target(file, force=force, keep=inputs)


def _write(document: Document, files: list[Path], force: bool) -> None:
    """Write the reports, each even if another cannot be written."""
    from wise_edge.errors import WiseEdgeError
    from wise_edge.files.writing import atomic_write
    from wise_edge.profiling.document import to_csv
    from wise_edge.profiling.page import render_page

    writers = {
        ".html": render_page,
        ".json": lambda document: to_json(document, indent=1) + "\n",
        ".csv": to_csv,
    }
    failures = []
    for file in files:
        content = writers[file.suffix](document).encode()
        try:
            atomic_write(file, content, force=force)
            typer.echo(f"wrote {file}", err=True)
        except WiseEdgeError as error:
            kept = _keep(content, file.name)
            failures.append(f"{error}; the report is {kept}" if kept else str(error))
    if failures:
        raise WiseEdgeError("; ".join(failures))


def _keep(content: bytes, name: str) -> Path | None:
    """Write a report among the temporary files, since it took minutes to measure; return None if that fails too."""
    import tempfile

    from wise_edge.errors import WiseEdgeError
    from wise_edge.files.writing import atomic_write

    try:
        folder = Path(tempfile.mkdtemp(prefix="wise-edge-profile-"))
    except OSError:
        return None
    try:
        atomic_write(folder / name, content)
    except (OSError, WiseEdgeError):
        folder.rmdir()
        return None
    return folder / name
