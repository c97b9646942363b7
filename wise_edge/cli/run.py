"""`wise-edge run`: pictures and one query in, masks and their cost out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wise_edge.cli import options
from wise_edge.cli.options import option
from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.policy.answers.reading import MAX_OBJECTS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from wise_edge.bundle.store import Bundle
    from wise_edge.outputs.saving import Kind
    from wise_edge.runtimes.results import SegmentationResult
    from wise_edge.runtimes.session import Session

    Ask = Callable[[npt.NDArray[np.uint8]], SegmentationResult]

_EXAMPLE = "the red ring"
KINDS: tuple[Kind, ...] = ("overlay", "mask", "cutout", "outlines", "json", "coco")


def run(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE... QUERY",
            help="Pictures, then what to find in them, for example 'the red ring'. A picture is a file, a folder, a "
            "pattern in quotes ('photos/**/*.jpg'), - for one from standard input, or @FILE for a list of paths (@- "
            "from standard input).",
        ),
    ],
    bundle: options.Bundle = None,
    variant: options.Variant = None,
    mask: Annotated[
        Path | None,
        option(
            "FILE",
            "Write the masks as PNG of the image's size: 255 in object 1, 254 in object 2 …, else 0.",
            panel=options.OUTPUT,
        ),
    ] = None,
    overlay: Annotated[
        Path | None, option("FILE", "Write the image with what was found drawn in: .png or .jpg.", panel=options.OUTPUT)
    ] = None,
    overlay_style: Annotated[
        Literal["panel", "plain"],
        option(
            "NAME",
            "Overlays: panel, with query, rationale and latency below a dimmed image, at least 640 pixels wide; plain, "
            "in the image's own size and colors, as result.save of Python writes.",
            panel=options.OUTPUT,
        ),
    ] = "panel",
    out: options.OutFolder = None,
    save: Annotated[str | None, options.kinds_to_save(KINDS)] = None,
    max_rationale_tokens: Annotated[
        int | None,
        option("N", "End the rationale after N tokens; unlimited by default.", panel=options.ANSWER, min=0),
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
        bool, options.flag("--energy", "Measure each query's energy, if the device has a power sensor.")
    ] = False,
    as_json: Annotated[
        bool, options.flag("--json", "Print one line of JSON per picture instead of text.", panel=options.OUTPUT)
    ] = False,
    force: options.Force = False,
    policy_backend: options.PolicyBackend = "auto",
    mask_backend: options.MaskBackend = "auto",
    explain: Annotated[
        bool,
        options.flag(
            "--explain",
            "Explain why each backend was chosen, and what a deadline chose from; --json always does.",
            panel=options.OUTPUT,
        ),
    ] = False,
) -> None:
    """Find what a sentence means in pictures and segment it.

    The policy may answer that nothing is there; then the mask is empty. If its answer cannot be read, its text is
    printed with the reason, and no mask is written.

    One of several pictures that cannot be read is skipped; the exit code is 1 then. Ctrl-C keeps what was written.
    """
    from wise_edge.bundle.store import load, resolve_bundle
    from wise_edge.cli.common.pictures import check_files, open_pictures, plan_files
    from wise_edge.cli.output.answers import Answers
    from wise_edge.cli.output.progress import counting
    from wise_edge.images.sources import find_pictures
    from wise_edge.policy.prompts import normalize_query
    from wise_edge.runtimes.base import Decoding
    from wise_edge.runtimes.deadline import check_choice
    from wise_edge.runtimes.session import Session
    from wise_edge.scenes.recognition import explain_other_kind

    names, query = _split(words)
    normalize_query(query)  # an invalid query fails before the bundle is hashed and opened
    pictures = find_pictures(names)
    loaded = load(resolve_bundle(bundle))
    check_choice(loaded.manifest.policy.prompts.variants, variant, deadline_ms, loaded.manifest.evaluated)
    loaded.manifest.policy.within(pixels)
    files, coco = plan_files(pictures, {"mask": mask, "overlay": overlay}, out, save, KINDS)
    targets = [file for planned in files for _, file in planned] + ([coco] if coco else [])
    check_files(targets, out, pictures, loaded.files, force)
    readings = open_pictures(pictures, out, loaded, ahead=not energy)  # which would be measured, too
    session = Session.from_bundle(
        loaded,
        policy_backend=policy_backend,
        mask_backend=mask_backend,
        decoding=Decoding(max_rationale_tokens=max_rationale_tokens, max_objects=max_objects),
        pixels=pixels,
    )
    ask: Ask = partial(session.segment, query=query, variant=variant, deadline_ms=deadline_ms)
    if energy:
        ask = _metered(ask, session)
    judged = loaded.is_embedded
    answers = Answers(
        len(pictures), coco, as_json, force, energy=energy, explain=explain, panel=overlay_style == "panel"
    )
    learning = nullcontext() if deadline_ms is None else _learning(session, loaded)
    with learning, counting("pictures", len(pictures)) as count, answers:
        for picture, image, wanted in zip(pictures, readings, files, strict=True):
            if isinstance(image, UsageError):
                answers.skip(image)
            else:
                answers.add(picture, image, ask(image), wanted)
                if judged and (line := explain_other_kind(image, query)):
                    options.note(line)
                    judged = False  # once is enough
            count()
    if answers.skipped:
        raise WiseEdgeError(f"{answers.skipped} of {len(pictures)} pictures could not be read; each is named above")


def _split(words: Sequence[str]) -> tuple[list[str], str]:
    """Return the names of pictures and the query, which is the last word; raises `UsageError` if one is missing."""
    from wise_edge.images import SUFFIXES
    from wise_edge.images.sources import LIST_MARK, STDIN

    def like_picture_name(word: str) -> bool:
        return word == STDIN or word.startswith(LIST_MARK) or word.lower().endswith(SUFFIXES)

    def like_words(word: str) -> bool:
        return not (like_picture_name(word) or os.path.exists(word) or {*"/*["}.intersection(word))

    *names, query = words
    like_picture = like_picture_name(query)
    shown = quote(query[:100])
    if not names and (like_picture or os.path.exists(query)):
        raise UsageError(f"no query for {shown}; add one: wise-edge run {shown} '{_EXAMPLE}'")
    if not names:
        raise UsageError(f"no picture for the query {shown}; pass one first: wise-edge run photo.jpg {shown}")
    if like_picture and like_words(names[0]) and (len(query.split()) == 1 or os.path.exists(query)):
        mended = " ".join(quote(word) for word in [*names[1:], query, names[0]])
        raise UsageError(f"the order is IMAGE... QUERY: wise-edge run {mended}")
    if like_picture and len(query.split()) == 1:
        raise UsageError(f"the last argument is the query, and {shown} is a picture; add a query, as '{_EXAMPLE}'")
    pictures = [name for name in names if not like_words(name)]
    unknown = names[len(pictures) :]
    if pictures and unknown and names[: len(pictures)] == pictures:
        mended = " ".join(map(quote, [*pictures, " ".join([*unknown, query])]))
        raise UsageError(
            f"there is no picture '{unknown[0]}'; if it belongs to the query, put the query in quotes: "
            f"wise-edge run {mended}"
        )
    return names, query


@contextmanager
def _learning(session: Session, bundle: Bundle) -> Iterator[None]:
    """Let deadlines go by what queries of earlier runs took, and keep what those of the block did."""
    from wise_edge.runtimes.deadline import LatencyHistory

    kept = _history_file(session, bundle)
    session.latency_history = LatencyHistory.read(kept)
    try:
        yield
    finally:
        with suppress(OSError, WiseEdgeError):  # without the cache, the next run only lacks these readings
            session.latency_history.write(kept)


def _metered(ask: Ask, session: Session) -> Ask:
    from wise_edge.profiling.query_meter import QueryMeter

    meter = QueryMeter.find(session.on_gpu)
    return lambda image: meter.measure(lambda: ask(image))


def _history_file(session: Session, bundle: Bundle) -> Path:
    """Return where it is kept what queries took on this bundle, on these backends."""
    import hashlib

    from wise_edge.files.cache import cache_folder

    files = [artifact.sha256 for artifact in bundle.manifest.artifacts]
    named = "\n".join([session.policy.name, session.mask.name, *files])
    return cache_folder() / "pace" / f"{hashlib.sha256(named.encode()).hexdigest()[:32]}.json"
