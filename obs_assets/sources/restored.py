"""Lands archived events again, so that an hour comes back after its files are gone.

A restored row is the archived event, already redacted, with its old row_uid. So an hour that still holds the row does
not get it twice, and a second restore adds nothing. Its file is the archive's object. Redaction and enrichment do not
change their own results again, so the rebuilt hour is equal to the archived hour.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from obs_assets.crash import crash_point
from obs_assets.errors import PermanentError
from obs_assets.events import Frame, quote
from obs_assets.hours import Hour
from obs_assets.sources.landing import LANDED_SCHEMA, LandingReport, collector
from obs_assets.sources.log import LandedHour, LandingLog, LandingPass
from obs_assets.sources.times import (
    EVENT_TIME,
    TIME_PATHS,
    careful_time_text,
    json_path,
    other_paths,
)
from obs_assets.storage.disk import sync_file
from obs_assets.storage.engine import connect
from obs_assets.storage.frames import write_parquet

Rows = Callable[[duckdb.DuckDBPyConnection], Frame]


def land_archived(
    log: LandingLog,
    hour: Hour,
    parts: Iterable[tuple[str, Rows]],
    *,
    time_path: str | None = None,
    now: datetime | None = None,
) -> LandingReport:
    """Land the rows of an archived hour that have not landed, in a single pass: all of them or none.

    Args:
        log: the landing log.
        hour: the hour.
        parts: the URL of each part of the hour, and a function that reads it: ``row_uid``, ``event``, and ``length``,
            the size of the row in the part, in bytes.
        time_path: field in which the pipeline first looks for the time of an event.
        now: landing time; default: the clock.

    Raises:
        HourBusyError: a landing pass is running.
        PermanentError: a row has no row_uid.
    """
    paths = ((json_path(time_path),) if time_path else ()) + TIME_PATHS
    began_at = (now or datetime.now(UTC)).astimezone(UTC)
    with log.lock():
        landed = log.load()
        number = landed.last_pass + 1
        folder = log.begin(number)
        with connect(log.temp_dir, memory_limit="512MB") as connection:
            _note_row_uids(connection, log.chunk_paths(landed.hour(hour)))
            chunks, rows = [], 0
            for number_of_part, (key, rows_of) in enumerate(parts):
                crash_point("landing.before_chunk")
                chunk = folder / f"{hour.stamp}-{number_of_part}.parquet"
                fresh = _fresh(connection, rows_of(connection), key, hour, began_at, paths)
                write_parquet(fresh.project(", ".join(LANDED_SCHEMA.names)), chunk)
                written = (
                    connection.read_parquet(str(chunk))
                    .aggregate("count(*), count(row_uid)")
                    .fetchall()[0]
                )
                if written[0] != written[1]:
                    raise PermanentError(
                        f"{key} holds rows without _obs: nothing of {hour} was restored from it"
                    )
                if written[0]:
                    sync_file(chunk)
                    chunks.append(f"{number:08d}/{chunk.name}")
                    rows += written[0]
                else:
                    chunk.unlink()
                crash_point("landing.after_chunk")
        if not rows:
            shutil.rmtree(folder)
            return LandingReport(None)
        landing = LandingPass(
            number=number,
            began_at=began_at.isoformat(),
            finished_at=datetime.now(UTC).isoformat(),
            collector=collector(),
            files=(),
            hours={hour.key: LandedHour(number, rows, tuple(chunks))},
            dead_letters={},
        )
        log.publish(folder, landing, landed)
    return LandingReport(number, hours={hour.key: rows})


def timed_events(
    connection: duckdb.DuckDBPyConnection,
    rows: Frame,
    hour: Hour,
    *,
    time_path: str | None = None,
) -> Frame:
    """Archived events with the lineage columns, ``event`` and ``weight``, for questions about them.

    Args:
        connection: reads the rows; the frame is valid until the next call.
        rows: the rows of an object: ``row_uid``, ``weight`` and ``event``.
        hour: the hour of the object; an event without a time in it gets its start.
        time_path: field in which the pipeline first looks for the time of an event.
    """
    paths = ((json_path(time_path),) if time_path else ()) + TIME_PATHS
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE searched (row_uid VARCHAR, weight DOUBLE, line VARCHAR)"
    )
    rows.project("row_uid, weight, event").insert_into("searched")
    others = other_paths(connection, "searched", paths)
    start, end = (
        f"{quote(moment.isoformat())}::TIMESTAMPTZ" for moment in (hour.start, hour.end)
    )
    texts = connection.table("searched").project(
        f"*, {end} AS landed_at, {start} AS first_hour"
    )
    timed = texts.project(f"*, {careful_time_text(paths, others)} AS time_text")
    found = timed.project(f"*, {EVENT_TIME} AS found")
    is_within = f"found >= {start} AND found < {end}"
    return found.project(
        f"row_uid, CASE WHEN {is_within} THEN found ELSE {start} END AS event_time, "
        "'' AS file_id, 0::BIGINT AS file_offset, landed_at, weight, line AS event"
    )


def _timed(paths: Sequence[str], others: Sequence[str]) -> str:
    """SQL: the archived rows with the columns of a chunk; for the arguments see `careful_time_text`."""
    # An event without a time of its own happened at some time in its hour
    return f"""
