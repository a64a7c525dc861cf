"""Send the dispatches that are due.

::

    claim ─▶ send ─▶ sent      the receiver accepted the dispatch
      ▲       │ ───▶ failed    the receiver refused it for good, or it was retried too long
      │       └────▶ pending   a later drain sends it; this drain ends
      └── next dispatch after sent, and after failed unless retries were given up
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from obs_assets.crash import crash_point
from obs_assets.delivery.breaker import Breaker
from obs_assets.delivery.dispatches import Claimed, Dispatches, State
from obs_assets.destinations.sending import LONGEST_PAUSE_S
from obs_assets.destinations.webhook import (
    GoneError,
    RateLimitedError,
    WebhookConfig,
    WebhookSender,
)
from obs_assets.errors import PermanentError, TransientError
from obs_assets.storage.postgres import Connection

PATIENCE_S = 5.0
"""Longest wait inside a drain, in seconds. A longer wait, and each wait that the receiver asked
for, is written into ``next_attempt_at`` instead."""

_MOST_BACKOFFS = 50
"""Limit of the exponent, so that many attempts make no number beyond the range of floats."""

_MARGIN_S = 60
"""Seconds added to the longest time that attempts can take, for the database's own work."""

_COUNTS = (
    "total_events_sent",
    "total_requests_sent",
    "total_requests_succeeded",
    "total_requests_failed",
    "total_retries",
    "total_rate_limited",
)
"""Names of the counts; requests include the repeated requests."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AttemptResult:
    """The result of sending a dispatch in a drain.

    Attributes:
        state: new state of the dispatch.
        requests: number of requests that were made.
        rate_limited: number of those requests that got the answer 429.
        error: message of the last failure.
        asked_wait_s: seconds of pause that the receiver asked for.
        gone: the receiver answered 410.
        transient: the last failure was of a kind that may pass.
    """

    state: State
    requests: int
    rate_limited: int = 0
    error: str | None = None
    asked_wait_s: float | None = None
    gone: bool = False
    transient: bool = False


@dataclass(frozen=True)
class SenderDeps:
    """The parts that a drain needs beside the outbox.

    Attributes:
        sender: makes the requests.
        clock: gives the time, UTC.
        sleep: waits a number of seconds between attempts.
        jitter: gives a number from 0 to 1: part of the second half of a wait that is waited.
        breaker: the breaker of the address.
    """

    sender: WebhookSender
    clock: Callable[[], datetime]
    sleep: Callable[[float], None]
    jitter: Callable[[], float]
    breaker: Breaker


@dataclass(frozen=True)
class Drain:
    """A pass over the dispatches that are due. Several drains may run at once.

    Attributes:
        connection: connection in autocommit mode: each dispatch gets its own transaction.
        destination: name of the destination whose dispatches are sent.
        config: configuration of the receiver; its ``url`` is set.
        deps: the sender, the clock and the waits.
        counts: name → count of this drain; see `stats`.
    """

    connection: Connection
    destination: str
    config: WebhookConfig
    deps: SenderDeps
    counts: Counter[str] = field(default_factory=Counter)

    def run(self, now: datetime) -> None:
        """Send the dispatches that are due, one after another; stop at the first that its receiver does not take."""
        while self._send_next(now):
            pass

    def _send_next(self, now: datetime) -> bool:
        """Claim a dispatch, send it and record the result; False when the drain is over.

        The claim is a row lock, which ends with this process. If the machine loses its network or
        its power, PostgreSQL ends the transaction after the longest time that attempts can take.
        """
        dispatches = Dispatches(self.connection, self.destination)
        breaker = self.deps.breaker
        with self.connection.transaction():
            # Otherwise a machine that vanished would keep its claim until TCP gives up, after hours.
            self.connection.execute(
                "SELECT set_config('idle_in_transaction_session_timeout', %s, true)",
                [f"{self._longest_s():.0f}s"],
            )
            claimed = dispatches.claim(now)
            # The last question, because it can make this drain the one that probes the endpoint.
            if claimed is None or not breaker.admit(now):
                return False
            # A crash between the answer and the commit sends the dispatch again, with the same id.
            crash_point("webhook.before_send")
            result = self._attempt(claimed)
            crash_point("webhook.after_send")
            self._record(dispatches, claimed, result)
            self._tell_breaker(result)
        self._count(result, claimed.events)
        # After a dispatch that its receiver refuses, the next may pass; after an outage it cannot.
        return result.state == "sent" or (result.state == "failed" and not result.transient)

    def _tell_breaker(self, result: AttemptResult) -> None:
        """Record a result. The refusal of a single dispatch is no failure of the endpoint."""
        breaker, now = self.deps.breaker, self.deps.clock()
        reason = result.error or ""
        if result.gone:
            # 410 means that the address will never work again; only a retry by a user enables it.
            breaker.gone(now, reason)
        elif result.transient:
            breaker.failed(
                now, reason, asked_wait_s=result.asked_wait_s, jitter=self.deps.jitter()
            )
        else:
            breaker.passed()

    def _attempt(self, claimed: Claimed) -> AttemptResult:
        """Send a dispatch, and give it up when it has failed for ``give_up_after_hours``."""
        result = self._requests(claimed)
        if result.state != "pending":
            return result
        gives_up_after = timedelta(hours=self.config.give_up_after_hours)
        if self.deps.clock() - claimed.created_at <= gives_up_after:
            return result
        error = f"{result.error}; given up after {gives_up_after}"
        return replace(result, state="failed", error=error)

    def _requests(self, claimed: Claimed) -> AttemptResult:
        """Repeat the request until it is accepted or refused, or the next wait is too long."""
        rate_limited = 0
        for attempt in range(1, self.config.max_retries + 1):
            try:
                self.deps.sender.send(claimed.body, claimed.content_type, claimed.webhook_id)
            except PermanentError as error:
                return AttemptResult(
                    state="failed",
                    requests=attempt,
                    rate_limited=rate_limited,
                    error=str(error),
                    gone=isinstance(error, GoneError),
                )
            except TransientError as error:
                rate_limited += isinstance(error, RateLimitedError)
                wait_s = self._jittered(self._backoff_s(attempt))
                # A wait that the receiver asked for concerns all dispatches, so the drain ends.
                is_last = attempt == self.config.max_retries
                if is_last or wait_s > PATIENCE_S or error.retry_after_s:
                    return AttemptResult(
                        state="pending",
                        requests=attempt,
                        rate_limited=rate_limited,
                        error=str(error),
                        asked_wait_s=error.retry_after_s,
                        transient=True,
                    )
                self.deps.sleep(wait_s)
            else:
                return AttemptResult("sent", attempt, rate_limited)
        raise AssertionError("max_retries is at least 1")

    def _record(self, dispatches: Dispatches, claimed: Claimed, result: AttemptResult) -> None:
        """Record the result of a dispatch; a pause that was asked for moves all dispatches."""
        now, webhook_id = self.deps.clock(), claimed.webhook_id
        backoff_s = self._jittered(self._backoff_s(claimed.attempts + result.requests))
        wait_s = max(backoff_s, result.asked_wait_s or 0)
        is_pending = result.state == "pending"
        again_at = now
        if is_pending:
            again_at += timedelta(seconds=wait_s)
        sent_at = now if result.state == "sent" else None
        dispatches.set_state(
            webhook_id,
            result.state,
            requests=result.requests,
            due=again_at,
            sent_at=sent_at,
            error=result.error,
        )
        # The receiver limits all requests of this address, not the request that it refused.
        if result.asked_wait_s:
            dispatches.postpone_all(now + timedelta(seconds=result.asked_wait_s))
        reason = f"{self.destination}: {result.error}; dispatch {webhook_id}"
        if is_pending:
            _log.warning("%s is tried again in %.0f s or later", reason, wait_s)
        elif result.state == "failed":
            _log.error("%s is not sent; send it with `obs alerts retry`", reason)

    def _jittered(self, seconds: float) -> float:
        """Between half of a wait and all of it, so that processes do not return together."""
        return seconds * (1 + self.deps.jitter()) / 2

    def _backoff_s(self, attempts: int) -> float:
        """Seconds to wait after a number of attempts, before jitter shortens them."""
        factor = self.config.retry_backoff ** min(attempts - 1, _MOST_BACKOFFS)
        return float(min(LONGEST_PAUSE_S, self.config.retry_delay_s * factor))

    def _longest_s(self) -> float:
        """Longest time that the attempts at a dispatch can take, in seconds."""
        between_s = PATIENCE_S + 1 / (self.config.rate_limit or 1)
        return _MARGIN_S + self.config.max_retries * (self.config.timeout_s + between_s)

    def _count(self, result: AttemptResult, events: int) -> None:
        sent = result.state == "sent"
        self.counts["total_events_sent"] += events * sent
        self.counts["total_requests_sent"] += result.requests
        self.counts["total_requests_succeeded"] += sent
        self.counts["total_requests_failed"] += result.requests - sent
        self.counts["total_retries"] += result.requests - 1
        self.counts["total_rate_limited"] += result.rate_limited


def stats(counts: Mapping[str, int]) -> dict[str, int | float]:
    """Each count of `_COUNTS`, zeros included, and the success rate.

    The rate is the part of the requests that succeeded, from 0 to 1; it is 1 without requests.
    """
    requests = counts.get("total_requests_sent", 0)
    rate = 1.0
    if requests:
        rate = counts["total_requests_succeeded"] / requests
    return {name: counts.get(name, 0) for name in _COUNTS} | {"success_rate": rate}
