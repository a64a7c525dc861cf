"""Sending what is due: claim a dispatch, send it, write down what became of it, and stop when nobody answers."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from obs_assets.crash import crash_point
from obs_assets.delivery.breaker import Breaker
from obs_assets.delivery.dispatches import Claimed, Dispatches, State
from obs_assets.destinations.webhook import (
    LONGEST_WAIT_S,
    GoneError,
    RateLimitedError,
    WebhookConfig,
    WebhookSender,
)
from obs_assets.errors import PermanentError, TransientError
from obs_assets.storage.postgres import Connection

PATIENCE_S = 5.0
"""The longest wait inside a drain; a longer one, and any that is asked for, is written into ``next_attempt_at``."""

_COUNTS = (
    "total_events_sent",
    "total_requests_sent",
    "total_requests_succeeded",
    "total_requests_failed",
    "total_retries",
    "total_rate_limited",
)
"""Names of the counts; requests include the repeated ones."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attempts:
    """What became of a dispatch in one drain: its new state, and the requests that it took."""

    state: State
    requests: int
    rate_limited: int = 0
    error: str | None = None
    asked_wait_s: float | None = None
    gone: bool = False
    transient: bool = False


@dataclass(frozen=True)
class Means:
    """What sending takes beside the outbox.

    Attributes:
        sender: makes the requests.
        clock: the time, UTC.
        sleep: waits between attempts.
        jitter: between 0 and 1: how much of the second half of a wait is waited.
    """

    sender: WebhookSender
    clock: Callable[[], datetime]
    sleep: Callable[[float], None]
    jitter: Callable[[], float]


@dataclass(frozen=True)
class Drain:
    """One go at everything that is due. Several may run at once: each takes what no other has claimed.

    Attributes:
        connection: in autocommit mode: each dispatch is a transaction.
        destination: whose dispatches.
        config: of the receiver, its url set.
        means: what it takes to send.
        counts: of this drain, by name.
    """

    connection: Connection
    destination: str
    config: WebhookConfig
    means: Means
    counts: Counter[str] = field(default_factory=Counter)

    def run(self, now: datetime) -> None:
        """Send every dispatch that is due, up to the first that the receiver could not take."""
        while self._send_one(now):
            pass

    def _send_one(self, now: datetime) -> bool:
        """Claim, send and mark one dispatch; False when the drain is over.

        The claim is a row lock: it goes when this process does. A machine that vanishes without a word is let go of
        once it is idle for longer than the attempts can take.
        """
        assert self.config.url  # noqa: S101 - who has a sender has an address
        dispatches = Dispatches(self.connection, self.destination)
        breaker = Breaker.of(self.connection, self.config.url)
        with self.connection.transaction():
            if not breaker.lets_through(now):
                return False
            self.connection.execute(
                "SELECT set_config('idle_in_transaction_session_timeout', %s, true)",
                [f"{self._longest_s():.0f}s"],
            )
            claimed = dispatches.claim(now)
            if claimed is None:
                return False
            crash_point("webhook.before_send")
            result = self._attempt(claimed)
            crash_point("webhook.after_send")
            self._mark(dispatches, claimed, result)
            breaker.mark(
                self.means.clock(),
                failed=result.transient,
                asked_wait_s=result.asked_wait_s,
                gone=result.gone,
                jitter=self.means.jitter(),
            )
        self._count(result, claimed.events)
        return result.state == "sent" or (result.state == "failed" and not result.transient)

    def _attempt(self, claimed: Claimed) -> Attempts:
        """Send until it is taken, refused, given up, or not worth waiting for here."""
        result = self._requests(claimed)
        gives_up_after = timedelta(hours=self.config.give_up_after_hours)
        if (
            result.state == "pending"
            and self.means.clock() - claimed.created_at > gives_up_after
        ):
            return replace(
                result, state="failed", error=f"{result.error}; given up after {gives_up_after}"
            )
        return result

    def _requests(self, claimed: Claimed) -> Attempts:
        rate_limited = 0
        for attempt in range(1, self.config.max_retries + 1):
            try:
                self.means.sender.send(claimed.body, claimed.content_type, claimed.webhook_id)
            except PermanentError as error:
                return Attempts(
                    "failed",
                    attempt,
                    rate_limited,
                    str(error),
                    gone=isinstance(error, GoneError),
                )
            except TransientError as error:
                rate_limited += isinstance(error, RateLimitedError)
                wait_s = self._jittered(self._backoff_s(attempt))
                if (
                    attempt == self.config.max_retries
                    or wait_s > PATIENCE_S
                    or error.retry_after_s
                ):
                    return Attempts(
                        "pending",
                        attempt,
                        rate_limited,
                        str(error),
                        error.retry_after_s,
                        transient=True,
                    )
                self.means.sleep(wait_s)
            else:
                return Attempts("sent", attempt, rate_limited)
        raise AssertionError("max_retries is at least 1")

    def _mark(self, dispatches: Dispatches, claimed: Claimed, result: Attempts) -> None:
        now, webhook_id = self.means.clock(), claimed.webhook_id
        wait_s = max(
            self._jittered(self._backoff_s(claimed.attempts + result.requests)),
            result.asked_wait_s or 0,
        )
        again_at = now + timedelta(seconds=wait_s) if result.state == "pending" else now
        sent_at = now if result.state == "sent" else None
        dispatches.mark(
            webhook_id,
            result.state,
            requests=result.requests,
            due=again_at,
            sent_at=sent_at,
            error=result.error,
        )
        if result.asked_wait_s:
            dispatches.postpone_all(now + timedelta(seconds=result.asked_wait_s))
        said = f"{self.destination}: {result.error}; dispatch {webhook_id}"
        if result.state == "pending":
            _log.warning("%s is tried again in %.0f s or later", said, wait_s)
        elif result.state == "failed":
            _log.error("%s is not sent, `obs alerts retry` does", said)

    def _jittered(self, seconds: float) -> float:
        return seconds * (1 + self.means.jitter()) / 2

    def _backoff_s(self, attempts: int) -> float:
        return float(
            min(
                LONGEST_WAIT_S,
                self.config.retry_delay_s * self.config.retry_backoff ** min(attempts - 1, 50),
            )
        )

    def _longest_s(self) -> float:
        between_s = PATIENCE_S + 1 / (self.config.rate_limit or 1)
        return 60 + self.config.max_retries * (self.config.timeout_s + between_s)

    def _count(self, result: Attempts, events: int) -> None:
        sent = result.state == "sent"
        self.counts["total_events_sent"] += events * sent
        self.counts["total_requests_sent"] += result.requests
        self.counts["total_requests_succeeded"] += sent
        self.counts["total_requests_failed"] += result.requests - sent
        self.counts["total_retries"] += result.requests - 1
        self.counts["total_rate_limited"] += result.rate_limited


def stats(counts: Mapping[str, int]) -> dict[str, int | float]:
    """Every count, zeros included, and the success rate: 1 when nothing had to be sent."""
    requests = counts.get("total_requests_sent", 0)
    rate = counts["total_requests_succeeded"] / requests if requests else 1.0
    return {name: counts.get(name, 0) for name in _COUNTS} | {"success_rate": rate}
