"""``/api/v1/archive``: events of hours that retention dropped, from the archive; a search as SQL for DuckDB over it."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from obs_assets.api.about import (
    Envelope,
    Q,
    Searched,
    Since,
    Until,
    ask_about,
    envelope,
    json_answer,
    tables_of,
)
from obs_assets.api.access import needs
from obs_assets.api.events import Event, event_json
from obs_assets.api.parameters import read, read_range
from obs_assets.api.problems import ARCHIVE, NOT_FOUND, TOO_WIDE, ProblemError
from obs_assets.api.served import served
from obs_assets.audit.archive_search import (
    ArchiveFound,
    ManyHoursError,
    NoObjectsError,
    Statement,
    archive_statement,
    search_archive,
    searched_archive,
)
from obs_assets.errors import ConfigurationError, PermanentError, TransientError
from obs_assets.search.language import parse
from obs_assets.search.postgres import condition
from obs_assets.search.questions import Order, Span
from obs_assets.search.selection import Selection
from obs_assets.storage.postgres import Connection

router = APIRouter(prefix="/api/v1", tags=["events"], dependencies=[Depends(needs("read"))])

DEFAULT_MB = 200
MOST_MB = 2_000
"""Megabytes of objects that a search downloads, by default and at most."""


class ArchiveAnswer(BaseModel):
    """Events of archived hours, the newest first.

    ``hours`` are the starts of the hours that were read, ``left`` those that were not: the limit, the
    megabytes or the time were over.
    """

    searched: Searched
    complete: bool
    took_ms: float
    rows: int
    events_estimated: float
    hours: list[datetime]
    left: list[datetime]
    bytes_read: int
    budget_bytes: int


class WithEvents(ArchiveAnswer):
    """An answer with its events."""

    events: list[Event]


@router.get("/archive", responses={200: {"model": WithEvents}})
async def search_expired(
    request: Request,
    q: Q = "",
    since: Since = "",
    until: Until = "",
    limit: Annotated[int, Query(ge=1, le=1000, description="Events, at most.")] = 100,
    megabytes: Annotated[
        int, Query(ge=1, le=MOST_MB, description="Megabytes of objects to download, at most.")
    ] = DEFAULT_MB,
) -> Response:
    """Find events of hours that the table no longer has and the archive has; nothing else is searched."""
    query = parse(q)
    condition(query)  # a mistake is found before anything is downloaded
    parts = served(request)
    hourly, tables = parts.hourly, tables_of(parts.table)
    try:
        searched_archive(hourly)
    except ConfigurationError as error:
        raise ProblemError(NOT_FOUND, str(error)) from None

    def search(connection: Connection) -> tuple[Span, ArchiveFound]:
        now = datetime.now(UTC)
        span = read_range(connection, tables.events, since, until, now)
        found = read(
            "from",
            search_archive,
            hourly,
            connection,
            Selection(tables, query, span),
            limit=limit,
            budget_bytes=megabytes * 1_000_000,
            deadline_s=parts.limits.deadline_s,
        )
        return span, found

    # As few at a time as exports: each downloads and reads whole hours.
    try:
        span, found = await parts.reader.ask(request, search, parts.reader.exports)
    except (PermanentError, TransientError) as error:
        raise ProblemError(ARCHIVE, str(error)) from None
    head = ArchiveAnswer(
        searched=Searched(**{"from": span.start}, to=span.end, until=_reached(span, found)),
        complete=found.is_complete,
        took_ms=round(found.seconds * 1000, 1),
        rows=len(found.events),
        events_estimated=sum(event.weight for event in found.events),
        hours=[hour.start for hour in found.hours],
        left=[hour.start for hour in found.left],
        bytes_read=found.bytes_read,
        budget_bytes=found.budget_bytes,
    )
    # The events are text already: numbers keep the digits that the archive has.
    events = ",".join(map(event_json, found.events))
    content = f'{{"events":[{events}],{head.model_dump_json(by_alias=True)[1:]}'
    return Response(content, media_type="application/json")


class StatementAnswer(Envelope):
    """A search as statements that a person pastes into DuckDB.

    Attributes:
        sql: the statements; they name no secret.
        hours: hours of the range that the archive holds.
        objects: objects that the statements read.
        bytes: total size of these objects.
    """

    sql: str
    hours: int
    objects: int
    bytes: int


@router.get("/archive/sql", responses={200: {"model": StatementAnswer}})
async def statement_for_duckdb(
    request: Request,
    q: Q = "",
    since: Since = "",
    until: Until = "",
    order: Annotated[Order, Query(description="Which events come first.")] = "newest",
) -> Response:
    """The search as SQL for DuckDB over the archive's objects of the range; nothing is searched."""
    parse(q)
    hourly = served(request).hourly

    def question(connection: Connection, selection: Selection) -> Statement:
        del connection
        return archive_statement(hourly, selection.query, selection.span, order=order)

    try:
        asked = await ask_about(request, q, since, until, question, is_cached=False)
    except (ConfigurationError, NoObjectsError) as error:
        raise ProblemError(NOT_FOUND, str(error)) from None
    except ManyHoursError as error:
        raise ProblemError(TOO_WIDE, str(error)) from None
    except (PermanentError, TransientError) as error:
        raise ProblemError(ARCHIVE, str(error)) from None
    assert not isinstance(asked, Response)  # noqa: S101 - without a tag there is no 304
    span, found = asked.selection.span, asked.answer
    common = envelope(span, span.start, is_complete=True, seconds=asked.seconds)
    return json_answer(StatementAnswer.model_validate({**common, **asdict(found)}), None)


def _reached(span: Span, found: ArchiveFound) -> datetime:
    """The range was searched from its end down to this moment."""
    if not found.left:
        return span.start
    return min(found.left[0].end, span.end)
