"""The event is the truth; its columns, its identity and the hash of an hour follow from it."""

import hashlib
import json
import random
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obs_assets.events import (
    ALIASES,
    CONTENT_HASH,
    LINEAGE,
    PROMOTED,
    append_fields,
    count_by,
    one_of,
    quote,
    row_uids,
    with_columns,
)
from obs_assets.severities import GRAVE, STATUSES
from obs_assets.storage.engine import connect
from obs_assets_tests.frames import frame_of

many = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    with connect(tmp_path_factory.mktemp("spill")) as opened:
        yield opened


def columns(
    connection: duckdb.DuckDBPyConnection, event: dict[str, Any] | str
) -> dict[str, Any]:
    """The promoted columns of an event that are not NULL."""
    (row,) = frame_of(connection, [event]).project(", ".join(PROMOTED)).fetchall()
    return {name: value for name, value in zip(PROMOTED, row, strict=True) if value is not None}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({}, {}),
        ({"id": "a", "event_id": "b", "_id": "c"}, {"event_id": "a"}),
        ({"id": None, "event_id": "b", "_id": "c"}, {"event_id": "b"}),
        ({"_id": 7}, {"event_id": "7"}),
        ({"type": "door", "event_type": "lamp"}, {"event_type": "door"}),
        ({"event_type": "lamp"}, {"event_type": "lamp"}),
        ({"level": "WARN"}, {"event_level": "warning"}),
        ({"severity": "Error"}, {"event_level": "error"}),
        ({"level": "info", "severity": "error"}, {"event_level": "info"}),
        ({"status": "Critical"}, {"event_level": "critical", "status": "Critical"}),
        ({"status": "done"}, {"status": "done"}),
        ({"_source": {"name": "agents"}, "source": "other"}, {"source_name": "agents"}),
        ({"_source": "text", "source": "other"}, {"source_name": "other"}),
        ({"master": "m", "worker": "w"}, {"master_type": "m", "worker_type": "w"}),
        (
            {"worker_id": 3, "trace_id": "t", "session_id": "s"},
            {"worker_id": "3", "trace_id": "t", "session_id": "s"},
        ),
        ({"error": "broken"}, {"error": "broken"}),
        *(
            ({"error": nothing, "error_message": "e"}, {"error": "e"})
            for nothing in (None, "", False, 0)
        ),
        ({"error": {"code": 5}}, {"error": '{"code":5}'}),
        ({"duration_ms": 12, "duration": 13}, {"duration_ms": 12}),
        ({"duration": "14"}, {"duration_ms": 14}),
        ({"duration_ms": "soon"}, {}),
        ({"duration_ms": 2**63}, {}),
        ({"cost_usd": 0.1}, {"cost_usd": Decimal("0.1")}),
        ({"cost_estimate": {"total_cost_usd": 0.25}}, {"cost_usd": Decimal("0.25")}),
        ({"cost_estimate": {"total_cost_usd": 0.25}, "cost": 9}, {"cost_usd": Decimal(9)}),
        ({"cost": 9, "cost_usd": 1}, {"cost_usd": Decimal(1)}),
        ({"cost": "1e99"}, {}),
        ({"log": "text", "event": "user_login", "trace": 1, "service": None}, {}),
        ({"event": {"action": {"a": 1}}}, {"event_type": '{"a":1}'}),
        ({"log.level": "WARN", "log": {"level": "error"}}, {"event_level": "warning"}),
        ({"@level": "error", "@module": "core"}, {"event_level": "error"}),
        ({"LevelDisplayName": "Critical", "Level": 1}, {"event_level": "critical"}),
        ({"level": None, "severityText": "Error"}, {"event_level": "error"}),
        ({"id": "x\u0000y"}, {"event_id": "x\u0000y"}),
        ({"severityNumber": 17}, {"event_level": "error"}),
        ({"severity_number": "4"}, {"event_level": "trace"}),
        ({"severityNumber": 24, "severityText": "Error"}, {"event_level": "error"}),
        ({"severityNumber": 0, "status": "fatal"}, {"event_level": "fatal", "status": "fatal"}),
        ({"severityNumber": 25}, {}),
        ({"severityNumber": [9]}, {}),
        ({"event": {"duration": 1_499_999_999}}, {"duration_ms": 1500}),
        ({"event.duration": 400_000}, {"duration_ms": 0}),
        ({"event": {"duration": 2_000_000}, "duration": 3}, {"duration_ms": 3}),
        ({"event": {"duration": "soon"}}, {}),
    ],
)
def test_columns_from_the_alternatives(
    connection: duckdb.DuckDBPyConnection, event: dict[str, Any], expected: dict[str, Any]
) -> None:
    """The first alternative that is there fills the column; what does not fit stays in the event alone."""
    assert columns(connection, event) == expected


