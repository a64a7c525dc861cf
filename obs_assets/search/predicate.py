"""A query as a decision about a single row, for streams and for archives.

It is the slow and obvious meaning of a query; `postgres.condition` must agree with it on every row.
"""

import json
import operator
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

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
from obs_assets.search.rows import (
    CONSTANTS,
    SEARCHED_KEYS,
    Column,
    Paths,
    beginning_for,
    number_for,
    number_of,
    place_of,
    storable,
    text_for,
)

_ORDERS: Mapping[Operator, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}

_CONSTANT_VALUES: Mapping[str, bool | None] = {"true": True, "false": False, "null": None}


def read_event(event: str) -> dict[str, Any]:
    """The event of a row for `matches`: numbers keep their digits."""
    # Slow and exact: this meaning decides where SQL is uncertain.
    # A float would lose digits of large numbers.
    read: dict[str, Any] = json.loads(event, parse_float=Decimal, parse_int=Decimal)
    return read


def matches(query: Query, row: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    """Whether a query matches a row.

    Args:
        query: see `language.parse`.
        row: values of the columns that `rows.COLUMNS` names; numbers are int, float or Decimal.
        event: the event that the row stores, see `read_event`.

    Raises:
        QueryValueError: a numeric column is compared with a text.
    """
    match query:
        case Text(text):
            return _holds(text, row, event)
        case Compare(field, operator_, value):
            return _compared(place_of(field), operator_, value, row, event)
        case Prefix(field, text):
            return _begins(place_of(field), text, row, event)
        case Exists(field):
            return _exists(place_of(field), row, event)
        case Not(term):
            return not matches(term, row, event)
        case And(terms):
            return all(matches(term, row, event) for term in terms)
        case Or(terms):
            return any(matches(term, row, event) for term in terms)


def folded(text: str) -> str:
    """A text in lower case, character by character, as PostgreSQL's ``lower`` does.

    Python's own ``lower`` looks at neighbours (a sigma at the end of a word) and may give two characters.
    """
    return "".join(map(_folded_character, text))


def _folded_character(character: str) -> str:
    # U+0130 is the only character whose lower case has two characters.
    lower = character.lower()
    return lower if len(lower) == 1 else lower[0]


def _holds(text: str, row: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    wanted = folded(storable(text))
    # Only strings are searched for a text: the digits of a number are no words.
    texts = [row["error"], *(event.get(key) for key in SEARCHED_KEYS)]
    return any(isinstance(value, str) and wanted in folded(value) for value in texts)


def _compared(
    place: Column | Paths,
    operator_: Operator,
    value: str,
    row: Mapping[str, Any],
    event: Mapping[str, Any],
) -> bool:
    compare = _ORDERS[operator_]
    if isinstance(place, Paths):
        return any(_value_compares(found, operator_, value) for found in _at(place, event))
    stored = row[place.name]
    if place.is_number:
        number = number_for(place, value)
        return stored is not None and compare(Decimal(stored), number)
    return stored is not None and compare(stored, text_for(place, value))


def _value_compares(found: Any, operator_: Operator, value: str) -> bool:
    """Whether a JSON value compares with a written value: types that differ never do."""
    compare = _ORDERS[operator_]
    number = number_of(value)
    if isinstance(found, Decimal):
        return number is not None and compare(found, number)
    if isinstance(found, str):
        # An order with a number asks for numbers; equality holds for the text of the number too.
        return (operator_ == "=" or number is None) and compare(found, storable(value))
    is_constant = operator_ == "=" and value in CONSTANTS and not isinstance(found, dict | list)
    return is_constant and found is _CONSTANT_VALUES[value]


def _begins(
    place: Column | Paths,
    text: str,
    row: Mapping[str, Any],
    event: Mapping[str, Any],
) -> bool:
    if isinstance(place, Paths):
        texts = [value for value in _at(place, event) if isinstance(value, str)]
        return any(value.startswith(storable(text)) for value in texts)
    stored = row[place.name]
    # A number has no beginning: `duration:1*` matches no row.
    return isinstance(stored, str) and stored.startswith(beginning_for(place, text))


def _exists(place: Column | Paths, row: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    if isinstance(place, Paths):
        return any(value is not None for value in _at(place, event))
    return row[place.name] is not None


def _at(place: Paths, event: Mapping[str, Any]) -> Iterator[Any]:
    """The values at the places of a field; a list on a path stands for its elements."""
    for keys in place.paths:
        found: list[Any] = [event]
        for key in keys:
            objects = [value for value in _unfolded(found) if isinstance(value, dict)]
            found = [value[key] for value in objects if key in value]
        yield from _unfolded(list(_unfolded(found)))


def _unfolded(values: list[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from value
        else:
            yield value
