"""`wise-edge profile`: what a mask costs on this device, in milliseconds and joules.

`profile compare` sets two of its reports side by side, `profile plan` estimates a device that is not at hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wise_edge.cli.options import BundleOption, ForceOption, JsonOption, MaskBackendOption
from wise_edge.cli.profile_compare import compare
from wise_edge.cli.profile_plan import plan

if TYPE_CHECKING:
    from wise_edge.datasets.base import Example
    from wise_edge.profiling.document import Document
    from wise_edge.profiling.readings import Measured

app = typer.Typer(invoke_without_command=True)
app.command()(compare)
app.command()(plan)

_SCENES = 20


@app.callback()
def profile(
    context: typer.Context,
    bundle: BundleOption = None,
    scenes: Annotated[
        int | None, typer.Option("--scenes", metavar="N", min=1, help=f"Synthetic test scenes to ask; {_SCENES}.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Images of your own to ask instead.")
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What is asked of --images; else NAME.txt beside each image says it."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Labeled data to ask instead, as in evaluate.")
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Where --dataset lies.")] = None,
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Part of --dataset.")] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, help="Ask the first N samples of --dataset, or images of --images.")
    ] = _SCENES,
    repeat: Annotated[int, typer.Option(metavar="N", min=1, help="How often each is asked.")] = 1,
    variants: Annotated[
        str, typer.Option(metavar="NAMES", help="Prompt variants, separated by commas.")
    ] = "verbose,wise-infer,wise-s,answer",
    backends: Annotated[
        str, typer.Option("--backends", metavar="NAMES", help="Runtimes of the policy, separated by commas.")
    ] = "auto",
    mask_backend: MaskBackendOption = "auto",
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="CPU threads; the runtime's choice where left out.")
    ] = None,
    power: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A wall meter's log (CSV: time, power_w), read when all is measured."),
    ] = None,
    window: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="How long each part is repeated for its energy.")
    ] = 1.5,
    out: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Write the report: .html, .json or .csv; may be given several times."),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure what queries cost on this device, by phase, and how good their masks are where that is known.

    Energy is that of what tells its power (a Jetson: the board; a desktop: its GPU, and its processor beside it, or the
    processor where no GPU works), where it does so surely; elsewhere the reason is given. What Ctrl-C ends is reported
    as far as it came, and marked so.
    """
    if context.invoked_subcommand is not None:
        return
    from wise_edge.cli.output.profile import print_profile
    from wise_edge.power.find import find_sources
    from wise_edge.profiling.conditions import read_conditions
    from wise_edge.profiling.document import make_document
    from wise_edge.profiling.lock import running_alone
    from wise_edge.profiling.measure import profile_session
    from wise_edge.profiling.meter import Meter
    from wise_edge.runtimes.session import Session

    _check_out(out or [], force)
    name, examples = _open_examples(scenes, images, query, (dataset, data, split, limit))
    setup = _describe(bundle) | {"data": {"name": name, "queries": len(examples), "repeat": repeat}}
    done: list[Measured] = []
    failure: BaseException | None = None
    before = read_conditions()

    def open_session(backend: str) -> Session:
        return Session.from_bundle(bundle, policy_backend=backend, mask_backend=mask_backend, threads=threads)

    with running_alone():
        names = backends.split(",")
        session = open_session(names[0])  # before the meter: where it runs decides whose energy counts
        meter = Meter(*find_sources(session.on_gpu), wall_meter=power, window_s=window)
        try:
            with meter.running():
                for number, backend in enumerate(names):
                    session = open_session(backend) if number else session
                    typer.echo(f"measuring {variants} on {session.policy.name}", err=True)
                    for measured in profile_session(session, examples, variants.split(","), repeat, meter):
                        done.append(measured)  # one by one: what follows may be interrupted
        except BaseException as error:  # Ctrl-C too: minutes of measuring are not thrown away
            if not done:
                raise
            failure = error
    stopped = None if failure is None else str(failure) if isinstance(failure, Exception) else "interrupted"
    document = make_document(setup, done, meter, before, read_conditions(), stopped)
    _write(document, out or [], force)
    if as_json:
        typer.echo(json.dumps(document))
    else:
        print_profile(document)
    if failure is not None:
        raise failure


def _open_examples(
    scenes: int | None,
    images: Path | None,
    query: str | None,
    labeled: tuple[str | None, Path | None, str | None, int],
) -> tuple[str, list[Example]]:
    """Return what is asked, and what it is called."""
    from wise_edge.errors import UsageError
    from wise_edge.evaluation.evaluate import open_labeled
    from wise_edge.profiling.pictures import find_pictures, read_pictures

    name, data, split, limit = labeled
    if sum(given is not None for given in (scenes, images, name)) > 1:
        raise UsageError("--scenes, --images and --dataset are three things to ask; choose one")
    if query is not None and images is None:
        raise UsageError("--query asks the images of --images; name their folder")
    if images is not None:
        files = find_pictures(images)
        if len(files) > limit:
            typer.echo(f"asking the first {limit} of {len(files)} images; --limit N asks more", err=True)
        return str(images), read_pictures(files[:limit], query)
    opened, count = open_labeled(name or "scenes", data, split, limit if scenes is None else scenes)
    return f"{opened.name}/{opened.split}", [opened[place] for place in range(count)]


def _describe(bundle: Path | None) -> dict[str, Any]:
    """Return the bundle's name and the sha256 of its manifest, by which two reports are known to be of the same."""
    from wise_edge.bundle.store import EMBEDDED, MANIFEST_NAME, hash_file, resolve_bundle
    from wise_edge.errors import BundleError

    manifest = resolve_bundle(bundle) / MANIFEST_NAME
    if not manifest.is_file():
        raise BundleError(f"{manifest.parent} is no bundle: it has no {MANIFEST_NAME}")
    return {"bundle": {"name": str(bundle or EMBEDDED), "sha256": hash_file(manifest)}}


_WRITERS = (".html", ".json", ".csv")


def _check_out(files: list[Path], force: bool) -> None:
    from wise_edge.errors import UsageError
    from wise_edge.files import check_target

    for file in files:
        if file.suffix not in _WRITERS:
            raise UsageError(f"--out {file}: what is it to be? end its name in {', '.join(_WRITERS)}")
        check_target(file, force=force)


def _write(document: Document, files: list[Path], force: bool) -> None:
    from wise_edge.files import atomic_write
    from wise_edge.profiling.document import to_csv
    from wise_edge.profiling.page import render_page

    writers = {
        ".html": render_page,
        ".json": lambda document: json.dumps(document, indent=1) + "\n",
        ".csv": to_csv,
    }
    for file in files:
        atomic_write(file, writers[file.suffix](document).encode(), force=force)
        typer.echo(f"wrote {file}", err=True)
