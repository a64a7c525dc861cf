"""Dispatches as they are kept in PostgreSQL: bodies that never change, their states, and the rows that are in one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, LiteralString, TypeAlias

from psycopg.rows import class_row

from obs_assets.hours import Hour
from obs_assets.storage.postgres import Connection

State: TypeAlias = Literal["pending", "sent", "failed", "unsent"]

TABLES = """
CREATE TABLE IF NOT EXISTS obs.webhook_dispatches (
    webhook_id TEXT PRIMARY KEY, position BIGINT GENERATED ALWAYS AS IDENTITY,
    destination TEXT NOT NULL, hour TIMESTAMPTZ NOT NULL, rule TEXT NOT NULL,
    body BYTEA NOT NULL, content_type TEXT NOT NULL, events INT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'sent', 'failed', 'unsent')),
    attempts INT NOT NULL DEFAULT 0, next_attempt_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL, sent_at TIMESTAMPTZ, last_error TEXT, subject TEXT);
CREATE INDEX IF NOT EXISTS webhook_dispatches_due ON obs.webhook_dispatches (destination, attempts, position)
    WHERE state = 'pending';
CREATE INDEX IF NOT EXISTS webhook_dispatches_subject ON obs.webhook_dispatches (destination, subject, position)
    WHERE state = 'pending' AND subject IS NOT NULL;
CREATE TABLE IF NOT EXISTS obs.webhook_rows (
    destination TEXT, row_uid TEXT, hour TIMESTAMPTZ NOT NULL, webhook_id TEXT NOT NULL,
    PRIMARY KEY (destination, row_uid));
CREATE INDEX IF NOT EXISTS webhook_rows_hour ON obs.webhook_rows (destination, hour);
"""

BY_HOUR = """
CREATE INDEX webhook_dispatches_hour ON obs.webhook_dispatches (destination, hour);
"""

_INSERT = """
INSERT INTO obs.webhook_dispatches
    (webhook_id, destination, hour, rule, body, content_type, events, state, next_attempt_at, created_at, last_error,
    subject)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (webhook_id) DO NOTHING
"""

# Least tried first: a dispatch that its receiver cannot digest never holds up a new one. But of one subject they go in
# order: that an alert has resolved must not be overtaken by the news that it fires.
_DUE: LiteralString = """
FROM obs.webhook_dispatches AS this
WHERE destination = %s AND state = 'pending' AND next_attempt_at <= %s
    AND (subject IS NULL OR NOT EXISTS (SELECT FROM obs.webhook_dispatches AS earlier
        WHERE earlier.destination = this.destination AND earlier.subject = this.subject
            AND earlier.state = 'pending' AND earlier.position < this.position))
"""
_CLAIM = f"""
SELECT webhook_id, body, content_type, events, attempts, created_at {_DUE}
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

_LIST = """
SELECT webhook_id, destination, hour, rule, events, state, attempts, next_attempt_at, created_at, sent_at, last_error,
    body
FROM obs.webhook_dispatches WHERE destination = %s AND (%s::text IS NULL OR state = %s)
    AND (%s::text IS NULL OR webhook_id = %s) ORDER BY position DESC LIMIT %s
"""


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
class Draft:
    """A dispatch before it is written down.

    Attributes:
        row_uids: the rows that are in it; none in a message about alerts.
        reason: why it is not to be sent, if it is not.
        subject: dispatches of one subject are sent in order.
    """

    webhook_id: str
    hour: Hour
    rule: str
    body: bytes
    content_type: str
    state: State
    created_at: datetime
    row_uids: Sequence[str] = ()
    reason: str | None = None
    subject: str | None = None


@dataclass(frozen=True)
class Claimed:
    """A dispatch that this transaction alone may send."""

    webhook_id: str
    body: bytes
    content_type: str
    events: int
    attempts: int
    created_at: datetime


