"""Destinations that can only be added to: each row of an hour is sent, and a ledger remembers it.

Such a service gives no way to replace or read back rows, and a request that is repeated is stored twice.
So rows are sent in chunks, and the ledger in PostgreSQL has a row for each chunk::

    a chunk is about to be sent ─▶ obs.sent_chunks, state ``sending``, committed
    the service has answered    ─▶ state ``sent``, committed

After a crash between the two it is not known whether the service has the chunk. The next run sends the
rows of such a chunk again, and no other row that was sent: each row arrives at least once, and only rows of the
chunk that was in flight can arrive twice. ``sent again`` counts them. With ``connections`` above 1, so many
chunks are in flight.

A rebuilt hour sends only the rows that are in no chunk. Rows that the new version lacks stay at the
service; the receipt counts them.
"""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from typing import Protocol

import duckdb
import pyarrow as pa
from psycopg import errors
from psycopg.types.json import Json

from obs_assets.crash import crash_point
from obs_assets.destinations.base import (
    Delivery,
    DestinationConfig,
    Holding,
    Offer,
    refuse_older,
)
from obs_assets.destinations.sending import Limit, flow
from obs_assets.errors import ConfigurationError, HourBusyError, ObsError
from obs_assets.events import Frame, one_of
from obs_assets.hours import Hour
from obs_assets.receipts import InputVersion
from obs_assets.settings import PostgresSettings
from obs_assets.storage.postgres import (
    LEDGER,
    VERSION,
    Connection,
    Migration,
    adopt_load,
    migrate,
    utc_session,
)

READ_ROWS = 2_000
"""Rows of the frame that are in memory at a time."""

FEW_ROWS = 1_000
"""Rows that are chosen by a condition; more rows are chosen while the frame is read."""

UID_BYTES = 16
"""Bytes of a `row_uid`, whose 32 digits are hexadecimal."""

APPENDED = (
    Migration(
        "Make the ledger of destinations that can only be added to.",
        """
        CREATE TABLE IF NOT EXISTS obs.sent_chunks (
            destination TEXT, hour TIMESTAMPTZ, chunk TEXT,
            state TEXT NOT NULL CHECK (state IN ('sending', 'sent', 'gone')),
            rows INT NOT NULL, settled INT NOT NULL, row_uids BYTEA NOT NULL,
            refused JSON NOT NULL DEFAULT '{}', changed_at TIMESTAMPTZ NOT NULL,
            PRIMARY KEY (destination, hour, chunk));
        COMMENT ON TABLE obs.sent_chunks IS
            'chunks of rows that were sent; row_uids: 16 bytes a row, in the order of the chunk; settled: how many of
            them, from the first, the service has answered; gone: rows that the latest version of the hour lacks';
        """,
    ),
)
"""Migrations of the ledger; their subject is ``appended``."""

_UPSERT_CHUNK = """
INSERT INTO obs.sent_chunks
    (destination, hour, chunk, state, rows, settled, row_uids, refused, changed_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (destination, hour, chunk) DO UPDATE SET
    (state, rows, settled, row_uids, refused, changed_at) = (excluded.state, excluded.rows,
        excluded.settled, excluded.row_uids, excluded.refused, excluded.changed_at)
"""

_UPSERT_LOAD = """
INSERT INTO obs.hour_loads
    (destination, hour, generation, config_hash, code_version, log_id, rows, content_hash,
    run_id, loaded_at)
VALUES (%(destination)s, %(hour)s, %(generation)s, %(config_hash)s, %(code_version)s, %(log_id)s,
    %(rows)s, %(content_hash)s, %(run_id)s, %(now)s)
ON CONFLICT (destination, hour) DO UPDATE SET
    (generation, config_hash, code_version, log_id, rows, content_hash, run_id, loaded_at) = (
        excluded.generation, excluded.config_hash, excluded.code_version, excluded.log_id,
        excluded.rows, excluded.content_hash, excluded.run_id, excluded.loaded_at)
"""


@dataclass(frozen=True)
class Line:
    """A row as the service gets it.

    Attributes:
        row_uid: identity of the row.
        text: the row in the service's format, UTF-8.
        at_us: time of the event, microseconds since 1970.
    """

    row_uid: str
    text: bytes
    at_us: int


