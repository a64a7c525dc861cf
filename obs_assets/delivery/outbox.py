"""The outbox: dispatches are written in a transaction, then sent until the receiver accepts them.

::

    deliver ─▶ match ─▶ ┌ one transaction ────────────────────────┐ ─▶ drain ─▶ claim, send, record
                        │ obs.webhook_dispatches  frozen bodies   │
                        │ obs.webhook_rows        rows in bodies  │
                        │ obs.alert_…             see `journal`   │
                        │ obs.hour_loads          hour's version  │
                        └─────────────────────────────────────────┘

A row gets into at most one dispatch of a destination: a rebuilt hour adds only the rows that came
late. A dispatch is sent at least once, always with the same ``webhook-id`` and the same bytes: a
process that dies between the answer and its record leaves the dispatch to be sent again.

==============  ==========================================================
`journal`       measurements, states and notices of alerts
`dispatches`    the dispatches, their states and their rows
`drain`         sends the dispatches that are due
`breaker`       stops requests to an endpoint that fails
==============  ==========================================================
"""

import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, get_args

import duckdb
import pyarrow as pa
from psycopg import errors
from psycopg.rows import dict_row

from obs_assets.alerts import with_rule
from obs_assets.alerts.evaluate import Evaluation, evaluate
from obs_assets.alerts.life import AlertState, States
from obs_assets.alerts.notices import Decision, bundle, message
from obs_assets.alerts.receivers import compose as compose_message
from obs_assets.alerts.receivers import forwarded
from obs_assets.crash import crash_point
from obs_assets.delivery import dispatches, journal
from obs_assets.delivery.breaker import Breaker, Breakers, BreakerState, hash_of
from obs_assets.delivery.dispatches import Dispatch, Dispatches, Draft, State
from obs_assets.delivery.drain import Drain, SenderDeps, stats
from obs_assets.delivery.journal import FoldResult, Journal
from obs_assets.destinations.base import Delivery, Holding, Offer, refuse_older
from obs_assets.destinations.webhook import (
    CONTENT_TYPE,
    WebhookConfig,
    WebhookSender,
    compose,
    identify,
)
from obs_assets.errors import ConfigurationError, HourBusyError, ObsError
from obs_assets.events import Frame
from obs_assets.hours import Hour
from obs_assets.receipts import InputVersion
from obs_assets.settings import PostgresSettings, WebhookSettings
from obs_assets.storage.postgres import (
    LEDGER,
    VERSION,
    Connection,
    Migration,
    adopt_load,
    lock,
    migrate,
    utc_session,
)
from obs_assets.storage.readers import GRANT_ALERTS

OFF = "webhook sending is off: WEBHOOK_URL is not set"
"""Answer of `check`, and log message, when the webhook has no address."""

NO_RULE = "no alert rule"
"""Reason of a delivery for rows that match no rule."""

MEASURED = "measured, not forwarded"
"""The same reason, for a destination whose rules measure rows."""

BUSY_AFTER_S = 30
"""Seconds to wait for another run that writes to the outbox of the same destination."""

CHUNK_ROWS = 2_000
"""Matching rows in memory at a time, with their events."""

TABLE_ROWS = 50
"""Largest number of alerts in the UI's table of a delivery."""

_ENDPOINTS = """
CREATE TABLE IF NOT EXISTS obs.webhook_endpoints (
    endpoint TEXT PRIMARY KEY, failures INT NOT NULL DEFAULT 0, not_before TIMESTAMPTZ,
    disabled_at TIMESTAMPTZ);
"""
"""Older releases kept breakers in this table; `WebhookAlerts` takes its row over."""

ALERTS = (
    Migration(
        "Make the outbox: dispatches, the rows in them, endpoints; "
        "measurements, states and notices of alerts.",
        dispatches.TABLES + _ENDPOINTS + journal.TABLES,
    ),
    Migration(
        "Note by which rules an hour was folded, "
        "so that a change is folded forward only as far as it reaches.",
        journal.FOLDED_BY + dispatches.BY_HOUR,
    ),
    Migration("Let the roles that read events read alerts, without bodies.", GRANT_ALERTS),
)
"""Migrations of the tables of all webhook destinations; their subject is ``alerts``."""

