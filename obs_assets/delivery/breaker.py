"""Circuit breakers: an endpoint that fails gets no requests for a while, and then a single probe.

::

    closed ── failures in a row ─▶ open ── the pause is over ─▶ half open, one probe
      ▲                             ▲                              │        │
      │                             └────────── it failed ─────────┘        │
      └──────────────────────────────────────── it passed ──────────────────┘

Runs are short processes, so the state of a breaker is a file in ``OBS_DATA_DIR/breakers``. Each write
replaces the whole file, and a lock orders the writers. A closed breaker without failures has no file; to
close a breaker by hand, remove its file.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import AwareDatetime, SecretStr, TypeAdapter

from obs_assets.errors import HourBusyError, ObsError, PermanentError, TransientError
from obs_assets.storage.disk import locked, make_private_dir, replacing

BREAKS_AFTER = 5
"""Failed requests in a row after which an endpoint gets no requests for a while."""

HOURS_BEFORE_BREAK = 3
"""Failed deliveries in a row after which a destination gets no hours; each has retried its requests."""

REQUESTS_BEFORE_ASIDE = 2
"""Failed requests in a row after which a door is set aside: there are other doors."""

BROKEN_S = 30.0
"""Seconds of the first pause; each further failure doubles the pause, up to `LONGEST_PAUSE_S`."""

LONGEST_PAUSE_S = 900.0
"""Seconds of the longest pause, unless the receiver asks for a longer one."""

PROBE_S = 600.0
"""Seconds that a probe may take. If its process dies, the next probe is let through after this time."""

FARTHEST_S = 3600.0
"""Seconds until the end of the longest pause of all, which a receiver can ask for."""

LOCK_WAIT_S = 10.0
"""Seconds to wait for another process that changes the same breaker."""

_MOST_DOUBLINGS = 10
"""Limit of the exponent, so that a long row of failures makes no huge number."""

_LONGEST_REASON = 500
"""Characters of a reason that are kept."""

Stage = Literal["closed", "open", "half open"]
"""Whether requests pass, none passes, or the next request is a probe."""

Thing = TypeVar("Thing")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class BreakerState:
    """The state of a breaker, as its file holds it.

    Attributes:
        name: the endpoint in words, for example ``splunk_events``.
        failures: failures in a row.
        failing_since: time of the first of these failures, UTC; None without a failure.
        not_before: no request passes before this time, UTC; None: requests pass.
        reason: message of the last failure.
        is_gone: the endpoint has answered that it will never work again.
    """

    name: str = ""
    failures: int = 0
    failing_since: AwareDatetime | None = None
    not_before: AwareDatetime | None = None
    reason: str = ""
    is_gone: bool = False

    def stage(self, now: datetime) -> Stage:
        """The stage at a time, UTC."""
        if self.is_gone:
            return "open"
        if self.not_before is None:
            return "closed"
        # A later end was written while the clock of this machine was ahead: it would never come.
        latest = now + timedelta(seconds=FARTHEST_S)
        return "open" if now < self.not_before <= latest else "half open"

    def sentence(self, now: datetime) -> str:
        """Since when and why the endpoint gets no requests; empty if it gets them.

        For example ``open since 2025-12-04T10:02:00Z, asked again at 10:07:31: … cannot be reached``.
        """
        stage = self.stage(now)
        if stage == "closed":
            return ""
        since = ""
        if self.failing_since:
            since = f" since {self.failing_since:%Y-%m-%dT%H:%M:%SZ}"
        again = "asked with the next hour"
        if self.is_gone:
            again = "not asked again"
        elif self.not_before and stage == "open":
            again = f"asked again at {self.not_before:%H:%M:%S} UTC"
        return f"{stage}{since}, {again}: {self.reason}"


_STATES = TypeAdapter(BreakerState)

CLOSED = BreakerState()
"""The state of an endpoint that has not failed."""


@dataclass(frozen=True)
class Breaker:
    """The breaker of an endpoint.

    Attributes:
        path: its file.
        name: the endpoint in words.
        breaks_after: failures in a row that start a pause.
    """

    path: Path
    name: str
    breaks_after: int = BREAKS_AFTER

    def state(self) -> BreakerState:
        """The present state. A file that cannot be read counts as missing: the endpoint is asked."""
        try:
            return _STATES.validate_json(self.path.read_bytes())
        except (OSError, ValueError):
            return CLOSED

    def is_open(self, now: datetime) -> bool:
        """Whether no request passes now."""
        return self.state().stage(now) == "open"

    def admit(self, now: datetime) -> bool:
        """Whether a request may be made now. In the stage ``half open`` this caller makes the probe."""
        # The usual case costs no lock.
        if self.state() == CLOSED:
            return True
        with self._alone():
            state = self.state()
            stage = state.stage(now)
            if stage == "half open":
                until = now + timedelta(seconds=PROBE_S)
                self._write(replace(state, not_before=until))
            return stage != "open"

    def passed(self) -> None:
        """Record an answer: the endpoint works."""
        if self.path.exists():
            with self._alone():
                self.path.unlink(missing_ok=True)

    def failed(
        self,
        now: datetime,
        reason: str,
        *,
        asked_wait_s: float | None = None,
        jitter: float = 1.0,
    ) -> None:
        """Record a failure. `breaks_after` failures in a row, or a request to wait, start a pause.

        Args:
            now: time of the failure, UTC.
            reason: message of the failure; without event text and secrets, as all messages are.
            asked_wait_s: seconds of pause that the receiver asked for.
            jitter: number from 0 to 1: part of the second half of a pause that is waited.
        """
        with self._alone():
            before = self.state()
            failures = before.failures + 1
            pause_s = asked_wait_s or 0.0
            if failures >= self.breaks_after:
                longest_s = _longest_pause_s(failures - self.breaks_after)
                pause_s = max(pause_s, longest_s * (1 + jitter) / 2)
            not_before = None
            if pause_s:
                not_before = now + timedelta(seconds=pause_s)
            self._write(
                BreakerState(
                    self.name,
                    failures,
                    # A later time was written while the clock was ahead.
                    min(before.failing_since or now, now),
                    not_before,
                    reason[:_LONGEST_REASON],
                )
            )

    def gone(self, now: datetime, reason: str) -> None:
        """Record that the endpoint will never work again; only `reset` lets requests pass."""
        state = BreakerState(self.name, 1, now, None, reason[:_LONGEST_REASON], is_gone=True)
        with self._alone():
            self._write(state)

    def undecided(self, now: datetime) -> None:
        """Give a probe back whose result says nothing about the endpoint."""
        with self._alone():
            state = self.state()
            if state.not_before:
                self._write(replace(state, not_before=min(state.not_before, now)))

    def restore(self, state: BreakerState) -> None:
        """Take a state over from another store, unless there is a state."""
        with self._alone():
            if not self.path.exists():
                self._write(state)

    def reset(self) -> None:
        """Forget failures, pause and 410, because a user asks for the endpoint."""
        self.passed()

    def _write(self, state: BreakerState) -> None:
        with replacing(self.path) as tmp_path:
            tmp_path.write_bytes(_STATES.dump_json(state))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other writers out.

        Raises:
            TransientError: another process holds the lock.
        """
        make_private_dir(self.path.parent)
        try:
            with locked(self.path.with_suffix(".lock"), wait_s=LOCK_WAIT_S):
                yield
        except BlockingIOError:
            raise TransientError(
                f"the breaker {self.path} is locked by another process: try again"
            ) from None


