"""What the stages do: each makes its frame of the frame before, for one hour, or for many small ones in one go.

Planning a query takes DuckDB ten times as long as running it on an hour of a few events. No stage looks beyond an event
(the exact draws of a sample do, and so are made hour by hour), so that hours can go through it together: what they
become is the same.
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
from obs_assets.storage.frames import Store
from obs_assets.transforms.enrich import enrich
from obs_assets.transforms.filter import judge
from obs_assets.transforms.redact import Workers, redact, redacted_by_type, workers_for
from obs_assets.transforms.sample import sample

SMALL = 20_000
"""Events: so many are held in memory, and what they have become is computed once, however often it is read."""

GROUP_BYTES = 16 << 20
"""Of a row group of large events: it is in memory, some times over."""

SORTED_BYTES, LARGE_EVENT = 64 << 20, 2 << 10
"""Bytes of large events that are sorted at a time, and from which length on: DuckDB holds much of what it merges."""

_SURELY_SMALL = 256 << 10
"""Bytes of files, which are at best packed to a 255th: what is in them is not worth a look."""


@dataclass(frozen=True)
class Given:
    """What a stage builds an hour from.

    Attributes:
        paths: Parquet files; for ``raw_events`` chunks of landed lines, otherwise the frame of the stage before.
        rows: how many there are, as the landing log or the receipt of the stage before says.
        version: of what is to be built.
    """

    paths: Sequence[Path]
    rows: int
    version: InputVersion


class Unredacted(NamedTuple):
    """An event on which the redactor fails.

    Attributes:
        row_uid: its identity in every frame.
        event_file: its file, as landing named it; the file's id if ``raw_events`` is kept no longer.
        file_offset: byte offset in the decompressed file.
        landed_at: when it landed, UTC.
        reason: such as `REDACTOR_FAILED`.
        event: its text before redaction: personal.
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
        config: what happens to events.
        store: where frames are read and written.
        log: what has landed.
        hash_key: of redaction's tokens.
    """

    config: PipelineConfig
    store: Store
    log: LandingLog
    hash_key: bytes | None = None

    def takes_many(self, stage: Stage) -> bool:
        """Whether hours may go through a stage together."""
        return (
            stage != "sampled_events"
            or self.config.sample is None
            or self.config.sample.is_by_event
        )

    def given(self, stage: Stage, hour: Hour) -> Given:
        """What an hour would be built from now.

        Raises:
            MissingFrameError: the stage before has not built the hour.
            ReceiptError: the counts of the stage before do not add up.
        """
        if stage == STAGES[0]:
            landed = self.log.load().hour(hour)
            version = self.config.next_version(InputVersion(landed.generation, "", ""), stage)
            return Given(self.log.chunk_paths(landed), landed.rows, version)
        before = row_of(stage).upstream
        receipt = self.store.read_receipt(before, hour).check()
        path = self.store.built_frame(before, hour)
        return Given([path], receipt.kept, self.config.next_version(receipt.version, stage))

    def build(
        self, connection: duckdb.DuckDBPyConnection, stage: Stage, given: Mapping[Hour, Given]
    ) -> dict[Hour, Receipt]:
        """Write the frames of some hours, each whole or not at all, and count what was written.

        Args:
            connection: used for nothing else at the time.
            stage: of which.
            given: by hour, in the order of the hours. Of several hours `SMALL` events at most, and `takes_many`.

        Returns:
            the receipts, which are not yet written.
        """
        rows = sum(one.rows for one in given.values())
        paths = [str(path) for one in given.values() for path in one.paths]
        size = _uncompressed_size(paths)
        to_redact = rows if stage == "redacted_events" else 0
        with workers_for(connection, to_redact, self.config.redact, self.hash_key) as workers:
            judged = self._frame(connection, stage, paths, workers)
            # What is read more than once is computed once: by the hours, or by those who count what a sample dropped
            if rows <= SMALL and (
                len(given) > 1 or (stage == STAGES[-1] and size <= SORTED_BYTES)
            ):
                judged = _held(connection, judged)
            drops = "dropped_by" in judged.columns
            kept = (
                judged.filter("dropped_by IS NULL").project("* EXCLUDE (dropped_by)")
                if drops
                else judged
            )
            parts = (
                (hour, [kept.filter(_within(hour))] if len(given) > 1 else [kept])
                for hour in given
            )
            if (
                stage == STAGES[0]
                and len(given) == 1
                and size > max(SORTED_BYTES, rows * LARGE_EVENT)
            ):
                parts = (
                    (hour, self._sorted_parts(connection, paths, rows * SORTED_BYTES // size))
                    for hour in given
                )
            group = (
                max(1, rows * GROUP_BYTES // size)
                if size > max(GROUP_BYTES, rows * LARGE_EVENT)
                else None
            )
            written = self.store.write_frames(parts, stage, group)
            hours = {str(path): hour for hour, path in written.items()}
            receipts = self._receipts(
                connection.read_parquet(list(hours), filename=True), stage, given, hours
            )
            # To redact a large hour once more for a count is costly, and nearly always there is nothing to be counted
            if drops and any(receipt.unaccounted for receipt in receipts.values()):
                dropped = counts_by(judged, _HOUR, "dropped_by")
                return {
                    hour: replace(one, other=dropped.get(hour.start, {}))
                    for hour, one in receipts.items()
                }
            return receipts

    def unredacted(self, connection: duckdb.DuckDBPyConnection, hour: Hour) -> list[Unredacted]:
        """The events of an hour on which the redactor fails now, in their order.

        Args:
            connection: used for nothing else at the time.
            hour: which ``enriched_events`` has built.

        Raises:
            MissingFrameError: it has not, or its frame was removed since ``retention_days`` have passed.
        """
        given = self.given("redacted_events", hour)
        paths = [str(path) for path in given.paths]
        with workers_for(connection, given.rows, self.config.redact, self.hash_key) as workers:
            judged = self._frame(connection, "redacted_events", paths, workers)
            reasons = dict(
                judged.filter("dropped_by IS NOT NULL")
                .project("row_uid, dropped_by")
                .fetchall()
            )
        if not reasons:
            return []
        rows = connection.read_parquet(paths).project(
            "row_uid, file_id, file_offset, landed_at, event"
        )
        found = rows.filter(f"row_uid IN ({', '.join(map(quote, reasons))})").fetchall()
        raw = self.store.frame_path("raw_events", hour)
        files: dict[str, str] = {}
        if raw.exists():
            files = dict(
                connection.read_parquet(str(raw))
                .project("file_id, event_file")
                .distinct()
                .fetchall()
            )
        return [
            Unredacted(uid, files.get(file_id, file_id), offset, landed_at, reasons[uid], event)
            for uid, file_id, offset, landed_at, event in found
        ]

    def _receipts(
        self,
        written: Frame,
        stage: Stage,
        given: Mapping[Hour, Given],
        hours: Mapping[str, Hour],
    ) -> dict[Hour, Receipt]:
        """What was written, by the files of the hours. Nothing is counted that was not read back."""
        content = CONTENT_HASH if stage in REDACTED else quote("")
        counted = written.aggregate(f"filename, count(*), {content}").fetchall()
        counts = {file: (rows, content) for file, rows, content in counted}
        details = self._details(stage, written, max(one.rows for one in given.values()))
        return {
            hour: Receipt(
                hour.key,
                stage,
                given[hour].version,
                taken=given[hour].rows,
                kept=counts.get(file, (0, ""))[0],
                details={title: found.get(file, {}) for title, found in details.items()},
                content_hash=counts[file][1]
                if file in counts
                else HASH_OF_NOTHING
                if stage in REDACTED
                else "",
                size_bytes=Path(file).stat().st_size,
            )
            for file, hour in hours.items()
        }

    def _details(
        self, stage: Stage, written: Frame, rows: int
    ) -> dict[str, Mapping[str, Mapping[str, Any]]]:
        """What the checks and the UI are told of an hour, by title and file."""
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
        """A stage's rows of all of these files, in their order; where some are dropped, ``dropped_by`` says why."""
        if stage == STAGES[0]:
            return with_columns(self._landed(connection, paths), "event_file", "collector")
        frame = connection.read_parquet(list(paths))
        match stage:
            case "enriched_events":
                if self.config.enrich:
                    return enrich(connection, frame, self.config.enrich)
                return frame.project("* EXCLUDE (event_file, collector)")
            case "redacted_events":
                return redact(connection, frame, self.config.redact, self.hash_key, workers)
        return sample(
            judge(connection, frame.project("* EXCLUDE (redactions)"), self.config.filter),
            self.config.sample,
        )

    def _sorted_parts(
        self, connection: duckdb.DuckDBPyConnection, chunks: Sequence[str], rows: int
    ) -> list[Frame]:
        """The raw frame in parts of so many rows, one after the other: only their places are sorted together."""
        places = "event_time, row_uid"
        numbered = connection.read_parquet(list(chunks)).project(
            f"{places}, row_number() OVER (ORDER BY {places}) AS n"
        )
        ends = (
            numbered.filter(f"n % {max(1, rows)} = 0").project(places).order(places).fetchall()
        )
        edges = [None, *((time.isoformat(), uid) for time, uid in ends), None]
        return [
            with_columns(
                self._landed(connection, chunks, _between(begin, end)),
                "event_file",
                "collector",
            )
            for begin, end in itertools.pairwise(edges)
        ]

    def _landed(
        self, connection: duckdb.DuckDBPyConnection, chunks: Sequence[str], where: str = "true"
    ) -> Frame:
        """Landed lines in order, each event with ``_source`` and ``_event_file``."""
        lines = (
            connection.read_parquet(list(chunks))
            if chunks
            else connection.from_arrow(LANDED_SCHEMA.empty_table())
        )
        lines = lines.filter(where)
        kind = self.config.source.type
        source = json.dumps(
            {"name": self.config.source.name or kind, "type": kind}, separators=(",", ":")
        )
        fields = {
            "_source": quote(f',"_source":{source}'),
            "_event_file": "',\"_event_file\":' || to_json(event_file)",
        }
        added = " || ".join(
            f"CASE WHEN named AND json_exists(line, '$.{key}') THEN '' ELSE {field} END"
            for key, field in fields.items()
        )
        # Sorted while there are few columns: those to come would all go through the sort
        ordered = lines.order("event_time, row_uid")
        # One search for both keys before anything is parsed: nearly no event has one
        named = ordered.project(f"*, regexp_matches(line, '\"({'|'.join(fields)})\"') AS named")
        return named.project(f"* EXCLUDE (named), {added} AS added").project(
            f"* EXCLUDE (line, added), {append_fields('line', 'added')} AS event"
        )


