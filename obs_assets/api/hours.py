"""What is stored of each hour, why a search is empty, where an event is, and how a search is run."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from obs_assets.api.about import (
    Envelope,
    Q,
    Shape,
    Since,
    Until,
    ask_about,
    envelope,
    json_answer,
)
from obs_assets.api.access import needs
from obs_assets.api.parameters import read
from obs_assets.api.problems import wrong_parameter
from obs_assets.api.served import served
from obs_assets.audit.hour_states import HourState, State, WhyEmpty, hour_states, why_empty
from obs_assets.audit.whereabouts import Asked, Found, Place, whereabouts
from obs_assets.hours import Hour
from obs_assets.search.explain import Explained, explain
from obs_assets.search.questions import Order
from obs_assets.search.rows import storable
from obs_assets.search.selection import Selection
from obs_assets.storage.postgres import Connection

router = APIRouter(prefix="/api/v1", tags=["hours"], dependencies=[Depends(needs("read"))])


class StageShape(Shape):
    """Counts of a stage: events that it took, kept, and dropped by reason."""

    stage: str
    taken: int
    kept: int
    dropped: dict[str, int]


class HourShape(Shape):
    """An hour as it is stored; ``partition`` is its key in Dagster."""

    partition: str
    start: datetime
    end: datetime
    state: State
    landed: int
    rows: int | None
    generation: int | None
    content_hash: str | None
    loaded_at: datetime | None
    is_replaced: bool
    is_archived: bool | None
    stages: list[StageShape]


class WhyShape(Shape):
    """Where the events of the range are; ``sentence`` says it in words."""

    sentence: str
    states: dict[str, int]
    landed: int
    dropped: dict[str, int]
    waiting: int
    dead_letters: dict[str, int]
    stored: int
    matching_rows: int
    matching_events: float


class HoursAnswer(Envelope):
    """The hours of the range, the oldest first; ``why`` is there for a request with ``why=true``."""

    hours: list[HourShape]
    why: WhyShape | None


@router.get("/hours", responses={200: {"model": HoursAnswer}})
async def states_of_hours(
    request: Request,
    q: Q = "",
    since: Since = "",
    until: Until = "",
    why: Annotated[
        bool, Query(description="Say too where the events are that the query does not find.")
    ] = False,
) -> Response:
    """What is stored of each hour of a range: settled, open, stale, missing, expired, empty."""
    parts = served(request)

    def question(
        connection: Connection, selection: Selection
    ) -> "tuple[list[HourShape], WhyEmpty | None]":
        states = read("from", hour_states, parts.hourly, connection, selection.span)
        shapes = [
            HourShape(
                partition=state.hour.key,
                start=state.hour.start,
                end=state.hour.end,
                stages=_stages(state.stages),
                **_same(state),
            )
            for state in states
        ]
        # The reasons read the receipts of every hour: only a client that asks for them waits.
        reasons = None
        if why:
            deadline_s = parts.limits.deadline_s
            reasons = why_empty(parts.hourly, connection, selection, deadline_s=deadline_s)
        return shapes, reasons

    # What has landed is in no ETag, so that the answer is always computed.
    asked = await ask_about(request, q, since, until, question, is_cached=False)
    assert not isinstance(asked, Response)  # noqa: S101 - without a tag there is no 304
    shapes, reasons = asked.answer
    span = asked.selection.span
    common = envelope(span, span.start, is_complete=True, seconds=asked.seconds)
    shape = HoursAnswer.model_validate({**common, "hours": shapes, "why": _why(reasons)})
    return json_answer(shape, None)


_SAME = (
    "state",
    "landed",
    "rows",
    "generation",
    "content_hash",
    "loaded_at",
    "is_replaced",
    "is_archived",
)
"""Attributes that an hour's state and its shape have both."""


