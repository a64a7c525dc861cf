"""The SQL of a search, for psql, and an estimate of its rows. Nothing is searched."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from obs_assets.search.postgres import condition
from obs_assets.search.questions import Order, snapshot
from obs_assets.search.selection import Selection
from obs_assets.storage.postgres import Connection, one


@dataclass(frozen=True)
class Explained:
    """A search as PostgreSQL would run it.

    Attributes:
        sql: the statement, with all values in it.
        estimated_rows: rows that match, by the planner's statistics.
        tables: names of the partitions that the statement reads.
    """

    sql: str
    estimated_rows: int
    tables: tuple[str, ...]


def explain(
    connection: Connection, selection: Selection, *, order: Order, limit: int
) -> Explained:
    """The statement of a search, and the planner's estimate.

    Args:
        connection: in autocommit mode.
        selection: the events that are searched.
        order: newest or oldest first.
        limit: rows, at most.

    Raises:
        QueryValueError: a numeric column is compared with a text.
    """
    words = {
        "table": selection.tables.events,
        "start": sql.Literal(selection.span.start),
        "end": sql.Literal(selection.span.end),
        "matching": condition(selection.query),
    }
    matching = sql.SQL(
        "SELECT * FROM {table} WHERE timestamp >= {start} AND timestamp < {end} AND {matching}"
    ).format(**words)
    direction = "DESC" if order == "newest" else "ASC"
    ordered = sql.SQL(
        f'{{}} ORDER BY timestamp {direction}, row_uid COLLATE "C" {direction} LIMIT {{}}'
    ).format(matching, sql.Literal(limit))
    with snapshot(connection):
        ((whole,),) = one(connection, sql.SQL("EXPLAIN (FORMAT JSON) {}").format(matching))
    plan = whole["Plan"]
    tables = tuple(sorted(set(_tables(plan))))
    return Explained(ordered.as_string(connection), int(plan["Plan Rows"]), tables)


def _tables(plan: Mapping[str, Any]) -> Iterator[str]:
    """Names of the tables that a plan reads."""
    if "Relation Name" in plan:
        yield plan["Relation Name"]
    for inner in plan.get("Plans", ()):
        yield from _tables(inner)
