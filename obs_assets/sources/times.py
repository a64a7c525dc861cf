"""Finds the time of an event, and checks it. The module makes SQL over the event's text; it reads no clock.

=========================  ======================================================================
written as                 read as
=========================  ======================================================================
ISO 8601 with an offset    that moment, floored to microseconds; ``T`` or a space, any fraction after ``.`` or ``,``;
                           ``Z``, ``UTC``, ``GMT``, ``-06:00``, ``-0600`` or ``-06``, a space before it allowed.
                           The name of a zone behind an offset is ignored: ``+01:00[Europe/Berlin]``, Go's
                           ``+0000 UTC m=+0.5``
as programs print dates    forms that name year, month and day without doubt: the tables of `dates`
ISO 8601 without offset    UTC, and ``time_from`` says ``event_without_zone``; without a time of day, midnight
number, or its text        seconds, milliseconds, microseconds or nanoseconds, by its magnitude; a number with a
                           fraction is a double, as in JSON; OpenTelemetry's 0 is no time. Windows' counts of 100 ns
                           since 1601 or since the year 1, and microseconds since 1601, are read as such
``/Date(…)/``              milliseconds since 1970, as .NET writes them; an offset in it changes nothing
object                     its seconds and nanoseconds or microseconds (log4j, Protocol Buffers, Rust), its ``$date``
                           (MongoDB), its ``iso`` or ``timestamp``, its ``value`` of the form ``/Date(…)/`` (PowerShell)
list of numbers            year, month, day, hour, minute, second, nanosecond (Jackson), UTC
absent or null, or a text  the time in a field whose name says time, see `names_of_times`; else the time in an object
                           that holds the event, see `HOLDERS`; else the landing time, and ``time_from`` says
                           ``landed_at``
anything else              dead letter ``time_unreadable``: names of time zones, which are ambiguous, empty text,
                           other objects, a leap second ``:60``; but ``24:00:00`` is the next day
=========================  ======================================================================
"""

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb

from obs_assets.events import TIME_FIELDS, quote
from obs_assets.sources import dates
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
    """SQL over ``line`` and ``landed_at``: text of the event time, which is the first value at these paths that is
    present and not null.

    Args:
        paths: paths in DuckDB's form.
        usual: index in ``paths`` of the field that most lines use. In those lines, later paths are not searched.
    """
    parts = [paths[: usual + 1], paths[usual + 1 :]]
    values = [_first_of(part) for part in parts if part]
    return f"coalesce({', '.join(values)})"


def careful_time_text(paths: Sequence[str], others: Sequence[str] = ()) -> str:
    """SQL as of `time_text`, for lines whose first value is no time, or that have none. It takes longer.

    A date and a time of day in two fields (`_IN_TWO_FIELDS`) are one time. A value that stands for nothing
    (`_PLACEHOLDERS`) counts only if there is no other value.

    Args:
        paths: paths in DuckDB's form.
        others: further paths, from `other_paths`. A value there counts only if it is a possible time.
    """
    told = _told(paths)
    joined = ", ".join(_of_two_fields(*names) for names in _IN_TWO_FIELDS)
    is_half = f"regexp_full_match(coalesce({told}, '00:00'), '{_DATE_ALONE}|{_CLOCK_ALONE}')"
    both = f"CASE WHEN {is_half} THEN coalesce({joined}) END"
    values = [both, told]
    if others:
        found = f"json_extract_string(line, [{', '.join(map(quote, others))}])"
        values.append(
            f"list_any_value(list_filter({found}, lambda text: {_is_possible('text')}))"
        )
    return f"coalesce({', '.join(values)}, {time_text(paths, len(paths))})"


def _told(paths: Sequence[str]) -> str:
    """SQL: the first value at these paths that is no placeholder."""
    found = f"json_extract_string(line, [{', '.join(map(quote, paths))}])"
    is_told = f"NOT list_contains({list(_PLACEHOLDERS)}, lower(trim(text)))"
    zero = f"list_transform({found}, lambda text, place: {_unless_zero(paths)})"
    return f"list_any_value(list_filter({zero}, lambda text: {is_told}))"


