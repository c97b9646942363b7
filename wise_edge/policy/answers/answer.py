"""The content of an answer, and its text."""

from __future__ import annotations

from dataclasses import dataclass

from wise_edge.files.documents import to_json
from wise_edge.geometry import Box, Point, Size, scale_box, scale_point
from wise_edge.policy.answers.form import BOX, LABEL, AnswerField, AnswerForm
from wise_edge.policy.answers.frame import AnswerFrame


@dataclass(frozen=True)
class AnsweredObject:
    """An object that a policy points at, in the frame of the answer.

    Attributes:
        box: XYXY, half-open.
        points: XY, inside the object; as many as the form has.
        label: what the policy calls it; None if the form has no label.
    """

    box: Box
    points: tuple[Point, ...] = ()
    label: str | None = None


@dataclass(frozen=True)
class Answer:
    """What a policy points at; no objects mean that the picture has nothing of what was asked for.

    Attributes:
        objects: in the order in which they were written.
    """

    objects: tuple[AnsweredObject, ...]


def format_answer(answer: Answer, form: AnswerForm, frame: AnswerFrame) -> str:
    """Return the JSON text of an answer, without what stands before and after it.

    Raises:
        ValueError: the form holds exactly one object, and the answer another number; or an object has fewer points
            than the form.
    """
    texts = [_format_object(item, form, frame) for item in answer.objects]
    if not form.many:
        if len(texts) != 1:
            raise ValueError(f"the form {form.name} holds one object, not {len(texts)}")
        return texts[0]
    return form.list_start + form.between_objects.join(texts) + form.list_end if texts else form.empty_list


def object_in_frame(box: Box, points: tuple[Point, ...], size: Size, frame: AnswerFrame) -> AnsweredObject:
    """Map a box and points of a picture to the frame of answers.

    Args:
        box: XYXY, half-open, pixels of the picture.
        points: column and row in pixels of the picture, inside the box.
        size: width and height of the picture, px.
        frame: of the answer.

    Returns:
        The object, its points still inside the box after rounding.
    """
    x1, y1, x2, y2 = scale_box(box, size, frame.size)
    scaled = (scale_point(point, size, frame.size) for point in points)
    return AnsweredObject(
        (x1, y1, x2, y2), tuple((min(max(x, x1), x2 - 1), min(max(y, y1), y2 - 1)) for x, y in scaled)
    )


def _format_object(item: AnsweredObject, form: AnswerForm, frame: AnswerFrame) -> str:
    points = iter(item.points)
    if len(item.points) < len(form.point_keys):
        raise ValueError(f"the form {form.name} has {len(form.point_keys)} points, the object {len(item.points)}")

    def value(field: AnswerField) -> str:
        if field.kind == LABEL:
            return to_json(item.label or "", ensure_ascii=False)
        numbers = frame.write_box(item.box) if field.kind == BOX else frame.write_point(next(points))
        return f"[{form.between_numbers.join(map(str, numbers))}]"

    return "{" + form.between_fields.join(f'"{each.key}"{form.after_key}{value(each)}' for each in form.fields) + "}"
