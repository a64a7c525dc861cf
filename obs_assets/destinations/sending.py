"""Senders: functions that take a request and return the answer of its receiver. They nest.

::

    retried(balanced(limited(post)))                 a request, to a door of a store
    failover(guarded(deliver), guarded(deliver))     an hour, see `obs_assets.delivery`

Each function here takes a sender and returns a sender with the same argument, so that the author of a
destination writes the innermost sender only.

The number of requests at the same time follows the receiver: it grows while answers are as quick as they
were, and shrinks when answers become slow or the receiver has no time (additive increase, multiplicative
decrease). The rule and its constants are those of Vector's adaptive request concurrency:
https://vector.dev/docs/architecture/arc/.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol, TypeVar

from obs_assets.errors import ConfigurationError, TransientError

Thing = TypeVar("Thing")
Answer = TypeVar("Answer")
Result = TypeVar("Result")

FIRST_WAIT_S = 0.5
"""Seconds before the second attempt; each further wait is twice as long."""

LONGEST_WAIT_S = 30.0
"""Seconds that an attempt waits at most, whatever ``Retry-After`` says."""

LONGEST_PAUSE_S = 3600.0
"""Seconds of the longest pause that a ``Retry-After`` can ask for."""

MOST_IN_FLIGHT_BYTES = 32 << 20
"""Bytes of requests of a destination that are under way or wait in memory."""

FIRST_CONCURRENCY = 4.0
"""Requests at the same time before anything is known about the receiver."""

DECREASE = 0.9
"""Part of the concurrency that is left when answers become slow or the receiver has no time."""

SMOOTHING = 0.4
"""Weight of the newest answer in the averages of the time and of its deviation."""

DEVIATIONS = 2.5
"""Deviations above the average time from which an answer counts as slow."""

SLOWER = 0.25
"""Part of the average time by which a slow answer is later at least: the first deviations are tiny."""


class UnansweredError(TransientError):
    """A request got no answer. It can have arrived: an append-only receiver may have it twice."""


@dataclass
class Request:
    """A request to a receiver.

    Attributes:
        method: ``GET``, ``PUT``, ``POST`` or ``DELETE``.
        path: path and query, without the first slash; empty for a receiver without paths.
        body: body, or None.
        headers: further headers.
        lost: attempts that may have arrived although no answer came; `retried` counts them.
    """

    method: str = "POST"
    path: str = ""
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    lost: int = 0

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.body or b"")


class Gate(Protocol):
    """Sets a door aside that fails; see `obs_assets.delivery.breaker.Breaker`."""

    def admit(self, now: datetime) -> bool:
        """Whether a request may be made now."""

    def passed(self) -> None:
        """Record an answer."""

    def failed(self, now: datetime, reason: str) -> None:
        """Record a failure."""

    def is_open(self, now: datetime) -> bool:
        """Whether no request passes now. Asking changes nothing."""


# -- attempts


def retried(
    send: Callable[[Request], Answer],
    max_retries: int,
    sleep: Callable[[float], object] = time.sleep,
) -> Callable[[Request], Answer]:
    """The same sender, with further attempts after a `TransientError`.

    Args:
        send: sends a request.
        max_retries: further attempts.
        sleep: waits for a number of seconds.
    """

    def send_again(request: Request) -> Answer:
        for attempt in range(max_retries):
            try:
                return send(request)
            except TransientError as error:
                request.lost += isinstance(error, UnansweredError)
                sleep(wait_s(attempt, error.retry_after_s))
        try:
            return send(request)
        except UnansweredError:
            request.lost += 1
            raise

    return send_again


def wait_s(attempt: int, asked_s: float | None = None) -> float:
    """Seconds to wait after a failed attempt.

    Args:
        attempt: number of the attempt, from 0.
        asked_s: seconds that the receiver asked for.
    """
    # At random between half and the whole time, so that several runs do not come back together.
    waited = FIRST_WAIT_S * 2**attempt * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
    return float(min(max(waited, asked_s or 0.0), LONGEST_WAIT_S))


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """Seconds of pause that ``Retry-After`` asks for, at most `LONGEST_PAUSE_S`.

    Args:
        header: a number of seconds, for example ``120``, or a date, for example
            ``Wed, 21 Oct 2026 07:28:00 GMT``. Other text gives None.
        now: the present time, UTC.
    """
    if not header:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_PAUSE_S)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - now).total_seconds()), LONGEST_PAUSE_S)


# -- backpressure


class Limit:
    """The number of requests that may be under way at the same time; it adapts to the receiver.

    Args:
        most: largest number of requests.
        clock: gives seconds that never go back.
        is_fixed: keep the number at ``most``.
    """

    def __init__(
        self,
        most: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        is_fixed: bool = False,
    ) -> None:
        self.most = most
        self._clock = clock
        self._is_fixed = is_fixed
        self._allowed = float(most) if is_fixed else min(FIRST_CONCURRENCY, most)
        self._under_way = 0
        self._has_trouble = False
        self._changed_at = clock()
        self._full_at = self._changed_at - 1
        self._paused_until = 0.0
        self._mean_s = 0.0
        self._deviation_s = 0.0
        self._changed = threading.Condition()

    @property
    def allowed(self) -> int:
        """Requests that may be under way now."""
        return int(self._allowed)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Wait for a place among the requests under way, and learn from the request in the block."""
        began_at = self._enter()
        try:
            yield
        except TransientError as error:
            self._leave(began_at, is_busy=True, pause_s=error.retry_after_s or 0.0)
            raise
        except BaseException:
            self._leave(began_at, is_busy=False)
            raise
        self._leave(began_at, is_busy=False)

    def _enter(self) -> float:
        with self._changed:
            while True:
                pause_s = self._paused_until - self._clock()
                if pause_s <= 0 and self._under_way < self.allowed:
                    self._under_way += 1
                    if self._under_way >= self.allowed:
                        self._full_at = self._clock()
                    return self._clock()
                # A pause ends without a notice.
                self._changed.wait(pause_s if pause_s > 0 else None)

    def _leave(self, began_at: float, *, is_busy: bool, pause_s: float = 0.0) -> None:
        now = self._clock()
        with self._changed:
            # A larger number is of use only if this number was reached.
            was_full = self._full_at >= began_at or self._under_way >= self.allowed
            self._under_way -= 1
            if is_busy and not self._is_fixed:
                # All wait until a place is free at the receiver, so that a request is rarely refused twice.
                pause_s = max(pause_s, self._mean_s / self._allowed)
            if pause_s:
                until = now + min(pause_s, LONGEST_WAIT_S)
                self._paused_until = max(self._paused_until, until)
            if not self._is_fixed:
                self._adapt(began_at, now, is_busy=is_busy, was_full=was_full)
            self._changed.notify_all()

    def _adapt(self, began_at: float, now: float, *, is_busy: bool, was_full: bool) -> None:
        elapsed_s = now - began_at
        margin_s = max(DEVIATIONS * self._deviation_s, SLOWER * self._mean_s)
        is_slow = 0 < self._mean_s + margin_s < elapsed_s
        if not is_busy:
            difference_s = elapsed_s - self._mean_s
            if self._mean_s:
                self._deviation_s += SMOOTHING * (abs(difference_s) - self._deviation_s)
            self._mean_s += (SMOOTHING if self._mean_s else 1.0) * difference_s
        # Answers to requests that began before the last change speak of the old number.
        self._has_trouble |= (is_busy or is_slow) and began_at >= self._changed_at
        # A decision for each round: refusals come at once, and would add up.
        if now - self._changed_at < self._mean_s:
            return
        if self._has_trouble:
            self._allowed = max(1.0, self._allowed * DECREASE)
        elif was_full:
            self._allowed = min(float(self.most), self._allowed + 1)
        self._changed_at = now
        self._has_trouble = False


