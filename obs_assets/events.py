"""The event: its identity, its promoted columns and its frame.

A frame is a DuckDB relation. It is lazy and streamed, so that an hour of any size is computed column by
column in bounded memory. From ``raw_events`` on, frames are sorted by ``(event_time, row_uid)``, and every
step keeps that order.

The column ``event`` is the whole event as JSON text on a single line; its numbers keep their digits.
Transforms change this text only; `with_columns` then computes every other column from it.
"""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obs_assets.severities import (
    LEVELS,
    STATUSES,
    WORDS_ONLY,
    is_word_sql,
    known_word_sql,
    level_sql,
    word_sql,
)

Frame: TypeAlias = duckdb.DuckDBPyRelation
"""The events of an hour, a row for each event."""

MAX_NESTING = 200
"""Levels of objects and lists within one another that an event may have, its own braces included.

A deeper event is a dead letter at landing, so that no later stage meets an event that it cannot walk.
"""

LINEAGE = ("row_uid", "event_time", "file_id", "file_offset", "landed_at")
"""Columns with the origin of a row. Landing writes them, and every stage keeps them.

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
"""Columns computed from ``event``: VARCHAR, except duration_ms (BIGINT, milliseconds) and cost_usd (DECIMAL, USD)."""

TYPES: Mapping[str, str] = {
    "event_time": "timestamp",
    "landed_at": "timestamp",
    "file_offset": "int",
    "duration_ms": "int",
    "cost_usd": "decimal",
    "weight": "float",
    "redactions": "map",
}
"""Column → its type, for the catalogue; the other columns of a frame are strings."""

MEANINGS: Mapping[str, str] = {
    "row_uid": "identity of the row, from its file and byte offset",
    "event_time": "when it happened, UTC, microseconds",
    "file_id": "the file it was landed from",
    "file_offset": "byte offset in that file, decompressed",
    "landed_at": "when it was landed, UTC",
    "event_id": "id, event_id or _id: a label, never a key",
    "event_type": "type or event_type",
    "event_level": "level, severity and other names and scales, or a status that is a level; NULL without a level",
    "source_name": "_source.name or source",
    "master_type": "master_type or master",
    "worker_type": "worker_type or worker",
    "worker_id": "worker_id",
    "trace_id": "trace_id",
    "session_id": "session_id",
    "status": "status",
    "error": "error or error_message; NULL without an error",
    "duration_ms": "duration_ms or duration, milliseconds",
    "cost_usd": "cost_usd, cost_estimate.total_cost_usd or cost, USD",
    "event_file": "path of that file below the events folder",
    "collector": "host and process that landed it, as JSON",
    "weight": "number of events for which this event stands",
    "redactions": "redacted values by type",
    "event": "the whole event as JSON; every other column is computed from it",
}
"""Meanings of the columns of a frame, for the catalogue."""

_HEX = np.array([f"{byte:02x}".encode() for byte in range(256)]).view(np.uint16)
"""Byte → its two hexadecimal digits, as a number of 16 bits."""

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
        "eventType",
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
        "detected_level",
        *WORDS_ONLY,
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
"""Promoted column → its fields. The first field that exists and is not null gives the value.

``log.level`` is a field of that name, as ECS loggers write it, or else the field ``level`` of the object
``log``. An event without a level gets the level that its ``status`` names, if that is one of
`severities.STATUSES`; a Serilog event without ``@l`` is ``info``. An ``error`` that is false, 0 or empty
counts as missing. `_CONVERSIONS` converts fields with other units.
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
    "lastTimestamp",
    "firstTimestamp",
    "event.created",
    "Event.System.TimeCreated.#attributes.SystemTime",
    "Event.System.TimeCreated.@SystemTime",
    "Event.System.TimeCreated.SystemTime",
    "Sns.Timestamp",
    "kinesis.approximateArrivalTimestamp",
    "attributes.SentTimestamp",
)
"""Fields with the time of an event. The first field that exists and is not null gives the time.

An event without any of them has its time in a field whose name says time: `sources.times.names_of_times`.
"""