def _unless_zero(paths: Sequence[str]) -> str:
    """SQL over ``text`` and ``place``: the text; NULL if it is 0 at a path where 0 is no time."""
    places = [place for place, path in enumerate(paths, start=1) if path in _ZERO_PATHS]
    return f"CASE WHEN text <> '0' OR NOT list_contains({places}::INT[], place) THEN text END"


def _of_two_fields(day: str, clock: str) -> str:
    """SQL: date and time of day of two fields in ISO 8601; NULL if one of them is something else."""
    one, other = (
        f"trim(json_extract_string(line, {quote(_of_name(name))}))" for name in (day, clock)
    )
    fits = f"regexp_full_match({one}, '{_DATE_ALONE}') AND regexp_full_match({other}, '{_CLOCK_ALONE}')"
    return f"CASE WHEN {fits} THEN replace({one}, '/', '-') || 'T' || {other} END"


def names_of_times(keys: Iterable[str]) -> list[str]:
    """Those of these keys that say time, the best first.

    A name says time if all its words are words for a time, for its unit, or for the beginning of an event:
    ``start_time``, ``EventTime``, ``published``, ``date_create``, but neither ``due_date`` nor ``responseTime``.

    `TIME_FIELDS` are left out.

    >>> names_of_times(["expires_at", "created", "event_date", "response_time", "start_time_ms"])
    ['event_date', 'start_time_ms', 'created']
    """
    keys = list(keys)
    others = (key for key in keys if key not in _TIME_FIELDS)
    ranked = sorted((rank, key) for key in others if (rank := _rank(key)) is not None)
    return [*(key for _, key in ranked), *(key for key in _BEGINS if key in keys)]


def other_paths(
    connection: duckdb.DuckDBPyConnection, table: str, paths: Sequence[str]
) -> list[str]:
    """Paths where lines of a table that have no value at ``paths`` may have their time, the best first.

    They are top-level fields that say time, then such fields of the objects `HOLDERS`.
    """
    timeless = f"FROM {table} WHERE {_told(paths)} IS NULL"
    found = connection.sql(f"SELECT DISTINCT unnest(json_keys(line)) {timeless}").fetchall()
    keys = [key for (key,) in found]
    others = [_of_name(name) for name in names_of_times(keys)]
    for holder in sorted(filter(_is_holder, keys)):
        place = _of_name(holder)
        inner = f"SELECT DISTINCT unnest(json_keys(line, {quote(place)})) {timeless}"
        names = _names_within(key for (key,) in connection.sql(inner).fetchall())
        others += [f'{place}."{name}"' for name in names]
    return others


HOLDERS = frozenset(
    {
        *("event", "log", "record", "entry", "message", "doc", "document", "result", "syslog"),
        *("attributes", "fields", "map", "source", "id", "metadata", "meta", "header"),
        *("json", "text"),
    }
)
"""Words of the name of an object that holds the event, or facts about the event, in an object without a time.

An object under another name, such as ``user`` or ``data``, describes something that has times of its own.
"""


@functools.lru_cache(maxsize=4096)
def _is_holder(name: str) -> bool:
    words = _words(name)
    return bool(words) and all(word in HOLDERS or word == "payload" for word in words)


def _names_within(keys: Iterable[str]) -> list[str]:
    """Names of fields of a holder that say when the event happened: ``time``, not ``created_at`` or ``date``."""
    keys = list(keys)
    ranked = sorted((_rank(key), key) for key in keys if _says_when(key) and key not in _SURE)
    return [*(key for key in _SURE if key in keys), *(key for _, key in ranked)]


def _says_when(name: str) -> bool:
    """Whether a name says the moment of an event: neither the beginning of something nor a date."""
    rank = _rank(name)
    is_of_thing = not {"date", "at"}.isdisjoint(_words(name))
    return rank is not None and rank <= _LOGGED_RANK and not is_of_thing


