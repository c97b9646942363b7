"""`wise-edge bundle`: shows what a bundle contains, verifies its files, compares two, and records evaluations."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wise_edge.cli import options
from wise_edge.drawing import units
from wise_edge.files.documents import to_json

if TYPE_CHECKING:
    from wise_edge.bundle.diff import Difference
    from wise_edge.bundle.evaluated import Evaluated
    from wise_edge.bundle.manifest import Manifest
    from wise_edge.bundle.store import Bundle

app = typer.Typer(help="Show, verify and compare bundles; record their evaluations.", no_args_is_help=True)

Directory = Annotated[str, typer.Argument(metavar="DIR", help="A bundle directory, 'embedded' or 'embedded-start'.")]
DIFFERENT = 1
"""Exit code of `diff` if the bundles differ, as in diff(1)."""


@app.command()
def show(directory: Directory = "embedded", as_json: options.Json = False) -> None:
    """Show the files of a bundle, how they were verified, and where they come from."""
    bundle = _load(directory)
    if as_json:
        typer.echo(to_json(bundle.manifest.to_dict() | {"sha256": bundle.sha256}))
    else:
        _print_manifest(bundle)


@app.command()
def verify(
    directory: Directory = "embedded",
    sha256: Annotated[
        str | None, options.option("HASH", "Fail, before anything else, unless bundle.json has this hash.")
    ] = None,
    require_verified: Annotated[
        bool, options.flag("--require-verified", "Fail if the export was not compared with its checkpoints.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Check every file against its hash; name all that are missing or altered, and all recorded figures that failed.

    This finds what was altered by accident: whoever alters files on purpose can alter their hashes in bundle.json too.
    --sha256 finds that as well; take the hash from where the bundle was published.
    """
    from wise_edge.bundle.store import check_sha256, read_bundle, resolve_bundle
    from wise_edge.errors import BundleError, VerificationError

    try:
        root = resolve_bundle(directory)
        if sha256 is not None:
            check_sha256(root, sha256)
        bundle = read_bundle(root)
    except BundleError as error:  # here damage is what was looked for, not what got in the way
        raise VerificationError(str(error)) from error
    manifest = bundle.manifest
    for unlisted in bundle.unlisted_files():
        options.note(f"{unlisted} is not part of the bundle")
    faults = bundle.find_faults(hashes=True)
    faults += [f"the recorded check {figure.what!r} failed" for figure in manifest.verification if not figure.passed]
    if not manifest.verified and require_verified:
        faults.append("it was never compared with its checkpoints (export --no-verify)")
    size = sum(artifact.bytes for artifact in manifest.artifacts)
    if as_json:
        document = {"sha256": bundle.sha256, "files": len(manifest.artifacts), "bytes": size}
        typer.echo(to_json(document | {"verified": manifest.verified, "faults": faults}))
    if faults:
        raise VerificationError(f"{directory}: {'; '.join(faults)}; export the bundle again")
    if not as_json:
        compared = f"{len(manifest.verification)} checks passed" if manifest.verified else "never compared with torch"
        given = "bundle.json has the given hash, " if sha256 or "@sha256:" in directory else ""
        typer.echo(f"{directory} is intact: {given}all {len(manifest.artifacts)} hashes match; {compared}")
        typer.echo(f"{len(manifest.artifacts)} files, {units.size(size)}")
        typer.echo(f"bundle.json sha256:{bundle.sha256}")


@app.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="The first bundle.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The second bundle.")],
    as_json: options.Json = False,
) -> None:
    """List the differences between two bundles except name and time; exit with 1 if there are any."""
    from wise_edge.bundle.diff import compare_manifests

    differences = compare_manifests(_load(first).manifest, _load(second).manifest)
    if as_json:
        typer.echo(to_json([asdict(difference) for difference in differences]))
    else:
        _print_differences(differences, first, second)
    if differences:
        raise typer.Exit(DIFFERENT)


@app.command()
def record(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="The bundle that was evaluated.")],
    logs: Annotated[
        list[Path], typer.Argument(metavar="LOG...", help="Records that 'evaluate --bundle DIR --out LOG' wrote.")
    ],
    as_json: options.Json = False,
) -> None:
    """Record in a bundle how accurate its variants and budgets of pixels are, so that deadlines choose among them.

    Give all logs at once: they replace what was recorded before. All are of the same samples, settings and backends;
    variant and --pixels differ. This changes bundle.json, its hash and the model card.
    """
    from dataclasses import replace

    from wise_edge.bundle.manifest import MANIFEST_NAME
    from wise_edge.bundle.store import write_manifest
    from wise_edge.evaluation.recording import check_recordable, read_evaluations
    from wise_edge.files.locks import holding

    folder = check_recordable(_load(directory))
    with holding(folder):  # a build would lose the record, or the record an engine
        bundle = _load(directory)
        before, of = bundle.sha256, bundle.evaluated_sha256
        evaluated = read_evaluations(logs, bundle)
        write_manifest(folder, replace(bundle.manifest, evaluated=evaluated))
    if as_json:
        typer.echo(to_json(asdict(evaluated) | {"sha256": bundle.sha256}))
    else:
        _print_evaluated(evaluated)
        typer.echo(f"bundle.json sha256:{bundle.sha256}")
    if bundle.evaluated_sha256 != of:
        options.note("bundle.json was of an earlier form; evaluate again before the next record, these logs count once")
    if bundle.sha256 != before:
        options.note(f"it was sha256:{before} before; update every DIR@sha256:HASH that names it")
        for signature in sorted(bundle.directory.glob(f"{MANIFEST_NAME}.*")):
            options.note(f"{signature} is a signature of the old {MANIFEST_NAME}; sign it again")


