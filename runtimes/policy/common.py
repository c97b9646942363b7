"""What the policy backends share."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache, partial
from pathlib import Path

from wise_edge.geometry import Size
from wise_edge.policy.answers.form import AnswerForm
from wise_edge.policy.answers.frame import AnswerFrame
from wise_edge.policy.picture import Grid
from wise_edge.policy.spec import PolicySpec
from wise_edge.runtimes.base import Request
from wise_edge.runtimes.policy.prompt import Prompt
from wise_edge.runtimes.policy.text import PolicyText

_MOST_BUDGETS = 128
"""Budgets of pixels whose geometry is kept; making it takes about a tenth of a millisecond."""


class BasePolicy:
    """A policy with its specification and its tokens.

    Args:
        name: backend name.
        spec: the policy.
        tokenizer: tokenizer.json.
    """

    limits_rationale = True

    def __init__(self, name: str, spec: PolicySpec, tokenizer: Path) -> None:
        self.name = name
        self._spec = spec
        self._within = lru_cache(_MOST_BUDGETS)(partial(self._limit, spec))
        self._text = PolicyText(tokenizer, spec)
        self._variant = spec.default_variant  # the latest; the next image is prepared for it

    def _prompt(self, request: Request, grid: Grid) -> Prompt:
        self._variant = request.variant
        return self._text.prompt(request.query, request.variant, grid)

    @property
    def form(self) -> AnswerForm:
        """How its answers are written."""
        return self._spec.form

    def grid(self, size: Size, pixels: int | None = None) -> Grid:
        """Return the columns and rows of image tokens of an image; see `PolicyBackend`."""
        spec = self._within(pixels)
        return spec.image_grid(spec.picture_size(size))

    def frame(self, grid: Grid) -> AnswerFrame:
        """Return the frame of answers on an image of so many columns and rows of tokens."""
        return self._spec.frame_of_grid(grid)

    @staticmethod
    def _limit(spec: PolicySpec, pixels: int | None) -> PolicySpec:
        """Return a policy that sees images of at most so many pixels; raises `UsageError` if this backend cannot."""
        return spec.within(pixels)

    @property
    def variants(self) -> Collection[str]:
        """The names of its prompt variants."""
        return self._spec.prompts.variants

    @property
    def default_variant(self) -> str:
        """The prompt variant used by default."""
        return self._spec.default_variant
