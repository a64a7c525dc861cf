"""Failover: while a destination fails, its hours go to another destination, and are handed back later.

::

    primary fails for after_minutes ─▶ the hour goes to the secondary; a note says so
    primary answers again           ─▶ the hour goes to the primary, is removed from the secondary, and
                                       the note with it

A note is a file for each hour that the secondary holds. It is removed last, so that a run that dies in
between leaves the hour to be handed back again: a repetition changes nothing.

A note names its secondary. If the pipeline file names another secondary meanwhile, the note counts no
more: the hour goes to the primary, and its rows stay where they are.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from obs_assets.crash import crash_point
from obs_assets.delivery.breaker import Breaker, guarded
from obs_assets.destinations.base import Delivery, Destination, Holding, Offer
from obs_assets.errors import HourBusyError, ObsError, PermanentError
from obs_assets.events import CONTENT_HASH
from obs_assets.hours import Hour, parse_hour
from obs_assets.receipts import InputVersion
from obs_assets.storage.disk import locked, make_private_dir, replacing

HELD_BY = "held by"
"""Figure of a receipt: name of the destination that holds the hour."""

HANDED_BACK = "handed back from"
"""Figure of a receipt: name of the destination that held the hour before."""

STAYS_AT = "rows stay at"
"""Figure of a receipt: a former secondary that held the hour, and from which nothing can be removed."""


@dataclass(frozen=True)
class Notes:
    """The hours that a secondary holds, a file each.

    Attributes:
        folder: folder of the files of a primary destination.
        secondary: name of the secondary.
    """

    folder: Path
    secondary: str

    def hours(self) -> dict[Hour, Holding]:
        """Hour → the version that the secondary holds."""
        found = {}
        for path in self.folder.glob("*.json"):
            # A note that another run removes meanwhile is no note.
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                values = json.loads(path.read_text())
                hour = parse_hour(values["hour"])
                version = InputVersion(**values["version"])
                if self.has(hour):
                    found[hour] = Holding(version, values["rows"], values["content_hash"])
        return found

    def has(self, hour: Hour) -> bool:
        """Whether the secondary holds an hour, or a part of it."""
        return self.holder(hour) == self.secondary

    def holder(self, hour: Hour) -> str:
        """Name of the secondary that the hour's note names; empty without a note."""
        path = self._path(hour)
        try:
            # Notes of older releases, and damaged notes, name no secondary: the present is the likely one.
            return str(json.loads(path.read_text()).get("secondary", self.secondary))
        except OSError:
            return ""
        except (ValueError, AttributeError):
            return self.secondary

    def write(self, offer: Offer) -> None:
        """Note that the secondary holds the offered hour."""
        values = {
            "hour": offer.hour.key,
            "secondary": self.secondary,
            "version": asdict(offer.version),
            "rows": offer.rows,
            "content_hash": offer.content_hash,
        }
        with replacing(self._path(offer.hour)) as tmp_path:
            tmp_path.write_text(json.dumps(values))

    def remove(self, hour: Hour) -> None:
        """Note that the secondary holds an hour no more."""
        self._path(hour).unlink(missing_ok=True)

    @contextlib.contextmanager
    def alone(self, hour: Hour) -> Iterator[None]:
        """Keep other runs of this hour out: one may find the primary well while another leaves it.

        Raises:
            HourBusyError: another run delivers the hour.
        """
        path = make_private_dir(self.folder) / f"{hour.stamp}.lock"
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(locked(path))
            except BlockingIOError:
                raise HourBusyError(
                    f"another run delivers {hour}: let it finish, then try again"
                ) from None
            yield

    def _path(self, hour: Hour) -> Path:
        return self.folder / f"{hour.stamp}.json"


@dataclass(frozen=True)
class Side:
    """A destination of a failover.

    Attributes:
        name: name of its asset.
        destination: holds hours.
        breaker: its breaker.
    """

    name: str
    destination: Destination
    breaker: Breaker


