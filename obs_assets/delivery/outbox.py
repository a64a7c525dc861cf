"""The outbox: alerts are written down in one transaction, then sent until somebody has taken them.

::

    deliver ─▶ match ─▶ ┌ one transaction ─────────────────────────────────┐ ─▶ drain ─▶ claim ─▶ send ─▶ mark
                        │ obs.webhook_dispatches  bodies, frozen           │
                        │ obs.webhook_rows        rows that are in one     │
        │ obs.alert_…             measures, states, notices│
                        │ obs.hour_loads          what the hour was of     │
                        └──────────────────────────────────────────────────┘

A row gets into one dispatch of a destination, ever: rebuilding an hour adds the rows that came late and nothing else.
A dispatch is sent at least once, always with the same ``webhook-id`` and the same bytes: who dies between the answer
and the mark leaves it to be sent again.
"""

import contextlib
import hashlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias, get_args

import duckdb
import psycopg
import pyarrow as pa
from psycopg import errors
from psycopg.rows import class_row, dict_row

from obs_assets.alerts import with_rule
from obs_assets.alerts.evaluate import evaluate
from obs_assets.alerts.life import States
from obs_assets.alerts.notices import Decision, Message, bundle, message
from obs_assets.alerts.receivers import compose as compose_message
from obs_assets.alerts.receivers import forwarded
from obs_assets.crash import crash_point
from obs_assets.delivery import journal
from obs_assets.delivery.journal import Journal
from obs_assets.destinations.base import Delivery, Holding, Offer
from obs_assets.destinations.postgres import connect, explained
from obs_assets.destinations.webhook import (
    CONTENT_TYPE,
    LONGEST_WAIT_S,
    GoneError,
    RateLimitedError,
    WebhookConfig,
    WebhookSender,
    compose,
    identify,
)
from obs_assets.errors import (
    ConfigurationError,
    HourBusyError,
    ObsError,
    PermanentError,
    StaleHourError,
    TransientError,
)
from obs_assets.events import Frame
from obs_assets.hours import Hour
from obs_assets.receipts import InputVersion
from obs_assets.settings import PostgresSettings, WebhookSettings

Connection: TypeAlias = psycopg.Connection[Any]
State: TypeAlias = Literal["pending", "sent", "failed", "unsent"]

OFF = "webhook sending is off: WEBHOOK_URL is not set"
NO_RULE = "no alert rule"
MEASURED = "measured, not forwarded"

PATIENCE_S = 5.0
"""The longest wait inside a drain; a longer one, and any that is asked for, is written into ``next_attempt_at``."""

BREAKS_AFTER = 5
"""Failures in a row after which an endpoint is left alone for a while."""

BROKEN_S = 30.0
"""How long at first; twice as long after each further failure, at most an hour."""

BUSY_AFTER_S = 30
"""How long to wait for another run that writes to the same destination's outbox."""

CHUNK_ROWS = 2_000
"""Matching rows held at a time."""

# The first table is shared with the other destinations of this database, and so is the lock under which it is made.
_TABLES = (
    """
CREATE SCHEMA IF NOT EXISTS obs;
CREATE TABLE IF NOT EXISTS obs.hour_loads (
    destination TEXT, hour TIMESTAMPTZ,
    generation BIGINT NOT NULL, config_hash TEXT NOT NULL, code_version TEXT NOT NULL,
    rows BIGINT NOT NULL, content_hash TEXT NOT NULL,
    run_id TEXT NOT NULL, loaded_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (destination, hour));
CREATE TABLE IF NOT EXISTS obs.webhook_dispatches (
    webhook_id TEXT PRIMARY KEY, position BIGINT GENERATED ALWAYS AS IDENTITY,
    destination TEXT NOT NULL, hour TIMESTAMPTZ NOT NULL, rule TEXT NOT NULL,
    body BYTEA NOT NULL, content_type TEXT NOT NULL, events INT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'sent', 'failed', 'unsent')),
    attempts INT NOT NULL DEFAULT 0, next_attempt_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL, sent_at TIMESTAMPTZ, last_error TEXT);
CREATE INDEX IF NOT EXISTS webhook_dispatches_due ON obs.webhook_dispatches (destination, attempts, position)
    WHERE state = 'pending';
CREATE TABLE IF NOT EXISTS obs.webhook_rows (
    destination TEXT, row_uid TEXT, hour TIMESTAMPTZ NOT NULL, webhook_id TEXT NOT NULL,
    PRIMARY KEY (destination, row_uid));
ALTER TABLE obs.webhook_dispatches ADD COLUMN IF NOT EXISTS subject TEXT;
CREATE INDEX IF NOT EXISTS webhook_dispatches_subject ON obs.webhook_dispatches (destination, subject, position)
    WHERE state = 'pending' AND subject IS NOT NULL;
CREATE TABLE IF NOT EXISTS obs.webhook_endpoints (
    endpoint TEXT PRIMARY KEY, failures INT NOT NULL DEFAULT 0, not_before TIMESTAMPTZ, disabled_at TIMESTAMPTZ);
CREATE INDEX IF NOT EXISTS webhook_rows_hour ON obs.webhook_rows (destination, hour);
"""
    + journal.TABLES
)

