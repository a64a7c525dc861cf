"""A real table of events for the questions, filled by the destination once for all tests."""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from obs_assets.destinations.postgres import PostgresConfig, PostgresDestination
from obs_assets.hours import Hour
from obs_assets.receipts import InputVersion, Receipt
from obs_assets.search.language import Query
from obs_assets.search.predicate import matches, read_event
from obs_assets.search.questions import Span
from obs_assets.search.rows import COLUMNS
from obs_assets.search.selection import Tables
from obs_assets.settings import PostgresSettings, Settings
from obs_assets.storage import engine
from obs_assets.storage.postgres import Connection, session
from obs_assets_tests.frames import HOUR, frame_of, offer_of

HOURS = tuple(Hour(HOUR.start + timedelta(hours=offset)) for offset in (0, 1, 2, 25, 26, 30))
"""Hours with events: gaps between them, and two days, so that two leaves hold them."""

WHOLE = Span(HOURS[0].start, HOURS[-1].end)


@dataclass(frozen=True)
class StoredRow:
    """A row as it is in the table, for programs that count slowly and obviously."""

    timestamp: datetime
    columns: Mapping[str, Any]
    event: Mapping[str, Any]

    def matches(self, query: Query) -> bool:
        """Whether the query matches the row."""
        return matches(query, self.columns, self.event)


class Stored:
    """A filled table.

    Attributes:
        server: its server and database.
        tables: its names.
        connection: in autocommit mode.
        rows: its rows, from the oldest on.
    """

    # No dataclass: Hypothesis would print all rows with the arguments of a test that fails.
    def __init__(
        self, server: PostgresSettings, tables: Tables, connection: Connection
    ) -> None:
        self.server = server
        self.tables = tables
        self.connection = connection
        self.rows = rows_of(connection)


def events_of(hour: Hour) -> list[dict[str, Any]]:
    """Events of several kinds, some at the same microsecond, some without a level or a worker."""
    kinds: list[dict[str, Any]] = [
        {"type": "task_done", "level": "info", "master_type": "m1", "duration_ms": 40},
        {
            "type": "task_done",
            "level": "info",
            "master_type": "m2",
            "duration_ms": 60,
            "cost_usd": 0.5,
        },
        {
            "type": "task_failed",
            "level": "error",
            "error": "Connection lost",
            "worker_id": "w1",
        },
        {"type": "note", "tags": ["old", "new"], "usage": {"model": "a"}, "worker_id": "w2"},
        {"type": "note", "level": "warning", "tags": "old", "n": 5, "trace_id": "t1"},
        {
            "type": "note",
            "message": "disk full",
            "n": "5",
            "usage.model": "b",
            "trace_id": "t1",
        },
    ]
    return [
        {"timestamp": (hour.start + timedelta(minutes=7 * (number // 2))).isoformat(), **kind}
        for number, kind in enumerate(kinds * 2)
    ]


@pytest.fixture(scope="session")
def stored(
    servers: Settings,
    postgres_admin: "psycopg.Connection[tuple[object]]",
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stored]:
    """A table with the hours `HOURS`; tests only read it."""
    assert servers.postgres
    name = f"search-{secrets.token_hex(6)}"
    database = sql.Identifier(name)
    postgres_admin.execute(sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(database))
    server = servers.postgres.model_copy(update={"database": name})
    destination = PostgresDestination(PostgresConfig(), server, clock=lambda: HOURS[-1].end)
    with engine.connect(temp_dir=tmp_path_factory.mktemp("spill")) as duck:
        for number, hour in enumerate(HOURS):
            frame = frame_of(duck, events_of(hour), hour, weight=1.0 + number)
            receipt = Receipt(
                hour.key,
                "sampled_events",
                InputVersion(1, "config", "code"),
                100,
                12,
                {"sampled:success": 88},
            )
            destination.deliver(offer_of(frame, hour, receipts=(receipt,)))
    with session(server, autocommit=True) as connection:
        yield Stored(server, destination.table.searched, connection)
    postgres_admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))


def rows_of(connection: Connection) -> tuple[StoredRow, ...]:
    """All rows of the table ``events``, from the oldest on."""
    names = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    ask = sql.SQL("SELECT timestamp, data::text, {} FROM events ORDER BY timestamp, row_uid")
    return tuple(
        StoredRow(
            time.astimezone(UTC),
            dict(zip(COLUMNS, values, strict=True)),
            read_event(data),
        )
        for time, data, *values in connection.execute(ask.format(names)).fetchall()
    )
