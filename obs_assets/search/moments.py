"""Moments as people write them: a date, a time, or a distance from now."""

import re
from datetime import UTC, datetime, timedelta

from obs_assets.errors import ConfigurationError

_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}

LONGEST = timedelta(days=3_660)
"""Largest length of time that `length` reads."""

_LENGTH = re.compile(r"([0-9]{1,6})([smhdw])")

_DISTANCE = re.compile(r"now(?:([+-])([0-9]{1,6})([smhdw]))?")


def moment(text: str, now: datetime) -> datetime:
    """The moment that a text means, UTC. A time without an offset is UTC.

    For example ``now-6h``, ``2025-12-04``, ``2025-12-04T10:00`` and ``2025-12-04T12:00:00+02:00``.

    Args:
        text: the moment as it was written.
        now: the present moment.

    Raises:
        ConfigurationError: the text is no moment.
    """
    distance = _DISTANCE.fullmatch(text.strip())
    try:
        if distance:
            return _shifted(now, distance)
        read = datetime.fromisoformat(text.strip())
        return read.replace(tzinfo=read.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{text!r} is no moment: write 2025-12-04T10:00:00Z, 2025-12-04, now or now-6h "
            "(s, m, h, d, w)"
        ) from None


def _shifted(now: datetime, distance: re.Match[str]) -> datetime:
    sign, count, unit = distance.groups()
    if sign is None:
        return now
    shift = _UNITS[unit] * int(count)
    return now + shift if sign == "+" else now - shift


def length(text: str) -> timedelta:
    """The length of time that a text means, for example ``30s``, ``5m``, ``1h``, ``7d``.

    Raises:
        ConfigurationError: the text is no length.
    """
    written = _LENGTH.fullmatch(text.strip())
    found = timedelta(0)
    if written is not None:
        found = _UNITS[written[2]] * int(written[1])
    if not timedelta(0) < found <= LONGEST:
        raise ConfigurationError(
            f"{text!r} is no length of time: write for example 30s, 5m, 1h or 1d"
        )
    return found
