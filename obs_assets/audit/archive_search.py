"""Searches hours that retention dropped from the table: in the archive, within a budget of bytes."""

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any

from obs_assets.audit.hour_states import hour_states
from obs_assets.destinations.postgres.rows import row_of
from obs_assets.destinations.s3 import S3Destination, StoredObject
from obs_assets.destinations.s3.config import LOCAL
from obs_assets.destinations.s3.folder import Folder
from obs_assets.errors import ConfigurationError, ObsError
from obs_assets.events import with_columns
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.restore import archive_of
from obs_assets.hours import Hour, hours_between
from obs_assets.search import archive as pasted
from obs_assets.search.duckdb import matching_rows
from obs_assets.search.language import Query
from obs_assets.search.questions import FoundEvent, Order, Span
from obs_assets.search.selection import Selection
from obs_assets.sources.restored import timed_events
from obs_assets.storage.disk import make_private_dir
from obs_assets.storage.engine import computing, connect
from obs_assets.storage.postgres import Connection

BUDGET_BYTES = 200_000_000
"""Bytes of objects that a search downloads, at most."""

MOST_HOURS = 24 * 7
"""Hours whose objects are written into a statement, at most."""


class NoObjectsError(ObsError):
    """The archive holds nothing of a range."""


class ManyHoursError(ObsError):
    """A range has more hours than a statement can name."""


@dataclass(frozen=True)
class Statement:
    """The answer of `archive_statement`.

    Attributes:
        sql: statements for DuckDB.
        hours: hours of the range that the archive holds.
        objects: objects that the statements read.
        bytes: total size of these objects.
    """

    sql: str
    hours: int
    objects: int
    bytes: int


@dataclass(frozen=True)
class ArchiveFound:
    """An answer of `search_archive`.

    Attributes:
        events: the events that match, the newest first; ``data`` is the text that was archived.
        hours: hours that were read, the newest first.
        left: archived hours that were not read: the limit, the budget or the time was over.
        bytes_read: bytes of the objects that were downloaded.
        budget_bytes: bytes that might have been downloaded.
        seconds: how long it took.
    """

    events: tuple[FoundEvent, ...]
    hours: tuple[Hour, ...]
    left: tuple[Hour, ...]
    bytes_read: int
    budget_bytes: int
    seconds: float

    @property
    def is_complete(self) -> bool:
        """Whether every archived hour of the range was read."""
        return not self.left


def search_archive(
    hourly: HourlyPipeline,
    connection: Connection,
    selection: Selection,
    *,
    limit: int = 100,
    budget_bytes: int = BUDGET_BYTES,
    deadline_s: float = 30.0,
) -> ArchiveFound:
    """Events of hours that the table no longer has, and the archive has.

    Hours are read one after the other, the newest first, until the limit, the budget or the time ends.

    Args:
        hourly: the pipeline with the table and the archive.
        connection: to the table's server, in autocommit mode; may read ``obs``.
        selection: the range and the query.
        limit: events of the answer, at most.
        budget_bytes: bytes that may be downloaded. An hour that would exceed it is not read.
        deadline_s: seconds after which no further hour is read.

    Raises:
        ConfigurationError: the pipeline has no archive, or several.
        PermanentError: an object differs from its manifest.
        QueryValueError: a numeric column is compared with a text.
    """
    began = time.monotonic()
    archive = searched_archive(hourly)
    states = hour_states(hourly, connection, selection.span)
    wanted = [state.hour for state in reversed(states) if state.is_archived]
    events: list[FoundEvent] = []
    hours: list[Hour] = []
    bytes_read = 0
    for hour in wanted:
        size = _size(archive, hour)
        is_over = time.monotonic() - began > deadline_s or bytes_read + size > budget_bytes
        if is_over or len(events) >= limit:
            break
        events += sorted(
            _matching(hourly, archive, selection, hour), key=_position, reverse=True
        )
        hours.append(hour)
        bytes_read += size
    return ArchiveFound(
        tuple(events[:limit]),
        tuple(hours),
        tuple(wanted[len(hours) :]),
        bytes_read,
        budget_bytes,
        time.monotonic() - began,
    )


