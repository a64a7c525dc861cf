"""The history of alerts in PostgreSQL: measurements of each hour, states after it, and notices.

::

    take, advance ─▶ obs.alert_evaluations   measurements of an hour
                  ─▶ obs.alert_states        states after an hour, folded again from a change on
    record ───────▶ obs.alert_notices        the messages that were decided

All functions run in the transaction, and under the lock, of the outbox that the history belongs to:
states, notices and dispatches are committed together.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, LiteralString

from obs_assets.alerts.evaluate import Evaluation, Measured, from_json, to_json
from obs_assets.alerts.life import AlertState, History, States, refold
from obs_assets.alerts.notices import Decision, Notice, decide
from obs_assets.alerts.rules import AlertRule
from obs_assets.hours import Hour, hours_between
from obs_assets.storage.postgres import Connection

GAP_HOURS = 168
"""Age in hours up to which hours without any event are found and judged: a week."""

BLOCK_HOURS = 48
"""Hours whose measurements are in memory at a time while a change is folded forward."""

TABLES = """
CREATE TABLE IF NOT EXISTS obs.alert_evaluations (
    destination TEXT, hour TIMESTAMPTZ, evaluation JSON NOT NULL, closed BOOLEAN NOT NULL,
    evaluated_at TIMESTAMPTZ NOT NULL, PRIMARY KEY (destination, hour));
CREATE TABLE IF NOT EXISTS obs.alert_states (
    destination TEXT, hour TIMESTAMPTZ, fingerprint TEXT,
    rule TEXT NOT NULL, definition TEXT NOT NULL,
    "group" JSON NOT NULL, status TEXT NOT NULL, since TIMESTAMPTZ NOT NULL,
    held_hours INT NOT NULL, calm_hours INT NOT NULL, value DOUBLE PRECISION, minute INT,
    PRIMARY KEY (destination, hour, fingerprint));
CREATE TABLE IF NOT EXISTS obs.alert_notices (
    destination TEXT, fingerprint TEXT, kind TEXT, hour TIMESTAMPTZ,
    rule TEXT NOT NULL, "group" JSON NOT NULL,
    since TIMESTAMPTZ NOT NULL, sent BOOLEAN NOT NULL, value DOUBLE PRECISION, minute INT,
    webhook_id TEXT NOT NULL, open BOOLEAN NOT NULL,
    PRIMARY KEY (destination, fingerprint, kind, hour));
CREATE INDEX IF NOT EXISTS alert_notices_hour ON obs.alert_notices (destination, hour);
CREATE INDEX IF NOT EXISTS alert_notices_open ON obs.alert_notices (destination) WHERE open;
CREATE OR REPLACE VIEW obs.alerts AS
    SELECT s.* FROM obs.alert_states s
    JOIN (SELECT destination, max(hour) AS hour FROM obs.alert_evaluations GROUP BY destination)
        AS head
    USING (destination, hour);
COMMENT ON VIEW obs.alerts IS
    'alerts that fire or are about to, after the latest hour of each destination';
"""

FOLDED_BY = """
ALTER TABLE obs.alert_evaluations ADD COLUMN rules TEXT NOT NULL DEFAULT '';
"""

_NOTICES = """
SELECT fingerprint, rule, "group", kind, hour, since, sent, value, minute
FROM obs.alert_notices WHERE destination = %s AND (open OR hour >= %s)
"""

_INSERT_NOTICE = """
INSERT INTO obs.alert_notices VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""

# A "resolved" notice that was only recorded closes only "firing" notices that were only recorded.
_CLOSE_NOTICES = """
UPDATE obs.alert_notices SET open = false
WHERE destination = %s AND fingerprint = %s AND open AND (%s OR NOT sent)
"""

_STATES = """
SELECT hour, fingerprint, rule, definition, "group", status, since, held_hours, calm_hours, value,
    minute
FROM obs.alert_states WHERE destination = %s AND hour = ANY(%s)
"""

_UPSERT_EVALUATION = """
INSERT INTO obs.alert_evaluations (destination, hour, evaluation, closed, evaluated_at)
VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (destination, hour) DO UPDATE SET (evaluation, closed, evaluated_at)
    = (excluded.evaluation, excluded.closed, excluded.evaluated_at)
"""