@functools.lru_cache(maxsize=4096)
def _rank(name: str) -> int | None:
    """Rank of a name that says time, the best is 0; None for other names."""
    words = _words(name)
    if not words or not all(word in _RANKS or word in _BESIDE for word in words):
        return None
    if not any(word in _MOMENTS for word in words):
        return None
    ranks = [_RANKS[word] for word in words if word in _RANKS]
    # A word for time alone ranks in the middle; a word beside it says more
    others = [rank for rank in ranks if rank != _PLAIN_RANK]
    return min(others, default=_PLAIN_RANK)


def _words(name: str) -> list[str]:
    """Words of a name, in lower case; none for a name that is too long or that needs escapes in a path."""
    if len(name) > _LONGEST_NAME or '"' in name or "\\" in name:
        return []
    return [part for word in _WORD.findall(name) for part in _parts(word.lower())]


def _parts(word: str) -> list[str]:
    """The two words that are written together, such as ``log`` and ``time``; else the word itself."""
    if word not in _RANKS and word not in _BESIDE:
        for end in range(2, len(word) - 1):
            first, second = word[:end], word[end:]
            is_first = first in _RANKS or first in _BESIDE
            if is_first and second in _RANKS:
                return [first, second]
    return [word]


_TIME_FIELDS = frozenset(TIME_FIELDS)
_SURE = (
    "timestamp",
    "@timestamp",
    "time",
    "ts",
    "event_time",
    "eventTime",
    "_time",
    "datetime",
)
"""Names of the time in a holder."""
_LONGEST_NAME = 64
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_RANKED: tuple[tuple[str, ...], ...] = (
    ("event", "occurred", "happened"),
    (
        *("time", "timestamp", "ts", "datetime", "date", "instant", "epoch", "msec", "when"),
        *("asctime", "t"),  # of Python's logging; zap's T
    ),
    ("log", "logged", "record", "recorded", "emitted", "published", "detected", "triggered"),
    ("start", "starts", "started", "begin", "begun", "request", "requested", "req"),
    ("create", "created", "creation", "generated", "submitted"),
    ("received", "observed", "ingested", "ingestion", "collected", "server", "client"),
)
"""Words of names of times. A name with a word of an earlier row is preferred."""
_RANKS = {word: rank for rank, words in enumerate(_RANKED) for word in words}
_PLAIN_RANK = _RANKS["time"]
_LOGGED_RANK = _RANKS["logged"]
_BESIDE = frozenset(
    {
        *("at", "on", "utc", "gmt", "local", "iso", "unix"),
        *("s", "sec", "secs", "second", "seconds"),
        *("ms", "milli", "millis", "millisecond", "milliseconds"),
        *("us", "micro", "micros", "microsecond", "microseconds"),
        *("ns", "nano", "nanos", "nanosecond", "nanoseconds"),
    }
)
"""Words that stand beside them: prepositions, zones and units."""
_MOMENTS = (
    frozenset(_RANKED[_PLAIN_RANK])
    | {"occurred", "happened", "logged", "recorded", "emitted", "published", "detected"}
    | {"triggered", "starts", "started", "begun", "requested", "created", "generated"}
    | {"submitted", "received", "observed", "ingested", "collected", "at", "utc"}
)
"""Words of which a name has at least one: words for a time, participles, ``at`` and ``utc``."""
_BEGINS = ("start", "begin")
"""Names that say time only by the time that they hold: of a span, or of a flow of a network."""


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


def has_time(event: dict[str, Any], time_path: str | None = None) -> bool:
    """Whether an event has a time of its own: in a known field, or in a field whose name says time.

    Args:
        event: the event.
        time_path: field in which the pipeline first looks for the time.
    """
    known = (time_path, *TIME_FIELDS) if time_path else TIME_FIELDS
    if any(value_at(event, path) is not None for path in known):
        return True
    return any(is_possible(event[name]) for name in names_of_times(event))


