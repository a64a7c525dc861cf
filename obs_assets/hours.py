"""Hours: half-open UTC intervals ``[start, end)`` and Dagster's keys for them. No function reads the clock."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from obs_assets.errors import ConfigurationError

KEY_FORMAT = "%Y-%m-%d-%H:00"
"""Format of Dagster's partition keys."""

DAY_FORMAT = "%Y-%m-%d"
"""Format of a whole day, as users write it."""

ONE_HOUR = timedelta(hours=1)


def utc_now() -> datetime:
    """The present time, UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, order=True)
class Hour:
    """An hour of event time, identified by its start.

    Attributes:
        start: timezone-aware, UTC, on the hour.
    """

    start: datetime

    def __post_init__(self) -> None:
        if self.start.utcoffset() != timedelta(0) or self.start != floor_to_hour(self.start):
            raise ValueError(f"not the start of a UTC hour: {self.start.isoformat()}")

    @classmethod
    def of(cls, moment: datetime) -> "Hour":
        """The hour that holds a moment."""
        return cls(floor_to_hour(moment.astimezone(UTC)))

    @property
    def end(self) -> datetime:
        """The first moment after the hour."""
        return self.start + ONE_HOUR

    @property
    def key(self) -> str:
        """Dagster's partition key: ``2025-12-04-10:00``."""
        return self.start.strftime(KEY_FORMAT)

    @property
    def stamp(self) -> str:
        """The hour in file names and object keys: ``2025120410``."""
        return self.start.strftime("%Y%m%d%H")

    @property
    def next(self) -> "Hour":
        """The hour after."""
        return Hour(self.end)

    @property
    def previous(self) -> "Hour":
        """The hour before."""
        return Hour(self.start - ONE_HOUR)

    def __str__(self) -> str:
        return self.key


def floor_to_hour(moment: datetime) -> datetime:
    """The start of the hour of ``moment``, in its own timezone."""
    return moment.replace(minute=0, second=0, microsecond=0)


def parse_hour(key: str) -> Hour:
    """Read a partition key.

    Raises:
        ConfigurationError: the text is not of the form ``YYYY-MM-DD-HH:00``.
    """
    try:
        return Hour(datetime.strptime(key, KEY_FORMAT).replace(tzinfo=UTC))
    except ValueError:
        raise ConfigurationError(
            f"{key!r} is not an hour; write it as Dagster does, for example 2025-12-04-10:00; "
            f"a range as A...B, a whole day as 2025-12-04"
        ) from None


def parse_hours(text: str) -> list[Hour]:
    """Read ``HOUR``, ``DAY`` or ``A...B``, both ends included as in Dagster's partition ranges; each may be a day.

    Raises:
        ConfigurationError: an end is neither an hour nor a day, or the range runs backwards.
    """
    first_key, dots, last_key = text.partition("...")
    first, last = _ends(first_key)
    if dots:
        _, last = _ends(last_key)
    if last < first:
        raise ConfigurationError(f"the range {text!r} runs backwards")
    return list(hours_between(first, last.next))


def _ends(key: str) -> tuple[Hour, Hour]:
    """The first and the last hour of a key: ``2025-12-04`` is a day, ``2025-12-04-10:00`` an hour."""
    # A day has no time of day, so the two formats cannot be confused.
    try:
        day = Hour(datetime.strptime(key, DAY_FORMAT).replace(tzinfo=UTC))
    except ValueError:
        return parse_hour(key), parse_hour(key)
    return day, Hour(day.start + timedelta(hours=23))


def hours_between(first: Hour, stop: Hour) -> Iterator[Hour]:
    """The hours from ``first`` up to, not including, ``stop``."""
    while first < stop:
        yield first
        first = first.next


def first_open_hour(landing_began_at: datetime, allowed_lateness: timedelta) -> Hour:
    """The oldest hour that is still open after a landing pass that began at ``landing_began_at``.

    A finished pass closes the hours whose end plus the allowed lateness is not after its beginning, so every
    hour before the returned hour is closed.
    """
    return Hour.of(landing_began_at - allowed_lateness)