@dataclass(frozen=True)
class Dispatches:
    """The dispatches of one destination.

    Attributes:
        connection: each statement its own transaction, unless one is open.
        destination: whose.
    """

    connection: Connection
    destination: str

    def unseen(self, row_uids: Sequence[str]) -> set[str]:
        """Those rows that are in no dispatch yet."""
        found = self.connection.execute(
            "SELECT row_uid FROM obs.webhook_rows WHERE destination = %s AND row_uid = ANY(%s)",
            [self.destination, list(row_uids)],
        )
        return set(row_uids) - {uid for (uid,) in found}

    def write(self, drafts: Sequence[Draft]) -> None:
        """Write dispatches down, and the rows that are in them."""
        if not drafts:
            return
        self.connection.cursor().executemany(
            _INSERT,
            [
                (
                    *(
                        d.webhook_id,
                        self.destination,
                        d.hour.start,
                        d.rule,
                        d.body,
                        d.content_type,
                        len(d.row_uids),
                    ),
                    *(d.state, d.created_at, d.created_at, d.reason, d.subject),
                )
                for d in drafts
            ],
        )
        rows = [(uid, d.hour.start, d.webhook_id) for d in drafts for uid in d.row_uids]
        uids, hours, owners = map(list, zip(*rows, strict=True)) if rows else ([], [], [])
        self.connection.execute(
            "INSERT INTO obs.webhook_rows "
            "SELECT %s, uid, hour, id FROM unnest(%s::text[], %s::timestamptz[], %s::text[]) AS t (uid, hour, id)",
            [self.destination, uids, hours, owners],
        )

    def rows_of(self, hour: Hour) -> list[str]:
        """The rows of an hour that are in a dispatch."""
        found = self.connection.execute(
            "SELECT row_uid FROM obs.webhook_rows WHERE destination = %s AND hour = %s",
            [self.destination, hour.start],
        )
        return [uid for (uid,) in found]

    def claim(self, now: datetime) -> Claimed | None:
        """The next dispatch that is due and nobody else has claimed, locked until the transaction ends."""
        row = self.connection.execute(_CLAIM, [self.destination, now]).fetchone()
        return Claimed(*row) if row else None

    def is_due(self, now: datetime) -> bool:
        """Whether `claim` would find one, unless others hold it; nothing is locked."""
        row = self.connection.execute(
            f"SELECT EXISTS (SELECT {_DUE})", [self.destination, now]
        ).fetchone()
        return bool(row and row[0])

    def mark(
        self,
        webhook_id: str,
        state: State,
        *,
        requests: int,
        due: datetime,
        sent_at: datetime | None,
        error: str | None,
    ) -> None:
        """Write down what became of a dispatch, and how many requests that took."""
        self.connection.execute(_MARK, [state, requests, due, sent_at, error, webhook_id])

    def postpone_all(self, until: datetime) -> None:
        """Send nothing before then."""
        self.connection.execute(_POSTPONE_ALL, [until, self.destination])

    def revive(self, webhook_id: str, now: datetime) -> bool:
        """Make a dispatch due that failed, waits or was never to be sent; False if there is none to be sent."""
        found = self.connection.execute(
            "UPDATE obs.webhook_dispatches "
            "SET state = 'pending', attempts = 0, next_attempt_at = %s, last_error = NULL "
            "WHERE webhook_id = %s AND destination = %s AND state <> 'sent'",
            [now, webhook_id, self.destination],
        )
        return found.rowcount > 0

    def newest(
        self, state: State | None = None, limit: int = 100, webhook_id: str | None = None
    ) -> list[Dispatch]:
        """Dispatches, the newest first: all of them, those in a state, or the one of an id."""
        cursor = self.connection.cursor(row_factory=class_row(Dispatch))
        return cursor.execute(
            _LIST, [self.destination, state, state, webhook_id, webhook_id, limit]
        ).fetchall()

    def states(self) -> dict[Any, int]:
        """How many there are in each state."""
        query = "SELECT state, count(*) FROM obs.webhook_dispatches WHERE destination = %s GROUP BY state"
        return {
            state: int(n) for state, n in self.connection.execute(query, [self.destination])
        }

    def stuck(self, since: datetime) -> int:
        """How many were given up, or have waited since then."""
        query = (
            "SELECT count(*) FROM obs.webhook_dispatches WHERE destination = %s "
            "AND (state = 'failed' OR (state = 'pending' AND created_at < %s))"
        )
        return sum(int(n) for (n,) in self.connection.execute(query, [self.destination, since]))

    def forget(self, before: datetime) -> None:
        """Drop dispatches about earlier hours that nobody waits for; that their rows were in one is remembered."""
        self.connection.execute(
            "DELETE FROM obs.webhook_dispatches WHERE destination = %s AND hour < %s AND state <> 'pending'",
            [self.destination, before],
        )
