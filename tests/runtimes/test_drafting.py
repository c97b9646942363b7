"""A draft saves calls of the model and changes nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wise_edge.runtimes.policy.drafting import DraftedRun
from wise_edge.runtimes.policy.writing import Logits

VOCABULARY = 7
TOKENS = st.integers(0, VOCABULARY - 1)
PROMPT = [1, 2, 3]


@dataclass
class Remembering:
    """A model whose logits depend on every token that it holds; it refuses a gap."""

    held: list[int] = field(default_factory=lambda: [5, 5])

    def __call__(self, tokens: Sequence[int], position: int, rows: int) -> Logits:
        assert position <= len(self.held)
        del self.held[position:]
        found = []
        for token in tokens:
            self.held.append(token)
            found.append(np.random.default_rng(self.held).standard_normal(VOCABULARY).astype(np.float32))
        return np.stack(found[-rows:])


def write(run: DraftedRun, forced: list[int], length: int) -> list[int]:
    """Write greedily behind PROMPT: first what is forced, then a token a step, every third one with a forced one."""
    logits = run([*PROMPT, *forced])
    written = list(forced)
    while len(written) < length:
        new = [int(logits.argmax())]
        if len(written) % 3 == 0:
            new.append(4)
        written += new
        logits = run(new)
    return written


@given(st.lists(TOKENS, max_size=3), st.integers(1, 12), st.data())
def test_what_is_written_does_not_depend_on_the_draft(forced: list[int], length: int, data: st.DataObject) -> None:
    plain_model, model = Remembering(), Remembering()
    plain = DraftedRun(plain_model, 2, len(PROMPT))
    expected = write(plain, forced, length)
    kept = data.draw(st.integers(0, len(expected)))
    draft = [*expected[:kept], *data.draw(st.lists(TOKENS, max_size=6))]
    drafted = DraftedRun(model, 2, len(PROMPT), draft, data.draw(st.integers(1, 20)))

    assert write(drafted, forced, length) == expected
    assert drafted.calls <= plain.calls


@given(st.lists(TOKENS, max_size=3), st.integers(1, 12))
def test_a_draft_that_holds_needs_one_call(forced: list[int], length: int) -> None:
    expected = write(DraftedRun(Remembering(), 2, len(PROMPT)), forced, length)
    drafted = DraftedRun(Remembering(), 2, len(PROMPT), expected)

    assert write(drafted, forced, length) == expected
    assert drafted.calls == 1


@given(st.lists(TOKENS, max_size=3), st.integers(1, 40), st.integers(1, 6))
def test_a_long_draft_is_run_in_parts_of_bounded_logits(forced: list[int], length: int, most: int) -> None:
    expected = write(DraftedRun(Remembering(), 2, len(PROMPT)), forced, length)
    rows: list[int] = []
    model = Remembering()

    def run(tokens: Sequence[int], position: int, count: int) -> Logits:
        rows.append(count)
        return model(tokens, position, count)

    drafted = DraftedRun(run, 2, len(PROMPT), expected, most)

    assert write(drafted, forced, length) == expected
    assert max(rows) <= 1 + most
    assert drafted.calls <= 1 + (len(expected) - len(forced)) / most
