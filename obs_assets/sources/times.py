"""Finds the time of an event, and checks it. The module makes SQL over the event's text; it reads no clock.

=========================  ======================================================================
written as                 read as
=========================  ======================================================================
ISO 8601 with an offset    that moment, floored to microseconds; ``T`` or a space, any fraction after ``.`` or ``,``;
                           ``Z``, ``UTC``, ``GMT``, ``-06:00``, ``-0600`` or ``-06``, a space before it allowed.
                           The name of a zone behind an offset is ignored: ``+01:00[Europe/Berlin]``, Go's
                           ``+0000 UTC m=+0.5``
ISO 8601 without offset    UTC, and ``time_from`` says ``event_without_zone``; without a time of day, midnight
number, or its text        seconds, milliseconds, microseconds or nanoseconds, by its magnitude; a number with a
                           fraction is a double, as in JSON; OpenTelemetry's 0 is no time
absent or null             the landing time; ``time_from`` says ``landed_at``
anything else              dead letter ``time_unreadable``: names of time zones, which are ambiguous, empty text,
                           objects, a leap second ``:60``; but ``24:00:00`` is the next day
=========================  ======================================================================
"""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from obs_assets.events import TIME_FIELDS, quote
from obs_assets.sources.json_text import decode_unique

ZERO_IS_UNKNOWN = ("timeUnixNano", "observedTimeUnixNano")
"""Fields of OpenTelemetry, in which 0 means that there is no time."""

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""An earlier time is an error: the event becomes a dead letter."""

MAX_AHEAD = timedelta(hours=24)
"""Longest time between landing and a later event time. An event further ahead has a wrong time."""


def json_path(path: str) -> str:
    """DuckDB's form of a path of field names separated by points: ``data.at`` is the field ``at`` of ``data``."""
    return "$" + "".join(f'."{name}"' for name in path.split("."))


TIME_PATHS = tuple(map(json_path, TIME_FIELDS))
"""DuckDB's form of `TIME_FIELDS`."""

_ZERO_PATHS = frozenset(map(json_path, ZERO_IS_UNKNOWN))


def time_text(paths: Sequence[str], usual: int = 0) -> str:
    """SQL over ``line``: text of the event time, which is the first value at these paths that is present and not null.

    Args:
        paths: paths in DuckDB's form.
        usual: index in ``paths`` of the field that most lines use. In those lines, later paths are not searched.
    """
    parts = [paths[: usual + 1], paths[usual + 1 :]]
    return f"coalesce({', '.join(_first_of(part) for part in parts if part)})"


def usual_place(line: str, paths: Sequence[str]) -> int:
    """Index in ``paths`` (as an operator writes them) of the field with the time of this event; 0 if none has it."""
    event = decode_unique(line)
    found = (place for place, path in enumerate(paths) if value_at(event, path) is not None)
    return next(found, 0)


def _first_of(paths: Sequence[str]) -> str:
    """SQL: value at the first of these paths that holds a time."""
    runs = itertools.groupby(paths, _ZERO_PATHS.__contains__)
    found = [_first_alike(list(run), zero_is_unknown=zero) for zero, run in runs]
    return found[0] if len(found) == 1 else f"coalesce({', '.join(found)})"


def _first_alike(paths: Sequence[str], *, zero_is_unknown: bool) -> str:
    if zero_is_unknown:
        return ", ".join(
            f"nullif(json_extract_string(line, {quote(path)}), '0')" for path in paths
        )
    if len(paths) == 1:
        return f"json_extract_string(line, {quote(paths[0])})"
    return f"list_any_value(json_extract_string(line, [{', '.join(map(quote, paths))}]))"


def value_at(event: Any, path: str) -> Any:
    """Value of an event at a path, as an operator writes it; None if there is no time."""
    for name in path.split("."):
        event = event.get(name) if isinstance(event, dict) else None
    return None if path in ZERO_IS_UNKNOWN and str(event) == "0" else event


