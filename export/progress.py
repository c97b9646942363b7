"""How an export tells what it is doing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Is told each step when it begins, and how far it is where that is known."""

    def __call__(self, step: str, share: float | None = None) -> None:
        """Report a step.

        Args:
            step: what is being done, in the present tense.
            share: the part of it that is done, 0 to 1; None where only its beginning is told.
        """
        ...