OPENTELEMETRY = {
    "severityText": "WARN",
    "traceId": "0af7",
    "spanId": "b7ad",
    "eventName": "cart.checkout",
    "body": {},
}
ECS = {
    "@timestamp": "2025-12-04T10:00:00Z",
    "log": {"level": "ERROR", "logger": "web"},
    "event": {"action": "login", "id": "e1", "outcome": "failure"},
    "trace": {"id": "t1"},
    "session": {"id": "s1"},
    "service": {"name": "shop"},
    "error": {"message": "no"},
}
CLOUDTRAIL = {
    "eventID": "6f8a",
    "eventName": "PutObject",
    "eventSource": "s3.amazonaws.com",
    "errorCode": "AccessDenied",
    "errorMessage": "Access Denied",
}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            OPENTELEMETRY,
            {"event_level": "warning", "trace_id": "0af7", "event_type": "cart.checkout"},
        ),
        (
            ECS,
            {
                "event_id": "e1",
                "event_type": "login",
                "event_level": "error",
                "source_name": "shop",
                "trace_id": "t1",
                "session_id": "s1",
                "status": "failure",
                "error": '{"message":"no"}',
            },
        ),
        (
            {
                "log.level": "info",
                "event.action": "login",
                "trace.id": "t1",
                "error.message": "no",
            },
            {"event_level": "info", "event_type": "login", "trace_id": "t1", "error": "no"},
        ),
        (
            CLOUDTRAIL,
            {
                "event_id": "6f8a",
                "event_type": "PutObject",
                "source_name": "s3.amazonaws.com",
                "error": "Access Denied",
            },
        ),
    ],
    ids=["opentelemetry", "ecs", "ecs-flat", "cloudtrail"],
)
def test_other_conventions(
    connection: duckdb.DuckDBPyConnection, event: dict[str, Any], expected: dict[str, Any]
) -> None:
    """OpenTelemetry logs, ECS, nested or as its loggers write it, and CloudTrail fill the same columns."""
    assert columns(connection, event) == expected


def test_columns_need_no_join(connection: duckdb.DuckDBPyConnection) -> None:
    """A join loses the order of rows, and computes columns that no query reads: DuckDB makes a join of IN."""
    frame = frame_of(connection, [{"level": "x"}])
    ((_, plan),) = frame.query("events", "EXPLAIN FROM events").fetchall()
    assert "order by" in plan.lower()
    assert "join" not in plan.lower()


@pytest.mark.slow
@pytest.mark.parametrize("name", PROMOTED)
def test_aliases_are_looked_at_in_their_order(
    connection: duckdb.DuckDBPyConnection, name: str
) -> None:
    """Of all aliases of a column, each wins over those after it in the table."""
    aliases = list(ALIASES[name])
    for place, alias in enumerate(aliases):
        event = {other: f"{10 + n}" for n, other in enumerate(aliases[place:])}
        expected = {"10", 10}
        if name == "event_level":
            event = dict.fromkeys(aliases[place:], "Notice") | {alias: "Error"}
            if "s" in event:
                event["s"] = event["s"][0].replace("N", "I")
            expected = {"error"}
        if alias == "event.duration":
            expected = {0}
        assert columns(connection, event)[name] in expected, alias


def test_the_page_has_the_table() -> None:
    """What operators read about columns is what happens."""
    page = (Path(__file__).parent.parent / "docs" / "landing.md").read_text()
    for column, aliases in ALIASES.items():
        assert f"| `{column}` | {', '.join(f'`{alias}`' for alias in aliases)} |" in page