# Boundaries between the units: 10^11 seconds is the year 5138, 10^11 milliseconds is 1973. All decimals: a double would
# round nanoseconds up.
_EPOCH_MICROS = """CASE
    WHEN abs(number) < 100000000000 THEN number * 1000000
    WHEN abs(number) < 100000000000000 THEN number * 1000
    WHEN abs(number) < 100000000000000000 THEN number
    ELSE number * 0.001 END"""

_OFFSET = r" ?(?:[Zz]|UTC|GMT|[+-](?:0\d|1[0-4])(?::?[0-5]\d)?)"
_DAY, _CLOCK = r"\d{4}-\d\d-\d\d", r"[Tt ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?"
_ISO = rf"\s*{_DAY}(?:{_CLOCK}(?:{_OFFSET})?)?\s*"

# Behind an offset: Java's [Europe/Berlin], RFC 9557's [u-ca=iso8601], Go's zone name and monotonic clock
_ZONE = r"(?:\[[^\[\]]*\])+|(?: (?:[A-Z][A-Za-z]{1,5}|[+-]\d{2,4}))?(?: m=[+-]\d+\.\d+)?"
_ISO_AND_ZONE = rf"\s*({_DAY}{_CLOCK}{_OFFSET})(?:{_ZONE})\s*"


def _moment(text: str) -> str:
    """SQL: the moment of a text in ISO 8601."""
    # DuckDB does not read small letters, a comma before the fraction, or a space before the offset
    as_duckdb_reads = (
        f"regexp_replace(replace(upper(trim({text})), ',', '.'), ' ?([+-][0-9:]+|Z)$', '\\1')"
    )
    return (
        f"coalesce(try_cast({text} AS TIMESTAMPTZ), try_cast({as_duckdb_reads} AS TIMESTAMPTZ))"
    )


def _since_1970(number: str) -> str:
    """SQL: the moment of a decimal number, counted from 1970."""
    return f"make_timestamptz(floor({_EPOCH_MICROS.replace('number', number)})::BIGINT)"


EVENT_TIME = rf"""CASE
    WHEN time_text IS NULL THEN landed_at
    WHEN regexp_full_match(time_text, '{_ISO}') THEN {_moment("time_text")}
    WHEN regexp_full_match(time_text, '-?\d{{1,19}}(\.\d{{1,9}})?') THEN {_since_1970("time_text::DECIMAL(29, 9)")}
    WHEN regexp_full_match(time_text, '\d(\.\d{{1,18}})?[eE]\+?\d{{1,2}}')
        THEN {_since_1970("try_cast(time_text AS DECIMAL(29, 9))")}
    WHEN regexp_full_match(time_text, '{_ISO_AND_ZONE}')
        THEN {_moment(f"regexp_extract(time_text, '{_ISO_AND_ZONE}', 1)")}
    END"""
"""The moment, over the columns ``time_text`` and ``landed_at``; NULL where it cannot be read."""

TIME_SOURCES = ("event", "event_without_zone", "landed_at")
"""Origins of a moment; ``event_without_zone``: UTC is assumed."""

# Most end in Z. The others are those with a time of day and no offset after it
TIME_FROM = f"""CASE
    WHEN time_text IS NULL THEN 2
    WHEN ends_with(time_text, 'Z') OR NOT regexp_full_match(time_text, '{_ISO}')
        OR regexp_matches(time_text, ':\\d\\d(?:[.,]\\d+)? ?(?:[Zz]|UTC|GMT|[+-][0-9:]+)\\s*$') THEN 0
    ELSE 1 END::TINYINT"""
"""SQL over ``time_text``: which of `TIME_SOURCES` the moment comes from."""

TIME_REASON = f"""CASE
    WHEN event_time IS NULL OR NOT isfinite(event_time) THEN 'time_unreadable'
    WHEN event_time < '{EARLIEST.isoformat()}'::TIMESTAMPTZ THEN 'time_before_2000'
    WHEN event_time > landed_at + INTERVAL {int(MAX_AHEAD.total_seconds())} SECOND THEN 'time_too_far_ahead'
    WHEN event_time < first_hour THEN 'before_start'
    END"""
"""SQL over ``event_time``, ``landed_at``, ``first_hour``: reason why an event gets no hour; NULL if it gets an hour."""
