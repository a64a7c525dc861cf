"""Questions about stored events: nothing is missed, nothing comes twice, and time is kept."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import errors, sql

from obs_assets.errors import ConfigurationError
from obs_assets.search.language import EVERYTHING, parse
from obs_assets.search.moments import moment
from obs_assets.search.questions import Order, Position, Span, last_day, list_events
from obs_assets.settings import PostgresSettings, Settings
from obs_assets.storage.postgres import Connection, session

TABLE = sql.Identifier("found")
START = datetime(2025, 12, 4, 10, tzinfo=UTC)
SPAN = Span(START, START + timedelta(days=3))


@pytest.fixture(scope="module")
def connection(servers: Settings) -> Iterator[Connection]:
    """A connection with a table of the columns that a search reads."""
    assert isinstance(servers.postgres, PostgresSettings)
    with session(servers.postgres, autocommit=True) as opened:
        opened.execute(
            "CREATE TEMPORARY TABLE found (timestamp timestamptz, row_uid text, event_id text, event_type text, "
            "event_level text, source_name text, master_type text, worker_type text, worker_id text, trace_id text, "
            "session_id text, error text, duration_ms bigint, cost_usd numeric(28, 12), weight float8, data jsonb)"
        )
        yield opened


def fill(connection: Connection, offsets_s: list[int]) -> list[str]:
    """A row for each offset behind `START`, in seconds; returns the rows' names from the oldest on."""
    connection.execute("TRUNCATE found")
    rows = [
        (
            START + timedelta(seconds=offset),
            f"{number:032x}",
            "note",
            10.0,
            json.dumps({"n": number}),
        )
        for number, offset in enumerate(offsets_s)
    ]
    with connection.cursor() as cursor:
        insert = "INSERT INTO found (timestamp, row_uid, event_type, weight, data) VALUES (%s, %s, %s, %s, %s)"
        cursor.executemany(insert, rows)
    return [uid for _, uid, *_ in sorted(rows)]


@pytest.mark.slow
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    offsets_s=st.lists(st.integers(0, 20) | st.integers(0, 3 * 86_400 - 1), max_size=12),
    limit=st.integers(1, 5),
    order=st.sampled_from(("newest", "oldest")),
    is_hasty=st.booleans(),
)
def test_pages_have_every_row_once(
    connection: Connection, offsets_s: list[int], limit: int, order: Order, is_hasty: bool
) -> None:
    """In the order that was asked for, over ties and over searches whose time is over at once."""
    expected = fill(connection, offsets_s)
    if order == "newest":
        expected.reverse()
    seen: list[str] = []
    after: Position | None = None
    for page in range(100):
        deadline_s = 0.0 if is_hasty and page % 2 == 0 else 60.0
        found = list_events(
            connection,
            TABLE,
            EVERYTHING,
            SPAN,
            order=order,
            limit=limit,
            after=after,
            deadline_s=deadline_s,
        )
        assert found.is_complete == (deadline_s > 0)
        seen += [event.row_uid for event in found.events]
        after = found.next
        if after is None:
            break
        assert Position.of_id(after.id) == after
    assert seen == expected


def test_an_answer_says_what_it_searched(connection: Connection) -> None:
    """The range to its end, or to the last row of the answer; rows and the events that they stand for."""
    fill(connection, [0, 10, 90_000])
    whole = list_events(connection, TABLE, parse("n:>0"), SPAN)
    assert [json.loads(event.data)["n"] for event in whole.events] == [2, 1]
    assert (whole.searched, whole.next, whole.estimated_events) == (SPAN, None, 20.0)
    first = list_events(connection, TABLE, EVERYTHING, SPAN, limit=1)
    assert first.searched == Span(START + timedelta(seconds=90_000), SPAN.end)
    assert first.next == Position(START + timedelta(seconds=90_000), f"{2:032x}")


def test_an_end_of_a_range_is_not_in_it(connection: Connection) -> None:
    """Ranges side by side have every event once."""
    fill(connection, [0, 10, 20])
    middle = Span(START, START + timedelta(seconds=20))
    found = list_events(connection, TABLE, EVERYTHING, middle, order="oldest")
    assert [event.timestamp for event in found.events] == [START, START + timedelta(seconds=10)]


