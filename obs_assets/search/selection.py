"""The events that a question is about: tables, query and range of time."""

from dataclasses import dataclass

from psycopg import sql

from obs_assets.search.language import Query
from obs_assets.search.questions import Span


@dataclass(frozen=True)
class Tables:
    """The table of events, and the tables that a load writes beside it.

    Attributes:
        events: quoted name of the table of events.
        statistics: quoted name of the table of statistics by type, level and master.
        workers: quoted name of the table of statistics by worker.
        key: name of the table in the ledger, for example ``public.events``.
    """

    events: sql.Identifier
    statistics: sql.Identifier
    workers: sql.Identifier
    key: str


@dataclass(frozen=True)
class Selection:
    """The events of a range that match a query.

    Attributes:
        tables: where the events are.
        query: see `language.parse`.
        span: the range of time.
    """

    tables: Tables
    query: Query
    span: Span