_ADVISORY_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"

_UPSERT_LOAD = """
INSERT INTO obs.hour_loads
    (destination, hour, generation, config_hash, code_version, rows, content_hash, run_id, loaded_at)
SELECT %(destination)s, %(hour)s, %(generation)s, %(config_hash)s, %(code_version)s,
    (SELECT count(*) FROM obs.webhook_rows WHERE destination = %(destination)s AND hour = %(hour)s),
    %(content_hash)s, %(run_id)s, %(now)s
ON CONFLICT (destination, hour) DO UPDATE SET
    (generation, config_hash, code_version, rows, content_hash, run_id, loaded_at) = (
        excluded.generation, excluded.config_hash, excluded.code_version, excluded.rows, excluded.content_hash,
        excluded.run_id, excluded.loaded_at)
"""

_INSERT_DISPATCH = """
INSERT INTO obs.webhook_dispatches
    (webhook_id, destination, hour, rule, body, content_type, events, state, next_attempt_at, created_at, last_error,
    subject)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (webhook_id) DO NOTHING
"""

# Least tried first: a dispatch that its receiver cannot digest never holds up a new one. But of one subject they go in
# order: that an alert has resolved must not be overtaken by the news that it fires.
_CLAIM = """
SELECT webhook_id, body, content_type, events, attempts, created_at FROM obs.webhook_dispatches AS this
WHERE destination = %s AND state = 'pending' AND next_attempt_at <= %s
    AND (subject IS NULL OR NOT EXISTS (SELECT FROM obs.webhook_dispatches AS earlier
        WHERE earlier.destination = this.destination AND earlier.subject = this.subject
            AND earlier.state = 'pending' AND earlier.position < this.position))
ORDER BY attempts, position LIMIT 1 FOR UPDATE SKIP LOCKED
"""

_MARK = """
UPDATE obs.webhook_dispatches
SET state = %s, attempts = attempts + %s, next_attempt_at = %s, sent_at = %s, last_error = %s
WHERE webhook_id = %s
"""

_POSTPONE_ALL = """
UPDATE obs.webhook_dispatches SET next_attempt_at = greatest(next_attempt_at, %s)
WHERE webhook_id IN (SELECT webhook_id FROM obs.webhook_dispatches
    WHERE destination = %s AND state = 'pending' FOR UPDATE SKIP LOCKED)
"""

_ENDPOINT = """
SELECT disabled_at IS NULL AND (not_before IS NULL OR not_before <= %s) FROM obs.webhook_endpoints WHERE endpoint = %s
"""

_MARK_ENDPOINT = """
INSERT INTO obs.webhook_endpoints AS e (endpoint, failures, not_before, disabled_at) VALUES (%s, %s, %s, %s)
ON CONFLICT (endpoint) DO UPDATE SET (failures, not_before, disabled_at) = (
    CASE WHEN excluded.failures = 0 THEN 0 ELSE e.failures + 1 END, excluded.not_before, excluded.disabled_at)
RETURNING failures
"""

_DISPATCHES = """
SELECT webhook_id, destination, hour, rule, events, state, attempts, next_attempt_at, created_at, sent_at, last_error,
    body
FROM obs.webhook_dispatches WHERE destination = %s AND (%s::text IS NULL OR state = %s)
    AND (%s::text IS NULL OR webhook_id = %s) ORDER BY position DESC LIMIT %s
"""