_UPSERT_LOAD = """
INSERT INTO obs.hour_loads
    (destination, hour, generation, config_hash, code_version, log_id, rows, content_hash,
    run_id, loaded_at)
SELECT %(destination)s, %(hour)s, %(generation)s, %(config_hash)s, %(code_version)s, %(log_id)s,
    (SELECT count(*) FROM obs.webhook_rows
        WHERE destination = %(destination)s AND hour = %(hour)s),
    %(content_hash)s, %(run_id)s, %(now)s
ON CONFLICT (destination, hour) DO UPDATE SET
    (generation, config_hash, code_version, log_id, rows, content_hash, run_id, loaded_at) = (
        excluded.generation, excluded.config_hash, excluded.code_version, excluded.log_id, excluded.rows,
        excluded.content_hash, excluded.run_id, excluded.loaded_at)
"""

_COUNTED: LiteralString = """
(SELECT count(*) FROM obs.webhook_rows AS held
    WHERE (held.destination, held.hour) = (load.destination, load.hour))
"""

_NOT_COUNTED: LiteralString = "NULL"

_log = logging.getLogger(__name__)
_said_off: set[str] = set()
"""Names of the destinations for which this process has logged `OFF`."""


@dataclass(frozen=True)
class _Row:
    """A row that matches a rule: the rule's name, the row's identity and the event's JSON text."""

    rule: str
    row_uid: str
    event: str


