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

==============  ========================================================
`journal`       measurements, states and notices of alerts
`dispatches`    what is to be sent, and what became of it
`drain`         sends what is due
`breaker`       leaves alone who does not answer
==============  ========================================================
"""

import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, get_args

import duckdb
import pyarrow as pa
from psycopg import errors
from psycopg.rows import dict_row

from obs_assets.alerts import with_rule
from obs_assets.alerts.evaluate import evaluate
from obs_assets.alerts.life import States
from obs_assets.alerts.notices import Decision, bundle, message
from obs_assets.alerts.receivers import compose as compose_message
from obs_assets.alerts.receivers import forwarded
from obs_assets.crash import crash_point
from obs_assets.delivery import breaker, dispatches, journal
from obs_assets.delivery.breaker import Breaker
from obs_assets.delivery.dispatches import Dispatch, Dispatches, Draft, State
from obs_assets.delivery.drain import Drain, Means, stats
from obs_assets.delivery.journal import Journal, Told
from obs_assets.destinations.base import Delivery, Holding, Offer
from obs_assets.destinations.webhook import (
    CONTENT_TYPE,
    WebhookConfig,
    WebhookSender,
    compose,
    identify,
)
from obs_assets.errors import ConfigurationError, HourBusyError, ObsError, StaleHourError
from obs_assets.events import Frame
from obs_assets.hours import Hour
from obs_assets.receipts import InputVersion
from obs_assets.settings import PostgresSettings, WebhookSettings
from obs_assets.storage.postgres import LEDGER, Connection, Migration, lock, migrate, session

OFF = "webhook sending is off: WEBHOOK_URL is not set"
NO_RULE = "no alert rule"
MEASURED = "measured, not forwarded"

BUSY_AFTER_S = 30
"""How long to wait for another run that writes to the same destination's outbox."""

CHUNK_ROWS = 2_000
"""Matching rows held at a time."""

ALERTS = (
    Migration(
        "Make the outbox: dispatches, the rows in them, endpoints; measurements, states and notices of alerts.",
        dispatches.TABLES + breaker.TABLES + journal.TABLES,
    ),
    Migration(
        "Note by which rules an hour was folded, so that a change is folded forward only as far as it reaches.",
        journal.FOLDED_BY + dispatches.BY_HOUR,
    ),
)
"""The tables of all webhook destinations; subject ``alerts``."""

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

_COUNTED: LiteralString = """
(SELECT count(*) FROM obs.webhook_rows AS held WHERE (held.destination, held.hour) = (load.destination, load.hour))
"""

_log = logging.getLogger(__name__)
_said_off: set[str] = set()


