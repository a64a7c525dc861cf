"""A search as SQL that a person pastes into DuckDB to read the archive; nothing of it runs here.

The text is written to be read and changed. It reads a column from the fields that usually hold it, and
compares numbers as DOUBLE. So it differs from the table in three cases: rare names of fields, levels that
are written as numbers, and numbers of more than 15 digits.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product, zip_longest

from obs_assets.events import ALIASES, TIME_FIELDS, quote
from obs_assets.search.language import (
    And,
    Compare,
    Exists,
    Not,
    Operator,
    Or,
    Prefix,
    Query,
    Text,
    fields_of,
)
from obs_assets.search.questions import Order, Span
from obs_assets.search.rows import (
    SEARCHED_KEYS,
    Column,
    Paths,
    beginning_for,
    number_for,
    number_of,
    place_of,
    text_for,
)
from obs_assets.severities import WORDS

SHOWN = ("event_level", "event_type", "master_type", "error")
"""Columns of the answer that the query need not name."""

USUAL_FIELDS = 6
"""Fields in which a column is looked for: the first of its list, which most events have.

An event without any of the fields of a time has the start of its hour.
"""

_OWN = ("row_uid", "weight")
"""Columns that the archive stores beside the event."""


@dataclass(frozen=True)
class Objects:
    """The objects of a range.

    Attributes:
        urls: address of each object, for example ``s3://bucket/key``.
        is_parquet: Parquet files; else JSON lines.
        is_mapped: the event is in the field ``data`` of a line.
    """

    urls: Sequence[str]
    is_parquet: bool
    is_mapped: bool


@dataclass(frozen=True)
class Server:
    """The server of a bucket.

    Attributes:
        scope: begin of the addresses of its objects, for example ``s3://bucket``.
        region: region of the bucket; None: the default of the credentials.
        endpoint_url: address of a server that is not AWS.
    """

    scope: str
    region: str | None
    endpoint_url: str | None


def statement(
    query: Query,
    span: Span,
    objects: Objects,
    server: Server | None,
    *,
    order: Order = "newest",
    limit: int = 1000,
) -> str:
    """The statements that find the events of a range in the archive.

    Args:
        query: see `language.parse`.
        span: the range.
        objects: the objects of its hours; at least one.
        server: the server of the bucket; None: the objects are local files.
        order: newest or oldest first.
        limit: rows, at most.

    Raises:
        QueryValueError: a numeric column is compared with a text.
    """
    head = "" if server is None else _secret(server)
    direction = "DESC" if order == "newest" else "ASC"
    start, end = (quote(moment.isoformat()) for moment in (span.start, span.end))
    return f"""{head}SET TimeZone = 'UTC';
WITH lines AS (
  {_lines(objects)}
), timed AS (
  SELECT *, {_time(objects)} AS time FROM lines
), events AS (
  SELECT {_columns(query)}
  FROM timed
)
SELECT * FROM events
WHERE timestamp >= TIMESTAMPTZ {start} AND timestamp < TIMESTAMPTZ {end}
  AND {condition(query)}
ORDER BY timestamp {direction}, row_uid {direction} LIMIT {limit};
"""


# -- where it reads --------------------------------------------------------------------------------


def _secret(server: Server) -> str:
    """How DuckDB reaches the bucket: with the credentials of the person who pastes."""
    options = ["TYPE s3", "PROVIDER credential_chain", f"SCOPE {quote(server.scope)}"]
    if server.region:
        options.append(f"REGION {quote(server.region)}")
    if server.endpoint_url:
        scheme, _, host = server.endpoint_url.partition("://")
        is_tls = "true" if scheme == "https" else "false"
        options += [
            f"ENDPOINT {quote(host.rstrip('/'))}",
            "URL_STYLE 'path'",
            f"USE_SSL {is_tls}",
        ]
    return f"""-- DuckDB 1.3 or newer. Credentials come from AWS's usual places: environment, ~/.aws, role.
