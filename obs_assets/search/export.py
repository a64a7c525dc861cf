"""Every event of a range that matches, as a stream of bytes: JSON lines, CSV or Arrow.

Some hours are read after the others, each in one snapshot, so that an export of any size holds a few
thousand rows in memory and keeps no old rows alive in the table. The last record says how many rows were
written and which version of each hour they are of; a stream without it was cut.
"""

import contextlib
import io
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, LiteralString, Protocol, TypeAlias

import pyarrow as pa
from psycopg import sql

from obs_assets.hours import ONE_HOUR
from obs_assets.search.postgres import condition
from obs_assets.search.questions import Position, Span, snapshot
from obs_assets.search.selection import Selection
from obs_assets.storage.postgres import Connection

Format: TypeAlias = Literal["ndjson", "csv", "arrow"]

CONTENT_TYPES: Mapping[Format, str] = {
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
}
"""Format → media type of the stream."""

CHUNK_BYTES = 512 * 1024
"""Bytes that are collected before they are passed on."""

BATCH_ROWS = 5_000
"""Rows of an Arrow batch."""

TOGETHER_ROWS = 5_000
"""Hours with this many rows in all are read by one statement: each takes a millisecond of its own."""

_FORMULA = "^[=+@\t\r-]"
"""Pattern of a text that a spreadsheet takes for a formula."""

_TEXTS: dict[LiteralString, LiteralString] = {
    name: name
    for name in (
        "event_id",
        "event_type",
        "event_level",
        "source_name",
        "master_type",
        "worker_type",
        "worker_id",
        "trace_id",
        "session_id",
        "error",
    )
}

_TIME: LiteralString = (
    """to_char(timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')"""
)

_COLUMNS: dict[LiteralString, LiteralString] = {
    "timestamp": _TIME,
    "row_uid": "row_uid",
    **_TEXTS,
    "duration_ms": "duration_ms",
    "cost_usd": "trim_scale(cost_usd)::text",
    "weight": "weight",
    "data": "data",
}
"""Names of an exported event's columns behind ``id``, as `questions.FoundEvent` has them, and their SQL."""

_NAMES = ("id", *_COLUMNS)
"""Names of all columns of an exported event."""

_ARROW_TYPES: Mapping[str, pa.DataType] = {
    "timestamp": pa.timestamp("us", "UTC"),
    "duration_ms": pa.int64(),
    "weight": pa.float64(),
    "data": pa.large_string(),
}
"""Types of Arrow's columns; all others are strings."""


@dataclass(frozen=True)
class ExportedHour:
    """Version of an hour that was exported: the ledger's, in the snapshot of its rows."""

    generation: int
    content_hash: str


@dataclass
class Exported:
    """The closing record of an export; it grows while hours are read.

    Attributes:
        rows: events that were written.
        hours: start of an hour, UTC → its version.
    """

    rows: int = 0
    hours: dict[datetime, ExportedHour] = field(default_factory=dict)

    def to_json(self) -> str:
        """For example ``{"obs_export": {"rows": 2, "hours": {…}, "complete": true}}``."""
        hours = {
            start.isoformat(): {
                "generation": hour.generation,
                "content_hash": hour.content_hash,
            }
            for start, hour in self.hours.items()
        }
        record = {"rows": self.rows, "hours": hours, "complete": True}
        return json.dumps({"obs_export": record})


def export(
    connection: Connection,
    selection: Selection,
    *,
    form: Format = "ndjson",
    escape_formulas: bool = True,
    role: str | None = None,
    hour_s: float = 600.0,
) -> Generator[bytes, None, None]:
    """The events of a range that match, from the oldest hour on, then the closing record.

    Numbers in ``data`` have the digits that the table stores. In CSV the closing record is the first
    cell of the last row; in Arrow it is the metadata ``obs_export`` of the last batch, which has no row.

    Args:
        connection: in autocommit mode; used for nothing else until the generator ends or is closed.
        selection: the events; hours that the ledger names are read.
        form: format of the bytes.
        escape_formulas: in CSV, put an apostrophe before a text that a spreadsheet takes for a formula.
        role: role in which each snapshot reads.
        hour_s: seconds that an hour may take.

    Raises:
        QueryValueError: a numeric column is compared with a text.
        psycopg.Error: the server's errors; the closing record is then missing.
    """
    exported = Exported()
    reading = _Reading(connection, selection, role, hour_s)
    writer = _writer(form, escape_formulas=escape_formulas)
    # Many snapshots: a single one over hours of export would keep PostgreSQL from cleaning up.
    for hours in reading.hours():
        with reading.snapshot():
            versions = reading.versions(hours)
            # Hours that retention dropped meanwhile have no row any more.
            if not versions:
                continue
            select = reading.select(hours, writer.columns(_id_from(hours.start)))
            for rows, data in writer.rows(connection, select):
                exported.rows += rows
                yield data
        # Noted when they are complete: an hour in the closing record has all of its rows.
        exported.hours |= versions
    yield writer.end(exported.to_json())


