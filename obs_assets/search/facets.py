"""The most frequent values of fields, and the fields that events have.

Values of a column that the table of statistics has are counted exactly, if the query needs no other
column. For other fields the newest matching rows are read; the answer says whether these are all.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from psycopg import sql

from obs_assets.search.counting import TALLY, Slots, Tally, by_column, count_slots, hourly_table
from obs_assets.search.postgres import json_path
from obs_assets.search.predicate import read_event
from obs_assets.search.questions import FoundRows, Span, find_rows, snapshot
from obs_assets.search.rows import COLUMNS, Column, Paths, place_of
from obs_assets.search.selection import Selection
from obs_assets.storage.postgres import Connection

SAMPLE_ROWS = 10_000
"""Newest matching rows that are read for the values of fields."""

FIELDS_SAMPLE_ROWS = 1_000
"""Newest matching rows whose paths are listed."""

MOST_DEPTH = 6
"""Keys inside one another that a listed path has, at most."""

MOST_PATHS = 500
"""Paths of an answer, at most: the most frequent ones."""


@dataclass(frozen=True)
class FacetValue:
    """A value of a field.

    Attributes:
        value: the value as a query writes it; None for events without the field.
        rows: stored rows.
        events: events that the rows stand for.
    """

    value: str | None
    rows: int
    events: float


@dataclass(frozen=True)
class Facet:
    """The most frequent values of a field.

    Attributes:
        field: the field as it was asked for.
        values: the most frequent first.
        distinct: number of different values, absence not counted.
        rows_read: rows whose values were counted.
        is_exact: whether these are all rows that match; else they are the newest ones.
        seconds: how long it took. Fields that are read together have the same figure.
    """

    field: str
    values: tuple[FacetValue, ...]
    distinct: int
    rows_read: int
    is_exact: bool
    seconds: float

    @property
    def how(self) -> str:
        """``exact``, or which rows were read, for example ``newest 10,000 rows``."""
        if self.is_exact:
            return "exact"
        return f"newest {self.rows_read:,} rows"


@dataclass(frozen=True)
class FieldSeen:
    """A field that events have.

    Attributes:
        name: a column, or a path of keys joined by dots, as a query names it.
        is_column: whether it is a column.
        kinds: kinds of its JSON values: string, number, boolean, null or object; elements stand for a list.
        rows: rows of the sample that have the field.
        share: the same as a share of the sample, from 0 to 1.
    """

    name: str
    is_column: bool
    kinds: tuple[str, ...]
    rows: int
    share: float


@dataclass(frozen=True)
class Fields:
    """An answer of `fields_seen`.

    Attributes:
        fields: columns first, then paths; the most frequent first.
        sample_rows: rows that were read, the newest that match.
        searched: the range of these rows.
        is_complete: False if the time was over before the sample was read.
        seconds: how long it took.
    """

    fields: tuple[FieldSeen, ...]
    sample_rows: int
    searched: Span
    is_complete: bool
    seconds: float


def facets(
    connection: Connection,
    selection: Selection,
    fields: Sequence[str],
    *,
    limit: int = 10,
    sample_rows: int = SAMPLE_ROWS,
    deadline_s: float = 10.0,
) -> tuple[Facet, ...]:
    """The most frequent values of fields, in the order of the fields.

    Args:
        connection: in autocommit mode.
        selection: the events that are asked about.
        fields: columns, their short names, or paths.
        limit: values of a field, at most.
        sample_rows: newest matching rows that are read for fields that are not counted exactly.
        deadline_s: seconds after which the search ends.

    Raises:
        QueryValueError: a numeric column is compared with a text.
    """
    ends_at = time.monotonic() + deadline_s
    found: dict[str, Facet] = {}
    with snapshot(connection):
        for name in filter(_is_column, dict.fromkeys(fields)):
            if hourly_table(selection, by_column(name)):
                # Half of the time is left for the sample: hours at the ends of the range can be large.
                until = ends_at - deadline_s / 2
                found |= _exact(connection, selection, name, limit=limit, ends_at=until)
        # All other fields are read from the same rows, in a single search.
        others = [name for name in dict.fromkeys(fields) if name not in found]
        if others:
            found |= _sampled(
                connection,
                selection,
                others,
                limit=limit,
                sample_rows=sample_rows,
                ends_at=ends_at,
            )
    return tuple(found[name] for name in fields)


def _is_column(name: str) -> bool:
    return isinstance(place_of(name), Column)


def _exact(
    connection: Connection,
    selection: Selection,
    name: str,
    *,
    limit: int,
    ends_at: float,
) -> dict[str, Facet]:
    """The values of a column of the table of statistics; empty if the time is over."""
    began = time.monotonic()
    slots = Slots([selection.span.start], TALLY, by_column(name))
    counted = count_slots(connection, selection, slots, ends_at=ends_at)
    # A part of the range would name the values of that part as the most frequent of all.
    if counted.searched != selection.span:
        return {}
    tallies = {value.text: tally for (_, value), tally in counted.figures.items()}
    rows = sum(tally.rows for tally in tallies.values())
    seconds = time.monotonic() - began
    return {name: Facet(name, *_ranked(tallies, limit), rows, True, seconds)}


def _sampled(
    connection: Connection,
    selection: Selection,
    names: Sequence[str],
    *,
    limit: int,
    sample_rows: int,
    ends_at: float,
) -> dict[str, Facet]:
    """The values of fields in the newest rows that match."""
    columns = [sql.SQL("coalesce(weight, 1)"), *map(_values, names)]
    found = find_rows(
        connection,
        selection.tables.events,
        columns,
        selection.query,
        selection.span,
        limit=sample_rows,
        deadline_s=ends_at - time.monotonic(),
    )
    rows, is_exact = len(found.rows), found.next is None
    return {
        name: Facet(
            name, *_ranked(_tallies(found, index), limit), rows, is_exact, found.seconds
        )
        for index, name in enumerate(names)
    }


def _tallies(found: FoundRows, index: int) -> dict[str | None, Tally]:
    """The values of a field: value → tally. A row of several values counts for each of them."""
    tallies: dict[str | None, Tally] = {}
    for _, _, weight, *values in found.rows:
        # A list that names a value twice is still a single row with it.
        for value in set(values[index] or [None]):
            tallies[value] = tallies.get(value, Tally()).plus(1, weight)
    return tallies


def _ranked(
    tallies: dict[str | None, Tally],
    limit: int,
) -> tuple[tuple[FacetValue, ...], int]:
    """The most frequent values, and the number of different values."""
    # Values of the same frequency in the order of their text, so that an answer is the same twice.
    ranked = sorted(tallies.items(), key=lambda item: (-item[1].rows, item[0] or ""))
    values = tuple(FacetValue(value, *tally) for value, tally in ranked[:limit])
    return values, len(tallies.keys() - {None})


def _values(name: str) -> sql.Composable:
    """SQL of the values of a field, as an array of texts."""
    match place_of(name):
        case Column(column):
            number = (
                sql.SQL("trim_scale({}::numeric)")
                if COLUMNS[column] == "number"
                else sql.SQL("{}")
            )
            return sql.SQL("ARRAY[{}::text]").format(number.format(sql.Identifier(column)))
        case Paths(paths):
            found = [_values_at(keys) for keys in paths]
            return sql.SQL("ARRAY({})").format(sql.SQL(" UNION ALL ").join(found))


def _values_at(keys: Sequence[str]) -> sql.Composable:
    # Two times [*], as a comparison unfolds a list and the lists inside it.
    path = sql.Literal(f"{json_path(keys)}[*][*]")
    return sql.SQL(
        "SELECT value #>> '{{}}' FROM jsonb_path_query(data, {}::jsonpath) AS value "
        "WHERE jsonb_typeof(value) NOT IN ('object', 'array', 'null')"
    ).format(path)


def fields_seen(
    connection: Connection,
    selection: Selection,
    *,
    deadline_s: float = 10.0,
) -> Fields:
    """The fields of the newest events that match, and how many of these events have each.

    Arguments as for `facets`.
    """
    columns = [*map(sql.Identifier, COLUMNS), sql.SQL("data::text")]
    found = find_rows(
        connection,
        selection.tables.events,
        columns,
        selection.query,
        selection.span,
        limit=FIELDS_SAMPLE_ROWS,
        deadline_s=deadline_s,
    )
    in_columns: Counter[str] = Counter()
    at_paths: Counter[str] = Counter()
    kinds: dict[str, set[str]] = {}
    for _, _, *stored, data in found.rows:
        in_columns.update(
            name for name, value in zip(COLUMNS, stored, strict=True) if value is not None
        )
        seen = set(_paths(read_event(data)))
        # A path with values of two kinds is still in a single row.
        at_paths.update({path for path, _ in seen})
        for path, kind in seen:
            kinds.setdefault(path, set()).add(kind)
    total = max(1, len(found.rows))
    listed = [
        FieldSeen(name, True, (_KIND_OF_COLUMN[COLUMNS[name]],), rows, rows / total)
        for name, rows in in_columns.most_common()
    ]
    listed += [
        FieldSeen(path, False, tuple(sorted(kinds[path])), rows, rows / total)
        for path, rows in at_paths.most_common(MOST_PATHS)
    ]
    is_complete = found.is_complete
    return Fields(tuple(listed), len(found.rows), found.searched, is_complete, found.seconds)


_KIND_OF_COLUMN = {"text": "string", "level": "string", "number": "number"}


def _paths(value: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """(path, kind) of the values inside a value that are no list."""
    if isinstance(value, list):
        for element in value:
            yield from _paths(element, keys)
        return
    path = ".".join(keys)
    # The name of a column means the column, so that no query reaches a key of that name.
    if keys and isinstance(place_of(path), Paths):
        yield path, _kind(value)
    if isinstance(value, dict) and len(keys) < MOST_DEPTH:
        for key, inner in value.items():
            yield from _paths(inner, (*keys, key))


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case Decimal():
            return "number"
        case str():
            return "string"
        case _:
            return "object"
