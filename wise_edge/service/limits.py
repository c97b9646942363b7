"""Bounds on what one client may send, so that the service stays available to others."""

from __future__ import annotations

from dataclasses import dataclass

from wise_edge.arguments import MAX_PIXELS
from wise_edge.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """Bounds of a service.

    Attributes:
        head_s: time limit for a request's head, from the connection, or from the first byte of a later request.
        body_bytes: largest body of a request.
        question_bytes: largest body without an image; JSON may take over twenty times its size in memory.
        body_s: time limit for sending the body.
        write_s: time limit for a client to take what was sent to it, once its connection accepts no more.
        pixels: pixels of the largest image.
        waiting: queries that may wait for the device; further ones are asked to retry.
        query_s: time limit of a query, waiting included.
        images: images stored for further queries, within `MAX_KEPT_BYTES`; the least recently used is dropped first.
        connections: connections open at once, idle ones included.
    """

    head_s: float = 10.0
    body_bytes: int = 10_000_000
    question_bytes: int = 64_000
    body_s: float = 30.0
    write_s: float = 10.0
    pixels: int = MAX_PIXELS
    waiting: int = 16
    query_s: float = 60.0
    images: int = 8
    connections: int = 256

    def __post_init__(self) -> None:
        """Raise `UsageError` for a bound of 0 or less, which would reject everything."""
        for name, value in self.__dict__.items():
            if not 0 < value <= 1e12:
                raise UsageError(f"the service limit {name} must be above 0 and at most 1e12, not {value}")

    @property
    def bodies_bytes(self) -> int:
        """Bytes of all bodies in memory: the largest for each query that may wait, and for the one that runs."""
        return (self.waiting + 1) * self.body_bytes

    def share(self, most: int) -> int:
        """Return how many of so many one client may hold; the rest is reserved for others."""
        return most - most // 4
