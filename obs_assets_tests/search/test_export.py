"""An export has every row once, and its last record proves it."""

import csv
import io
import json
import tracemalloc
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from psycopg import errors, sql

from obs_assets.search.export import Format, export
from obs_assets.search.language import EVERYTHING, parse
from obs_assets.search.questions import Span, list_events
from obs_assets.search.selection import Selection, Tables
from obs_assets_tests.search.conftest import HOURS, WHOLE, Stored
from obs_assets_tests.search.test_counts import within


def exported(stored: Stored, query: str = "", form: Format = "ndjson", **options: Any) -> bytes:
    """The bytes of an export of the whole range."""
    selection = Selection(stored.tables, parse(query), options.pop("span", WHOLE))
    return b"".join(export(stored.connection, selection, form=form, **options))


def test_lines_are_the_events_that_a_search_finds(stored: Stored) -> None:
    """With the same columns and the same text of the event, from the oldest on."""
    *lines, closing = exported(stored).decode().splitlines()
    found = list_events(
        stored.connection, stored.tables.events, EVERYTHING, WHOLE, order="oldest", limit=1000
    )
    assert len(lines) == len(stored.rows)
    for line, event in zip(lines, found.events, strict=True):
        told, searched = json.loads(line), json.loads(event.to_json())
        times = [datetime.fromisoformat(row.pop("timestamp")) for row in (told, searched)]
        assert times == [event.timestamp] * 2
        assert told == searched
        assert event.data in line
    assert json.loads(closing)["obs_export"]["rows"] == len(lines)


def test_the_closing_record_has_the_versions_of_the_ledger(stored: Stored) -> None:
    """Generation and content hash of each hour that the range touches."""
    span = Span(WHOLE.start + timedelta(minutes=20), WHOLE.end)
    *lines, closing = exported(stored, "level:error", span=span).decode().splitlines()
    assert len(lines) == len(within(stored, span, "level:error"))
    record = json.loads(closing)["obs_export"]
    ledger = stored.connection.execute(
        "SELECT hour, generation, content_hash FROM obs.hour_loads ORDER BY hour"
    ).fetchall()
    assert record == {
        "rows": len(lines),
        "hours": {
            hour.isoformat(): {"generation": generation, "content_hash": content_hash}
            for hour, generation, content_hash in ledger
        },
        "complete": True,
    }
    assert len(record["hours"]) == len(HOURS)


def test_a_table_and_batches_have_the_same_rows(stored: Stored) -> None:
    """CSV with a header, Arrow with types; both with the closing record at the end."""
    *lines, closing = exported(stored, "type:note").decode().splitlines()
    rows = [json.loads(line) for line in lines]
    *cells, last = csv.DictReader(io.StringIO(exported(stored, "type:note", "csv").decode()))
    assert last["id"] == closing
    assert not any(value for name, value in last.items() if name != "id")
    for row, cell in zip(rows, cells, strict=True):
        assert (cell["id"], json.loads(cell["data"])) == (row["id"], row["data"])
        assert cell["worker_id"] == (row["worker_id"] or "")
    reader = pa.ipc.open_stream(exported(stored, "type:note", "arrow"))
    *batches, (nothing, metadata) = reader.iter_batches_with_custom_metadata()
    told: list[dict[str, Any]] = [row for batch, _ in batches for row in batch.to_pylist()]
    assert (nothing.num_rows, metadata["obs_export"].decode()) == (0, closing)
    assert [row["id"] for row in told] == [row["id"] for row in rows]
    assert [json.loads(row["data"]) for row in told] == [row["data"] for row in rows]
    assert told[0]["weight"] == rows[0]["weight"]


@pytest.fixture
def odd(stored: Stored) -> Any:
    """A table of an hour with texts that formats treat in a special way."""
    connection = stored.connection
    connection.execute("DROP TABLE IF EXISTS pg_temp.odd")
    connection.execute("CREATE TEMPORARY TABLE odd (LIKE events INCLUDING DEFAULTS)")
    texts = [
        "=1+1",
        "+x",
        "-x",
        "@x",
        "\ttab",
        'say "a\\b"',
        "two\nlines",
        "a\\\\b\\n",
        "",
        "\u2028",
        "x" * 1_300_000,
        None,
    ]
    for number, text in enumerate(texts):
        connection.execute(
            "INSERT INTO odd (timestamp, row_uid, event_type, error, weight, hour, data) "
            "VALUES (%s, %s, 'odd', %s, 1, %s, %s)",
            [
                HOURS[0].start,
                f"{number:032x}",
                text,
                HOURS[0].start,
                json.dumps({"text": text, "n": 12345678901234567890})[:-1] + ', "m": 0.10}',
            ],
        )
    tables = Tables(
        sql.Identifier("odd"),
        stored.tables.statistics,
        stored.tables.workers,
        stored.tables.key,
    )
    yield Selection(tables, EVERYTHING, WHOLE), texts
    connection.execute("DROP TABLE odd")


