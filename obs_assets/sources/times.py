"""Where an event's time is found, and what it may be. SQL over the event's text; no clock is read here.

=========================  ======================================================================
written as                 read as
=========================  ======================================================================
ISO 8601 with an offset    that moment, floored to microseconds; ``T`` or a space, any fraction after ``.`` or ``,``;
                           ``Z``, ``UTC``, ``GMT``, ``-06:00``, ``-0600`` or ``-06``, a space before it allowed
ISO 8601 without offset    UTC; without a time of day, midnight
number, or digits          seconds, milliseconds, microseconds or nanoseconds, told by magnitude; a number with a
                           fraction is a double, as in JSON
absent or null             the landing time; ``time_from`` says ``landed_at``
anything else              dead letter ``time_unreadable``: names of time zones, which are ambiguous, empty text,
                           objects, a leap second ``:60``; but ``24:00:00`` is the next day
=========================  ======================================================================
"""

from datetime import timedelta

TIME_FIELDS = ("timestamp", "@timestamp", "time", "ts", "event_time", "created_at", "eventTime")
"""Looked at in this order; the first that is there and not null decides."""

MAX_AHEAD = timedelta(hours=24)
"""An event further ahead of its landing is garbage, not early."""

_FIELDS = "[" + ", ".join(f"'$.\"{name}\"'" for name in TIME_FIELDS) + "]"

TIME_VALUES = f"json_extract_string(line, {_FIELDS})"
"""The texts found in `TIME_FIELDS`, in order."""

TIME_TEXT = "coalesce(" + ", ".join(f"times[{n}]" for n in range(1, len(TIME_FIELDS) + 1)) + ")"
"""The text that decides, over the column ``times``."""

# Boundaries between the units: 10^11 seconds is the year 5138, 10^11 milliseconds is 1973. All decimals: a double would
# round nanoseconds up.
_EPOCH_MICROS = """CASE
    WHEN abs(number) < 100000000000 THEN number * 1000000
    WHEN abs(number) < 100000000000000 THEN number * 1000
    WHEN abs(number) < 100000000000000000 THEN number
    ELSE number * 0.001 END"""

_OFFSET = r"(?: ?(?:[Zz]|UTC|GMT|[+-](?:0\d|1[0-4])(?::?[0-5]\d)?))?"
_ISO = rf"\s*\d{{4}}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?{_OFFSET})?\s*"

# What DuckDB does not read: small letters, a comma before the fraction, a space before the offset
_AS_DUCKDB_READS = "regexp_replace(replace(upper(trim(time_text)), ',', '.'), ' ?([+-][0-9:]+|Z)$', '\\1')"

EVENT_TIME = f"""CASE
    WHEN time_text IS NULL THEN landed_at
    WHEN regexp_full_match(time_text, '{_ISO}')
        THEN coalesce(try_cast(time_text AS TIMESTAMPTZ), try_cast({_AS_DUCKDB_READS} AS TIMESTAMPTZ))
    WHEN regexp_full_match(time_text, '-?\\d{{1,19}}(\\.\\d{{1,9}})?')
        THEN make_timestamptz(floor({_EPOCH_MICROS.replace("number", "time_text::DECIMAL(29, 9)")})::BIGINT)
    END"""
"""The moment, over the columns ``time_text`` and ``landed_at``; NULL where it cannot be read."""

TIME_REASON = f"""CASE
    WHEN event_time IS NULL OR NOT isfinite(event_time) THEN 'time_unreadable'
    WHEN event_time < '2000-01-01 00:00:00+00'::TIMESTAMPTZ THEN 'time_before_2000'
    WHEN event_time > landed_at + INTERVAL {int(MAX_AHEAD.total_seconds())} SECOND THEN 'time_too_far_ahead'
    WHEN event_time < first_hour THEN 'before_start'
    END"""
"""Why an event cannot be given an hour, over ``event_time``, ``landed_at`` and ``first_hour``; NULL where it can."""
