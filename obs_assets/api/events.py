"""``/api/v1/events``: search, and one event by its id."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from obs_assets.api.about import Q, Searched, Since, Until, is_known, tag_of, unchanged
from obs_assets.api.access import needs
from obs_assets.api.parameters import Asked, Page, asked_page, cursor_of, read
from obs_assets.api.problems import GONE, NOT_FOUND, ProblemError, wrong_parameter
from obs_assets.api.served import served
from obs_assets.audit.hour_states import hour_states
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour
from obs_assets.search.generations import generations_of
from obs_assets.search.language import parse, print_query
from obs_assets.search.questions import (
    Context,
    Found,
    FoundEvent,
    Order,
    Position,
    Span,
    context_of,
    find_event,
    list_events,
)
from obs_assets.search.rows import likely_names
from obs_assets.storage.postgres import Connection

router = APIRouter(prefix="/api/v1", tags=["events"], dependencies=[Depends(needs("read"))])

FIELDS = tuple(name for name in FoundEvent.__dataclass_fields__)
"""Members of an event that ``fields`` can choose; ``id`` is always there."""


class Event(BaseModel):
    """A stored event: its columns, and the whole redacted event below ``data``."""

    id: str
    timestamp: datetime | None = None
    row_uid: str | None = None
    event_id: str | None = None
    event_type: str | None = None
    event_level: str | None = None
    source_name: str | None = None
    master_type: str | None = None
    worker_type: str | None = None
    worker_id: str | None = None
    trace_id: str | None = None
    session_id: str | None = None
    error: str | None = None
    duration_ms: int | None = None
    cost_usd: str | None = None
    weight: float | None = None
    data: Any = None


class EventsAnswer(BaseModel):
    """A page of events."""

    events: list[Event]
    next: str | None
    searched: Searched
    complete: bool
    took_ms: float
    rows: int
    events_estimated: float
    generations: dict[str, int]
    hints: list[str]


class ContextAnswer(BaseModel):
    """An event and its neighbours in time, the nearest first."""

    event: Event
    before: list[Event]
    after: list[Event]
    searched: Searched
    complete: bool


class EventAnswer(BaseModel):
    """One event."""

    event: Event


@router.get("/events", responses={200: {"model": EventsAnswer}})
async def search_events(
    request: Request,
    q: Q = "",
    since: Since = "",
    until: Until = "",
    order: Annotated[Order, Query(description="Which events come first.")] = "newest",
    limit: Annotated[int, Query(ge=1, le=1000, description="Events of a page, at most.")] = 100,
    cursor: Annotated[str, Query(description="`next` of the page before.")] = "",
    fields: Annotated[
        str, Query(description="Members of an event, with commas between them; all by default.")
    ] = "",
) -> Response:
    """Find events, newest first. Without a range, the last day that has events is searched."""
    query = parse(q)
    chosen = _chosen(fields)
    reader = served(request).reader
    table = reader.table
    asked = Asked(print_query(query), order, since, until)

    def search(connection: Connection) -> _Result | Response:
        page = asked_page(connection, table.table.name, asked, cursor)
        tag = tag_of(request, connection, table.key, page.span)
        if is_known(request, tag):
            return unchanged(tag)
        found = list_events(
            connection,
            table.table.name,
            query,
            page.span,
            order=order,
            limit=limit,
            after=page.after,
            deadline_s=reader.limits.deadline_s,
        )
        generations = generations_of(connection, table.key, page.span)
        return _Result(page, found, generations, tag)

    result = await reader.ask(request, search)
    if isinstance(result, Response):
        return result
    found = result.found
    envelope = _envelope(result, order)
    headers = {}
    if found.is_complete:
        headers["ETag"] = result.tag
    if found.next:
        following = cursor_of(asked, result.page, found.next)
        envelope["next"] = following
        headers["Link"] = f'<{_next_address(request, following)}>; rel="next"'
    # A hint is worth its place only where the misspelt name may be the cause of an empty answer.
    if not found.events and found.is_complete:
        envelope["hints"] = [
            f"{field!r} is no column; did you mean {near!r}?"
            for field, near in likely_names(query).items()
        ]
    events = ",".join(event_json(event, chosen) for event in found.events)
    # The events are text already: numbers keep the digits that the table stores.
    content = f'{{"events":[{events}],{json.dumps(envelope)[1:]}'
    return Response(content, media_type="application/json", headers=headers)


@router.get("/events/{id}", responses={200: {"model": EventAnswer}})
async def one_event(
    request: Request,
    event_id: Annotated[str, Path(alias="id", description="`id` of an event of an answer.")],
) -> Response:
    """One event."""
    position = _position(event_id)
    parts = served(request)
    table = parts.reader.table.table.name

    def question(connection: Connection) -> FoundEvent:
        found = find_event(connection, table, position)
        if found is None:
            raise _missing(parts.hourly, connection, position)
        return found

    event = await parts.reader.ask(request, question)
    return Response(f'{{"event":{event_json(event)}}}', media_type="application/json")


@router.get("/events/{id}/context", responses={200: {"model": ContextAnswer}})
async def neighbours(
    request: Request,
    event_id: Annotated[str, Path(alias="id", description="`id` of an event of an answer.")],
    before: Annotated[int, Query(ge=0, le=200, description="Events before it, at most.")] = 20,
    after: Annotated[int, Query(ge=0, le=200, description="Events behind it, at most.")] = 20,
    same: Annotated[
        Literal["trace_id", "session_id", "worker_id"] | None,
        Query(description="Neighbours have the same value in this column."),
    ] = None,
) -> Response:
    """An event with the events before and behind it, the nearest first."""
    position = _position(event_id)
    parts = served(request)
    table = parts.reader.table.table.name

    def question(connection: Connection) -> Context:
        found = read(
            "same",
            context_of,
            connection,
            table,
            position,
            same=same,
            before=before,
            after=after,
            deadline_s=parts.limits.deadline_s,
        )
        if found is None:
            raise _missing(parts.hourly, connection, position)
        return found

    found = await parts.reader.ask(request, question)
    sides = {"before": found.before, "after": found.after}
    lists = [
        f'"{side}":[{",".join(map(event_json, events))}]' for side, events in sides.items()
    ]
    rest = {
        "searched": {
            "from": found.searched.start.isoformat(),
            "to": found.searched.end.isoformat(),
            "until": found.searched.end.isoformat(),
        },
        "complete": found.is_complete,
    }
    content = f'{{"event":{event_json(found.event)},{",".join(lists)},{json.dumps(rest)[1:]}'
    return Response(content, media_type="application/json")


def event_json(event: FoundEvent, fields: Sequence[str] = FIELDS) -> str:
    """An event as a JSON object with the chosen members; numbers of its ``data`` keep their digits."""
    values: dict[str, Any] = {"id": event.id}
    values |= {name: getattr(event, name) for name in fields if name != "data"}
    if "timestamp" in values:
        values["timestamp"] = event.timestamp.isoformat()
    text = json.dumps(values, ensure_ascii=False)
    if "data" in fields:
        text = f'{text[:-1]}, "data": {event.data}}}'
    return text


def _position(event_id: str) -> Position:
    try:
        return Position.of_id(event_id)
    except ConfigurationError:
        raise ProblemError(
            NOT_FOUND, "this is no id of an event: copy one from an answer"
        ) from None


def _missing(
    hourly: HourlyPipeline, connection: Connection, position: Position
) -> ProblemError:
    """The problem of an id that no stored event has: its hour says whether one may have had it."""
    hour = Hour.of(position.timestamp)
    (state,) = hour_states(hourly, connection, Span(hour.start, hour.end))
    if state.state == "expired":
        return ProblemError(
            GONE, f"the hour {hour.key} has expired: retention dropped its events"
        )
    if state.is_replaced and state.loaded_at:
        return ProblemError(
            GONE,
            f"no event of the hour {hour.key} has this id since the hour was replaced at "
            f"{state.loaded_at:%Y-%m-%dT%H:%M:%SZ}",
        )
    return ProblemError(NOT_FOUND, "no stored event has this id")


def _chosen(fields: str) -> Sequence[str]:
    if not fields:
        return FIELDS
    names = [name.strip() for name in fields.split(",")]
    for name in names:
        if name not in {"id", *FIELDS}:
            wrong_parameter("fields", f"{name!r} is no member of an event: {', '.join(FIELDS)}")
    return [name for name in FIELDS if name in names]


@dataclass(frozen=True)
class _Result:
    """A page of events.

    Attributes:
        page: the page that was asked for.
        found: its events.
        generations: start of an hour → its landing generation, for the hours of the range.
        tag: the ETag of the answer.
    """

    page: Page
    found: Found
    generations: Mapping[datetime, int]
    tag: str


def _envelope(result: _Result, order: Order) -> dict[str, Any]:
    """The members of an answer beside ``events``."""
    found = result.found
    until = found.searched.start if order == "newest" else found.searched.end
    hours = {_hour_of(event) for event in found.events}
    # Hours without an event in the page are left out: a range of years has thousands.
    touched = [hour for hour in result.generations if hour in hours]
    return {
        "next": None,
        "searched": {
            "from": result.page.span.start.isoformat(),
            "to": result.page.span.end.isoformat(),
            "until": until.isoformat(),
        },
        "complete": found.is_complete,
        "took_ms": round(found.seconds * 1000, 1),
        "rows": len(found.events),
        "events_estimated": found.estimated_events,
        "generations": {hour.isoformat(): result.generations[hour] for hour in touched},
        "hints": [],
    }


def _hour_of(event: FoundEvent) -> datetime:
    return event.timestamp.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _next_address(request: Request, cursor: str) -> str:
    """The address of the next page, relative to this one."""
    # The other parameters stay: a cursor is valid for the same search only.
    values = {**request.query_params, "cursor": cursor}
    return f"{request.url.path}?{urlencode(values)}"