@dataclass(frozen=True)
class Failover:
    """A primary destination, and the secondary that takes its hours while it fails.

    Attributes:
        primary: gets each hour in the end.
        secondary: gets the hours of an outage.
        after: length of an outage from which hours go to the secondary.
        hand_back: hours of the secondary are handed back; otherwise they stay there.
        notes: the hours that the secondary holds.
        clock: gives the time, UTC.
    """

    primary: Side
    secondary: Side
    after: timedelta
    hand_back: bool
    notes: Notes
    clock: Callable[[], datetime]

    def deliver(self, offer: Offer) -> Delivery:
        """Offer an hour to the primary, or after a long outage to the secondary.

        Raises:
            HourBusyError: another run delivers the hour.
            ObsError: as `Destination.deliver`; of the primary until the outage is long enough, or while the
                secondary fails too.
        """
        with self.notes.alone(offer.hour):
            return self._deliver(offer)

    def _deliver(self, offer: Offer) -> Delivery:
        if self.notes.has(offer.hour) and not self.hand_back:
            # Later versions follow the first, so that no event is in both.
            return self._to_secondary(offer)
        try:
            delivery = guarded(
                self.primary.destination.deliver, self.primary.breaker, self.clock
            )(offer)
        except (HourBusyError, PermanentError):
            raise
        except ObsError:
            if not self.is_taking_over():
                raise
            return self._to_secondary(offer)
        stats = {**delivery.stats, HELD_BY: self.primary.name}
        holder = self.notes.holder(offer.hour)
        if holder and holder != self.secondary.name:
            stats[STAYS_AT] = holder
            self.notes.remove(offer.hour)
        elif holder:
            crash_point("failover.before_removal")
            self._send_to_secondary(_without_rows(offer))
            crash_point("failover.after_removal")
            self.notes.remove(offer.hour)
            stats[HANDED_BACK] = self.secondary.name
        return replace(delivery, stats=stats)

    def is_taking_over(self) -> bool:
        """Whether the primary has failed for so long that the secondary takes hours, and can."""
        now = self.clock()
        state = self.primary.breaker.state()
        if state.failing_since is None or state.stage(now) == "closed":
            return False
        # If both fail, hours wait: each attempt would end in the same error.
        is_long = now - state.failing_since >= self.after
        return is_long and not self.secondary.breaker.is_open(now)

    def holder(self, hour: Hour) -> Side:
        """The destination that holds an hour, or would get it now."""
        return self.secondary if self.notes.has(hour) else self.primary

    def holdings(
        self, delivered: Callable[[], Mapping[Hour, Holding]]
    ) -> Mapping[Hour, Holding]:
        """Hour → its version, of the hours that need no delivery now.

        While the primary fails, hours of the secondary are where they belong. When the primary may be
        asked again, they are missing there: the next delivery hands them back.

        Args:
            delivered: hour → its version by the receipts of earlier deliveries, to either side.

        Raises:
            TransientError: the primary does not answer, and its breaker is not open yet.
        """
        now = self.clock()
        breaker = self.primary.breaker
        if breaker.state().stage(now) == "open":
            # The primary is not asked: what it holds follows from the receipts.
            return delivered()
        try:
            held = dict(self.primary.destination.holdings())
        except ObsError as error:
            # Otherwise no delivery is tried, and its breaker never opens.
            breaker.failed(now, str(error))
            raise
        for hour, noted in self.notes.hours().items():
            held.pop(hour, None)
            if not self.hand_back:
                held[hour] = noted
        return held

    def _to_secondary(self, offer: Offer) -> Delivery:
        # Before the first row: if this run dies, the hour is asked for again, and the note is right.
        self.notes.write(offer)
        crash_point("failover.after_note")
        delivery = self._send_to_secondary(offer)
        return replace(delivery, stats={**delivery.stats, HELD_BY: self.secondary.name})

    def _send_to_secondary(self, offer: Offer) -> Delivery:
        send = guarded(self.secondary.destination.deliver, self.secondary.breaker, self.clock)
        return send(offer)


def _without_rows(offer: Offer) -> Offer:
    """The same hour without an event, to take the place of its events."""
    frame = offer.frame.filter("false")
    ((content_hash,),) = frame.aggregate(CONTENT_HASH).fetchall()
    return replace(offer, frame=frame, rows=0, content_hash=content_hash, rebuild=True)