@dataclass(frozen=True)
class Breakers:
    """The breakers of a data folder.

    Attributes:
        folder: folder of their files, ``OBS_DATA_DIR/breakers``.
    """

    folder: Path

    def of_destination(self, ledger_name: str) -> Breaker:
        """The breaker of a destination: its failures are failed deliveries of hours."""
        return Breaker(self.folder / f"{ledger_name}.json", ledger_name, HOURS_BEFORE_BREAK)

    def of_door(self, ledger_name: str, url: str) -> Breaker:
        """The breaker of a door of a destination, see `obs_assets.destinations.sending.Doors`."""
        name = f"{ledger_name} at {url}"
        digest = hash_of(SecretStr(name))
        return Breaker(self.folder / f"door-{digest}.json", name, REQUESTS_BEFORE_ASIDE)

    def of_address(self, name: str, url: SecretStr) -> Breaker:
        """The breaker of an address, which several destinations can share.

        Args:
            name: the endpoint in words.
            url: the address, which can hold a secret: the name of the file is a hash of it.
        """
        return Breaker(self.folder / f"address-{hash_of(url)}.json", name)


def hash_of(url: SecretStr) -> str:
    """The first 32 digits of the SHA-256 of an address."""
    return hashlib.sha256(url.get_secret_value().encode()).hexdigest()[:32]


def guarded(
    send: Callable[[Thing], Answer], breaker: Breaker, clock: Callable[[], datetime]
) -> Callable[[Thing], Answer]:
    """The same sender, behind a breaker.

    Args:
        send: sends a thing, for example offers an hour to a destination.
        breaker: the breaker of its receiver.
        clock: gives the time, UTC.

    Raises (when called):
        TransientError: the breaker is open; nothing was sent.
        ObsError: as ``send``.
    """

    def send_if_closed(thing: Thing) -> Answer:
        if not breaker.admit(clock()):
            sentence = breaker.state().sentence(clock())
            raise TransientError(
                f"the breaker of {breaker.name} is {sentence}; to ask it now, remove {breaker.path}"
            )
        try:
            answer = send(thing)
        except HourBusyError:
            # Another run writes the hour: that says nothing about the receiver.
            breaker.undecided(clock())
            raise
        except PermanentError:
            # The receiver answered, and refused this thing.
            breaker.passed()
            raise
        except ObsError as error:
            # No answer, a wrong setting, or a folder that cannot be written to.
            asked_wait_s = getattr(error, "retry_after_s", None)
            breaker.failed(clock(), str(error), asked_wait_s=asked_wait_s)
            raise
        except BaseException:
            breaker.undecided(clock())
            raise
        breaker.passed()
        return answer

    return send_if_closed


def _longest_pause_s(failures_too_many: int) -> float:
    """Seconds of pause after failures behind the first that broke, before jitter shortens them."""
    doublings = min(failures_too_many, _MOST_DOUBLINGS)
    factor: int = 2**doublings
    return min(LONGEST_PAUSE_S, BROKEN_S * factor)
