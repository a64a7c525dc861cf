"""The stages: each computes its frame from the frame before, for an hour or for many small hours.

For an hour of a few events, DuckDB takes ten times as long to plan a query as to run it, so small
hours share a query. The result is the same, because a stage looks at each event alone. The exact
draws of a sample compare events, so such a stage is built hour by hour.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from obs_assets.events import (
    CONTENT_HASH,
    HASH_OF_NOTHING,
    Frame,
    append_fields,
    counts_by,
    quote,
    with_columns,
)
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets.hourly.profile import by_minute, cost_of, fields_of
from obs_assets.hourly.stage_rows import REDACTED, STAGES, Stage, row_of
from obs_assets.hours import Hour
from obs_assets.receipts import COST, FIELDS, LEVELS_BY_MINUTE, InputVersion, Receipt
from obs_assets.sources.landing import LANDED_SCHEMA
from obs_assets.sources.log import LandingLog
from obs_assets.storage.frames import ROW_GROUP_SIZE, Store
from obs_assets.transforms.enrich import enrich
from obs_assets.transforms.filter import apply_filter
from obs_assets.transforms.redact import Workers, redact, redacted_by_type, workers_for
from obs_assets.transforms.redact.workers import MANY
from obs_assets.transforms.sample import sample

SMALL = 20_000
"""Events. A frame of at most this number is computed once and kept in memory for all its readers."""

LARGE_EVENT = 2 << 10
"""Bytes. From this mean size of an event on, an hour counts as an hour of large events."""

_SURELY_SMALL = 256 << 10
"""Bytes of files. Compression saves at most 254 of 255 bytes, so smaller files hold less than
`Sizes.sorted_bytes`, and their size is not looked up."""


@dataclass(frozen=True)
class Sizes:
    """How much of an hour is worked on at a time: bounds memory.

    Attributes:
        group_rows: rows of a row group of a frame.
        group_bytes: bytes of a row group of large events. Writing and reading holds several copies
            of it in memory.
        sorted_bytes: bytes of large events that are sorted at a time: DuckDB holds much of the data
            that it merges.
        workers_from: events of an hour from which on other processes help to redact it.
        memory: memory limit of DuckDB, for example ``512MB``; None for that of `engine.connect`.
    """

    group_rows: int = ROW_GROUP_SIZE
    group_bytes: int = 16 << 20
    sorted_bytes: int = 64 << 20
    workers_from: int = MANY
    memory: str | None = None


SIZES = Sizes()
"""The sizes of a pipeline that runs for itself."""


@dataclass(frozen=True)
class StageInput:
    """The input of a stage for an hour.

    Attributes:
        paths: Parquet files: chunks of landed lines for ``raw_events``, otherwise the frame of the
            stage before.
        rows: number of events, from the landing log or the receipt of the stage before.
        version: version of the frame that is built from it.
    """

    paths: Sequence[Path]
    rows: int
    version: InputVersion


class Unredacted(NamedTuple):
    """An event on which the redactor fails.

    Attributes:
        row_uid: identity of the event in every frame.
        event_file: name of its file at landing; the file's id after ``raw_events`` has expired.
        file_offset: byte offset in the decompressed file.
        landed_at: time of landing, UTC.
        reason: reason of the failure, such as `REDACTOR_FAILED`.
        event: text of the event before redaction; it can hold personal data.
    """

    row_uid: str
    event_file: str
    file_offset: int
    landed_at: datetime
    reason: str
    event: str


@dataclass(frozen=True)
class Stages:
    """The stages of one pipeline.

    Attributes:
        config: the pipeline's configuration.
        store: reads and writes frames.
        log: names the landed chunks of an hour.
        hash_key: secret key of the tokens that redaction leaves.
        sizes: how much is worked on at a time.
    """

    config: PipelineConfig
    store: Store
    log: LandingLog
    hash_key: bytes | None = None
    sizes: Sizes = SIZES

    def takes_many(self, stage: Stage) -> bool:
        """Whether several hours may go through a stage in one query."""
        if stage != "sampled_events" or self.config.sample is None:
            return True
        # Other strategies compare the events of an hour with each other.
        return self.config.sample.is_by_event

    def given(self, stage: Stage, hour: Hour) -> StageInput:
        """The present input of a stage for an hour.

        Raises:
            MissingFrameError: the stage before has not built the hour.
            ReceiptError: the counts of the stage before do not add up.
        """
        if stage == STAGES[0]:
            everything = self.log.load()
            landed = everything.hour(hour)
            version = self.config.next_version(everything.version(hour), stage)
            return StageInput(self.log.chunk_paths(landed), landed.rows, version)
        before = row_of(stage).upstream
        receipt = self.store.read_receipt(before, hour).check()
        path = self.store.built_frame(before, hour)
        return StageInput(
            [path],
            receipt.kept,
            self.config.next_version(receipt.version, stage),
        )

    def build(
        self,
        connection: duckdb.DuckDBPyConnection,
        stage: Stage,
        given: Mapping[Hour, StageInput],
    ) -> dict[Hour, Receipt]:
        """Write the frames of some hours, each whole or not at all, and count the written events.

        Args:
            connection: no other query may use it during the call.
            stage: name of the stage, for example ``raw_events``.
            given: hour → its input, in the order of the hours. More than one hour is allowed only for
                a stage that `takes_many`, and if the hours together hold at most `SMALL` events.

        Returns:
            hour → its receipt. The caller still has to write it.
        """
        rows = sum(item.rows for item in given.values())
        paths: list[str] = []
        for item in given.values():
            paths += map(str, item.paths)
        size = _uncompressed_size(paths)
        needs_help = stage == "redacted_events" and rows >= self.sizes.workers_from
        with workers_for(
            connection,
            self.config.redact,
            self.hash_key,
            needed=needs_help,
        ) as workers:
            judged = self._frame(connection, stage, paths, workers)
            if rows <= SMALL and self._is_read_again(stage, len(given), size):
                judged = _held(connection, judged)
            kept = judged
            drops = "dropped_by" in judged.columns
            if drops:
                kept = judged.filter("dropped_by IS NULL").project("* EXCLUDE (dropped_by)")
            has_large_events = size > max(self.sizes.sorted_bytes, rows * LARGE_EVENT)
            frames = _by_hour(kept, given)
            if stage == STAGES[0] and len(given) == 1 and has_large_events:
                part_rows = rows * self.sizes.sorted_bytes // size
                parts = self._sorted_parts(connection, paths, part_rows)
                frames = iter([(hour, parts) for hour in given])
            written = self.store.write_frames(frames, stage, self._group_rows(rows, size))
            hours = {str(path): hour for hour, path in written.items()}
            frame = connection.read_parquet(list(hours), filename=True)
            receipts = self._receipts(frame, stage, given, hours)
            # Counting redacts a large hour a second time, and nearly always no event was dropped.
            if drops and any(receipt.unaccounted for receipt in receipts.values()):
                dropped = counts_by(judged, _HOUR, "dropped_by")
                for hour, receipt in receipts.items():
                    receipts[hour] = replace(receipt, other=dropped.get(hour.start, {}))
            return receipts

    def _is_read_again(self, stage: Stage, hours: int, size: int) -> bool:
        """Whether a frame is read more than once: by each hour, or to count the events that a sample dropped.

        Args:
            stage: name of the stage.
            hours: number of hours in the frame.
            size: bytes of its input.
        """
        return hours > 1 or (stage == STAGES[-1] and size <= self.sizes.sorted_bytes)

    def _group_rows(self, rows: int, size: int) -> int:
        """Rows of a row group, so that it holds `Sizes.group_bytes` if events are large.

        Args:
            rows: number of events.
            size: their bytes.
        """
        if size <= max(self.sizes.group_bytes, rows * LARGE_EVENT):
            return self.sizes.group_rows
        return max(1, rows * self.sizes.group_bytes // size)

    def unredacted(
        self,
        connection: duckdb.DuckDBPyConnection,
        hour: Hour,
    ) -> list[Unredacted]:
        """The events of an hour on which the redactor fails now, in the order of the frame.

        Args:
            connection: used for nothing else at the time.
            hour: an hour that ``enriched_events`` has built.

        Raises:
            MissingFrameError: ``enriched_events`` has not built the hour, or its frame was removed
                after ``retention_days``.
        """
        given = self.given("redacted_events", hour)
        paths = [str(path) for path in given.paths]
        with workers_for(
            connection,
            self.config.redact,
            self.hash_key,
            needed=given.rows >= self.sizes.workers_from,
        ) as workers:
            judged = self._frame(connection, "redacted_events", paths, workers)
            dropped = judged.filter("dropped_by IS NOT NULL").project("row_uid, dropped_by")
            reasons = dict(dropped.fetchall())
        if not reasons:
            return []
        columns = "row_uid, file_id, file_offset, landed_at, event"
        rows = connection.read_parquet(paths).project(columns)
        identities = ", ".join(map(quote, reasons))
        found = rows.filter(f"row_uid IN ({identities})").fetchall()
        # Frames after the raw frame hold the id of a file only.
        raw = self.store.frame_path("raw_events", hour)
        files: dict[str, str] = {}
        if raw.exists():
            names = connection.read_parquet(str(raw)).project("file_id, event_file")
            files = dict(names.distinct().fetchall())
        unredacted = []
        for uid, file_id, offset, landed_at, event in found:
            file = files.get(file_id, file_id)
            unredacted.append(Unredacted(uid, file, offset, landed_at, reasons[uid], event))
        return unredacted

    def dropped(
        self,
        connection: duckdb.DuckDBPyConnection,
        hour: Hour,
    ) -> dict[str, str]:
        """``row_uid`` → reason, of the redacted events of an hour that filter or sample drop now.

        Args:
            connection: used for nothing else at the time.
            hour: an hour that ``redacted_events`` has built.

        Raises:
            MissingFrameError: ``redacted_events`` has not built the hour.
        """
        path = self.store.built_frame("redacted_events", hour)
        judged = self._frame(connection, "sampled_events", [str(path)], None)
        dropped = judged.filter("dropped_by IS NOT NULL").project("row_uid, dropped_by")
        return dict(dropped.fetchall())

    def _receipts(
        self,
        written: Frame,
        stage: Stage,
        given: Mapping[Hour, StageInput],
        hours: Mapping[str, Hour],
    ) -> dict[Hour, Receipt]:
        """The receipts of the written files: every count is read back from a file.

        Args:
            written: all the files, with a column ``filename``.
            stage: name of the stage.
            given: hour → its input.
            hours: path of a written file → its hour.
        """
        content_sql, of_nothing = quote(""), ""
        if stage in REDACTED:
            content_sql, of_nothing = CONTENT_HASH, HASH_OF_NOTHING
        counted = written.aggregate(f"filename, count(*), {content_sql}").fetchall()
        counts = {file: (rows, content) for file, rows, content in counted}
        details = self._details(
            stage,
            written,
            max(item.rows for item in given.values()),
        )
        receipts: dict[Hour, Receipt] = {}
        for file, hour in hours.items():
            # A file without events is not in the counts.
            rows, content_hash = counts.get(file, (0, of_nothing))
            receipts[hour] = Receipt(
                hour.key,
                stage,
                given[hour].version,
                taken=given[hour].rows,
                kept=rows,
                details={title: found.get(file, {}) for title, found in details.items()},
                content_hash=content_hash,
                size_bytes=Path(file).stat().st_size,
            )
        return receipts

    def _details(
        self, stage: Stage, written: Frame, rows: int
    ) -> dict[str, Mapping[str, Mapping[str, Any]]]:
        """Title → file → details of its receipt, which the checks and the UI show.

        Args:
            stage: name of the stage.
            written: the written files, with a column ``filename``.
            rows: number of events of the largest hour.
        """
        file = "filename"
        match stage:
            case "raw_events":
                return {}
            case "enriched_events":
                return {COST: cost_of(written, file)}
            case "redacted_events":
                return {
                    "redacted values": redacted_by_type(written, file),
                    LEVELS_BY_MINUTE: by_minute(written, file),
                    COST: cost_of(written, file),
                    FIELDS: fields_of(written, rows, file),
                }
        return {LEVELS_BY_MINUTE: by_minute(written, file), COST: cost_of(written, file)}

    def _frame(
        self,
        connection: duckdb.DuckDBPyConnection,
        stage: Stage,
        paths: Sequence[str],
        workers: Workers | None,
    ) -> Frame:
        """The events of these files after a stage, in their order.

        A stage that can drop events adds ``dropped_by``: the reason, or null for a kept event.
        """
        if stage == STAGES[0]:
            return self.raw(connection, paths)
        return self.after(connection, stage, connection.read_parquet(list(paths)), workers)

    def raw(self, connection: duckdb.DuckDBPyConnection, chunks: Sequence[str]) -> Frame:
        """The frame of ``raw_events`` from landed chunks; nothing is written."""
        return with_columns(self._landed(connection, chunks), "event_file", "collector")

    def after(
        self,
        connection: duckdb.DuckDBPyConnection,
        stage: Stage,
        frame: Frame,
        workers: Workers | None = None,
    ) -> Frame:
        """The events of a frame after a stage, in their order; nothing is written.

        Args:
            connection: computes the frame.
            stage: any stage but ``raw_events``.
            frame: the frame of the stage before.
            workers: processes that help to redact.

        Returns:
            A frame; a stage that can drop events adds ``dropped_by``: the reason, or null for a
            kept event.
        """
        match stage:
            case "enriched_events":
                if self.config.enrich:
                    return enrich(connection, frame, self.config.enrich)
                return frame.project("* EXCLUDE (event_file, collector)")
            case "redacted_events":
                return redact(connection, frame, self.config.redact, self.hash_key, workers)
        judged = apply_filter(
            connection, frame.project("* EXCLUDE (redactions)"), self.config.filter
        )
        return sample(judged, self.config.sample)

    def _sorted_parts(
        self, connection: duckdb.DuckDBPyConnection, chunks: Sequence[str], rows: int
    ) -> list[Frame]:
        """The raw frame in parts of ``rows`` events, in order.

        Only the sort keys of the whole hour are sorted together; the events are sorted part by part.
        """
        keys = "event_time, row_uid"
        numbered = connection.read_parquet(list(chunks)).project(
            f"{keys}, row_number() OVER (ORDER BY {keys}) AS n"
        )
        # A part ends after each `rows` events; its end is the key of its last event.
        last_of_parts = numbered.filter(f"n % {max(1, rows)} = 0").project(keys).order(keys)
        ends = [(time.isoformat(), uid) for time, uid in last_of_parts.fetchall()]
        # The first part has no lower bound, and the last part no upper bound.
        parts = []
        for begin, end in itertools.pairwise([None, *ends, None]):
            lines = self._landed(connection, chunks, _between(begin, end))
            parts.append(with_columns(lines, "event_file", "collector"))
        return parts

    def _landed(
        self,
        connection: duckdb.DuckDBPyConnection,
        chunks: Sequence[str],
        where: str = "true",
    ) -> Frame:
        """Landed lines in order, each event with ``_source`` and ``_event_file``.

        Args:
            connection: computes the frame.
            chunks: paths of landed chunks.
            where: SQL condition of the lines.
        """
        if chunks:
            lines = connection.read_parquet(list(chunks)).filter(where)
        else:
            # Only here: DuckDB imports pandas to read a table of Arrow, which takes half a second.
            lines = connection.from_arrow(LANDED_SCHEMA.empty_table())
        kind = self.config.source.type
        named_source = {"name": self.config.source.name or kind, "type": kind}
        source = json.dumps(named_source, separators=(",", ":"))
        fields = {
            "_source": quote(f',"_source":{source}'),
            "_event_file": "',\"_event_file\":' || to_json(event_file)",
        }
        # An event that brings such a key keeps its own value.
        added = " || ".join(
            f"CASE WHEN named AND json_exists(line, '$.{key}') THEN '' ELSE {field} END"
            for key, field in fields.items()
        )
        # Sorted first: columns that are added before a sort go through it.
        ordered = lines.order("event_time, row_uid")
        # A search for both keys costs less than parsing, and nearly no event has either key. A pattern that
        # begins with a rare sign is found faster than a quotation mark.
        names = "|".join(key.removeprefix("_") for key in fields)
        pattern = f'_({names})"'
        named = ordered.project(f"*, regexp_matches(line, '{pattern}') AS named")
        with_fields = named.project(f"* EXCLUDE (named), {added} AS added")
        event = append_fields("line", "added")
        return with_fields.project(f"* EXCLUDE (line, added), {event} AS event")


def _by_hour(
    frame: Frame, given: Mapping[Hour, StageInput]
) -> Iterator[tuple[Hour, list[Frame]]]:
    """Each hour with its part of the frame; a frame of a single hour needs no filter."""
    for hour in given:
        part = frame
        if len(given) > 1:
            part = frame.filter(_within(hour))
        yield hour, [part]


def _held(connection: duckdb.DuckDBPyConnection, frame: Frame) -> Frame:
    """The frame, computed now and kept as a temporary table of the connection."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE held AS {frame.sql_query()}")
    return connection.table("held")