def time_field(event: dict[str, Any]) -> str:
    """The path of a possible time in an event without a known field: a field whose name says time, or such a field of
    an object in `HOLDERS`. Empty if there is none.

    >>> time_field({"id": {"time": "2026-11-25T09:00:00Z"}}), time_field({"user": {"time": 1795597200}})
    ('id.time', '')
    """
    for name in names_of_times(event):
        if is_possible(event[name]):
            return name
    for holder in sorted(filter(_is_holder, event)):
        held = event[holder]
        names = _names_within(held) if isinstance(held, dict) else ()
        for name in names:
            if is_possible(held[name]):
                return f"{holder}.{name}"
    return ""


def is_possible(value: Any) -> bool:
    """Whether a value of an event can be its time.

    >>> is_possible("2031-05-05T09:00:00Z"), is_possible(1935738000.5), is_possible("5"), is_possible(True)
    (True, True, False, False)
    """
    if isinstance(value, dict):
        keys = (*_TEXTS, "value", "$numberLong", *_SECONDS)
        return any(is_possible(value.get(key)) for key in keys)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    text = str(value).strip()
    if re.match(rf"{_DAY}|{_DATE_OF_NET}", text) or dates.is_printed(text):
        return True
    try:
        number = Decimal(text)
        in_units = (_EARLIEST_SECONDS <= number / unit < _LATEST_SECONDS for unit in _UNITS)
        return any(in_units) or any(epoch.holds(number) for epoch in _EPOCHS)
    except ArithmeticError:  # text that is no number, NaN, or an exponent out of range
        return False


_UNITS = (1, 10**3, 10**6, 10**9)
"""Numbers of a unit in a second."""
_EARLIEST_SECONDS = 946_684_800
"""The year 2000, in seconds since 1970."""
_LATEST_SECONDS = 4_102_444_800
"""The year 2100."""
_SECONDS = (
    *("epochSecond", "seconds", "_seconds"),  # log4j, Protocol Buffers, Firestore
    *("secs_since_epoch", "tv_sec", "sec", "timestamp"),  # Rust, C, PHP, Loguru
)
"""Fields with the seconds of an object that is a time."""
_NANOS = ("nanoOfSecond", "nanos", "_nanoseconds", "nanos_since_epoch", "tv_nsec", "nsec")
"""Fields with its nanoseconds."""
_MICROS = ("tv_usec", "usec")
"""Fields with its microseconds."""
_TEXTS = ("$date", "iso")
"""Fields with its time in ISO 8601: MongoDB, Parse."""


@dataclass(frozen=True)
class _Epoch:
    """Numbers that are counted from another year than 1970. As a time since 1970 each lies before 2000 or after 2300.

    Attributes:
        a_second: how many of them a second has.
        seconds: seconds from that year to 1970.
    """

    a_second: int
    seconds: int

    @property
    def first(self) -> int:
        """The number of the year 2000."""
        return (_EARLIEST_SECONDS + self.seconds) * self.a_second

    @property
    def last(self) -> int:
        """The number of the year 2100."""
        return (_LATEST_SECONDS + self.seconds) * self.a_second

    def holds(self, number: Decimal) -> bool:
        """Whether a number is a time between 2000 and 2100."""
        return self.first <= number < self.last


_FROM_1601 = 11_644_473_600
_EPOCHS = (
    _Epoch(10**7, _FROM_1601),  # Windows' FILETIME, Active Directory
    _Epoch(10**7, 62_135_596_800),  # .NET's ticks, from the year 1
    _Epoch(10**6, _FROM_1601),  # Chromium
)

# Boundaries between the units: 10^11 seconds is the year 5138, 10^11 milliseconds is 1973. All decimals: a double would
# round nanoseconds up.
_OF_OTHER_EPOCHS = " ".join(
    f"WHEN number >= {epoch.first} AND number < {epoch.last} "
    f"THEN (number - {epoch.seconds * epoch.a_second}) * {10**6 / epoch.a_second}"
    for epoch in _EPOCHS
)
_EPOCH_MICROS = f"""CASE
    {_OF_OTHER_EPOCHS}
    WHEN abs(number) < 100000000000 THEN number * 1000000
    WHEN abs(number) < 100000000000000 THEN number * 1000
    WHEN abs(number) < 100000000000000000 THEN number
    ELSE number * 0.001 END"""

