"""Counts of events: over time, by values of fields, and which fields there are."""

from datetime import datetime
from typing import Annotated, Any, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from obs_assets.api.about import (
    Envelope,
    Q,
    Shape,
    Since,
    Until,
    ask_about,
    count_about,
    envelope,
    json_answer,
)
from obs_assets.api.access import needs
from obs_assets.api.parameters import read
from obs_assets.api.problems import wrong_parameter
from obs_assets.api.served import served
from obs_assets.search.facets import Facet, Fields, facets, fields_seen
from obs_assets.search.histogram import Histogram, histogram
from obs_assets.search.moments import length
from obs_assets.search.selection import Selection
from obs_assets.search.statistics import Statistics, statistics_of
from obs_assets.storage.postgres import Connection

router = APIRouter(prefix="/api/v1", tags=["counts"], dependencies=[Depends(needs("read"))])

MOST_FACETS = 20
"""Fields of a request, at most."""


Zone: TypeAlias = Annotated[
    str, Query(description="Time zone at whose full hours and days bars and slots begin.")
]


class GroupShape(Shape):
    """Events of a bar with the same value; ``is_other``: all values that have no group of their own."""

    value: str | None
    is_other: bool
    rows: int
    events: float


class BarShape(Shape):
    """Events from ``start`` to before ``end``."""

    start: datetime
    end: datetime
    rows: int
    events: float
    groups: list[GroupShape]


class HistogramAnswer(Envelope):
    """Bars side by side; each counts stored rows and the events that they stand for."""

    bars: list[BarShape]
    step_s: float
    rows: int
    events_estimated: float


class FacetValueShape(Shape):
    """A value of a field; null for events without the field."""

    value: str | None
    rows: int
    events: float


class FacetShape(Shape):
    """The most frequent values of a field; ``how`` is ``exact`` or says which rows were read."""

    field: str
    values: list[FacetValueShape]
    distinct: int
    rows_read: int
    is_exact: bool
    how: str
    took_ms: float


class FacetsAnswer(Envelope):
    """The facets in the order of the parameters ``field``."""

    facets: list[FacetShape]


class FieldShape(Shape):
    """A field that events have; ``share`` is its share of the sample, from 0 to 1."""

    name: str
    is_column: bool
    kinds: list[str]
    rows: int
    share: float


class FieldsAnswer(Envelope):
    """Fields of the newest rows that match."""

    fields: list[FieldShape]
    sample_rows: int


class StatisticShape(Shape):
    """Figures of the events from ``start`` to before ``end`` with a value; all but rows and maximum are weighted."""

    start: datetime
    end: datetime
    value: str | None
    is_other: bool
    rows: int
    events: float
    errors: float
    with_error: float
    duration_ms_mean: float | None
    duration_ms_max: int | None
    cost_usd: float | None
    cost_usd_mean: float | None
    first_at: datetime | None
    last_at: datetime | None


class StatsAnswer(Envelope):
    """Figures by step of time and value, those with most events first; none without an event."""

    statistics: list[StatisticShape]
    rows: int
    events_estimated: float


@router.get("/stats", responses={200: {"model": StatsAnswer}})
async def figures(
    request: Request,
    q: Q = "",
    since: Since = "",
    until: Until = "",
    by: Annotated[
        str, Query(description="A field: type, level, master, worker or any other.")
    ] = "",
    step: Annotated[
        str, Query(description="Length of a slot of time: `5m`, `1h`, `1d`; empty: one slot.")
    ] = "",
    tz: Zone = "UTC",
) -> Response:
    """Weighted counts, errors, durations and costs. Over whole hours no event is read."""
    _refuse_unknown_zone(tz)
    deadline_s = served(request).limits.deadline_s
    slot = read("step", length, step) if step else None

    def question(connection: Connection, selection: Selection) -> Statistics:
        return read(
            "step",
            statistics_of,
            connection,
            selection,
            by=by or None,
            step=slot,
            tz=tz,
            deadline_s=deadline_s,
        )

    def members(found: Statistics) -> dict[str, Any]:
        return {
            "statistics": [
                {**_members(one.figures, StatisticShape), **_members(one, StatisticShape)}
                for one in found.statistics
            ],
            "rows": found.total.rows,
            "events_estimated": found.total.events,
        }

    return await count_about(request, q, since, until, question, StatsAnswer, members)


