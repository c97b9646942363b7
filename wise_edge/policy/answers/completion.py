"""The parts of a completion: `<think>…</think> <answer>{…}</answer> <d_think>…</d_think>`.

Each prompt variant asks for some of these parts. A form may have other texts around its answer, such as a code fence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from wise_edge.policy.answers.form import BOX_POINTS, AnswerForm

MAX_COMPLETION_CHARACTERS = 65_536

_TAG = re.compile(r"<(/?)(think|answer|d_think)>")


@dataclass(frozen=True)
class Completion:
    """The parts of a completion, without tags and surrounding white space; None for a missing part.

    Attributes:
        rationale: text of `<think>`.
        answer_text: text of the first `<answer>`, or between a form's own texts around an answer.
        detailed: text of `<d_think>`.
    """

    rationale: str | None
    answer_text: str | None
    detailed: str | None


def split_completion(text: str, form: AnswerForm = BOX_POINTS) -> Completion:
    """Split a completion into its parts.

    A part ends at its closing tag or, if that is missing, at the tag of the next part or the end of the text. If a part
    is repeated, the first one counts. Text beyond `MAX_COMPLETION_CHARACTERS` is ignored.

    Args:
        text: a completion.
        form: how its answer is written.
    """
    text = text[:MAX_COMPLETION_CHARACTERS]
    parts = _parts(text)
    answer = parts.get("answer")
    own = behind_rationale(text)
    if "<answer>" not in form.before and (start := own.find(form.before)) >= 0:
        answer = own[start + len(form.before) :].partition(form.after)[0].strip()
    return Completion(parts.get("think"), answer, parts.get("d_think"))


def behind_rationale(text: str) -> str:
    """Return what follows the rationale of a completion; all of it if no rationale ends in it."""
    before, mark, after = text.partition("</think>")
    return after if mark else before


def _parts(text: str) -> dict[str, str]:
    tags = [(match.group(2), bool(match.group(1)), match) for match in _TAG.finditer(text)]
    next_closed = [""] * (len(tags) + 1)
    for index in range(len(tags) - 1, -1, -1):
        name, closes, _ = tags[index]
        next_closed[index] = name if closes else next_closed[index + 1]
    parts: dict[str, str] = {}
    current, start = "", 0
    for index, (name, closes, match) in enumerate(tags):
        # Within a part that its own closing tag still ends, another opening tag is ordinary text.
        if (closes and name != current) or (not closes and current and next_closed[index] == current):
            continue
        if current:
            parts.setdefault(current, text[start : match.start()].strip())
        current, start = "" if closes else name, match.end()
    if current:
        parts.setdefault(current, text[start:].strip())
    return parts