def _load(directory: str) -> Bundle:
    from wise_edge.bundle.store import load, resolve_bundle

    return load(resolve_bundle(directory))


def _print_manifest(bundle: Bundle) -> None:
    from rich.table import Table
    from rich.text import Text

    from wise_edge.bundle.card import describe_float32
    from wise_edge.cli.output.tables import open_console, show

    console, manifest = open_console(), bundle.manifest
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for label, value in _facts(bundle):
        facts.add_row(Text(label, "bold cyan"), Text(value))
    console.print(facts)
    show(console, files_table(manifest))
    for line in describe_float32(manifest):
        console.print(Text(line.rstrip()))
    if manifest.verification:
        show(console, figures_table(manifest))
    if manifest.evaluated is not None:
        _print_evaluated(manifest.evaluated)
    origin = Table("provenance", "")
    for key in sorted(manifest.provenance):
        origin.add_row(Text(key), Text(manifest.provenance[key]))
    show(console, origin)


def _facts(bundle: Bundle) -> list[tuple[str, str]]:
    manifest = bundle.manifest
    policy, sam = manifest.policy, manifest.sam
    size = sum(artifact.bytes for artifact in manifest.artifacts)
    return [
        ("bundle", f"{manifest.name}, {units.size(size)}, exported {manifest.created}"),
        ("sha256", bundle.sha256),
        ("policy", f"{policy.family}, {policy.num_layers} layers, {policy.picture}"),
        (
            "prompts",
            f"{policy.prompts.name}: {', '.join(policy.prompts.variants)}; {policy.default_variant} by default",
        ),
        ("answers", f"{policy.form}, in {policy.coordinates}"),
        ("segmenter", f"{sam.family}, images of {sam.input_size} px"),
        ("verified", "compared with torch" if manifest.verified else "no: never compared with torch"),
    ]


def _print_evaluated(evaluated: Evaluated) -> None:
    from rich.table import Table
    from rich.text import Text

    from wise_edge.bundle.card import evaluated_rows
    from wise_edge.cli.output.tables import open_console, show

    head, rows = evaluated_rows(evaluated)
    table = Table(*head)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*map(Text, row))
    console = open_console()
    console.print(Text(f"evaluated on {evaluated}"))
    show(console, table)


def files_table(manifest: Manifest) -> Any:
    """Return the artifacts as a table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table("artifact", "file", "weights", "size", "sha256")
    table.columns[3].justify = "right"
    for artifact in manifest.artifacts:
        cells = (
            artifact.role,
            artifact.path,
            artifact.precision or "-",
            units.size(artifact.bytes),
            artifact.sha256[:12],
        )
        table.add_row(*(Text(cell) for cell in cells))
    return table


def figures_table(manifest: Manifest) -> Any:
    """Return the verification figures as a table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    from wise_edge.bundle.card import describe_bound

    table = Table("compared with torch", "value", "unit", "bound", "")
    for figure in manifest.verification:
        judged = figure.at_least is not None or figure.at_most is not None
        verdict = ("passed" if figure.passed else "FAILED") if judged else ""
        cells = (figure.what, f"{figure.value:.3g}", figure.unit, describe_bound(figure), verdict)
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _print_differences(differences: list[Difference], first: str, second: str) -> None:
    from wise_edge.bundle.diff import wording_changes

    if not differences:
        typer.echo(f"{first} and {second} are the same except for name and time")
    part = None
    for difference in differences:
        if difference.part != part:
            part = difference.part
            typer.echo(part)
        if part == "prompts":
            typer.echo(f"  {difference.what}")
            for line in wording_changes(difference):
                typer.echo(f"    {line}")
            continue
        typer.echo(f"  {difference.what}: {_change(difference.before, difference.after)}")


def _change(before: Any, after: Any) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        changed = [name for name in before if before[name] != after[name]]
        return ", ".join(f"{name} {_short(before[name])} -> {_short(after[name])}" for name in changed)
    numbers = isinstance(before, int | float) and isinstance(after, int | float)
    ratio = f" ({after / before:.3g} x)" if numbers and before and not isinstance(before, bool) else ""
    return f"{_short(before)} -> {_short(after)}{ratio}"


def _short(value: Any) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, dict):
        return f"{value['path']}, {value['bytes']} bytes"
    if isinstance(value, float):
        return f"{value:.3g}"
    text = str(value)
    return text[:12] if len(text) == 64 and text.isalnum() else text
