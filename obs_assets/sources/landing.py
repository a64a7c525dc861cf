"""One landing pass: it writes the new bytes of the event files as chunks by hour, and as dead letters.

Each row records its origin: file id, byte offset, landing time, and the host that landed it. Every later stage is a
function of these bytes.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import mmap
import os
import platform
import shutil
import socket
import threading
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from weakref import WeakSet

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from obs_assets.crash import crash_point
from obs_assets.errors import HourBusyError, ObsError, ReceiptError, TransientError
from obs_assets.events import TIME_FIELDS, row_uids
from obs_assets.hours import Hour, parse_hour
from obs_assets.sources import views
from obs_assets.sources.careful import SEPARATORS, TOO_LONG, DeadLetter, Rules, Segment
from obs_assets.sources.envelopes import NoEnvelopeError, Opened, open_any
from obs_assets.sources.files import (
    HEAD_BYTES,
    KEPT_RANGES,
    TAIL_BYTES,
    Content,
    EventFile,
    Identities,
    KnownFile,
    Listing,
    Original,
    SourceConfig,
    digest,
    ends_match,
    list_files,
)
from obs_assets.sources.formats import enabled
from obs_assets.sources.log import (
    FileReceipt,
    Landed,
    LandedHour,
    LandingLog,
    LandingPass,
    Looked,
)
from obs_assets.sources.native import ROWS_A_TASK
from obs_assets.sources.reader import read_batch
from obs_assets.sources.reading import OpenEnvelope, Reading
from obs_assets.sources.seen_times import seen_times
from obs_assets.sources.times import (
    EARLIEST,
    EVENT_TIME,
    MAX_AHEAD,
    TIME_FROM,
    TIME_REASON,
    TIME_SOURCES,
    careful_time_text,
    json_path,
    other_paths,
    time_text,
    usual_place,
)
from obs_assets.sources.unpack import is_encoding
from obs_assets.sources.unwrapping import RecordBatch, read_records
from obs_assets.storage.disk import explained, make_private_dir, sync_file
from obs_assets.storage.engine import connect, interruptible, threads_on

_T = TypeVar("_T")


@dataclass(frozen=True)
class BatchSizes:
    """Number of bytes that a pass reads at a time. It bounds memory for files of any size.

    Attributes:
        first: bytes of the first batch; small, so that writing begins soon.
        largest: bytes of the largest batch; the batches grow up to this size.
    """

    first: int = 2 << 20
    largest: int = 32 << 20


FILES_NAMED = 5
"""Number of files that a warning names; for the other files it only gives their number."""

_COPIED_BYTES = 1 << 20
"""Bytes of an envelope that are copied at a time."""
# Of DuckDB: a core is left for reading and writing
_THREADS = max(1, threads_on(os.cpu_count() or 1) - 1)

DEAD_LETTER_SCHEMA = pa.schema(
    {
        "file_id": pa.string(),
        "event_file": pa.string(),
        "file_offset": pa.int64(),
        "length": pa.int64(),
        "reason": pa.string(),
        "landed_at": pa.timestamp("us", tz="UTC"),
        "raw": pa.large_binary(),
    }
)


LANDED_SCHEMA = pa.schema(
    {
        "row_uid": pa.string(),
        "event_time": pa.timestamp("us", tz="UTC"),
        "file_id": pa.string(),
        "file_offset": pa.int64(),
        "landed_at": pa.timestamp("us", tz="UTC"),
        "time_from": pa.string(),
        "event_file": pa.string(),
        "collector": pa.string(),
        "byte_ranges": pa.list_(pa.int64()),
        "line": pa.string(),
    }
)
"""Columns of a chunk.