@pytest.mark.parametrize(
    ("event", "level"),
    [
        ({"level": 50, "msg": "pino"}, "error"),
        ({"level": 30, "msg": "pino"}, "info"),
        ({"level": 35, "msg": "a level of one's own"}, "info"),
        ({"level": 60, "msg": "bunyan"}, "fatal"),
        ({"level": 400, "level_name": "ERROR", "channel": "app"}, "error"),
        ({"level": 250, "level_name": "NOTICE"}, "notice"),
        ({"level": 550}, "alert"),
        ({"level": 600}, "emergency"),
        ({"level": 3, "short_message": "GELF"}, "error"),
        ({"level": 0, "short_message": "GELF"}, "emergency"),
        ({"level": 9}, None),
        ({"level": 9999, "severity": "warning"}, "warning"),
        ({"PRIORITY": "3", "MESSAGE": "journald"}, "error"),
        ({"PRIORITY": "7"}, "debug"),
        ({"severity": 4}, "warning"),
        ({"severity": "CRITICAL", "textPayload": "GCP"}, "critical"),
        ({"severity": "DEFAULT"}, None),
        ({"severity": 500}, "error"),
        ({"level": "dpanic"}, "critical"),
        ({"level": "panic"}, "fatal"),
        ({"level": "emerg"}, "emergency"),
        ({"level": "crit"}, "critical"),
        ({"level": "err"}, "error"),
        ({"level": "SEVERE", "loggerName": "java.util.logging"}, "error"),
        ({"level": "FINEST"}, "trace"),
        ({"level": "ERROR+4", "msg": "slog"}, "error"),
        ({"level": "DEBUG-2", "msg": "slog"}, "debug"),
        ({"severityText": "WARN3"}, "warning"),
        ({"severityNumber": 13}, "warning"),
        ({"severityNumber": 25}, None),
        ({"s": "E", "c": "STORAGE"}, "error"),
        ({"s": "D2", "c": "QUERY"}, "debug"),
        ({"s": "Eve", "c": "a name"}, None),
        ({"error_severity": "PANIC"}, "fatal"),
        ({"error_severity": "DEBUG1"}, "debug"),
        ({"@t": "2026-11-25T09:00:00Z", "@mt": "x", "@l": "Warning"}, "warning"),
        ({"@t": "2026-11-25T09:00:00Z", "@mt": "x"}, "info"),
        ({"@t": "2026-11-25T09:00:00Z"}, None),
        ({"levelname": "CRITICAL", "levelno": 50}, "critical"),
        ({"levelno": 40}, "error"),
        ({"level": "Informational", "category": "Azure"}, "info"),
        ({"level": "", "severity": "err"}, "error"),
        ({"level": " Warn "}, "warning"),
        ({"level": "Urgent"}, "urgent"),
        ({"severity_text": "stderr", "severity_number": 17}, "error"),
        ({"severityText": "stdout", "severityNumber": 9}, "info"),
        ({"level": "audit", "severity": "WARNING"}, "warning"),
        ({"level": "http", "levelname": "nope", "level_name": "ERROR"}, "error"),
        ({"level": "app", "Level": "Error"}, "error"),
        ({"level": "app", "priority": "high"}, "app"),
        ({"level": "page", "severity": "sev2"}, "page"),
        ({"level": "page", "status": "error"}, "page"),
        ({"level": "L3", "log.level": "warn"}, "warning"),
        ({"severity": "stderr", "PRIORITY": "6"}, "info"),
        ({"level": "console", "log": {"level": "fatal"}}, "fatal"),
        ({"msg": "no level"}, None),
        ({"level": "W", "tag": "logcat"}, "warning"),
        ({"severity": "E"}, "error"),
        ({"level": "[error]"}, "error"),
        ({"level": "*WARN*"}, "warning"),
        ({"level": "info:"}, "info"),
        ({"level": "Failure", "channel": "Security"}, "error"),
        ({"level": "SEV1"}, "sev1"),
        ({"severity": {"name": "error"}}, "error"),
        ({"severity": {"number": 17, "text": "WARN"}}, "warning"),
        ({"level": {"standardLevel": "ERROR", "intLevel": 200}}, "error"),
        ({"level": {"a": 1}}, None),
        ({"level": ["ERROR"]}, None),
        ({"level": "\x1b[31mERROR\x1b[39m"}, "error"),
        ({"level": "\x1b[1m[warn]\x1b[0m"}, "warning"),
        ({"level": "LogLevel.Critical"}, "critical"),
        ({"level": "SEVERITY_WARNING"}, "warning"),
        ({"level": "LOG_ERR"}, "error"),
        ({"level": "AUDIT_FAILURE"}, "error"),
        ({"level": "40000"}, "error"),
        ({"level": "50.0"}, "error"),
        ({"level": "null"}, None),
        ({"severityNumber": "SEVERITY_NUMBER_ERROR2"}, "error"),
        ({"severityNumber": "loud"}, None),
        ({"logLevel": "Warn"}, "warning"),
        ({"SeverityText": "ERROR", "Body": "x"}, "error"),
        ({"severity_label": "Error"}, "error"),
        ({"messageType": "Fault"}, "error"),
        ({"messageType": "DATA_MESSAGE"}, None),
        ({"attributes": {"level": "error"}}, "error"),
        ({"labels": {"severity": "critical"}}, "critical"),
        ({"labels": {"severity": "page"}}, None),
        ({"record": {"level": {"name": "ERROR", "no": 40}}}, "error"),
        ({"level": "info", "attributes": {"level": "error"}}, "info"),
        ({"severity": ["error"], "level_name": "NOTICE"}, "notice"),
        ({"log_level": 30}, "info"),
        ({"lvl": 9000}, None),
        ({"priority": "Critical", "rule": "Falco"}, "critical"),
        ({"priority": "high", "job": "a job queue"}, None),
        ({"priority": 3}, None),
        ({"priority": {"name": "error"}}, None),
        ({"PRIORITY": "3", "priority": "Debug"}, "error"),
        ({"LogLevel": "Information", "Category": ".NET"}, "info"),
        ({"Level": "Error", "level": "warn"}, "warning"),
        ({"Level": 4}, None),
        ({"detected_level": "warn"}, "warning"),
        ({"lvl": "eror", "t": "log15"}, "error"),
        ({"lvl": "dbug", "t": "log15"}, "debug"),
        ({"syslog": {"severity_label": "Error"}}, "error"),
        ({"syslog": {"severity": "err"}, "fields": {"severity": "x"}}, "error"),
    ],
)
def test_levels_of_loggers(
    connection: duckdb.DuckDBPyConnection, event: dict[str, object], level: str | None
) -> None:
    """Other names, words and scales are the same levels; what is on no scale, or names none, is no level."""
    assert columns(connection, event).get("event_level") == level
    assert not {"info", "warning"} & set(GRAVE)


