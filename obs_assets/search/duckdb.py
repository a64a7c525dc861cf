"""A query over a frame: DuckDB rules out most rows, then `predicate.matches` decides about the others.

The SQL keeps every row that matches and may keep others. So the meaning of a query stands in one place,
and no difference between two databases can lose an event.
"""

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from obs_assets.events import Frame, quote
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
)
from obs_assets.search.predicate import matches, read_event
from obs_assets.search.rows import (
    Column,
    Paths,
    beginning_for,
    number_for,
    number_of,
    place_of,
    text_for,
)

BATCH_ROWS = 2_000
"""Rows that are read from DuckDB at a time."""

# Signs that JSON writes in one way only, except as \u…: the letters i and k have other capital letters.
_PLAIN = re.compile(r"[A-Za-z0-9 _.:@-]+")
_PLAIN_IN_ANY_CASE = re.compile(r"[a-hj-rt-z0-9 _.:@-]+")

_NEAR = 1e-6
"""Numbers are compared with this relative tolerance: DuckDB's double has 15 digits."""


class _Sql(NamedTuple):
    """SQL of a term.

    Attributes:
        text: true for every row that matches.
        is_exact: whether it is false for all other rows.
    """

    text: str
    is_exact: bool


def superset(query: Query) -> str:
    """DuckDB's SQL that is true for every row that matches a query, and may be true for others.

    It reads the columns of `rows.COLUMNS` and ``event``, the event's JSON text.

    Raises:
        QueryValueError: a numeric column is compared with a text.
    """
    return _of(query).text


def matching_rows(frame: Frame, query: Query) -> Iterator[dict[str, Any]]:
    """The rows of a frame that match, in the order of the frame.

    Args:
        frame: with the columns of `rows.COLUMNS`, ``event``, and others.
        query: see `language.parse`.

    Raises:
        QueryValueError: a numeric column is compared with a text.
    """
    with frame.filter(superset(query)).to_arrow_reader(BATCH_ROWS) as batches:
        for batch in batches:
            for row in batch.to_pylist():
                # SQL keeps every row that may match; the language itself decides.
                if matches(query, row, read_event(row["event"])):
                    yield row


def _of(query: Query) -> _Sql:
    match query:
        case Text(text):
            return _Sql(_holds(text), False)
        case Compare(field, operator, value):
            return _compared(place_of(field), operator, value)
        case Prefix(field, text):
            return _begins(place_of(field), text)
        case Exists(field):
            return _exists(place_of(field))
        case Not(term):
            inner = _of(term)
            # Of a term that keeps too many rows, the opposite would keep too few.
            return _Sql(f"(NOT {inner.text})", True) if inner.is_exact else _Sql("true", False)
        case And(terms):
            return _joined(" AND ", [_of(term) for term in terms], "true")
        case Or(terms):
            return _joined(" OR ", [_of(term) for term in terms], "false")


def _joined(operator: str, parts: Sequence[_Sql], without: str) -> _Sql:
    if not parts:
        return _Sql(without, True)
    text = operator.join(part.text for part in parts)
    return _Sql(f"({text})", all(part.is_exact for part in parts))


# -- columns -----------------------------------------------------------------------------------------------------------


def _compared(place: Column | Paths, operator: Operator, value: str) -> _Sql:
    if isinstance(place, Paths):
        # A number can be written in several ways (1, 1.0, 1e0), so its text cannot be searched for.
        is_text = operator == "=" and number_of(value) is None
        return _Sql(_may_have(place, value if is_text else ""), False)
    if place.is_number:
        return _Sql(_near(place.name, operator, number_for(place, value)), False)
    # DuckDB compares texts byte by byte, which is the order of code points.
    wanted = quote(text_for(place, value))
    return _Sql(f"coalesce({_name(place)} {operator} {wanted}, false)", True)


def _near(name: str, operator: Operator, number: Decimal) -> str:
    """A comparison of numbers that keeps those that are nearly on the wrong side."""
    bound = float(number)
    # DOUBLE has fewer digits than the number that is compared with.
    tolerance = _NEAR * max(1.0, abs(bound))
    column = f'"{name}"::DOUBLE'
    match operator:
        case "=":
            test = f"abs({column} - {bound!r}::DOUBLE) <= {tolerance!r}::DOUBLE"
        case ">" | ">=":
            test = f"{column} >= {bound - tolerance!r}::DOUBLE"
        case _:
            test = f"{column} <= {bound + tolerance!r}::DOUBLE"
    return f"coalesce({test}, false)"


def _begins(place: Column | Paths, text: str) -> _Sql:
    if isinstance(place, Paths):
        return _Sql(_may_have(place, text), False)
    if place.is_number:
        return _Sql("false", True)
    beginning = quote(beginning_for(place, text))
    return _Sql(f"coalesce(starts_with({_name(place)}, {beginning}), false)", True)


def _exists(place: Column | Paths) -> _Sql:
    if isinstance(place, Paths):
        return _Sql(_may_have(place, ""), False)
    return _Sql(f"({_name(place)} IS NOT NULL)", True)


def _name(place: Column) -> str:
    return f'"{place.name}"'


# -- the event's text --------------------------------------------------------------------------------------------------


def _holds(text: str) -> str:
    wanted = _longest(_PLAIN_IN_ANY_CASE, text.lower())
    if not wanted:
        return "true"
    found = [f"contains(lower({column}), {quote(wanted)})" for column in ('"error"', "event")]
    return f"({_ESCAPED} OR coalesce({found[0]}, false) OR {found[1]})"


def _may_have(place: Paths, value: str) -> str:
    """Whether the event's text has the last key of a path, and the value."""
    nested, *_ = place.paths
    key = _longest(_PLAIN, nested[-1])
    # A quote stands behind the key, whether it is nested or has dots in its name.
    if key == nested[-1]:
        key += '"'
    parts = [key, _longest(_PLAIN, value)]
    tests = [f"contains(event, {quote(part)})" for part in parts if part]
    # Neither key nor value has a run of plain signs: no row can be ruled out.
    if not tests:
        return "true"
    return f"({_ESCAPED} OR ({' AND '.join(tests)}))"


_ESCAPED = r"contains(event, '\u')"
r"""JSON may write any sign as \u…: such an event is kept."""


def _longest(pattern: re.Pattern[str], text: str) -> str:
    """The longest run of plain signs in a text; empty if there is none."""
    return max(pattern.findall(text), key=len, default="")