SELECT row_uid, CASE WHEN event_time >= $start AND event_time < $end THEN event_time ELSE $start END AS event_time,
    $key AS file_id, file_offset, landed_at, CASE WHEN event_time >= $start AND event_time < $end
        THEN 'event' ELSE 'archive' END AS time_from, $key AS event_file, $collector AS collector,
    NULL::BIGINT[] AS byte_ranges, line
FROM (SELECT *, {EVENT_TIME} AS event_time
FROM (SELECT *, {careful_time_text(paths, others)} AS time_text
FROM (SELECT *, $landed_at AS landed_at, $start AS first_hour FROM archived)))
"""


def _note_row_uids(connection: duckdb.DuckDBPyConnection, chunks: list[Path]) -> None:
    """Create a table ``known`` of the row_uids that the hour already holds."""
    connection.execute("CREATE TEMP TABLE known (row_uid VARCHAR)")
    if chunks:
        connection.read_parquet([str(chunk) for chunk in chunks]).project(
            "row_uid"
        ).insert_into("known")


def _fresh(  # noqa: PLR0917
    connection: duckdb.DuckDBPyConnection,
    rows: Frame,
    key: str,
    hour: Hour,
    landed_at: datetime,
    paths: Sequence[str],
) -> Frame:
    """Rows of an object that the hour does not hold yet, with the columns of a chunk."""
    numbered = rows.project(
        "row_uid, event AS line, (sum(length) OVER (ROWS UNBOUNDED PRECEDING) - length)::BIGINT AS file_offset"
    )
    connection.execute("DROP TABLE IF EXISTS archived")
    connection.execute(
        "CREATE TEMP TABLE archived (row_uid VARCHAR, line VARCHAR, file_offset BIGINT)"
    )
    numbered.insert_into("archived")
    values = {
        "start": f"{quote(hour.start.isoformat())}::TIMESTAMPTZ",
        "end": f"{quote(hour.end.isoformat())}::TIMESTAMPTZ",
        "landed_at": f"{quote(landed_at.isoformat())}::TIMESTAMPTZ",
        "key": quote(key),
        "collector": quote(json.dumps(collector(), separators=(",", ":"))),
    }
    # All in one step: a value that looks like a placeholder, for example in an object's key, stays unchanged
    timed = _timed(paths, other_paths(connection, "archived", paths))
    statement = re.sub(rf"\$({'|'.join(values)})\b", lambda found: values[found[1]], timed)
    return connection.sql(
        f"SELECT timed.* FROM ({statement}) timed LEFT JOIN known USING (row_uid) WHERE known.row_uid IS NULL"
    )
