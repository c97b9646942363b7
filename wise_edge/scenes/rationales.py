"""Write a query's reasoning at four lengths.

"concise" has about 8 to 20 tokens and names the deciding fact and the object; "detailed" has about 60 to 130,
names all objects, compares the candidates and concludes. "medium" and "long" lie between.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wise_edge.scenes.layout import ObjectSpec
from wise_edge.scenes.queries import Query

LEVELS = ("concise", "medium", "long", "detailed")

_COUNTS = ("no", "one", "two", "three", "four", "five", "six")
_MIN_WORDS, _MAX_WORDS = 60, 114  # of the detailed text, punctuation counted


def write_rationale(specs: Sequence[ObjectSpec], query: Query, level: str) -> str:
    """Return the reasoning behind `query` at one of `LEVELS`."""
    conclusion = f"{_capital(query.lead)} {_found(specs[query.target])}."
    if level == "concise":
        return conclusion
    if level == "medium":
        return f"{_mention_candidates(specs, query)} {conclusion}"
    names = _join(f"a {_name(specs[i])}" for i in _reading_order(specs))
    listing = f"There are {_COUNTS[len(specs)]} objects: {names}."
    if level == "long":
        return f"{listing} {conclusion}"
    if level == "detailed":
        return _detailed(specs, query, listing, conclusion)
    raise ValueError(f"unknown level '{level}'; choose one of {', '.join(LEVELS)}")


def _detailed(specs: Sequence[ObjectSpec], query: Query, listing: str, conclusion: str) -> str:
    """Add comparisons, the decisive ones first, as long as the text does not become too long."""
    start = " ".join((listing, f"The query asks for {query.text}.", *_mention_anchor(specs, query)))
    reasons: list[str] = []
    rivals = [i for i in query.candidates if i not in (query.target, query.anchor)]
    rest = [i for i in _reading_order(specs) if i not in (query.target, query.anchor, *rivals)]
    for index in [query.target, *rivals, *rest]:
        reason = f"At the {specs[index].place}, the {specs[index].describe()} {query.verdicts[index]}."
        if _words(" ".join((start, *reasons, reason, conclusion))) > _MAX_WORDS:
            break
        reasons.append(reason)
    text = " ".join((start, *reasons, conclusion))
    return text if _words(text) >= _MIN_WORDS else f"{text} So the object is {_found(specs[query.target])}."


def _mention_candidates(specs: Sequence[ObjectSpec], query: Query) -> str:
    shown = [i for i in _reading_order(specs) if i in query.candidates][:4]
    names = _join(f"the {_name(specs[i])}" for i in shown)
    anchor = _mention_anchor(specs, query)
    return " ".join((*anchor, f"In question {'are' if len(shown) > 1 else 'is'} {names}."))


def _mention_anchor(specs: Sequence[ObjectSpec], query: Query) -> tuple[str, ...]:
    return () if query.anchor is None else (f"The one to compare with is {_found(specs[query.anchor])}.",)


def _reading_order(specs: Sequence[ObjectSpec]) -> list[int]:
    """Return indices by place, row by row, and from left to right within a place."""
    return sorted(
        range(len(specs)),
        key=lambda i: (int(3 * specs[i].center[1]), specs[i].center[0]),
    )


def _name(spec: ObjectSpec) -> str:
    return f"{spec.describe()} at the {spec.place}"


def _found(spec: ObjectSpec) -> str:
    """Name a chosen object by its place first.

    A list names attributes before the place, so at the place all attributes of an object are known: a conclusion that
    starts with it chooses the object in one look back. With the size first, the size was wrong half of the time.
    """
    return f"at the {spec.place}: {spec.describe()}"


def _join(items: Iterable[str]) -> str:
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _words(text: str) -> int:
    return sum(len(word.rstrip(".,:")) != len(word) for word in text.split()) + len(text.split())
