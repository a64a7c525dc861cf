"""The server's own metrics, and its line in the log for each request: never a value of a parameter."""

import logging
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from obs_assets.api.serving import Application, Message, Receive, Scope, Send

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Upper ends of the histogram's parts."""

_log = logging.getLogger(__name__)


class Counters:
    """Requests by path and status, their seconds, open streams, cancelled questions."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "obs_api_requests",
            "Requests by path and status.",
            ["path", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "obs_api_request_seconds",
            "Seconds from a request to the first byte of its answer.",
            ["path"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.streams = Gauge(
            "obs_api_streams", "Live streams that are open.", registry=self._registry
        )

    def exposition(self) -> str:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry).decode()


def route_of(scope: Scope) -> str:
    """The path of a request's route, for example ``/api/v1/events/{id}``: a path itself can hold a value."""
    route = scope.get("route")
    # A path without a route is not counted under its own text: a scanner would make thousands of series.
    return str(getattr(route, "path", "other"))


def parameters_of(scope: Scope) -> Iterator[str]:
    """Names of the parameters in a request's query."""
    for pair in scope["query_string"].decode("latin-1").split("&"):
        name = pair.partition("=")[0]
        # A name that a client invents may be a value: only names like ours are logged.
        if name.isidentifier():
            yield name


def counted(app: Application, counters: Counters) -> Application:
    """The application; each request is counted and has a line in the log."""

    async def counting(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        began = time.monotonic()
        status = 499  # the client went away before the answer began

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                path = route_of(scope)
                counters.seconds.labels(path).observe(time.monotonic() - began)
            await send(message)

        try:
            # A stream ends here after hours; its first byte was timed when it began.
            await app(scope, receive, noted)
        finally:
            path = route_of(scope)
            counters.requests.labels(path, status).inc()
            took_ms = (time.monotonic() - began) * 1000
            names = ",".join(sorted(set(parameters_of(scope))))
            who = scope.get("state", {}).get("caller") or "-"
            method = scope["method"]
            _log.info("%s %s %s [%s] %s %.0f ms", who, method, path, names, status, took_ms)

    return counting
