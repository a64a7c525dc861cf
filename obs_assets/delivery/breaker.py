"""The circuit breaker of an endpoint.

Runs are short, so the state of a breaker is in PostgreSQL, where all processes that send share it.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import SecretStr

from obs_assets.destinations.webhook import LONGEST_WAIT_S
from obs_assets.storage.postgres import Connection

BREAKS_AFTER = 5
"""Failed requests in a row after which an endpoint gets no requests for a while."""

BROKEN_S = 30.0
"""Seconds of the first pause; each further failure doubles the pause, up to `LONGEST_WAIT_S`."""

_MOST_DOUBLINGS = 10
"""Limit of the exponent, so that a long row of failures makes no huge number."""

TABLES = """
CREATE TABLE IF NOT EXISTS obs.webhook_endpoints (
    endpoint TEXT PRIMARY KEY, failures INT NOT NULL DEFAULT 0, not_before TIMESTAMPTZ,
    disabled_at TIMESTAMPTZ);
"""

_RECORD_OUTCOME = """
INSERT INTO obs.webhook_endpoints AS e (endpoint, failures, not_before, disabled_at)
VALUES (%s, %s, %s, %s)
ON CONFLICT (endpoint) DO UPDATE SET (failures, not_before, disabled_at) = (
    CASE WHEN excluded.failures = 0 THEN 0 ELSE e.failures + 1 END,
    excluded.not_before, excluded.disabled_at)
RETURNING failures
"""

_PAUSE = """
UPDATE obs.webhook_endpoints SET not_before = greatest(not_before, %s) WHERE endpoint = %s
"""


@dataclass(frozen=True)
class Breaker:
    """The breaker of an endpoint.

    Attributes:
        connection: connection to the database that holds the state.
        endpoint: hash of the endpoint's address; see `of`.
    """

    connection: Connection
    endpoint: str

    @classmethod
    def of(cls, connection: Connection, url: SecretStr) -> "Breaker":
        """The breaker of an address. The address is a secret, so the key is a hash of it."""
        return cls(connection, hashlib.sha256(url.get_secret_value().encode()).hexdigest()[:32])

    def lets_through(self, now: datetime) -> bool:
        """Whether the endpoint may get a request: it is neither disabled nor in a pause."""
        row = self.connection.execute(
            "SELECT disabled_at IS NULL AND (not_before IS NULL OR not_before <= %s) "
            "FROM obs.webhook_endpoints WHERE endpoint = %s",
            [now, self.endpoint],
        ).fetchone()
        # An endpoint without a row has never failed since its last reset.
        return row is None or bool(row[0])

    def record_outcome(
        self,
        now: datetime,
        *,
        failed: bool,
        asked_wait_s: float | None,
        gone: bool,
        jitter: float,
    ) -> None:
        """Record an answer. `BREAKS_AFTER` failures in a row, or a request to wait, start a pause.

        Args:
            now: time of the answer.
            failed: whether the endpoint failed, so that a later attempt may succeed. The refusal of
                a single request is no failure of the endpoint.
            asked_wait_s: seconds of pause that the receiver asked for.
            gone: whether the receiver answered 410; the endpoint is then disabled.
            jitter: number from 0 to 1: part of the second half of a pause that is waited.
        """
        not_before = None
        if asked_wait_s:
            not_before = now + timedelta(seconds=asked_wait_s)
        # 410 means that the address will never work again; only a retry by a user enables it.
        disabled_at = now if gone else None
        # The database counts: several processes send to the same endpoint.
        row = self.connection.execute(
            _RECORD_OUTCOME, [self.endpoint, int(failed), not_before, disabled_at]
        ).fetchone()
        assert row  # noqa: S101 - an upsert always returns its row
        failures = int(row[0])
        if failed and failures >= BREAKS_AFTER:
            pause_s = _longest_pause_s(failures) * (1 + jitter) / 2
            self.connection.execute(_PAUSE, [now + timedelta(seconds=pause_s), self.endpoint])

    def reset(self) -> None:
        """Forget failures, pause and 410, because a user retries a dispatch to the endpoint."""
        self.connection.execute(
            "DELETE FROM obs.webhook_endpoints WHERE endpoint = %s", [self.endpoint]
        )


def _longest_pause_s(failures: int) -> float:
    """Seconds of pause after a number of failures in a row, before jitter shortens them."""
    doublings = min(failures - BREAKS_AFTER, _MOST_DOUBLINGS)
    factor: int = 2**doublings
    return min(LONGEST_WAIT_S, BROKEN_S * factor)
