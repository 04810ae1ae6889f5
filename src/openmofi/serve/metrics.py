"""The metrics of one server for Prometheus."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics, in their own registry, so that a process may run several servers."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        by_route = ("method", "route", "status")
        self.requests = Counter("openmofi_requests", "Requests", by_route, registry=own)
        self.seconds = Histogram(
            "openmofi_seconds", "Time to answer", ("route",), registry=own, buckets=_SECONDS
        )
        self.batch_size = Histogram(
            "openmofi_batch_size", "Items per pass of the encoder", registry=own, buckets=_SIZES
        )
        self.queue_length = Gauge("openmofi_queue", "Items waiting for the encoder", registry=own)
        self.thumbnails = Counter(
            "openmofi_thumbnails", "Thumbnails from the cache or made", ("found",), registry=own
        )

    def page(self) -> bytes:
        """Returns all metrics in Prometheus's text format."""
        return generate_latest(self.registry)


class RequestMeter:
    """Counts and times every request."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begin, status = time.perf_counter(), 500

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_noting)
        finally:
            # Paths and methods without a route are chosen by the client and must not become labels.
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if route != "none" else "any"
            self.metrics.requests.labels(method, route, status).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - begin)