@dataclass(frozen=True)
class Answer:
    """The answer of a service about the next lines of a chunk.

    Attributes:
        lines: number of lines that are settled: taken or refused.
        refused: position among these lines → the reason, for lines that the service does not take.
        lost: requests with these lines that may have arrived although no answer came.
    """

    lines: int
    refused: Mapping[int, str] = field(default_factory=dict)
    lost: int = 0


class Sender(Protocol):
    """Speaks to a service. A new service is a class with these methods, and a row in `kinds`.

    Attributes:
        limit: requests that may be under way at the same time.
    """

    limit: Limit

    def lines_sql(self, hour: Hour) -> str:
        """SQL of the text of a row, over the columns of a frame."""

    def remark_sql(self, hour: Hour) -> str:
        """SQL of a remark for the counts of a delivery, NULL for most rows; for example that a row was cut."""

    def refusal_sql(self, now: datetime) -> str:
        """SQL of the reason why a row cannot be sent, NULL for a row that can; for example its age."""

    def chunks(self, lines: Iterator[Line]) -> Iterator[list[Line]]:
        """The lines in chunks that the service takes as a single request. The cut depends on the lines alone."""

    def send(self, hour: Hour, lines: Sequence[Line]) -> Iterator[Answer]:
        """Send a chunk; an answer as soon as the next lines of the chunk are settled.

        Several threads send at the same time.

        Raises:
            ConfigurationError: address or credentials are wrong.
            TransientError: the service does not answer, or has no time.
            PermanentError: it refuses the request.
        """

    def check(self) -> str:
        """The service's address as a line of text, after a request that stores no event."""


@dataclass(frozen=True)
class _InFlight:
    """A chunk that a run had begun to send.

    Attributes:
        id: identity of the chunk.
        settled: its rows that the service had answered.
        doubtful: its rows that may have arrived or not.
    """

    id: str
    settled: list[str]
    doubtful: list[str]


@dataclass
class _Progress:
    """Counts of a delivery, or of a chunk."""

    written: int = 0
    sent_again: int = 0
    unanswered: int = 0
    size_bytes: int = 0
    chunks: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)

    def add(self, chunk: "_Progress") -> None:
        """Count a chunk."""
        self.written += chunk.written
        self.unanswered += chunk.unanswered
        self.size_bytes += chunk.size_bytes
        self.chunks += 1
        self.refused.update(chunk.refused)


