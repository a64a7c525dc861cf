"""The dispatches of the outbox in PostgreSQL: their bodies, their states, and the rows in them.

A body never changes, so each attempt sends the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, LiteralString, TypeAlias

from psycopg.rows import class_row

from obs_assets.hours import Hour
from obs_assets.storage.postgres import Connection

State: TypeAlias = Literal["pending", "sent", "failed", "unsent"]
"""``pending``: to be sent. ``sent``: accepted by the receiver. ``failed``: refused, or given up.
``unsent``: recorded only, because the hour is old or the webhook has no address."""

TABLES = """
CREATE TABLE IF NOT EXISTS obs.webhook_dispatches (
    webhook_id TEXT PRIMARY KEY, position BIGINT GENERATED ALWAYS AS IDENTITY,
    destination TEXT NOT NULL, hour TIMESTAMPTZ NOT NULL, rule TEXT NOT NULL,
    body BYTEA NOT NULL, content_type TEXT NOT NULL, events INT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'sent', 'failed', 'unsent')),
    attempts INT NOT NULL DEFAULT 0, next_attempt_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL, sent_at TIMESTAMPTZ, last_error TEXT, subject TEXT);
CREATE INDEX IF NOT EXISTS webhook_dispatches_due
    ON obs.webhook_dispatches (destination, attempts, position)
    WHERE state = 'pending';
CREATE INDEX IF NOT EXISTS webhook_dispatches_subject
    ON obs.webhook_dispatches (destination, subject, position)
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
    (webhook_id, destination, hour, rule, body, content_type, events, state, next_attempt_at,
    created_at, last_error, subject)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (webhook_id) DO NOTHING
"""

_INSERT_ROWS = """
INSERT INTO obs.webhook_rows
SELECT %s, uid, hour, id
FROM unnest(%s::text[], %s::timestamptz[], %s::text[]) AS t (uid, hour, id)
"""

# The dispatch with the fewest attempts goes first, so that a dispatch that always fails delays no
# new dispatch. Dispatches of one subject keep their order: "resolved" must not overtake "firing".
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

_SET_STATE = """
UPDATE obs.webhook_dispatches
SET state = %s, attempts = attempts + %s, next_attempt_at = %s, sent_at = %s, last_error = %s
WHERE webhook_id = %s
"""

_POSTPONE_ALL = """
UPDATE obs.webhook_dispatches SET next_attempt_at = greatest(next_attempt_at, %s)
WHERE webhook_id IN (SELECT webhook_id FROM obs.webhook_dispatches
    WHERE destination = %s AND state = 'pending' FOR UPDATE SKIP LOCKED)
"""

_REVIVE = """
UPDATE obs.webhook_dispatches
SET state = 'pending', attempts = 0, next_attempt_at = %s, last_error = NULL
WHERE webhook_id = %s AND destination = %s AND state <> 'sent'
"""

_LIST = """
SELECT webhook_id, destination, hour, rule, events, state, attempts, next_attempt_at, created_at,
    sent_at, last_error, body
FROM obs.webhook_dispatches WHERE destination = %s AND (%s::text IS NULL OR state = %s)
    AND (%s::text IS NULL OR webhook_id = %s) ORDER BY position DESC LIMIT %s
