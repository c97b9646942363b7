"""`wise-edge prompts`: shows the wording of a policy, reads it from a script, and checks that it fits the answers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wise_edge.cli import options
from wise_edge.files.documents import to_json

if TYPE_CHECKING:
    from wise_edge.policy.answers.form import AnswerForm
    from wise_edge.policy.prompts import PromptSet
    from wise_edge.policy.scripts import ScriptWording

app = typer.Typer(help="Show, read and check the wording that a policy is asked with.", no_args_is_help=True)

Source = Annotated[
    str, typer.Argument(metavar="BUNDLE|DIR|FILE", help="A bundle, a policy's checkpoint folder, or a prompts.json.")
]


@app.command()
def show(
    source: Source = "embedded",
    query: Annotated[str, options.option("QUERY", "The query in the prompts.")] = "the red mug",
    variant: Annotated[str | None, options.option("NAME", "One prompt variant; all if omitted.")] = None,
    as_json: options.Json = False,
) -> None:
    """Show the whole prompt of a query, as the policy reads it, with one token for the picture."""
    from wise_edge.policy.prompts import check_variant, normalize_query

    prompts, _, _ = _open(source)
    if variant is not None:
        check_variant(variant, prompts.variants)
    words = normalize_query(query)
    shown = {name: prompts.render(words, name, 1) for name in prompts.variants if variant in (None, name)}
    if as_json:
        typer.echo(to_json({"name": prompts.name, "query": words, "prompts": shown}))
        return
    for name, text in shown.items():
        default = " (default)" if name == prompts.default_variant else ""
        typer.echo(f"--- {name}{default}\n{text}")


@app.command()
def check(
    source: Source = "embedded",
    form: Annotated[
        str | None,
        options.option("NAME|FILE", "Form of the answers; the policy's, or the shipped one whose keys are named."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Say where the wording does not fit the form of the answers, and which variants it lacks.

    Exit code 5 if something has to be fixed.
    """
    from wise_edge.errors import VerificationError
    from wise_edge.policy.chat_template import default_system
    from wise_edge.policy.wording import check_wording

    prompts, known, folder = _open(source, form)
    remarks = check_wording(prompts, known, default_system(folder) if folder else None)
    if as_json:
        typer.echo(to_json({"name": prompts.name, "remarks": [asdict(remark) for remark in remarks]}))
    for remark in () if as_json else remarks:
        where = f"{remark.where}: " if remark.where else ""
        typer.echo(f"{'wrong' if remark.wrong else 'note'}: {where}{remark.text}")
    if wrong := sum(remark.wrong for remark in remarks):
        raise VerificationError(f"{prompts.name}: {wrong} problem{'s' * (wrong > 1)} to fix")
    if not remarks and not as_json:
        typer.echo(f"{prompts.name}: no problems found")


