"""`wise-edge evaluate`: accuracy and cost on labeled data, by kind of query, with intervals.

`evaluate compare` and `evaluate table` put its results side by side, `evaluate gallery` shows its worst samples.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wise_edge.cli import options
from wise_edge.cli.evaluation.compare import compare, table
from wise_edge.cli.evaluation.gallery import check_page, gallery, hash_data, write_page
from wise_edge.cli.options import option
from wise_edge.cli.output.evaluation import print_report
from wise_edge.policy.answers.reading import MAX_OBJECTS

if TYPE_CHECKING:
    from wise_edge.datasets import Dataset
    from wise_edge.evaluation.records import MaskRecord, Settings
    from wise_edge.evaluation.shards import Shard
    from wise_edge.runtimes.base import Decoding
    from wise_edge.runtimes.session import Session

app = typer.Typer(invoke_without_command=True)
app.command()(compare)
app.command()(table)
app.command()(gallery)


@app.callback()
def evaluate(
    context: typer.Context,
    dataset: Annotated[
        str | None,
        option(
            "NAME",
            "Your own data: coco (COCO JSON) or table (picture, mask and sentence in each row). Published data: "
            "reasonseg, refcoco, refcoco+, refcocog or grefcoco. Drawn: scenes or scenes-generalized. Default: coco or "
            "table by the suffix of --data, scenes without.",
            panel=options.ASKED,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        option(
            "FILE|DIR",
            "FILE.json of coco, FILE.csv, .tsv or .jsonl of table; DIR of published data.",
            panel=options.ASKED,
        ),
    ] = None,
    images: Annotated[
        Path | None,
        option(
            "DIR",
            "Folder of the images of coco; default: in and beside the folder of the file.",
            panel=options.ASKED,
        ),
    ] = None,
    split: Annotated[
        str | None,
        option(
            "NAME",
            "Split of published data; default: test (testA of RefCOCO and RefCOCO+, val of gRefCOCO).",
            panel=options.ASKED,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        option(
            "N", "Evaluate the first N samples; default: 100 scenes, all samples of other data.", panel=options.ASKED
        ),
    ] = None,
    variant: options.Variant = None,
    metric_mode: Annotated[
        str | None,
        option(
            "NAME",
            "lisa: leave ignored regions out; paper: count them as target; gres: like lisa, but an unreadable answer "
            "is never right. Default: lisa (gres for coco, table, grefcoco and scenes-generalized).",
            panel=options.ASKED,
        ),
    ] = None,
    bundle: options.Bundle = None,
    policy: Annotated[
        str | None,
        option("CKPT", "Policy checkpoint to run with torch instead of a bundle; needs --sam.", panel=options.MODEL),
    ] = None,
    sam: Annotated[
        str | None, option("CKPT", "Segmenter checkpoint folder, or 'embedded'; needs --policy.", panel=options.MODEL)
    ] = None,
    policy_backend: options.PolicyBackend = "auto",
    mask_backend: options.MaskBackend = "auto",
    free_decoding: Annotated[
        bool,
        options.flag(
            "--free-decoding", "Let the policy decode every token, as the reference code does.", panel=options.ANSWER
        ),
    ] = False,
    max_objects: options.MaxObjects = MAX_OBJECTS,
    pixels: options.Pixels = None,
    oracle_prompt: Annotated[
        bool,
        options.flag(
            "--oracle-prompt",
            "Prompt the segmenter with the true box and points; runs no policy.",
            panel=options.ANSWER,
        ),
    ] = False,
    as_json: options.Json = False,
    out: Annotated[
        Path | None, option("FILE", "Write one JSON line per sample to this file.", panel=options.OUTPUT)
    ] = None,
    gallery: Annotated[
        Path | None,
        option(
            "FILE.html",
            "Write a page with the 100 worst samples: picture, ground truth, answer and rationale.",
            panel=options.OUTPUT,
        ),
    ] = None,
    resume: Annotated[
        bool,
        options.flag(
            "--resume", "Resume the run whose records are in --out, if the file exists.", panel=options.OUTPUT
        ),
    ] = False,
    shard: Annotated[
        str | None,
        option(
            "I/N",
            "Evaluate every N-th sample from I (0 to N-1) on; set by torchrun and accelerate.",
            panel=options.OUTPUT,
        ),
    ] = None,
    force: options.Force = False,
) -> None:
    """Measure gIoU, cIoU, box accuracy, valid answers, tokens and latency, with 95 % bootstrap intervals.

    An answer that cannot be parsed counts as an empty mask. Where queries mean several objects or none, N-acc and T-acc
    are measured, too.
    """
    from wise_edge import __version__
    from wise_edge.bundle.store import resolve_bundle
    from wise_edge.datasets import FILES, name_dataset
    from wise_edge.evaluation.evaluate import open_labeled
    from wise_edge.evaluation.gallery import WORST, Run
    from wise_edge.evaluation.records import Settings
    from wise_edge.evaluation.shards import choose_gpu, find_shard
    from wise_edge.metrics import METRIC_MODES, METRIC_MODES_BY_NAME
    from wise_edge.runtimes.base import Decoding

    if context.invoked_subcommand is not None:
        options.refuse_options(context)
        return
    dataset = dataset or name_dataset(data)
    metric_mode = metric_mode or METRIC_MODES_BY_NAME.get(dataset, "lisa")
    _check(metric_mode in METRIC_MODES, f"unknown metric mode '{metric_mode}'; choose {' or '.join(METRIC_MODES)}")
    for name, given in (("--variant", variant), ("--pixels", pixels)):
        _check(given is None or not oracle_prompt, f"--oracle-prompt runs no policy; remove {name}")
    labeled, samples = open_labeled(dataset, data, split, limit, images)
    share = find_shard(shard)
    models = [resolve_bundle(bundle)] if policy is None else [Path(name) for name in (policy, sam) if name]
    read = [data, *(labeled.sources(samples) if dataset in FILES else []), *models]
    if gallery is not None:
        again = f"; to draw it anew, run 'wise-edge evaluate gallery {out} --force'"
        _check(not (resume and out and gallery.exists()), f"{gallery} exists; choose another file{again}")
        check_page(gallery, force, [*read, out])
    with _claim(out, share, [] if resume else read, resume, force):
        if share.launched:
            choose_gpu()
        decoding = Decoding(not free_decoding, max_objects=max_objects)
        session, model, sha256 = _open(bundle, policy, sam, variant, pixels, policy_backend, mask_backend, decoding)
        used = {"mask": session.choices["mask"]} if oracle_prompt else session.choices
        settings = Settings(
            dataset=labeled.name,
            split=labeled.split,
            samples=samples,
            metric_mode=metric_mode,
            prompt="truth" if oracle_prompt else "predicted",
            variant=None if oracle_prompt else variant or session.policy.default_variant,
            model_sha256=sha256,
            backends={part: choice.name for part, choice in used.items()},
            shard=share.index,
            shards=share.count,
            decoding=None if oracle_prompt else decoding.summary,
            pixels=pixels,
            data_sha256=hash_data(labeled, samples, here=share.index == 0),
            version=__version__,
        )
        records = _gather(_run(session, labeled, settings, share, out, resume), settings, share, out)
    if records is not None:
        backends = {part: asdict(choice) for part, choice in used.items()}
        report = _report(settings, labeled, records, model, backends)
        try:  # before the report, whose reader may close the pipe
            if gallery is not None:
                write_page(gallery, [Run(Path(model).name, settings, records)], labeled, WORST, force)
        finally:
            print_report(report, as_json)


def _check(holds: bool, line: str) -> None:
    from wise_edge.errors import UsageError

    if not holds:
        raise UsageError(line)


@contextmanager
def _claim(out: Path | None, share: Shard, inputs: Sequence[Path | None], resume: bool, force: bool) -> Iterator[None]:
    """Hold the files to write while they are written; reject those that cannot be before anything is computed."""
    from wise_edge.files.locks import claiming
    from wise_edge.files.targets import check_target

    _check(not (resume and force), "--resume continues a file and --force replaces it; pass only one of them")
    if out is None:
        _check(not resume, "--resume needs the file to continue; add --out FILE")
        _check(share.count == 1, "several processes share their records as files; name one with --out")
        yield
        return
    own = share.path(out)
    for path in (out, own):
        check_target(path, force=True, keep=inputs)
    with ExitStack() as held:
        for path in dict.fromkeys((own, out) if share.launched and share.index == 0 else (own,)):
            held.enter_context(claiming(path))
        for path in (out, own):
            _check(
                resume or force or not (path.exists() and path.stat().st_size),  # an empty file is of no run
                f"{path} exists; use --resume to continue it, or --force to replace it",
            )
        if force and share.count > 1:  # or another process would count its records to this run
            os.truncate(own, 0)
        yield


def _open(
    bundle: Path | None,
    policy: str | None,
    sam: str | None,
    variant: str | None,
    pixels: int | None,
    policy_backend: str,
    mask_backend: str,
    decoding: Decoding,
) -> tuple[Session, str, str]:
    """Return a session, the model's name for tables, and the model's hash."""
    from wise_edge.bundle.store import EMBEDDED, load, resolve_bundle, resolve_checkpoint
    from wise_edge.evaluation.evaluate import hash_bundle, hash_models
    from wise_edge.policy.checkpoint import read_policy_spec
    from wise_edge.policy.prompts import check_variant
    from wise_edge.runtimes.session import Session

    if policy is None and sam is None:
        loaded = load(resolve_bundle(bundle))
        if variant is not None:
            check_variant(variant, loaded.manifest.policy.prompts.variants)
        session = Session.from_bundle(
            loaded, policy_backend=policy_backend, mask_backend=mask_backend, decoding=decoding, pixels=pixels
        )
        return session, str(bundle or EMBEDDED), hash_bundle(loaded)
    _check(policy is not None and sam is not None, "--policy and --sam go together; name both checkpoints")
    torch_alone = bundle is None and {policy_backend, mask_backend} <= {"auto", "torch"}
    _check(torch_alone, "--policy and --sam run with torch; remove --bundle and other backends")
    folders = resolve_checkpoint(str(policy), "policy"), resolve_checkpoint(str(sam), "sam")
    spec = read_policy_spec(folders[0]).within(pixels)
    if variant is not None:
        check_variant(variant, spec.prompts.variants)
    return Session.from_checkpoints(*folders, decoding, spec), str(policy), hash_models(*folders)


def _run(
    session: Session, labeled: Dataset, settings: Settings, share: Shard, out: Path | None, resume: bool
) -> Sequence[MaskRecord]:
    """Evaluate the missing samples of this process's share and return all records of the share."""
    from wise_edge.cli.output.progress import counted, counting
    from wise_edge.evaluation.evaluate import evaluate_masks, evaluate_session
    from wise_edge.evaluation.record_log import open_log

    with open_log(share.path(out) if out else None, settings, resume=resume) as log:
        ids = {labeled.ids[place]: place for place in share.places(settings.samples)}
        done = {record.id for record in log.records}
        foreign = [record.id for record in log.records if ids.get(record.id) != record.index]
        _check(not foreign, f"the records to resume are of other data; sample {''.join(foreign[:1])} is not in it")
        if done:
            typer.echo(f"{len(done)} of {len(ids)} samples are done already", err=True)
        todo = [place for name, place in ids.items() if name not in done]
        stream: Iterable[MaskRecord] = (
            evaluate_masks(session.mask, labeled, todo, settings.metric_mode)
            if settings.prompt == "truth"
            else evaluate_session(session, labeled, todo, settings.variant, settings.metric_mode)
        )
        with counting("samples", len(todo), here=share.index == 0) as count:
            for record in counted(stream, count):
                log.append(record)
    return log.records


def _gather(
    records: Sequence[MaskRecord], settings: Settings, share: Shard, out: Path | None
) -> Sequence[MaskRecord] | None:
    """Return the records of all processes and write them to one file; None if another process reports."""
    from dataclasses import replace

    from wise_edge.evaluation.record_log import write_log
    from wise_edge.files.locks import claiming

    if share.count == 1 or out is None:
        return records
    joined = share.gather(out, settings)
    if joined is not None:
        with nullcontext() if share.launched else claiming(out):
            write_log(out, replace(settings, shard=0, shards=1), joined)
    elif not share.launched:
        typer.echo(f"shard {share.index}/{share.count} is done; the last shard to finish prints the report", err=True)
    return joined


def _report(
    settings: Settings, labeled: Dataset, records: Sequence[MaskRecord], model: str, backends: Mapping[str, Any]
) -> dict[str, Any]:
    from wise_edge.evaluation.evaluate import summarize

    run = {name: value for name, value in asdict(settings).items() if name not in ("samples", "shard")}
    dropped = [f"{record.id}: {record.dropped}" for record in records if record.dropped is not None]
    return {
        **run,
        "model": model,
        "backends": backends,
        **summarize(records),
        "problems": [*labeled.problems, *dropped],
    }
