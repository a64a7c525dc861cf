"""Alerts as they are now, for readers: those that fire, their last notices, and messages of a day."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import class_row

from obs_assets.storage.postgres import Connection

MOST_ALERTS = 200
"""Alerts that are listed: those that fire for the longest time first."""

DAY = timedelta(days=1)

_MAY_READ = """
SELECT to_regclass('obs.alerts') IS NOT NULL
    AND has_table_privilege(to_regclass('obs.alerts'), 'SELECT')
"""

_ALERTS = """
SELECT alert.destination, alert.rule, alert."group", alert.status, alert.since, alert.hour,
    alert.value, notice.kind AS notice, notice.hour AS notice_hour, notice.sent AS is_sent
FROM obs.alerts AS alert LEFT JOIN LATERAL (
    SELECT kind, hour, sent FROM obs.alert_notices AS notice
    WHERE notice.destination = alert.destination AND notice.fingerprint = alert.fingerprint
    ORDER BY hour DESC, kind LIMIT 1) AS notice ON true
ORDER BY alert.status, alert.since, alert.rule LIMIT %s
"""

# Dispatches that wait are counted whatever their age: they are what a reader looks for.
_MESSAGES = """
SELECT state, count(*), max(sent_at) FROM obs.webhook_dispatches
WHERE state = 'pending' OR created_at >= %s GROUP BY state
"""


@dataclass(frozen=True)
class AlertNow:
    """An alert after the latest hour of its destination.

    Attributes:
        destination: name of the webhook's destination.
        rule: name of its rule.
        group: values of the fields of the rule's ``by``.
        status: ``firing``, or ``pending`` before it fires.
        since: start of the hour since when.
        hour: the latest hour that was measured.
        value: the measure in that hour.
        notice: kind of the last notice, ``firing`` or ``resolved``; None before the first.
        notice_hour: the hour that the notice is about.
        is_sent: whether the notice was to be sent, and not only recorded.
    """

    destination: str
    rule: str
    group: Sequence[str | None]
    status: str
    since: datetime
    hour: datetime
    value: float | None
    notice: str | None
    notice_hour: datetime | None
    is_sent: bool | None


@dataclass(frozen=True)
class AlertsNow:
    """Alerts and messages of all webhooks of a database.

    Attributes:
        alerts: `MOST_ALERTS` at most.
        messages: state of a dispatch → number of those of the last day; all that wait are counted.
        last_sent_at: when the receiver accepted the last message of the day.
    """

    alerts: tuple[AlertNow, ...]
    messages: Mapping[str, int]
    last_sent_at: datetime | None


def alerts_now(connection: Connection, now: datetime) -> AlertsNow | None:
    """Alerts and messages; None without webhooks, or without the right to read their tables."""
    if connection.execute(_MAY_READ).fetchone() != (True,):
        return None
    with connection.cursor(row_factory=class_row(AlertNow)) as cursor:
        alerts = cursor.execute(_ALERTS, [MOST_ALERTS]).fetchall()
    states = connection.execute(_MESSAGES, [now - DAY]).fetchall()
    sent = [at for _, _, at in states if at is not None]
    messages = {state: count for state, count, _ in states}
    return AlertsNow(tuple(alerts), messages, max(sent, default=None))