_OFFSET = r" ?(?:[Zz]|UTC|GMT|[+-](?:0\d|1[0-4])(?::?[0-5]\d)?)"
_DAY, _CLOCK = r"\d{4}-\d\d-\d\d", r"[Tt ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?"
_ISO = rf"\s*{_DAY}(?:{_CLOCK}(?:{_OFFSET})?)?\s*"

# Behind an offset: Java's [Europe/Berlin], RFC 9557's [u-ca=iso8601], Go's zone name and monotonic clock
_NAME = r"[A-Z][A-Za-z_]*(?:/[A-Za-z_+-]+)*"
_ZONE = rf"(?:\[[^\[\]]*\])+| \({_NAME}\)|(?: (?:{_NAME}|[+-]\d{{2,4}}))?(?: m=[+-]\d+\.\d+)?"
_ISO_AND_ZONE = rf"\s*({_DAY}{_CLOCK}{_OFFSET})(?:{_ZONE})\s*"


_DATE_ALONE = r"\d{4}[-/]\d\d[-/]\d\d"
_CLOCK_ALONE = rf"\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:{_OFFSET})?"
_IN_TWO_FIELDS = (
    *(("date", "time"), ("Date", "Time"), ("DATE", "TIME"), ("date", "timestamp")),
    *(("event_date", "event_time"), ("log_date", "log_time"), ("start_date", "start_time")),
)
"""Fields of a date and of a time of day: CloudFront, IIS, W3C."""
_PLACEHOLDERS = (
    "",
    "-",
    "--",
    "null",
    "none",
    "nil",
    "n/a",
    "na",
    "nan",
    "undefined",
    "unknown",
)
"""Values that stand for no time."""

_DATE_OF_NET = r"/Date\((-?\d{1,14})(?:[+-]\d{4})?\)/"
_LIST = r"\[\d{4},\d{1,2},\d{1,2},\d{1,2},\d{1,2}(?:,\d{1,2}(?:,\d{1,9})?)?\]"
_WITHOUT_ZONE = "|".join([rf"\s*{_DAY}(?:{_CLOCK})?\s*", _LIST, *dates.WITHOUT_ZONE])


def _of_name(name: str) -> str:
    """DuckDB's path of a top-level field; points in its name are part of the name."""
    return f'$."{name}"'


def _of_object(text: str) -> str:
    """SQL: the time of an object as the text of a number or in ISO 8601; NULL if the object is no time."""
    seconds, nanos, micros = (
        f"coalesce({', '.join(_field(text, key) for key in keys)})"
        for keys in (_SECONDS, _NANOS, _MICROS)
    )
    fraction = f"coalesce(lpad({nanos}, 9, '0'), lpad({micros}, 6, '0'))"
    number = f"{seconds} || coalesce('.' || {fraction}, '')"
    of_net = f"nullif(regexp_extract({_field(text, 'value')}, '^{_DATE_OF_NET}$', 1), '')"
    texts = ", ".join(_field(text, key) for key in _TEXTS)
    return f"""coalesce(json_extract_string({text}, '$."$date"."$numberLong"'), {texts}, {of_net}, {number})"""


def _of_list(text: str) -> str:
    """SQL: the time of a list of numbers in ISO 8601; NULL if it is no time."""
    numbers = f"(string_split(trim({text}, '[]'), ',') || ['0', '0'])"
    two = [f"lpad({numbers}[{place}], 2, '0')" for place in range(2, 7)]
    nanos = f"CASE WHEN len({numbers}) > 8 THEN '.' || lpad({numbers}[7], 9, '0') ELSE '' END"
    month, day, hour, minute, second = two
    date = f"{numbers}[1] || '-' || {month} || '-' || {day}"
    return f"{date} || 'T' || {hour} || ':' || {minute} || ':' || {second} || {nanos}"


