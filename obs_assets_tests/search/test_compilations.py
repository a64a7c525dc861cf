"""A query means the same in PostgreSQL, in DuckDB and in Python."""

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from obs_assets.search import archive
from obs_assets.search.duckdb import matching_rows, superset
from obs_assets.search.language import Query, negated, parse
from obs_assets.search.postgres import condition
from obs_assets.search.predicate import matches, read_event
from obs_assets.search.rows import COLUMNS, QueryValueError
from obs_assets.settings import PostgresSettings, Settings
from obs_assets.storage.postgres import Connection, session
from obs_assets_tests.search.queries import documents, queries, rows

NO_COLUMNS: dict[str, Any] = dict.fromkeys(COLUMNS)

TYPES = {"text": "text", "level": "text", "number": "numeric"}


@pytest.fixture(scope="module")
def connection(servers: Settings) -> Iterator[Connection]:
    """A connection with an empty table ``events`` of the columns that a query can name."""
    assert isinstance(servers.postgres, PostgresSettings)
    with session(servers.postgres, autocommit=True) as opened:
        columns = ", ".join(f"{name} {TYPES[kind]}" for name, kind in COLUMNS.items())
        opened.execute(f"CREATE TEMPORARY TABLE events ({columns}, data jsonb)".encode())
        yield opened


