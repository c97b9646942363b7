"""The page of a gallery: one file of HTML with its pictures, without scripts and network."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from wise_edge.drawing.web import render, section, table
from wise_edge.evaluation.compare import compare_runs
from wise_edge.evaluation.gallery import VERDICTS, Case, Run, judge
from wise_edge.evaluation.records import LABELS, MaskRecord, Record, shown_figures
from wise_edge.metrics import ratio
from wise_edge.policy.answers.completion import split_completion

_LONGEST_TEXT = 2000
"""Characters of a rationale or an answer that are shown."""
_SHOWN_PROBLEMS = 50

_STYLE = """<style>
.filters { display: flex; flex-wrap: wrap; gap: 8px; margin: 24px 0 8px; }
.filter { position: absolute; opacity: 0; }
.filters label { border: 1px solid var(--line); border-radius: 16px; padding: 3px 12px; cursor: pointer; }
.case { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 14px; content-visibility: auto;
  contain-intrinsic-size: auto 320px; }
.pair > div { grid-column: 1 / -1; order: -1; }
.case figure { margin: 0; } .case img { width: 100%; height: auto; display: block; border-radius: 6px; }
.case figcaption { color: var(--quiet); font-size: 13px; } .case h3 { margin: 0 0 2px; font-size: 17px; }
.case h3, .case p, .case dd, .case summary { overflow-wrap: anywhere; } .case p { margin: 4px 0; }
.case pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 4px 0; font-size: 13px; }
.verdict { display: inline-block; border-radius: 4px; padding: 0 8px; margin-right: 8px; font-weight: 600;
  border: 1px solid var(--warn); color: var(--warn); }
.good .verdict { border-color: var(--accent); color: var(--accent); }
.case dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0 12px; margin: 6px 0;
  font-size: 14px; }
.case dt { color: var(--quiet); } .case dd { margin: 0; font-variant-numeric: tabular-nums; }
@media (max-width: 760px) { .case { grid-template-columns: 1fr 1fr; } .case > div { grid-column: 1 / -1; }
  .pair > figure:first-of-type { grid-column: 1 / -1; } }
