"""Answers of the embedded policy's form, in pixels of a square."""

from __future__ import annotations

from wise_edge.geometry import Box, Point
from wise_edge.policy.answers import answer, strict, tolerant
from wise_edge.policy.answers.answer import Answer, AnsweredObject
from wise_edge.policy.answers.form import BOX_POINTS
from wise_edge.policy.answers.frame import AnswerFrame


def one_object(box: Box, points: tuple[Point, ...]) -> Answer:
    """Return the answer of one object."""
    return Answer((AnsweredObject(box, points),))


def format_answer(given: Answer) -> str:
    """Return an answer's text, which is the same for squares of every side."""
    return answer.format_answer(given, BOX_POINTS, AnswerFrame((1, 1)))


def parse_answer(text: str, side: int) -> tolerant.ParsedAnswer:
    """Parse an answer in pixels of a square tolerantly."""
    return tolerant.parse_answer(text, BOX_POINTS, AnswerFrame((side, side)))


def parse_answer_strict(text: str, side: int) -> Answer:
    """Parse an answer in pixels of a square strictly."""
    return strict.parse_answer_strict(text, BOX_POINTS, AnswerFrame((side, side)))
