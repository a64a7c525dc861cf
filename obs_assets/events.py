"""The event: its identity, its promoted columns and the frame that carries it.

A frame is a DuckDB relation, lazy and streamed, so that an hour of any size is worked through per column in bounded
memory. Frames are sorted by ``(event_time, row_uid)`` from ``raw_events`` on, and every step keeps that order.

``event`` is the only truth: the whole event as JSON text on one line, its numbers written with the digits they came
with. Transforms change that text alone; `with_columns` then recomputes every other column from it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obs_assets.severities import STATUSES, level_sql, word_sql

Frame: TypeAlias = duckdb.DuckDBPyRelation

MAX_NESTING = 200
"""Levels of objects and lists within one another that an event may have, its own braces included.

A deeper event is a dead letter at landing, so that no later stage meets an event that it cannot walk.
"""

LINEAGE = ("row_uid", "event_time", "file_id", "file_offset", "landed_at")
"""Where a row came from: given by landing, the same at every stage.

row_uid: VARCHAR, 32 hexadecimal digits, see `row_uids`. event_time, landed_at: TIMESTAMPTZ, microseconds, UTC.
file_id: VARCHAR. file_offset: BIGINT, byte offset in the decompressed file.
"""

PROMOTED = (
    "event_id",
    "event_type",
    "event_level",
    "source_name",
    "master_type",
    "worker_type",
    "worker_id",
    "trace_id",
    "session_id",
    "status",
    "error",
    "duration_ms",
    "cost_usd",
)
"""Columns computed from ``event``. VARCHAR but for duration_ms (BIGINT, milliseconds) and cost_usd (DECIMAL, USD)."""

TYPES: Mapping[str, str] = {
    "event_time": "timestamp",
    "landed_at": "timestamp",
    "file_offset": "int",
    "duration_ms": "int",
    "cost_usd": "decimal",
    "weight": "float",
    "redactions": "map",
}
"""Types of the columns of a frame that are no strings, for people."""

MEANINGS: Mapping[str, str] = {
    "row_uid": "identity of the row: where it came from (file and byte offset)",
    "event_time": "when it happened, UTC, microseconds",
    "file_id": "the file it was landed from",
    "file_offset": "byte offset in that file, decompressed",
    "landed_at": "when it was landed, UTC",
    "event_id": "id, event_id or _id: a label, never a key",
    "event_type": "type or event_type",
    "event_level": "level, severity and other names and scales, or a status that is a level; NULL without one",
    "source_name": "_source.name or source",
    "master_type": "master_type or master",
    "worker_type": "worker_type or worker",
    "worker_id": "worker_id",
    "trace_id": "trace_id",
    "session_id": "session_id",
    "status": "status",
    "error": "error or error_message, where it is one",
    "duration_ms": "duration_ms or duration, milliseconds",
    "cost_usd": "cost_usd, cost_estimate.total_cost_usd or cost, USD",
    "event_file": "path of that file below the events folder",
    "collector": "host and process that landed it, as JSON",
    "weight": "how many events this one stands for",
    "redactions": "redacted values by type",
    "event": "the whole event as JSON; every other column is computed from it",
}
"""Meanings of the columns of a frame, for the catalogue."""

_HEX = np.array([f"{byte:02x}".encode() for byte in range(256)]).view(np.uint16)

ALIASES: Mapping[str, tuple[str, ...]] = {
    "event_id": (
        "id",
        "event_id",
        "_id",
        "event.id",
        "eventID",
        "insertId",
        "auditID",
        "_document_id",
    ),
    "event_type": (
        "type",
        "event_type",
        "event_name",
        "eventName",
        "event.name",
        "event.action",
        "operationName",
        "action",
    ),
    "event_level": (
        "level",
        "severity",
        "severityText",
        "severity_text",
        "log.level",
        "@level",
        "LevelDisplayName",
        "severityNumber",
        "severity_number",
        "@l",
        "level_name",
        "levelname",
        "error_severity",
        "loglevel",
        "log_level",
        "lvl",
        "PRIORITY",
        "levelno",
        "s",
    ),
    "source_name": (
        "_source.name",
        "source",
        "service.name",
        "eventSource",
        "resource.service.name",
        "logGroup",
    ),
    "master_type": ("master_type", "master"),
    "worker_type": ("worker_type", "worker"),
    "worker_id": ("worker_id",),
    "trace_id": (
        "trace_id",
        "traceId",
        "trace.id",
        "dd.trace_id",
        "logging.googleapis.com/trace",
    ),
    "session_id": ("session_id", "sessionId", "session.id"),
    "status": ("status", "event.outcome"),
    "error": (
        "error",
        "error_message",
        "error.message",
        "errorMessage",
        "errorCode",
        "exception.message",
        "err.message",
        "@x",
        "attributes.exception.message",
    ),
    "duration_ms": ("duration_ms", "duration", "event.duration"),
    "cost_usd": ("cost_usd", "cost", "cost_estimate.total_cost_usd"),
}
"""Where each promoted column comes from: the first of these fields that is there and not null.