_RECENT_HOURS = """
SELECT hour, closed FROM obs.alert_evaluations
WHERE destination = %s AND hour >= %s ORDER BY hour
"""

_SET_FOLDED = """
UPDATE obs.alert_evaluations SET closed = closed OR hour < %s, rules = %s
WHERE destination = %s AND hour >= %s AND hour <= %s
"""

_LAST_OUTDATED = """
SELECT max(hour) FROM obs.alert_evaluations
WHERE destination = %s AND hour >= %s AND (rules <> %s OR (NOT closed AND hour < %s))
"""

_LAST_BEFORE = """
SELECT max(hour) FROM obs.alert_evaluations WHERE destination = %s AND hour < %s
"""

_HOURS_BEYOND = """
SELECT hour FROM obs.alert_notices
    WHERE destination = %(destination)s AND hour > %(last)s
UNION SELECT max(hour) FROM obs.alert_evaluations
    WHERE destination = %(destination)s AND hour > %(last)s
"""

_FORGET: Sequence[LiteralString] = (
    "DELETE FROM obs.alert_evaluations WHERE destination = %s AND hour < %s",
    "DELETE FROM obs.alert_states WHERE destination = %s AND hour < %s",
    "DELETE FROM obs.alert_notices WHERE destination = %s AND hour < %s AND NOT open",
)


@dataclass(frozen=True)
class FoldResult:
    """The result of folding hours.

    Attributes:
        decision: the notices that the fold causes.
        states: fingerprint of an alert → its state after the hour that was built.
    """

    decision: Decision = field(default_factory=Decision)
    states: States = field(default_factory=dict)


