"""PostgreSQL as a destination, on a real server."""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from obs_assets.destinations import postgres
from obs_assets.destinations.base import Delivery
from obs_assets.destinations.postgres import PostgresConfig, PostgresDestination
from obs_assets.errors import (
    ConfigurationError,
    HourBusyError,
    PermanentError,
    StaleHourError,
    TransientError,
)
from obs_assets.hours import Hour
from obs_assets.receipts import InputVersion, Receipt
from obs_assets.settings import PostgresSettings
from obs_assets.storage import postgres as database
from obs_assets_tests.conftest import connect_postgres
from obs_assets_tests.frames import HOUR, frame_of, offer_of

NEXT = HOUR.next


@pytest.fixture
def destination(server: PostgresSettings) -> PostgresDestination:
    """The default table in it."""
    return PostgresDestination(PostgresConfig(), server, clock=lambda: HOUR.end)


def ask(server: PostgresSettings, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """The rows that a query gives to somebody who knows nothing of us."""
    with connect_postgres(server) as connection:
        return connection.execute(query, parameters or None).fetchall()


def held(
    destination: PostgresDestination, duck: duckdb.DuckDBPyConnection, hour: Hour = HOUR
) -> list[Any]:
    """The events of an hour that are in the table."""
    rows = destination.read_back(duck, hour).project("event").fetchall()
    return sorted((json.loads(event, parse_float=Decimal) for (event,) in rows), key=str)


# -- an hour -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_hour_is_loaded_whole(
    destination: PostgresDestination, server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """Every event becomes a row with the original's columns and ours, and the ledger says so."""
    told = {
        "id": "e1",
        "type": "task_failed",
        "level": "WARN",
        "timestamp": "2025-12-04T10:59:59.999999+00:00",
        "_source": {"name": "logs"},
        "master_type": "coordinator",
        "worker_type": "coder",
        "worker_id": "w7",
        "trace_id": "t1",
        "session_id": "s1",
        "error": "broken",
        "duration_ms": 1500,
        "cost_estimate": {"total_cost_usd": 0.25},
    }
    offer = offer_of(frame_of(duck, [told, {}], weight=10))
    assert destination.deliver(offer).written == 2
    names = (
        "event_id, event_type, event_level, timestamp, source_name, master_type, worker_type, worker_id, trace_id, "
        "session_id, error, duration_ms, cost_usd, data, weight, hour, id >= 0, created_at > now() - interval '1 min'"
    )
    assert ask(server, f"SELECT {names} FROM events ORDER BY timestamp") == [
        (
            None,
            "unknown",
            None,
            HOUR.start + timedelta(seconds=1),
            *[None] * 9,
            {},
            10.0,
            HOUR.start,
            True,
            True,
        ),
        (
            *(
                "e1",
                "task_failed",
                "warning",
                HOUR.end - timedelta(microseconds=1),
                "logs",
                "coordinator",
                "coder",
            ),
            *(
                "w7",
                "t1",
                "s1",
                "broken",
                1500,
                Decimal("0.25"),
                told,
                10.0,
                HOUR.start,
                True,
                True,
            ),
        ),
    ]
    assert (
        ask(server, "SELECT row_uid FROM events ORDER BY timestamp")
        == offer.frame.project("row_uid").fetchall()
    )
    assert ask(server, "SELECT destination, hour, rows, run_id FROM obs.hour_loads") == [
        ("public.events", HOUR.start, 2, "run-1")
    ]
    holding = destination.holding(HOUR)
    assert holding
    assert (holding.version, holding.rows, holding.content_hash) == (
        offer.version,
        2,
        offer.content_hash,
    )


def test_the_same_offer_again_changes_nothing(
    destination: PostgresDestination, server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """An hour that is there already is not written, whoever offers it."""
    offer = offer_of(frame_of(duck, [{"n": 1}, {"n": 2}]))
    destination.deliver(offer)
    before = ask(server, "SELECT xmin::text, data FROM events")
    assert destination.deliver(replace(offer, run_id="run-2")) == Delivery(
        written=0, already_there=2
    )
    assert ask(server, "SELECT xmin::text, data FROM events") == before


def test_a_rebuild_writes_again(
    destination: PostgresDestination, server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """Who asks for a rebuild gets one: rows changed by hand are put right."""
    offer = offer_of(frame_of(duck, [{"n": 1}]))
    destination.deliver(offer)
    with connect_postgres(server) as connection:
        connection.execute("UPDATE events SET data = '{}'")
    assert destination.deliver(replace(offer, rebuild=True)).written == 1
    assert held(destination, duck) == [{"n": 1}]


def test_rows_deleted_by_hand_come_back(
    destination: PostgresDestination, server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """The ledger alone does not make an hour "already there"."""
    offer = offer_of(frame_of(duck, [{"n": 1}, {"n": 2}]))
    destination.deliver(offer)
    with connect_postgres(server) as connection:
        connection.execute("DELETE FROM events WHERE data @> '{\"n\": 2}'")
    delivery = destination.deliver(offer)
    assert (delivery.written, delivery.already_there) == (1, 1)
    assert held(destination, duck) == [{"n": 1}, {"n": 2}]


@pytest.mark.slow
def test_a_late_event_changes_its_hour_alone(
    destination: PostgresDestination, server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """A newer generation adds its row; those that are there and those of the hour beside it are not written again."""
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    first = ask(server, "SELECT xmin::text FROM events")
    destination.deliver(offer_of(frame_of(duck, [{"n": 2}], NEXT), NEXT))
    beside = ask(server, "SELECT xmin::text FROM events WHERE hour = %s", NEXT.start)
    late = offer_of(frame_of(duck, [{"n": 1}, {"n": "late"}]), generation=2)
    delivery = destination.deliver(late)
    assert (delivery.written, delivery.already_there) == (1, 1)
    assert ask(server, "SELECT xmin::text FROM events WHERE data = '{\"n\": 1}'") == first
    assert held(destination, duck) == [{"n": "late"}, {"n": 1}]
    assert held(destination, duck, NEXT) == [{"n": 2}]
    assert ask(server, "SELECT xmin::text FROM events WHERE hour = %s", NEXT.start) == beside


@pytest.mark.slow
@given(data=st.data())
@given_settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # loads replace all
def test_an_hour_ends_as_it_was_offered_whatever_was_there(
    destination: PostgresDestination, duck: duckdb.DuckDBPyConnection, data: st.DataObject
) -> None:
    """Rows added, taken away, changed in any column or doubled by hand: the table ends as if it had been empty."""
    events = [{"n": n, "duration_ms": 1, "error": None} for n in range(6)]
    some = st.lists(st.sampled_from(range(6)), unique=True, max_size=6)
    before, after = ([events[n] for n in sorted(data.draw(some))] for _ in range(2))
    destination.deliver(offer_of(frame_of(duck, before), rebuild=True))
    damage = data.draw(
        st.sampled_from(
            [
                "DELETE FROM events WHERE id % 2 = 0",
                "UPDATE events SET duration_ms = NULL WHERE id % 2 = 0",
                "UPDATE events SET data = data || '{\"n\": 9}', error = 'x'",
                "INSERT INTO events SELECT * FROM events WHERE id % 3 = 0",
                "SELECT",
            ]
        )
    )
    with connect_postgres(destination.server) as connection:
        connection.execute(damage.encode())
    destination.deliver(offer_of(frame_of(duck, after), rebuild=True))
    assert held(destination, duck) == after
    columns = "SELECT DISTINCT duration_ms, error, weight FROM events"
    assert ask(destination.server, columns) == [(1, None, 1.0)] * bool(after)


@pytest.mark.slow
def test_receipts_say_what_became_of_an_hour(
    destination: PostgresDestination, server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """The view has a row for each stage, in their order, of the last load alone, with what it was built from."""
    query = "SELECT hour, destination, stage, taken, kept, set_aside, generation, run_id FROM receipts"
    for generation in (1, 2):
        version = InputVersion(generation, "config", "code")
        raw = Receipt(HOUR.key, "raw_events", version, taken=4, kept=4)
        redacted = Receipt(
            HOUR.key, "redacted_events", version, taken=4, kept=1, other={"refused": generation}
        )
        offer = offer_of(frame_of(duck, [{"n": 1}]), generation=generation)
        destination.deliver(
            replace(offer, run_id=f"run {generation}", receipts=(raw, redacted))
        )
        same = (HOUR.start, "public.events")
        assert ask(server, query) == [
            (*same, "raw_events", 4, 4, {}, generation, f"run {generation}"),
            (
                *same,
                "redacted_events",
                4,
                1,
                {"refused": generation},
                generation,
                f"run {generation}",
            ),
        ]


def test_an_older_generation_is_turned_away(
    destination: PostgresDestination, duck: duckdb.DuckDBPyConnection
) -> None:
    """A run that has seen less never takes events away, not even as a rebuild."""
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}, {"n": 2}]), generation=7))
    stale = offer_of(frame_of(duck, [{"n": 1}]), generation=6, rebuild=True)
    with pytest.raises(StaleHourError, match=r"generation 7 .* 6"):
        destination.deliver(stale)
    assert held(destination, duck) == [{"n": 1}, {"n": 2}]


@pytest.mark.slow
def test_an_hour_may_be_empty(
    destination: PostgresDestination, duck: duckdb.DuckDBPyConnection
) -> None:
    """An hour without events is held as such, and an hour that loses all of them is emptied."""
    assert destination.holding(HOUR) is None
    assert held(destination, duck) == []
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    assert destination.deliver(offer_of(frame_of(duck, []), generation=2)).written == 0
    assert held(destination, duck) == []
    holding = destination.holding(HOUR)
    assert holding
    assert holding.rows == 0


@pytest.mark.slow
def test_what_does_not_fit_the_offer_is_not_written(
    destination: PostgresDestination, duck: duckdb.DuckDBPyConnection
) -> None:
    """A frame with other rows than offered, or with an event of another hour, leaves the hour as it was."""
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    offer = offer_of(frame_of(duck, [{"n": 1}, {"n": 2}]), generation=2)
    with pytest.raises(PermanentError, match=r"3 rows .*, and 2 were stored"):
        destination.deliver(replace(offer, rows=3))
    with pytest.raises(PermanentError, match="timestamp_in_hour"):
        destination.deliver(offer_of(frame_of(duck, [{"n": 1}], NEXT), generation=2))
    assert held(destination, duck) == [{"n": 1}]


# -- text and numbers --------------------------------------------------------------------------------------------------


def test_text_arrives_as_it_is(
    destination: PostgresDestination, server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """No character of an event has a meaning for the way to the table; the empty text is not NULL."""
    texts = [
        "",
        "NULL",
        r"\N",
        r"\.",
        'say "hi", she said',
        "tab\t, line\nfeed\r\n, back\\slash",
        "naïve 漢字 😀",
        "'';--",
    ]
    destination.deliver(
        offer_of(frame_of(duck, [{"source": text, "trace_id": None} for text in texts]))
    )
    rows = ask(
        server, "SELECT source_name, trace_id, data->>'source' FROM events ORDER BY timestamp"
    )
    assert rows == [(text, None, text) for text in texts]


def test_u0000_does_not_stop_an_hour(
    destination: PostgresDestination, server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """JSONB refuses U+0000, so it becomes U+FFFD; what only looks like it stays."""
    stored = {
        r'{"a": "x\u0000y"}': r'{"a": "x\ufffdy"}',
        r'{"a": "\u0000\u0000"}': r'{"a": "\ufffd\ufffd"}',
        r'{"a\u0000": 1}': r'{"a\ufffd": 1}',
        r'{"a": "\\u0000"}': r'{"a": "\\u0000"}',
        r'{"a": "\\\u0000"}': r'{"a": "\\\ufffd"}',
        r'{"a": "\u0000 \u00e9 \ud83d\ude00"}': '{"a": "\ufffd é 😀"}',
    }
    destination.deliver(offer_of(frame_of(duck, list(stored))))
    rows = ask(server, "SELECT data FROM events ORDER BY timestamp")
    assert rows == [(json.loads(text),) for text in stored.values()]


def test_halves_of_surrogate_pairs_are_replaced(duck: duckdb.DuckDBPyConnection) -> None:
    """A lone half becomes U+FFFD, a pair stays: what `stored_event` makes is what JSONB takes."""
    told = r'["\ud800", "\udc00x", "\ud83d\ude00", "\ud800\ud83d\ude00", "\\ud800"]'
    made = duck.execute(
        f"SELECT {postgres.stored_event('told')} FROM (SELECT ? AS told)", [told]
    ).fetchall()
    assert made == [
        (r'["\ufffd", "\ufffdx", "\ud83d\ude00", "\ufffd\ud83d\ude00", "\\ud800"]',)
    ]


def test_u0000_in_a_column_is_replaced_too(
    destination: PostgresDestination, server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """Columns are made of decoded text, which TEXT refuses as JSONB does."""
    destination.deliver(offer_of(frame_of(duck, [{"type": "a\0b", "error": "c\0d"}])))
    assert ask(server, "SELECT event_type, error FROM events") == [("a\ufffdb", "c\ufffdd")]


def test_numbers_keep_their_digits(
    destination: PostgresDestination, server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """Integers beyond 64 bits and floats beyond doubles arrive exactly; a duration that is too long is NULL."""
    told = '{"big": 123456789012345678901234567890, "huge": 1e400, "fine": 0.10, "duration_ms": 99999999999999999999}'
    destination.deliver(offer_of(frame_of(duck, [told])))
    assert ask(
        server, "SELECT data->'big' = '123456789012345678901234567890', duration_ms FROM events"
    ) == [(True, None)]
    assert held(destination, duck) == [
        json.loads(told, parse_float=Decimal) | {"huge": 10**400}
    ]


def test_an_event_without_a_level_has_none(
    destination: PostgresDestination, server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """NULL, not `info`: an error whose level is not known must not look like a success."""
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}, {"n": 2, "level": 50}])))
    columns = "SELECT event_level FROM events ORDER BY data->>'n'"
    assert ask(server, columns) == [(None,), ("error",)]


def test_long_texts_fit_the_indexes(
    destination: PostgresDestination, server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """An indexed column holds the beginning of a long text, of the widest letters too; ``data`` all of it."""
    long = "".join(chr(0x20000 + n) for n in range(5000))
    told = {
        "type": long,
        "level": long,
        "master_type": long,
        "trace_id": long,
        "cost_usd": 1,
        "error": long,
    }
    destination.deliver(offer_of(frame_of(duck, [told])))
    columns = "event_type, event_level, master_type, trace_id, error, data->>'type' = %s"
    assert ask(server, f"SELECT {columns} FROM events", long) == [
        (*[long[:500]] * 4, long, True)
    ]


def test_an_event_that_cannot_be_stored_is_not_shown(
    destination: PostgresDestination, duck: duckdb.DuckDBPyConnection
) -> None:
    """The server's answer quotes the row; ours does not, and the old hour stays."""
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    bad = offer_of(frame_of(duck, ['{"canary": "CANARY_9f", "n": 1e200000}']), generation=2)
    with pytest.raises(PermanentError, match="22003") as raised:
        destination.deliver(bad)
    assert "CANARY" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert held(destination, duck) == [{"n": 1}]


# -- the table ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_original_queries_answer(
    destination: PostgresDestination, server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """The original's three example queries work unchanged."""
    now = Hour.of(datetime.now(UTC))
    told = [
        {"id": 1, "level": "error", "master_type": "m1", "cost_usd": 0.5, "status": "failed"},
        {"id": 2, "level": "error", "master_type": "m1", "cost_usd": 0.25},
        {"id": 3, "level": "info", "master_type": "m2"},
    ]
    old = Hour.of(datetime.now(UTC) - timedelta(days=2))
    destination.deliver(offer_of(frame_of(duck, told, now), now))
    destination.deliver(offer_of(frame_of(duck, [{"id": 4, "level": "error"}], old), old))
    recent = """
        SELECT * FROM events WHERE event_level = 'error' AND timestamp > NOW() - INTERVAL '24 hours'
        ORDER BY timestamp DESC"""
    assert [row[1] for row in ask(server, recent)] == ["2", "1"]
    cost = "SELECT master_type, SUM(cost_usd) AS total_cost FROM events WHERE cost_usd IS NOT NULL GROUP BY master_type"
    assert ask(server, cost) == [("m1", Decimal("0.75"))]
    assert [
        row[1]
        for row in ask(server, """SELECT * FROM events WHERE data @> '{"status": "failed"}'""")
    ] == ["1"]


@pytest.mark.slow
def test_the_table_is_as_designed(
    destination: PostgresDestination, server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """A leaf a day, logged, with the original's index names on the parent."""
    midnight = Hour(datetime(2025, 12, 5, tzinfo=UTC))
    for hour in (HOUR, NEXT, midnight):
        destination.deliver(offer_of(frame_of(duck, [{"n": 1}], hour), hour))
    leaves = "SELECT relname, relpersistence FROM pg_class WHERE relispartition AND relkind = 'r' ORDER BY relname"
    assert ask(server, leaves) == [("events_d20251204", "p"), ("events_d20251205", "p")]
    indexes = ask(
        server, "SELECT indexname FROM pg_indexes WHERE tablename = 'events' ORDER BY indexname"
    )
    assert [name for (name,) in indexes] == [
        f"idx_events_{name}"
        for name in (
            "cost",
            "data_gin",
            "error",
            "event_level",
            "event_type",
            "timestamp",
            "trace",
        )
    ]
    checked = destination.check()
    assert f"PostgreSQL {ask(server, 'SHOW server_version')[0][0]}" in checked
    assert "public.events" in checked


def test_a_table_of_the_original_is_left_alone(
    destination: PostgresDestination, server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """It is recognised, untouched, and the message says how to move it away; after that, the hour loads."""
    with connect_postgres(server) as connection:
        connection.execute(
            "CREATE TABLE events (id BIGSERIAL PRIMARY KEY, timestamp TIMESTAMPTZ NOT NULL, data JSONB)"
        )
        connection.execute("CREATE INDEX idx_events_timestamp ON events (timestamp DESC)")
        connection.execute("INSERT INTO events (timestamp, data) VALUES (now(), '{}')")
        offer = offer_of(frame_of(duck, [{"n": 1}]))
        for act in (lambda: destination.deliver(offer), destination.check):
            with pytest.raises(
                ConfigurationError, match="Choose another table_name, or move it"
            ) as raised:
                act()
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (1,)
        assert connection.execute("SELECT to_regclass('obs.hour_loads')").fetchone() == (None,)
        connection.execute(str(raised.value).partition("indexes: ")[2])
    assert destination.deliver(offer).written == 1
    assert ask(server, "SELECT count(*) FROM old.events") == [(1,)]


@pytest.mark.slow
def test_a_table_that_was_dropped_is_made_again(
    destination: PostgresDestination, server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """Who starts afresh with DROP TABLE needs to know nothing of our ledger."""
    offer = offer_of(frame_of(duck, [{"n": 1}]))
    destination.deliver(offer)
    with connect_postgres(server) as connection:
        connection.execute("DROP TABLE events")
    assert destination.holdings() == {}
    assert destination.deliver(offer).written == 1
    assert held(destination, duck) == [{"n": 1}]


@pytest.mark.slow
def test_a_table_is_made_only_where_that_is_wanted(
    server: PostgresSettings, destination: PostgresDestination, duck: duckdb.DuckDBPyConnection
) -> None:
    """Without create_table_if_not_exists, a missing table is a mistake, and an existing one is enough."""
    careful = PostgresDestination(PostgresConfig(create_table_if_not_exists=False), server)
    offer = offer_of(frame_of(duck, [{"n": 1}]))
    for act in (lambda: careful.deliver(offer), careful.check):
        with pytest.raises(ConfigurationError, match="does not exist"):
            act()
    assert ask(server, "SELECT to_regclass('events')") == [(None,)]
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}], NEXT), NEXT))
    assert careful.deliver(offer).written == 1