RULES
</style>"""


def render_gallery(runs: Sequence[Run], cases: Iterable[Case], problems: Sequence[str]) -> str:
    """Return the page.

    Args:
        runs: one, or two on the same samples.
        cases: what to show, in order; each is read once.
        problems: what was left out of the runs, a line each.

    Raises:
        UsageError: the two runs are not on the same samples.
    """
    blocks, verdicts = [], Counter[str]()
    for case in cases:
        blocks.append(_case(runs, case))
        verdicts[case.verdict] += 1
    settings = runs[-1].settings
    counted = sum(record.dropped is None for record in runs[-1].records)
    lost = f"what {runs[-1].name} lost against {runs[0].name} first" if len(runs) > 1 else "worst first"
    title = f"{settings.dataset}/{settings.split}: {len(blocks)} of {counted} samples"
    head = [
        _STYLE.replace("RULES", _filter_rules(verdicts)),
        f"<h1>{escape(title)}</h1><p>{escape(lost.capitalize())}. {escape(_describe(runs))}</p>",
        section(_figures(runs)),
        _problems(problems),
        *_filters(verdicts, counted, runs[-1]),
    ]
    return render(title, [*head, f'<div class="cases">{"".join(blocks)}</div>'])


def _describe(runs: Sequence[Run]) -> str:
    settings = runs[-1].settings
    parts = [f"{part} on {backend}" for part, backend in settings.backends.items()]
    variant = "true box and points" if settings.variant is None else f"variant {settings.variant}"
    return f"{runs[-1].name}: {variant}, {', '.join(parts)}, metric mode {settings.metric_mode}."


def _figures(runs: Sequence[Run]) -> str:
    if len(runs) > 1:
        compared = compare_runs((runs[0].settings, runs[0].records), (runs[1].settings, runs[1].records))
        rows = [[LABELS[name], *_compared(each)] for name, each in compared.items()]
        return table(["", runs[0].name, runs[1].name, "difference", "95 % interval"], rows)
    kept = [record for record in runs[0].records if record.dropped is None]
    terms = [record.terms() for record in kept]
    names = shown_figures(kept)
    values = {name: ratio(*zip(*(term[name] for term in terms), strict=True)) for name in names}
    cells = [f"{value:.1f}" if name.endswith("_mean") else f"{value:.3f}" for name, value in values.items()]
    return table([LABELS[name] for name in names], [cells])


def _compared(figure: Mapping[str, Any]) -> list[str]:
    low, high = figure["interval"]
    values = f"{figure['a']:.3f}", f"{figure['b']:.3f}", f"{figure['difference']:+.3f}"
    return [*values, f"{low:+.3f} to {high:+.3f}"]


def _problems(problems: Sequence[str]) -> str:
    if not problems:
        return ""
    lines = "".join(f"<li>{escape(line[:_LONGEST_TEXT])}</li>" for line in problems[:_SHOWN_PROBLEMS])
    more = f"<p>and {len(problems) - _SHOWN_PROBLEMS} more</p>" if len(problems) > _SHOWN_PROBLEMS else ""
    summary = f"<summary>{len(problems)} left out</summary>"
    return f'<section class="doubts"><details>{summary}<ul>{lines}</ul>{more}</details></section>'


def _filters(verdicts: Mapping[str, int], counted: int, run: Run) -> list[str]:
    """Return radio buttons, whose state the rules of `_filter_rules` read, and their labels."""
    total = Counter(judge(record) for record in run.records if record.dropped is None)
    names = {"all": "all", **{name: VERDICTS[name] for name in VERDICTS if verdicts[name]}}
    buttons = "".join(
        f'<input class="filter" type="radio" name="filter" id="show-{name}"{" checked" if name == "all" else ""}>'
        for name in names
    )
    shown = {"all": sum(verdicts.values()), **verdicts}
    whole = {"all": counted, **total}
    counts = {name: f"{shown[name]} of {whole[name]}" if shown[name] < whole[name] else shown[name] for name in names}
    labels = "".join(f'<label for="show-{name}">{words}: {counts[name]}</label>' for name, words in names.items())
    return [f'{buttons}<div class="filters">{labels}</div>']


def _filter_rules(verdicts: Mapping[str, int]) -> str:
    names = [name for name in VERDICTS if verdicts[name]]
    rules = [f"#show-{name}:checked ~ .cases > :not(.{name}) {{ display: none; }}" for name in names]
    for name in ("all", *names):
        rules.append(
            f"#show-{name}:checked ~ .filters [for=show-{name}] {{ background: var(--accent); color: var(--back); }}"
        )
        rules.append(f"#show-{name}:focus-visible ~ .filters [for=show-{name}] {{ outline: 2px solid var(--plain); }}")
    return "\n".join(rules)


def _case(runs: Sequence[Run], case: Case) -> str:
    first = case.records[0]
    share = f", cut out: {case.share:.0%} of the picture's width" if case.share < 1 else ""
    ignored = "; what is faded does not count" if case.ignored else ""
    truth = f"truth{': nothing' if case.empty else ''}{share}{ignored}"
    figures = [_picture(case.truth, case, truth, f"truth of {first.query}")]
    about = [_about(record) for record in case.records]
    for run, record, file, facts in zip(runs, case.records, case.answers, about, strict=True):
        name = "answer" if len(runs) == 1 else run.name
        caption = f"{name}{'' if record.mask else ': nothing'}, IoU {record.iou:.2f}"
        figures.append(_picture(file, case, caption, f"{name} to {first.query}", facts if len(runs) > 1 else ""))
    kind = "" if first.kind is None else f", {escape(first.kind)}"
    words = (
        f'<div><h3>{escape(first.query)}</h3><p><span class="verdict">{VERDICTS[case.verdict]}</span>'
        f"{escape(first.id)}{kind}</p>{about[0] if len(runs) == 1 else ''}</div>"
    )
    names = f"case {case.verdict}{' pair' if len(runs) > 1 else ''}"
    return f'<section class="{names}">{"".join(figures)}{words}</section>'


def _picture(file: bytes, case: Case, caption: str, words: str, below: str = "") -> str:
    source = f"data:image/jpeg;base64,{base64.b64encode(file).decode()}"
    width, height = case.size
    image = f'<img src="{source}" width="{width}" height="{height}" decoding="async" alt="{escape(words, quote=True)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption>{below}</figure>"


def _about(record: MaskRecord) -> str:
    """Return what is known of one run's answer."""
    facts = {"IoU": f"{record.iou:.3f}"}
    words = ""
    if isinstance(record, Record):
        facts["box IoU"] = f"{record.box_iou:.3f}"
        if record.meant not in (None, 1) or record.found not in (None, 1):
            facts["objects"] = f"{'?' if record.found is None else record.found} found, {record.meant} meant"
        facts["rationale"] = f"{record.rationale_tokens} tokens"
        words = _words(record)
    if record.score is not None:
        facts["score"] = f"{record.score:.2f}"
    if "total" in record.latency_ms:
        facts["latency"] = f"{record.latency_ms['total']:.0f} ms"
    listed = "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in facts.items())
    return f"<dl>{listed}</dl>{words}"


def _words(record: Record) -> str:
    rationale = split_completion(record.text).rationale
    shown = f"<p>{escape(rationale[:_LONGEST_TEXT])}</p>" if rationale else ""
    whole = f"<pre>{escape(record.text[:_LONGEST_TEXT])}</pre>"
    opened = "" if record.answer_valid else " open"
    return f"{shown}<details{opened}><summary>all that the policy wrote</summary>{whole}</details>"
