"""The application: routes, problems, headers, the explorer's files."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from obs_assets.api import (
    access,
    alerts,
    archive,
    counts,
    document,
    events,
    export,
    health,
    hours,
    live,
    original,
    page,
    rule,
)
from obs_assets.api.access import Access
from obs_assets.api.counters import Counters, counted
from obs_assets.api.live import Hub
from obs_assets.api.metrics import Metrics
from obs_assets.api.parameters import listed_parameters, refuse_unknown
from obs_assets.api.problems import ProblemDetails, handle_problems
from obs_assets.api.reader import ROLE, GoneError, Limits, Reader, refuse_unreadable
from obs_assets.api.served import Served
from obs_assets.api.serving import Application, Message, Receive, Scope, Send, Stop
from obs_assets.delivery.kinds import kind_of
from obs_assets.errors import ObsError, TransientError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline

EXPLORER = "explorer"
"""Folder of the package with the explorer's files, served at ``/``: HTML, CSS and JavaScript, no Python."""

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
"""A page may load nothing but files of this server, and runs no script within its HTML."""

LOOK_EVERY_S = 10.0
"""Seconds between two looks at the pipeline file."""

HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of every answer."""

_log = logging.getLogger(__name__)


def make_routes(state: Mapping[str, Any]) -> FastAPI:
    """The routes, without a table: for the OpenAPI document, and for `make_app`.

    Args:
        state: name → value of attributes of ``app.state``.
    """
    app = FastAPI(
        title="obs_assets",
        version=metadata.version("obs_assets"),
        summary="Find stored events, count them, follow them.",
        lifespan=_lifespan,
        dependencies=[Depends(refuse_unknown)],
        # FastAPI's own pages load their scripts from another host.
        docs_url=None,
        redoc_url=None,
        responses={"default": {"model": ProblemDetails}},
    )
    handle_problems(app)
    app.add_exception_handler(GoneError, _of_gone)
    app.include_router(health.router)
    app.include_router(access.router)
    for module in (events, archive, counts, export, hours, alerts, rule, live, page, original):
        app.include_router(module.router)
    app.include_router(document.router)
    app.openapi = partial(document.document, app)  # type: ignore[method-assign]
    app.state.parameters = listed_parameters(app)
    for name, value in state.items():
        setattr(app.state, name, value)
    # Last: a mount at the root takes every path that no route has.
    folder = resources.files("obs_assets") / EXPLORER
    if folder.is_dir():
        app.mount("/", _Files(directory=str(folder), html=True), name=EXPLORER)
    return app


def make_app(
    hourly: HourlyPipeline,
    stop: Stop,
    limits: Limits,
    pipeline_folder: Path | None = None,
    present: Callable[[], HourlyPipeline] | None = None,
) -> Application:
    """The application for a pipeline's first table.

    Args:
        hourly: the pipeline.
        stop: the end of the process.
        limits: how much is done at a time.
        pipeline_folder: folder of the pipeline file; None if it has no file.
        present: gives the pipeline as its file says now; None if it stays as it is.

    Raises:
        ConfigurationError: the pipeline has no table.
    """
    parts = Served(
        hourly=hourly,
        table=hourly.searched_table(),
        limits=limits,
        counters=Counters(),
        metrics=Metrics(hourly),
        access=Access(hourly.settings),
        stop=stop,
        pipeline_folder=pipeline_folder,
    )
    routes = make_routes({"served": parts, "present": present})
    return counted(_complete(routes), parts.counters)


def make_readable(hourly: HourlyPipeline) -> None:
    """Make the tables and the role of readers on an embedded server; check them on any other.

    Raises:
        ConfigurationError: the table cannot be read in that role; the message says the command.
    """
    table = hourly.searched_table()
    server = kind_of(table.config).server_of(table.config)
    if server is not None and server.is_embedded(hourly.settings) and not table.config.host:
        table.init(reader=ROLE)
        return
    try:
        refuse_unreadable(table)
    except TransientError as error:
        # The server starts: it answers 503 until the database is back.
        _log.warning("%s", error)


class _Files(StaticFiles):
    """Files that a browser asks for again each time, so that an upgrade never mixes two versions of them."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        answered = super().file_response(*args, **kwargs)
        answered.headers["Cache-Control"] = "no-cache"
        return answered


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Served = app.state.served
    end = parts.stop
    # Here, because a gate belongs to the event loop.
    _open(parts, end.part())
    present = app.state.present
    following = None
    if present is not None:
        following = asyncio.create_task(_follow(app, present, end))
    try:
        yield
    finally:
        if following is not None:
            following.cancel()
        _close(app.state.served)


def _open(parts: Served, stop: Stop) -> None:
    """Make the parts that ask the table."""
    parts.stop = stop
    parts.reader = Reader(parts.table, parts.limits)
    parts.hub = Hub(parts.reader, stop)
    parts.reader.open()


def _close(parts: Served) -> None:
    """End the streams and questions of a table."""
    parts.stop.set()
    # Before the reader: the hub's last question must not find a closed pool.
    parts.hub.close()
    parts.reader.close()


async def _follow(app: FastAPI, present: Callable[[], HourlyPipeline], end: Stop) -> None:
    """Put a changed pipeline in the place of the one before, until the task is cancelled."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            hourly = await asyncio.to_thread(present)
            if hourly is not app.state.served.hourly:
                app.state.served = await _changed(app.state.served, hourly, end)
        except Exception:  # noqa: BLE001
            # The next look may succeed; requests go on with the pipeline before.
            _log.exception("the changed pipeline file is not followed")


async def _changed(before: Served, hourly: HourlyPipeline, end: Stop) -> Served:
    """The parts for a changed pipeline. A request that runs keeps the parts with which it began."""
    table = hourly.searched_table()
    parts = replace(before, hourly=hourly, metrics=Metrics(hourly))
    if table.config == before.table.config:
        # Streams and questions go on.
        parts.reader = before.reader
        parts.hub = before.hub
        return parts
    try:
        await asyncio.to_thread(make_readable, hourly)
    except ObsError as error:
        # Until the table is there, each search is answered with this advice.
        _log.warning("%s", error)
    parts.table = table
    _open(parts, end.part())
    _close(before)
    return parts


def _complete(app: Application) -> Application:
    """The application with the headers of every answer; an error that was answered goes no further."""
    # Encoded once, not for each request.
    added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

    async def completed(scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                present = {name for name, _ in message["headers"]}
                missing = [pair for pair in added if pair[0] not in present]
                message["headers"] = [*message["headers"], *missing]
            await send(message)

        try:
            await app(scope, receive, with_headers)
        except Exception:
            # Starlette raises an error again after `problems` has logged and answered it; uvicorn
            # would log its text, which can quote an event. A body that breaks off must be seen.
            if scope["type"] != "http" or not has_begun:
                raise

    return completed


def _of_gone(request: Request, error: Exception) -> Response:
    del request, error
    return Response(status_code=499)