``log.level`` is a field of that name, as ECS loggers write it, or else the field ``level`` of the object ``log``. An
event without a level has the level that its ``status`` names, if that is one of `severities.STATUSES`; Serilog leaves
out ``@l`` where it is Information. An ``error`` that says that there is none (false, 0, empty) is none. What is in
other units is converted, see `_CONVERSIONS`.
"""

TIME_FIELDS = (
    "timestamp",
    "@timestamp",
    "time",
    "ts",
    "event_time",
    "created_at",
    "eventTime",
    "@t",
    "timeUnixNano",
    "datetime",
    "instant.epochSecond",
    "timeMillis",
    "requestReceivedTimestamp",
    "EdgeStartTimestamp",
    "Datetime",
    "receiveTimestamp",
    "__REALTIME_TIMESTAMP",
    "t.$date",
    "observedTimeUnixNano",
    "date",
    "time_iso8601",
    "TimeCreated",
    "TimeGenerated",
    "eventTimestamp",
    "unixTime",
)
"""Where an event's time is looked for, in this order; the first that is there and not null decides."""

MESSAGES = (
    "message",
    "msg",
    "@m",
    "@mt",
    "MESSAGE",
    "short_message",
    "textPayload",
    "body",
    "log",
    "error",
    "data",
    "result",
    "output",
    "response",
)
"""Fields that hold the text, or the content, of an event."""

_SERILOG = ("@t", "@m", "@mt")

# ECS counts durations in nanoseconds
_CONVERSIONS: Mapping[str, str] = {
    "event.duration": "(round(try_cast({0} AS BIGINT) / 1000000)::BIGINT)::VARCHAR",
}


def row_uids(
    file_ids: Sequence[str], owner: npt.NDArray[np.int32], file_offset: npt.NDArray[np.int64]
) -> pa.LargeStringArray:
    """Identities of rows. A row's identity is where it came from: 20 digits of its file's id, 12 of its offset there.

    Never the event's own id: real files use one id for several events, and true duplicates are events too. A file lands
    each of its offsets once, and its id was drawn by chance when it was first seen, so that nothing in an event can
    make two identities meet: for 10⁷ files the chance that two share their digits is below 10⁻⁸. Rows of one file
    differ in few digits, which compresses well; whoever wants digits that are evenly spread takes ``md5(row_uid)``.

    Args:
        file_ids: each at least 20 hexadecimal digits.
        owner: for each row, the index of its file.
        file_offset: for each row, below 2⁴⁸.
    """
    of_file = np.array(
        [list(file_id[-20:].encode()) for file_id in file_ids], np.uint8
    ).reshape(-1, 20)
    pairs = np.empty((len(owner), 16), np.uint16)  # of digits
    pairs[:, :10] = of_file.view(np.uint16)[owner]
    for place in range(6):
        pairs[:, 15 - place] = _HEX[(file_offset >> (8 * place)) & 0xFF]
    bounds = np.arange(0, 32 * len(owner) + 1, 32)
    return pa.Array.from_buffers(
        pa.large_string(), len(owner), [None, pa.py_buffer(bounds), pa.py_buffer(pairs)]
    )