@router.get("/histogram", responses={200: {"model": HistogramAnswer}})
async def count_over_time(
    request: Request,
    q: Q = "",
    since: Since = "",
    until: Until = "",
    step: Annotated[
        str, Query(description="Length of a bar: `auto`, `30s`, `5m`, `1h`, `1d`.")
    ] = "auto",
    by: Annotated[
        str, Query(description="A field whose most frequent values divide each bar.")
    ] = "",
    tz: Zone = "UTC",
) -> Response:
    """Count the events that match, a bar for each step of time."""
    _refuse_unknown_zone(tz)
    deadline_s = served(request).limits.deadline_s
    length_of_bar: Any = "auto" if step == "auto" else read("step", length, step)

    def question(connection: Connection, selection: Selection) -> Histogram:
        return read(
            "step",
            histogram,
            connection,
            selection,
            step=length_of_bar,
            by=by or None,
            tz=tz,
            deadline_s=deadline_s,
        )

    def members(found: Histogram) -> dict[str, Any]:
        return {
            "bars": found.bars,
            "step_s": found.step.total_seconds(),
            "rows": found.rows,
            "events_estimated": found.events,
        }

    return await count_about(request, q, since, until, question, HistogramAnswer, members)


def _refuse_unknown_zone(name: str) -> None:
    try:
        # Before the question is asked, so that the message names the parameter `tz` and not `step`.
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        wrong_parameter("tz", f"{name!r} is no time zone: write for example Europe/Berlin")


@router.get("/facets", responses={200: {"model": FacetsAnswer}})
async def most_frequent_values(
    request: Request,
    field: Annotated[
        list[str],
        Query(
            min_length=1,
            max_length=MOST_FACETS,
            description="A column, its short name, or a path; may be repeated.",
        ),
    ],
    q: Q = "",
    since: Since = "",
    until: Until = "",
    limit: Annotated[int, Query(ge=1, le=100, description="Values of a field, at most.")] = 10,
) -> Response:
    """The most frequent values of fields."""
    deadline_s = served(request).limits.deadline_s

    def question(connection: Connection, selection: Selection) -> tuple[Facet, ...]:
        return facets(connection, selection, field, limit=limit, deadline_s=deadline_s)

    asked = await ask_about(request, q, since, until, question)
    if isinstance(asked, Response):
        return asked
    shapes = [
        {**_members(facet, FacetShape), "took_ms": round(facet.seconds * 1000, 1)}
        for facet in asked.answer
    ]
    span = asked.selection.span
    # Fields that are read together have the same seconds: a sum would count them twice.
    seconds = max(facet.seconds for facet in asked.answer)
    common = envelope(span, span.start, is_complete=True, seconds=seconds)
    shape = FacetsAnswer.model_validate({**common, "facets": shapes})
    return json_answer(shape, asked.tag)


@router.get("/fields", responses={200: {"model": FieldsAnswer}})
async def fields_of_events(
    request: Request,
    q: Q = "",
    since: Since = "",
    until: Until = "",
) -> Response:
    """The columns and paths that the newest matching events have."""
    deadline_s = served(request).limits.deadline_s

    def question(connection: Connection, selection: Selection) -> Fields:
        return fields_seen(connection, selection, deadline_s=deadline_s)

    def members(found: Fields) -> dict[str, Any]:
        return {"fields": found.fields, "sample_rows": found.sample_rows}

    return await count_about(request, q, since, until, question, FieldsAnswer, members)


def _members(record: object, shape: type[Shape]) -> dict[str, Any]:
    """Attributes of a record that a shape has too."""
    return {name: getattr(record, name) for name in shape.model_fields if hasattr(record, name)}