def limited(send: Callable[[Thing], Answer], limit: Limit) -> Callable[[Thing], Answer]:
    """The same sender, within a limit of requests at the same time."""

    def send_within(thing: Thing) -> Answer:
        with limit.slot():
            return send(thing)

    return send_within


def flow(
    things: Iterable[Thing],
    work: Callable[[Thing], Result],
    limit: Limit,
    size: Callable[[Thing], int],
    *,
    most_bytes: int = MOST_IN_FLIGHT_BYTES,
    begun_per_request: int = 2,
) -> Iterator[Result]:
    """The results of ``work`` for each thing, in any order. Things wait for the receiver, not in memory.

    At most ``most_bytes`` are in memory, unless a single thing is larger. After an error no further thing is
    begun, the others end, and the error is raised.

    Args:
        things: the things; they are taken when there is room.
        work: sends a thing; called in several threads.
        limit: the limit of the sender.
        size: bytes of a thing.
        most_bytes: largest number of bytes of the things in memory.
        begun_per_request: things that are begun and not done, for each request that the limit allows. With
            2, a thing that waits for another attempt leaves its place to another thing.
    """
    sizes: dict[Future[Result], int] = {}
    with ThreadPoolExecutor(begun_per_request * limit.most) as pool:

        def settled() -> Iterator[Result]:
            done, _ = wait(sizes, return_when=FIRST_COMPLETED)
            for future in done:
                del sizes[future]
                yield future.result()

        try:
            for thing in things:
                length = size(thing)
                while sizes and (
                    len(sizes) >= begun_per_request * limit.allowed
                    or sum(sizes.values()) + length > most_bytes
                ):
                    yield from settled()
                sizes[pool.submit(work, thing)] = length
            while sizes:
                yield from settled()
        except BaseException:
            for future in sizes:
                future.cancel()
            raise


