"""How an export reports its progress."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called when a step begins, and again with the share that is done if that is known."""

    def __call__(self, step: str, share: float | None = None) -> None:
        """Report a step.

        Args:
            step: what is being done, in the present tense.
            share: the part of it that is done, 0 to 1; None at its beginning.
        """
        ...