"""

_COUNT_STATES = """
SELECT state, count(*) FROM obs.webhook_dispatches WHERE destination = %s GROUP BY state
"""

_COUNT_STUCK = """
SELECT count(*) FROM obs.webhook_dispatches
WHERE destination = %s AND (state = 'failed' OR (state = 'pending' AND created_at < %s))
"""

_FORGET = """
DELETE FROM obs.webhook_dispatches WHERE destination = %s AND hour < %s AND state <> 'pending'
"""


@dataclass(frozen=True)
class Dispatch:
    """A request to the receiver; a row of ``obs.webhook_dispatches``.

    Attributes:
        webhook_id: identity of the dispatch, sent in each attempt; for example ``msg_0a4f…``.
        destination: name of the webhook destination.
        hour: start of the hour that the dispatch is about, UTC.
        rule: name of the alert rule.
        events: number of events in the body; 0 for a message about alerts.
        state: state of the dispatch, see `State`.
        attempts: number of requests that were made.
        next_attempt_at: time from which the dispatch is due, UTC.
        created_at: time at which the dispatch was written, UTC.
        sent_at: time at which the receiver accepted it, UTC.
        last_error: message of the last failure, or the reason for ``unsent``. It holds neither event
            text nor the address.
        body: the bytes of the request. Events in it are redacted.
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
    """A dispatch before it is written.

    Attributes:
        webhook_id: identity of the dispatch.
        hour: the hour that the dispatch is about.
        rule: name of the alert rule.
        body: the bytes of the request.
        content_type: value of the header ``Content-Type``.
        state: ``pending``, or ``unsent`` for a dispatch that is only recorded.
        created_at: time of the draft, UTC; the dispatch is due from then on.
        row_uids: identities of the rows in the body; none in a message about alerts.
        reason: the reason for ``unsent``.
        subject: identity of an alert; dispatches of the same subject are sent in order.
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
    """A dispatch that only the present transaction may send.

    Attributes:
        webhook_id: identity of the dispatch.
        body: the bytes of the request.
        content_type: value of the header ``Content-Type``.
        events: number of events in the body.
        attempts: number of requests that were made before.
        created_at: time at which the dispatch was written, UTC.
    """

    webhook_id: str
    body: bytes
    content_type: str
    events: int
    attempts: int
    created_at: datetime


@dataclass(frozen=True)
class Dispatches:
    """The dispatches of a destination.

    Attributes:
        connection: connection in autocommit mode, or in an open transaction.
        destination: name of the destination.
    """

    connection: Connection
    destination: str

    def unseen(self, row_uids: Sequence[str]) -> set[str]:
        """The given rows that are in no dispatch yet."""
        found = self.connection.execute(
            "SELECT row_uid FROM obs.webhook_rows WHERE destination = %s AND row_uid = ANY(%s)",
            [self.destination, list(row_uids)],
        )
        return set(row_uids) - {uid for (uid,) in found}

    def write(self, drafts: Sequence[Draft]) -> None:
        """Write dispatches, and record the rows that are in them."""
        if not drafts:
            return
        rows = [self._row(draft) for draft in drafts]
        self.connection.cursor().executemany(_INSERT, rows)
        # Three arrays for a single statement: an hour can have a hundred thousand rows.
        uids: list[str] = []
        hours: list[datetime] = []
        webhook_ids: list[str] = []
        for draft in drafts:
            uids += draft.row_uids
            hours += [draft.hour.start] * len(draft.row_uids)
            webhook_ids += [draft.webhook_id] * len(draft.row_uids)
        self.connection.execute(_INSERT_ROWS, [self.destination, uids, hours, webhook_ids])

    def _row(self, draft: Draft) -> tuple[Any, ...]:
        """The values of `_INSERT`, in its order."""
        return (
            draft.webhook_id,
            self.destination,
            draft.hour.start,
            draft.rule,
            draft.body,
            draft.content_type,
            len(draft.row_uids),
            draft.state,
            draft.created_at,  # due from now on
            draft.created_at,
            draft.reason,
            draft.subject,
        )

    def rows_of(self, hour: Hour) -> list[str]:
        """The ``row_uid`` of each row of an hour that was put into a dispatch."""
        found = self.connection.execute(
            "SELECT row_uid FROM obs.webhook_rows WHERE destination = %s AND hour = %s",
            [self.destination, hour.start],
        )
        return [uid for (uid,) in found]

    def claim(self, now: datetime) -> Claimed | None:
        """The next due dispatch that no other transaction has claimed.

        It is locked until the present transaction ends.
        """
        row = self.connection.execute(_CLAIM, [self.destination, now]).fetchone()
        if row is None:
            return None
        return Claimed(*row)

    def is_due(self, now: datetime) -> bool:
        """Whether a dispatch is due. Nothing is locked, so another transaction may have claimed it."""
        # The condition of `claim`, so that a run is requested exactly when it would send.
        query = f"SELECT EXISTS (SELECT {_DUE})"
        row = self.connection.execute(query, [self.destination, now]).fetchone()
        return bool(row and row[0])

    def set_state(
        self,
        webhook_id: str,
        state: State,
        *,
        requests: int,
        due: datetime,
        sent_at: datetime | None,
        error: str | None,
    ) -> None:
        """Record the result of attempts at a dispatch.

        Args:
            webhook_id: identity of the dispatch.
            state: its new state.
            requests: number of requests that were made.
            due: time from which the dispatch is due again, UTC.
            sent_at: time at which the receiver accepted it, UTC.
            error: message of the last failure.
        """
        self.connection.execute(_SET_STATE, [state, requests, due, sent_at, error, webhook_id])

    def postpone_all(self, until: datetime) -> None:
        """Send no pending dispatch of the destination before a time, UTC."""
        self.connection.execute(_POSTPONE_ALL, [until, self.destination])

    def revive(self, webhook_id: str, now: datetime) -> bool:
        """Make a failed, pending or unsent dispatch due; False if there is no such dispatch."""
        found = self.connection.execute(_REVIVE, [now, webhook_id, self.destination])
        return found.rowcount > 0

    def newest(
        self, state: State | None = None, limit: int = 100, webhook_id: str | None = None
    ) -> list[Dispatch]:
        """Dispatches, the newest first.

        Args:
            state: only dispatches in this state.
            limit: largest number of dispatches.
            webhook_id: only the dispatch with this identity.
        """
        cursor = self.connection.cursor(row_factory=class_row(Dispatch))
        parameters = [self.destination, state, state, webhook_id, webhook_id, limit]
        return cursor.execute(_LIST, parameters).fetchall()

    def states(self) -> dict[Any, int]:
        """State → number of dispatches; a state without dispatches is missing."""
        found = self.connection.execute(_COUNT_STATES, [self.destination])
        return {state: int(count) for state, count in found}

    def stuck(self, since: datetime) -> int:
        """Number of dispatches that failed, or have been pending since before a time, UTC."""
        found = self.connection.execute(_COUNT_STUCK, [self.destination, since])
        return sum(int(count) for (count,) in found)

    def forget(self, before: datetime) -> None:
        """Delete the dispatches whose hour is before the given time, but keep pending dispatches.

        The rows of deleted dispatches stay in ``obs.webhook_rows``, so that no row is sent a second time.
        """
        self.connection.execute(_FORGET, [self.destination, before])
