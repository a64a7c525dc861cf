"""Where an event is that is known to have been sent: stored, dropped and why, not read, or not landed yet.

The table is asked first. An event that it does not have is looked for in the frames of this data folder,
from the last stage to the first, then among the dead letters, then in the record of the files.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
from psycopg import sql

from obs_assets.errors import MissingFrameError
from obs_assets.events import one_of, quote, row_uids
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import REDACTED, STAGES, UNREDACTED, Stage
from obs_assets.hours import Hour, parse_hour
from obs_assets.search.postgres import json_path, jsonpath_equal
from obs_assets.search.questions import Position, rows_within, snapshot
from obs_assets.search.selection import Tables
from obs_assets.sources.files import KnownFile
from obs_assets.sources.replay import open_rows
from obs_assets.storage.engine import computing, connect
from obs_assets.storage.postgres import Connection
from obs_assets.transforms.redact import REDACTOR_FAILED

Place: TypeAlias = Literal[
    "stored", "sampled_out", "filtered", "dead", "dropped", "waiting", "not_landed", "expired"
]
"""stored: in the table. sampled_out, filtered, dead: dropped, ``detail`` is stratum, rule or reason.
dropped: by a configuration that is no longer in force. waiting: it has landed, and its hour is not loaded
with it yet. not_landed: its file does not have it, or has not been read so far. expired: retention
dropped its hour."""

MOST_ROWS = 1_000
"""Events of a trace or an id that are looked for, at most."""

FRAMES_AT_A_TIME = 48
"""Hours whose frames are read in one query, the newest first."""

_ID_KEYS = ("id", "event_id", "_id")


@dataclass(frozen=True)
class Asked:
    """The event that is looked for: one of an id, a trace, or a place in a file.

    Attributes:
        event_id: the event's own id.
        trace_id: the trace of the event.
        file: path of an event file, or its end.
        offset: position of a byte of the record in the decompressed file.
    """

    event_id: str = ""
    trace_id: str = ""
    file: str = ""
    offset: int = 0


@dataclass(frozen=True)
class Whereabouts:
    """Where an event is.

    Attributes:
        place: see `Place`.
        detail: stratum, rule or reason, such as ``low_value``; or the position to which a file has landed.
        hour: the event's hour, if it is known.
        id: public id of a stored event, see `questions.Position`.
        file: path of the file it was landed from, if that is known.
        offset: position of its first byte in the decompressed file.
    """

    place: Place
    detail: str = ""
    hour: Hour | None = None
    id: str | None = None
    file: str | None = None
    offset: int | None = None

    @property
    def text(self) -> str:
        """Place and detail, for example ``filtered:low_value``."""
        return f"{self.place}:{self.detail}" if self.detail else self.place


@dataclass(frozen=True)
class Found:
    """An answer of `whereabouts`.

    Attributes:
        events: the events that were found, the newest first; empty if none is known.
        is_complete: whether all data was searched; else the time was over.
        seconds: how long it took.
    """

    events: tuple[Whereabouts, ...]
    is_complete: bool
    seconds: float


def whereabouts(
    hourly: HourlyPipeline,
    connection: Connection,
    asked: Asked,
    *,
    deadline_s: float = 10.0,
) -> Found:
    """Where events are.

    Args:
        hourly: the pipeline, whose first table and whose data folder are searched.
        connection: to the table's server, in autocommit mode.
        asked: the event that is looked for.
        deadline_s: seconds after which the search ends.
    """
    began = time.monotonic()
    return _Search(hourly, connection, asked, began, began + deadline_s).run()


@dataclass(frozen=True)
class _Seen:
    """An event in a frame."""

    hour: Hour
    row_uid: str


class _OverError(Exception):
    """The time is over."""


@dataclass(frozen=True)
class _Search:
    hourly: HourlyPipeline
    connection: Connection
    asked: Asked
    began: float
    ends_at: float

    @property
    def tables(self) -> Tables:
        return self.hourly.searched_table().table.searched

    def run(self) -> Found:
        """Search the table, then the frames, then the files."""
        found: dict[str, Whereabouts] = {}
        is_complete = True
        try:
            files = self._files()
            # The table has no index of places in files: frames say the hour.
            if not self.asked.file:
                found |= self._rows_where(self._condition())
            # Other events of a trace may be dropped; an event of this id has been found.
            if self.asked.trace_id or not found:
                for seen in self._seen(files):
                    if seen.row_uid not in found:
                        found[seen.row_uid] = self._resolved(seen)
            if self.asked.file and not found:
                found[""] = self._in_file(files)
        except _OverError:
            is_complete = False
        events = sorted(found.values(), key=_newest_first)
        return Found(tuple(events), is_complete, time.monotonic() - self.began)

    def _left_s(self) -> float:
        left_s = self.ends_at - time.monotonic()
        if left_s <= 0:
            raise _OverError
        return left_s

    # -- the table -----------------------------------------------------------------------------

    def _rows_where(self, condition: sql.Composable) -> dict[str, Whereabouts]:
        """The events that the table has: identity of the row → where it is."""
        select = sql.SQL(
            "SELECT timestamp, row_uid FROM {} WHERE {} ORDER BY timestamp DESC LIMIT {}"
        ).format(self.tables.events, condition, sql.Literal(MOST_ROWS))
        with snapshot(self.connection):
            rows = rows_within(self.connection, select, self._left_s())
        if rows is None:
            raise _OverError
        found = {}
        for timestamp, row_uid in rows:
            hour, position = Hour.of(timestamp.astimezone(UTC)), Position(timestamp, row_uid)
            file, offset = self._origin(row_uid)
            found[row_uid] = Whereabouts("stored", "", hour, position.id, file, offset)
        return found

    def _condition(self) -> sql.Composable:
        if self.asked.trace_id:
            # The column is indexed; it holds the beginning of a long value.
            return sql.SQL("trace_id = left({}, 500)").format(sql.Literal(self.asked.trace_id))
        # The keys have an index, and the column decides.
        filters = [
            f"{json_path([key])} ? ({jsonpath_equal(self.asked.event_id)})" for key in _ID_KEYS
        ]
        keys = [sql.SQL("data @? {}::jsonpath").format(sql.Literal(path)) for path in filters]
        return sql.SQL("({}) AND event_id = {}").format(
            sql.SQL(" OR ").join(keys), sql.Literal(self.asked.event_id)
        )

    def _origin(self, row_uid: str) -> tuple[str | None, int | None]:
        """File and position of a row: they make its identity."""
        file = self._files_by_digits().get(row_uid[:20])
        if file is None:
            return None, None
        return file.path, int(row_uid[20:], 16)

    # -- frames --------------------------------------------------------------------------------

    def _resolved(self, seen: _Seen) -> Whereabouts:
        """Where an event is that some frame has."""
        stored = self._rows_where(
            sql.SQL("timestamp >= {} AND timestamp < {} AND row_uid = {}").format(
                sql.Literal(seen.hour.start),
                sql.Literal(seen.hour.end),
                sql.Literal(seen.row_uid),
            )
        )
        if stored:
            return stored[seen.row_uid]
        place, detail = self._why_not_stored(seen)
        file, offset = self._origin(seen.row_uid)
        return Whereabouts(place, detail, seen.hour, None, file, offset)

    def _why_not_stored(self, seen: _Seen) -> tuple[Place, str]:
        """The first stage behind which the event is missing, and its reason."""
        for stage in STAGES:
            path = self.hourly.store.frame_path(stage, seen.hour)
            # Retention removes the frames from before redaction.
            if not path.exists() and stage in REDACTED:
                return "waiting", f"{stage} is not built"
            if path.exists() and not self._has(path, seen.row_uid):
                return self._why_dropped(stage, seen)
        if self.hourly.searched_table().config.has_expired(seen.hour, self.hourly.clock()):
            return "expired", ""
        return "waiting", "the hour is not loaded with it"

    def _has(self, path: Path, row_uid: str) -> bool:
        with connect(self.hourly.store.temp_dir, threads=1) as duck:
            rows = duck.read_parquet(str(path)).filter(f"row_uid = {quote(row_uid)}")
            return bool(rows.limit(1).fetchall())

    def _why_dropped(self, stage: Stage, seen: _Seen) -> tuple[Place, str]:
        """The reason for which a stage has dropped an event of the stage before."""
        if stage in UNREDACTED:
            return "waiting", f"{stage} is to be built again"
        if stage == "redacted_events":
            return "dead", self._redactor_failures(seen.hour).get(seen.row_uid, REDACTOR_FAILED)
        reason = self.hourly.dropped(seen.hour).get(seen.row_uid, "")
        rule, _, detail = reason.partition(":")
        match rule:
            case "filtered":
                return "filtered", detail
            case "sampled_out":
                return "sampled_out", detail
            case _:
                return "dropped", ""

    def _redactor_failures(self, hour: Hour) -> dict[str, str]:
        try:
            return {row.row_uid: row.reason for row in self.hourly.unredacted(hour)}
        except MissingFrameError:
            return {}

    def _seen(self, files: Sequence[KnownFile]) -> Iterator[_Seen]:
        """The events of all frames and of landed chunks that no frame has, the newest hours first."""
        store = self.hourly.store
        for stage in reversed(STAGES):
            paths = store.frame_path(stage, Hour(_EPOCH)).parent.glob("*.parquet")
            yield from self._matching(sorted(paths, reverse=True), self._of_frame(files))
        landed = self.hourly.landed().hours
        chunks: list[Path] = []
        for key in sorted(landed, reverse=True):
            if not store.frame_path(STAGES[0], parse_hour(key)).exists():
                chunks += self.hourly.log.chunk_paths(landed[key])
        yield from self._matching(chunks, self._of_chunk(files))

    def _matching(self, paths: Sequence[Path], wanted: str) -> Iterator[_Seen]:
        """The rows of Parquet files that meet a condition; the name of a file begins with its hour."""
        for start in range(0, len(paths), FRAMES_AT_A_TIME):
            self._left_s()
            some = [str(path) for path in paths[start : start + FRAMES_AT_A_TIME]]
            with (
                connect(self.hourly.store.temp_dir, threads=1) as duck,
                computing("whereabouts", duck),
            ):
                frame = duck.read_parquet(some, filename=True).filter(wanted)
                rows = frame.project("filename, row_uid").limit(MOST_ROWS).fetchall()
            yield from (_Seen(_hour_of(Path(path)), uid) for path, uid in rows)

    def _of_frame(self, files: Sequence[KnownFile]) -> str:
        """DuckDB's condition on the row of a frame."""
        if self.asked.event_id:
            return f"event_id = {quote(self.asked.event_id)}"
        if self.asked.trace_id:
            return f"trace_id = {quote(self.asked.trace_id)}"
        return one_of("row_uid", [_row_uid(file.file_id, self.asked.offset) for file in files])

    def _of_chunk(self, files: Sequence[KnownFile]) -> str:
        """DuckDB's condition on a landed line."""
        keys = _ID_KEYS if self.asked.event_id else ("trace_id",)
        if self.asked.file:
            return self._of_frame(files)
        value = quote(self.asked.event_id or self.asked.trace_id)
        # A line is JSON: the text is looked for first, because to parse a line takes longer.
        tests = " OR ".join(f"line ->> '$.{key}' = {value}" for key in keys)
        return f"contains(line, {value}) AND ({tests})"

    # -- files ---------------------------------------------------------------------------------

    def _files(self) -> list[KnownFile]:
        """The files that a path means: the log has paths below the folder of event files."""
        if not self.asked.file:
            return []
        asked = f"/{self.asked.file.lstrip('/')}"
        matching = [
            file
            for file in self.hourly.landed().files.values()
            if asked.endswith(f"/{file.path}") or f"/{file.path}".endswith(asked)
        ]
        # Of a/b.jsonl and b.jsonl, the first is meant by /events/a/b.jsonl.
        longest = max((len(file.path) for file in matching), default=0)
        is_whole = any(asked.endswith(f"/{file.path}") for file in matching)
        return [file for file in matching if not is_whole or len(file.path) == longest]

    def _files_by_digits(self) -> dict[str, KnownFile]:
        """The last digits of a file's id, with which its rows' identities begin → the file."""
        return {file.file_id[-20:]: file for file in self.hourly.landed().files.values()}

    def _in_file(self, files: Sequence[KnownFile]) -> Whereabouts:
        """Where the record of a file is that no frame has: a dead letter, or not landed."""
        ids = {file.file_id for file in files}
        columns = ("file_id", "file_offset", "length", "reason", "event_file")
        for _, row in open_rows(self.hourly.log, columns):
            start = row["file_offset"]
            if row["file_id"] in ids and start <= self.asked.offset < start + row["length"]:
                return Whereabouts("dead", row["reason"], None, None, row["event_file"], start)
        if not files:
            return Whereabouts(
                "not_landed", "no file of this name was read", file=self.asked.file
            )
        file = max(files, key=lambda known: known.landed_at)
        detail = f"landed to byte {file.offset:,}"
        if self.asked.offset < file.offset:
            detail = f"no record begins here; {detail}"
        return Whereabouts("not_landed", detail, None, None, file.path, self.asked.offset)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _hour_of(path: Path) -> Hour:
    # 2025120410.parquet is a frame, 2025120410-0.parquet a chunk.
    return Hour(datetime.strptime(path.stem[:10], "%Y%m%d%H").replace(tzinfo=UTC))


def _row_uid(file_id: str, offset: int) -> str:
    uids: pa.LargeStringArray = row_uids(
        [file_id], np.zeros(1, np.int32), np.array([offset], np.int64)
    )
    return str(uids[0].as_py())


def _newest_first(event: Whereabouts) -> tuple[float, str]:
    start = event.hour.start if event.hour else _EPOCH
    return -start.timestamp(), event.id or ""
