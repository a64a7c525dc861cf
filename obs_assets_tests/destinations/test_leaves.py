"""Which leaf holds an hour: pure rules, and what becomes of leaves on a real server."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_assets.destinations.postgres import PostgresConfig, PostgresDestination, leaves
from obs_assets.destinations.postgres.leaves import (
    Span,
    day_of,
    hour_of,
    month_of,
    new_leaf,
    roll_ups,
    span_of,
)
from obs_assets.destinations.postgres.table import INDEXES
from obs_assets.errors import HourBusyError
from obs_assets.hours import Hour
from obs_assets.settings import PostgresSettings
from obs_assets_tests.conftest import connect_postgres
from obs_assets_tests.dying import DiedError, dies_at
from obs_assets_tests.frames import HOUR, frame_of, offer_of

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
LARGE = leaves.HOURLY_FROM_ROWS
moments = st.integers(1_000_000_000, 4_000_000_000).map(
    lambda seconds: datetime.fromtimestamp(seconds, UTC)
)
sizes = st.sampled_from([hour_of, day_of, month_of])


def at(days: float) -> Hour:
    """An hour so many days before now."""
    return Hour.of(NOW - timedelta(days=days))


@pytest.mark.parametrize(
    ("days", "rows", "retention", "size"),
    [
        (0.1, 10, None, day_of),
        (0.1, LARGE, None, hour_of),
        (3, LARGE, None, day_of),
        (70, 10, None, month_of),
        (70, LARGE, 365, month_of),
        (70, 10, 90, day_of),
    ],
)
def test_a_leaf_suits_its_hour(
    days: float, rows: int, retention: int | None, size: Any
) -> None:
    """Large hours that are hot get a leaf each, what is old goes by the month, unless it is dropped by the day."""
    assert new_leaf(at(days), rows, [], now=NOW, retention_days=retention) == size(
        at(days).start
    )


@given(
    moments,
    st.lists(st.tuples(moments, st.sampled_from([hour_of, day_of, month_of])), max_size=5),
    st.integers(0, 10**6),
)
def test_a_new_leaf_overlaps_none(
    moment: datetime, there: list[tuple[datetime, Any]], rows: int
) -> None:
    """Whatever leaves there are, an hour outside them gets one that holds it and meets no other."""
    taken = [size(start) for start, size in there]
    hour = Hour.of(moment)
    if not any(hour in span for span in taken):
        made = new_leaf(hour, rows, taken, now=NOW, retention_days=None)
        assert hour in made
        assert not any(made.overlaps(span) for span in taken)


@given(moments, sizes)
def test_a_name_says_what_a_leaf_holds(moment: datetime, size: Any) -> None:
    """From span to name and back."""
    assert span_of(size(moment).suffix) == size(moment)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [10, LARGE])
@pytest.mark.parametrize("retention", [None, 150, 365])
def test_a_year_has_less_than_250_leaves(rows: int, retention: int | None) -> None:
    """With a roll-up a day, small hours or large, however long they are kept up to a year."""
    there: set[Span] = set()
    start = datetime(2025, 1, 1, tzinfo=UTC)
    for number in range(24 * 365):
        hour = Hour(start + timedelta(hours=number))
        if not any(hour in span for span in there):
            there.add(new_leaf(hour, rows, there, now=hour.end, retention_days=retention))
        if hour.start.hour == 23:
            for larger in roll_ups(there, now=hour.end, retention_days=retention):
                there = {span for span in there if not span.overlaps(larger)} | {larger}
            if retention:
                there -= set(leaves.expired(there, now=hour.end, retention_days=retention))
        assert len(there) < 250


# -- on a server -------------------------------------------------------------------------------------------------------


def destination_at(
    server: PostgresSettings, now: datetime, hourly_from_rows: int = LARGE, **options: Any
) -> PostgresDestination:
    return PostgresDestination(
        PostgresConfig(**options),
        server,
        clock=lambda: now,
        busy_after_s=0.5,
        hourly_from_rows=hourly_from_rows,
    )


def leaves_of(server: PostgresSettings) -> list[str]:
    with connect_postgres(server) as connection:
        query = "SELECT relname FROM pg_class WHERE relname LIKE 'events@_%%' ESCAPE '@' AND relkind = 'r' ORDER BY 1"
        names = [str(name) for (name,) in connection.execute(query).fetchall()]
    return [name for name in names if "_hourly" not in name]


def rows_of(server: PostgresSettings) -> list[tuple[Any, ...]]:
    with connect_postgres(server) as connection:
        return connection.execute("SELECT * FROM events ORDER BY row_uid, timestamp").fetchall()


@pytest.mark.slow
def test_hours_roll_up_into_days_and_days_into_months(
    server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """The rows stay what they are, to the last column; a late event then replaces its hour in the larger leaf."""
    fresh = destination_at(server, HOUR.end, hourly_from_rows=2)
    hours = [HOUR, HOUR.next, Hour(HOUR.start + timedelta(days=1))]
    for hour in hours:
        fresh.deliver(offer_of(frame_of(duck, [{"n": 1}, {"n": 2, "error": "x"}], hour), hour))
    assert leaves_of(server) == [
        "events_h2025120410",
        "events_h2025120411",
        "events_h2025120510",
    ]
    before = rows_of(server)

    assert fresh.upkeep.roll_up(HOUR.end) == []
    assert fresh.upkeep.roll_up(HOUR.end + timedelta(days=4)) == [
        "events_d20251204",
        "events_d20251205",
    ]
    assert leaves_of(server) == ["events_d20251204", "events_d20251205"]
    assert rows_of(server) == before
    assert fresh.upkeep.roll_up(HOUR.end + timedelta(days=100)) == ["events_m202512"]
    assert leaves_of(server) == ["events_m202512"]
    assert rows_of(server) == before

    assert fresh.deliver(offer_of(frame_of(duck, [{"n": "late"}]), generation=2)).written == 1
    assert len(rows_of(server)) == 5
    with connect_postgres(server) as connection:
        invalid = connection.execute(
            "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
        ).fetchone()
        assert invalid == (0,)
        indexed = "SELECT count(*) FROM pg_indexes WHERE tablename = 'events_m202512'"
        assert connection.execute(indexed).fetchone() == (len(INDEXES),)


@pytest.mark.slow
@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ"])
def test_a_reader_sees_the_same_rows_while_leaves_are_rolled_up(
    server: PostgresSettings,
    duck: duckdb.DuckDBPyConnection,
    level: str,
) -> None:
    """A snapshot from before is waited for, and never finds a month empty."""
    fresh = destination_at(server, HOUR.end, hourly_from_rows=1)
    fresh.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    made: list[str] = []
    with connect_postgres(server) as reader:
        reader.execute(f"BEGIN ISOLATION LEVEL {level}")
        count = "SELECT count(*) FROM events"
        assert reader.execute("SELECT 1").fetchone() == (
            1,
        )  # the snapshot, without a lock on the table
        rolling = threading.Thread(
            target=lambda: made.extend(fresh.upkeep.roll_up(HOUR.end + timedelta(days=4)))
        )
        rolling.start()
        rolling.join(timeout=1.0)
        assert reader.execute(count).fetchone() == (1,)
        reader.execute("COMMIT")
        rolling.join(timeout=30)
    assert made == ["events_d20251204"]
    assert len(rows_of(server)) == 1


@pytest.mark.slow
def test_a_roll_up_that_was_killed_is_done_by_the_next(
    server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """Between filling the larger leaf and the swap nothing has changed for anybody; nothing is left in the end."""
    fresh = destination_at(server, HOUR.end, hourly_from_rows=1)
    fresh.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    with dies_at("postgres.before_swap"), pytest.raises(DiedError):
        fresh.upkeep.roll_up(HOUR.end + timedelta(days=4))
    assert leaves_of(server) == ["events_d20251204_new", "events_h2025120410"]
    assert (
        fresh.deliver(offer_of(frame_of(duck, [{"n": 2}, {"n": 3}]), generation=2)).written == 2
    )
    assert fresh.upkeep.roll_up(HOUR.end + timedelta(days=4)) == ["events_d20251204"]
    assert leaves_of(server) == ["events_d20251204"]
    assert len(rows_of(server)) == 2


def test_loads_and_roll_ups_of_a_month_exclude_each_other(
    server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """A load finds its hour busy while the leaves change; a roll-up leaves a month alone that is being loaded."""
    fresh = destination_at(server, HOUR.end, hourly_from_rows=1)
    fresh.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    with connect_postgres(server) as other:
        other.execute(
            "SELECT pg_advisory_lock(hashtextextended('public.events leaves 2025-12', 0))"
        )
        with pytest.raises(HourBusyError):
            fresh.deliver(offer_of(frame_of(duck, [{"n": 2}]), generation=2))
        assert fresh.upkeep.roll_up(HOUR.end + timedelta(days=4)) == []


@pytest.mark.slow
def test_retention_goes_on_after_an_interruption(
    server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """A reader holds up the dropping of a leaf; the next run finishes it, and a load of another hour never waits."""
    brief = destination_at(server, HOUR.end, retention_days=7)
    brief.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    late = HOUR.end + timedelta(days=30)
    with connect_postgres(server) as reader, connect_postgres(server) as impatient:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        assert reader.execute("SELECT count(*) FROM events").fetchone() == (1,)
        impatient.execute(
            f"COMMENT ON TABLE events_d20251204 IS '{'obs_assets: expired, to be dropped'}'"
        )
        impatient.execute("SET lock_timeout = '300ms'")
        with pytest.raises(Exception, match="lock timeout"):
            impatient.execute(
                "ALTER TABLE events DETACH PARTITION events_d20251204 CONCURRENTLY"
            )
        other = Hour(HOUR.start + timedelta(days=1))
        assert brief.deliver(offer_of(frame_of(duck, [{"n": 2}], other), other)).written == 1
    assert brief.upkeep.drop_expired(late - timedelta(days=29)) == ["events_d20251204"]
    assert leaves_of(server) == ["events_d20251205"]
    assert brief.holding(HOUR) is None
    assert len(rows_of(server)) == 1
    with connect_postgres(server) as connection:
        assert connection.execute("SELECT count(*) FROM events_hourly").fetchone() == (1,)


def test_retention_never_touches_a_table_that_it_did_not_mark(
    server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """A leaf that somebody detached to keep stays, and so does another table's leaf."""
    brief = destination_at(server, HOUR.end, retention_days=7)
    brief.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    with connect_postgres(server) as connection:
        connection.execute("ALTER TABLE events DETACH PARTITION events_d20251204")
    assert brief.upkeep.drop_expired(HOUR.end + timedelta(days=30)) == []
    assert leaves_of(server) == ["events_d20251204"]
