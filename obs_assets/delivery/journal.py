"""What is kept of alerts: measurements of each hour, states after each hour, and what was told. In PostgreSQL.

Everything here runs inside the transaction, and under the lock, of the outbox that it belongs to: states, notices and
dispatches are there together or not at all.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import psycopg

from obs_assets.alerts.evaluate import Evaluation, Measured, from_json, to_json
from obs_assets.alerts.life import AlertState, States, fold
from obs_assets.alerts.notices import Decision, Notice, decide
from obs_assets.alerts.rules import AlertRule
from obs_assets.hours import Hour, hours_between

Connection: TypeAlias = psycopg.Connection[Any]

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

_TOLD = """
SELECT fingerprint, rule, "group", kind, hour, since, sent, value, minute FROM obs.alert_notices
WHERE destination = %s AND (open OR hour >= %s)
"""
_STATES = """
SELECT fingerprint, rule, definition, "group", status, since, held_hours, calm_hours, value, minute
FROM obs.alert_states WHERE destination = %s AND hour = %s
"""
_UPSERT_EVALUATION = """
INSERT INTO obs.alert_evaluations (destination, hour, evaluation, closed, evaluated_at)
VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (destination, hour) DO UPDATE SET (evaluation, closed, evaluated_at)
    = (excluded.evaluation, excluded.closed, excluded.evaluated_at)
"""


@dataclass(frozen=True)
class Told:
    """What a fold led to."""

    decision: Decision
    states: States
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
        return self._fold(hour, closed_until, is_muted, focus=hour)

    def advance(
        self,
        now: datetime,
        *,
        closed_until: Hour,
        is_empty: Callable[[Hour], bool],
        is_muted: Callable[[Hour], bool],
    ) -> Decision:
        """Judge what no build of an hour would: hours in which nothing happened, and hours that have closed since."""
        rows = self.connection.execute(
            "SELECT hour, closed FROM obs.alert_evaluations WHERE destination = %s AND hour >= %s ORDER BY hour",
            [self.destination, closed_until.start - timedelta(hours=GAP_HOURS)],
        ).fetchall()
        if not rows:
            return Decision()
        known = {Hour.of(hour): closed for hour, closed in rows}
        empty = [h for h in hours_between(min(known), closed_until) if h not in known and is_empty(h)]
        self._keep({h: self._nothing() for h in empty}, closed_until, now)
        changed = [*empty, *(h for h, closed in known.items() if not closed and h < closed_until)]
        return self._fold(min(changed), closed_until, is_muted).decision if changed else Decision()

    def record(self, notices: Iterable[Notice], webhook_id: str) -> None:
        """Write down what is told by a dispatch."""
        for notice in notices:
            self.connection.execute(
                "INSERT INTO obs.alert_notices VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [
                    *(self.destination, notice.fingerprint, notice.kind, notice.hour.start, notice.rule),
                    *(json.dumps(notice.group), notice.since.start, notice.sent, notice.value, notice.minute),
                    *(webhook_id, notice.kind == "firing"),
                ],
            )
            if notice.kind == "resolved":
                self.connection.execute(
                    "UPDATE obs.alert_notices SET open = false "
                    "WHERE destination = %s AND fingerprint = %s AND open AND (%s OR NOT sent)",
                    [self.destination, notice.fingerprint, notice.sent],
                )

    def states_after(self, hour: Hour) -> States:
        """The alerts after an hour."""
        rows = self.connection.execute(_STATES, [self.destination, hour.start])
        return {
            key: AlertState(rule, definition, tuple(group), status, Hour.of(since), held, calm, value, minute)
            for key, rule, definition, group, status, since, held, calm, value, minute in rows
        }

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _nothing(self) -> Evaluation:
        return {rule.definition: Measured() for rule in self.rules if rule.measures and rule.enabled}

    def _keep(self, evaluations: Mapping[Hour, Evaluation], closed_until: Hour, now: datetime) -> None:
        for hour, evaluation in evaluations.items():
            values = [self.destination, hour.start, to_json(evaluation), hour < closed_until, now]
            self.connection.execute(_UPSERT_EVALUATION, values)

    def _fold(
        self, first: Hour, closed_until: Hour, is_muted: Callable[[Hour], bool], focus: Hour | None = None
    ) -> Told:
        back = max((rule.looks_back for rule in self.rules), default=0)
        rows = self.connection.execute(
            "SELECT hour, evaluation::text FROM obs.alert_evaluations WHERE destination = %s AND hour >= %s",
            [self.destination, first.start - timedelta(hours=back)],
        )
        history = {Hour.of(hour): from_json(text) for hour, text in rows}
        folded = list(fold(self.rules, history, self._before(first), first, closed_until))
        self._write_states(first, folded)
        self.connection.execute(
            "UPDATE obs.alert_evaluations SET closed = true WHERE destination = %s AND hour >= %s AND hour < %s",
            [self.destination, first.start, closed_until.start],
        )
        cooldown = max((rule.cooldown_hours for rule in self.rules), default=0)
        decision = decide(self.rules, folded, self._told(first.start - timedelta(hours=cooldown)), is_muted)
        return Told(decision, dict(folded)[focus] if focus else {})

    def _before(self, first: Hour) -> States:
        row = self.connection.execute(
            "SELECT max(hour) FROM obs.alert_evaluations WHERE destination = %s AND hour < %s",
            [self.destination, first.start],
        ).fetchone()
        return self.states_after(Hour.of(row[0])) if row and row[0] else {}

    def _write_states(self, first: Hour, folded: Sequence[tuple[Hour, States]]) -> None:
        self.connection.execute(
            "DELETE FROM obs.alert_states WHERE destination = %s AND hour >= %s", [self.destination, first.start]
        )
        with self.connection.cursor().copy("COPY obs.alert_states FROM STDIN") as copy:
            for hour, states in folded:
                for key, s in states.items():
                    copy.write_row(
                        [
                            *(self.destination, hour.start, key, s.rule, s.definition, json.dumps(s.group), s.status),
                            *(s.since.start, s.held_hours, s.calm_hours, s.value, s.minute),
                        ]
                    )

    def _told(self, since: datetime) -> list[Notice]:
        rows = self.connection.execute(_TOLD, [self.destination, since])
        return [
            Notice(key, rule, tuple(group), kind, Hour.of(hour), Hour.of(begin), sent, value, minute)
            for key, rule, group, kind, hour, begin, sent, value, minute in rows
        ]