@pytest.mark.parametrize(
    ("schema", "table"), [("Select", "Order"), ("s" * 47, "T" * 47), ("obs", "hours")]
)
def test_names_are_quoted(
    server: PostgresSettings, duck: duckdb.DuckDBPyConnection, schema: str, table: str
) -> None:
    """Reserved words, capitals and the longest names allowed are names like others."""
    destination = PostgresDestination(
        PostgresConfig(schema_name=schema, table_name=table), server
    )
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    assert held(destination, duck) == [{"n": 1}]
    indexes = ask(
        server, "SELECT indexname FROM pg_indexes WHERE tablename = %s ORDER BY 1", table
    )
    assert (f"idx_{table}_event_level",) in indexes


@pytest.mark.parametrize(
    "name", ['a"; drop table x--', "a" * 48, "", "1st", "é", "a.b", "a\n", "events_d20251204"]
)
def test_other_names_are_refused(name: str) -> None:
    """What cannot be a safe name for a table and all that is named after it, is a mistake in the configuration."""
    with pytest.raises(ValidationError, match="table_name"):
        PostgresConfig(table_name=name)


@pytest.mark.slow
def test_retention_drops_days(
    server: PostgresSettings, destination: PostgresDestination, duck: duckdb.DuckDBPyConnection
) -> None:
    """Days that ended longer ago than asked go, as leaves and in the ledger; without a limit, none does."""
    days = [Hour(datetime(2025, 12, day, 10, tzinfo=UTC)) for day in (1, 2, 3)]
    for hour in days:
        destination.deliver(offer_of(frame_of(duck, [{"n": 1}], hour), hour))
    now = datetime(2025, 12, 9, 0, 0, tzinfo=UTC)
    assert destination.upkeep.drop_expired(now) == []
    brief = PostgresDestination(PostgresConfig(retention_days=7), server)
    assert brief.upkeep.drop_expired(now - timedelta(microseconds=1)) == []
    assert brief.upkeep.drop_expired(now) == ["events_d20251201"]
    assert [brief.holding(hour) is None for hour in days] == [True, False, False]
    assert ask(server, "SELECT count(*) FROM events") == [(2,)]


