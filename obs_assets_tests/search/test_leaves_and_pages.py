"""Questions read only the leaves of their range, and pages stay right while hours are loaded and replaced."""

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obs_assets.destinations.postgres import PostgresConfig, PostgresDestination
from obs_assets.hours import Hour
from obs_assets.receipts import InputVersion
from obs_assets.search.export import export
from obs_assets.search.facets import facets, fields_seen
from obs_assets.search.histogram import histogram
from obs_assets.search.language import EVERYTHING, parse
from obs_assets.search.questions import (
    Order,
    Position,
    Span,
    context_of,
    find_event,
    list_events,
    snapshot,
)
from obs_assets.search.selection import Selection
from obs_assets.search.statistics import statistics_of
from obs_assets.settings import PostgresSettings
from obs_assets.storage import engine
from obs_assets.storage.postgres import Connection, session
from obs_assets_tests.frames import HOUR, frame_of, offer_of
from obs_assets_tests.search.conftest import WHOLE, Stored

FIRST_DAY = Span(HOUR.start, HOUR.start + timedelta(hours=3))

LOCKED = """
SELECT relname FROM pg_locks JOIN pg_class ON pg_class.oid = relation
WHERE pid = pg_backend_pid() AND relkind = 'r' AND relname LIKE 'events_d%'"""

FORMS = (
    "",
    "disk",
    "level:error",
    "-level:error",
    "n:5",
    "n:>4",
    "tags:ne*",
    "trace:*",
    "duration:>10",
    "trace:t1",
    "(master:m1 OR -worker:*) usage.model:a",
)