def test_texts_and_numbers_stay_as_they_are(stored: Stored, odd: Any) -> None:
    """Backslashes, quotes, line ends and digits; a formula gets an apostrophe in CSV, if it is asked for."""
    selection, texts = odd
    *lines, _ = b"".join(export(stored.connection, selection)).decode().split("\n")[:-1]
    assert [json.loads(line)["error"] for line in lines] == texts
    assert [json.loads(line)["data"]["text"] for line in lines] == texts
    assert all('"n": 12345678901234567890' in line and '"m": 0.10' in line for line in lines)
    for escape in (True, False):
        data = b"".join(
            export(stored.connection, selection, form="csv", escape_formulas=escape)
        ).decode()
        csv.field_size_limit(10_000_000)
        *cells, _ = csv.DictReader(io.StringIO(data, newline=""))
        told = [cell["error"] for cell in cells]
        is_formula = [escape and bool(text) and text[0] in "=+-@\t" for text in texts]
        signs = ["'" if escaped else "" for escaped in is_formula]
        expected = [sign + (text or "") for sign, text in zip(signs, texts, strict=True)]
        assert told == expected
    table = pa.ipc.open_stream(b"".join(export(stored.connection, selection, form="arrow")))
    events = table.read_all().to_pylist()
    assert [event["error"] for event in events] == texts
    assert [json.loads(event["data"])["text"] for event in events] == texts
    assert {event["timestamp"] for event in events} == {HOURS[0].start}


def test_an_export_that_fails_has_no_closing_record(stored: Stored) -> None:
    """The generator raises, so that the stream breaks off; the connection can be used again."""
    stored.connection.execute(
        "CREATE OR REPLACE TEMPORARY VIEW broken AS SELECT * FROM events "
        "WHERE hour < '2025-12-05' OR 1 / (extract(epoch FROM hour)::int - extract(epoch FROM hour)::int) = 1"
    )
    tables = Tables(
        sql.Identifier("broken"),
        stored.tables.statistics,
        stored.tables.workers,
        stored.tables.key,
    )
    stream = export(stored.connection, Selection(tables, EVERYTHING, WHOLE))
    # The hours of the first day are read together.
    assert next(stream).count(b"\n") == 36
    with pytest.raises(errors.DivisionByZero):
        next(stream)
    assert len(exported(stored).splitlines()) == len(stored.rows) + 1


def test_an_export_that_is_closed_early_leaves_no_transaction(stored: Stored) -> None:
    """The client went away in the middle of an hour."""
    stream = export(stored.connection, Selection(stored.tables, EVERYTHING, WHOLE))
    next(stream)
    stream.close()
    assert stored.connection.info.transaction_status == 0
    assert len(exported(stored).splitlines()) == len(stored.rows) + 1


@pytest.mark.slow
@pytest.mark.parametrize("form", ["ndjson", "csv", "arrow"])
def test_an_export_of_many_rows_takes_little_memory(stored: Stored, form: Format) -> None:
    """A hundred thousand rows of 400 bytes go through a few megabytes."""
    many = (
        "CREATE OR REPLACE TEMPORARY VIEW many AS SELECT events.* FROM events, generate_series(1, 5000) "
        "WHERE hour < '2025-12-04 11:00Z'"
    )
    stored.connection.execute(many.encode())
    tables = Tables(
        sql.Identifier("many"),
        stored.tables.statistics,
        stored.tables.workers,
        stored.tables.key,
    )
    tracemalloc.start()
    size = 0
    for data in export(stored.connection, Selection(tables, EVERYTHING, WHOLE), form=form):
        size += len(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size > 12_000_000
    assert peak < 12_000_000


def test_an_export_reads_with_the_rights_of_a_role(stored: Stored) -> None:
    """A role without rights reads nothing, and the role ends with the snapshot."""
    with pytest.raises(errors.InsufficientPrivilege):
        exported(stored, role="pg_monitor")
    ((user, login),) = stored.connection.execute("SELECT current_user, session_user").fetchall()
    assert user == login