class AppendingDestination:
    """Sends each row of an hour to a service that can only be added to. See `base.Destination`.

    Args:
        name: key in the ledger; unique among the pipelines of a database.
        config: options of the destination.
        server: the PostgreSQL that keeps the ledger.
        sender: speaks to the service.
        clock: gives the time, UTC.
        report: sends figures about an hour, from its rows, after the rows; a repetition changes nothing.
    """

    def __init__(
        self,
        name: str,
        config: DestinationConfig,
        server: PostgresSettings,
        sender: Sender,
        clock: Callable[[], datetime],
        *,
        report: Callable[[Hour, Frame], None] | None = None,
    ) -> None:
        self.name = name
        self.config = config
        self._server = server
        self._sender = sender
        self._clock = clock
        self._report = report

    def deliver(self, offer: Offer) -> Delivery:
        """Send the rows of the hour that are in no chunk; see `base.Destination.deliver`.

        Raises:
            StaleHourError: the ledger has a newer generation of the hour.
            HourBusyError: another run is sending this hour.
        """
        with self._session() as ledger, self._alone(ledger, offer.hour):
            held = self._loaded(ledger, offer.hour)
            refuse_older(self.name, held, offer)
            settled, in_flight = self._chunks(ledger, offer.hour)
            offered = _uids_of(offer.frame)
            progress = _Progress()
            # A chunk that was in flight is sent first, as the same chunk: it may have arrived.
            for chunk in in_flight:
                doubtful = [uid for uid in chunk.doubtful if uid not in settled]
                wanted = set(doubtful).intersection(offered)
                self._send_all(ledger, offer, wanted, progress)
                progress.sent_again += len(wanted)
                self._close_chunk(ledger, offer.hour, chunk)
                settled.update(wanted)
            self._send_all(ledger, offer, set(offered) - settled, progress)
            gone = settled.difference(offered)
            self._write_gone(ledger, offer.hour, sorted(gone))
            if self._report and (held is None or held.content_hash != offer.content_hash):
                self._report(offer.hour, offer.frame)
                crash_point("appending.after_report")
            self._write_load(ledger, offer)
            crash_point("appending.after_load")
        stats: dict[str, int | float | str] = {"requests": progress.chunks, **progress.remarks}
        if progress.unanswered:
            stats["sent again without an answer"] = progress.unanswered
        if progress.sent_again:
            stats["sent again after an interruption"] = progress.sent_again
        if gone:
            stats["rows of older versions that stay there"] = len(gone)
        return Delivery(
            written=progress.written,
            already_there=offer.rows - progress.written - progress.refused.total(),
            refused=dict(progress.refused),
            size_bytes=progress.size_bytes,
            stats=stats,
        )

    def holding(self, hour: Hour, *, count: bool = False) -> Holding | None:
        """The ledger's row of an hour; with ``count`` also the rows in its chunks."""
        counted = "NULL"
        if count:
            counted = (
                "(SELECT coalesce(sum(CASE c.state WHEN 'gone' THEN -c.rows ELSE c.settled END), 0) "
                "FROM obs.sent_chunks c "
                "WHERE (c.destination, c.hour) = (load.destination, load.hour))"
            )
        with self._connected() as ledger:
            try:
                row = ledger.execute(
                    f"SELECT {VERSION}, rows, content_hash, {counted} FROM obs.hour_loads AS load "
                    "WHERE destination = %s AND hour = %s",
                    [self.name, hour.start],
                ).fetchone()
            except errors.UndefinedTable:
                return None
        return Holding(InputVersion(*row[:4]), *row[4:]) if row else None

    def holdings(self) -> Mapping[Hour, Holding]:
        """The ledger's rows of all hours."""
        query = (
            f"SELECT hour, {VERSION}, rows, content_hash FROM obs.hour_loads AS load "
            "WHERE destination = %s"
        )
        with self._connected() as ledger:
            try:
                rows = ledger.execute(query, [self.name]).fetchall()
            except errors.UndefinedTable:
                return {}
        return {Hour.of(row[0]): Holding(InputVersion(*row[1:5]), *row[5:]) for row in rows}

    def adopt(self, hour: Hour, held: Holding, version: InputVersion) -> None:
        """Change the version of the ledger's row; see `base.Destination.adopt`."""
        expected = {**asdict(held.version), "content_hash": held.content_hash}
        key = {"destination": self.name, "hour": hour.start}
        with self._session() as ledger, ledger.transaction():
            if not adopt_load(ledger, key, expected, asdict(version)):
                raise HourBusyError(
                    f"{self.name} holds another {hour} than it did a moment ago: try again"
                )

    def selected(self, frame: Frame) -> Frame:
        """All rows."""
        return frame

    def read_back(self, connection: duckdb.DuckDBPyConnection, hour: Hour) -> Frame:
        """``row_uid`` of the hour's rows in chunks, the refused rows too; ``event`` is empty."""
        with self._session() as ledger:
            settled, _ = self._chunks(ledger, hour)
            settled -= self._gone(ledger, hour)
        table = pa.table({"row_uid": pa.array(sorted(settled), pa.string())})
        return connection.from_arrow(table).project("row_uid, '' AS event")

    def check(self) -> str:
        """Connect to the ledger and to the service; returns the service's address."""
        try:
            with self._session():
                pass
            return self._sender.check()
        except ConfigurationError:
            raise
        except ObsError as error:
            raise ConfigurationError(f"{self.name}: {error}") from None

    # -- sending

    def _send_all(
        self, ledger: Connection, offer: Offer, wanted: set[str], progress: _Progress
    ) -> None:
        """Send rows in chunks, in the order of the frame; each chunk is in the ledger before and after."""
        if not wanted:
            return
        send = partial(self._send_chunk, ledger, offer.hour)
        # Closed after an error too: DuckDB runs no other query while a result is open.
        with contextlib.closing(self._lines(ledger, offer, wanted, progress)) as lines:
            chunks = self._sender.chunks(lines)
            # A chunk holds its place until the ledger knows its answer: these are the possible doubles.
            for sent in flow(chunks, send, self._sender.limit, _size_of, begun_per_request=1):
                progress.add(sent)

    def _send_chunk(self, ledger: Connection, hour: Hour, lines: Sequence[Line]) -> _Progress:
        """Send a chunk, and write to the ledger before and after. Several threads do this at once."""
        uids = [line.row_uid for line in lines]
        self._write_chunk(ledger, hour, uids, 0)
        crash_point("appending.before_send")
        settled = 0
        found = _Progress(size_bytes=_size_of(lines))
        for answer in self._sender.send(hour, lines):
            if answer.lost:
                found.unanswered += len(lines) - settled
            settled += answer.lines
            found.refused.update(answer.refused.values())
            crash_point("appending.after_send")
            # Before the rest is sent: if that fails, the next run sends the rest only.
            if settled < len(lines):
                self._write_chunk(ledger, hour, uids, settled, found.refused)
        self._write_chunk(ledger, hour, uids, len(uids), found.refused)
        found.written = len(lines) - found.refused.total()
        return found

    def _lines(
        self, ledger: Connection, offer: Offer, wanted: set[str], progress: _Progress
    ) -> Generator[Line]:
        """The wanted rows that can be sent. Rows that cannot are written to the ledger as refused."""
        columns = (
            f"row_uid, {self._sender.refusal_sql(self._clock())} AS reason, "
            f"encode({self._sender.lines_sql(offer.hour)}) AS text, epoch_us(event_time) AS at_us, "
            f"{self._sender.remark_sql(offer.hour)} AS remark"
        )
        rows = offer.frame
        if len(wanted) <= FEW_ROWS:
            rows = rows.filter(one_of("row_uid", wanted))
        with rows.project(columns).to_arrow_reader(READ_ROWS) as batches:
            for batch in batches:
                found: list[tuple[str | None, Line]] = []
                columns_of_batch = [column.to_pylist() for column in batch.columns]
                for uid, reason, text, at_us, remark in zip(*columns_of_batch, strict=True):
                    if uid not in wanted:
                        continue
                    found.append((reason, Line(uid, text, at_us)))
                    if remark and not reason:
                        progress.remarks[remark] += 1
                unsendable = {line.row_uid: reason for reason, line in found if reason}
                if unsendable:
                    counts = Counter(unsendable.values())
                    uids = [*unsendable]
                    self._write_chunk(ledger, offer.hour, uids, len(uids), counts)
                    progress.refused.update(counts)
                yield from (line for reason, line in found if not reason)

    # -- the ledger

    def _chunks(self, ledger: Connection, hour: Hour) -> tuple[set[str], list[_InFlight]]:
        """Identities of the rows that are settled, and the chunks that were in flight."""
        rows = ledger.execute(
            "SELECT state, settled, row_uids, chunk FROM obs.sent_chunks "
            "WHERE destination = %s AND hour = %s AND state <> 'gone' ORDER BY changed_at, chunk",
            [self.name, hour.start],
        ).fetchall()
        settled: set[str] = set()
        in_flight: list[_InFlight] = []
        for state, number, packed, chunk in rows:
            uids = _unpacked(packed)
            settled.update(uids[:number])
            if state == "sending":
                in_flight.append(_InFlight(chunk, uids[:number], uids[number:]))
        return settled, in_flight

    def _gone(self, ledger: Connection, hour: Hour) -> set[str]:
        rows = ledger.execute(
            "SELECT row_uids FROM obs.sent_chunks "
            "WHERE destination = %s AND hour = %s AND state = 'gone'",
            [self.name, hour.start],
        ).fetchall()
        found: set[str] = set()
        for (packed,) in rows:
            found.update(_unpacked(packed))
        return found

    def _write_chunk(
        self,
        ledger: Connection,
        hour: Hour,
        uids: Sequence[str],
        settled: int,
        refused: Mapping[str, int] | None = None,
    ) -> None:
        """Write a chunk of which the first ``settled`` rows were answered."""
        values = [
            self.name,
            hour.start,
            _chunk_id(uids),
            "sent" if settled == len(uids) else "sending",
            len(uids),
            settled,
            _packed(uids),
            Json(dict(refused or {})),
            self._clock(),
        ]
        ledger.execute(_UPSERT_CHUNK, values)

    def _close_chunk(self, ledger: Connection, hour: Hour, chunk: "_InFlight") -> None:
        """Leave only the settled rows in a chunk that was in flight, after its other rows were sent again."""
        ledger.execute(
            "UPDATE obs.sent_chunks SET state = 'sent', rows = settled, row_uids = %s "
            "WHERE destination = %s AND hour = %s AND chunk = %s AND state = 'sending'",
            [_packed(chunk.settled), self.name, hour.start, chunk.id],
        )

    def _write_gone(self, ledger: Connection, hour: Hour, uids: Sequence[str]) -> None:
        with ledger.transaction():
            ledger.execute(
                "DELETE FROM obs.sent_chunks WHERE destination = %s AND hour = %s AND state = 'gone'",
                [self.name, hour.start],
            )
            if uids:
                values = [self.name, hour.start, "gone", "gone", len(uids), 0]
                ledger.execute(_UPSERT_CHUNK, [*values, _packed(uids), Json({}), self._clock()])

    def _loaded(self, ledger: Connection, hour: Hour) -> Holding | None:
        row = ledger.execute(
            f"SELECT {VERSION}, rows, content_hash FROM obs.hour_loads AS load "
            "WHERE destination = %s AND hour = %s",
            [self.name, hour.start],
        ).fetchone()
        return Holding(InputVersion(*row[:4]), *row[4:]) if row else None

    def _write_load(self, ledger: Connection, offer: Offer) -> None:
        ledger.execute(
            _UPSERT_LOAD,
            {
                **asdict(offer.version),
                "destination": self.name,
                "hour": offer.hour.start,
                "rows": offer.rows,
                "content_hash": offer.content_hash,
                "run_id": offer.run_id,
                "now": self._clock(),
            },
        )

    @contextlib.contextmanager
    def _alone(self, ledger: Connection, hour: Hour) -> Iterator[None]:
        """Keep other runs of this hour out. The lock ends with the connection, also if the process dies."""
        name = f"sending {self.name} {hour.key}"
        lock = "hashtextextended(%s, 0)"
        ((is_free,),) = ledger.execute(
            f"SELECT pg_try_advisory_lock({lock})", [name]
        ).fetchall()
        if not is_free:
            raise HourBusyError(
                f"another run is sending {hour} to {self.name}: let it finish, then try again"
            )
        try:
            yield
        finally:
            with contextlib.suppress(errors.Error):
                ledger.execute(f"SELECT pg_advisory_unlock({lock})", [name])

    @contextlib.contextmanager
    def _session(self) -> Iterator[Connection]:
        """A connection to the ledger, after its tables were made or migrated."""
        with self._connected() as ledger:
            with ledger.transaction():
                migrate(ledger, "ledger", LEDGER)
                migrate(ledger, "appended", APPENDED)
            yield ledger

    def _connected(self) -> AbstractContextManager[Connection]:
        return utc_session(self._server, "obs_assets appending")


