"""Finding the JSON of an answer in a completion: what the strict and the tolerant parser share."""

from __future__ import annotations

from wise_edge.policy.answers.completion import MAX_COMPLETION_CHARACTERS, Completion, behind_rationale

MAX_OBJECT_CHARACTERS = 1_000
MAX_OBJECTS = 50
"""Objects of an answer that are written and read unless told otherwise."""


def answer_source(text: str, parts: Completion) -> tuple[str, bool]:
    """Return the text that should hold the answer, and whether other parts have tags but the answer has none."""
    if parts.answer_text is not None:
        return parts.answer_text, False
    text = text[:MAX_COMPLETION_CHARACTERS]
    behind = behind_rationale(text)
    source = behind if "{" in behind or "[" in behind else text
    return source, parts.rationale is not None or parts.detailed is not None
