"""Rows of the table from a frame: DuckDB's SQL for each column, and the data for COPY."""

from collections.abc import Generator, Sequence
from typing import Any, LiteralString

import pyarrow as pa
import pyarrow.csv

from obs_assets.events import Frame, one_of
from obs_assets.hours import Hour
from obs_assets.severities import GRAVE

BATCH_ROWS = 10_000
"""Rows that are turned into data for COPY at a time: a few megabytes."""

INDEXED_TEXT = 500
"""Characters kept in the indexed text columns, because an index entry has at most 2,704 bytes.

A character has at most 4 bytes in UTF-8. The column ``data`` has the whole value.
"""


def _text(column: str) -> str:
    """SQL for a text column without U+0000, which PostgreSQL cannot store."""
    return f"replace({column}, chr(0), chr(65533))"


def _indexed(column: str) -> str:
    """SQL for a text column that has an index."""
    return f"left({_text(column)}, {INDEXED_TEXT})"


def stored_event(event: str) -> str:
    r"""SQL for an event that ``jsonb`` accepts: ``\u0000`` and single surrogates become ``\ufffd``.

    For example ``{"a":"x\u0000"}`` becomes ``{"a":"x\ufffd"}``, and ``{"a":"\\u0000"}`` (a backslash
    and five characters) stays. Pairs of backslashes and of surrogates are first replaced by U+0001
    and U+0002, which JSON text cannot hold, and put back at the end.
    """
    pairs = rf"""regexp_replace(replace({event}, '\\', chr(1)),
        '\\u([dD][89abAB][0-9a-fA-F]{{2}})\\u([dD][c-fC-F][0-9a-fA-F]{{2}})',
        chr(2) || 'u\1' || chr(2) || 'u\2', 'g')"""
    replaced = (
        rf"regexp_replace({pairs}, '\\u(0000|[dD][89a-fA-F][0-9a-fA-F]{{2}})', '\\ufffd', 'g')"
    )
    # Few events have such escapes: the first test is fast and rules out most of them.
    return rf"""CASE WHEN contains({event}, '\u')
            AND regexp_matches({event}, '\\u(0000|[dD][89a-fA-F])')
        THEN replace(replace({replaced}, chr(2), '\'), chr(1), '\\') ELSE {event} END"""


def row_of(hour: Hour) -> dict[str, str]:
    """DuckDB's SQL for each column of a row; the server fills ``created_at``."""
    return _ROW | {"hour": f"TIMESTAMPTZ '{hour.start.isoformat()}'"}


_PLAIN_TEXTS = ("event_id", "source_name", "worker_type", "error", "session_id", "worker_id")

_ROW: dict[str, str] = {name: _text(name) for name in _PLAIN_TEXTS} | {
    # 63 bits of a hash
    "id": "try_cast(('0x' || left(md5(row_uid), 16))::UBIGINT & 9223372036854775807 AS BIGINT)",
    "event_type": f"coalesce({_indexed('event_type')}, 'unknown')",
    "event_level": _indexed("event_level"),
    "master_type": _indexed("master_type"),
    "trace_id": _indexed("trace_id"),
    "timestamp": "event_time",
    "data": stored_event("event"),
    "duration_ms": "duration_ms",
    # 0.25, not 0.250000000000
    "cost_usd": "rtrim(rtrim(cost_usd::DECIMAL(28, 12)::VARCHAR, '0'), '.')",
    "row_uid": "row_uid",
    "weight": "weight",
}

_NOT_COMPARED = {"id", "data"}
"""`data` is compared as the event; `id` only names the row, and earlier versions made it in another way."""


def columns_of_row() -> str:
    """DuckDB's SQL for the columns of a row beside ``data``, as a JSON object; see `COLUMNS_ON_SERVER`."""
    row = _ROW | {
        "event_level": f"coalesce({_ROW['event_level']}, 'info')",
        "timestamp": "epoch_us(event_time)",
        "hour": "epoch_us(event_time) // 3600000000 * 3600000000",
    }
    pairs = [f"'{name}', {row[name]}" for name in row if name not in _NOT_COMPARED]
    return f"json_object({', '.join(pairs)})::VARCHAR"


COLUMNS_ON_SERVER: LiteralString = """jsonb_build_object(
    'event_id', event_id, 'source_name', source_name, 'worker_type', worker_type, 'error', error,
    'session_id', session_id, 'worker_id', worker_id, 'event_type', event_type,
    'event_level', coalesce(event_level, 'info'), 'master_type', master_type, 'trace_id', trace_id,
    'timestamp', (extract(epoch FROM timestamp) * 1000000)::bigint, 'duration_ms', duration_ms,
    'cost_usd', trim_scale(cost_usd)::text, 'row_uid', row_uid, 'weight', weight,
    'hour', (extract(epoch FROM hour) * 1000000)::bigint)::text"""
"""PostgreSQL's SQL for the same object, from the stored row. Times are microseconds since 1970.

An earlier version stored ``info`` for an event without a level: both count as equal.
"""


def statistics_of(
    frame: Frame,
    hour: Hour,
    *,
    keys: Sequence[str] = ("event_type", "event_level", "master_type"),
) -> list[tuple[Any, ...]]:
    """Rows of a statistics table: an hour's rows by the values of columns.

    An error is a row with ``error`` or with a grave level, so that a user can count the errors in the
    table of events too.

    Args:
        frame: the hour's rows.
        hour: the hour.
        keys: columns whose values make a group.

    Returns:
        for each group the hour, the values, and `search.figures.FIGURES`.
    """
    row = row_of(hour)
    values = ", ".join(row[name] for name in keys)
    is_error = f"(error IS NOT NULL OR coalesce({one_of('event_level', GRAVE)}, false))"
    figures = f"""count(*), fsum(weight), coalesce(fsum(weight) FILTER ({is_error}), 0),
        fsum(weight * duration_ms), max(duration_ms), fsum(weight * cost_usd::DOUBLE),
        coalesce(fsum(weight) FILTER (error IS NOT NULL), 0),
        coalesce(fsum(weight) FILTER (duration_ms IS NOT NULL), 0),
        coalesce(fsum(weight) FILTER (cost_usd IS NOT NULL), 0),
        min(event_time), max(event_time)"""
    counted = frame.aggregate(f"{values}, {figures}", values)
    return [(hour.start, *group) for group in counted.fetchall()]


def copy_data(frame: Frame, hour: Hour) -> Generator[memoryview, None, None]:
    """The rows of `row_of` as CSV, a batch at a time: strings are quoted, NULL is empty.

    The caller closes the generator: until then, the frame's connection refuses other queries.
    """
    columns = [f'{expression} AS "{name}"' for name, expression in row_of(hour).items()]
    with frame.project(", ".join(columns)).to_arrow_reader(BATCH_ROWS) as batches:
        yield from map(_csv, batches)


def _csv(batch: pa.RecordBatch) -> memoryview:
    """A batch as CSV for COPY."""
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(
        batch,
        sink,
        pyarrow.csv.WriteOptions(include_header=False),
    )
    return memoryview(sink.getvalue())