def quote(text: str) -> str:
    """``text`` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def one_of(expression: str, values: Iterable[str]) -> str:
    """SQL: is the value of ``expression`` one of these? False where it is NULL.

    Not IN, and not list_contains: DuckDB 2.0 makes a hash join of them, and with several threads a join loses the order
    of the rows.
    """
    return f"(list_position([{', '.join(map(quote, values))}], {expression}) IS NOT NULL)"


def _structure(aliases: Iterable[str]) -> str:
    """What `json_transform` is to take out of an event; what has another type there is NULL."""
    fields: dict[str, Any] = dict.fromkeys(aliases, "VARCHAR")
    for alias in list(fields):
        outer, _, name = alias.partition(".")
        if name and fields.get(outer) != "VARCHAR":
            fields.setdefault(outer, {})[name] = "VARCHAR"
    return json.dumps(fields)


def _fields(alias: str) -> list[str]:
    """SQL over the parsed event ``j``: the field of this name, and the one at this path."""
    outer, _, name = alias.partition(".")
    nested = [f'j."{outer}"."{name}"'] if isinstance(_PARSED.get(outer), dict) else []
    return [_CONVERSIONS.get(alias, "{0}").format(field) for field in [f'j."{alias}"', *nested]]


_STRUCTURE = _structure(
    [*(alias for aliases in ALIASES.values() for alias in aliases), *_SERILOG]
)
_PARSED = json.loads(_STRUCTURE)

SOURCE_KEYS = frozenset(_PARSED)
"""Keys of an event that the promoted columns are computed from."""


def _first(fields: Iterable[str]) -> str:
    return f"coalesce({', '.join(fields)})"


def _column(name: str) -> str:
    fields = [field for alias in ALIASES[name] for field in _fields(alias)]
    match name:
        case "event_level":
            return level_sql("level_word")
        case "error":  # false, 0, "" and null are "no error"
            return _first(
                f"nullif(nullif(nullif({field}, ''), 'false'), '0')" for field in fields
            )
        case "duration_ms":
            return f"try_cast({_first(fields)} AS BIGINT)"
        case "cost_usd":
            return f"try_cast({_first(fields)} AS DECIMAL(28, 12))"
    return _first(fields)


def _level_word() -> str:
    """SQL over the parsed event ``j``: the word, in any case, that says its level."""
    words = [
        word_sql(field, alias) for alias in ALIASES["event_level"] for field in _fields(alias)
    ]
    words.append(f"CASE WHEN {one_of('lower(j.status)', STATUSES)} THEN j.status END")
    words.append(
        """CASE WHEN j."@t" IS NOT NULL AND coalesce(j."@m", j."@mt") IS NOT NULL THEN 'info' END"""
    )
    return _first(words)


_LEVEL_WORD = _level_word()
_COLUMNS = {name: _column(name) for name in PROMOTED}


def with_columns(frame: Frame, *carried: str, where: str = "") -> Frame:
    """Recompute the promoted columns from ``event``.

    Args:
        frame: a frame with the lineage columns and ``event``.
        carried: further columns to pass through, for example ``"weight"``.
        where: SQL; elsewhere ``event`` is as it was when the frame's promoted columns were computed: they stay.

    Returns:
        lineage, promoted, carried, then ``event``; same rows, same order.
    """
    event = f"CASE WHEN {where} THEN event END" if where else "event"
    parsed = frame.project(f"*, json_transform({event}, '{_STRUCTURE}') AS j").project(
        f"*, {_LEVEL_WORD} AS level_word"
    )
    columns = [
        f"CASE WHEN {where} THEN {expression} ELSE {name} END AS {name}"
        if where
        else f"{expression} AS {name}"
        for name, expression in _COLUMNS.items()
    ]
    return parsed.project(", ".join([*LINEAGE, *columns, *carried, "event"]))


def append_fields(event: str, fields: str) -> str:
    """SQL for an event with more top-level fields.

    Args:
        event: SQL expression of the event's text, an object from its first character to its last.
        fields: SQL expression of ``,"key":value`` pairs, each with its comma in front; empty for none.
    """
    # -1 is the last character. What begins with a key is not empty: the pattern is for the few others.
    longer = f"concat({event}[:-2], {fields}, '}}')"
    return (
        f"CASE WHEN {fields} = '' THEN {event} WHEN starts_with({event}, '{{\"') THEN {longer} "
        f"WHEN regexp_full_match({event}, '\\{{\\s*\\}}') THEN concat('{{', {fields}[2:], '}}') ELSE {longer} END"
    )


CONTENT_HASH = """printf('%016x', (coalesce(sum(
    (md5_number(row_uid || event) & 18446744073709551615::UHUGEINT)::HUGEINT), 0) % 18446744073709551616)::UBIGINT)"""
"""SQL aggregate: what an hour holds, whatever the order of its rows.

The sum modulo 2⁶⁴ of the first eight bytes of md5(row_uid ‖ event), little-endian: equal for equal multisets, and cheap
to check anywhere.
"""


HASH_OF_NOTHING = "0" * 16
"""`CONTENT_HASH` of no rows."""


def counts_by(frame: Frame, by: str, expression: str) -> dict[Any, dict[str, int]]:
    """Rows of ``frame`` by the value of ``by`` and then by that of ``expression``, both SQL; see `count_by`."""
    # A filter on NULL would be pushed down, and the expression computed twice.
    counts = frame.aggregate(f"{by} AS part, {expression} AS value, count(*) AS n").order(
        "n DESC, value"
    )
    found: dict[Any, dict[str, int]] = {}
    for part, value, n in counts.fetchall():
        if value is not None:
            found.setdefault(part, {})[str(value)] = int(n)
    return found


def count_by(frame: Frame, expression: str) -> dict[str, int]:
    """Rows of ``frame`` by the value of an SQL expression, NULLs left out, largest first."""
    return counts_by(frame, quote(""), expression).get("", {})