def _why(reasons: WhyEmpty | None) -> WhyShape | None:
    if reasons is None:
        return None
    return WhyShape(
        sentence=reasons.sentence,
        states={str(state): number for state, number in reasons.states.items()},
        landed=reasons.landed,
        dropped=dict(reasons.dropped),
        waiting=reasons.waiting,
        dead_letters=dict(reasons.dead_letters),
        stored=reasons.stored,
        matching_rows=reasons.matching.rows,
        matching_events=reasons.matching.events,
    )


# -- one event -------------------------------------------------------------------------------------


class PlaceShape(Shape):
    """Where an event is; ``text`` is place and detail, for example ``filtered:low_value``."""

    text: str
    place: Place
    detail: str
    partition: str | None
    id: str | None
    file: str | None
    offset: int | None


class WhereaboutsAnswer(Shape):
    """The events that are known, the newest first; empty: no such event has landed, or it has expired."""

    events: list[PlaceShape]
    complete: bool
    took_ms: float


@router.get("/whereabouts", responses={200: {"model": WhereaboutsAnswer}})
async def where_an_event_is(
    request: Request,
    event_id: Annotated[str, Query(description="The event's own id.")] = "",
    trace_id: Annotated[str, Query(description="Every event of this trace instead.")] = "",
    file: Annotated[
        str, Query(description="The record at `offset` of this event file instead.")
    ] = "",
    offset: Annotated[
        int, Query(ge=0, le=2**62, description="A byte of the record, decompressed, from 0.")
    ] = 0,
) -> Response:
    """Where an event is: stored, sampled out, filtered, dead, waiting, not landed or expired."""
    named = [name for name in (event_id, trace_id, file) if name]
    # Two names could mean two events, and the answer could not say which is meant.
    if len(named) != 1:
        wrong_parameter("event_id", "name one of event_id, trace_id or file")
    parts = served(request)
    # As the table has them, without U+0000.
    asked = Asked(storable(event_id), storable(trace_id), file, offset)

    def question(connection: Connection) -> Found:
        return whereabouts(parts.hourly, connection, asked, deadline_s=parts.limits.deadline_s)

    found = await parts.reader.ask(request, question)
    places = [
        PlaceShape(
            text=event.text,
            place=event.place,
            detail=event.detail,
            partition=_key(event.hour),
            id=event.id,
            file=event.file,
            offset=event.offset,
        )
        for event in found.events
    ]
    took_ms = round(found.seconds * 1000, 1)
    return json_answer(
        WhereaboutsAnswer(events=places, complete=found.is_complete, took_ms=took_ms), None
    )


# -- one search ------------------------------------------------------------------------------------


class ExplainAnswer(Envelope):
    """The statement for psql, an estimate of its rows, and the partitions that it reads."""

    sql: str
    estimated_rows: int
    tables: list[str]


@router.get("/explain", responses={200: {"model": ExplainAnswer}})
async def how_a_search_is_run(
    request: Request,
    q: Q = "",
    since: Since = "",
    until: Until = "",
    order: Annotated[Order, Query()] = "newest",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """The SQL of a search, and the planner's estimate. Nothing is searched."""

    def question(connection: Connection, selection: Selection) -> Explained:
        return explain(connection, selection, order=order, limit=limit)

    asked = await ask_about(request, q, since, until, question, is_cached=False)
    assert not isinstance(asked, Response)  # noqa: S101 - without a tag there is no 304
    span, found = asked.selection.span, asked.answer
    common = envelope(span, span.start, is_complete=True, seconds=asked.seconds)
    shape = ExplainAnswer.model_validate(
        {
            **common,
            "sql": found.sql,
            "estimated_rows": found.estimated_rows,
            "tables": found.tables,
        }
    )
    return json_answer(shape, None)


def _same(state: HourState) -> dict[str, Any]:
    """The members that the answer takes over as they are."""
    return {name: getattr(state, name) for name in _SAME}


def _stages(counts: Iterable[Any]) -> list[StageShape]:
    return [StageShape.model_validate(count) for count in counts]


def _key(hour: Hour | None) -> str | None:
    if hour is None:
        return None
    return hour.key