@pytest.mark.parametrize("level", STATUSES)
def test_status_is_a_level_where_it_names_one(
    connection: duckdb.DuckDBPyConnection, level: str
) -> None:
    """Each of the known words, in any case."""
    expected = "warning" if level == "warn" else level
    assert columns(connection, {"status": level.upper()})["event_level"] == expected


@pytest.mark.slow
@many
@given(
    event=st.dictionaries(
        st.sampled_from(
            [
                "id",
                "type",
                "level",
                "status",
                "error",
                "duration",
                "cost",
                "cost_estimate",
                "_source",
                "log",
                "event",
            ]
        ),
        json_values,
    )
)
def test_no_event_makes_the_columns_fail(
    connection: duckdb.DuckDBPyConnection, event: dict[str, Any]
) -> None:
    """Whatever the types of its fields, an event has columns, and its own text is untouched."""
    text = json.dumps(event)
    ((told,),) = frame_of(connection, [text]).project("event").fetchall()
    assert told == text


@pytest.mark.slow
def test_rows_keep_their_order_and_what_they_carry(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """Over many row groups and all threads; lineage comes first and the event last."""
    frame = connection.sql(
        "SELECT md5(range::VARCHAR) AS row_uid, now() AS event_time, 'f' AS file_id, range AS file_offset, "
        "now() AS landed_at, 0.5 AS weight, '{\"worker_id\":' || range || '}' AS event FROM range(300_000)"
    )
    result = with_columns(frame, "weight")
    assert result.columns == [*LINEAGE, *PROMOTED, "weight", "event"]
    rows = result.project("file_offset, worker_id").fetchall()
    assert rows == [(n, str(n)) for n in range(300_000)]


def test_identity_is_where_a_row_came_from() -> None:
    """Digits of the file and of the offset: rows at different places differ, whatever they hold."""
    file_ids = [uuid.uuid4().hex for _ in range(3)]
    offsets = [0, 1, 0xABC, (1 << 32) + 1, (1 << 48) - 1]
    places = [(owner, offset) for owner in (2, 0, 1) for offset in offsets]
    owners, file_offsets = zip(*places, strict=True)
    uids = row_uids(file_ids, np.array(owners, np.int32), np.array(file_offsets)).to_pylist()
    assert uids == [f"{file_ids[owner][-20:]}{offset:012x}" for owner, offset in places]
    assert row_uids([], np.zeros(0, np.int32), np.zeros(0, np.int64)).to_pylist() == []


def content_hash(connection: duckdb.DuckDBPyConnection, rows: list[tuple[str, str]]) -> str:
    query = f"SELECT {CONTENT_HASH} FROM (SELECT unnest(?::VARCHAR[]) AS row_uid, unnest(?::VARCHAR[]) AS event)"
    parameters = [[uid for uid, _ in rows], [event for _, event in rows]]
    return str(connection.execute(query, parameters).fetchall()[0][0])


@many
@given(
    rows=st.lists(
        st.tuples(st.text("0123456789abcdef", min_size=32, max_size=32), st.text()), max_size=20
    )
)
def test_content_hash_is_that_of_the_multiset(
    connection: duckdb.DuckDBPyConnection, rows: list[tuple[str, str]]
) -> None:
    """The order does not matter, each row does; anybody can compute it with md5."""
    digests = [hashlib.md5((uid + event).encode()).digest() for uid, event in rows]
    expected = f"{sum(int.from_bytes(digest[:8], 'little') for digest in digests) % 2**64:016x}"
    shuffled = random.Random(1).sample(rows, len(rows))
    assert content_hash(connection, rows) == content_hash(connection, shuffled) == expected
    assert not rows or content_hash(connection, rows[1:]) != expected
    assert not rows or content_hash(connection, [*rows, rows[0]]) != expected


def test_content_hash_of_an_empty_hour(connection: duckdb.DuckDBPyConnection) -> None:
    """Sixteen zeros, not NULL."""
    assert content_hash(connection, []) == "0" * 16


@many
@given(
    event=st.dictionaries(st.text(max_size=4), json_values, max_size=3),
    added=st.dictionaries(st.sampled_from("abc"), json_values, max_size=3),
    indent=st.sampled_from([None, 1]),
)
def test_appended_fields_come_last(
    connection: duckdb.DuckDBPyConnection,
    event: dict[str, Any],
    added: dict[str, Any],
    indent: int | None,
) -> None:
    """To an empty event as to any other; the event's own text stays as it is."""
    text = json.dumps(event, indent=indent)
    fields = "".join(f",{json.dumps(key)}:{json.dumps(value)}" for key, value in added.items())
    query = f"SELECT {append_fields('event', 'fields')} FROM (SELECT ? AS event, ? AS fields)"
    ((told,),) = connection.execute(query, [text, fields]).fetchall()
    assert json.loads(told, object_pairs_hook=list) == [
        *json.loads(text, object_pairs_hook=list),
        *json.loads(json.dumps(added), object_pairs_hook=list),
    ]
    assert told.startswith(text[:-1] if event else "{")


@many
@given(text=st.text())
def test_quoted_text_is_text(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    """Nothing in a text ends its literal."""
    if "\0" not in text:
        assert connection.sql(f"SELECT {quote(text)}").fetchall() == [(text,)]


def test_one_of(connection: duckdb.DuckDBPyConnection) -> None:
    """True for the values, false for others and for NULL."""
    wanted = one_of("v", ["a", "it's"])
    query = f"SELECT {wanted} FROM (SELECT unnest(['a', 'it''s', 'b', NULL]) AS v)"
    assert [row[0] for row in connection.sql(query).fetchall()] == [True, True, False, False]


def test_count_by(connection: duckdb.DuckDBPyConnection) -> None:
    """Largest first, ties by name, NULLs left out."""
    frame = connection.sql("SELECT unnest(['b', 'c', 'a', 'c', NULL]) AS v")
    assert list(count_by(frame, "v").items()) == [("c", 2), ("a", 1), ("b", 1)]
    assert count_by(frame.filter("false"), "v") == {}