@dataclass(frozen=True)
class _Row:
    rule: str
    row_uid: str
    event: str


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
        self._means = self._make_means(environment.allow_private) if self.config.url else None

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
        ((unmatched,),) = labelled.aggregate("count(*) FILTER (rule IS NULL)").fetchall()
        evaluation = evaluate(offer.frame, self.config.rules)
        closed_until = offer.closed_until or Hour.of(self._clock())
        with self._session() as connection:
            with connection.transaction():
                self._lock(connection)
                self._refuse_stale(connection, offer)
                new, known, size = self._write_dispatches(
                    connection, offer.hour, labelled.filter("rule IS NOT NULL")
                )
                kept = self._journal(connection)
                told = Told()
                if offer.hour.start >= self._oldest(closed_until):
                    told = kept.take(
                        offer.hour,
                        evaluation,
                        self._clock(),
                        closed_until=closed_until,
                        is_muted=self._is_muted,
                    )
                size += self._write_messages(connection, kept, told.decision)
                self._write_load(connection, offer)
                if offer.hour.start.hour == 0:  # once a day is enough
                    self._forget(connection, kept, closed_until)
                crash_point("webhook.before_outbox")
            crash_point("webhook.after_outbox")
        done = {**_figures(told.decision), **self.drain(self._clock())}
        left_out = sum(measured.left_out for measured in evaluation.values())
        return Delivery(
            written=new,
            already_there=known,
            refused={(MEASURED if evaluation else NO_RULE): unmatched} if unmatched else {},
            size_bytes=size,
            stats=done | ({"groups left out": left_out} if left_out else {}),
            tables=_table(told.states),
        )

    def dispatch(
        self, closed_until: Hour, is_empty: Callable[[Hour], bool]
    ) -> Mapping[str, int | float]:
        """Judge hours that have closed since they were built, or in which nothing happened; send what is due; forget.

        Args:
            closed_until: hours before it are closed.
            is_empty: whether nothing has landed for an hour.
        """
        with self._session() as connection, connection.transaction():
            self._lock(connection)
            kept = self._journal(connection)
            decision = Decision()
            if any(rule.measures for rule in self.config.rules):
                decision = kept.advance(
                    self._clock(),
                    closed_until=closed_until,
                    is_empty=is_empty,
                    is_muted=self._is_muted,
                )
            self._write_messages(connection, kept, decision)
            self._forget(connection, kept, closed_until)
        return {**_figures(decision), **self.drain(self._clock())}

    def due(self, closed_until: Hour, is_empty: Callable[[Hour], bool]) -> str:
        """Why `dispatch` is needed now, in a few words, empty if it is not; a look, nothing is changed.

        Args:
            closed_until: hours before it are closed.
            is_empty: whether nothing has landed for an hour.
        """
        with self._connected() as connection:
            try:
                if any(rule.measures for rule in self.config.rules):
                    empty, closed = self._journal(connection).unjudged(closed_until, is_empty)
                    if empty or closed:
                        return (
                            f"{self.name}: {len(empty) + len(closed):,} hours are to be judged"
                        )
                if self._can_send(connection) and self._dispatches(connection).is_due(
                    self._clock()
                ):
                    return f"{self.name}: a dispatch is due"
            except errors.UndefinedTable:
                return ""
        return ""

    def _can_send(self, connection: Connection) -> bool:
        """Whether there is an address, and its receiver is not being left alone."""
        url = self.config.url if self._means else None
        return url is not None and Breaker.of(connection, url).lets_through(self._clock())

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that fire, or are about to, after the latest hour: rows of the view ``obs.alerts``."""
        with self._session() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            return cursor.execute(
                "SELECT * FROM obs.alerts WHERE destination = %s ORDER BY rule, since, fingerprint",
                [self.name],
            ).fetchall()

    def stuck(self, older_than: timedelta) -> int:
        """Dispatches that have been waiting for longer, and those that were given up."""
        with self._session() as connection:
            return self._dispatches(connection).stuck(self._clock() - older_than)

    def drain(self, now: datetime) -> Mapping[str, int | float]:
        """Send every dispatch of this destination that is due, up to the first that the receiver could not take.

        Several drains may run at once: each takes what no other has claimed.

        Args:
            now: dispatches to be tried until then are due.

        Returns:
            the counts of this drain, and how many dispatches are now ``pending``, ``failed``, ``unsent``.
        """
        counts: Counter[str] = Counter()
        with self._session() as connection:
            if self._means is None:
                self._say_off()
            else:
                Drain(connection, self.name, self.config, self._means, counts).run(now)
            states = self._dispatches(connection).states()
        return stats(counts) | {
            state: states.get(state, 0) for state in ("pending", "failed", "unsent")
        }

    def states(self) -> dict[State, int]:
        """How many dispatches are in each state."""
        with self._session() as connection:
            found = self._dispatches(connection).states()
        return {state: found.get(state, 0) for state in get_args(State)}

    def dispatches(
        self, state: State | None = None, limit: int = 100, webhook_id: str | None = None
    ) -> list[Dispatch]:
        """What is in the outbox, newest first; all of it, those in a state, or the one of an id."""
        with self._session() as connection:
            return self._dispatches(connection).newest(state, limit, webhook_id)

    def retry(self, webhook_id: str) -> bool:
        """Make a dispatch that failed, waits or was never to be sent due now, with the same id and bytes.

        The next `drain` sends it. False when this destination has none of that id, or has sent it.
        """
        with self._session() as connection:
            found = self._dispatches(connection).revive(webhook_id, self._clock())
            if found and self.config.url:
                Breaker.of(connection, self.config.url).reset()
            return found

    def holding(self, hour: Hour, *, count: bool = False) -> Holding | None:
        """The ledger's row of an hour: its version and content, and the rows of it that are in a dispatch."""
        return self._ledger(_COUNTED if count else "NULL", "AND hour = %s", hour.start).get(
            hour
        )

    def holdings(self) -> dict[Hour, Holding]:
        """The ledger's rows of all hours."""
        return self._ledger("NULL", "")

    def _ledger(
        self, counted: LiteralString, condition: LiteralString, *values: Any
    ) -> dict[Hour, Holding]:
        with self._connected() as connection:
            try:
                rows = connection.execute(
                    "SELECT hour, generation, config_hash, code_version, rows, content_hash, "
                    + counted
                    + " FROM obs.hour_loads AS load WHERE destination = %s "
                    + condition,
                    [self.name, *values],
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
            rows = self._dispatches(server).rows_of(hour)
        return connection.from_arrow(
            pa.table({"row_uid": pa.array(rows, pa.string())})
        ).project("row_uid, '' AS event")

    def check(self) -> str:
        """One line that says what was reached: the outbox, and the receiver's host without a request."""
        try:
            with self._session():
                pass
        except ObsError as error:
            raise ConfigurationError(str(error)) from None
        if self._means is None:
            return OFF
        try:
            return f"webhook {self._means.sender.reach()} can be reached"
        except ObsError as error:
            raise ConfigurationError(f"{self.name}, url (WEBHOOK_URL): {error}") from None

    # ── writing down, inside the transaction of `deliver` ────────────────────────────────────────────────────────────

    def _lock(self, connection: Connection) -> None:
        """Keep other writers of this outbox out until the end of the transaction."""
        connection.execute(f"SET LOCAL lock_timeout = '{BUSY_AFTER_S}s'")
        try:
            lock(connection, f"outbox {self.name}")
        except errors.LockNotAvailable:
            raise HourBusyError(
                f"another run is writing to the outbox of {self.name}: let it finish, then try again"
            ) from None

    def _refuse_stale(self, connection: Connection, offer: Offer) -> None:
        row = connection.execute(
            "SELECT generation FROM obs.hour_loads WHERE destination = %s AND hour = %s",
            [self.name, offer.hour.start],
        ).fetchone()
        if row and row[0] > offer.version.generation:
            raise StaleHourError(
                f"{self.name} has seen generation {row[0]} of {offer.hour}, newer than the offered "
                f"{offer.version.generation}: materialize the stages before it again"
            )

    def _write_dispatches(
        self, connection: Connection, hour: Hour, matched: Frame
    ) -> tuple[int, int, int]:
        """Batch the rows that are in no dispatch yet; returns new rows, known rows and bytes of bodies."""
        batch_size = 1 if self.config.payload_format == "individual" else self.config.batch_size
        waiting: dict[str, list[_Row]] = {rule.name: [] for rule in self.config.rules}
        new = known = size = 0
        now = self._clock()
        kept = self._dispatches(connection)
        for rows in _chunks(matched):
            unseen = kept.unseen([row.row_uid for row in rows])
            new, known = new + len(unseen), known + len(rows) - len(unseen)
            for row in rows:
                if row.row_uid in unseen:
                    waiting[row.rule].append(row)
            for rule, queue in waiting.items():
                full = len(queue) - len(queue) % batch_size
                size += self._write_batches(kept, hour, now, _split(queue[:full], batch_size))
                waiting[rule] = queue[full:]
        for queue in waiting.values():
            size += self._write_batches(kept, hour, now, _split(queue, batch_size))
        return new, known, size

    def _write_batches(
        self, kept: Dispatches, hour: Hour, now: datetime, batches: list[list[_Row]]
    ) -> int:
        """Write dispatches and the ledger of their rows; returns the bytes of the bodies."""
        state, reason = self._fate(hour)
        drafts = []
        for batch in batches:
            rule, row_uids = batch[0].rule, [row.row_uid for row in batch]
            webhook_id = identify(self.name, rule, row_uids)
            body = self._body(hour, rule, [row.event for row in batch], now)
            drafts.append(
                Draft(webhook_id, hour, rule, body, CONTENT_TYPE, state, now, row_uids, reason)
            )
        kept.write(drafts)
        return sum(len(draft.body) for draft in drafts)

    def _body(self, hour: Hour, rule: str, events: list[str], now: datetime) -> bytes:
        if self.config.receiver == "generic":
            return compose(self.config, self.name, events, now)
        (severity, labels) = next(
            (r.severity, r.labels) for r in self.config.rules if r.name == rule
        )
        told = forwarded(rule, self.name, hour, events, severity=severity, labels=labels)
        return compose_message(self.config.receiver, told, _timestamp(now))

    def _write_messages(self, connection: Connection, kept: Journal, decision: Decision) -> int:
        """Write dispatches of what is to be told, each with its notices; returns the bytes of the bodies."""
        now, size = self._clock(), 0
        for notices in bundle(
            self.config.rules, decision.notices, each=self.config.receiver == "pagerduty"
        ):
            told = message(self.config.rules, notices, self.name)
            parts = [told.status, told.hour.key, *(notice.fingerprint for notice in notices)]
            webhook_id = identify(self.name, told.rule, parts)
            body = compose_message(self.config.receiver, told, _timestamp(now))
            state, reason = ("pending", None) if notices[0].sent else self._fate(told.hour)
            draft = Draft(
                *(webhook_id, told.hour, told.rule, body, CONTENT_TYPE, state, now),
                reason=reason,
                subject=told.key,
            )
            self._dispatches(connection).write([draft])
            kept.record(notices, webhook_id)
            size += len(body)
        return size

    def _dispatches(self, connection: Connection) -> Dispatches:
        return Dispatches(connection, self.name)

    def _journal(self, connection: Connection) -> Journal:
        return Journal(connection, self.name, self.config.rules)

    def _oldest(self, closed_until: Hour) -> datetime:
        return closed_until.start - timedelta(days=self.config.history_days)

    def _forget(self, connection: Connection, kept: Journal, closed_until: Hour) -> None:
        """Drop what ``history_days`` no longer keeps."""
        kept.forget(self._oldest(closed_until))
        self._dispatches(connection).forget(self._oldest(closed_until))

    def _is_muted(self, hour: Hour) -> bool:
        return self._fate(hour)[0] == "unsent"

    def _fate(self, hour: Hour) -> tuple[State, str | None]:
        """Whether what is about an hour is to be sent, and if not, why."""
        oldest = self.config.max_age_hours
        if self._means is None:
            return "unsent", None
        if (
            oldest is not None
            and not self._send_old
            and self._clock() - hour.end > timedelta(hours=oldest)
        ):
            return (
                "unsent",
                f"not sent: the hour ended more than {oldest:g} hours ago (max_age_hours)",
            )
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

    def _make_means(self, allow_private: bool) -> Means:
        sender = WebhookSender(
            self.config, allow_private=allow_private, clock=self._clock, sleep=self._sleep
        )
        return Means(sender, self._clock, self._sleep, self._jitter)

    def _say_off(self) -> None:
        if self.name not in _said_off:
            _said_off.add(self.name)
            _log.warning("%s: %s; what would be sent is recorded", self.name, OFF)

    # ── connecting ───────────────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def _session(self) -> Iterator[Connection]:
        """A connection to the outbox, whose tables are there."""
        with self._connected() as connection:
            with connection.transaction():
                migrate(connection, "ledger", LEDGER)
                migrate(connection, "alerts", ALERTS)
            yield connection

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        """A connection, each statement its own transaction unless said otherwise; its errors are ours."""
        with session(
            self._server, application_name="obs_assets outbox", autocommit=True
        ) as connection:
            connection.execute("SET TIME ZONE 'UTC'")
            yield connection


def _chunks(matched: Frame) -> Iterator[list[_Row]]:
    """Rows in the frame's order. DuckDB lets nothing else run while a result is open: it is closed whatever happens."""
    with contextlib.closing(
        matched.project("rule, row_uid, event").to_arrow_reader(CHUNK_ROWS)
    ) as reader:
        for batch in reader:
            yield [
                _Row(*row)
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)
            ]


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _figures(decision: Decision) -> dict[str, int | float]:
    kinds = Counter(notice.kind for notice in decision.notices)
    return {
        "fired": kinds["firing"],
        "resolved": kinds["resolved"],
        "suppressed": decision.suppressed,
    }


def _table(states: States) -> dict[str, dict[str, int | float | str]]:
    """The alerts after an hour, for the UI. Values of groups are redacted, as the frame is."""
    shown = sorted(states.values(), key=lambda s: (s.status, s.rule, str(s.group)))[:50]
    rows: dict[str, int | float | str] = {
        " · ".join(
            [s.rule, *("(none)" if value is None else value for value in s.group)]
        ).replace("|", "¦"): (
            f"{s.status} since {s.since.key}" + ("" if s.value is None else f", {s.value:g}")
        )
        for s in shown
    }
    return {"alerts after this hour": rows} if rows else {}


def _split(rows: list[_Row], size: int) -> list[list[_Row]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
