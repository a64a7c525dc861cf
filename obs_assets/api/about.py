"""Shared by routes that ask about a range of events: parameters, the range of an answer, 304."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Protocol, TypeAlias, TypeVar

from fastapi import Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from obs_assets.api.parameters import read_range
from obs_assets.api.served import served
from obs_assets.destinations.postgres import PostgresDestination
from obs_assets.search.generations import generations_of
from obs_assets.search.language import parse
from obs_assets.search.questions import Span
from obs_assets.search.selection import Selection, Tables
from obs_assets.storage.postgres import Connection

Answer = TypeVar("Answer")

Q: TypeAlias = Annotated[
    str,
    Query(
        description="A query, for example `level:error -type:heartbeat`; empty: every event."
    ),
]
Since: TypeAlias = Annotated[
    str, Query(alias="from", description="Start of the range: RFC 3339, a date or `now-6h`.")
]
Until: TypeAlias = Annotated[
    str, Query(alias="to", description="End of the range; it is not in the range.")
]


class Shape(BaseModel):
    """A part of an answer, made from a record of `obs_assets.search`."""

    model_config = ConfigDict(from_attributes=True, populate_by_name=True)


class Searched(Shape):
    """The range of an answer: ``[from, to)`` was asked for, and searched from its first row to ``until``."""

    start: datetime = Field(alias="from")
    to: datetime
    until: datetime


class Envelope(Shape):
    """Members that every answer about a range has."""

    searched: Searched
    complete: bool
    took_ms: float


@dataclass(frozen=True)
class Told(Generic[Answer]):
    """An answer about a range.

    Attributes:
        selection: the events that it is about.
        answer: the answer.
        tag: its ETag, for a complete answer.
        seconds: how long it took.
    """

    selection: Selection
    answer: Answer
    tag: str
    seconds: float


def tables_of(table: PostgresDestination) -> Tables:
    """The tables of a destination, as questions name them."""
    return table.table.searched


async def ask_about(
    request: Request,
    q: str,
    since: str,
    until: str,
    question: Callable[[Connection, Selection], Answer],
    *,
    is_cached: bool = True,
) -> Told[Answer] | Response:
    """The answer to a question about the events of a range that match; a 304 for a client that has it.

    Args:
        request: the request.
        q: the query as text.
        since: the parameter ``from``.
        until: the parameter ``to``.
        question: called in a thread.
        is_cached: whether the same generations of hours mean the same answer.
    """
    query = parse(q)
    reader = served(request).reader
    tables = tables_of(reader.table)

    def ask(connection: Connection) -> Told[Answer] | Response:
        now, began = datetime.now(UTC), time.monotonic()
        span = read_range(connection, tables.events, since, until, now)
        tag = tag_of(request, connection, tables.key, span)
        # The client has this answer: the question itself need not be asked.
        if is_cached and is_known(request, tag):
            return unchanged(tag)
        selection = Selection(tables, query, span)
        answer = question(connection, selection)
        return Told(selection, answer, tag, time.monotonic() - began)

    return await reader.ask(request, ask)


class Counted(Protocol):
    """An answer that says how far its search came.

    Attributes:
        searched: the part of the range that was searched.
        is_complete: whether that is the whole range.
        seconds: how long the search took.
    """

    @property
    def searched(self) -> Span: ...
    @property
    def is_complete(self) -> bool: ...
    @property
    def seconds(self) -> float: ...


AnyCounted = TypeVar("AnyCounted", bound=Counted)


async def count_about(
    request: Request,
    q: str,
    since: str,
    until: str,
    question: Callable[[Connection, Selection], AnyCounted],
    shape: type[Envelope],
    members: Callable[[AnyCounted], Mapping[str, Any]],
) -> Response:
    """Ask as `ask_about` does, and answer in a shape.

    Args:
        request, q, since, until, question: as for `ask_about`.
        shape: the shape of the answer.
        members: its members beside those of `Envelope`.
    """
    asked = await ask_about(request, q, since, until, question)
    if isinstance(asked, Response):
        return asked
    found = asked.answer
    common = envelope(
        asked.selection.span,
        found.searched.start,
        is_complete=found.is_complete,
        seconds=found.seconds,
    )
    answer = shape.model_validate({**common, **members(found)})
    return json_answer(answer, asked.tag if found.is_complete else None)


def tag_of(request: Request, connection: Connection, key: str, span: Span) -> str:
    """The ETag of an answer: the same parameters over the same generations of the same hours."""
    # A load of an hour changes its generation, so that every answer about the hour gets another tag.
    generations = generations_of(connection, key, span)
    parts = [request.url.path, sorted(request.query_params.multi_items()), span, generations]
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
    # Weak: two answers with this tag may differ in `took_ms`.
    return f'W/"{digest}"'


def is_known(request: Request, tag: str) -> bool:
    """Whether the client has the answer with this ETag."""
    header = request.headers.get("if-none-match", "")
    return tag in [known.strip() for known in header.split(",")]


def unchanged(tag: str) -> Response:
    """The answer to a client that has it already."""
    return Response(status_code=304, headers={"ETag": tag})


def envelope(
    span: Span, until: datetime, *, is_complete: bool, seconds: float
) -> dict[str, object]:
    """Values of an `Envelope`."""
    return {
        "searched": {"from": span.start, "to": span.end, "until": until},
        "complete": is_complete,
        "took_ms": round(seconds * 1000, 1),
    }


def json_answer(shape: BaseModel, tag: str | None) -> Response:
    """A shape as a response; ``tag`` is None for an answer that may be more complete the next time."""
    headers = {"ETag": tag} if tag else {}
    content = shape.model_dump_json(by_alias=True)
    return Response(content, media_type="application/json", headers=headers)