def of_the_first_day(stored: Stored, text: str) -> dict[str, Callable[[Connection], Any]]:
    """Every question about a range of the first of two days."""
    table, query = stored.tables.events, parse(text)
    selection = Selection(stored.tables, query, FIRST_DAY)
    first, second, *_ = list_events(
        stored.connection, table, EVERYTHING, FIRST_DAY, order="oldest"
    ).events
    after = Position.of_id(second.id)
    brief = timedelta(hours=3)
    return {
        "newest": lambda c: list_events(c, table, query, FIRST_DAY, after=after),
        "oldest": lambda c: list_events(
            c, table, query, FIRST_DAY, order="oldest", after=after
        ),
        "event": lambda c: find_event(c, table, after),
        "context": lambda c: context_of(c, table, Position.of_id(first.id), reach=brief),
        "histogram": lambda c: histogram(c, selection, by="worker_type"),
        "facets": lambda c: facets(c, selection, ["level", "tags"]),
        "fields": lambda c: fields_seen(c, selection),
        "statistics": lambda c: statistics_of(c, selection, step=timedelta(minutes=10)),
        "export": lambda c: b"".join(export(c, selection)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("text", FORMS)
def test_questions_lock_only_the_leaves_of_their_range(stored: Stored, text: str) -> None:
    """Also the eleventh time on a connection: psycopg then uses prepared statements, without a generic plan."""
    with session(stored.server, autocommit=True) as connection:
        for name, ask in of_the_first_day(stored, text).items():
            for _ in range(10):
                ask(connection)
            with snapshot(connection):
                ask(connection)
                locked = {leaf for (leaf,) in connection.execute(LOCKED).fetchall()}
            assert locked <= {"events_d20251204"}, name
            assert locked or name == "statistics", name


def test_a_trace_of_months_has_a_plan_that_is_kept(stored: Stored) -> None:
    """Its rows are those of a short range; another range takes the same plan; too little time is no error."""
    query, table = parse("trace:t1"), stored.tables.events
    with session(stored.server, autocommit=True) as connection:
        short = list_events(connection, table, query, WHOLE)
        assert len(short.events) > 3
        for days in (30, 60):
            long = Span(WHOLE.start - timedelta(days=days), WHOLE.end)
            assert list_events(connection, table, query, long).events == short.events
        names = "SELECT name FROM pg_prepared_statements WHERE name LIKE 'obs%'"
        assert len(connection.execute(names).fetchall()) == 1
        late = list_events(connection, table, query, long, deadline_s=0)
        assert (late.is_complete, late.events) == (False, ())


# -- pages -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def destination(server: PostgresSettings) -> PostgresDestination:
    """A table of its own."""
    return PostgresDestination(PostgresConfig(), server, clock=lambda: HOUR.end)


@pytest.fixture
def duck(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection."""
    with engine.connect(temp_dir=tmp_path / "spill") as connection:
        yield connection


def load(
    destination: PostgresDestination,
    duck: duckdb.DuckDBPyConnection,
    hour: Hour,
    rows: int,
    generation: int,
) -> None:
    """Replace an hour by a number of rows; those that it had before are the same again.

    Each third load has another code version, so that all its rows are deleted and copied again.
    """
    start = hour.start.isoformat()
    # Three events share each moment.
    told = [
        {"timestamp": start.replace(":00:00", f":00:{n // 3:02}"), "n": n} for n in range(rows)
    ]
    frame = frame_of(duck, told, hour)
    version = InputVersion(generation, "config", f"code {generation // 3}")
    destination.deliver(replace(offer_of(frame, hour), version=version))


def pages(
    connection: Connection,
    destination: PostgresDestination,
    order: Order,
    limit: int,
    between: Callable[[int], None],
) -> list[str]:
    """The rows of all pages; ``between`` is called after each page."""
    span = Span(HOUR.start, HOUR.start + timedelta(hours=6))
    seen: list[str] = []
    after: Position | None = None
    for page in range(1000):
        found = list_events(
            connection,
            destination.table.name,
            EVERYTHING,
            span,
            order=order,
            limit=limit,
            after=after,
        )
        seen += [event.row_uid for event in found.events]
        after = found.next
        if after is None:
            break
        between(page)
    return seen


changes = st.tuples(st.integers(0, 3), st.integers(6, 14))
"""(number of an hour, its rows after the change)"""


@pytest.mark.slow
@settings(
    max_examples=5,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    order=st.sampled_from(("newest", "oldest")),
    limit=st.integers(2, 7),
    loads=st.lists(changes, min_size=1, max_size=4),
)
def test_pages_have_every_row_that_was_there_throughout_once(
    destination: PostgresDestination,
    duck: duckdb.DuckDBPyConnection,
    order: Order,
    limit: int,
    loads: list[tuple[int, int]],
) -> None:
    """Between the pages hours are loaded for the first time, replaced, and lose and get rows."""
    hours = [Hour(HOUR.start + timedelta(hours=number)) for number in range(4)]
    with session(destination.server, autocommit=True) as connection:
        for table in ("events", "events_hourly", "events_hourly_workers", "obs.hour_loads"):
            if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() != (None,):
                connection.execute(f"DELETE FROM {table}".encode())
        for hour in hours[:3]:
            load(destination, duck, hour, 10, 1)
        before = uids(connection)
        throughout = set(before)
        queue = iter(enumerate(loads, 2))

        def change(_: int) -> None:
            for generation, (number, rows) in queue:
                load(destination, duck, hours[number], rows, generation)
                throughout.intersection_update(uids(connection))
                break

        seen = Counter(pages(connection, destination, order, limit, change))
    assert throughout <= set(seen)
    assert set(seen.values()) <= {1}


def uids(connection: Connection) -> set[str]:
    """The rows that the table has."""
    return {uid for (uid,) in connection.execute("SELECT row_uid FROM events").fetchall()}


def load_again_and_again(server: PostgresSettings, folder: str) -> None:
    """Another process: replaces hours until it is ended."""
    destination = PostgresDestination(PostgresConfig(), server, clock=lambda: HOUR.end)
    with engine.connect(temp_dir=Path(folder)) as duck:
        for generation in range(2, 10_000):
            hour = Hour(HOUR.start + timedelta(hours=generation % 4))
            load(destination, duck, hour, 60 + generation % 5, generation)


@pytest.mark.slow
def test_pages_beside_a_process_that_loads(
    destination: PostgresDestination, duck: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """The first sixty rows of each hour are there throughout: each round of pages has them once."""
    for number in range(4):
        load(destination, duck, Hour(HOUR.start + timedelta(hours=number)), 60, 1)
    context = multiprocessing.get_context("spawn")
    loader = context.Process(
        target=load_again_and_again, args=(destination.server, str(tmp_path / "loader"))
    )
    loader.start()
    try:
        with session(destination.server, autocommit=True) as connection:
            always = uids(connection)
            loads = loads_of(connection)
            until = time.monotonic() + 120
            orders: list[Order] = ["newest", "oldest"]
            rounds = 0
            # Rounds go on until the other process has loaded each hour twice.
            while rounds < 4 or (loads_of(connection) < loads + 8 and time.monotonic() < until):
                order = orders[rounds % 2]
                seen = Counter(pages(connection, destination, order, 25, lambda _: None))
                assert always <= set(seen)
                assert set(seen.values()) == {1}
                rounds += 1
            assert loads_of(connection) >= loads + 8
    finally:
        # Not SIGTERM: a process can be in a query that goes on.
        loader.kill()
        loader.join()


def loads_of(connection: Connection) -> int:
    """The highest generation that was loaded."""
    ((generation,),) = connection.execute(
        "SELECT max(generation) FROM obs.hour_loads"
    ).fetchall()
    return int(generation)