# -- others at work ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_second_writer_is_told_that_the_hour_is_busy(
    server: PostgresSettings, destination: PostgresDestination, duck: duckdb.DuckDBPyConnection
) -> None:
    """While one run writes an hour, another stops after a while; other hours are free."""
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    hasty = PostgresDestination(PostgresConfig(), server, busy_after_s=0.2)
    with database.session(server) as writing:
        destination._lock(writing, HOUR)
        with pytest.raises(HourBusyError, match="2025-12-04-10:00"):
            hasty.deliver(offer_of(frame_of(duck, [{"n": 2}]), generation=2))
        assert hasty.deliver(offer_of(frame_of(duck, [{"n": 3}], NEXT), NEXT)).written == 1
    assert hasty.deliver(offer_of(frame_of(duck, [{"n": 2}]), generation=2)).written == 1


@pytest.mark.slow
def test_of_two_writers_the_newer_wins(
    server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """Two runs at once, on a table that is not there yet: the end is the newest generation, in whatever order."""

    def deliver(generation: int) -> None:
        with duck.cursor() as own, contextlib.suppress(StaleHourError):
            frame = frame_of(own, [{"n": generation}] * 100)
            PostgresDestination(PostgresConfig(), server).deliver(
                offer_of(frame, generation=generation)
            )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(deliver, [2, 4, 1, 3]))
    assert held(PostgresDestination(PostgresConfig(), server), duck) == [{"n": 4}] * 100