def _field(text: str, key: str) -> str:
    return f"json_extract_string({text}, {quote(_of_name(key))})"


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


def _numeric(text: str) -> str:
    """SQL: branches of a CASE for a text in ISO 8601, and for numbers."""
    return rf"""
    WHEN regexp_full_match({text}, '{_ISO}') THEN {_moment(text)}
    WHEN regexp_full_match({text}, '-?\d{{1,19}}(\.\d{{1,9}})?') THEN {_since_1970(f"{text}::DECIMAL(29, 9)")}
    WHEN regexp_full_match({text}, '\d(\.\d{{1,18}})?[eE]\+?\d{{1,2}}')
        THEN {_since_1970(f"try_cast({text} AS DECIMAL(29, 9))")}"""


def _read(text: str) -> str:
    """SQL: the moment of a text; NULL where it cannot be read."""
    return rf"""CASE {_numeric(text)}
    WHEN regexp_full_match({text}, '{_ISO_AND_ZONE}')
        THEN {_moment(f"regexp_extract({text}, '{_ISO_AND_ZONE}', 1)")}
    WHEN regexp_full_match({text}, '{_DATE_OF_NET}')
        THEN make_timestamptz(try_cast(regexp_extract({text}, '{_DATE_OF_NET}', 1) AS BIGINT) * 1000)
    WHEN regexp_full_match({text}, '{_LIST}') THEN {_once(_of_list(text), _moment)}
    ELSE coalesce({_once(dates.in_digits(text), _moment)}, {dates.printed(text)}) END"""


def _once(value: str, read: Callable[[str], str]) -> str:
    """SQL: ``read`` of a value that is computed once, however often ``read`` names it."""
    return f"list_transform([{value}], lambda found: {read('found')})[1]"


def _of_any(text: str) -> str:
    """SQL: the moment of a text or of an object's text; NULL where it cannot be read."""
    within = _once(_of_object(text), lambda found: f"CASE {_numeric(found)} END")
    return f"""CASE WHEN starts_with({text}, '{{') AND json_valid({text}) THEN {within}
    ELSE {_read(text)} END"""


def _is_possible(text: str) -> str:
    """SQL: whether a text is the time of an event that may have happened."""
    latest = f"landed_at + INTERVAL {int(MAX_AHEAD.total_seconds())} SECOND"
    return f"{_of_any(text)} BETWEEN '{EARLIEST.isoformat()}'::TIMESTAMPTZ AND {latest}"


EVENT_TIME = f"CASE WHEN time_text IS NULL THEN landed_at ELSE {_of_any('time_text')} END"
"""The moment, over the columns ``time_text`` and ``landed_at``; NULL where it cannot be read."""

TIME_SOURCES = ("event", "event_without_zone", "landed_at")
"""Origins of a moment; ``event_without_zone``: UTC is assumed."""

# Most end in Z: they need no pattern
TIME_FROM = f"""CASE
    WHEN time_text IS NULL THEN 2
    WHEN NOT ends_with(time_text, 'Z') AND regexp_full_match(time_text, '{_WITHOUT_ZONE}') THEN 1
    ELSE 0 END::TINYINT"""
"""SQL over ``time_text``: which of `TIME_SOURCES` the moment comes from."""

TIME_REASON = f"""CASE
    WHEN event_time IS NULL OR NOT isfinite(event_time) THEN 'time_unreadable'
    WHEN event_time < '{EARLIEST.isoformat()}'::TIMESTAMPTZ THEN 'time_before_2000'
    WHEN event_time > landed_at + INTERVAL {int(MAX_AHEAD.total_seconds())} SECOND THEN 'time_too_far_ahead'
    WHEN event_time < first_hour THEN 'before_start'
    END"""
"""SQL over ``event_time``, ``landed_at``, ``first_hour``: reason why an event gets no hour; NULL if it gets an hour."""
