"""A prompt in tokens: what no query changes, whose keys and values a runtime keeps, and the rest.

Positions are M-RoPE's: text advances time, row and column together, an image's tokens share one time and spread over
rows and columns, and the text after it continues from the largest position
(https://arxiv.org/abs/2409.12191, section 2.1; `get_rope_index` of transformers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wise_edge.policy.picture import Grid
from wise_edge.policy.prompts import Template


@dataclass(frozen=True)
class Prefix:
    """The beginning of a prompt, up to the picture and as much behind it as no query changes.

    Attributes:
        before: tokens before the picture.
        grid: columns and rows of the picture's tokens.
        after: tokens after the picture.
    """

    before: tuple[int, ...]
    grid: Grid
    after: tuple[int, ...]

    @property
    def image_tokens(self) -> int:
        """Tokens of the picture."""
        return self.grid[0] * self.grid[1]

    @property
    def length(self) -> int:
        """Tokens of the prefix."""
        return len(self.before) + self.image_tokens + len(self.after)

    @property
    def image_end(self) -> int:
        """Position of the first token after the picture, which counts by its longer side."""
        return len(self.before) + max(self.grid)

    @property
    def end(self) -> int:
        """Position of the first token after the prefix."""
        return self.image_end + len(self.after)


@dataclass(frozen=True)
class Prompt:
    """A complete prompt.

    Attributes:
        prefix: its beginning.
        suffix: the other tokens, at least one.
        template: the wording that it was made from.
    """

    prefix: Prefix
    suffix: list[int]
    template: Template

    @property
    def length(self) -> int:
        """Tokens of the prompt, the picture's included."""
        return self.prefix.length + len(self.suffix)


def text_positions(start: int, count: int) -> npt.NDArray[np.int64]:
    """Return int64 [3, 1, count]: time, row and column of text tokens."""
    return np.tile(np.arange(start, start + count, dtype=np.int64), (3, 1, 1))


def image_positions(start: int, grid: Grid) -> npt.NDArray[np.int64]:
    """Return int64 [3, 1, columns * rows]: time, row and column of an image's tokens, row by row."""
    columns, rows = grid
    down, across = np.divmod(np.arange(columns * rows, dtype=np.int64), columns)
    return np.stack([np.zeros_like(down), down, across])[:, None] + start


def common_length(left: Sequence[object], right: Sequence[object]) -> int:
    """Return the length of the longest common prefix of two sequences."""
    pairs = zip(left, right, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