@pytest.mark.slow
def test_hours_of_a_new_day_load_side_by_side(
    server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """Whoever comes first makes table and leaf; the others wait for that alone."""
    hours = [Hour(HOUR.start + timedelta(hours=offset)) for offset in range(6)]

    def deliver(hour: Hour) -> int:
        with duck.cursor() as own:
            return (
                PostgresDestination(PostgresConfig(), server)
                .deliver(offer_of(frame_of(own, [{"n": 1}], hour), hour))
                .written
            )

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(deliver, hours)) == [1] * 6


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ"])
@pytest.mark.parametrize("merged", [True, False])
def test_readers_see_the_old_hour_or_the_new(
    server: PostgresSettings,
    destination: PostgresDestination,
    duck: duckdb.DuckDBPyConnection,
    level: str,
    merged: bool,
) -> None:
    """A reader neither waits for a load nor sees half of it; a long one keeps the picture that it began with."""
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    with connect_postgres(server) as reader, database.session(server) as writing:
        count = "SELECT array_agg(data->'n') FROM events"
        reader.execute(f"BEGIN ISOLATION LEVEL {level}")
        reader.execute("SET LOCAL lock_timeout = '1s'")
        assert reader.execute(count).fetchone() == ([1],)
        destination._lock(writing, HOUR)
        held = destination._ledger_row(writing, HOUR) if merged else None
        destination._replace(
            writing, offer_of(frame_of(duck, [{"n": 2}, {"n": 2}]), generation=2), held
        )
        assert reader.execute(count).fetchone() == ([1],)
        writing.commit()
        assert reader.execute(count).fetchone() == (
            ([1],) if level == "REPEATABLE READ" else ([2, 2],)
        )