_log = logging.getLogger(__name__)
_said_off: set[str] = set()


_COUNTS = (
    "total_events_sent",
    "total_requests_sent",
    "total_requests_succeeded",
    "total_requests_failed",
    "total_retries",
    "total_rate_limited",
)
"""The original's names; requests include the repeated ones."""


@dataclass(frozen=True)
class Dispatch:
    """One request to be made, or made; a row of ``obs.webhook_dispatches``.

    Attributes:
        hour: its start.
        events: how many are in the body.
        attempts: requests made so far.
        last_error: what the last one came to; neither event text nor the address.
        body: as it is sent, byte by byte. Its events are redacted.
    """

    webhook_id: str
    destination: str
    hour: datetime
    rule: str
    events: int
    state: State
    attempts: int
    next_attempt_at: datetime
    created_at: datetime
    sent_at: datetime | None
    last_error: str | None
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class _Row:
    rule: str
    row_uid: str
    event: str


@dataclass(frozen=True)
class _Attempts:
    """What became of a dispatch in one drain: its new state, and the requests that it took."""

    state: State
    requests: int
    rate_limited: int = 0
    error: str | None = None
    asked_wait_s: float | None = None
    gone: bool = False
    transient: bool = False


class WebhookAlerts:
    """Forwards the events that match a rule, each once. See `obs_assets.destinations.base.Destination`.

    Args:
        name: the ledger's key and the name in payloads; no two pipelines of one database may share it.
        config: rules and receiver.
        server: the PostgreSQL that keeps the outbox.
        environment: what the configuration leaves open.
        clock: the time, UTC.
        sleep: waits between attempts and for the rate limit.
        jitter: between 0 and 1: how much of the second half of a wait is waited, so that processes that failed
            together do not come back together.

    Raises:
        ConfigurationError: the receiver's options do not fit together.
    """

    def __init__(
        self,
        name: str,
        config: WebhookConfig,
        server: PostgresSettings,
        environment: WebhookSettings,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.config = config.with_fallbacks(
            url=environment.url,
            auth_token=environment.auth_token,
            api_key=environment.api_key,
            hmac_secret=environment.hmac_secret,
        )
        self._server = server
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._send_old = environment.send_old
        self._sender = self._make_sender(environment.allow_private) if self.config.url else None

    def deliver(self, offer: Offer) -> Delivery:
        """Put the hour's new matches into the outbox, then send what is due.

        A dispatch that cannot be sent does not raise: it is in the outbox, and in ``stats`` as ``pending`` (a later
        drain sends it) or ``failed`` (the receiver refused it for good: `retry` it when the cause is gone).

        Raises:
            StaleHourError: a newer generation of the hour was here.
            HourBusyError: another run is writing to this outbox.
            TransientError: PostgreSQL cannot be reached.
        """
        labelled = with_rule(offer.frame, self.config.rules)
        unmatched = _count_rows(labelled.filter("rule IS NULL"))
        evaluation = evaluate(offer.frame, self.config.rules)
        closed_until = offer.closed_until or Hour.of(self._clock())
        with self._session() as connection:
            self._make_tables(connection)
            with connection.transaction():
                self._lock(connection)
                self._refuse_stale(connection, offer)
                new, known, size = self._write_dispatches(connection, offer.hour, labelled.filter("rule IS NOT NULL"))
                kept = self._journal(connection)
                told = kept.take(
                    offer.hour, evaluation, self._clock(), closed_until=closed_until, is_muted=self._is_muted
                )
                size += self._write_messages(connection, kept, told.decision)
                self._write_load(connection, offer)
                crash_point("webhook.before_outbox")
            crash_point("webhook.after_outbox")
        stats = {**_figures(told.decision), **self.drain(self._clock())}
        left_out = sum(measured.left_out for measured in evaluation.values())
        return Delivery(
            written=new,
            already_there=known,
            refused={(MEASURED if evaluation else NO_RULE): unmatched} if unmatched else {},
            size_bytes=size,
            stats=stats | ({"groups left out": left_out} if left_out else {}),
            tables=_table(told.states),
        )

    def dispatch(self, closed_until: Hour, is_empty: Callable[[Hour], bool]) -> Mapping[str, int | float]:
        """Judge hours that have closed since they were built, or in which nothing happened; then send what is due.

        Args:
            closed_until: hours before it are closed.
            is_empty: whether nothing has landed for an hour.
        """
        decision = Decision()
        if any(rule.measures for rule in self.config.rules):
            with self._session() as connection:
                self._make_tables(connection)
                with connection.transaction():
                    self._lock(connection)
                    kept = self._journal(connection)
                    decision = kept.advance(
                        self._clock(), closed_until=closed_until, is_empty=is_empty, is_muted=self._is_muted
                    )
                    self._write_messages(connection, kept, decision)
        return {**_figures(decision), **self.drain(self._clock())}

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that fire, or are about to, after the latest hour: rows of the view ``obs.alerts``."""
        with self._session() as connection:
            self._make_tables(connection)
            cursor = connection.cursor(row_factory=dict_row)
            return cursor.execute(
                "SELECT * FROM obs.alerts WHERE destination = %s ORDER BY rule, since, fingerprint", [self.name]
            ).fetchall()

    def stuck(self, older_than: timedelta) -> int:
        """Dispatches that have been waiting for longer, and those that were given up."""
        with self._session() as connection:
            self._make_tables(connection)
            row = connection.execute(
                "SELECT count(*) FROM obs.webhook_dispatches WHERE destination = %s "
                "AND (state = 'failed' OR (state = 'pending' AND created_at < %s))",
                [self.name, self._clock() - older_than],
            ).fetchone()
            return int(row[0]) if row else 0

    def drain(self, now: datetime) -> Mapping[str, int | float]:
        """Send every dispatch of this destination that is due, up to the first that the receiver could not take.

        Several drains may run at once: each takes what no other has claimed.

        Args:
            now: dispatches to be tried until then are due.

        Returns:
            the original's counts, of this drain, and how many dispatches are now ``pending``, ``failed``, ``unsent``.
        """
        counts: Counter[str] = Counter()
        with self._session() as connection:
            self._make_tables(connection)
            if self._sender is None:
                self._say_off()
            else:
                while self._drain_one(connection, self._sender, now, counts):
                    pass
            states = dict(
                connection.execute(
                    "SELECT state, count(*) FROM obs.webhook_dispatches WHERE destination = %s GROUP BY state",
                    [self.name],
                ).fetchall()
            )
        return _stats(counts) | {state: int(states.get(state, 0)) for state in ("pending", "failed", "unsent")}

    def states(self) -> dict[State, int]:
        """How many dispatches are in each state."""
        with self._session() as connection:
            self._make_tables(connection)
            query = "SELECT state, count(*) FROM obs.webhook_dispatches WHERE destination = %s GROUP BY state"
            found = dict(connection.execute(query, [self.name]).fetchall())
        return {state: int(found.get(state, 0)) for state in get_args(State)}

    def dispatches(self, state: State | None = None, limit: int = 100, webhook_id: str | None = None) -> list[Dispatch]:
        """What is in the outbox, newest first; all of it, those in a state, or the one of an id."""
        with self._session() as connection:
            self._make_tables(connection)
            cursor = connection.cursor(row_factory=class_row(Dispatch))
            return cursor.execute(_DISPATCHES, [self.name, state, state, webhook_id, webhook_id, limit]).fetchall()

    def retry(self, webhook_id: str) -> bool:
        """Make a dispatch that failed, waits or was never to be sent due now, with the same id and bytes.

        The next `drain` sends it. False when this destination has none of that id, or has sent it.
        """
        with self._session() as connection:
            self._make_tables(connection)
            found = connection.execute(
                "UPDATE obs.webhook_dispatches "
                "SET state = 'pending', attempts = 0, next_attempt_at = %s, last_error = NULL "
                "WHERE webhook_id = %s AND destination = %s AND state <> 'sent'",
                [self._clock(), webhook_id, self.name],
            )
            if found.rowcount and self._sender:
                connection.execute("DELETE FROM obs.webhook_endpoints WHERE endpoint = %s", [self._endpoint()])
            return found.rowcount > 0

    def holding(self, hour: Hour, *, count: bool = False) -> Holding | None:
        """The ledger's row of an hour: its version and content, and the rows of it that are in a dispatch."""
        counted = "(SELECT count(*) FROM obs.webhook_rows w WHERE (w.destination, w.hour) = (l.destination, l.hour))"
        with self._session() as connection:
            try:
                row = connection.execute(
                    "SELECT generation, config_hash, code_version, rows, content_hash, "
                    f"{counted if count else 'NULL'} FROM obs.hour_loads l WHERE destination = %s AND hour = %s",
                    [self.name, hour.start],
                ).fetchone()
            except errors.UndefinedTable:
                return None
        return Holding(InputVersion(*row[:3]), *row[3:]) if row else None

    def holdings(self) -> dict[Hour, Holding]:
        """The ledger's rows of all hours."""
        with self._session() as connection:
            try:
                rows = connection.execute(
                    "SELECT hour, generation, config_hash, code_version, rows, content_hash FROM obs.hour_loads "
                    "WHERE destination = %s",
                    [self.name],
                ).fetchall()
            except errors.UndefinedTable:
                return {}
        return {Hour.of(row[0]): Holding(InputVersion(*row[1:4]), *row[4:]) for row in rows}

    def selected(self, frame: Frame) -> Frame:
        """The rows that match a rule."""
        return with_rule(frame, self.config.rules).filter("rule IS NOT NULL")

    def read_back(self, connection: duckdb.DuckDBPyConnection, hour: Hour) -> Frame:
        """``row_uid`` of the hour's rows that are in a dispatch; ``event`` is empty, a body is not taken apart."""
        with self._session() as server:
            self._make_tables(server)
            rows = server.execute(
                "SELECT row_uid FROM obs.webhook_rows JOIN obs.webhook_dispatches USING (webhook_id) "
                "WHERE webhook_rows.destination = %s AND webhook_rows.hour = %s",
                [self.name, hour.start],
            ).fetchall()
        return connection.from_arrow(pa.table({"row_uid": pa.array([uid for (uid,) in rows], pa.string())})).project(
            "row_uid, '' AS event"
        )

    def check(self) -> str:
        """One line that says what was reached: the outbox, and the receiver's host without a request."""
        try:
            with self._session() as connection:
                self._make_tables(connection)
        except ObsError as error:
            raise ConfigurationError(str(error)) from None
        if self._sender is None:
            return OFF
        try:
            return f"webhook {self._sender.reach()} can be reached"
        except ObsError as error:
            raise ConfigurationError(f"{self.name}, url (WEBHOOK_URL): {error}") from None

    # ── writing down, inside the transaction of `deliver` ────────────────────────────────────────────────────────────

    def _lock(self, connection: Connection) -> None:
        """Keep other writers of this outbox out until the end of the transaction."""
        connection.execute(f"SET LOCAL lock_timeout = '{BUSY_AFTER_S}s'")
        try:
            connection.execute(_ADVISORY_LOCK, [f"outbox {self.name}"])
        except errors.LockNotAvailable:
            raise HourBusyError(
                f"another run is writing to the outbox of {self.name}: let it finish, then try again"
            ) from None

    def _refuse_stale(self, connection: Connection, offer: Offer) -> None:
        row = connection.execute(
            "SELECT generation FROM obs.hour_loads WHERE destination = %s AND hour = %s", [self.name, offer.hour.start]
        ).fetchone()
        if row and row[0] > offer.version.generation:
            raise StaleHourError(
                f"{self.name} has seen generation {row[0]} of {offer.hour}, newer than the offered "
                f"{offer.version.generation}: materialize the stages before it again"
            )

    def _write_dispatches(self, connection: Connection, hour: Hour, matched: Frame) -> tuple[int, int, int]:
        """Batch the rows that are in no dispatch yet; returns new rows, known rows and bytes of bodies."""
        batch_size = 1 if self.config.payload_format == "individual" else self.config.batch_size
        waiting: dict[str, list[_Row]] = {rule.name: [] for rule in self.config.rules}
        new = known = size = 0
        now = self._clock()
        for rows in _chunks(matched):
            unseen = self._unseen(connection, rows)
            new, known = new + len(unseen), known + len(rows) - len(unseen)
            for row in unseen:
                waiting[row.rule].append(row)
            for rule, queue in waiting.items():
                full = len(queue) - len(queue) % batch_size
                size += self._write_batches(connection, hour, now, _split(queue[:full], batch_size))
                waiting[rule] = queue[full:]
        for queue in waiting.values():
            size += self._write_batches(connection, hour, now, _split(queue, batch_size))
        return new, known, size

    def _unseen(self, connection: Connection, rows: list[_Row]) -> list[_Row]:
        found = connection.execute(
            "SELECT row_uid FROM obs.webhook_rows WHERE destination = %s AND row_uid = ANY(%s)",
            [self.name, [row.row_uid for row in rows]],
        )
        seen = {uid for (uid,) in found}
        return [row for row in rows if row.row_uid not in seen]

    def _write_batches(self, connection: Connection, hour: Hour, now: datetime, batches: list[list[_Row]]) -> int:
        """Write dispatches and the ledger of their rows; returns the bytes of the bodies."""
        state, reason = self._fate(hour)
        dispatches: list[tuple[Any, ...]] = []
        owners: list[str] = []
        for batch in batches:
            rule = batch[0].rule
            webhook_id = identify(self.name, rule, [row.row_uid for row in batch])
            body = self._body(hour, rule, [row.event for row in batch], now)
            dispatches.append(
                (webhook_id, self.name, hour.start, rule, body, CONTENT_TYPE, len(batch), state, now, now, reason, None)
            )
            owners += [webhook_id] * len(batch)
        if dispatches:
            connection.cursor().executemany(_INSERT_DISPATCH, dispatches)
            connection.execute(
                "INSERT INTO obs.webhook_rows "
                "SELECT %s, uid, %s, id FROM unnest(%s::text[], %s::text[]) AS t (uid, id)",
                [self.name, hour.start, [row.row_uid for batch in batches for row in batch], owners],
            )
        return sum(len(dispatch[4]) for dispatch in dispatches)

    def _body(self, hour: Hour, rule: str, events: list[str], now: datetime) -> bytes:
        if self.config.receiver == "generic":
            return compose(self.config, self.name, events, now)
        (severity, labels) = next((r.severity, r.labels) for r in self.config.rules if r.name == rule)
        told = forwarded(rule, self.name, hour, events, severity=severity, labels=labels)
        return compose_message(self.config.receiver, told, _timestamp(now))

    def _write_messages(self, connection: Connection, kept: Journal, decision: Decision) -> int:
        """Write dispatches of what is to be told, each with its notices; returns the bytes of the bodies."""
        now, size = self._clock(), 0
        for notices in bundle(self.config.rules, decision.notices, each=self.config.receiver == "pagerduty"):
            told: Message = message(self.config.rules, notices, self.name)
            parts = [told.status, told.hour.key, *(notice.fingerprint for notice in notices)]
            webhook_id = identify(self.name, told.rule, parts)
            body = compose_message(self.config.receiver, told, _timestamp(now))
            state, reason = ("pending", None) if notices[0].sent else self._fate(told.hour)
            row = (webhook_id, self.name, told.hour.start, told.rule, body, CONTENT_TYPE, 0, state, now, now, reason)
            connection.execute(_INSERT_DISPATCH, [*row, told.key])
            kept.record(notices, webhook_id)
            size += len(body)
        return size

    def _journal(self, connection: Connection) -> Journal:
        return Journal(connection, self.name, self.config.rules)

    def _is_muted(self, hour: Hour) -> bool:
        return self._fate(hour)[0] == "unsent"

    def _fate(self, hour: Hour) -> tuple[State, str | None]:
        """Whether what is about an hour is to be sent, and if not, why."""
        oldest = self.config.max_age_hours
        if self._sender is None:
            return "unsent", None
        if oldest is not None and not self._send_old and self._clock() - hour.end > timedelta(hours=oldest):
            return "unsent", f"not sent: the hour ended more than {oldest:g} hours ago (max_age_hours)"
        return "pending", None

    def _write_load(self, connection: Connection, offer: Offer) -> None:
        connection.execute(
            _UPSERT_LOAD,
            {
                "destination": self.name,
                "hour": offer.hour.start,
                "generation": offer.version.generation,
                "config_hash": offer.version.config_hash,
                "code_version": offer.version.code_version,
                "content_hash": offer.content_hash,
                "run_id": offer.run_id,
                "now": self._clock(),
            },
        )

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _make_sender(self, allow_private: bool) -> WebhookSender:
        return WebhookSender(self.config, allow_private=allow_private, clock=self._clock, sleep=self._sleep)

    def _drain_one(self, connection: Connection, sender: WebhookSender, now: datetime, counts: Counter[str]) -> bool:
        """Claim, send and mark one dispatch; False when the drain is over.

        The claim is a row lock: it goes when this process does. A machine that vanishes without a word is let go of
        once it is idle for longer than the attempts can take.
        """
        with connection.transaction():
            if not self._is_open(connection, now):
                return False
            connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{self._longest_s():.0f}s'")
            row = connection.execute(_CLAIM, [self.name, now]).fetchone()
            if row is None:
                return False
            webhook_id, body, content_type, events, earlier, created_at = row
            crash_point("webhook.before_send")
            result = self._attempt(sender, body, content_type, webhook_id)
            crash_point("webhook.after_send")
            if result.state == "pending" and self._clock() - created_at > self._gives_up_after:
                result = replace(result, state="failed", error=f"{result.error}; given up after {self._gives_up_after}")
            self._mark(connection, webhook_id, earlier, result)
            self._mark_endpoint(connection, result)
        _count(counts, result, events)
        return result.state == "sent" or (result.state == "failed" and not result.transient)

    @property
    def _gives_up_after(self) -> timedelta:
        return timedelta(hours=self.config.give_up_after_hours)

    def _is_open(self, connection: Connection, now: datetime) -> bool:
        """Whether the endpoint may be called: it has not gone, has not asked for silence, and does not just fail."""
        row = connection.execute(_ENDPOINT, [now, self._endpoint()]).fetchone()
        return row is None or bool(row[0])

    def _endpoint(self) -> str:
        """The endpoint's key; the address itself is a secret."""
        assert self.config.url  # noqa: S101 - who has a sender has an address
        return hashlib.sha256(self.config.url.get_secret_value().encode()).hexdigest()[:32]

    def _mark_endpoint(self, connection: Connection, result: _Attempts) -> None:
        """The circuit breaker: five failures in a row, or a wish of the receiver, and it is left alone for a while."""
        now = self._clock()
        failing = result.transient
        asked = now + timedelta(seconds=result.asked_wait_s) if result.asked_wait_s else None
        values = [self._endpoint(), int(failing), asked, now if result.gone else None]
        row = connection.execute(_MARK_ENDPOINT, values).fetchone()
        if failing and row and row[0] >= BREAKS_AFTER:
            wait_s = self._jittered(min(LONGEST_WAIT_S, BROKEN_S * 2 ** min(row[0] - BREAKS_AFTER, 10)))
            connection.execute(
                "UPDATE obs.webhook_endpoints SET not_before = greatest(not_before, %s) WHERE endpoint = %s",
                [now + timedelta(seconds=wait_s), self._endpoint()],
            )

    def _jittered(self, seconds: float) -> float:
        return seconds * (1 + self._jitter()) / 2

    def _attempt(self, sender: WebhookSender, body: bytes, content_type: str, webhook_id: str) -> _Attempts:
        """Send until it is taken, refused, or not worth waiting for here."""
        rate_limited = 0
        for attempt in range(1, self.config.max_retries + 1):
            try:
                sender.send(body, content_type, webhook_id)
            except PermanentError as error:
                return _Attempts("failed", attempt, rate_limited, str(error), gone=isinstance(error, GoneError))
            except TransientError as error:
                rate_limited += isinstance(error, RateLimitedError)
                wait_s = self._jittered(self._backoff_s(attempt))
                if attempt == self.config.max_retries or wait_s > PATIENCE_S or error.retry_after_s:
                    return _Attempts("pending", attempt, rate_limited, str(error), error.retry_after_s, transient=True)
                self._sleep(wait_s)
            else:
                return _Attempts("sent", attempt, rate_limited)
        raise AssertionError("max_retries is at least 1")

    def _mark(self, connection: Connection, webhook_id: str, earlier: int, result: _Attempts) -> None:
        now = self._clock()
        wait_s = max(self._jittered(self._backoff_s(earlier + result.requests)), result.asked_wait_s or 0)
        again_at = now + timedelta(seconds=wait_s) if result.state == "pending" else now
        sent_at = now if result.state == "sent" else None
        connection.execute(_MARK, [result.state, result.requests, again_at, sent_at, result.error, webhook_id])
        if result.asked_wait_s:
            connection.execute(_POSTPONE_ALL, [now + timedelta(seconds=result.asked_wait_s), self.name])
        if result.state == "pending":
            _log.warning(
                "%s: %s; dispatch %s is tried again in %.0f s or later", self.name, result.error, webhook_id, wait_s
            )
        elif result.state == "failed":
            _log.error("%s: %s; dispatch %s is not sent, `obs alerts retry` does", self.name, result.error, webhook_id)

    def _longest_s(self) -> float:
        between_s = PATIENCE_S + 1 / (self.config.rate_limit or 1)
        return 60 + self.config.max_retries * (self.config.timeout_s + between_s)

    def _backoff_s(self, attempts: int) -> float:
        return float(
            min(LONGEST_WAIT_S, self.config.retry_delay_s * self.config.retry_backoff ** min(attempts - 1, 50))
        )

    def _say_off(self) -> None:
        if self.name not in _said_off:
            _said_off.add(self.name)
            _log.warning("%s: %s; what would be sent is recorded", self.name, OFF)

    # ── connecting ───────────────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def _session(self) -> Iterator[Connection]:
        """A connection, each statement its own transaction unless said otherwise; its errors are ours."""
        try:
            with contextlib.closing(
                connect(self._server, application_name="obs_assets outbox", autocommit=True)
            ) as connection:
                connection.execute("SET TIME ZONE 'UTC'")
                yield connection
        except psycopg.Error as error:
            raise explained(error, self._server) from None

    def _make_tables(self, connection: Connection) -> None:
        # CREATE … IF NOT EXISTS asks for the right to create even where there is nothing to do.
        made = connection.execute("SELECT to_regclass('obs.alerts') IS NOT NULL").fetchone()
        if made and made[0]:
            return
        with connection.transaction():
            connection.execute(_ADVISORY_LOCK, ["obs_assets schema"])
            connection.execute(_TABLES)


def _chunks(matched: Frame) -> Iterator[list[_Row]]:
    """Rows in the frame's order. DuckDB lets nothing else run while a result is open: it is closed whatever happens."""
    with contextlib.closing(matched.project("rule, row_uid, event").to_arrow_reader(CHUNK_ROWS)) as reader:
        for batch in reader:
            yield [_Row(*row) for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)]


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _figures(decision: Decision) -> dict[str, int | float]:
    kinds = Counter(notice.kind for notice in decision.notices)
    return {"fired": kinds["firing"], "resolved": kinds["resolved"], "suppressed": decision.suppressed}


