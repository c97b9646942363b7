"""`wise-edge run`: one image and one query in, one mask and its cost out."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wise_edge.cli import options
from wise_edge.cli.options import option
from wise_edge.files.documents import to_json
from wise_edge.policy.answers.reading import MAX_OBJECTS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from wise_edge.bundle.store import Bundle
    from wise_edge.runtimes.results import SegmentationResult
    from wise_edge.runtimes.session import Session


def run(
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="Image: PNG, JPEG, GIF, BMP, WEBP, TIFF, PPM or AVIF.")
    ],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to find, for example 'the red ring'.")],
    bundle: options.Bundle = None,
    variant: options.Variant = None,
    mask: Annotated[
        Path | None,
        option(
            "FILE",
            "Write the masks as PNG of the image's size: 255 in object 1, 254 in 2 …, else 0.",
            panel=options.OUTPUT,
        ),
    ] = None,
    overlay: Annotated[
        Path | None, option("FILE", "Write the image with masks, boxes and points as PNG.", panel=options.OUTPUT)
    ] = None,
    max_rationale_tokens: Annotated[
        int | None,
        option("N", "Close the rationale at N tokens; by default it is not limited.", panel=options.ANSWER, min=0),
    ] = None,
    max_objects: options.MaxObjects = MAX_OBJECTS,
    deadline_ms: Annotated[
        float | None,
        option(
            "MS",
            "Take what is expected to fit MS milliseconds: the most accurate variant and pixels that the bundle "
            "records, else the richest of wise-infer, wise-s and answer.",
            panel=options.ANSWER,
        ),
    ] = None,
    pixels: options.Pixels = None,
    energy: Annotated[
        bool, options.flag("--energy", "Measure the query's energy, if the device has a power sensor.")
    ] = False,
    as_json: options.Json = False,
    force: options.Force = False,
    policy_backend: options.PolicyBackend = "auto",
    mask_backend: options.MaskBackend = "auto",
    explain: Annotated[
        bool,
        options.flag(
            "--explain",
            "Say why each backend was chosen, and what a deadline chose from; --json always does.",
            panel=options.OUTPUT,
        ),
    ] = False,
) -> None:
    """Find what a sentence means in an image and segment it.

    The policy may answer that nothing is there; then the mask is empty. If its answer cannot be read, its text is
    printed with the reason, and no mask is written.
    """
    from wise_edge.bundle.store import load, resolve_bundle
    from wise_edge.images import load_image, save_png
    from wise_edge.policy.prompts import normalize_query
    from wise_edge.profiling.query_meter import QueryMeter
    from wise_edge.runtimes.base import Decoding
    from wise_edge.runtimes.deadline import check_choice
    from wise_edge.runtimes.session import Session

    normalize_query(query)  # an invalid query fails before the bundle is hashed and opened
    loaded = load(resolve_bundle(bundle))
    check_choice(loaded.manifest.policy.prompts.variants, variant, deadline_ms, loaded.manifest.evaluated)
    loaded.manifest.policy.within(pixels)
    _check_outputs(mask, overlay, [image, *loaded.files], force)
    loaded_image = load_image(image, say=options.note)
    loaded_image.flags.writeable = False  # so that the session keeps it without a copy
    decoding = Decoding(max_rationale_tokens=max_rationale_tokens, max_objects=max_objects)
    if not loaded.manifest.verified:
        options.note(f"{bundle} was never compared with its checkpoints (export --no-verify)")
    session = Session.from_bundle(
        loaded, policy_backend=policy_backend, mask_backend=mask_backend, decoding=decoding, pixels=pixels
    )

    def ask() -> SegmentationResult:
        if deadline_ms is not None:
            kept = _history_file(session, loaded)
            return _meet_deadline(session, kept, loaded_image, query, variant, deadline_ms)
        return session.segment(loaded_image, query, variant)

    result = QueryMeter.find(session.on_gpu).measure(ask) if energy else ask()
    with ExitStack() as ending:  # each happens, the last one first, even if another fails
        ending.callback(_print, result, as_json, explain)
        if overlay is not None:
            ending.callback(_write_overlay, result, loaded_image, overlay, force)
        if mask is not None and result.mask is not None:
            ending.callback(save_png, result.mask_image(), mask, force)


def _history_file(session: Session, bundle: Bundle) -> Path:
    """Return where it is kept what queries took on this bundle, on these backends."""
    import hashlib

    from wise_edge.files.cache import cache_folder

    files = [artifact.sha256 for artifact in bundle.manifest.artifacts]
    named = "\n".join([session.policy.name, session.mask.name, *files])
    return cache_folder() / "pace" / f"{hashlib.sha256(named.encode()).hexdigest()[:32]}.json"


def _meet_deadline(
    session: Session,
    kept: Path,
    pixels: npt.NDArray[np.uint8],
    query: str,
    variant: str | None,
    deadline_ms: float,
) -> SegmentationResult:
    """Answer within a deadline, from what earlier runs of the kind took; add this run to them."""
    from contextlib import suppress

    from wise_edge.errors import WiseEdgeError
    from wise_edge.runtimes.deadline import LatencyHistory

    session.latency_history = LatencyHistory.read(kept)
    result = session.segment(pixels, query, variant, deadline_ms=deadline_ms)
    with suppress(OSError, WiseEdgeError):  # if the cache cannot be written, the next run only lacks these readings
        session.latency_history.write(kept)
    return result


def _check_outputs(mask: Path | None, overlay: Path | None, inputs: list[Path], force: bool) -> None:
    """Reject outputs that cannot be written before anything is computed."""
    from wise_edge.errors import UsageError
    from wise_edge.files.targets import check_target

    for path in (mask, overlay):
        if path is None:
            continue
        if path.suffix.lower() != ".png":
            raise UsageError(f"{path} is written as PNG; give it a name that ends in .png")
        check_target(path, force=force, keep=inputs)
    if mask is not None and overlay is not None and mask.resolve() == overlay.resolve():
        raise UsageError(f"--mask and --overlay both name {mask}; name two files")


def _write_overlay(result: SegmentationResult, pixels: npt.NDArray[np.uint8], file: Path, force: bool) -> None:
    import numpy as np

    from wise_edge.cli.output.result import energy_line, result_caption, result_drawing
    from wise_edge.drawing.report import overlay_card
    from wise_edge.images import save_png

    caption = result_caption(result, (f"energy {energy_line(result)}",))
    save_png(np.asarray(overlay_card(result_drawing(result, pixels), caption)), file, force)


def _print(result: SegmentationResult, as_json: bool, explain: bool) -> None:
    from rich.console import Console

    from wise_edge.cli.output.result import no_answer_line, result_table

    if as_json:
        typer.echo(to_json(result.to_dict()))
    else:
        console = Console()
        console.print(result_table(result, explain, console))
    if not result.answer_valid:
        typer.echo(f"{no_answer_line(result)}; no mask was written", err=True)
    elif result.mask_reason is not None:
        options.note(f"the mask is empty: {result.mask_reason}")