# -- faults ------------------------------------------------------------------------------------------------------------


class CuttingProxy:
    """A TCP proxy that cuts the connection in which a client says ``word`` for the ``nth`` time, and no other.

    Args:
        forward: whether the server still hears it, and answers; the client does not hear the answer.
    """

    def __init__(
        self, server: PostgresSettings, word: bytes, nth: int, *, forward: bool
    ) -> None:
        self.word, self.left, self.forward = word, nth, forward
        self._target = (server.host, server.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.settings = server.model_copy(
            update={"host": "127.0.0.1", "port": self._listener.getsockname()[1]}
        )

    def __enter__(self) -> "CuttingProxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            client,
            socket.create_connection(self._target) as server,
            selectors.DefaultSelector() as ready,
        ):
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in ready.select():
                    said = key.fileobj.recv(65_536)  # type: ignore[union-attr]
                    spoken = key.fileobj is client and self.word in said
                    self.left -= spoken
                    cut = spoken and self.left == 0
                    if not said or (cut and not self.forward):
                        return
                    key.data.sendall(said)
                    if cut:
                        server.recv(65_536)
                        return


@pytest.mark.slow
def test_a_commit_whose_answer_was_lost_is_looked_up(
    server: PostgresSettings, destination: PostgresDestination, duck: duckdb.DuckDBPyConnection
) -> None:
    """The connection dies after COMMIT was heard: the ledger says that it was done, and so does the delivery."""
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    with CuttingProxy(
        server, b"COMMIT", nth=3, forward=True
    ) as proxy:  # after the preparation's and ON COMMIT DROP
        behind = PostgresDestination(PostgresConfig(), proxy.settings)
        assert behind.deliver(offer_of(frame_of(duck, [{"n": 2}]), generation=2)).written == 1
        assert proxy.left == 0
    assert held(destination, duck) == [{"n": 2}]


