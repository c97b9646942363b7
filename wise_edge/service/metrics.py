"""The service's Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from wise_edge.extras import require
from wise_edge.runtimes.results import SegmentationResult
from wise_edge.service.access_log import Served

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """Counts requests and queries, in a registry of its own.

    Args:
        waiting: returns how many queries wait or run.
        images: returns how many images are stored.

    Raises:
        MissingExtraError: prometheus_client is not installed.
    """

    def __init__(self, waiting: Callable[[], int], images: Callable[[], int]) -> None:
        prometheus = require("prometheus_client", "serve")
        self._prometheus = prometheus
        self._registry = prometheus.CollectorRegistry()
        own = {"registry": self._registry}
        self._requests = prometheus.Counter("wise_edge_requests", "Requests.", ["path", "status"], **own)
        self._queries = prometheus.Counter("wise_edge_queries", "Answered queries.", ["variant", "status"], **own)
        self._objects = prometheus.Counter("wise_edge_objects", "Objects found.", ["variant"], **own)
        self._phases = prometheus.Histogram(
            "wise_edge_phase_seconds", "Time of a query, by phase.", ["phase"], buckets=_SECONDS, **own
        )
        self._tokens = prometheus.Counter("wise_edge_rationale_tokens", "Rationale tokens.", ["variant"], **own)
        for name, text, value in (
            ("wise_edge_waiting", "Queries that wait or run.", waiting),
            ("wise_edge_frames", "Stored images.", images),
        ):
            prometheus.Gauge(name, text, **own).set_function(value)

    def count_request(self, served: Served) -> None:
        """Count a request under its declared path, since anyone may request any number of others."""
        self._requests.labels(served.route or "unknown", served.status).inc()

    def count_query(self, result: SegmentationResult) -> None:
        """Count an answered query."""
        self._queries.labels(result.variant, result.status).inc()
        self._objects.labels(result.variant).inc(len(result.objects))
        self._tokens.labels(result.variant).inc(result.tokens.rationale)
        for phase, spent_ms in asdict(result.latency_ms).items():
            self._phases.labels(phase).observe(spent_ms / 1e3)

    def render(self) -> tuple[bytes, str]:
        """Return the text for Prometheus and its content type."""
        text: Any = self._prometheus.generate_latest(self._registry)
        return text, str(self._prometheus.CONTENT_TYPE_LATEST)
