"""The paths of the dashboard that this server takes the place of: `/health` and everything below `/api` but `/api/v1`.

Paths, parameters, defaults and keys stay as they are: clients need no change. Counts and sums are
weighted, totals of pages are rows, and each answer has ``rows`` too.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response

from obs_assets.api.about import tables_of
from obs_assets.api.access import needs
from obs_assets.api.parameters import read
from obs_assets.api.problems import NOT_FOUND, ProblemError, wrong_parameter
from obs_assets.api.served import served
from obs_assets.errors import ConfigurationError
from obs_assets.search import original
from obs_assets.search.moments import moment
from obs_assets.search.original import Filters, Listed, SortColumn, Sorting
from obs_assets.search.questions import Position
from obs_assets.search.selection import Tables
from obs_assets.storage.postgres import Connection

READ = [Depends(needs("read"))]

router = APIRouter(tags=["dashboard"])

Answer = TypeVar("Answer")

PageNumber: TypeAlias = Annotated[int, Query(ge=1, description="Number of the page.")]
Limit: TypeAlias = Annotated[int, Query(ge=1, le=1000, description="Events of a page.")]
Start: TypeAlias = Annotated[str, Query(alias="startTime", description="Start of the range.")]
End: TypeAlias = Annotated[
    str, Query(alias="endTime", description="End of the range; it is not in the range.")
]
Flag: TypeAlias = Annotated[
    Literal["true", "false"] | None,
    Query(alias="hasError", description="Only events with, or only events without an error."),
]


async def _ask(request: Request, question: Callable[[Connection, Tables], Answer]) -> Answer:
    reader = served(request).reader
    tables = tables_of(reader.table)
    return await reader.ask(request, lambda connection: question(connection, tables))


def _deadline_s(request: Request) -> float:
    return served(request).limits.deadline_s


def _moment(name: str, text: str) -> datetime | None:
    if not text:
        return None
    return read(name, moment, text, datetime.now(UTC))


def _times(start: str, end: str) -> tuple[datetime | None, datetime | None]:
    since, until = _moment("startTime", start), _moment("endTime", end)
    # Without this refusal, a client would take the empty answer for an hour without events.
    if since and until and since >= until:
        wrong_parameter("startTime", "startTime is not before endTime")
    return since, until


# -- health ----------------------------------------------------------------------------------------


@router.get("/health")
async def health(request: Request) -> Response:
    """Whether the server and its database answer; 503 otherwise."""
    parts = served(request)
    body: dict[str, Any] = {
        "status": "healthy",
        "timestamp": _time(datetime.now(UTC)),
        "uptime": round(time.monotonic() - parts.began_at, 3),
        "version": metadata.version("obs_assets"),
    }
    try:
        await parts.reader.ask(request, parts.reader.probe)
    except ProblemError as problem:
        # The text of the problem is ours: a message of the database could name its users.
        body |= {"status": "unhealthy", "message": problem.detail}
        return JSONResponse(body, problem.kind.status)
    return JSONResponse(body)


# -- events ----------------------------------------------------------------------------------------


@router.get("/api/events", dependencies=READ)
async def list_events(
    request: Request,
    page: PageNumber = 1,
    limit: Limit = 50,
    type_: Annotated[str | None, Query(alias="type")] = None,
    level: Annotated[str | None, Query()] = None,
    master: Annotated[str | None, Query()] = None,
    worker: Annotated[str | None, Query(description="Its type or its id.")] = None,
    start: Start = "",
    end: End = "",
    has_error: Flag = None,
    sort_by: Annotated[SortColumn, Query(alias="sortBy")] = "timestamp",
    sort_order: Annotated[Literal["asc", "desc"], Query(alias="sortOrder")] = "desc",
) -> Response:
    """A page of events."""
    filters = Filters(
        type_, level, master, worker, None if has_error is None else has_error == "true"
    )
    shown = {
        "type": type_,
        "level": level,
        "master": master,
        "worker": worker,
        "startTime": start or None,
        "endTime": end or None,
        "hasError": filters.has_error,
    }
    meta = {
        "filters": {name: value for name, value in shown.items() if value is not None},
        "sortBy": sort_by,
        "sortOrder": sort_order,
    }
    sorting = Sorting(sort_by, "newest" if sort_order == "desc" else "oldest")
    return await _page(request, filters, sorting, page, limit, _times(start, end), meta)


@router.get("/api/events/search", dependencies=READ)
async def search_events(
    request: Request,
    q: Annotated[str, Query(min_length=1, description="A text, as it is.")],
    page: PageNumber = 1,
    limit: Limit = 50,
) -> Response:
    """A page of the events whose type, error or JSON text holds a text, in any case."""
    where = original.holding(q)
    return await _page(request, where, Sorting(), page, limit, (None, None), {"query": q})


@router.get("/api/events/{id}", dependencies=READ)
async def one_event(request: Request, event_id: Annotated[str, Path(alias="id")]) -> Response:
    """One event, by the `id` of a list, or by the number in the column `id` of the table."""
    deadline_s = _deadline_s(request)

    def question(connection: Connection, tables: Tables) -> Listed | None:
        # The dashboard linked events by their number; an `id` of a list is never a plain number.
        # A longer number cannot be in a column of 64 bits.
        if event_id.isascii() and event_id.isdigit() and len(event_id) <= len(str(2**63)):
            number = int(event_id)
            return original.listed_by_number(connection, tables, number, deadline_s=deadline_s)
        try:
            at = Position.of_id(event_id)
        except ConfigurationError:
            return None
        return original.listed_event(connection, tables, at.timestamp, at.row_uid)

    event = await _ask(request, question)
    if event is None:
        raise ProblemError(
            NOT_FOUND, "no event has this id", error="Not Found", message="Event not found"
        )
    return _json_text(f'{{"data": {_event(event)}}}')


@router.get("/api/masters/{name}/events", dependencies=READ)
async def events_of_master(
    request: Request,
    name: Annotated[str, Path()],
    page: PageNumber = 1,
    limit: Limit = 50,
) -> Response:
    """A page of the events of a master."""
    return await _page(request, Filters(master=name), Sorting(), page, limit)


@router.get("/api/workers/{id}/events", dependencies=READ)
async def events_of_worker(
    request: Request,
    worker: Annotated[str, Path(alias="id", description="Its type or its id.")],
    page: PageNumber = 1,
    limit: Limit = 50,
) -> Response:
    """A page of the events of a worker."""
    return await _page(request, Filters(worker=worker), Sorting(), page, limit)


async def _page(
    request: Request,
    where: Any,
    sorting: Sorting,
    page: int,
    limit: int,
    times: tuple[datetime | None, datetime | None] = (None, None),
    meta: Mapping[str, Any] | None = None,
) -> Response:
    if isinstance(where, Filters):
        where = where.query()
    deadline_s = _deadline_s(request)

    def question(connection: Connection, tables: Tables) -> original.Page:
        span = original.span_between(connection, tables, *times)
        # A table without an event has no range to search.
        if span is None:
            return original.Page()
        return original.page_of(
            connection,
            tables,
            span,
            where,
            sorting,
            page=page,
            limit=limit,
            deadline_s=deadline_s,
        )

    found = await _ask(request, question)
    rest: dict[str, Any] = {
        "pagination": {
            "page": page,
            "limit": limit,
            "total": found.total,
            "pages": math.ceil(found.total / limit),
            "totalIsEstimate": found.is_estimate,
        },
        "rows": len(found.events),
    }
    if meta is not None:
        rest["meta"] = meta
    # The events are text already, so that numbers keep the digits that the table stores.
    events = ", ".join(map(_event, found.events))
    return _json_text(f'{{"data": [{events}], {json.dumps(rest)[1:]}')


def _event(event: Listed) -> str:
    """An event as JSON text: its columns, then its own other keys with the digits of their numbers."""
    cost = event.columns["cost_usd"]
    columns = {
        "id": Position(event.timestamp, event.row_uid).id,
        **event.columns,
        "timestamp": _time(event.columns["timestamp"]),
        "cost_usd": None if cost is None else float(cost),
        "created_at": _time(event.columns["created_at"]),
    }
    text = json.dumps(columns, ensure_ascii=False)
    # The event has no other key: a comma would have no member after it.
    if event.rest == "{}":
        return text
    return f"{text[:-1]}, {event.rest[1:]}"


def _time(moment: datetime | None) -> str | None:
    """A time as JavaScript writes it; more than milliseconds if it has them."""
    if moment is None:
        return None
    # JavaScript writes milliseconds; a time with microseconds must not lose them.
    precision = "microseconds" if moment.microsecond % 1000 else "milliseconds"
    return moment.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def _json_text(text: str) -> Response:
    return Response(text, media_type="application/json")


# -- statistics ------------------------------------------------------------------------------------


@router.get("/api/stats", dependencies=READ)
async def statistics(request: Request, start: Start = "", end: End = "") -> Response:
    """The figures of a range; of all times without one."""
    since, until = _times(start, end)
    deadline_s = _deadline_s(request)

    def question(connection: Connection, tables: Tables) -> original.Overview:
        span = original.span_between(connection, tables, since, until)
        return original.overview(connection, tables, span, deadline_s=deadline_s)

    found = await _ask(request, question)
    figures = found.figures
    return _data(
        {
            "total_events": _number(figures.events),
            "unique_types": found.types,
            "error_count": _number(figures.with_error),
            "error_level_count": _number(found.by_level.get("error", 0)),
            "warning_count": _number(found.by_level.get("warning", 0)),
            "info_count": _number(found.by_level.get("info", 0)),
            "avg_duration_ms": figures.duration_ms_mean or 0,
            "max_duration_ms": figures.duration_ms_max or 0,
            "total_cost_usd": figures.cost_usd or 0,
            "earliest_event": _time(figures.first_at),
            "latest_event": _time(figures.last_at),
        },
        rows=figures.rows,
    )


@router.get("/api/stats/summary", dependencies=READ)
async def summary(request: Request) -> Response:
    """Events, errors and costs of all times, of the last day and of the last hour."""
    deadline_s = _deadline_s(request)

    def question(connection: Connection, tables: Tables) -> original.Summary:
        return original.summary(connection, tables, datetime.now(UTC), deadline_s=deadline_s)

    found = await _ask(request, question)
    return _data(
        {
            "total_events": _number(found.all.events),
            "events_24h": _number(found.day.events),
            "events_1h": _number(found.hour.events),
            "total_errors": _number(found.all.with_error),
            "errors_24h": _number(found.day.with_error),
            "active_masters": found.masters,
            "cost_24h": found.day.cost_usd or 0,
        },
        rows=found.all.rows,
    )


@router.get("/api/stats/timeline", dependencies=READ)
async def timeline(
    request: Request,
    interval: Annotated[original.Interval, Query()] = "hour",
    start: Start = "",
    end: End = "",
) -> Response:
    """The figures of each minute, hour or day (UTC) that has an event."""
    since, until = _times(start, end)
    deadline_s = _deadline_s(request)

    def question(connection: Connection, tables: Tables) -> list[original.Slot]:
        # Without a start only the newest part: a bar for each minute of years would be millions.
        span = original.timeline_span(connection, tables, interval, since, until)
        return original.timeline(connection, tables, span, interval, deadline_s=deadline_s)

    found = await _ask(request, question)
    return _data(
        [
            {
                "timestamp": _time(slot.start),
                "count": _number(slot.figures.events),
                "error_count": _number(slot.figures.with_error),
                "avg_duration_ms": slot.figures.duration_ms_mean or 0,
                "cost_usd": slot.figures.cost_usd or 0,
                "rows": slot.figures.rows,
            }
            for slot in found
        ]
    )


@router.get("/api/stats/by-type", dependencies=READ)
async def by_type(request: Request) -> Response:
    """The most frequent types."""
    found = await _entries(request, "type")
    return _data(
        [
            {
                "event_type": entry.key,
                "count": _number(entry.figures.events),
                "error_count": _number(entry.figures.with_error),
                "avg_duration_ms": entry.figures.duration_ms_mean or 0,
                "total_cost_usd": entry.figures.cost_usd or 0,
                "rows": entry.figures.rows,
            }
            # The path that clients know never listed more types.
            for entry in found[: original.TOP]
        ]
    )


@router.get("/api/stats/by-level", dependencies=READ)
async def by_level(request: Request) -> Response:
    """The levels, most events first."""
    found = await _entries(request, "level")
    return _data(
        [
            {
                "event_level": entry.key,
                "count": _number(entry.figures.events),
                "error_count": _number(entry.figures.with_error),
                "rows": entry.figures.rows,
            }
            for entry in found
        ]
    )


@router.get("/api/stats/costs", dependencies=READ)
async def costs(
    request: Request,
    start: Start = "",
    end: End = "",
    group_by: Annotated[original.GroupBy, Query(alias="groupBy")] = "master",
) -> Response:
    """The most expensive masters, types, levels or workers."""
    since, until = _times(start, end)
    deadline_s = _deadline_s(request)

    def question(connection: Connection, tables: Tables) -> list[original.Entry]:
        span = original.span_between(connection, tables, since, until)
        return original.costs(connection, tables, span, group_by, deadline_s=deadline_s)

    found = await _ask(request, question)
    return _data(
        [
            {
                group_by: entry.key,
                "total_cost_usd": entry.figures.cost_usd,
                # The mean cost is over events that name a cost, so the count must be, too.
                "event_count": _number(entry.figures.with_cost),
                "avg_cost_usd": entry.figures.cost_usd_mean,
                "rows": entry.figures.rows,
            }
            for entry in found
        ]
    )


@router.get("/api/masters", dependencies=READ)
async def masters(request: Request) -> Response:
    """The masters, most events first."""
    found = await _entries(request, "master")
    return _data(
        [
            {
                "name": entry.key,
                "event_count": _number(entry.figures.events),
                "error_count": _number(entry.figures.with_error),
                "last_event_at": _time(entry.figures.last_at),
                "total_cost_usd": entry.figures.cost_usd or 0,
                "rows": entry.figures.rows,
            }
            for entry in found
            # An event without a master belongs to no row of this list.
            if entry.key is not None
        ]
    )


async def _entries(
    request: Request, group_by: Literal["master", "type", "level"]
) -> list[original.Entry]:
    deadline_s = _deadline_s(request)

    def question(connection: Connection, tables: Tables) -> list[original.Entry]:
        span = original.whole_span(connection, tables)
        return original.entries(connection, tables, span, group_by, deadline_s=deadline_s)

    return await _ask(request, question)


def _number(events: float) -> int:
    """A count of events: a weight can have a fraction, a count of this dashboard has none."""
    return round(events)


def _data(data: Sequence[Mapping[str, Any]] | Mapping[str, Any], **others: Any) -> Response:
    # A list has its number of rows beside it; an object holds its number itself.
    if isinstance(data, Mapping):
        return JSONResponse({"data": {**data, **others}})
    return JSONResponse({"data": data, "rows": len(data)})