@dataclass(frozen=True)
class _Reading:
    """The hours of a selection."""

    connection: Connection
    selection: Selection
    role: str | None
    hour_s: float

    def snapshot(self) -> contextlib.AbstractContextManager[None]:
        """A `questions.snapshot` with the role and the time limit of an hour."""
        # The limit of searches would end the export of a large hour.
        return snapshot(self.connection, role=self.role, timeout_s=self.hour_s)

    def hours(self) -> Iterator[Span]:
        """The hours that the ledger has, the oldest first; small ones together."""
        span = self.selection.span
        with self.snapshot():
            found = self.connection.execute(
                "SELECT hour, rows FROM obs.hour_loads WHERE destination = %s AND rows > 0 "
                # An hour that begins before the range may still reach into it.
                "AND hour > %s AND hour < %s ORDER BY hour",
                [self.selection.tables.key, span.start - ONE_HOUR, span.end],
            ).fetchall()
        # Outside the snapshot, which would last as long as the export.
        yield from _together([(hour.astimezone(UTC), rows) for hour, rows in found])

    def versions(self, hours: Span) -> dict[datetime, ExportedHour]:
        """Hour → its version, of the hours that the ledger has now."""
        found = self.connection.execute(
            "SELECT hour, generation, content_hash FROM obs.hour_loads "
            "WHERE destination = %s AND rows > 0 AND hour >= %s AND hour < %s ORDER BY hour",
            [self.selection.tables.key, hours.start, hours.end],
        ).fetchall()
        return {hour.astimezone(UTC): ExportedHour(*version) for hour, *version in found}

    def select(self, hours: Span, columns: sql.Composable) -> sql.Composed:
        """SQL of the rows of hours."""
        span = self.selection.span
        return sql.SQL(
            "SELECT {columns} FROM {table} WHERE timestamp >= {start} AND timestamp < {end} "
            'AND {matching} ORDER BY timestamp, row_uid COLLATE "C"'
        ).format(
            columns=columns,
            table=self.selection.tables.events,
            start=sql.Literal(max(span.start, hours.start)),
            end=sql.Literal(min(span.end, hours.end)),
            matching=condition(self.selection.query),
        )


def _together(hours: Sequence[tuple[datetime, int]]) -> Iterator[Span]:
    """Hours in groups of up to `TOGETHER_ROWS` rows and a day; a larger hour is alone.

    Args:
        hours: starts and rows, in the order of time.
    """
    group: list[datetime] = []
    rows = 0
    for start, more in hours:
        is_full = rows + more > TOGETHER_ROWS
        if group and (is_full or start - group[0] >= timedelta(days=1)):
            yield Span(group[0], group[-1] + ONE_HOUR)
            group, rows = [], 0
        group.append(start)
        rows += more
    if group:
        yield Span(group[0], group[-1] + ONE_HOUR)


# -- formats -----------------------------------------------------------------------------------------------------------


def _id_from(start: datetime) -> sql.Composable:
    """SQL of the public ids of events, see `questions.Position`; their day begins at ``start``."""
    # From there on, a double has each microsecond of a day: the numeric that extract(epoch …)
    # gives takes ten times as long.
    form = "({first} + round(date_part('epoch', timestamp - {start}) * 1000000)::bigint)"
    first = sql.Literal(int(Position(start, "").id.removesuffix("-")))
    microseconds = sql.SQL(form).format(first=first, start=sql.Literal(start))
    return sql.SQL("{} || '-' || row_uid").format(microseconds)


class _Writer(Protocol):
    """Turns rows into bytes of a format."""

    def columns(self, identity: sql.Composable) -> sql.Composable:
        """SQL of the columns that are selected, with the SQL of ``id``."""

    def rows(self, connection: Connection, select: sql.Composed) -> Iterator[tuple[int, bytes]]:
        """Rows of a statement: their number and their bytes, a chunk at a time."""

    def end(self, closing: str) -> bytes:
        """The bytes behind the last row, with the closing record."""


def _writer(form: Format, *, escape_formulas: bool) -> _Writer:
    match form:
        case "ndjson":
            return _Lines()
        case "csv":
            return _Csv(escape_formulas=escape_formulas)
        case "arrow":
            return _Arrow()