def _uncompressed_size(paths: Sequence[str]) -> int:
    """Bytes of Parquet files before compression; 0 if the files are surely small, or damaged."""
    try:
        compressed = sum(Path(path).stat().st_size for path in paths)
        if compressed < _SURELY_SMALL:
            return 0
        return sum(_uncompressed_size_of(path) for path in paths)
    except (OSError, pa.ArrowException):
        return 0  # the query that reads the files reports the damage


def _uncompressed_size_of(path: str) -> int:
    stored = pq.read_metadata(path)
    return sum(stored.row_group(n).total_byte_size for n in range(stored.num_row_groups))


def _between(begin: tuple[str, str] | None, end: tuple[str, str] | None) -> str:
    """SQL condition of the events after ``begin`` and up to ``end``.

    Args:
        begin: event_time and row_uid of the last event before; None is no bound.
        end: event_time and row_uid of the last event; None is no bound.
    """
    after = upto = "true"
    if begin:
        time, uid = begin
        after = f"event_time >= '{time}' AND (event_time > '{time}' OR row_uid > '{uid}')"
    if end:
        time, uid = end
        upto = f"event_time <= '{time}' AND (event_time < '{time}' OR row_uid <= '{uid}')"
    return f"{after} AND {upto}"


_HOUR = "date_trunc('hour', event_time)"


def _within(hour: Hour) -> str:
    return f"event_time >= '{hour.start.isoformat()}' AND event_time < '{hour.end.isoformat()}'"
