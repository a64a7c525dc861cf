"""What a query can ask of a stored row: its columns by name or alias, and paths into its event.

`postgres` and `predicate` share these rules, so that they cannot come apart: which column or path a
field means, and which values equal a written value.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeAlias

from obs_assets.errors import ObsError
from obs_assets.search.language import Query, fields_of
from obs_assets.severities import level_of

COLUMNS: Mapping[str, Literal["text", "level", "number"]] = {
    "event_id": "text",
    "event_type": "text",
    "event_level": "level",
    "source_name": "text",
    "master_type": "text",
    "worker_type": "text",
    "worker_id": "text",
    "trace_id": "text",
    "session_id": "text",
    "error": "text",
    "row_uid": "text",
    "duration_ms": "number",
    "cost_usd": "number",
    "weight": "number",
}
"""Columns of the table of events that a query can name, and how their values are compared.

`event_level` is a text whose written value may be any name of a level: ``level:WARN`` is ``warning``.
"""

ALIASES: Mapping[str, str] = {
    "id": "event_id",
    "type": "event_type",
    "level": "event_level",
    "source": "source_name",
    "master": "master_type",
    "worker": "worker_id",
    "trace": "trace_id",
    "session": "session_id",
    "duration": "duration_ms",
    "cost": "cost_usd",
}
"""Short names of columns."""

SEARCHED_KEYS = ("message", "msg")
"""Top-level keys whose text a bare word is looked for in, beside the column ``error``."""

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,99})(?:\.[0-9]{1,99})?(?:[eE][+-]?[0-9]{1,2})?")
"""A number as JSON writes it, bounded so that every database can hold it exactly."""

Constant: TypeAlias = Literal["true", "false", "null"]
CONSTANTS: tuple[Constant, ...] = ("true", "false", "null")
"""JSON's constants, which equal the text of their name."""


class QueryValueError(ObsError):
    """A value that a field cannot be compared with."""


@dataclass(frozen=True)
class Column:
    """A column of the row."""

    name: str

    @property
    def is_number(self) -> bool:
        return COLUMNS[self.name] == "number"


@dataclass(frozen=True)
class Paths:
    """Places in the event's JSON: the keys inside one another, and the key with dots in its name.

    For example ``usage.model`` is at ``{"usage": {"model": …}}`` and at ``{"usage.model": …}``.
    """

    paths: tuple[tuple[str, ...], ...]


def place_of(field: str) -> Column | Paths:
    """The column whose name or alias is the field; without such a column, the paths of the field in the event."""
    name = ALIASES.get(field, field)
    if name in COLUMNS:
        return Column(name)
    whole = storable(field)
    nested = tuple(whole.split("."))
    # A name without a dot is the same in both ways.
    return Paths(tuple(dict.fromkeys((nested, (whole,)))))


def likely_names(query: Query) -> dict[str, str]:
    """Fields of a query that are no column but are spelt nearly as one, with that column's name or alias."""
    known = (*COLUMNS, *ALIASES)
    named = {field: _near(field, known) for field in fields_of(query) if field not in known}
    return {field: near for field, near in named.items() if near}


def _near(field: str, known: tuple[str, ...]) -> str | None:
    near = difflib.get_close_matches(field.lower(), known, n=1, cutoff=0.75)
    return next(iter(near), None)


def storable(text: str) -> str:
    """A text as the table stores it: U+0000, which PostgreSQL cannot hold, is U+FFFD there."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def number_of(value: str) -> Decimal | None:
    """The number that a value is written as, or None. For example ``"5.0"`` is 5 and ``"05"`` is None."""
    return Decimal(value) if _NUMBER.fullmatch(value) else None


def number_for(column: Column, value: str) -> Decimal:
    """The number that a numeric column is compared with.

    Raises:
        QueryValueError: the value is not written as a number.
    """
    number = number_of(value)
    if number is None:
        raise QueryValueError(
            f"{column.name} is a number, and {value!r} is not: write for example {column.name}:>500"
        )
    return number


def text_for(column: Column, value: str) -> str:
    """The text that a text column is compared with: the one word of a level for all of its names."""
    if COLUMNS[column.name] == "level":
        return storable(level_of(value) or value.lower())
    return storable(value)


def beginning_for(column: Column, text: str) -> str:
    """The text that a text column begins with; levels are stored in lower case."""
    if COLUMNS[column.name] == "level":
        return storable(text.lower())
    return storable(text)