class _Lines:
    """JSON lines, made by the server."""

    def columns(self, identity: sql.Composable) -> sql.Composable:
        forms = {**_COLUMNS, "timestamp": "timestamp"}
        named = [sql.SQL(f"{form} AS {name}") for name, form in forms.items()]
        return sql.SQL(", ").join([sql.SQL("{} AS id").format(identity), *named])

    def rows(self, connection: Connection, select: sql.Composed) -> Iterator[tuple[int, bytes]]:
        # row_to_json takes three quarters of the time of json_build_object. CSV whose signs are
        # control characters, which JSON never has, is the JSON text as it is: the other form
        # doubles each backslash.
        copy = sql.SQL(
            "COPY (SELECT row_to_json(event) FROM ({}) AS event) "
            r"TO STDOUT (FORMAT csv, DELIMITER E'\x02', QUOTE E'\x01')"
        )
        return _copied(connection, copy.format(select))

    def end(self, closing: str) -> bytes:
        return f"{closing}\n".encode()


class _Csv:
    """CSV with a header, made by the server."""

    def __init__(self, *, escape_formulas: bool) -> None:
        cells: dict[str, sql.Composable] = {
            name: sql.SQL(form) for name, form in _COLUMNS.items()
        }
        if escape_formulas:
            escaped = sql.SQL("CASE WHEN {0} ~ {1} THEN {2} || {0} ELSE {0} END")
            pattern, apostrophe = sql.Literal(_FORMULA), sql.Literal("'")
            cells |= {
                name: escaped.format(sql.SQL(name), pattern, apostrophe) for name in _TEXTS
            }
        self._cells = cells.values()
        self._header = (",".join(_NAMES) + "\n").encode()

    def columns(self, identity: sql.Composable) -> sql.Composable:
        return sql.SQL(", ").join([identity, *self._cells])

    def rows(self, connection: Connection, select: sql.Composed) -> Iterator[tuple[int, bytes]]:
        copy = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv)").format(select)
        for rows, data in _copied(connection, copy):
            yield rows, self._taken_header() + data

    def end(self, closing: str) -> bytes:
        # As many cells as each other row: a program that reads tables accepts it.
        quoted = closing.replace('"', '""')
        row = f'"{quoted}"' + "," * (len(_NAMES) - 1) + "\n"
        return self._taken_header() + row.encode()

    def _taken_header(self) -> bytes:
        """The header for the first call, nothing for later calls."""
        header, self._header = self._header, b""
        return header


def _copied(connection: Connection, statement: sql.Composed) -> Iterator[tuple[int, bytes]]:
    """The bytes that COPY sends, a few hundred kilobytes at a time, with the number of rows."""
    chunk: list[bytes] = []
    size = 0
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in copy:
            chunk.append(bytes(row))
            size += len(row)
            if size >= CHUNK_BYTES:
                yield len(chunk), b"".join(chunk)
                chunk, size = [], 0
    if chunk:
        yield len(chunk), b"".join(chunk)


class _Arrow:
    """A stream of Arrow batches."""

    def __init__(self) -> None:
        fields = [(name, _ARROW_TYPES.get(name, pa.string())) for name in _NAMES]
        self._schema = pa.schema(fields)
        self._sink = io.BytesIO()
        self._stream = pa.ipc.new_stream(self._sink, self._schema)

    def columns(self, identity: sql.Composable) -> sql.Composable:
        forms = {**_COLUMNS, "timestamp": "timestamp", "data": "data::text"}
        return sql.SQL(", ").join([identity, *map(sql.SQL, forms.values())])

    def rows(self, connection: Connection, select: sql.Composed) -> Iterator[tuple[int, bytes]]:
        # A named cursor stays on the server, so that the rows of an hour are never all in memory.
        with connection.cursor("exported") as cursor:
            cursor.execute(select)
            while rows := cursor.fetchmany(BATCH_ROWS):
                columns = zip(*rows, strict=True)
                arrays = [
                    pa.array(values, column.type)
                    for values, column in zip(columns, self._schema, strict=True)
                ]
                self._stream.write_batch(pa.record_batch(arrays, schema=self._schema))
                yield len(rows), self._taken()

    def end(self, closing: str) -> bytes:
        none = [pa.array([], column.type) for column in self._schema]
        empty = pa.record_batch(none, schema=self._schema)
        # A batch without rows: a reader that does not know the closing record gets the events only.
        self._stream.write_batch(empty, custom_metadata={"obs_export": closing})
        self._stream.close()
        return self._taken()

    def _taken(self) -> bytes:
        """The bytes that were written since the last call."""
        data = self._sink.getvalue()
        # The sink is emptied, not replaced: the stream keeps writing into it.
        self._sink.seek(0)
        self._sink.truncate()
        return data