def cut(
    lines: Iterator[Line], *, most_bytes: int, most_lines: int, extra_bytes: int
) -> Iterator[list[Line]]:
    """Lines in chunks below two limits; a line above the limit of bytes is a chunk of its own.

    Args:
        lines: the lines, in order.
        most_bytes: largest number of bytes of a chunk.
        most_lines: largest number of lines of a chunk.
        extra_bytes: bytes that the service counts for each line beside its text.
    """
    chunk: list[Line] = []
    size = 0
    for line in lines:
        length = len(line.text) + extra_bytes
        if chunk and (size + length > most_bytes or len(chunk) == most_lines):
            yield chunk
            chunk, size = [], 0
        chunk.append(line)
        size += length
    if chunk:
        yield chunk


def _size_of(lines: Sequence[Line]) -> int:
    return sum(len(line.text) for line in lines)


def _uids_of(frame: Frame) -> list[str]:
    with frame.project("row_uid").to_arrow_reader(READ_ROWS) as batches:
        uids: list[str] = []
        for batch in batches:
            uids += batch.column(0).to_pylist()
        return uids


def _packed(uids: Sequence[str]) -> bytes:
    return bytes.fromhex("".join(uids))


def _unpacked(packed: bytes) -> list[str]:
    text = bytes(packed).hex()
    digits = 2 * UID_BYTES
    return [text[start : start + digits] for start in range(0, len(text), digits)]


def _chunk_id(uids: Sequence[str]) -> str:
    """Identity of a chunk, from its rows: the same rows are the same chunk in every run."""
    return hashlib.sha256(_packed(uids)).hexdigest()[:32]