def test_a_slow_search_ends_in_time(connection: Connection) -> None:
    """A statement that sleeps is stopped; the answer has a position to go on from."""
    fill(connection, [0])
    connection.execute(
        "CREATE OR REPLACE FUNCTION pg_temp.slow() RETURNS bool LANGUAGE sql AS 'SELECT pg_sleep(30) IS NULL'"
    )
    connection.execute(
        "CREATE OR REPLACE TEMPORARY VIEW slow AS SELECT * FROM found WHERE pg_temp.slow() IS NOT NULL"
    )
    found = list_events(connection, sql.Identifier("slow"), EVERYTHING, SPAN, deadline_s=0.3)
    assert not found.is_complete
    assert found.seconds < 15
    assert found.next
    again = list_events(connection, TABLE, EVERYTHING, SPAN, after=found.next)
    assert len(again.events) == 1


def test_a_search_cannot_write(connection: Connection) -> None:
    """Its transaction is read-only, whatever a view in the table's place does."""
    fill(connection, [0])
    connection.execute("CREATE SEQUENCE IF NOT EXISTS public.search_test")
    try:
        connection.execute(
            "CREATE OR REPLACE TEMPORARY VIEW writing AS SELECT * FROM found WHERE nextval('public.search_test') > 0"
        )
        with pytest.raises(errors.ReadOnlySqlTransaction):
            list_events(connection, sql.Identifier("writing"), EVERYTHING, SPAN)
    finally:
        connection.execute("DROP SEQUENCE public.search_test CASCADE")


def test_the_last_day_ends_with_the_newest_event(connection: Connection) -> None:
    """The newest event is in it; an empty table has none."""
    fill(connection, [0, 7])
    newest = START + timedelta(seconds=7)
    assert last_day(connection, TABLE) == Span(
        newest + timedelta(microseconds=1) - timedelta(days=1),
        newest + timedelta(microseconds=1),
    )
    fill(connection, [])
    assert last_day(connection, TABLE) is None


def test_numbers_keep_their_digits(connection: Connection) -> None:
    """Beyond 2^53, and zeros behind the point."""
    fill(connection, [0])
    connection.execute(
        """UPDATE found SET data = '{"n": 12345678901234567890.10}', cost_usd = 0.25"""
    )
    (event,) = list_events(connection, TABLE, EVERYTHING, SPAN).events
    assert '"data": {"n": 12345678901234567890.10}' in event.to_json()
    assert json.loads(event.to_json())["cost_usd"] == "0.25"


NOW = datetime(2025, 12, 4, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("now-6h", NOW - timedelta(hours=6)),
        ("now+1w", NOW + timedelta(weeks=1)),
        ("2025-12-04", datetime(2025, 12, 4, tzinfo=UTC)),
        ("2025-12-04T10:00", NOW),
        ("2025-12-04T12:00:00+02:00", NOW),
        ("2025-12-04T10:00:00.000001Z", NOW + timedelta(microseconds=1)),
    ],
)
def test_moments_are_read(text: str, expected: datetime) -> None:
    """A date, a time with or without an offset, and a distance from now."""
    assert moment(text, NOW) == expected


@pytest.mark.parametrize(
    "text", ["", "yesterday", "now-6", "now-6y", "now-999999w", "2025-13-01"]
)
def test_other_texts_are_no_moment(text: str) -> None:
    """The message shows the forms."""
    with pytest.raises(ConfigurationError, match="is no moment: write 2025-12-04T10:00:00Z"):
        moment(text, NOW)


@pytest.mark.parametrize("text", ["", "x", "12", "1-xyz", f"{10**18}0-aa", f"{10**17 * 9}-aa"])
def test_other_texts_are_no_id(text: str) -> None:
    """The message says where ids come from."""
    with pytest.raises(ConfigurationError, match="is no id of an event: copy one"):
        Position.of_id(text)