def stored(row: dict[str, Any], document: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """A row and its event without U+0000, as the table stores them."""
    text = json.dumps([row, document]).replace("\\u0000", "\\ufffd")
    clean_row, clean_document = json.loads(text)
    return clean_row, json.dumps(clean_document)


def found(connection: Connection, query: Query, row: dict[str, Any], event: str) -> bool:
    """Whether PostgreSQL finds the row."""
    connection.execute("TRUNCATE events")
    names = sql.SQL(", ").join(map(sql.Identifier, [*row, "data"]))
    values = sql.SQL(", ").join(sql.Placeholder() * (len(row) + 1))
    insert = sql.SQL("INSERT INTO events ({}) VALUES ({})").format(names, values)
    connection.execute(insert, [*row.values(), event])
    either = sql.SQL("SELECT count(*) FROM events WHERE ({}) IS DISTINCT FROM ({} IS TRUE)")
    opposite = condition(negated(query))
    # A row matches a query or its opposite.
    assert connection.execute(either.format(opposite, condition(query))).fetchall() == [(1,)]
    select = sql.SQL("SELECT count(*) FROM events WHERE {}").format(condition(query))
    return bool(connection.execute(select).fetchall()[0][0])


several = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection."""
    with duckdb.connect() as opened:
        opened.execute("SET threads = 1")
        yield opened


DUCK_TYPES = {"text": "VARCHAR", "level": "VARCHAR", "number": "DECIMAL(28, 12)"}


def found_in_frame(
    duck: duckdb.DuckDBPyConnection, query: Query, row: dict[str, Any], event: str
) -> bool:
    """Whether DuckDB and the predicate find the row in a frame."""
    columns = [f"?::{DUCK_TYPES[COLUMNS[name]]} AS {name}" for name in row]
    select = f"SELECT {', '.join(columns)}, ? AS event"
    frame = duck.sql(select, params=[*row.values(), event])
    return len(list(matching_rows(frame, query))) == 1


def found_by_pasted(
    duck: duckdb.DuckDBPyConnection, query: Query, row: dict[str, Any], event: str
) -> bool:
    """Whether the SQL that a person pastes into DuckDB finds the row."""
    columns = [f"?::{DUCK_TYPES[COLUMNS[name]]} AS {name}" for name in row]
    select = f"SELECT {', '.join(columns)}, ?::JSON AS event"
    frame = duck.sql(select, params=[*row.values(), event])
    return len(frame.filter(archive.condition(query)).fetchall()) == 1


def agree(
    connection: Connection,
    duck: duckdb.DuckDBPyConnection,
    query: Query,
    row: dict[str, Any],
    document: dict[str, Any],
) -> None:
    """Assert that all find the row, or none does; JSON with and without escapes."""
    row, event = stored(row, document)
    expected = matches(query, row, read_event(event))
    assert found(connection, query, row, event) == expected
    assert found_in_frame(duck, query, row, event) == expected
    plain = json.dumps(json.loads(event), ensure_ascii=False, separators=(",", ":"))
    assert found_in_frame(duck, query, row, plain) == expected


@pytest.mark.slow
@several
@given(query=queries, row=rows, document=documents)
def test_postgres_duckdb_and_python_agree(
    connection: Connection,
    duck: duckdb.DuckDBPyConnection,
    query: Query,
    row: dict[str, Any],
    document: dict[str, Any],
) -> None:
    """On any event and any query; the opposite of a query finds all other rows."""
    agree(connection, duck, query, row, document)


@pytest.mark.slow
@settings(several, max_examples=100)
@given(query=queries, row=rows, document=documents)
def test_the_pasted_sql_agrees(
    duck: duckdb.DuckDBPyConnection, query: Query, row: dict[str, Any], document: dict[str, Any]
) -> None:
    """The SQL that a person pastes into DuckDB finds the rows that the query means."""
    row, event = stored(row, document)
    expected = matches(query, row, read_event(event))
    assert found_by_pasted(duck, query, row, event) == expected


@pytest.mark.soak
@pytest.mark.timeout(3600)
@settings(several, max_examples=10_000)
@given(query=queries, row=rows, document=documents)
def test_they_agree_on_ten_thousand_events(
    connection: Connection,
    duck: duckdb.DuckDBPyConnection,
    query: Query,
    row: dict[str, Any],
    document: dict[str, Any],
) -> None:
    """The same for a night."""
    agree(connection, duck, query, row, document)


def test_duckdb_rules_rows_out(duck: duckdb.DuckDBPyConnection) -> None:
    """Each form has SQL of its own, so that an archive is not decided row by row in Python."""
    event = json.dumps({"a": {"b": "x"}, "message": "connection lost"})
    row = NO_COLUMNS | {"event_type": "task", "duration_ms": 5, "error": "refused"}
    select = ", ".join(f"?::{DUCK_TYPES[COLUMNS[name]]} AS {name}" for name in row)
    frame = duck.sql(f"SELECT {select}, ? AS event", params=[*row.values(), event])
    for text in (
        "type:other",
        "-type:task",
        "duration:>6",
        "duration:<4",
        "duration:6",
        "c:*",
        "a.b:y",
    ):
        assert frame.filter(superset(parse(text))).fetchall() == [], text
    for text in (
        "timeout",
        "type:o*",
        "trace:*",
        "type:task c:1",
        "type:x OR weight:>1",
        "a.b:z*",
    ):
        assert frame.filter(superset(parse(text))).fetchall() == [], text
    for text in ("type:task", "LOST", "REFUSED", "duration:5", "a.b:x", "-trace:*", "-(a.b:y)"):
        assert len(frame.filter(superset(parse(text))).fetchall()) == 1, text


@pytest.mark.parametrize(
    ("text", "event", "expected"),
    [
        ("n:5", {"n": 5}, True),
        ("n:5", {"n": "5"}, True),
        ("n:5", {"n": 5.0}, True),
        ("n:5.0", {"n": "5"}, False),
        ("n:true", {"n": True}, True),
        ("n:null", {"n": None}, True),
        ("n:*", {"n": None}, False),
        ("n:*", {"n": {}}, True),
        ("n:*", {}, False),
        ("-n:5", {}, True),
        ("n:>500", {"n": 501}, True),
        ("n:>500", {"n": "501"}, False),
        ("n:>b", {"n": "c"}, True),
        ("n:[1 TO 5]", {"n": 5}, True),
        ("n:99999999999999999999", {"n": 10**20 - 1}, True),
        ("n:99999999999999999999", {"n": 10**20}, False),
        ("tags:new", {"tags": ["old", "new"]}, True),
        ("tags:ne*", {"tags": ["old", "new"]}, True),
        ("a.b:1", {"a": {"b": 1}}, True),
        ("a.b:1", {"a.b": 1}, True),
        ("a.b:1", {"a": [{"b": 2}, {"b": 1}]}, True),
        ("LOST", {"message": "connection lost"}, True),
        ("größe", {"msg": "GRÖßE"}, True),
        ("lost", {"other": "connection lost"}, False),
        ("lost", {"message": {"text": "lost"}}, False),
    ],
)
def test_meaning_of_a_path(
    connection: Connection, text: str, event: dict[str, Any], expected: bool
) -> None:
    """Numbers equal their text, a list matches by any element, an absent key matches nothing but NOT."""
    query, document = parse(text), json.dumps(event)
    assert found(connection, query, NO_COLUMNS, document) is expected
    assert matches(query, NO_COLUMNS, read_event(document)) is expected


@pytest.mark.parametrize(
    ("text", "row", "expected"),
    [
        ("level:WARN", {"event_level": "warning"}, True),
        ("level:err*", {"event_level": "error"}, True),
        ("level:Odd", {"event_level": "odd"}, True),
        ("duration:>=1500", {"duration_ms": 1500}, True),
        ("cost:[0.1 TO 0.3]", {"cost_usd": 0.25}, True),
        ("master:*", {"master_type": None}, False),
        ("-master:x", {"master_type": None}, True),
        ("trace:abc", {"trace_id": "abc"}, True),
        ("type:Task", {"event_type": "task"}, False),
        ("refused", {"error": "Connection REFUSED"}, True),
    ],
)
def test_meaning_of_a_column(
    connection: Connection, text: str, row: dict[str, Any], expected: bool
) -> None:
    """Aliases name columns; every word for a level finds it; other texts are compared exactly."""
    query, whole = parse(text), NO_COLUMNS | row
    assert found(connection, query, whole, "{}") is expected
    assert matches(query, whole, {}) is expected


INJECTIONS = [
    "'; DROP TABLE events; --",
    "x' OR '1'='1",
    '" ? (@ == 1) || $',
    "\\",
    "%s",
    "{0}",
    "$1",
    "\x00",
    "') ? (true",
]


@given(text=st.sampled_from(INJECTIONS), field=st.sampled_from((*INJECTIONS, "type", "a")))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_value_stays_a_value(connection: Connection, text: str, field: str) -> None:
    """Signs of SQL, jsonpath and format strings in names and values are looked for as they are."""
    event = json.dumps({field: text}).replace("\\u0000", "\\ufffd")
    query = parse(f"{_quoted(field)}:{_quoted(text)}")
    row = NO_COLUMNS | {"event_type": text.replace("\0", "\ufffd")}
    assert found(connection, query, row, event)
    assert matches(query, row, read_event(event))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@pytest.mark.parametrize("text", ["duration:soon", "cost:>a", "-weight:x"])
def test_a_number_is_not_compared_with_a_text(connection: Connection, text: str) -> None:
    """The message names the column and shows how to write it."""
    with pytest.raises(QueryValueError, match=r"is a number, and .* is not: write for example"):
        condition(parse(text))
    with pytest.raises(QueryValueError, match=r"is a number, and .* is not: write for example"):
        matches(parse(text), NO_COLUMNS, {})
