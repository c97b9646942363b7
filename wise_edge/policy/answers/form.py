"""Forms of answers, as data that a bundle carries.

One description yields the text of an answer, both parsers, what is forced when an answer is written, and the pattern
for runtimes that constrain by one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from wise_edge.mapping import without_version
from wise_edge.ranges import Checked, Name, OneOf, Range

VERSION = 1
BOX, POINT, LABEL = "box", "point", "label"
NUMBERS = {BOX: 4, POINT: 2}
"""Numbers of each kind of field that has some."""
_Piece = Annotated[str, Range(0, 100)]
_BLANK = " \t\n\r"
_MARKS = {
    "after_key": ":", "between_fields": ",", "between_numbers": ",",
    "list_start": "[", "between_objects": ",", "list_end": "]",
}  # fmt: skip
"""What JSON has in the place of a text, around which there may be white space."""


@dataclass(frozen=True)
class AnswerField(Checked):
    """An entry of an object in an answer.

    Attributes:
        key: its key in the JSON object.
        kind: `BOX` (four numbers), `POINT` (two) or `LABEL` (text).
    """

    key: Name
    kind: Annotated[str, OneOf((BOX, POINT, LABEL))]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.key.isascii() and self.key.isprintable()) or '"' in self.key or "\\" in self.key:
            raise ValueError(f"key: {self.key!r} has a quote, a backslash, or a character that is not printable ASCII")


@dataclass(frozen=True)
class AnswerForm(Checked):
    """How a policy writes its answer: a JSON object, or a list of such objects, within tags or a fence.

    Attributes:
        name: identifies the form in messages.
        fields: the entries of an object, in order; exactly one is a box, at most one a label.
        many: whether the answer is a list, which may be empty, instead of one object.
        before: text before the JSON.
        after: text after the JSON; it ends a completion.
        after_key: text between a key and its value.
        between_fields: text between two entries of an object.
        between_numbers: text between two numbers.
        list_start: text before the first object of a list that has one.
        between_objects: text between two objects of a list.
        list_end: text after the last object of a list that has one.
        empty_list: a list without an object.
    """

    name: Name
    fields: Annotated[tuple[AnswerField, ...], Range(1, 10)]
    many: bool = False
    before: _Piece = "<answer>"
    after: Annotated[str, Range(1, 100)] = "</answer>"
    after_key: _Piece = ": "
    between_fields: _Piece = ", "
    between_numbers: _Piece = ", "
    list_start: _Piece = "["
    between_objects: _Piece = ", "
    list_end: _Piece = "]"
    empty_list: _Piece = "[]"

    def __post_init__(self) -> None:
        super().__post_init__()
        repeated = [key for key, count in Counter(field.key for field in self.fields).items() if count > 1]
        if repeated:
            raise ValueError(f"fields: two have the key {repeated[0]!r}")
        for name, mark in _MARKS.items():
            if (text := getattr(self, name)).strip(_BLANK) != mark:
                raise ValueError(f"{name}: is {text!r}; JSON has {mark!r} there, with white space around it")
        if re.fullmatch(f"[{_BLANK}]*\\[[{_BLANK}]*\\][{_BLANK}]*", self.empty_list) is None:
            raise ValueError(f"empty_list: is {self.empty_list!r}; JSON has '[]' there, with white space around it")
        if any((text + self.after).find(self.after) < len(text) for text in self._examples()):
            raise ValueError(f"after: {self.after!r} also stands within an answer, which it would end too early")
        kinds = Counter(field.kind for field in self.fields)
        if kinds[BOX] != 1 or kinds[LABEL] > 1:
            raise ValueError(f"fields: needs one box and at most one label, has {kinds[BOX]} and {kinds[LABEL]}")

    @classmethod
    def upgrade(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the entries of a form of any version, of which there is one; see `from_mapping`."""
        return without_version(data, VERSION)

    def __str__(self) -> str:
        """Say what an answer has."""
        return f"{self.name}: {'a list of objects' if self.many else 'one object'} with {', '.join(self.keys)}"

    def _examples(self) -> tuple[str, ...]:
        """Return answers without meaning that have every dictated text."""
        numbers = f"[0{self.between_numbers}0]"
        item = self._item({BOX: numbers, POINT: numbers, LABEL: numbers})
        if not self.many:
            return (item,)
        return f"{self.list_start}{item}{self.between_objects}{item}{self.list_end}", self.empty_list

    def _item(self, values: Mapping[str, str]) -> str:
        """Return an object with a text for each kind of field."""
        fields = (f'"{field.key}"{self.after_key}{values[field.kind]}' for field in self.fields)
        return f"{{{self.between_fields.join(fields)}}}"

    def outline(self, box: Iterable[str], point: Iterable[str], label: str) -> str:
        """Return an answer of one object as a prompt shows it, with names such as x1 in the place of numbers."""
        numbers = {kind: f"[{self.between_numbers.join(names)}]" for kind, names in ((BOX, box), (POINT, point))}
        item = self._item({**numbers, LABEL: f'"{label}"'})
        body = f"{self.list_start}{item}{self.list_end}" if self.many else item
        return f"{self.before}{body}{self.after}"

    @property
    def box_key(self) -> str:
        """Key of the box."""
        return next(field.key for field in self.fields if field.kind == BOX)

    @property
    def point_keys(self) -> tuple[str, ...]:
        """Keys of the points, in order."""
        return tuple(field.key for field in self.fields if field.kind == POINT)

    @property
    def label_key(self) -> str | None:
        """Key of the label; None if the form has none."""
        return next((field.key for field in self.fields if field.kind == LABEL), None)

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys, in order."""
        return tuple(field.key for field in self.fields)


BOX_POINTS = AnswerForm(
    "box-points", (AnswerField("bbox", BOX), AnswerField("points_1", POINT), AnswerField("points_2", POINT))
)
"""One object with a box and two points inside it: the form of WISE and Seg-Zero."""

BOX_POINT_LIST = AnswerForm(
    "box-point-list",
    (AnswerField("bbox_2d", BOX), AnswerField("point_2d", POINT)),
    many=True,
    between_numbers=",",
)
"""A list of objects with a box and a point each: the form of VisionReasoner and of later versions of Seg-Zero."""

BOX_LABEL_LIST = AnswerForm(
    "box-label-list",
    (AnswerField("bbox_2d", BOX), AnswerField("label", LABEL)),
    many=True,
    before="```json\n",
    after="\n```",
    list_start="[\n\t",
    between_objects=",\n\t",
    list_end="\n]",
)
"""A list of objects with a box and a label each, in a fence: how stock Qwen-VL checkpoints ground."""

FORMS = {form.name: form for form in (BOX_POINTS, BOX_POINT_LIST, BOX_LABEL_LIST)}
"""The shipped forms by name."""