time_from: ``event``; ``event_without_zone`` where UTC was assumed; ``landed_at`` where the event has no time.
collector: the JSON object of `collector`. line: the text of the event.
byte_ranges: begin and end of each piece in the file, in order, for an event that a log carrier cut into pieces:
``[0, 120, 300, 420]``. NULL for an event in a single piece.
"""

_TIMED = pa.schema(
    {"reason": pa.string(), "event_time": pa.timestamp("us", tz="UTC"), "time_from": pa.int8()}
)
_OF_LETTER = ["file", "file_offset", "length", "reason", "line"]
_REPEATED = ["file_id", "landed_at", "time_from", "event_file", "collector"]
_REMARK_OF_TIME = {"landed_at": "time_missing", "event_without_zone": "time_without_zone"}
_TOO_WELL_COMPRESSED = "compressed better than max_ratio allows: the rest is not read"
_COPIED_FOLDER = (
    "OBS_DATA_DIR was copied or moved since its last landing pass. A copy has the identity of the original: let only "
    "one of them write to the same servers"
)
_OTHER_COMPRESSION = "compressed, but not as .gz or .zst"
_RATIO_FREE = 64 << 20
"""Unpacked bytes that are always read from a compressed file: 64 MiB. Above that, ``max_ratio`` applies."""
_HOUR_US = 3_600_000_000
"""Microseconds of an hour."""
_ROW_GROUP = 61_440
"""Rows of a group in a chunk: DuckDB reads a group with a single thread."""


@dataclass(frozen=True)
class LandingReport:
    """Result of a landing pass.

    Attributes:
        number: number of the pass; None when there was nothing new.
        hours: partition key → rows landed by this pass.
        dead_letters: reason → number of dead letters.
        files_read: files that this pass read.
        files_listed: files in the listing.
        bytes_read: bytes read, up to the end of the last event or dead letter of each file.
        files_left: files left for the next pass, because this pass reached a limit.
        warnings: reason → number of files that were skipped or not read to the end.
        files_warned: reason → paths of the first `FILES_NAMED` of those files.
        remarks: remark → number of events that landed with a changed text or an assumption. ``duplicate_keys``,
            ``lone_surrogate``, ``nul_character``, ``unfolded``, ``time_without_zone``, ``time_missing``,
            ``compression_not_as_named``, ``decoded_from_utf16``.
        notice: a sentence about the data folder for the operator; empty if there is nothing to say.
    """

    number: int | None
    hours: Mapping[str, int] = field(default_factory=dict)
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    files_read: int = 0
    files_listed: int = 0
    bytes_read: int = 0
    files_left: int = 0
    warnings: Mapping[str, int] = field(default_factory=dict)
    files_warned: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    remarks: Mapping[str, int] = field(default_factory=dict)
    notice: str = ""


def land(
    config: SourceConfig,
    log: LandingLog,
    *,
    first_hour: Hour,
    now: datetime | None = None,
    sizes: BatchSizes = BatchSizes(),
    origin: "Origin | None" = None,
) -> LandingReport:
    """Land all new events.

    Args:
        config: location of the files, and limits.
        log: the log that the pass is published to.
        first_hour: events before this hour become dead letters.
        now: landing time of the whole pass; default: the clock.
        sizes: number of bytes that are read at a time.
        origin: ids of new files, and the landing process; default: random ids and this process.

    Raises:
        HourBusyError: another pass is running.
        ConfigurationError: the events folder is missing or unreadable.
        ObsError: the pass cannot be written, for example because the disk is full.
    """
    began_at = (now or datetime.now(UTC)).astimezone(UTC)
    with log.lock():
        landed = log.load()
        landing = Pass(config, log, landed, first_hour, began_at, sizes=sizes, origin=origin)
        return landing.run()


def note_unchanged(
    config: SourceConfig,
    log: LandingLog,
    listing: Listing,
    began_at: datetime,
    *,
    first_hour: Hour,
) -> bool:
    """Finish the pass that listed these files at ``began_at``, if it has nothing to read.

    So closing an hour without new bytes costs only a listing.

    Args:
        config: location of the files, and limits.
        log: the log that the files are landed in.
        listing: a listing of the files, made after ``began_at``.
        began_at: begin of the pass, UTC.
        first_hour: events before this hour become dead letters.

    Returns:
        False if a pass must read files, or if another pass is running. In both cases nothing is changed.
    """
    with contextlib.suppress(HourBusyError), log.lock():
        return Pass(config, log, log.load(), first_hour, began_at).finish_unread(listing)
    return False


def collector() -> dict[str, Any]:
    """Host and process that land the events."""
    return {
        "hostname": socket.gethostname(),
        "platform": platform.system().lower(),
        "arch": platform.machine(),
        "process_id": os.getpid(),
        "python_version": platform.python_version(),
    }


@dataclass(frozen=True)
class Origin:
    """The parts of a landed event that its bytes do not decide. A trial fixes them.

    Attributes:
        file_id: path of a new file → its id, 32 hexadecimal digits.
        collector: host and process that land the events.
    """

    file_id: Callable[[str], str] = lambda _: uuid.uuid4().hex
    collector: Mapping[str, Any] = field(default_factory=collector)


class _ReplacedError(Exception):
    """The file was replaced since it was listed; the next pass handles it."""


@dataclass
class Progress:
    """State of a file while a pass reads it. Positions are byte offsets in the unpacked file.

    Attributes:
        index: index of the file in the pass.
        file: the file as it was listed.
        known: the state of the file before this pass.
        sealed: an incomplete last event is given up.
        original: the file that this file is a copy of, or None.
        most: number of bytes after which reading stops.
        position: all bytes before this offset were read.
        settled: offset behind the last event or dead letter. Only separators follow, which may be overwritten.
        within_line: the next byte belongs to a line that was too long.
        within_object: the next byte belongs to an object that was given up, see `Segment`.
        content: the open file, or None.
        fault: the reason why the file cannot be read further, or None.
        pending: bytes behind ``position`` that must be read again, together with more bytes.
        at_end: the file has no more bytes for this pass.
        has_failed: reading failed; the next pass tries again.
        is_left: the rest of the file is left for the next pass.
        head: first bytes of the file.
        tail: last bytes before ``position``.
        settled_tail: last bytes before ``settled``.
        sha: SHA-256 of the bytes before ``position``.
        settled_sha: SHA-256 of the bytes before ``settled``.
        events, event_bytes: events of this pass, and their bytes.
        dead_letters, dead_bytes: dead letters of this pass, and their bytes.
        envelope_bytes: bytes of envelopes outside their records.
        takes_envelopes: envelopes longer than the longest allowed event are read too.
        begins_envelope: such an envelope begins at ``position``.
        refused_at: offset of an object that looked like an envelope but could not be read as an envelope; -1: none.
        refused_as: reason of the dead letters of that object.
        landed_to: bytes before this offset have landed. More than ``position`` at first if an envelope is read again.
        envelope_at: begin of the envelope that holds the last landed record; -1: none.
        tail_bytes: bytes of that envelope behind ``settled``.
        passed_tails: bytes of earlier envelopes behind their last records; they are outside the records too.
        digested: offset before which all bytes were read for the SHA-256.
    """

    index: int
    file: EventFile
    known: KnownFile
    sealed: bool
    original: Original | None = None
    most: int = 0
    position: int = 0
    settled: int = 0
    within_line: bool = False
    within_object: int = 0
    content: Content | None = None
    fault: str | None = None
    pending: bytes = b""
    at_end: bool = False
    has_failed: bool = False
    is_left: bool = False
    head: bytes = b""
    tail: bytes = b""
    settled_tail: bytes = b""
    sha: Any = field(default_factory=hashlib.sha256)
    settled_sha: Any = field(default_factory=hashlib.sha256)
    events: int = 0
    event_bytes: int = 0
    dead_letters: int = 0
    dead_bytes: int = 0
    envelope_bytes: int = 0
    takes_envelopes: bool = True
    begins_envelope: bool = False
    refused_at: int = -1
    refused_as: str = TOO_LONG
    landed_to: int = 0
    envelope_at: int = -1
    tail_bytes: int = 0
    passed_tails: int = 0
    digested: int = 0

    def __post_init__(self) -> None:
        self.position = self.settled = self.landed_to = self.start
        self.envelope_at = self.known.envelope_at
        if self.envelope_at >= 0 and not self.is_copy:
            self.position = self.envelope_at
        self.digested = self.position
        self.within_line = self.known.within_line
        self.within_object = self.known.within_object

    @property
    def start(self) -> int:
        """Offset at which this pass began to read."""
        return self.known.offset

    @property
    def is_copy(self) -> bool:
        """Whether the file is a copy: its ``original`` begins with all of its bytes."""
        return self.original is not None

    def read(self, space: memoryview) -> int:
        """Fill ``space`` with the bytes from ``position`` on. Bytes added since the listing are left for the next pass.

        Returns:
            number of bytes in ``space``.

        Raises:
            OSError: the file is gone, or may not be read.
            _ReplacedError: another file has taken its place.
        """
        content = self.content or self._open()
        waiting = len(self.pending)
        wanted = max(waiting, min(len(space), self.most - self.position))
        space[:waiting] = self.pending
        length = waiting + content.read_into(space[waiting:wanted])
        self.pending = b""
        self.fault = content.fault
        if not self.file.is_packed and length < wanted:
            self.fault = "truncated while it was read"
        if self.file.is_packed and self.position + length >= self.most:
            self.fault = _TOO_WELL_COMPRESSED
            self.has_failed = True
        self.at_end = length < len(space)
        if self.at_end:
            self.close()
        return length

    def advance(
        self,
        data: memoryview,
        consumed: int,
        settled: int,
        *,
        within_line: bool = False,
        within_object: int = 0,
        envelope: OpenEnvelope | None = None,
    ) -> None:
        """Record the result of reading ``data``.

        Args:
            data: the bytes that were read, from ``position`` on.
            consumed: bytes of ``data`` that need not be read again.
            settled: bytes of ``data`` up to the end of its last event or dead letter; 0 if there is none.
            within_line, within_object: state at the new position, see `Progress`.
            envelope: the envelope around the last record, if ``settled`` lies in it.
        """
        if settled:
            self.settled = self.position + settled
            self.settled_tail = self._tail_after(data[:settled])
            self.passed_tails += self.tail_bytes
            self.envelope_at, self.tail_bytes = -1, 0
        if envelope:
            self.envelope_at, self.tail_bytes = envelope.offset, envelope.tail
        self.tail = self._tail_after(data[:consumed])
        self.position += consumed
        self.within_line = within_line
        self.within_object = within_object
        is_behind = self.position > self.refused_at
        if is_behind and not within_line and not within_object:
            self.refused_at, self.refused_as = -1, TOO_LONG
        self.pending = bytes(data[consumed:])

    def digest(self, data: memoryview, consumed: int, settled: int) -> None:
        """Add these bytes to the SHA-256 of the file."""
        before = min(max(0, self.start - self.digested), consumed)
        self.digested += consumed
        self.sha.update(data[before:settled])
        if settled:
            self.settled_sha = self.sha.copy()
        self.sha.update(data[max(before, settled) : consumed])

    def _tail_after(self, data: memoryview) -> bytes:
        return (self.tail + bytes(data[-TAIL_BYTES:]))[-TAIL_BYTES:]

    def close(self) -> None:
        """Close the file. A pass may hold ten thousand files, more than a process may have open."""
        if self.content:
            self.content.close()

    def reopen(self) -> None:
        """Continue to read at ``position``, even if bytes behind it were read already.

        Raises:
            OSError: the file is gone, or may not be read.
        """
        self.close()
        self.content = Content(self.file)
        self.content.seek(self.position)
        self.pending = b""
        self.at_end = False

    def receipt(self) -> FileReceipt:
        """Byte counts of this file in this pass.

        Raises:
            ReceiptError: bytes were counted twice.
        """
        copied = self.settled - self.start if self.is_copy else 0
        separators = self.settled - self.start - self.event_bytes - self.dead_bytes - copied
        separators -= self.envelope_bytes + self.passed_tails
        if separators < 0:
            raise ReceiptError(f"{self.file.path}: {-separators:,} bytes were read twice")
        return FileReceipt(
            file=self.known_now(),
            start=self.start,
            end=self.settled,
            events=self.events,
            event_bytes=self.event_bytes,
            dead_letters=self.dead_letters,
            dead_bytes=self.dead_bytes,
            separator_bytes=separators,
            copied_bytes=copied,
            envelope_bytes=self.envelope_bytes + self.passed_tails,
        )

    def known_now(self) -> KnownFile:
        """State of the file after this pass, for the log."""
        known = replace(
            self.known.seen_as(self.file),
            has_rest=bool(self.pending.strip(SEPARATORS)),
            is_copy=self.is_copy,
        )
        if self.has_failed or self.is_left:
            known = replace(known, mtime_ns=0)  # the next pass tries again
        if self.settled == self.start:
            return known
        head = self.head[: min(HEAD_BYTES, self.settled)]
        return replace(
            known,
            offset=self.settled,
            head=digest(head),
            head_bytes=len(head),
            tail=digest(self.settled_tail),
            ranges=(
                *self.known.ranges,
                (self.start, self.settled, self.settled_sha.hexdigest()),
            )[-KEPT_RANGES:],
            within_line=self.within_line,
            within_object=self.within_object,
            envelope_at=self.envelope_at,
        )

    def _open(self) -> Content:
        self.content = Content(self.file)
        matches, self.head, self.tail = ends_match(self.content, self.known)
        if not matches:
            self.close()
            raise _ReplacedError
        if self.position < self.start:
            begin = max(0, self.position - TAIL_BYTES)
            self.content.seek(begin)
            self.tail = self.content.read(self.position - begin)
        return self.content


@dataclass
class Batch:
    """Pieces of files, one after the other in one buffer.

    Attributes:
        space: the buffer.
        pieces: file, begin and end of each piece in the buffer.
        length: bytes of the buffer that are filled.
    """

    space: bytearray
    pieces: list[tuple[Progress, int, int]] = field(default_factory=list)
    length: int = 0

    @functools.cached_property
    def data(self) -> bytes | bytearray:
        """Bytes of all pieces; call this after the last piece was added."""
        return (
            self.space
            if self.length == len(self.space)
            else bytes(memoryview(self.space)[: self.length])
        )

    def room(self) -> memoryview:
        """Free rest of the buffer, for the next piece."""
        return memoryview(self.space)[self.length :]

    def add(self, file: Progress, length: int) -> None:
        """Record a piece that was read into the free rest of the buffer."""
        self.pieces.append((file, self.length, self.length + length))
        self.length += length

    def segments(self) -> list[Segment]:
        """The pieces as segments for `read_batch`."""
        return [
            Segment(
                *(file.index, file.position, end - begin, file.at_end, file.sealed),
                within_line=file.within_line,
                within_object=file.within_object,
                encoding=file.content.encoding if file.content else "",
                takes_envelopes=file.takes_envelopes,
                refused_at=file.refused_at,
                refused_as=file.refused_as,
                landed_to=file.landed_to,
            )
            for file, begin, end in self.pieces
        ]

    def read(self, connection: duckdb.DuckDBPyConnection, rules: Rules) -> Reading:
        """Turn the pieces into events and dead letters."""
        return read_batch(connection, self.data, self.segments(), rules)

    def advance(self, reading: Reading) -> None:
        """Update the position of each file from the result."""
        for (file, *_), begins in zip(self.pieces, reading.begins_envelope, strict=False):
            file.begins_envelope = begins
        envelopes = map(reading.open_envelopes.get, range(len(self.pieces)))
        states = zip(
            reading.consumed,
            reading.settled,
            reading.within_line,
            reading.within_object,
            envelopes,
            strict=True,
        )
        for (file, begin, end), (
            consumed,
            settled,
            within_line,
            within_object,
            envelope,
        ) in zip(self.pieces, states, strict=True):
            file.advance(
                memoryview(self.data)[begin:end],
                consumed,
                settled,
                within_line=within_line,
                within_object=within_object,
                envelope=envelope,
            )

    def digest(self, reading: Reading) -> None:
        """Add the bytes that were read to the SHA-256 of each file.

        This takes a large part of the time of a pass, so it runs in parallel with the other work.
        """
        states = zip(self.pieces, reading.consumed, reading.settled, strict=True)
        for (file, begin, end), consumed, settled in states:
            file.digest(memoryview(self.data)[begin:end], consumed, settled)


@dataclass
class EnvelopeBatch(Batch):
    """Some records of an envelope that is too long to be read at once.

    Attributes:
        records: the records.
        file: the file that holds the envelope.
        whole: bytes of the envelope. Set in the batch with its last record: then the whole envelope is read.
        tail: bytes of the envelope behind its last record.
        settled: bytes of the envelope up to the end of its last record, or up to its own end if it has none; 0 if
            there is nothing new.
        outside: new bytes of the envelope outside all records, without the tail.
    """

    records: RecordBatch | None = None
    file: Progress | None = None
    whole: memoryview | None = None
    tail: int = 0
    settled: int = 0
    outside: int = 0

    def read(self, connection: duckdb.DuckDBPyConnection, rules: Rules) -> Reading:
        """Turn the records into events and dead letters."""
        assert self.records  # noqa: S101 (made so)
        assert self.file  # noqa: S101
        reading = read_records(connection, self.records, rules)
        return replace(reading, envelope_bytes={self.file.index: self.outside})

    def advance(self, reading: Reading) -> None:
        """Record that the envelope was read."""
        del reading
        if self.file and self.whole is not None:
            self.file.pending = b""
            envelope = OpenEnvelope(self.file.position, self.tail) if self.tail else None
            self.file.advance(self.whole, len(self.whole), self.settled, envelope=envelope)

    def digest(self, reading: Reading) -> None:
        """Add the envelope to the SHA-256 of the file."""
        del reading
        if self.file and self.whole is not None:
            self.file.digest(self.whole, len(self.whole), self.settled)


_at_work: WeakSet[threading.Event] = WeakSet()
"""The interrupts of the passes that are under way, of all threads. A pass leaves the set when its writer is deleted."""


def interrupt_passes() -> None:
    """End the passes of all threads: each raises a `TransientError` before its next batch or commit; nothing lands."""
    for interrupted in list(_at_work):
        interrupted.set()


class PassWriter:
    """The folder of a pass: batches become chunks by hour and dead letters. The folder appears in one step.

    A landing pass fills it from the event files, a replay from dead letters.

    Attributes:
        number: number of the pass, from 1.
        rows: partition key → events written.
        dead_letters: reason → dead letters written.
        remarks: remark → events with a changed text or an assumption, see `LandingReport`.
    """

    def __init__(
        self,
        config: SourceConfig,
        log: LandingLog,
        landed: Landed,
        *,
        first_hour: Hour,
        began_at: datetime,
        keeps_letters_of: Callable[[Progress], bool] = lambda _: True,
        origin: Origin | None = None,
    ) -> None:
        """Prepare a pass; nothing is written yet.

        Args:
            config: the limits of an event, and the field with its time.
            log: the log that the pass is published to.
            landed: the sum of all earlier passes.
            first_hour: events before this hour become dead letters.
            began_at: landing time of all rows of the pass.
            keeps_letters_of: whether the dead letters of a file are written. It is called when the events of the file
                are counted.
            origin: names the landing process; default: this process.
        """
        self.number = landed.last_pass + 1
        self.rows: Counter[str] = Counter()
        self.dead_letters: Counter[str] = Counter()
        self.remarks: Counter[str] = Counter()
        self._log = log
        self._landed = landed
        self._first_hour = first_hour
        self._began_at = began_at
        self._keeps_letters_of = keeps_letters_of
        self._collector = dict((origin or Origin()).collector)
        self._collector_json = json.dumps(self._collector, separators=(",", ":"))
        own_path = (config.time_path,) if config.time_path else ()
        self._rules = Rules(
            config.max_event_bytes,
            config.max_nesting,
            config.unfold,
            enabled(config.format, config.records, config.time_path),
        )
        self._time_fields = (*own_path, *TIME_FIELDS)
        expired = (parse_hour(key).start for key, hour in landed.hours.items() if hour.expired)
        self._expired = np.array(
            [int(start.timestamp()) // 3600 for start in expired], np.int64
        )
        self._chunks: defaultdict[str, list[str]] = defaultdict(list)
        self._unsynced: list[Path] = []
        self._interrupted = threading.Event()
        _at_work.add(self._interrupted)

    def write(self, files: list[Progress], batches: Iterable[Batch]) -> Path:
        """Write the batches. Returns the folder; `publish` puts it in place.

        Args:
            files: all files of the pass, by their index.
            batches: pieces of these files. A batch is written while the next batch is read.

        Raises:
            ObsError: the file system or DuckDB reported an error.
            TransientError: `interrupt_passes` was called.
        """
        folder = self._log.begin(self.number)
        try:
            with explained(folder), interruptible():
                self._write_batches(files, batches, folder)
        # The message of DuckDB may quote events, cut within a UTF-8 character
        except (
            duckdb.Error,
            UnicodeDecodeError,
        ) as error:
            raise ObsError(
                f"landing pass {self.number}: DuckDB refused ({type(error).__name__})"
            ) from None
        crash_point("landing.after_write")
        return folder

    def publish(self, folder: Path, receipts: Iterable[FileReceipt]) -> None:
        """Put the folder in place, together with the receipt of each file.

        Raises:
            ObsError: the file system reported an error.
            TransientError: `interrupt_passes` was called.
        """
        began_at = self._began_at.isoformat()
        hours = {
            key: LandedHour(self.number, self.rows[key], tuple(self._chunks[key]), began_at)
            for key in sorted(self.rows)
        }
        landing = LandingPass(
            number=self.number,
            began_at=began_at,
            finished_at=datetime.now(UTC).isoformat(),
            collector=self._collector,
            files=tuple(
                replace(one, file=replace(one.file, landed_at=began_at)) for one in receipts
            ),
            hours=hours,
            dead_letters=dict(self.dead_letters),
            remarks=dict(self.remarks),
        )
        self._check_interrupt()
        self._log.publish(folder, landing, self._landed)

    def _write_batches(
        self, files: list[Progress], batches: Iterable[Batch], folder: Path
    ) -> None:
        self._file_ids = pa.array([file.known.file_id for file in files])
        self._paths = pa.array([file.file.path for file in files])
        with (
            connect(self._log.temp_dir, memory_limit="512MB", threads=_THREADS) as connection,
            connection.cursor() as judging,
            pq.ParquetWriter(
                folder / "dead_letters.parquet", DEAD_LETTER_SCHEMA
            ) as dead_letters,
            ThreadPoolExecutor(3) as executor,
        ):
            jobs: list[Future[None]] = []
            for number, batch in enumerate(batches):
                self._check_interrupt()
                reading = batch.read(judging, self._rules)
                batch.advance(reading)
                _wait(jobs)
                unsynced, self._unsynced = self._unsynced, []
                # The next batch is read while a batch is being written: neither task alone uses all cores
                write = functools.partial(self._write_batch, connection, number, reading, files)
                jobs = [
                    executor.submit(_sync, unsynced),
                    executor.submit(batch.digest, reading),
                    executor.submit(write, folder=folder, dead_letters=dead_letters),
                ]
            _wait(jobs)
            _sync(self._unsynced)
        self._check_interrupt()
        if pq.read_metadata(folder / "dead_letters.parquet").num_rows:
            sync_file(folder / "dead_letters.parquet")
        else:
            (folder / "dead_letters.parquet").unlink()

    def _check_interrupt(self) -> None:
        if self._interrupted.is_set():
            raise TransientError(
                f"landing pass {self.number} was cancelled; nothing of it has landed"
            )

    def _write_batch(
        self,
        connection: duckdb.DuckDBPyConnection,
        number: int,
        reading: Reading,
        files: list[Progress],
        *,
        folder: Path,
        dead_letters: pq.ParquetWriter,
    ) -> None:
        rows = self._timed_rows(connection, reading)
        has_hour = pc.is_null(rows["reason"]).to_numpy()
        if not has_hour.all():
            letters = [
                DeadLetter(
                    row["file"],
                    row["file_offset"],
                    row["length"],
                    row["reason"],
                    row["line"].encode(),
                )
                for row in views.filter_rows(rows.select(_OF_LETTER), ~has_hour).to_pylist()
            ]
            rows = views.filter_rows(rows, has_hour)
        else:
            letters = []
        self.remarks.update(reading.remarks)
        for value in pc.value_counts(rows["time_from"]).to_pylist():
            if remark := _REMARK_OF_TIME.get(value["values"]):
                self.remarks[remark] += value["counts"]
        per_file = (
            rows.select(["file", "length"])
            .group_by("file")
            .aggregate([("length", "sum"), ("length", "count")])
        )
        for file, length, count in zip(*per_file.to_pydict().values(), strict=True):
            files[file].events += count
            files[file].event_bytes += length
        for file, size in reading.envelope_bytes.items():
            files[file].envelope_bytes += size
        kept = [
            letter
            for letter in (*reading.dead, *letters)
            if self._keeps_letters_of(files[letter.file])
        ]
        self._write_dead_letters(kept, files, dead_letters)
        crash_point("landing.before_chunk")
        for start, of_hour in _by_hour(rows.select(LANDED_SCHEMA.names)):
            hour = Hour.of(start)
            chunk = folder / f"{hour.stamp}-{number}.parquet"
            _write_chunk(of_hour, chunk)
            self._unsynced.append(chunk)
            self.rows[hour.key] += len(of_hour)
            self._chunks[hour.key].append(f"{self.number:08d}/{chunk.name}")
            crash_point("landing.after_chunk")

    def _timed_rows(self, connection: duckdb.DuckDBPyConnection, reading: Reading) -> pa.Table:
        """The events with all columns of a chunk, in another order. ``reason`` is set for an event without an hour."""
        lines, timed = self._timed(connection, reading.lines)
        timed = self._not_of_expired(timed)
        owner = lines["file"].combine_chunks()
        same = pa.array(np.zeros(len(lines), np.int32))
        landed_at = pa.array([self._began_at], LANDED_SCHEMA.field("landed_at").type)
        columns = {
            "row_uid": row_uids(
                self._file_ids.to_pylist(), owner.to_numpy(), lines["file_offset"].to_numpy()
            ),
            "event_time": timed["event_time"],
            "file_id": pa.DictionaryArray.from_arrays(owner, self._file_ids),
            "file_offset": lines["file_offset"],
            "landed_at": pa.DictionaryArray.from_arrays(same, landed_at),
            "time_from": pa.DictionaryArray.from_arrays(
                timed["time_from"].combine_chunks(), pa.array(TIME_SOURCES)
            ),
            "event_file": pa.DictionaryArray.from_arrays(owner, self._paths),
            "collector": pa.DictionaryArray.from_arrays(same, pa.array([self._collector_json])),
            "byte_ranges": _byte_ranges(lines, reading.byte_ranges),
            "line": lines["line"],
            "reason": timed["reason"],
            "file": owner,
            "length": lines["length"],
        }
        return pa.table(columns)

    def _timed(
        self, connection: duckdb.DuckDBPyConnection, lines: pa.Table
    ) -> tuple[pa.Table, pa.Table]:
        """The events and their times, as `_times` gives them. Events whose time is found without parsing come first."""
        earliest, latest = max(self._first_hour.start, EARLIEST), self._began_at + MAX_AHEAD
        moments, is_seen = seen_times(
            lines["line"].combine_chunks(), self._time_fields[0], earliest, latest
        )
        moments = moments[is_seen]
        seen = pa.table(
            [pa.nulls(len(moments)), moments, np.zeros(len(moments), np.int8)], schema=_TIMED
        )
        if is_seen.all():
            return lines, seen
        first, rest = (
            views.take_rows(lines, np.flatnonzero(rows)) for rows in (is_seen, ~is_seen)
        )
        texts = rest.select(["line"])
        connection.register(
            "lines",
            pa.Table.from_batches(texts.to_batches(max_chunksize=ROWS_A_TASK), texts.schema),
        )
        usual = usual_place(rest["line"][0].as_py(), self._time_fields)
        values = {"landed_at": self._began_at, "first_hour": self._first_hour.start}
        paths = tuple(map(json_path, self._time_fields))
        times = _times_of(time_text(paths, usual))
        asked = connection.sql(times, params=values).to_arrow_table()
        has_no_time = pc.equal(asked["time_from"], TIME_SOURCES.index("landed_at"))
        if pc.any(pc.or_(has_no_time, pc.is_null(asked["event_time"]))).as_py():
            others = other_paths(connection, "lines", paths)
            times = _times_of(careful_time_text(paths, others))
            asked = connection.sql(times, params=values).to_arrow_table()
        connection.unregister("lines")
        return pa.concat_tables([first, rest]), pa.concat_tables([seen, asked.cast(_TIMED)])

    def _not_of_expired(self, timed: pa.Table) -> pa.Table:
        """The rows; ``reason`` becomes ``hour_expired`` where all rows of the hour were removed by retention before."""
        if not len(self._expired):
            return timed
        hours = timed["event_time"].cast(pa.int64()).fill_null(0).to_numpy() // _HOUR_US
        late = pc.and_(pc.is_null(timed["reason"]), pa.array(np.isin(hours, self._expired)))
        return timed.set_column(0, "reason", pc.if_else(late, "hour_expired", timed["reason"]))

    def _write_dead_letters(
        self, dead: list[DeadLetter], files: list[Progress], writer: pq.ParquetWriter
    ) -> None:
        if not dead:
            return
        for letter in dead:
            files[letter.file].dead_letters += 1
            files[letter.file].dead_bytes += letter.length
            self.dead_letters[letter.reason] += 1
        columns = {
            "file_id": [files[letter.file].known.file_id for letter in dead],
            "event_file": [files[letter.file].file.path for letter in dead],
            "file_offset": [letter.file_offset for letter in dead],
            "length": [letter.length for letter in dead],
            "reason": [letter.reason for letter in dead],
            "landed_at": [self._began_at] * len(dead),
            "raw": [letter.raw for letter in dead],
        }
        writer.write_table(pa.table(columns, schema=DEAD_LETTER_SCHEMA))


class Pass:
    """One pass over the files, from listing to commit."""

    def __init__(
        self,
        config: SourceConfig,
        log: LandingLog,
        landed: Landed,
        first_hour: Hour,
        began_at: datetime,
        *,
        sizes: BatchSizes = BatchSizes(),
        origin: Origin | None = None,
    ) -> None:
        self._config = config
        self._log = log
        self._origin = origin or Origin()
        self._sizes = sizes
        self._landed = landed
        self._began_at = began_at
        self._warnings: Counter[str] = Counter()
        self._files_warned: defaultdict[str, list[str]] = defaultdict(list)
        self._writer = PassWriter(
            config,
            log,
            landed,
            first_hour=first_hour,
            began_at=began_at,
            origin=self._origin,
        )

    def run(self) -> LandingReport:
        """List the files, read them and publish the pass."""
        listing = list_files(self._config)
        crash_point("landing.after_listing")
        self._warnings.update(listing.skipped)
        looked = self._log.looked()
        notice = _COPIED_FOLDER if self._is_copy(looked) else ""
        files, left = self._select(self._identify(listing.files), looked.waiting)
        if files:
            self._land(files)
        left += [
            file.file.path for file in files if file.is_left and file.settled == file.start
        ]
        begun = [file.file.path for file in files if file.is_left and file.settled > file.start]
        self._log.save_looked(looked.after(self._began_at, listing.digest, left, begun))
        return LandingReport(
            number=self._writer.number
            if self._landed.last_pass == self._writer.number
            else None,
            hours=dict(sorted(self._writer.rows.items())),
            dead_letters=dict(self._writer.dead_letters.most_common()),
            files_read=sum(not file.is_left or file.position > file.start for file in files),
            files_left=len(left) + len(begun),
            files_listed=len(listing.files),
            bytes_read=sum(file.settled - file.start for file in files),
            warnings=dict(self._warnings),
            files_warned={reason: tuple(paths) for reason, paths in self._files_warned.items()},
            remarks=dict(self._writer.remarks),
            notice=notice,
        )

    def finish_unread(self, listing: Listing) -> bool:
        """End the pass after the listing, unless there is something to read. Returns whether it has ended."""
        looked = self._log.looked()
        files, left = self._select(self._identify(listing.files), looked.waiting)
        if files or left or listing.digest != looked.listing or self._is_copy(looked):
            return False
        self._log.save_looked(looked.after(self._began_at, listing.digest, (), ()))
        return True

    def _is_copy(self, looked: Looked) -> bool:
        """Whether this is the first pass in a copy of the folder that the last pass ran in."""
        return looked.folder not in {"", self._log.folder()}

    def _land(self, files: list[Progress]) -> None:
        with contextlib.ExitStack() as stack:
            for file in files:
                stack.callback(file.close)
            crash_point("landing.before_read")
            folder = self._writer.write(files, self._batches(files))
            self._take_copies(files)
        self._publish(files, folder)

    def _select(
        self,
        found: Iterable[tuple[EventFile, KnownFile, Original | None]],
        waiting: Mapping[str, str],
    ) -> tuple[list[Progress], list[str]]:
        """Files to read in this pass, longest waiting first, and the paths of the files that are left.

        Copies come last, and only in the same pass as their originals: until both are counted, either could vanish.
        """
        places = {path: place for place, path in enumerate(waiting)}
        found = list(found)
        in_turn = sorted(
            (one for one in found if one[2] is None),
            key=lambda one: (places.get(one[0].path, len(places)), one[0].size),
        )
        taken = in_turn[: self._config.max_files_per_pass]
        left = [file.path for file, _, _ in in_turn[self._config.max_files_per_pass :]]
        waits = set(left)
        for file, known, original in found:
            if original and original.file.path in waits:
                left.append(file.path)
            elif original:
                taken.append((file, known, original))
        files = [
            Progress(
                index, file, known, self._is_sealed(file), original, self._most_bytes(file)
            )
            for index, (file, known, original) in enumerate(taken)
        ]
        return files, left

    def _most_bytes(self, file: EventFile) -> int:
        """Number of bytes of a file that are read at most."""
        return (
            max(_RATIO_FREE, file.size * self._config.max_ratio)
            if file.is_packed
            else file.size
        )

    def _is_sealed(self, file: EventFile) -> bool:
        idle = self._began_at - datetime.fromtimestamp(file.mtime_ns / 1e9, UTC)
        return idle > timedelta(minutes=self._config.seal_after_minutes)

    def _identify(
        self, files: tuple[EventFile, ...]
    ) -> Iterator[tuple[EventFile, KnownFile, Original | None]]:
        """The files to read, each with its known state and, if it is a copy, its original."""
        identities = Identities(self._landed.files.values())
        changed = [
            file
            for file in files
            if file.size and not identities.claim_unchanged(file, sealed=self._is_sealed(file))
        ]
        others = []
        for file in changed:
            if found := self._tolerant(identities.claim_in_place, file):
                yield *found, None
            else:
                others.append(file)
        for file in identities.originals_first(others):
            if not file.is_readable:
                self._warn(_OTHER_COMPRESSION, file)
                continue
            if (
                fault := self._tolerant(identities.fault_of_stub, file)
            ) and not self._is_sealed(file):
                self._warn(fault, file)
                continue
            yield self._tolerant(functools.partial(self._recognised, identities), file) or (
                file,
                self._new(file),
                None,
            )

    def _recognised(
        self, identities: Identities, file: EventFile
    ) -> tuple[EventFile, KnownFile, Original | None]:
        """A file that is not in place: a copy, a known file under another name or in another form, or a new file."""
        for formed in identities.in_forms(file):
            if original := identities.original_of(formed):
                self._warn("copy of another file", file)
                return formed, self._new(file), original
            if known := identities.claim_moved(formed):
                return formed, known, None
        identities.add_new(file)
        return file, identities.begun(file) or self._new(file), None

    def _new(self, file: EventFile) -> KnownFile:
        return KnownFile(self._origin.file_id(file.path), file.path, 0, 0, file.node)

    def _warn(self, reason: str, file: EventFile) -> None:
        self._warnings[reason] += 1
        if len(self._files_warned[reason]) < FILES_NAMED:
            self._files_warned[reason].append(file.path)

    def _tolerant(self, ask: Callable[[EventFile], _T], file: EventFile) -> _T | None:
        try:
            return ask(file)
        except OSError:
            return None  # it cannot be read now: reading it will report the error

    def _batches(self, files: list[Progress]) -> Iterator[Batch]:
        """Batches of small files together, and of large files in pieces.

        The buffer of a batch is used again two batches later.
        """
        # The longest event must fit in a piece
        size = max(self._sizes.largest, 2 * self._config.max_event_bytes)
        spaces = _spaces(self._sizes.first, size)
        batch = Batch(next(spaces))
        taken = 0
        for file in files:
            while not file.at_end and not file.is_copy:
                # Read on up to an event: after a pass that ends in a gap as long as a pass, the next stops there too
                has_got_on = file.position <= file.start or file.settled > file.start
                if taken >= self._config.max_bytes_per_pass and has_got_on:
                    file.is_left = True
                    file.close()
                    break
                length = self._read_piece(file, batch.room())
                if length is None:
                    break
                taken += length
                batch.add(file, length)
                if not file.at_end:  # its unread rest must be known before more is read
                    yield batch
                    batch = Batch(next(spaces))
                    if file.begins_envelope:
                        yield from self._envelope(file)
        if batch.pieces:
            yield batch
        for file in files:
            while file.begins_envelope and (yield from self._envelope(file)):
                while not file.at_end and not file.begins_envelope:
                    batch = Batch(next(spaces))
                    length = self._read_piece(file, batch.room())
                    if not length:
                        break
                    batch.add(file, length)
                    yield batch

    def _envelope(self, file: Progress) -> Generator[Batch, None, bool]:
        """Read the records of the envelope at the position of a file. Returns whether more of the file must be read.

        The envelope is copied to the folder where DuckDB spills. So memory is bounded for every size and compression.
        """
        file.begins_envelope = False
        config = self._config
        rows = enabled(config.format, config.records, config.time_path)
        path = make_private_dir(self._log.temp_dir) / "envelope"
        try:
            with path.open("wb+") as copy:
                is_all = _copy(file, copy, self._config.max_envelope_bytes)
                # Not closed here: the batch with the last record adds the envelope to the SHA-256 in parallel
                data = mmap.mmap(copy.fileno(), 0, access=mmap.ACCESS_READ)
            opened = open_any(data, rows)
            yield from _records_of(opened, data, file, self._sizes.largest)
            file.reopen()
        except NoEnvelopeError as fault:
            if is_all and not file.sealed:  # its rest may still be written
                file.at_end = True
                return False
            file.refused_at = file.position
            is_cut = fault.holds_records and not is_all
            file.refused_as = "envelope_too_long" if is_cut else TOO_LONG
            file.reopen()
        except OSError as error:
            self._warn_unreadable(file, error)
            file.at_end = True
            return False
        finally:
            path.unlink(missing_ok=True)
        return True

    def _take_copies(self, files: list[Progress]) -> None:
        """Advance the copies up to the bytes that have landed from their originals, and no further.

        When the original is gone, a later pass continues with the copy. It must not skip bytes that have not landed.
        """
        read = {file.file.path: file for file in files}
        space = memoryview(bytearray(self._sizes.largest))
        for copy in files:
            if copy.original is None:
                continue
            original = read.get(copy.original.file.path)
            known = original.known_now() if original else copy.original.known
            while known and copy.position < known.offset and not copy.at_end:
                piece = space[: known.offset - copy.position]
                length = self._read_piece(copy, piece)
                if length is None:
                    break
                copy.digest(piece, length, length)
                copy.advance(piece, length, length)
            if known and copy.position == known.offset:
                rest = space[:1]
                length = self._read_piece(copy, rest) or 0
                copy.advance(
                    rest[:length],
                    0,
                    0,
                    within_line=known.within_line,
                    within_object=known.within_object,
                )
                copy.envelope_at = known.envelope_at
            copy.is_left = bool(original and not original.at_end)

    def _read_piece(self, file: Progress, space: memoryview) -> int | None:
        try:
            length = file.read(space)
        except (OSError, _ReplacedError) as error:
            self._warn_unreadable(file, error)
            return None
        if file.at_end and file.fault:
            self._warn(file.fault, file.file)
        return length

    def _warn_unreadable(self, file: Progress, error: Exception) -> None:
        is_gone = isinstance(error, OSError)
        self._warn(
            "unreadable file" if is_gone else "replaced while it was looked at", file.file
        )
        file.has_failed = True

    def _publish(self, files: list[Progress], folder: Path) -> None:
        read = [file for file in files if file.settled > file.start]
        for file in files:
            is_done = file.settled == file.start and not (file.has_failed or file.is_left)
            if is_done and (file.start or not file.is_copy):
                # The file was renamed or touched, or it holds only separators. Only the checkpoint records that
                self._landed.files[file.known.file_id] = file.known_now()
        if not read:
            shutil.rmtree(folder)
            self._log.save_checkpoint(self._landed)
            return
        for file in read:
            self._remark_packing(file)
        self._writer.publish(folder, [file.receipt() for file in read])

    def _remark_packing(self, file: Progress) -> None:
        """Count the events of files with an unexpected compression or encoding."""
        if not file.file.is_as_named and file.events:
            self._writer.remarks["compression_not_as_named"] += file.events
        if any(map(is_encoding, file.file.packing)):
            self._writer.remarks["decoded_from_utf16"] += file.events


def _copy(file: Progress, copy: BinaryIO, most: int) -> bool:
    """Copy a file from its position on, ``most`` bytes at most. Returns whether that was the whole rest of the file."""
    left = min(most, file.most - file.position)
    with Content(file.file) as content:
        content.seek(file.position)
        while left > 0 and (block := content.read(min(left, _COPIED_BYTES))):
            copy.write(block)
            left -= len(block)
        copy.flush()
        return not content.read(1)


def _records_of(
    opened: Opened, data: mmap.mmap, file: Progress, size: int
) -> Iterator[EnvelopeBatch]:
    """Batches of the records of the envelope at the position of a file, of about ``size`` bytes each."""
    shift = file.position
    batch = RecordBatch(opened.row)
    begin = 0
    if not opened.spans or not opened.row.holds_events(opened.outer):
        batch.without_events = 1
        opened.spans.clear()
    tail = opened.tail
    opened = opened.behind(file.landed_to - shift)
    for number, span in enumerate(opened.spans, start=1):
        is_full = span.end - opened.spans[begin].begin >= size
        if is_full or number == len(opened.spans):
            batch.add_records(data, opened, opened.spans[begin:number], file.index, shift)
            begin = number
        if is_full and number < len(opened.spans):
            yield EnvelopeBatch(bytearray(), records=batch, file=file)
            batch = RecordBatch(opened.row)
    is_new = bool(opened.spans or batch.without_events)
    yield EnvelopeBatch(
        bytearray(),
        records=batch,
        file=file,
        whole=memoryview(data)[: opened.end],
        tail=tail,
        settled=opened.end - tail if is_new else 0,
        outside=opened.outside - tail,
    )


def _wait(jobs: list[Future[None]]) -> None:
    for job in jobs:
        job.result()


def _sync(chunks: list[Path]) -> None:
    for chunk in chunks:
        sync_file(chunk)


def _byte_ranges(
    lines: pa.Table, byte_ranges: Mapping[tuple[int, int], tuple[int, ...]]
) -> pa.Array:
    """The column ``byte_ranges`` for these events; see `Reading`."""
    kind = LANDED_SCHEMA.field("byte_ranges").type
    if not byte_ranges:
        return pa.nulls(len(lines), kind)
    places = zip(lines["file"].to_pylist(), lines["file_offset"].to_pylist(), strict=True)
    return pa.array([byte_ranges.get(place) for place in places], kind)


def _times_of(time_text: str) -> str:
    """SQL: time of each row of ``lines``, from the SQL of its text, and ``reason`` where it fits no hour."""
    return f"""