@pytest.mark.slow
@pytest.mark.parametrize(("word", "nth"), [(b"COMMIT", 3), (b"COPY ", 1)])
def test_a_connection_lost_before_the_commit_changes_nothing(
    server: PostgresSettings,
    destination: PostgresDestination,
    duck: duckdb.DuckDBPyConnection,
    word: bytes,
    nth: int,
) -> None:
    """The server never hears COMMIT: the old hour stays, the error may be retried, and the retry works."""
    offer = offer_of(frame_of(duck, [{"n": 2}]), generation=2)
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    with CuttingProxy(server, word, nth, forward=False) as proxy:
        behind = PostgresDestination(PostgresConfig(), proxy.settings)
        with pytest.raises(TransientError, match="was lost"):
            behind.deliver(offer)
        assert held(destination, duck) == [{"n": 1}]
        assert behind.deliver(offer).written == 1
    assert held(destination, duck) == [{"n": 2}]


def test_a_terminated_backend_may_be_retried(
    server: PostgresSettings, destination: PostgresDestination, duck: duckdb.DuckDBPyConnection
) -> None:
    """An administrator ends the session in the middle of a load: transient, and the old hour stays."""
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    with pytest.raises(TransientError), database.session(server) as writing:  # noqa: PT012
        destination._lock(writing, HOUR)
        destination._replace(writing, offer_of(frame_of(duck, [{"n": 2}]), generation=2), None)
        ask(server, "SELECT pg_terminate_backend(%s, 5000)", writing.info.backend_pid)
        destination._count(writing, HOUR)
    assert held(destination, duck) == [{"n": 1}]


