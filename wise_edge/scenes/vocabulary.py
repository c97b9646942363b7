"""The words of the scenes' queries, the only ones that the embedded models were trained on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from random import Random

from wise_edge.scenes.family import SHAPES, Family
from wise_edge.scenes.groups import GROUP_KINDS, find_group_queries
from wise_edge.scenes.layout import PLACES, lay_out
from wise_edge.scenes.naming import plural_noun
from wise_edge.scenes.sampling import REQUESTS

_LAYOUTS = 16  # the last new word of 3,000 layouts came with the 13th
_STOP_WORDS = frozenset(
    (
        *("a", "an", "the", "this", "that", "these", "those", "which", "is", "are", "there", "it", "its", "in", "on"),
        *("for", "from", "i", "me", "my", "you", "can", "could", "do", "please"),
    )
)
"""What people add to a query without asking for anything else."""


def unknown_words(query: str, family: Family = SHAPES) -> list[str]:
    """Return the words of a query that no query of a scene has, in lower case and in order; stop words are known.

    Args:
        query: any text.
        family: what the scenes contain.
    """
    known = _vocabulary(family)
    return [word for word in dict.fromkeys(_words(query)) if word not in known and word not in _STOP_WORDS]


def _words(text: str) -> Iterator[str]:
    return (found[0] for found in re.finditer(r"\w+", re.sub(r"['’]s\b", "", text.casefold())))


@cache
def _vocabulary(family: Family) -> frozenset[str]:
    """Return the words that queries can have, singular and plural; takes 0.1 s, once."""
    texts = [*REQUESTS, *(place for row in PLACES for place in row), *family.textures[1:]]
    texts += [name for names in (family.colors, family.sizes) for name, _ in names]
    texts += [text for kind in family.kinds for text in (kind.name, *kind.uses)]
    for seed in range(_LAYOUTS):
        if specs := lay_out(Random(seed), family):
            texts += [query.text for kind in GROUP_KINDS for query in find_group_queries(specs, kind, family)]
    singular = {word for text in texts for word in _words(text)}
    return frozenset(singular | {plural_noun(word) for word in singular})
