"""Turns the logs of a bundle's evaluations into the record in its manifest, by which deadlines choose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wise_edge.bundle.evaluated import Evaluated, EvaluatedRun
from wise_edge.bundle.shipped import ASSETS, MANIFEST_NAME
from wise_edge.bundle.store import Bundle
from wise_edge.errors import UsageError
from wise_edge.evaluation.append_log import differing_fields
from wise_edge.evaluation.evaluate import hash_bundle
from wise_edge.evaluation.record_log import read_log
from wise_edge.evaluation.records import MaskRecord, Settings
from wise_edge.files.hashing import hash_file
from wise_edge.metrics import ratio
from wise_edge.policy.prompts import check_variant

_MAY_DIFFER = ("variant", "pixels", "version")
_FIGURES = ("giou", "ciou", "rationale_tokens_mean", "answer_tokens_mean")


def check_recordable(bundle: Bundle) -> Path:
    """Return the folder of a bundle whose manifest may be written anew.

    Raises:
        UsageError: it ships with wise-edge, or its manifest is a link, as in a hub's cache, where the link leads to a
            file that is named by its hash and that other snapshots share.
    """
    folder = bundle.directory
    if folder.resolve().parent == ASSETS.resolve():
        raise UsageError(f"{folder.name} is part of wise-edge and is not changed; record in a bundle of your own")
    if (folder / MANIFEST_NAME).is_symlink():
        raise UsageError(
            f"{folder / MANIFEST_NAME} is a link, as in a hub's cache, whose files must stay as they are; copy the "
            "bundle with cp -rL, and record in the copy"
        )
    return folder


def read_evaluations(logs: Sequence[Path], bundle: Bundle) -> Evaluated:
    """Read the logs of evaluations of a bundle that differ only in variant and budget of pixels.

    Args:
        logs: files of `wise-edge evaluate --out`, one or more.
        bundle: what they evaluated.

    Raises:
        UsageError: a log cannot be read, is of another bundle, has no policy, is not complete or counts other samples
            than the first one; two differ in more than variant and budget, or in neither.
    """
    first, counted = _read_complete(logs[0], bundle)
    runs = [_run(logs[0], first, counted)]
    for log in logs[1:]:
        settings, records = _read_complete(log, bundle)
        if names := [name for name in differing_fields(first, settings) if name not in _MAY_DIFFER]:
            raise UsageError(f"{logs[0]} and {log} differ in {', '.join(names)}; record logs of the same settings")
        if {record.id for record in records} != {record.id for record in counted}:
            raise UsageError(f"{logs[0]} and {log} count other samples; see 'dropped' in their records")
        run = _run(log, settings, records)
        if run.name in [earlier.name for earlier in runs]:
            raise UsageError(f"{log} is a second log of {run.name}; remove one")
        runs.append(run)
    return Evaluated(
        first.dataset,
        first.split,
        len(counted),
        first.metric_mode,
        first.decoding or "",
        first.backends,
        first.data_sha256,
        tuple(sorted(runs, key=lambda run: -run.giou)),
    )


def _read_complete(log: Path, bundle: Bundle) -> tuple[Settings, list[MaskRecord]]:
    """Return the settings of a log and the records that count."""
    settings, records = read_log(log)
    if settings.model_sha256 != hash_bundle(bundle):
        raise UsageError(f"{log} is not of {bundle.directory} as it is now; evaluate that with --bundle")
    if settings.prompt != "predicted" or settings.variant is None:
        raise UsageError(f"{log} is of the segmenter alone (--oracle-prompt), which a deadline does not choose")
    check_variant(settings.variant, bundle.manifest.policy.prompts.variants)
    if settings.shards > 1:
        raise UsageError(f"{log} is one share of {settings.shards}; pass the file that they were joined into")
    if len(records) != settings.samples:
        raise UsageError(
            f"{log} has {len(records)} of {settings.samples} samples; finish it with 'wise-edge evaluate --resume'"
        )
    kept = [record for record in records if record.dropped is None]
    if not kept:
        raise UsageError(f"{log} has no counted sample; see 'dropped' in its records")
    return settings, kept


def _run(log: Path, settings: Settings, records: Sequence[MaskRecord]) -> EvaluatedRun:
    terms = [record.terms() for record in records]
    giou, ciou, rationale, answer = (ratio(*zip(*(term[name] for term in terms), strict=True)) for name in _FIGURES)
    return EvaluatedRun(str(settings.variant), settings.pixels, giou, ciou, rationale, answer, hash_file(log))