DELIVER = """
import duckdb
from obs_assets import settings
from obs_assets.destinations.postgres import PostgresConfig, PostgresDestination
from obs_assets_tests.frames import frame_of, offer_of

with duckdb.connect() as connection:
    offer = offer_of(frame_of(connection, [{"n": 2}, {"n": 3}]), generation=2)
    PostgresDestination(PostgresConfig(), settings.load().postgres).deliver(offer)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", ["after_delete", "after_copy", "before_commit", "after_commit"]
)
def test_a_killed_load_is_repaired_by_the_next(
    server: PostgresSettings,
    destination: PostgresDestination,
    duck: duckdb.DuckDBPyConnection,
    point: str,
) -> None:
    """SIGKILL at any point leaves the old hour or the new, table and ledger agreeing; a re-run makes it the new."""
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    assert server.password
    said = {
        "POSTGRES_HOST": server.host,
        "POSTGRES_PORT": str(server.port),
        "POSTGRES_DB": server.database,
        "POSTGRES_USER": server.user,
        "POSTGRES_PASSWORD": server.password.get_secret_value(),
        "OBS_CRASH_AT": f"postgres.{point}",
    }
    killed = subprocess.run(
        [sys.executable, "-c", DELIVER], env={**os.environ, **said}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    holding = destination.holding(HOUR)
    assert holding
    new = point == "after_commit"
    assert holding.rows == (2 if new else 1)
    assert held(destination, duck) == ([{"n": 2}, {"n": 3}] if new else [{"n": 1}])
    again = destination.deliver(offer_of(frame_of(duck, [{"n": 2}, {"n": 3}]), generation=2))
    assert (again.written, again.already_there) == ((0, 2) if new else (2, 0))
    assert held(destination, duck) == [{"n": 2}, {"n": 3}]
    assert ask(
        server,
        "SELECT count(*) FROM pg_class WHERE relname LIKE '%stg%' OR relpersistence <> 'p'",
    ) == [(0,)]


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mistake", "names"),
    [
        ({"password": SecretStr("CANARY_9f")}, "POSTGRES_PASSWORD"),
        ({"user": "nobody_here"}, "POSTGRES_USER"),
        ({"database": "no_such_database"}, "POSTGRES_DB"),
        ({"port": 1}, "POSTGRES_PORT"),
        ({"host": "no-such-host.invalid"}, "POSTGRES_HOST"),
    ],
)
def test_a_server_that_cannot_be_reached_is_named_with_its_setting(
    server: PostgresSettings, mistake: dict[str, Any], names: str
) -> None:
    """One sentence says what to change, and holds no password."""
    destination = PostgresDestination(PostgresConfig(), server.model_copy(update=mistake))
    with pytest.raises(ConfigurationError, match=names) as raised:
        destination.check()
    assert "CANARY" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_server_that_is_down_may_be_back_later(
    server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """Nothing behind the port is a mistake at the check, but no reason for a run to give up."""
    destination = PostgresDestination(PostgresConfig(port=1), server)
    with pytest.raises(TransientError, match="POSTGRES_HOST"):
        destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))


def test_a_role_without_rights_is_a_mistake(
    server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """A role that may not make tables is told so, and nothing is left half made."""
    with connect_postgres(server) as connection:
        role = f"weak_{server.database.removeprefix('test-')}"
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
        try:
            weak = PostgresDestination(
                PostgresConfig(user=role, password=SecretStr("x")), server
            )
            with pytest.raises(ConfigurationError, match="permission denied"):
                weak.deliver(offer_of(frame_of(duck, [{"n": 1}])))
        finally:
            connection.execute(f"DROP ROLE {role}")


def test_the_configuration_wins_over_the_settings(server: PostgresSettings) -> None:
    """What the YAML says of the server counts; what it leaves open comes from the environment."""
    config = PostgresConfig(type="postgresql", host="db.example", password=SecretStr("other"))
    merged = postgres.server_of(config, server)
    assert (merged.host, merged.port) == ("db.example", server.port)
    assert merged.password == SecretStr("other")
    assert "other" not in repr(config)


@pytest.mark.slow
def test_the_offer_is_compared_whole(
    destination: PostgresDestination, duck: duckdb.DuckDBPyConnection
) -> None:
    """Another configuration or other code of the same generation replaces the hour."""
    offer = offer_of(frame_of(duck, [{"n": 1}]))
    destination.deliver(offer)
    for version in (InputVersion(1, "other", "code"), InputVersion(1, "other", "newer")):
        assert destination.deliver(replace(offer, version=version)).written == 1


def test_statements_are_bounded(server: PostgresSettings) -> None:
    """A load names itself and waits for nothing for ever."""
    with database.session(server) as connection:
        database.begin(connection, lock_timeout_s=0.5)
        names = [
            "lock_timeout",
            "statement_timeout",
            "idle_in_transaction_session_timeout",
            "application_name",
        ]
        shown = [connection.execute(f"SHOW {name}").fetchone() for name in names]
        assert shown == [("500ms",), ("30min",), ("1min",), ("obs_assets",)]
        connection.rollback()
        assert connection.execute("SHOW lock_timeout").fetchone() == ("30s",)


def test_the_ledger_is_seen_without_the_table(server: PostgresSettings) -> None:
    """Asking an empty database what it holds makes nothing and breaks nothing."""
    destination = PostgresDestination(PostgresConfig(), server)
    assert destination.holding(HOUR) is None
    assert "the first load creates it" in destination.check()
    with psycopg.connect(
        host=server.host,
        port=server.port,
        dbname=server.database,
        user=server.user,
        password=server.password.get_secret_value() if server.password else None,
    ) as connection:
        assert connection.execute("SELECT to_regnamespace('obs')").fetchone() == (None,)