@app.command()
def read(
    script: Annotated[Path, typer.Argument(metavar="FILE.py", help="A script that asks the policy; it is not run.")],
    variant: Annotated[
        list[str] | None,
        options.option("NAME=NUMBER", "The template of a variant, by its number; repeatable."),
    ] = None,
    system: Annotated[
        str | None,
        options.option("MESSAGE", "The system message, if the script has none; '' for no message."),
    ] = None,
    name: Annotated[str | None, options.option("NAME", "Name of the prompt set; the script's by default.")] = None,
    out: Annotated[
        Path | None, options.option("FILE", "Write the prompt set, such as CHECKPOINT/prompts.json.")
    ] = None,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Find the templates in a policy's evaluation or training script, and write chosen ones as its prompts.json.

    Without --out it lists what looks like a template: a text with a place for the query.
    """
    from wise_edge.errors import UsageError
    from wise_edge.files.targets import check_target
    from wise_edge.files.writing import atomic_write
    from wise_edge.policy.scripts import read_script

    if out is not None:
        check_target(out, force=force, keep=[script])
    wording = read_script(script)
    chosen = _choose(variant or [], len(wording.templates))
    if out is None and not chosen:
        _list(script, wording, as_json)
        return
    if not chosen:
        if len(wording.templates) > 1:
            raise UsageError(
                f"{script} has {len(wording.templates)} templates; name those to write, for example --variant wise-s=1"
            )
        chosen = {"default": 0}
    message = _find_system(wording, system, out)
    prompts = wording.prompts(name or script.stem[:100], chosen, message or "")
    document = to_json(prompts.to_dict(), indent=2) + "\n"
    if out is None:
        typer.echo(document, nl=False)
    else:
        atomic_write(out, document.encode(), force=force)
        typer.echo(to_json(prompts.to_dict()) if as_json else f"{out}: {', '.join(prompts.variants)}")
    if message is None:
        options.note(
            "the script has no system message; the chat templates of Qwen2-VL and Qwen2.5-VL then add their own, and "
            "that of Qwen3-VL adds none: pass --system TEXT, or write prompts.json into the checkpoint's folder"
        )


def _open(source: str, form: str | None = None) -> tuple[PromptSet, AnswerForm | None, Path | None]:
    """Return a prompt set, the form of the answers if it is known or told, and the checkpoint's folder if it is one."""
    from wise_edge.bundle.manifest import MANIFEST_NAME
    from wise_edge.bundle.store import read_bundle, resolve_bundle
    from wise_edge.policy.answers.conventions import read_conventions
    from wise_edge.policy.answers.named import find_form
    from wise_edge.policy.prompts import read_prompt_file, read_prompts

    told = None if form is None else find_form(form, "--form ")
    folder = resolve_bundle(source)
    if folder.is_file():
        return read_prompt_file(folder), told, None
    if (folder / "prompts.json").is_file() and not (folder / MANIFEST_NAME).is_file():
        told = told or read_conventions(folder).form
        return _fit(folder, read_prompts(folder), told), told, folder
    policy = read_bundle(folder).manifest.policy
    return policy.prompts, told or policy.form, None


def _fit(folder: Path, prompts: PromptSet, form: AnswerForm | None) -> PromptSet:
    """Return a checkpoint's wording as an export writes it into a bundle."""
    from wise_edge.files.documents import read_json
    from wise_edge.policy.answers.conventions import find_coordinates
    from wise_edge.policy.answers.form import BOX_POINTS
    from wise_edge.policy.processor import read_image_settings
    from wise_edge.policy.prompts import fit_wording
    from wise_edge.policy.wording import named_form

    if not (folder / "config.json").is_file():
        return prompts
    config = read_json(folder / "config.json")
    images = read_image_settings(folder, config.get("vision_config") or {})
    coordinates = find_coordinates(folder, str(config.get("model_type")), None, one_square=images.one_square)
    return fit_wording(prompts, coordinates, form or named_form(prompts) or BOX_POINTS)


def _choose(pairs: list[str], count: int) -> dict[str, int]:
    """Return the template of each variant, counted from 0."""
    from wise_edge.errors import UsageError

    chosen: dict[str, int] = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        if not name or not number.isascii() or not number.isdigit() or not 1 <= int(number[:9]) <= count:
            raise UsageError(f"--variant {pair}: pass NAME=NUMBER with a number from 1 to {count}")
        if name in chosen:
            raise UsageError(f"--variant names {name} twice; remove one")
        chosen[name] = int(number) - 1
    return chosen


def _find_system(wording: ScriptWording, given: str | None, out: Path | None) -> str | None:
    """Return the system message: the given one, the script's, or that of the chat template beside the result."""
    from wise_edge.errors import UsageError
    from wise_edge.policy.chat_template import default_system

    if given is not None:
        return given
    if wording.system is None and wording.open_system:
        raise UsageError("the script's system message is only known when it runs; pass it as --system TEXT")
    return wording.system if wording.system is not None or out is None else default_system(out.resolve().parent)


def _list(script: Path, wording: ScriptWording, as_json: bool) -> None:
    found: list[dict[str, Any]] = [
        {"number": number, **asdict(each), "rationale": each.rationale}
        for number, each in enumerate(wording.templates, 1)
    ]
    if as_json:
        others = {key: value for key, value in asdict(wording).items() if key != "templates"}
        typer.echo(to_json({"script": str(script), "templates": found, **others}))
        return
    for each in wording.templates:
        number = wording.templates.index(each) + 1
        facts = [f"line {each.line}", each.condition, _describe(each.writing)]
        facts += [f"{{{place}}} is not filled" for place in each.open_places]
        typer.echo(f"{number}  {'; '.join(filter(None, facts))}")
        typer.echo("".join(f"     {line}\n" for line in each.user.splitlines() or [""]), nl=False)
    unknown = "only known when it runs" if wording.open_system else "none"
    typer.echo(f"system message: {unknown if wording.system is None else repr(wording.system)}")
    if beginning := repr(wording.prefill) if wording.prefill else wording.open_prefill:
        typer.echo(f"beginning of the answer: {beginning}")
    typer.echo(
        f"to write one of them: wise-edge prompts read {script} --variant wise-s=1 --out CHECKPOINT/prompts.json"
    )


def _describe(writing: Any) -> str:
    """Return how a query is written, in words."""
    ways = ["in lower case"] * writing.lower
    ways += [f"without {writing.strip} at its ends"] * bool(writing.strip)
    ways += [f"changed by {writing.other}"] * bool(writing.other)
    return f"the query {' and '.join(ways)}" if ways else ""
