"""What the policy backends share."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from wise_edge.policy.spec import PolicySpec
from wise_edge.runtimes.base import Request
from wise_edge.runtimes.policy.prompt import Grid, Prompt
from wise_edge.runtimes.policy.text import PolicyText


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
        self._text = PolicyText(tokenizer, spec)
        self._variant = spec.default_variant  # the latest; the next image is prepared for it

    def _prompt(self, request: Request, grid: Grid) -> Prompt:
        self._variant = request.variant
        return self._text.prompt(request.query, request.variant, grid)

    @property
    def input_size(self) -> int:
        """Side in pixels of the resized square."""
        return self._spec.input_size

    @property
    def variants(self) -> Collection[str]:
        """The names of its prompt variants."""
        return self._spec.prompts.variants

    @property
    def default_variant(self) -> str:
        """The prompt variant used by default."""
        return self._spec.default_variant
