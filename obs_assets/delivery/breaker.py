"""The circuit breaker of an endpoint. Runs are short, so its state is in PostgreSQL, and all senders share it."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import SecretStr

from obs_assets.destinations.webhook import LONGEST_WAIT_S
from obs_assets.storage.postgres import Connection

BREAKS_AFTER = 5
"""Failures in a row after which an endpoint is left alone for a while."""

BROKEN_S = 30.0
"""How long at first; twice as long after each further failure, at most an hour."""

TABLES = """
CREATE TABLE IF NOT EXISTS obs.webhook_endpoints (
    endpoint TEXT PRIMARY KEY, failures INT NOT NULL DEFAULT 0, not_before TIMESTAMPTZ, disabled_at TIMESTAMPTZ);
"""

_MARK = """
INSERT INTO obs.webhook_endpoints AS e (endpoint, failures, not_before, disabled_at) VALUES (%s, %s, %s, %s)
ON CONFLICT (endpoint) DO UPDATE SET (failures, not_before, disabled_at) = (
    CASE WHEN excluded.failures = 0 THEN 0 ELSE e.failures + 1 END, excluded.not_before, excluded.disabled_at)
RETURNING failures
"""


@dataclass(frozen=True)
class Breaker:
    """What is known of one endpoint.

    Attributes:
        connection: what keeps it.
        endpoint: its key; see `of`.
    """

    connection: Connection
    endpoint: str

    @classmethod
    def of(cls, connection: Connection, url: SecretStr) -> "Breaker":
        """The breaker of an address, which is a secret: the key is a hash of it."""
        return cls(connection, hashlib.sha256(url.get_secret_value().encode()).hexdigest()[:32])

    def lets_through(self, now: datetime) -> bool:
        """Whether the endpoint may be called: it has not gone, has not asked for silence, and does not just fail."""
        row = self.connection.execute(
            "SELECT disabled_at IS NULL AND (not_before IS NULL OR not_before <= %s) "
            "FROM obs.webhook_endpoints WHERE endpoint = %s",
            [now, self.endpoint],
        ).fetchone()
        return row is None or bool(row[0])

    def mark(
        self,
        now: datetime,
        *,
        failed: bool,
        asked_wait_s: float | None,
        gone: bool,
        jitter: float,
    ) -> None:
        """Take note of an answer. Five failures in a row, or a wish of the receiver, and it is left alone for a while.

        Args:
            now: the time of the answer.
            failed: whether a later attempt may succeed; a refusal of one request says nothing of the endpoint.
            asked_wait_s: what the receiver asked for.
            gone: whether it answered 410: it is not called any more.
            jitter: between 0 and 1: how much of the second half of a pause is waited.
        """
        asked = now + timedelta(seconds=asked_wait_s) if asked_wait_s else None
        row = self.connection.execute(
            _MARK, [self.endpoint, int(failed), asked, now if gone else None]
        ).fetchone()
        if failed and row and row[0] >= BREAKS_AFTER:
            pause_s = (
                min(LONGEST_WAIT_S, BROKEN_S * 2 ** min(row[0] - BREAKS_AFTER, 10))
                * (1 + jitter)
                / 2
            )
            self.connection.execute(
                "UPDATE obs.webhook_endpoints SET not_before = greatest(not_before, %s) WHERE endpoint = %s",
                [now + timedelta(seconds=pause_s), self.endpoint],
            )

    def reset(self) -> None:
        """Forget the past: somebody says that it works again."""
        self.connection.execute(
            "DELETE FROM obs.webhook_endpoints WHERE endpoint = %s", [self.endpoint]
        )