SELECT {TIME_REASON} AS reason, event_time, {TIME_FROM} AS time_from
FROM (SELECT *, {EVENT_TIME} AS event_time
FROM (SELECT *, {time_text} AS time_text
FROM (SELECT line, $landed_at::TIMESTAMPTZ AS landed_at, $first_hour::TIMESTAMPTZ AS first_hour FROM lines)))
"""


def _spaces(first: int, size: int) -> Iterator[bytearray]:
    """Buffers to read into: a small first buffer of ``first`` bytes, so that writing can begin soon.

    Each next buffer is four times as large, up to ``size``: the longest event fits in it. After that, two buffers of
    ``size`` bytes are used in turn.
    """
    small = first
    while small < size:
        yield bytearray(small)
        small *= 4
    yield from itertools.cycle([bytearray(size), bytearray(size)])


def _by_hour(rows: pa.Table) -> Iterator[tuple[datetime, pa.Table]]:
    """The rows of each hour, in their order. The rows are sorted only once, for any number of hours."""
    hours = rows["event_time"].cast(pa.int64()).to_numpy() // _HOUR_US
    if not len(hours):
        return
    if (hours != hours[0]).any():
        # Stable, so that the events of an hour keep their order
        order = np.argsort(hours, kind="stable")
        rows, hours = views.take_rows(rows, order), hours[order]
    # Positions where the hour changes, including the first and the last position
    edges = np.flatnonzero(np.diff(hours, prepend=hours[0] - 1, append=hours[-1] + 1)).tolist()
    for begin, end in itertools.pairwise(edges):
        yield (
            datetime.fromtimestamp(int(hours[begin]) * 3600, UTC),
            rows.slice(begin, end - begin),
        )


def _write_chunk(rows: pa.Table, path: Path) -> None:
    # Arrow takes half the time of DuckDB, LZ4 half the time of Zstandard. Chunks are read again within minutes
    pq.write_table(
        rows,
        path,
        compression="lz4",
        use_dictionary=_REPEATED,
        write_statistics=["event_time"],
        row_group_size=_ROW_GROUP,
        store_schema=False,
    )