MESSAGES = (
    "message",
    "msg",
    "@m",
    "@mt",
    "MESSAGE",
    "_msg",
    "_raw",
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
"""Fields that mark an event of Serilog."""

# ECS counts durations in nanoseconds.
_CONVERSIONS: Mapping[str, str] = {
    "event.duration": "(round(try_cast({0} AS BIGINT) / 1000000)::BIGINT)::VARCHAR",
}


def row_uids(
    file_ids: Sequence[str], owner: npt.NDArray[np.int32], file_offset: npt.NDArray[np.int64]
) -> pa.LargeStringArray:
    """Identities of rows: the last 20 digits of the file's id, then 12 digits of the byte offset.

    The event's own id is not used: in real files several events share an id, and true duplicates are events
    too. Each offset of a file is landed once, and the id of a file was drawn by chance. So no content of an
    event can give two rows the same identity: for 10⁷ files the chance that two files share their digits is
    below 10⁻⁸. Rows of a file differ in few digits, which compresses well; ``md5(row_uid)`` has digits that
    are evenly spread.

    Args:
        file_ids: ids of the files, each at least 20 hexadecimal digits.
        owner: for each row, the index of its file.
        file_offset: for each row, its byte offset, below 2⁴⁸.
    """
    file_digits = [list(file_id[-20:].encode()) for file_id in file_ids]
    of_file = np.array(file_digits, np.uint8).reshape(-1, 20)
    # Two digits at a time: a row of 32 digits has 16 pairs, of which the first 10 are the file's.
    pairs = np.empty((len(owner), 16), np.uint16)
    pairs[:, :10] = of_file.view(np.uint16)[owner]
    # From the lowest byte of the offset, which has the last pair.
    for byte in range(6):
        pairs[:, 15 - byte] = _HEX[(file_offset >> (8 * byte)) & 0xFF]
    bounds = np.arange(0, 32 * len(owner) + 1, 32)
    return pa.Array.from_buffers(
        pa.large_string(), len(owner), [None, pa.py_buffer(bounds), pa.py_buffer(pairs)]
    )


def quote(text: str) -> str:
    """``text`` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def one_of(expression: str, values: Iterable[str]) -> str:
    """SQL: whether the value of ``expression`` is one of the values; false where it is NULL.

    IN and list_contains cannot be used: DuckDB 2.0 makes a hash join of them, and with several threads a join
    loses the order of the rows.
    """
    listed = ", ".join(map(quote, values))
    return f"(list_position([{listed}], {expression}) IS NOT NULL)"


_APART = WORDS_ONLY
"""Fields that are read beside the structure: DuckDB has no structure with ``priority`` and ``PRIORITY`` in it."""


def _structure(aliases: Iterable[str]) -> str:
    """The structure that `json_transform` extracts from an event; a value of another type becomes NULL."""
    fields: dict[str, Any] = {name: "VARCHAR" for name in aliases if name not in _APART}
    for alias in list(fields):
        outer, _, name = alias.partition(".")
        if name and fields.get(outer) != "VARCHAR":
            fields.setdefault(outer, {})[name] = "VARCHAR"
    return json.dumps(fields)


def _fields(alias: str) -> list[str]:
    """SQL over the parsed event ``j``: the field of this name, then the field at this path."""
    outer, _, name = alias.partition(".")
    fields = [f'j."{alias}"']
    if isinstance(_PARSED.get(outer), dict):
        fields.append(f'j."{outer}"."{name}"')
    conversion = _CONVERSIONS.get(alias, "{0}")
    return [conversion.format(field) for field in fields]


def _all_fields(column: str) -> list[str]:
    """SQL over the parsed event ``j``: all fields of a promoted column, in order."""
    usual = (alias for alias in ALIASES[column] if alias not in _APART)
    return list(itertools.chain.from_iterable(map(_fields, usual)))


_STRUCTURE = _structure([*itertools.chain.from_iterable(ALIASES.values()), *_SERILOG])
_PARSED = json.loads(_STRUCTURE)

SOURCE_KEYS = frozenset(_PARSED).union(name.partition(".")[0] for name in _APART)
"""Keys of an event from which the promoted columns are computed."""


def _first(fields: Iterable[str]) -> str:
    """SQL: the first value that is not NULL."""
    return f"coalesce({', '.join(fields)})"


def _column(name: str) -> str:
    """SQL over the parsed event ``j`` for a promoted column."""
    fields = _all_fields(name)
    match name:
        case "event_level":
            # Most events name their level as the table does. They need no pattern.
            return (
                f"CASE WHEN {one_of('level_word', LEVELS)} THEN level_word "
                f"ELSE {level_sql('level_word')} END"
            )
        case "error":
            # false, 0, "" and null mean that there is no error.
            return _first(
                f"nullif(nullif(nullif({field}, ''), 'false'), '0')" for field in fields
            )
        case "duration_ms":
            return f"try_cast({_first(fields)} AS BIGINT)"
        case "cost_usd":
            return f"try_cast({_first(fields)} AS DECIMAL(28, 12))"
    return _first(fields)


def _paths(name: str) -> list[str]:
    """JSON paths of a field: the field of this name, then the field at this path."""
    nested = "$." + ".".join(f'"{part}"' for part in name.split("."))
    return list(dict.fromkeys([f'$."{name}"', nested]))


def _words(aliases: Iterable[str]) -> str:
    """SQL: list of the words in these fields of the level, in their order."""
    words: list[str] = []
    # Fields with the same rule share its SQL: DuckDB plans each query anew, which would take a tenth of a second.
    for rule, alike in itertools.groupby(aliases, key=lambda alias: word_sql("word", alias)):
        fields = ", ".join(itertools.chain.from_iterable(map(_fields, alike)))
        words.append(f"list_transform([{fields}], lambda word: {rule})")
    return f"list_filter(flatten([{', '.join(words)}]), lambda word: word IS NOT NULL)"


_USUAL_WORDS = (
    # Most events have a word of the table in ``level``. They need no other field and no pattern.
    f"CASE WHEN {is_word_sql('j.level')} THEN [j.level] "
    f"ELSE {_words(name for name in ALIASES['event_level'] if name not in _APART)} END"
)
"""SQL over the parsed event ``j``: the words of its level in the fields that are read with the structure."""

_USUAL_WORD = (
    f"CASE WHEN {is_word_sql('usual_words[1]')} THEN usual_words[1] "
    f"ELSE {known_word_sql('usual_words')} END"
)
"""SQL over ``usual_words``: the first of these words that the table has."""


def _level_word() -> str:
    """SQL over ``j``, ``usual_words``, ``usual_word`` and ``apart``: the word of the level, in any case of letters.

    A word that is no level of the table counts only if no field has a level of the table.
    """
    status = f"CASE WHEN {one_of('lower(j.status)', STATUSES)} THEN j.status END"
    serilog = """CASE WHEN j."@t" IS NOT NULL AND coalesce(j."@m", j."@mt") IS NOT NULL THEN 'info' END"""
    apart = f"trim({known_word_sql('apart')})"
    return _first(["usual_word", apart, "usual_words[1]", status, serilog])


_LEVEL_WORD = _level_word()
_APART_PATHS = list(itertools.chain.from_iterable(map(_paths, _APART)))
_ENDS = "|".join(sorted({name.rpartition(".")[2] for name in _APART}))
_APART_KEY = rf'"(?:[A-Za-z.]+\.)?({_ENDS})" *:'
"""Pattern of a key of these fields."""

_COLUMNS = {name: _column(name) for name in PROMOTED}


def with_columns(frame: Frame, *carried: str, where: str = "") -> Frame:
    """Recompute the promoted columns from ``event``.

    Args:
        frame: a frame with the lineage columns and ``event``.
        carried: further columns to pass through, for example ``"weight"``.
        where: SQL; rows for which it is false keep their promoted columns: their ``event`` has not changed.

    Returns:
        lineage, promoted, carried, then ``event``; same rows, same order.
    """

    def changed(expression: str, unchanged: str = "NULL") -> str:
        return (
            f"CASE WHEN {where} THEN {expression} ELSE {unchanged} END" if where else expression
        )

    # Each step has the condition: over rows without a parsed event, a step takes as much time as over the others.
    structured = frame.project(f"*, json_transform({changed('event')}, '{_STRUCTURE}') AS j")
    listed = structured.project(f"*, {changed(_USUAL_WORDS)} AS usual_words")
    worded = listed.project(f"*, {changed(_USUAL_WORD)} AS usual_word")
    # A second parsing, for all these fields at once, and only for events that have such a key and need it: of
    # large events it takes much memory.
    is_needed = f"usual_word IS NULL AND regexp_matches(event, '{_APART_KEY}')"
    apart = f"CASE WHEN {is_needed} THEN json_extract_string(event, {_APART_PATHS}) END"
    extracted = worded.project(f"*, {changed(apart)} AS apart")
    parsed = extracted.project(f"*, {changed(_LEVEL_WORD)} AS level_word")
    columns = [f"{changed(sql, name)} AS {name}" for name, sql in _COLUMNS.items()]
    return parsed.project(", ".join([*LINEAGE, *columns, *carried, "event"]))


def append_fields(event: str, fields: str) -> str:
    """SQL for an event with more top-level fields.

    Args:
        event: SQL expression of the event's text, an object from its first character to its last.
        fields: SQL expression of ``,"key":value`` pairs, each with its comma in front; empty for no pair.
    """
    # `substr` cuts the last brace off four times as fast as `[:-2]`. An event that begins with a key is not
    # empty, so the slow pattern is tried on few events only.
    longer = f"concat(substr({event}, 1, length({event}) - 1), {fields}, '}}')"
    is_empty = f"regexp_full_match({event}, '\\{{\\s*\\}}')"
    return (
        f"CASE WHEN {fields} = '' THEN {event} "
        f"WHEN starts_with({event}, '{{\"') THEN {longer} "
        f"WHEN {is_empty} THEN concat('{{', {fields}[2:], '}}') "
        f"ELSE {longer} END"
    )


CONTENT_HASH = """printf('%016x', (coalesce(sum(
    (md5_number(row_uid || event) & 18446744073709551615::UHUGEINT)::HUGEINT), 0) % 18446744073709551616)::UBIGINT)"""
"""SQL aggregate: a hash of the rows of an hour, in any order.

It is the sum modulo 2⁶⁴ of the first eight bytes of md5(row_uid ‖ event), little-endian. Equal multisets of
rows have equal hashes, and every database can compute it.
"""

HASH_OF_NOTHING = "0" * 16
"""`CONTENT_HASH` of no rows."""


def counts_by(frame: Frame, by: str, expression: str) -> dict[Any, dict[str, int]]:
    """Value of ``by`` → value of ``expression`` → number of rows of ``frame``; both are SQL, see `count_by`."""
    aggregated = frame.aggregate(f"{by} AS part, {expression} AS value, count(*) AS n")
    counts = aggregated.order("n DESC, value")
    found: dict[Any, dict[str, int]] = {}
    for part, value, n in counts.fetchall():
        # NULL is left out here: DuckDB would push a filter down, and compute the expression twice.
        if value is not None:
            found.setdefault(part, {})[str(value)] = int(n)
    return found


def count_by(frame: Frame, expression: str) -> dict[str, int]:
    """Value of an SQL expression → number of rows of ``frame``, the largest first; NULL is left out."""
    return counts_by(frame, quote(""), expression).get("", {})