def searched_archive(hourly: HourlyPipeline) -> S3Destination:
    """The archive that `search_archive` reads.

    Raises:
        ConfigurationError: the pipeline has no archive, or several.
    """
    destination = archive_of(hourly).destination
    if not isinstance(destination, S3Destination):
        raise ConfigurationError(
            "the pipeline's archive keeps no objects: it cannot be searched"
        )
    return destination


def archive_statement(
    hourly: HourlyPipeline, query: Query, span: Span, *, order: Order
) -> Statement:
    """The search as statements for DuckDB, over the objects of the range that the archive holds.

    Raises:
        ConfigurationError: the pipeline has no archive, or several.
        ManyHoursError: the range has more than `MOST_HOURS`.
        NoObjectsError: the archive holds no hour of the range.
        QueryValueError: a numeric column is compared with a text.
    """
    archive = searched_archive(hourly)
    # The end of a range does not belong to it.
    last = Hour.of(span.end - timedelta(microseconds=1))
    hours = list(hours_between(Hour.of(span.start), last.next))
    if len(hours) > MOST_HOURS:
        raise ManyHoursError(
            f"the range has {len(hours):,} hours, and a statement names the objects of at most "
            f"{MOST_HOURS} hours: choose a range of at most 7 days"
        )
    stored = archive.stored(hours)
    found = list(itertools.chain.from_iterable(stored.values()))
    if not found:
        raise NoObjectsError("the archive holds no event of this range: choose another range")
    text = pasted.statement(
        query, span, _objects(archive, found), _server(archive), order=order
    )
    return Statement(text, len(stored), len(found), sum(each.bytes for each in found))


def _objects(archive: S3Destination, found: Sequence[StoredObject]) -> pasted.Objects:
    folder = archive.place.url.removeprefix(LOCAL)
    urls = [f"{folder}/{each.key}" for each in found]
    is_mapped = archive.config.mapping != "none"
    return pasted.Objects(urls, archive.config.format == "parquet", is_mapped)


def _server(archive: S3Destination) -> pasted.Server | None:
    """The bucket's server; None for a local folder."""
    if isinstance(archive.place, Folder):
        return None
    named = archive.place.server
    return pasted.Server(archive.place.url, named.region, named.endpoint_url)


def _size(archive: S3Destination, hour: Hour) -> int:
    """Bytes of the objects of an hour."""
    with archive.place.session():
        return sum(archive.place.sizes(archive.config.base_key(hour)).values())


def _position(event: FoundEvent) -> tuple[object, str]:
    return event.timestamp, event.row_uid


def _matching(
    hourly: HourlyPipeline,
    archive: S3Destination,
    selection: Selection,
    hour: Hour,
) -> Iterator[FoundEvent]:
    """The events of an archived hour that match."""
    folder = make_private_dir(hourly.store.temp_dir)
    time_path = hourly.config.source.time_path
    columns = {**row_of(hour), "weight": "coalesce(weight, 1)"}
    # The text of the event as the table would store it, under the name that the questions know.
    columns["event"] = columns.pop("data")
    projection = ", ".join(f'{form} AS "{name}"' for name, form in columns.items())
    with (
        connect(folder, threads=1) as duck,
        computing(f"the archive of {hour}", duck),
        archive.archived(hour, folder) as parts,
    ):
        for part in parts:
            timed = timed_events(duck, part.rows(duck), hour, time_path=time_path)
            frame = with_columns(timed, "weight").filter(_within(selection.span))
            for row in matching_rows(frame.project(projection), selection.query):
                yield _event(row)


def _within(span: Span) -> str:
    start, end = span.start.isoformat(), span.end.isoformat()
    return f"event_time >= TIMESTAMPTZ '{start}' AND event_time < TIMESTAMPTZ '{end}'"


def _event(row: dict[str, Any]) -> FoundEvent:
    names = FoundEvent.__dataclass_fields__
    values = {name: row[name] for name in names if name in row}
    timestamp = row["timestamp"].astimezone(UTC)
    return FoundEvent(**{**values, "timestamp": timestamp, "data": row["event"]})