def _table(states: States) -> dict[str, dict[str, int | float | str]]:
    """The alerts after an hour, for the UI. Values of groups are redacted, as the frame is."""
    shown = sorted(states.values(), key=lambda s: (s.status, s.rule, str(s.group)))[:50]
    rows: dict[str, int | float | str] = {
        " · ".join([s.rule, *("(none)" if value is None else value for value in s.group)]).replace("|", "¦"): (
            f"{s.status} since {s.since.key}" + ("" if s.value is None else f", {s.value:g}")
        )
        for s in shown
    }
    return {"alerts after this hour": rows} if rows else {}


def _count_rows(frame: Frame) -> int:
    ((rows,),) = frame.aggregate("count(*)").fetchall()
    return int(rows)


def _split(rows: list[_Row], size: int) -> list[list[_Row]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _count(counts: Counter[str], result: _Attempts, events: int) -> None:
    sent = result.state == "sent"
    counts["total_events_sent"] += events * sent
    counts["total_requests_sent"] += result.requests
    counts["total_requests_succeeded"] += sent
    counts["total_requests_failed"] += result.requests - sent
    counts["total_retries"] += result.requests - 1
    counts["total_rate_limited"] += result.rate_limited


def _stats(counts: Counter[str]) -> dict[str, int | float]:
    """Every count, zeros included, and the success rate: 1 when nothing had to be sent."""
    requests = counts["total_requests_sent"]
    rate = counts["total_requests_succeeded"] / requests if requests else 1.0
    return {name: counts[name] for name in _COUNTS} | {"success_rate": rate}