INSTALL httpfs; LOAD httpfs; INSTALL aws; LOAD aws;
CREATE OR REPLACE SECRET obs_archive ({", ".join(options)});
"""


def _lines(objects: Objects) -> str:
    """SQL: row_uid, weight, time and event of each row of the objects."""
    listed = ",\n    ".join(map(quote, objects.urls))
    if objects.is_parquet:
        return f"""SELECT row_uid, coalesce(weight, 1) AS weight, event_time, event::JSON AS event
  FROM read_parquet([
    {listed}
  ], union_by_name = true)"""
    event = "json->'$.data'" if objects.is_mapped else "json"
    return f"""SELECT json->>'$._obs.row_uid' AS row_uid,
    coalesce((json->>'$._obs.weight')::DOUBLE, 1) AS weight,
    strptime(json->>'$._obs.hour' || '+00', '%Y-%m-%d-%H:%M%z') AS hour, {event} AS event
  FROM read_ndjson_objects([
    {listed}
  ])"""


# -- columns ---------------------------------------------------------------------------------------


def _columns(query: Query) -> str:
    """SQL of the columns: those that are shown, and those that the query names."""
    places = map(place_of, fields_of(query))
    named = [place.name for place in places if isinstance(place, Column)]
    wanted = dict.fromkeys(name for name in (*SHOWN, *named) if name not in _OWN)
    columns = [f"{_column(name)} AS {name}" for name in wanted]
    return ",\n    ".join(["time AS timestamp", *columns, "weight", "row_uid", "event"])


def _time(objects: Objects) -> str:
    """SQL: the time of an event, which lies in the hour of its object."""
    if objects.is_parquet:
        return "event_time"
    text = f"coalesce({', '.join(_texts(TIME_FIELDS))})"
    # A number counts seconds, milliseconds, microseconds or nanoseconds since 1970: its size says which.
    return f"""(SELECT CASE WHEN found >= hour AND found < hour + INTERVAL 1 HOUR THEN found ELSE hour END
    FROM (SELECT coalesce(try_cast(text AS TIMESTAMPTZ), to_timestamp(number / CASE
      WHEN number < 1e11 THEN 1 WHEN number < 1e14 THEN 1e3 WHEN number < 1e17 THEN 1e6
      ELSE 1e9 END)) AS found
    FROM (SELECT text, try_cast(text AS DOUBLE) AS number
    FROM (SELECT {text} AS text))))"""


def _texts(names: Iterable[str]) -> list[str]:
    """SQL: the text at each of these fields, which may be nested or have dots in its name."""
    found = []
    for name in islice(names, USUAL_FIELDS):
        for keys in dict.fromkeys(((name,), tuple(name.split(".")))):
            found.append(f"(event->>{quote(_path(keys))})")
    return found


def _path(keys: Sequence[str], ends: Sequence[str] = ()) -> str:
    """The JSON path of keys inside one another; each end stands behind its key."""
    parts = [f'."{_escaped(key)}"' for key in keys]
    pairs = zip_longest(parts, ends, fillvalue="")
    return "$" + "".join(f"{part}{end}" for part, end in pairs)


def _escaped(key: str) -> str:
    return key.replace("\\", "\\\\").replace('"', '\\"')


def _column(name: str) -> str:
    texts = _texts(ALIASES[name])
    match name:
        case "event_level":
            return _level(texts)
        case "error":
            # false, 0 and an empty text say that there is no error.
            texts = [f"nullif(nullif(nullif({text}, ''), 'false'), '0')" for text in texts]
        case "event_type":
            texts.append("'unknown'")
        case "duration_ms" | "cost_usd":
            return f"try_cast(coalesce({', '.join(texts)}) AS DOUBLE)"
    return f"coalesce({', '.join(texts)})"


def _level(texts: Sequence[str]) -> str:
    """SQL: the name of a level for each of its words."""
    word = f"lower(coalesce({', '.join(texts)}))"
    names = "".join(
        f"\n      WHEN list_contains([{', '.join(map(quote, words))}], word) THEN {quote(level)}"
        for level, words in WORDS.items()
        if words
    )
    return f"(SELECT CASE{names}\n      ELSE word END FROM (SELECT {word} AS word))"


# -- the condition ---------------------------------------------------------------------------------


def condition(query: Query) -> str:
    """SQL over the columns and ``event``: true for an event that matches, else false.

    Raises:
        QueryValueError: a numeric column is compared with a text.
    """
    match query:
        case Text(text):
            return _holds(text)
        case Compare(field, operator, value):
            return _compared(place_of(field), operator, value)
        case Prefix(field, text):
            return _begins(place_of(field), text)
        case Exists(field):
            return _exists(place_of(field))
        case Not(term):
            return f"NOT {condition(term)}"
        case And(terms):
            return _joined(" AND ", map(condition, terms), "true")
        case Or(terms):
            return _joined(" OR ", map(condition, terms), "false")


def _joined(operator: str, parts: Iterable[str], without: str) -> str:
    listed = list(parts)
    return f"({operator.join(listed)})" if listed else without


def _sure(test: str) -> str:
    """The test, false for a value that is missing."""
    return f"coalesce({test}, false)"


def _holds(text: str) -> str:
    """Whether the error or a message holds a text, in any case of letters."""
    wanted = f"lower({quote(text)})"
    tests = [f"contains(lower(error), {wanted})"]
    for key in SEARCHED_KEYS:
        path = quote(_path([key]))
        is_text = f"json_type(event, {path}) = 'VARCHAR'"
        tests.append(f"{is_text} AND contains(lower(event->>{path}), {wanted})")
    return _joined(" OR ", map(_sure, tests), "false")


def _compared(place: Column | Paths, operator: Operator, value: str) -> str:
    if isinstance(place, Paths):
        return _any(place, _value_test(operator, value))
    if place.is_number:
        return _sure(f"{place.name} {operator} {float(number_for(place, value))!r}::DOUBLE")
    return _sure(f"{place.name} {operator} {quote(text_for(place, value))}")


def _value_test(operator: Operator, value: str) -> str:
    """A test of a JSON value ``v``: numbers compare with numbers, texts with texts."""
    number = number_of(value)
    text = f"v->>'$' {operator} {quote(value)}"
    if number is None and operator != "=":
        return f"json_type(v) = 'VARCHAR' AND {text}"
    if number is None:
        # The text of true, false and null is their name.
        is_plain = "list_contains(['VARCHAR', 'BOOLEAN', 'NULL'], json_type(v))"
        return f"{is_plain} AND coalesce(v->>'$', 'null') = {quote(value)}"
    is_number = (
        "list_contains(['UBIGINT', 'BIGINT', 'DOUBLE', 'UHUGEINT', 'HUGEINT'], json_type(v))"
    )
    as_number = (
        f"{is_number} AND try_cast(v->>'$' AS DOUBLE) {operator} {float(number)!r}::DOUBLE"
    )
    if operator != "=":
        return as_number
    return f"({as_number}) OR (json_type(v) = 'VARCHAR' AND {text})"


def _begins(place: Column | Paths, text: str) -> str:
    if isinstance(place, Paths):
        return _any(place, f"json_type(v) = 'VARCHAR' AND starts_with(v->>'$', {quote(text)})")
    if place.is_number:
        return "false"  # a number has no beginning
    return _sure(f"starts_with({place.name}, {quote(beginning_for(place, text))})")


def _exists(place: Column | Paths) -> str:
    if isinstance(place, Paths):
        # A list is there by its elements: an empty list is no value.
        return _any(place, "NOT list_contains(['NULL', 'ARRAY'], json_type(v))")
    return f"({place.name} IS NOT NULL)"


def _any(place: Paths, test: str) -> str:
    """Whether a value at the paths passes a test; a list on a path stands for its elements."""
    values = []
    # DuckDB has no path with an empty key.
    for keys in filter(all, place.paths):
        values.append(f"[json_extract(event, {quote(_path(keys))})]")
        for ends in _ends(len(keys)):
            values.append(f"json_extract(event, {quote(_path(keys, ends))})")
    if not values:
        return "false"
    listed = f"list_concat({', '.join(values)})"
    return f"(len(list_filter({listed}, lambda v: coalesce({test}, false))) > 0)"


def _ends(keys: int) -> Iterator[tuple[str, ...]]:
    """The ways to unfold lists on a path of keys: each key, and the last key twice."""
    choices = [("", "[*]")] * (keys - 1) + [("", "[*]", "[*][*]")]
    return islice(product(*choices), 1, None)