class WebhookAlerts:
    """Forwards each event that matches a rule once. See `obs_assets.destinations.base.Destination`.

    Args:
        name: key in the ledger and name in payloads; unique among the pipelines of a database.
        config: rules and receiver.
        server: the PostgreSQL that keeps the outbox.
        environment: address and secrets for the options that the configuration leaves out.
        breakers: the breakers of the data folder.
        clock: gives the time, UTC.
        sleep: waits a number of seconds, between attempts and for the rate limit.
        busy_after_s: seconds to wait for another run that writes to the outbox.
        jitter: gives a number from 0 to 1: part of the second half of a wait that is waited, so that
            processes that failed together do not return together.

    Raises:
        ConfigurationError: two options of the receiver contradict each other.
    """

    def __init__(
        self,
        name: str,
        config: WebhookConfig,
        server: PostgresSettings,
        environment: WebhookSettings,
        breakers: Breakers,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
        busy_after_s: float = BUSY_AFTER_S,
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
        self._busy_after_s = busy_after_s
        self._jitter = jitter
        self._send_old = environment.send_old
        self._deps: SenderDeps | None = None
        self.breaker: Breaker | None = None
        if self.config.url:
            self.breaker = breakers.of_address(name, self.config.url)
            self._deps = self._make_deps(environment.allow_private, self.breaker)

    def deliver(self, offer: Offer) -> Delivery:
        """Write dispatches of the hour's new matches, then send the dispatches that are due.

        A dispatch that cannot be sent raises no error. It stays in the outbox, and ``stats`` counts
        it as ``pending`` (a later drain sends it) or ``failed`` (the receiver refused it: `retry` it
        when the cause is gone).

        Raises:
            StaleHourError: the outbox has a newer generation of the hour.
            HourBusyError: another run is writing to this outbox.
            TransientError: PostgreSQL cannot be reached.
        """
        labelled = with_rule(offer.frame, self.config.rules)
        ((unmatched,),) = labelled.aggregate("count(*) FILTER (rule IS NULL)").fetchall()
        matched = labelled.filter("rule IS NOT NULL")
        # Measured before the lock: it takes the engine's time, and other runs need not wait for it.
        evaluation = evaluate(offer.frame, self.config.rules)
        closed_until = offer.closed_until or Hour.of(self._clock())
        with self._session() as connection:
            with connection.transaction():
                self._lock(connection)
                refuse_older(self.name, self._ledger_row(connection, offer.hour), offer)
                new, known, size_bytes = self._write_dispatches(connection, offer.hour, matched)
                history = self._journal(connection)
                folded = self._fold(history, offer, evaluation, closed_until)
                size_bytes += self._write_messages(connection, history, folded.decision)
                self._write_load(connection, offer)
                if offer.hour.start.hour == 0:  # once a day is enough
                    self._forget(connection, history, closed_until)
                crash_point("webhook.before_outbox")
            crash_point("webhook.after_outbox")
        # After the commit: a request must not hold the lock, and an endpoint that fails changes no hour.
        figures = {**_figures(folded.decision), **self.drain(self._clock())}
        left_out = sum(measured.left_out for measured in evaluation.values())
        if left_out:
            figures["groups left out"] = left_out
        reason = MEASURED if evaluation else NO_RULE
        refused = {reason: unmatched} if unmatched else {}
        return Delivery(
            written=new,
            already_there=known,
            refused=refused,
            size_bytes=size_bytes,
            stats=figures,
            tables=_table(folded.states),
        )

    def _fold(
        self, history: Journal, offer: Offer, evaluation: Evaluation, closed_until: Hour
    ) -> FoldResult:
        """Judge the offered hour, unless it is older than the history."""
        # Its windows may reach into hours that are already deleted.
        if offer.hour.start < self._oldest(closed_until):
            return FoldResult()
        return history.take(
            offer.hour,
            evaluation,
            self._clock(),
            closed_until=closed_until,
            is_muted=self._is_muted,
        )

    def dispatch(
        self, closed_until: Hour, is_empty: Callable[[Hour], bool]
    ) -> Mapping[str, int | float]:
        """Judge hours that no build judges, send the dispatches that are due, delete old history.

        Args:
            closed_until: hours before it are closed.
            is_empty: whether no event has landed for an hour.

        Returns:
            figures by name, as in ``stats`` of a delivery.
        """
        with self._session() as connection, connection.transaction():
            self._lock(connection)
            history = self._journal(connection)
            decision = Decision()
            if any(rule.measures for rule in self.config.rules):
                decision = history.advance(
                    self._clock(),
                    closed_until=closed_until,
                    is_empty=is_empty,
                    is_muted=self._is_muted,
                )
            self._write_messages(connection, history, decision)
            self._forget(connection, history, closed_until)
        return {**_figures(decision), **self.drain(self._clock())}

    def due(self, closed_until: Hour, is_empty: Callable[[Hour], bool]) -> str:
        """The reason for a `dispatch` now, in a few words; empty if there is none.

        Nothing is changed.

        Args:
            closed_until: hours before it are closed.
            is_empty: whether no event has landed for an hour.
        """
        with self._connected() as connection:
            try:
                count = self._count_unjudged(connection, closed_until, is_empty)
                if count:
                    return f"{self.name}: {count:,} hours are to be judged"
                outbox = self._dispatches(connection)
                if self._can_send() and outbox.is_due(self._clock()):
                    return f"{self.name}: a dispatch is due"
            except errors.UndefinedTable:
                # No hour was delivered yet.
                return ""
        return ""

    def _count_unjudged(
        self, connection: Connection, closed_until: Hour, is_empty: Callable[[Hour], bool]
    ) -> int:
        """Number of hours that `dispatch` would judge; 0 without a rule that measures."""
        if not any(rule.measures for rule in self.config.rules):
            return 0
        empty, closed = self._journal(connection).unjudged(closed_until, is_empty)
        return len(empty) + len(closed)

    def _can_send(self) -> bool:
        """Whether the webhook has an address, and its breaker lets a request through."""
        if self.breaker is None:
            return False
        return self.breaker.state().stage(self._clock()) != "open"

    def alerts(self) -> list[dict[str, Any]]:
        """Alerts that fire or are pending after the latest hour: rows of the view ``obs.alerts``."""
        with self._session() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            return cursor.execute(
                "SELECT * FROM obs.alerts WHERE destination = %s ORDER BY rule, since, fingerprint",
                [self.name],
            ).fetchall()

    def stuck(self, older_than: timedelta) -> int:
        """Number of dispatches that failed, or have been pending for longer than a time."""
        with self._session() as connection:
            return self._dispatches(connection).stuck(self._clock() - older_than)

    def drain(self, now: datetime) -> Mapping[str, int | float]:
        """Send each dispatch that is due, until the receiver fails to take a dispatch.

        Several drains may run at once: each takes dispatches that no other drain has claimed.

        Args:
            now: dispatches whose next attempt is before or at this time are due, UTC.

        Returns:
            the counts of this drain, and the numbers of dispatches that are now ``pending``,
            ``failed`` and ``unsent``.
        """
        counts: Counter[str] = Counter()
        with self._session() as connection:
            if self._deps is None:
                self._warn_off()
            else:
                Drain(connection, self.name, self.config, self._deps, counts).run(now)
            found = self._dispatches(connection).states()
        waiting = {state: found.get(state, 0) for state in ("pending", "failed", "unsent")}
        return stats(counts) | waiting

    def states(self) -> dict[State, int]:
        """Each state of dispatches → number of dispatches in it."""
        with self._session() as connection:
            found = self._dispatches(connection).states()
        return {state: found.get(state, 0) for state in get_args(State)}

    def dispatches(
        self, state: State | None = None, limit: int = 100, webhook_id: str | None = None
    ) -> list[Dispatch]:
        """Dispatches in the outbox, newest first.

        Args:
            state: only dispatches in this state.
            limit: largest number of dispatches.
            webhook_id: only the dispatch with this identity.
        """
        with self._session() as connection:
            return self._dispatches(connection).newest(state, limit, webhook_id)

    def retry(self, webhook_id: str) -> bool:
        """Make a failed, pending or unsent dispatch due now; its identity and its bytes stay.

        The next `drain` sends it.

        Returns:
            False if the destination has no such dispatch, or the receiver has accepted it.
        """
        with self._session() as connection:
            found = self._dispatches(connection).revive(webhook_id, self._clock())
            # The user knows that the endpoint works again; its pause would delay the retry.
            if found and self.breaker:
                self.breaker.reset()
            return found

    def holding(self, hour: Hour, *, count: bool = False) -> Holding | None:
        """The ledger's row of an hour; with ``count`` also the rows that are in a dispatch."""
        counted = _COUNTED if count else _NOT_COUNTED
        return self._ledger(counted, "AND hour = %s", hour.start).get(hour)

    def holdings(self) -> dict[Hour, Holding]:
        """The ledger's rows of all hours."""
        return self._ledger(_NOT_COUNTED, "")

    def _ledger(
        self, counted: LiteralString, condition: LiteralString, *values: Any
    ) -> dict[Hour, Holding]:
        """Hour → its row of the ledger; empty before the first migration made the ledger.

        Args:
            counted: SQL for the number of rows that are in a dispatch.
            condition: SQL after ``WHERE destination = %s``.
            values: parameters of the condition.
        """
        columns: LiteralString = f"SELECT hour, {VERSION}, rows, content_hash, "
        source: LiteralString = " FROM obs.hour_loads AS load WHERE destination = %s "
        query = columns + counted + source + condition
        with self._connected() as connection:
            try:
                rows = connection.execute(query, [self.name, *values]).fetchall()
            except errors.UndefinedTable:
                return {}
        return {Hour.of(row[0]): Holding(InputVersion(*row[1:5]), *row[5:]) for row in rows}

    def adopt(self, hour: Hour, held: Holding, version: InputVersion) -> None:
        """Change the version of the ledger's row; see `base.Destination.adopt`."""
        expected = {**asdict(held.version), "content_hash": held.content_hash}
        key = {"destination": self.name, "hour": hour.start}
        with self._session() as connection, connection.transaction():
            self._lock(connection)
            # Only if the ledger still has the version that was compared with this folder.
            if not adopt_load(connection, key, expected, asdict(version)):
                raise HourBusyError(
                    f"{self.name} holds another {hour} than it did a moment ago: try again"
                )
            if not version.generation:
                # The hour's next build brings rows of other identities in the place of these.
                connection.execute(
                    "DELETE FROM obs.webhook_rows WHERE destination = %s AND hour = %s",
                    [self.name, hour.start],
                )

    def selected(self, frame: Frame) -> Frame:
        """The rows that match a rule."""
        return with_rule(frame, self.config.rules).filter("rule IS NOT NULL")

    def read_back(self, connection: duckdb.DuckDBPyConnection, hour: Hour) -> Frame:
        """``row_uid`` of the hour's rows that are in a dispatch.

        ``event`` is empty: bodies are not parsed back into events.
        """
        with self._session() as server:
            row_uids = self._dispatches(server).rows_of(hour)
        table = pa.table({"row_uid": pa.array(row_uids, pa.string())})
        return connection.from_arrow(table).project("row_uid, '' AS event")

    def check(self) -> str:
        """Connect to the outbox, and to the receiver's host without a request; a line of text."""
        try:
            with self._session():
                pass
        except ObsError as error:
            raise ConfigurationError(str(error)) from None
        if self._deps is None:
            return OFF
        try:
            return f"webhook {self._deps.sender.reach()} can be reached"
        except ObsError as error:
            raise ConfigurationError(f"{self.name}, url (WEBHOOK_URL): {error}") from None

    # ── writing, inside the transaction of `deliver` ──────────────────────────────────────────

    def _lock(self, connection: Connection) -> None:
        """Keep other writers of this outbox out until the end of the transaction."""
        connection.execute(f"SET LOCAL lock_timeout = '{self._busy_after_s}s'")
        try:
            lock(connection, f"outbox {self.name}")
        except errors.LockNotAvailable:
            raise HourBusyError(
                f"another run is writing to the outbox of {self.name}: let it finish, then try again"
            ) from None

    def _ledger_row(self, connection: Connection, hour: Hour) -> Holding | None:
        """The ledger's row of an hour, in the transaction of the caller."""
        row = connection.execute(
            f"SELECT {VERSION}, rows, content_hash FROM obs.hour_loads AS load "
            "WHERE destination = %s AND hour = %s",
            [self.name, hour.start],
        ).fetchone()
        return Holding(InputVersion(*row[:4]), *row[4:]) if row else None

    def _write_dispatches(
        self, connection: Connection, hour: Hour, matched: Frame
    ) -> tuple[int, int, int]:
        """Write dispatches of the matching rows that are in no dispatch yet.

        Returns:
            the number of new rows, the number of rows that were in a dispatch before, and the size of
            the new bodies in bytes.
        """
        batch_size = self.config.batch_size
        if self.config.payload_format == "individual":
            batch_size = 1
        waiting: dict[str, list[_Row]] = {rule.name: [] for rule in self.config.rules}
        new = known = size_bytes = 0
        now = self._clock()
        outbox = self._dispatches(connection)
        for rows in _chunks(matched):
            # Asked again at each build: a rebuilt hour forwards only the rows that came late.
            unseen = outbox.unseen([row.row_uid for row in rows])
            new += len(unseen)
            known += len(rows) - len(unseen)
            for row in rows:
                if row.row_uid in unseen:
                    waiting[row.rule].append(row)
            # Full batches are written at once, so that a large hour needs little memory.
            for rule, queue in waiting.items():
                full = len(queue) - len(queue) % batch_size
                batches = _split(queue[:full], batch_size)
                size_bytes += self._write_batches(outbox, hour, now, batches)
                waiting[rule] = queue[full:]
        for queue in waiting.values():
            batches = _split(queue, batch_size)
            size_bytes += self._write_batches(outbox, hour, now, batches)
        return new, known, size_bytes

    def _write_batches(
        self, outbox: Dispatches, hour: Hour, now: datetime, batches: list[list[_Row]]
    ) -> int:
        """Write a dispatch for each batch (of a single rule); returns the bodies' bytes."""
        state, reason = self._initial_state(hour)
        drafts = []
        for batch in batches:
            rule = batch[0].rule
            row_uids = [row.row_uid for row in batch]
            events = [row.event for row in batch]
            # The identity follows from the rows, so that a repeated transaction writes the same dispatch.
            draft = Draft(
                webhook_id=identify(self.name, rule, row_uids),
                hour=hour,
                rule=rule,
                body=self._body(hour, rule, events, now),
                content_type=CONTENT_TYPE,
                state=state,
                created_at=now,
                row_uids=row_uids,
                reason=reason,
            )
            drafts.append(draft)
        outbox.write(drafts)
        return sum(len(draft.body) for draft in drafts)

    def _body(self, hour: Hour, rule_name: str, events: list[str], now: datetime) -> bytes:
        """The body of a dispatch of events (JSON texts) that match a rule."""
        if self.config.receiver == "generic":
            return compose(self.config, self.name, events, now)
        rule = next(rule for rule in self.config.rules if rule.name == rule_name)
        content = forwarded(
            rule_name, self.name, hour, events, severity=rule.severity, labels=rule.labels
        )
        return compose_message(self.config.receiver, content, _timestamp(now))

    def _write_messages(
        self, connection: Connection, history: Journal, decision: Decision
    ) -> int:
        """Write a dispatch for each bundle of notices; returns the bodies' bytes."""
        now = self._clock()
        size_bytes = 0
        # PagerDuty keeps an incident for each alert, so each notice gets its own message.
        each = self.config.receiver == "pagerduty"
        for notices in bundle(self.config.rules, decision.notices, each=each):
            content = message(self.config.rules, notices, self.name)
            fingerprints = [notice.fingerprint for notice in notices]
            parts = [content.status, content.hour.key, *fingerprints]
            webhook_id = identify(self.name, content.rule, parts)
            state: State = "pending"
            reason = None
            if not notices[0].sent:
                state, reason = self._initial_state(content.hour)
            draft = Draft(
                webhook_id=webhook_id,
                hour=content.hour,
                rule=content.rule,
                body=compose_message(self.config.receiver, content, _timestamp(now)),
                content_type=CONTENT_TYPE,
                state=state,
                created_at=now,
                reason=reason,
                subject=content.key,
            )
            self._dispatches(connection).write([draft])
            history.record(notices, webhook_id)
            size_bytes += len(draft.body)
        return size_bytes

    def _dispatches(self, connection: Connection) -> Dispatches:
        return Dispatches(connection, self.name)

    def _journal(self, connection: Connection) -> Journal:
        return Journal(connection, self.name, self.config.rules)

    def _oldest(self, closed_until: Hour) -> datetime:
        """Begin of the history that is kept."""
        return closed_until.start - timedelta(days=self.config.history_days)

    def _forget(self, connection: Connection, history: Journal, closed_until: Hour) -> None:
        """Delete history older than ``history_days``, except pending dispatches and open alerts."""
        oldest = self._oldest(closed_until)
        history.forget(oldest)
        self._dispatches(connection).forget(oldest)

    def _is_muted(self, hour: Hour) -> bool:
        """Whether dispatches about an hour are only recorded."""
        state, _ = self._initial_state(hour)
        return state == "unsent"

    def _initial_state(self, hour: Hour) -> tuple[State, str | None]:
        """State of a new dispatch about an hour, and the reason if it is not to be sent."""
        # Without an address nothing is sent, now or later: an address that is set later sends new hours.
        if self._deps is None:
            return "unsent", None
        max_age_hours = self.config.max_age_hours
        if max_age_hours is None or self._send_old:
            return "pending", None
        # A backfill of old hours must not send a flood of old alerts.
        if self._clock() - hour.end <= timedelta(hours=max_age_hours):
            return "pending", None
        return (
            "unsent",
            f"not sent: the hour ended more than {max_age_hours:g} hours ago (max_age_hours)",
        )

    def _write_load(self, connection: Connection, offer: Offer) -> None:
        connection.execute(
            _UPSERT_LOAD,
            {
                "destination": self.name,
                "hour": offer.hour.start,
                "generation": offer.version.generation,
                "config_hash": offer.version.config_hash,
                "code_version": offer.version.code_version,
                "log_id": offer.version.log_id,
                "content_hash": offer.content_hash,
                "run_id": offer.run_id,
                "now": self._clock(),
            },
        )

    def _make_deps(self, allow_private: bool, breaker: Breaker) -> SenderDeps:
        sender = WebhookSender(
            self.config, allow_private=allow_private, clock=self._clock, sleep=self._sleep
        )
        return SenderDeps(sender, self._clock, self._sleep, self._jitter, breaker)

    def _warn_off(self) -> None:
        """Log once for each process that nothing is sent."""
        if self.name not in _said_off:
            _said_off.add(self.name)
            _log.warning("%s: %s; dispatches are recorded", self.name, OFF)

    # ── connecting ───────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def _session(self) -> Iterator[Connection]:
        """A connection to the outbox, after its tables were made or migrated."""
        with self._connected() as connection:
            with connection.transaction():
                migrate(connection, "ledger", LEDGER)
                migrate(connection, "alerts", ALERTS)
                self._take_over(connection)
            yield connection

    def _take_over(self, connection: Connection) -> None:
        """Move the breaker's row of an older release into its file, inside the caller's transaction."""
        if self.breaker is None or self.config.url is None:
            return
        row = connection.execute(
            "DELETE FROM obs.webhook_endpoints WHERE endpoint = %s "
            "RETURNING failures, not_before, disabled_at",
            [hash_of(self.config.url)],
        ).fetchone()
        if row:
            failures, not_before, disabled_at = row
            state = BreakerState(
                self.name,
                failures,
                disabled_at or self._clock(),
                not_before,
                "of an older release",
                is_gone=disabled_at is not None,
            )
            self.breaker.restore(state)

    def _connected(self) -> AbstractContextManager[Connection]:
        return utc_session(self._server, "obs_assets outbox")


def _chunks(matched: Frame) -> Iterator[list[_Row]]:
    """The rows in the frame's order, up to `CHUNK_ROWS` at a time."""
    batches = matched.project("rule, row_uid, event").to_arrow_reader(CHUNK_ROWS)
    # DuckDB runs no other query while a result is open, so the result is closed after an error too.
    with contextlib.closing(batches) as reader:
        for batch in reader:
            columns = [column.to_pylist() for column in batch.columns]
            yield [_Row(*values) for values in zip(*columns, strict=True)]


def _timestamp(moment: datetime) -> str:
    """For example ``2025-12-04T10:00:00.000Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _figures(decision: Decision) -> dict[str, int | float]:
    kinds = Counter(notice.kind for notice in decision.notices)
    return {
        "fired": kinds["firing"],
        "resolved": kinds["resolved"],
        "suppressed": decision.suppressed,
    }


def _table(states: States) -> dict[str, dict[str, int | float | str]]:
    """Metadata for the UI: the state of each alert after an hour. The names of groups come from redacted events."""
    ordered = sorted(states.values(), key=lambda s: (s.status, s.rule, str(s.group)))
    rows: dict[str, int | float | str] = {}
    for state in ordered[:TABLE_ROWS]:
        rows[_alert_label(state)] = _alert_text(state)
    if not rows:
        return {}
    return {"alerts after this hour": rows}


def _alert_label(state: AlertState) -> str:
    """Rule and group, for example ``errors · checkout · (none)``."""
    values = [_shown(value) for value in state.group]
    # A vertical bar would end the cell of the UI's Markdown table.
    return " · ".join([state.rule, *values]).replace("|", "¦")


def _shown(value: str | None) -> str:
    return "(none)" if value is None else value


def _alert_text(state: AlertState) -> str:
    """Status, first hour and value, for example ``firing since 2025-12-04-10:00, 12.5``."""
    value = "" if state.value is None else f", {state.value:g}"
    return f"{state.status} since {state.since.key}{value}"


def _split(rows: list[_Row], size: int) -> list[list[_Row]]:
    """Parts of ``size`` rows; the last part may be shorter."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