# -- doors


class Doors:
    """The doors of a store: addresses that lead to the same events, such as the nodes of a cluster.

    Args:
        urls: the addresses, at least one.
        gates: the gate of each; None: no door is set aside.
        clock: gives the time, UTC.
    """

    def __init__(
        self,
        urls: Sequence[str],
        gates: Sequence[Gate] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.urls = tuple(urls)
        # A single door has no other to go to; the breaker of its destination stops the hours.
        has_choice = gates is not None and len(urls) > 1
        self._gates = dict(zip(urls, gates or (), strict=False)) if has_choice else {}
        self._clock = clock
        self._bytes: Counter[str] = Counter()
        self._turns: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def taken(self, size: int) -> Iterator[str]:
        """A door for a request of this size: the healthy door with the least outstanding bytes.

        If every door is set aside, one of them is tried all the same.

        Raises:
            TransientError: as the caller's request; also if this door has a wrong certificate or refuses
                the credentials, and another door may take the request.
        """
        with self._lock:
            url = self._choose()
            self._bytes[url] += size
            self._turns[url] += 1
        gate = self._gates.get(url)
        try:
            yield url
        except TransientError as error:
            # A door that asks to wait is healthy; `Limit` waits.
            if gate and error.retry_after_s is None:
                gate.failed(self._clock(), str(error))
            raise
        except ConfigurationError as error:
            if gate is None:
                raise
            gate.failed(self._clock(), str(error))
            if self._has_other(url):
                raise TransientError(str(error)) from None
            raise
        else:
            if gate:
                gate.passed()
        finally:
            with self._lock:
                self._bytes[url] -= size

    def _has_other(self, url: str) -> bool:
        """Whether a door beside this door is not set aside."""
        now = self._clock()
        return any(not gate.is_open(now) for other, gate in self._gates.items() if other != url)

    def _choose(self) -> str:
        # Doors without requests take turns.
        nearest = sorted(self.urls, key=lambda url: (self._bytes[url], self._turns[url]))
        for url in nearest:
            if url not in self._gates or self._gates[url].admit(self._clock()):
                return url
        return nearest[0]


def doors_of(urls: Sequence[str], gate: Callable[[str], Gate] | None) -> Doors:
    """The doors at these addresses, with a gate each if ``gate`` makes gates."""
    if gate is None:
        return Doors(urls)
    return Doors(urls, [gate(url) for url in urls])


def balanced(
    send_to: Callable[[str, Request], Answer], doors: Doors
) -> Callable[[Request], Answer]:
    """A sender that chooses a door for each request.

    Args:
        send_to: sends a request to an address.
        doors: the doors of the store.
    """

    def send(request: Request) -> Answer:
        with doors.taken(request.size) as url:
            return send_to(url, request)

    return send
