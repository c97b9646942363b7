"""What a form dictates and what it leaves to the policy, in the order of writing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from wise_edge.policy.answers.form import LABEL, NUMBERS, AnswerForm
from wise_edge.policy.answers.frame import AnswerFrame


@dataclass(frozen=True)
class Way:
    """A text that the form dictates.

    Attributes:
        text: at least one character.
        value: index in `Course.values` of what follows it; None at the end of the answer.
    """

    text: str
    value: int | None


@dataclass(frozen=True)
class Course:
    """An answer as values with dictated texts around them; where there are several texts, the policy chooses.

    Attributes:
        values: of an object, in order: the index of a number within its box or point, or None for a label.
        opening: the ways to the first value: into the first object, or past an empty list.
        after: for each value, the ways that follow it: of the last one, those to another object and to the end.
    """

    values: tuple[int | None, ...]
    opening: tuple[Way, ...]
    after: tuple[tuple[Way, ...], ...]

    def largest(self, value: int, frame: AnswerFrame) -> int | None:
        """Return the largest number that a value may be in a frame; None for a label."""
        place = self.values[value]
        return None if place is None else frame.limits[place % 2]


@cache
def course_of(form: AnswerForm) -> Course:
    """Return the course of a form's answers, from its `before` to its `after`."""
    values: list[int | None] = []
    texts: list[str] = []  # before each value
    text = "{"
    for number, field in enumerate(form.fields):
        text += form.between_fields if number else ""
        text += f'"{field.key}"{form.after_key}' + ('"' if field.kind == LABEL else "[")
        for place in range(NUMBERS.get(field.kind, 1)):
            values.append(None if field.kind == LABEL else place)
            texts.append(text)
            text = form.between_numbers
        text = '"' if field.kind == LABEL else "]"
    within = tuple((Way(text, number),) for number, text in enumerate(texts) if number)
    if not form.many:
        return Course(
            tuple(values), (Way(form.before + texts[0], 0),), (*within, (Way(text + "}" + form.after, None),))
        )
    opening = Way(form.before + form.list_start + texts[0], 0), Way(form.before + form.empty_list + form.after, None)
    another = Way(text + "}" + form.between_objects + texts[0], 0)
    last = another, Way(text + "}" + form.list_end + form.after, None)
    return Course(tuple(values), opening, (*within, last))