@dataclass(frozen=True)
class Journal:
    """The history of the alerts of a destination.

    Attributes:
        connection: connection in a transaction that holds the outbox's lock.
        destination: name of the destination.
        rules: the present rules.
    """

    connection: Connection
    destination: str
    rules: Sequence[AlertRule]

    def take(
        self,
        hour: Hour,
        evaluation: Evaluation,
        now: datetime,
        *,
        closed_until: Hour,
        is_muted: Callable[[Hour], bool],
    ) -> FoldResult:
        """Write an hour's evaluation, fold from that hour on, and decide the notices.

        Args:
            hour: the hour that was built.
            evaluation: its measurements.
            now: time of the evaluation, UTC.
            closed_until: hours before it are closed.
            is_muted: whether the notices of an hour are recorded and not sent.
        """
        # Later hours can change too: their windows reach back to this hour.
        self._write_evaluations({hour: evaluation}, closed_until, now)
        return self._fold([hour], closed_until, is_muted, focus=hour)

    def advance(
        self,
        now: datetime,
        *,
        closed_until: Hour,
        is_empty: Callable[[Hour], bool],
        is_muted: Callable[[Hour], bool],
    ) -> Decision:
        """Evaluate the rules for hours that no build evaluates: empty hours, and hours that closed after their build.

        Args:
            now: time of the evaluation, UTC.
            closed_until: hours before it are closed.
            is_empty: whether no event has landed for an hour.
            is_muted: whether notices of an hour are only recorded.
        """
        empty, newly_closed = self.unjudged(closed_until, is_empty)
        nothing = self._empty_evaluation()
        self._write_evaluations(dict.fromkeys(empty, nothing), closed_until, now)
        changed = [*empty, *newly_closed]
        if not changed:
            return Decision()
        return self._fold(changed, closed_until, is_muted).decision

    def unjudged(
        self, closed_until: Hour, is_empty: Callable[[Hour], bool]
    ) -> tuple[list[Hour], list[Hour]]:
        """The hours that `advance` judges; nothing is changed.

        Args:
            closed_until: hours before it are closed.
            is_empty: whether no event has landed for an hour.

        Returns:
            empty hours, and hours that closed after their build.
        """
        since = closed_until.start - timedelta(hours=GAP_HOURS)
        rows = self.connection.execute(_RECENT_HOURS, [self.destination, since]).fetchall()
        if not rows:
            # Before the first build there is no hour from which a gap could be counted.
            return [], []
        known = {Hour.of(hour): closed for hour, closed in rows}
        candidates = hours_between(min(known), closed_until)
        empty = [hour for hour in candidates if hour not in known and is_empty(hour)]
        newly_closed = [
            hour for hour, closed in known.items() if not closed and hour < closed_until
        ]
        return empty, newly_closed

    def record(self, notices: Iterable[Notice], webhook_id: str) -> None:
        """Record the notices that a dispatch sends."""
        for notice in notices:
            row = [
                self.destination,
                notice.fingerprint,
                notice.kind,
                notice.hour.start,
                notice.rule,
                json.dumps(notice.group),
                notice.since.start,
                notice.sent,
                notice.value,
                notice.minute,
                webhook_id,
                notice.kind == "firing",  # open until a "resolved" notice ends it
            ]
            self.connection.execute(_INSERT_NOTICE, row)
            if notice.kind == "resolved":
                parameters = [self.destination, notice.fingerprint, notice.sent]
                self.connection.execute(_CLOSE_NOTICES, parameters)

    def forget(self, before: datetime) -> None:
        """Delete the history before a time, UTC, except announced alerts that are not resolved."""
        for query in _FORGET:
            self.connection.execute(query, [self.destination, before])

    # ── inside ───────────────────────────────────────────────────────────────────────────────

    def _empty_evaluation(self) -> Evaluation:
        """The evaluation of an hour without events."""
        return {
            rule.definition: Measured() for rule in self.rules if rule.measures and rule.enabled
        }

    def _write_evaluations(
        self, evaluations: Mapping[Hour, Evaluation], closed_until: Hour, now: datetime
    ) -> None:
        for hour, evaluation in evaluations.items():
            is_closed = hour < closed_until
            row = [self.destination, hour.start, to_json(evaluation), is_closed, now]
            self.connection.execute(_UPSERT_EVALUATION, row)

    def _fold(
        self,
        changed: Sequence[Hour],
        closed_until: Hour,
        is_muted: Callable[[Hour], bool],
        focus: Hour | None = None,
    ) -> FoldResult:
        """Fold from the first changed hour on, until the states equal the stored states again.

        Args:
            changed: hours with new measurements, or that have closed; not empty.
            closed_until: hours before it are closed.
            is_muted: whether notices of an hour are only recorded.
            focus: the hour whose states are returned.
        """
        first = min(changed)
        blocks = refold(
            self.rules,
            self._blocks(first),
            self._before(first),
            first=first,
            closed_until=closed_until,
            reach=self._reach(changed, closed_until),
        )
        folded = list(blocks)
        last = folded[-1][0]
        self._write_states(folded)
        self.connection.execute(
            _SET_FOLDED,
            [closed_until.start, self._definitions, self.destination, first.start, last.start],
        )
        # A notice within the cooldown before the first hour can suppress a new notice.
        cooldown = max((rule.cooldown_hours for rule in self.rules), default=0)
        earlier = self._notices(first.start - timedelta(hours=cooldown))
        decision = decide(self.rules, folded, earlier, is_muted, self._beyond(last))
        if focus is None:
            return FoldResult(decision)
        return FoldResult(decision, dict(folded)[focus])

    @property
    def _looks_back(self) -> timedelta:
        """The longest time that a rule looks back."""
        return timedelta(hours=max((rule.looks_back for rule in self.rules), default=0))

    @property
    def _definitions(self) -> str:
        """A hash of the rules that a fold depends on, 16 hexadecimal digits."""
        found = sorted(rule.definition for rule in self.rules if rule.measures and rule.enabled)
        return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]

    def _reach(self, changed: Sequence[Hour], closed_until: Hour) -> Hour:
        """The last hour whose states can change although earlier states do not; see `refold`."""
        # A measurement is in the windows of the hours after it.
        in_window = Hour(max(changed).start + self._looks_back)
        row = self.connection.execute(
            _LAST_OUTDATED,
            [self.destination, min(changed).start, self._definitions, closed_until.start],
        ).fetchone()
        if row is None or row[0] is None:
            return in_window
        return max(in_window, Hour.of(row[0]))

    def _blocks(self, first: Hour) -> Iterator[tuple[History, Mapping[Hour, States]]]:
        """Blocks of hours from an hour on, with the history that they need and their states."""
        history = self._evaluations(
            "AND hour >= %s AND hour < %s ORDER BY hour",
            first.start - self._looks_back,
            first.start,
        )
        while block := self._evaluations(
            "AND hour >= %s ORDER BY hour LIMIT %s", first.start, BLOCK_HOURS
        ):
            history = history | block
            yield history, self._states(list(block))
            first = max(block).next
            oldest = first.start - self._looks_back
            # The next block looks back to a part of this block only.
            history = {h: found for h, found in history.items() if h.start >= oldest}

    def _evaluations(
        self, condition: LiteralString, *values: datetime | int
    ) -> dict[Hour, Evaluation]:
        query: LiteralString = (
            "SELECT hour, evaluation::text FROM obs.alert_evaluations WHERE destination = %s "
        )
        rows = self.connection.execute(query + condition, [self.destination, *values])
        return {Hour.of(hour): from_json(text) for hour, text in rows}

    def _before(self, first: Hour) -> States:
        """The states after the last evaluated hour before an hour."""
        parameters = [self.destination, first.start]
        row = self.connection.execute(_LAST_BEFORE, parameters).fetchone()
        if row is None or row[0] is None:
            return {}
        hour = Hour.of(row[0])
        return self._states([hour]).get(hour, {})

    def _beyond(self, last: Hour) -> list[tuple[Hour, States]]:
        """States after later hours: the hours of notices, and the last hour of all."""
        parameters = {"destination": self.destination, "last": last.start}
        rows = self.connection.execute(_HOURS_BEYOND, parameters)
        hours = sorted(Hour.of(hour) for (hour,) in rows if hour)
        states = self._states(hours)
        return [(hour, states.get(hour, {})) for hour in hours]

    def _states(self, hours: Sequence[Hour]) -> dict[Hour, States]:
        """Hour → states after it; an hour without alerts is missing."""
        starts = [hour.start for hour in hours]
        rows = self.connection.execute(_STATES, [self.destination, starts])
        found: dict[Hour, dict[str, AlertState]] = {}
        for hour, fingerprint, *values in rows:
            found.setdefault(Hour.of(hour), {})[fingerprint] = _state_of(values)
        return dict(found)

    def _write_states(self, folded: Sequence[tuple[Hour, States]]) -> None:
        self.connection.execute(
            "DELETE FROM obs.alert_states WHERE destination = %s AND hour >= %s AND hour <= %s",
            [self.destination, folded[0][0].start, folded[-1][0].start],
        )
        # COPY, because a fold over weeks of many groups writes ten thousands of rows.
        with self.connection.cursor().copy("COPY obs.alert_states FROM STDIN") as copy:
            for hour, states in folded:
                for fingerprint, state in states.items():
                    copy.write_row(_state_row(self.destination, hour, fingerprint, state))

    def _notices(self, since: datetime) -> list[Notice]:
        """Notices from a time on, and older notices of alerts that are not resolved."""
        rows = self.connection.execute(_NOTICES, [self.destination, since])
        return [_notice_of(row) for row in rows]


