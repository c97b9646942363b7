"""What every memory of objects does: it counts frames, and knows which objects were found on the current one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic

from wise_edge.errors import UsageError
from wise_edge.runtimes.base import MaskImageT, MaskPrompt, RememberedMask


class ObjectMemory(ABC, Generic[MaskImageT]):
    """Follows objects frame by frame; see `wise_edge.runtimes.base.MaskMemory`.

    Attributes:
        time: number of the current frame, from 0; -1 before the first.
    """

    def __init__(self) -> None:
        self.time = -1
        self._frame: MaskImageT | None = None
        self._numbers: list[int] = []
        self._found: dict[int, RememberedMask] = {}

    def prompt(self, encoded: MaskImageT, prompts: Mapping[int, MaskPrompt]) -> dict[int, RememberedMask]:
        """Begin to follow objects on a frame, or correct them there; see `MaskMemory`."""
        self._enter(encoded)
        found = self._start(encoded, prompts) if prompts else {}
        self._numbers += [number for number in found if number not in self._numbers]
        self._found |= found
        return found

    def follow(self, encoded: MaskImageT) -> dict[int, RememberedMask]:
        """Find every object on a frame; see `MaskMemory`."""
        if not self._numbers:
            raise UsageError("no object is followed yet; prompt one on an earlier frame or on this one")
        self._enter(encoded)
        if missing := [number for number in self._numbers if number not in self._found]:
            self._found |= self._find(encoded, missing)
        return {number: self._found[number] for number in self._numbers}

    def forget(self, number: int) -> None:
        """Stop to follow an object and free its memory; see `MaskMemory`."""
        if number not in self._numbers:
            known = ", ".join(map(str, self._numbers)) or "none"
            raise UsageError(f"no object has the number {number!r}; followed are: {known}")
        self._numbers.remove(number)
        self._found.pop(number, None)
        self._drop(number)

    def _enter(self, encoded: MaskImageT) -> None:
        """Go on to the next frame if this is not the current one."""
        if encoded is not self._frame:
            self._frame, self._found = encoded, {}
            self.time += 1

    @abstractmethod
    def _start(self, encoded: MaskImageT, prompts: Mapping[int, MaskPrompt]) -> dict[int, RememberedMask]:
        """Find and remember objects by prompts alone; what was remembered of them on this frame is replaced."""

    @abstractmethod
    def _find(self, encoded: MaskImageT, numbers: Sequence[int]) -> dict[int, RememberedMask]:
        """Find objects by their memory, and remember them on this frame."""

    @abstractmethod
    def _drop(self, number: int) -> None:
        """Free the memory of an object."""
