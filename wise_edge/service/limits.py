"""What one client may ask of a service, so that others are served too."""

from __future__ import annotations

from dataclasses import dataclass

from wise_edge.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """Bounds of a service.

    Attributes:
        head_s: how long a client may take from connecting, or from a next request's first byte, to the head's last.
        body_bytes: largest body of a request.
        body_s: how long a client may take to send it.
        pixels: largest image.
        waiting: queries that may wait for the device; more are told to come again.
        query_s: how long a query may wait and run.
        images: that are kept for further queries; the one not asked for longest goes first.
        connections: that are open at once, idle ones included.
    """

    head_s: float = 10.0
    body_bytes: int = 10_000_000
    body_s: float = 30.0
    pixels: int = 25_000_000
    waiting: int = 16
    query_s: float = 60.0
    images: int = 8
    connections: int = 256

    def __post_init__(self) -> None:
        """Raise `UsageError` for a bound that lets nothing through."""
        for name, value in self.__dict__.items():
            if value <= 0:
                raise UsageError(f"a service's limit {name} is above 0, this is {value}")