def _state_of(columns: Sequence[Any]) -> AlertState:
    """A state from the columns of `_STATES` after the first two."""
    rule, definition, group, status, since, held_hours, calm_hours, value, minute = columns
    return AlertState(
        rule=rule,
        definition=definition,
        group=tuple(group),
        status=status,
        since=Hour.of(since),
        held_hours=held_hours,
        calm_hours=calm_hours,
        value=value,
        minute=minute,
    )


def _state_row(destination: str, hour: Hour, fingerprint: str, state: AlertState) -> list[Any]:
    """The columns of ``obs.alert_states``, in the table's order."""
    return [
        destination,
        hour.start,
        fingerprint,
        state.rule,
        state.definition,
        json.dumps(state.group),
        state.status,
        state.since.start,
        state.held_hours,
        state.calm_hours,
        state.value,
        state.minute,
    ]


def _notice_of(columns: Sequence[Any]) -> Notice:
    """A notice from the columns of `_NOTICES`."""
    fingerprint, rule, group, kind, hour, since, sent, value, minute = columns
    return Notice(
        fingerprint=fingerprint,
        rule=rule,
        group=tuple(group),
        kind=kind,
        hour=Hour.of(hour),
        since=Hour.of(since),
        sent=sent,
        value=value,
        minute=minute,
    )
