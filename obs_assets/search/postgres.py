"""A query as SQL for PostgreSQL. Values travel as parameters, never as a part of the SQL text.

Paths into the event become jsonpath in lax mode: a list on the path is unfolded, so that
``tags:new`` matches ``{"tags": ["old", "new"]}``. The GIN index of the table answers equality.
"""

import json
from collections.abc import Sequence

from psycopg import sql

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

_NOTHING = sql.SQL("false")
_EVERYTHING = sql.SQL("true")


def condition(query: Query) -> sql.Composable:
    """SQL of a condition on a row of the table of events: true for a match; else false or NULL.

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
            # NOT alone would lose the rows for which the term is NULL.
            return sql.SQL("({} IS NOT TRUE)").format(condition(term))
        case And(terms):
            return _joined(" AND ", [condition(term) for term in terms], _EVERYTHING)
        case Or(terms):
            return _joined(" OR ", [condition(term) for term in terms], _NOTHING)


def _joined(
    operator: str,
    conditions: Sequence[sql.Composable],
    without: sql.Composable,
) -> sql.Composable:
    if not conditions:
        return without
    return sql.SQL("({})").format(sql.SQL(operator).join(conditions))


# -- texts -------------------------------------------------------------------------------------------------------------


def _holds(text: str) -> sql.Composable:
    """Whether the error or a message holds a text, in any case."""
    # ILIKE would read % and _ in the text as wildcards.
    wanted = sql.SQL("lower({})").format(sql.Literal(storable(text)))
    texts = [sql.SQL("error"), *map(_string_at, SEARCHED_KEYS)]
    found = [
        sql.SQL("strpos(lower({}), {}) > 0").format(expression, wanted) for expression in texts
    ]
    return _joined(" OR ", found, _NOTHING)


def _string_at(key: str) -> sql.Composable:
    """A top-level value that is a string; NULL otherwise."""
    # Without the test, ->> gives the JSON text of an object, in which a word would be found.
    form = sql.SQL("CASE jsonb_typeof(data -> {}) WHEN 'string' THEN data ->> {} END")
    return form.format(sql.Literal(key), sql.Literal(key))


# -- columns and paths -------------------------------------------------------------------------------------------------


def _compared(place: Column | Paths, operator: Operator, value: str) -> sql.Composable:
    if isinstance(place, Paths):
        return _at_any(place, _filter(operator, value))
    name = sql.Identifier(place.name)
    if place.is_number:
        # As a number of any size: a literal beyond the column's type is no error.
        number = sql.SQL("{}::numeric").format(sql.Literal(str(number_for(place, value))))
        column = sql.SQL("{}::numeric").format(name)
        form = sql.SQL(f"({{}} {operator} {{}})")
        return form.format(column, number)
    # The order of code points, in every database.
    collation = "" if operator == "=" else ' COLLATE "C"'
    form = sql.SQL(f"({{}}{collation} {operator} {{}})")
    # By itself: a function around it would keep the index from being used.
    return form.format(name, sql.Literal(text_for(place, value)))


def _begins(place: Column | Paths, text: str) -> sql.Composable:
    if isinstance(place, Paths):
        return _at_any(place, f"@ starts with {_json(text)}")
    if place.is_number:
        return _NOTHING  # a number has no text that a query can know
    name, beginning = sql.Identifier(place.name), sql.Literal(beginning_for(place, text))
    return sql.SQL("starts_with({}, {})").format(name, beginning)


def _exists(place: Column | Paths) -> sql.Composable:
    if isinstance(place, Paths):
        return _at_any(place, "@ != null")
    return sql.SQL("({} IS NOT NULL)").format(sql.Identifier(place.name))


def _at_any(place: Paths, test: str) -> sql.Composable:
    found = []
    for path in map(json_path, place.paths):
        # Part of the path, not a variable of it: @?, which the index answers, takes no variables.
        jsonpath = sql.Literal(f"{path} ? ({test})")
        found.append(sql.SQL("data @? {}::jsonpath").format(jsonpath))
    return _joined(" OR ", found, _NOTHING)


def json_path(keys: Sequence[str]) -> str:
    """The jsonpath of keys inside one another, for example ``$."usage"."model"``."""
    return "$" + "".join(f".{_json(key)}" for key in keys)


def _filter(operator: Operator, value: str) -> str:
    """The filter of a jsonpath: equality with a number or constant holds for its text too."""
    number = number_of(value)
    if operator != "=":
        bound = _json(value) if number is None else str(number)
        return f"@ {operator} {bound}"
    return jsonpath_equal(value)


def jsonpath_equal(value: str) -> str:
    """The filter of a jsonpath that a value equal to a written value passes."""
    # jsonpath compares numbers with numbers only, so that the text of a number is asked for too.
    number = number_of(value)
    wanted = [_json(value)]
    if number is not None:
        wanted.append(str(number))
    elif value in CONSTANTS:
        wanted.append(value)
    return " || ".join(f"@ == {literal}" for literal in wanted)


def _json(text: str) -> str:
    """A text as a string of jsonpath, which is written as in JSON."""
    return json.dumps(storable(text))
