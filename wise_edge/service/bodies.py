"""The bodies of all requests in memory, counted in bytes."""

from __future__ import annotations

from collections import Counter

from wise_edge.service.limits import Limits


class Bodies:
    """Counts the bytes of bodies from their arrival to the end of their requests.

    No client may hold more than three quarters, or the largest body if that is more.

    Args:
        limits: bounds on bodies.
    """

    def __init__(self, limits: Limits) -> None:
        self._most = limits.bodies_bytes
        self._most_of_one = max(limits.share(limits.bodies_bytes), limits.body_bytes)
        self._own: Counter[str] = Counter()

    def add(self, client: str, length: int) -> bool:
        """Count bytes of a client unless they are too many; return whether they were counted."""
        if self._own[client] + length > self._most_of_one or self._own.total() + length > self._most:
            return False
        self._own[client] += length
        return True

    def remove(self, client: str, length: int) -> None:
        """Count so many bytes no longer."""
        self._own[client] -= length
        if not self._own[client]:
            del self._own[client]
