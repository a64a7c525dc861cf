"""What is kept of alerts: measurements of each hour, states after each hour, and what was told. In PostgreSQL.

Everything here runs inside the transaction, and under the lock, of the outbox that it belongs to: states, notices and
dispatches are there together or not at all.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import LiteralString

from obs_assets.alerts.evaluate import Evaluation, Measured, from_json, to_json
from obs_assets.alerts.life import AlertState, History, States, refold
from obs_assets.alerts.notices import Decision, Notice, decide
from obs_assets.alerts.rules import AlertRule
from obs_assets.hours import Hour, hours_between
from obs_assets.storage.postgres import Connection

GAP_HOURS = 168
"""How far back hours without a single event are noticed."""

TABLES = """
CREATE TABLE IF NOT EXISTS obs.alert_evaluations (
    destination TEXT, hour TIMESTAMPTZ, evaluation JSON NOT NULL, closed BOOLEAN NOT NULL,
    evaluated_at TIMESTAMPTZ NOT NULL, PRIMARY KEY (destination, hour));
CREATE TABLE IF NOT EXISTS obs.alert_states (
    destination TEXT, hour TIMESTAMPTZ, fingerprint TEXT, rule TEXT NOT NULL, definition TEXT NOT NULL,
    "group" JSON NOT NULL, status TEXT NOT NULL, since TIMESTAMPTZ NOT NULL,
    held_hours INT NOT NULL, calm_hours INT NOT NULL, value DOUBLE PRECISION, minute INT,
    PRIMARY KEY (destination, hour, fingerprint));
CREATE TABLE IF NOT EXISTS obs.alert_notices (
    destination TEXT, fingerprint TEXT, kind TEXT, hour TIMESTAMPTZ, rule TEXT NOT NULL, "group" JSON NOT NULL,
    since TIMESTAMPTZ NOT NULL, sent BOOLEAN NOT NULL, value DOUBLE PRECISION, minute INT,
    webhook_id TEXT NOT NULL, open BOOLEAN NOT NULL,
    PRIMARY KEY (destination, fingerprint, kind, hour));
CREATE INDEX IF NOT EXISTS alert_notices_hour ON obs.alert_notices (destination, hour);
CREATE INDEX IF NOT EXISTS alert_notices_open ON obs.alert_notices (destination) WHERE open;
CREATE OR REPLACE VIEW obs.alerts AS
    SELECT s.* FROM obs.alert_states s
    JOIN (SELECT destination, max(hour) AS hour FROM obs.alert_evaluations GROUP BY destination) AS head
    USING (destination, hour);
COMMENT ON VIEW obs.alerts IS 'alerts that fire or are about to, after the latest hour of each destination';
"""

FOLDED_BY = """
ALTER TABLE obs.alert_evaluations ADD COLUMN rules TEXT NOT NULL DEFAULT '';
"""

BLOCK_HOURS = 48
"""Hours whose measurements are read at a time when a change is folded forward."""

_TOLD = """
SELECT fingerprint, rule, "group", kind, hour, since, sent, value, minute FROM obs.alert_notices
WHERE destination = %s AND (open OR hour >= %s)
"""
_STATES = """
SELECT hour, fingerprint, rule, definition, "group", status, since, held_hours, calm_hours, value, minute
FROM obs.alert_states WHERE destination = %s AND hour = ANY(%s)
"""
_UPSERT_EVALUATION = """
INSERT INTO obs.alert_evaluations (destination, hour, evaluation, closed, evaluated_at)
VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (destination, hour) DO UPDATE SET (evaluation, closed, evaluated_at)
    = (excluded.evaluation, excluded.closed, excluded.evaluated_at)