def _held(connection: duckdb.DuckDBPyConnection, frame: Frame) -> Frame:
    """The frame, computed now and kept with the connection."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE held AS {frame.sql_query()}")
    return connection.table("held")


def _uncompressed_size(paths: Sequence[str]) -> int:
    """Bytes of Parquet files before they were compressed; 0 if they are few in any case, or damaged."""
    try:
        if sum(Path(path).stat().st_size for path in paths) < _SURELY_SMALL:
            return 0
        return sum(group.total_byte_size for path in paths for group in _row_groups(path))
    except (OSError, pa.ArrowException):  # who reads them says so
        return 0


def _row_groups(path: str) -> Iterator[pq.RowGroupMetaData]:
    stored = pq.read_metadata(path)
    return map(stored.row_group, range(stored.num_row_groups))


def _between(begin: tuple[str, str] | None, end: tuple[str, str] | None) -> str:
    """SQL: rows after the one and up to the other, by (event_time, row_uid); None is no bound."""
    after = (
        f"event_time >= '{begin[0]}' AND (event_time > '{begin[0]}' OR row_uid > '{begin[1]}')"
        if begin
        else "true"
    )
    upto = (
        f"event_time <= '{end[0]}' AND (event_time < '{end[0]}' OR row_uid <= '{end[1]}')"
        if end
        else "true"
    )
    return f"{after} AND {upto}"


_HOUR = "date_trunc('hour', event_time)"


def _within(hour: Hour) -> str:
    return f"event_time >= '{hour.start.isoformat()}' AND event_time < '{hour.end.isoformat()}'"