"""


_FORGET: Sequence[LiteralString] = (
    "DELETE FROM obs.alert_evaluations WHERE destination = %s AND hour < %s",
    "DELETE FROM obs.alert_states WHERE destination = %s AND hour < %s",
    "DELETE FROM obs.alert_notices WHERE destination = %s AND hour < %s AND NOT open",
)


@dataclass(frozen=True)
class Told:
    """What a fold led to."""

    decision: Decision = field(default_factory=Decision)
    states: States = field(default_factory=dict)
    """After the hour that was built."""


@dataclass(frozen=True)
class Journal:
    """The alerts of one destination.

    Attributes:
        connection: in a transaction that holds the outbox's lock.
        destination: whose.
        rules: as they are now.
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
    ) -> Told:
        """Keep an hour's evaluation, fold it and all hours after it, and decide what is to be told."""
        self._keep({hour: evaluation}, closed_until, now)
        return self._fold([hour], closed_until, is_muted, focus=hour)

    def advance(
        self,
        now: datetime,
        *,
        closed_until: Hour,
        is_empty: Callable[[Hour], bool],
        is_muted: Callable[[Hour], bool],
    ) -> Decision:
        """Judge what no build of an hour would: hours in which nothing happened, and hours that have closed since."""
        empty, closed = self.unjudged(closed_until, is_empty)
        self._keep({hour: self._nothing() for hour in empty}, closed_until, now)
        changed = [*empty, *closed]
        return self._fold(changed, closed_until, is_muted).decision if changed else Decision()

    def unjudged(
        self, closed_until: Hour, is_empty: Callable[[Hour], bool]
    ) -> tuple[list[Hour], list[Hour]]:
        """What `advance` would judge: hours in which nothing happened, and hours that closed after they were built."""
        rows = self.connection.execute(
            "SELECT hour, closed FROM obs.alert_evaluations WHERE destination = %s AND hour >= %s ORDER BY hour",
            [self.destination, closed_until.start - timedelta(hours=GAP_HOURS)],
        ).fetchall()
        if not rows:
            return [], []
        known = {Hour.of(hour): closed for hour, closed in rows}
        empty = [
            hour
            for hour in hours_between(min(known), closed_until)
            if hour not in known and is_empty(hour)
        ]
        return empty, [
            hour for hour, closed in known.items() if not closed and hour < closed_until
        ]

    def record(self, notices: Iterable[Notice], webhook_id: str) -> None:
        """Write down what is told by a dispatch."""
        for notice in notices:
            self.connection.execute(
                "INSERT INTO obs.alert_notices VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [
                    *(
                        self.destination,
                        notice.fingerprint,
                        notice.kind,
                        notice.hour.start,
                        notice.rule,
                    ),
                    *(
                        json.dumps(notice.group),
                        notice.since.start,
                        notice.sent,
                        notice.value,
                        notice.minute,
                    ),
                    *(webhook_id, notice.kind == "firing"),
                ],
            )
            if notice.kind == "resolved":
                self.connection.execute(
                    "UPDATE obs.alert_notices SET open = false "
                    "WHERE destination = %s AND fingerprint = %s AND open AND (%s OR NOT sent)",
                    [self.destination, notice.fingerprint, notice.sent],
                )

    def forget(self, before: datetime) -> None:
        """Drop what is kept of earlier hours; alerts that somebody believes to fire stay known."""
        for query in _FORGET:
            self.connection.execute(query, [self.destination, before])

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _nothing(self) -> Evaluation:
        return {
            rule.definition: Measured() for rule in self.rules if rule.measures and rule.enabled
        }

    def _keep(
        self, evaluations: Mapping[Hour, Evaluation], closed_until: Hour, now: datetime
    ) -> None:
        for hour, evaluation in evaluations.items():
            values = [
                self.destination,
                hour.start,
                to_json(evaluation),
                hour < closed_until,
                now,
            ]
            self.connection.execute(_UPSERT_EVALUATION, values)

    def _fold(
        self,
        changed: Sequence[Hour],
        closed_until: Hour,
        is_muted: Callable[[Hour], bool],
        focus: Hour | None = None,
    ) -> Told:
        """Fold the changed hours and those after them, as far as anything is new."""
        first, reach = min(changed), self._reach(changed, closed_until)
        folded = list(
            refold(
                self.rules,
                self._blocks(first),
                self._before(first),
                first=first,
                closed_until=closed_until,
                reach=reach,
            )
        )
        last = folded[-1][0]
        self._write_states(folded)
        self.connection.execute(
            "UPDATE obs.alert_evaluations SET closed = closed OR hour < %s, rules = %s "
            "WHERE destination = %s AND hour >= %s AND hour <= %s",
            [closed_until.start, self._definitions, self.destination, first.start, last.start],
        )
        cooldown = max((rule.cooldown_hours for rule in self.rules), default=0)
        told = self._told(first.start - timedelta(hours=cooldown))
        decision = decide(self.rules, folded, told, is_muted, self._beyond(last))
        return Told(decision, dict(folded)[focus] if focus else {})

    @property
    def _looks_back(self) -> timedelta:
        return timedelta(hours=max((rule.looks_back for rule in self.rules), default=0))

    @property
    def _definitions(self) -> str:
        """A hash of the rules that a fold depends on."""
        found = sorted(rule.definition for rule in self.rules if rule.measures and rule.enabled)
        return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]

    def _reach(self, changed: Sequence[Hour], closed_until: Hour) -> Hour:
        """The last hour whose states may have changed although those before it did not; see `refold`."""
        seen = Hour(max(changed).start + self._looks_back)
        row = self.connection.execute(
            "SELECT max(hour) FROM obs.alert_evaluations WHERE destination = %s AND hour >= %s "
            "AND (rules <> %s OR (NOT closed AND hour < %s))",
            [self.destination, min(changed).start, self._definitions, closed_until.start],
        ).fetchone()
        return max(seen, Hour.of(row[0])) if row and row[0] else seen

    def _blocks(self, first: Hour) -> Iterator[tuple[History, Mapping[Hour, States]]]:
        """Measurements and states from an hour on, a block of hours at a time, with the measurements looked back to."""
        known = self._evaluations(
            "AND hour >= %s AND hour < %s ORDER BY hour",
            first.start - self._looks_back,
            first.start,
        )
        while block := self._evaluations(
            "AND hour >= %s ORDER BY hour LIMIT %s", first.start, BLOCK_HOURS
        ):
            yield known | block, self._states(list(block))
            first = max(block).next
            known = {
                h: e
                for h, e in (known | block).items()
                if h.start >= first.start - self._looks_back
            }

    def _evaluations(
        self, condition: LiteralString, *values: datetime | int
    ) -> dict[Hour, Evaluation]:
        rows = self.connection.execute(
            "SELECT hour, evaluation::text FROM obs.alert_evaluations WHERE destination = %s "
            + condition,
            [self.destination, *values],
        )
        return {Hour.of(hour): from_json(text) for hour, text in rows}

    def _before(self, first: Hour) -> States:
        row = self.connection.execute(
            "SELECT max(hour) FROM obs.alert_evaluations WHERE destination = %s AND hour < %s",
            [self.destination, first.start],
        ).fetchone()
        return (
            self._states([Hour.of(row[0])]).get(Hour.of(row[0]), {}) if row and row[0] else {}
        )

    def _beyond(self, last: Hour) -> list[tuple[Hour, States]]:
        """States after later hours, those that notices are about and the last of all."""
        rows = self.connection.execute(
            "SELECT hour FROM obs.alert_notices WHERE destination = %(destination)s AND hour > %(last)s UNION "
            "SELECT max(hour) FROM obs.alert_evaluations WHERE destination = %(destination)s AND hour > %(last)s",
            {"destination": self.destination, "last": last.start},
        )
        hours = sorted(Hour.of(hour) for (hour,) in rows if hour)
        states = self._states(hours)
        return [(hour, states.get(hour, {})) for hour in hours]

    def _states(self, hours: Sequence[Hour]) -> dict[Hour, States]:
        """The alerts after some hours; an hour without any is not there."""
        found: dict[Hour, dict[str, AlertState]] = {}
        for (
            at,
            key,
            rule,
            definition,
            group,
            status,
            since,
            held,
            calm,
            value,
            minute,
        ) in self.connection.execute(
            _STATES, [self.destination, [hour.start for hour in hours]]
        ):
            state = AlertState(
                rule,
                definition,
                tuple(group),
                status,
                Hour.of(since),
                held,
                calm,
                value,
                minute,
            )
            found.setdefault(Hour.of(at), {})[key] = state
        return dict(found)

    def _write_states(self, folded: Sequence[tuple[Hour, States]]) -> None:
        self.connection.execute(
            "DELETE FROM obs.alert_states WHERE destination = %s AND hour >= %s AND hour <= %s",
            [self.destination, folded[0][0].start, folded[-1][0].start],
        )
        with self.connection.cursor().copy("COPY obs.alert_states FROM STDIN") as copy:
            for hour, states in folded:
                for key, s in states.items():
                    copy.write_row(
                        [
                            *(
                                self.destination,
                                hour.start,
                                key,
                                s.rule,
                                s.definition,
                                json.dumps(s.group),
                                s.status,
                            ),
                            *(s.since.start, s.held_hours, s.calm_hours, s.value, s.minute),
                        ]
                    )

    def _told(self, since: datetime) -> list[Notice]:
        rows = self.connection.execute(_TOLD, [self.destination, since])
        return [
            Notice(
                key,
                rule,
                tuple(group),
                kind,
                Hour.of(hour),
                Hour.of(begin),
                sent,
                value,
                minute,
            )
            for key, rule, group, kind, hour, begin, sent, value, minute in rows
        ]
