#!/usr/bin/env python3
"""Measure the questions of the search API on a table of many rows, beside the original's SQL on its own table.

Loads hours through the destination's own code; hours that are there are not loaded again. Loading is not measured.

    python bench/search.py [--rows 10000000] [--days 90] [--asked 50] [--plans]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from place import out
from postgres import ORIGINAL, ORIGINAL_COLUMNS
from postgres_size import SIZE, Hours, fill
from psycopg import sql
from rich.table import Table

from obs_assets import embedded
from obs_assets.hours import Hour
from obs_assets.search.export import export
from obs_assets.search.facets import facets
from obs_assets.search.histogram import histogram
from obs_assets.search.language import EVERYTHING, parse
from obs_assets.search.postgres import condition
from obs_assets.search.questions import Position, Span, find_event, list_events
from obs_assets.search.selection import Selection, Tables
from obs_assets.search.statistics import statistics_of
from obs_assets.settings import Settings
from obs_assets.storage import engine
from obs_assets.storage.postgres import Connection, connect

WARM_UP = 2
"""Times that a question is asked before it is measured."""


@dataclass(frozen=True)
class Row:
    """A question.

    Attributes:
        name: the question in words.
        ask: asks it.
        goal_ms: milliseconds that its median may take; None without a goal.
        original: the original's SQL; empty where it has no such question.
    """

    name: str
    ask: Callable[[], object]
    goal_ms: float | None = None
    original: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--asked", type=int, default=50, help="times that a question is asked")
    parser.add_argument(
        "--plans",
        action="store_true",
        help="print EXPLAIN (ANALYZE, BUFFERS) of the compiled forms",
    )
    args = parser.parse_args()
    SIZE.mkdir(parents=True, exist_ok=True)
    server = embedded.resolve(Settings(data_dir=SIZE)).postgres
    assert server
    try:
        with (
            engine.connect(SIZE / "tmp") as duck,
            connect(server, autocommit=True) as connection,
        ):
            # As the connections of `obs serve`: no statement is prepared in secret.
            connection.prepare_threshold = None
            hours = Hours(duck, server)
            hours.destination("size").init()
            newest = Hour.of(datetime.now(UTC) - timedelta(hours=2))
            fill(hours, newest, args.rows, args.days)
            tables = hours.destination("size").table.searched
            fill_original(connection)
            connection.execute("VACUUM ANALYZE size")
            connection.execute("VACUUM ANALYZE original")
            newest = max(hours.held("size"))
            questions = questions_of(connection, tables, newest, args.days)
            measure(connection, questions, args.asked)
            measure_export(connection, tables, newest, args.days)
            if args.plans:
                explain(connection, tables, newest)
    finally:
        embedded.stop(SIZE)


def fill_original(connection: Connection) -> None:
    """The original's table with its indexes, and the same rows."""
    counts = "SELECT (SELECT count(*) FROM size), (SELECT count(*) FROM original)"
    there = connection.execute("SELECT to_regclass('original') IS NOT NULL").fetchone()
    if there == (True,):
        ((ours, theirs),) = connection.execute(counts).fetchall()
        if ours == theirs:
            return
    out.print("filling the original's table …")
    connection.execute("DROP TABLE IF EXISTS original")
    connection.execute(ORIGINAL)
    columns = ", ".join(ORIGINAL_COLUMNS)
    copy = f"INSERT INTO original ({columns}) SELECT {columns} FROM size"
    connection.execute(copy.encode())


def questions_of(connection: Connection, tables: Tables, newest: Hour, days: int) -> list[Row]:
    """The questions of the API, each about ranges that end with the newest hour."""

    def span(**length: float) -> Span:
        return Span(newest.end - timedelta(**length), newest.end)

    def about(query: str, **length: float) -> Selection:
        return Selection(tables, parse(query), span(**length))

    def newest_of(query: str, limit: int = 100, **length: float) -> Callable[[], object]:
        return lambda: list_events(
            connection, tables.events, parse(query), span(**length), limit=limit, deadline_s=10
        )

    (first,) = list_events(
        connection, tables.events, parse("trace:*"), span(days=2), limit=1
    ).events
    day = f"timestamp >= '{newest.end - timedelta(days=1)}' AND timestamp < '{newest.end}'"
    page = "ORDER BY timestamp DESC LIMIT 50"
    an_hour = f"timestamp > '{newest.end}'::timestamptz - interval '1 hour'"
    a_day = f"timestamp > '{newest.end}'::timestamptz - interval '24 hours'"
    return [
        Row(
            "newest 100 errors of a day",
            newest_of("level:error", days=1),
            30,
            f"SELECT * FROM original WHERE event_level = 'error' AND {day} ORDER BY timestamp DESC LIMIT 100",
        ),
        Row(
            "newest 100 of a day, 2 terms and a NOT",
            newest_of("level:error type:task_failed -master:cicd", days=1),
        ),
        Row(
            "a trace, all days",
            newest_of(f"trace:{first.trace_id}", days=days),
            20,
            f'SELECT * FROM original WHERE data @> \'{{"trace_id": "{first.trace_id}"}}\'',
        ),
        Row(
            "an event by its id",
            lambda: find_event(connection, tables.events, Position.of_id(first.id)),
            10,
        ),
        Row(
            "histogram of a week by level",
            lambda: histogram(connection, about("", days=7), by="level"),
            150,
            "SELECT date_trunc('hour', timestamp), event_level, count(*) FROM original "
            f"WHERE timestamp >= '{newest.end - timedelta(days=7)}' GROUP BY 1, 2",
        ),
        Row(
            "histogram of a day by level, a worker's",
            lambda: histogram(connection, about("worker_type:review", days=1), by="level"),
        ),
        Row(
            "facets of a week: 6 fields",
            lambda: facets(
                connection,
                about("", days=7),
                ["level", "type", "master", "worker_type", "status", "data.model"],
            ),
            1000,
        ),
        Row(
            "facets of a week with a free filter",
            lambda: facets(
                connection, about("status:failed", days=7), ["level", "master", "worker_type"]
            ),
            1000,
        ),
        Row(
            f"statistics of {days} days",
            lambda: statistics_of(connection, about("", days=days)),
            50,
            "SELECT count(*), count(DISTINCT event_type), count(error), avg(duration_ms), max(duration_ms), "
            "sum(cost_usd), min(timestamp), max(timestamp) FROM original",
        ),
        Row(
            f"statistics of {days} days by type",
            lambda: statistics_of(connection, about("", days=days), by="type"),
            50,
            "SELECT event_type, count(*), count(error), avg(duration_ms), sum(cost_usd) FROM original "
            "GROUP BY 1 ORDER BY 2 DESC LIMIT 50",
        ),
        Row(
            f"costs of {days} days by master",
            lambda: statistics_of(connection, about("", days=days), by="master"),
            50,
            "SELECT master_type, sum(cost_usd), count(*), avg(cost_usd) FROM original GROUP BY 1 ORDER BY 2 DESC",
        ),
        Row(
            f"statistics of {days} days by day",
            lambda: statistics_of(connection, about("", days=days), step=timedelta(days=1)),
            50,
            "SELECT date_trunc('day', timestamp), count(*), count(error), avg(duration_ms), sum(cost_usd) "
            "FROM original GROUP BY 1 ORDER BY 1",
        ),
        Row(
            "summary: all, a day, an hour",
            lambda: [
                statistics_of(connection, about("", **length), by="master")
                for length in ({"days": float(days)}, {"days": 1.0}, {"hours": 1.0})
            ],
            None,
            f"SELECT count(*), count(*) FILTER (WHERE {a_day}), count(*) FILTER (WHERE {an_hour}), count(error), "
            f"count(DISTINCT master_type), sum(cost_usd) FILTER (WHERE {a_day}) FROM original",
        ),
        Row(
            "text of a day, newest 50",
            newest_of('"connection refused"', 50, days=1),
            1000,
            f"SELECT * FROM original WHERE (data::text ILIKE '%connection refused%' OR error ILIKE "
            f"'%connection refused%') AND {day} {page}",
        ),
        Row(
            f"text of {days} days that no event has, 10 s",
            newest_of("nothing-like-it", 50, days=days),
            10_500,
            f"SELECT * FROM original WHERE data::text ILIKE '%nothing-like-it%' {page}",
        ),
    ]


def measure(connection: Connection, questions: list[Row], asked: int) -> None:
    """Each question and the original's, in turn; medians."""
    ((rows,),) = connection.execute("SELECT sum(rows)::bigint FROM size_hourly").fetchall()
    table = Table(
        "question", "ms", "goal", "original ms", "× faster", title=f"{rows:,} rows, warm"
    )
    for row in questions:
        ways: dict[str, Callable[[], Any]] = {"ours": row.ask}
        if row.original:
            query = row.original.encode()
            ways["original"] = lambda query=query: connection.execute(query).fetchall()
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(asked + WARM_UP):
            for name, ask in ways.items():
                # A question of seconds is asked a few times only.
                if sum(times[name]) > 30 and len(times[name]) > WARM_UP:
                    continue
                began = time.perf_counter()
                ask()
                times[name].append(time.perf_counter() - began)
        medians = {
            name: 1000 * statistics.median(found[WARM_UP:]) for name, found in times.items()
        }
        ours, original = medians["ours"], medians.get("original")
        goal = "" if row.goal_ms is None else f"< {row.goal_ms:,.0f}"
        if row.goal_ms is not None and ours >= row.goal_ms:
            goal = f"[red]{goal}[/red]"
        factor = f"{original / ours:,.1f}" if original else ""
        table.add_row(
            row.name, f"{ours:,.1f}", goal, f"{original:,.1f}" if original else "", factor
        )
    out.print(table)


def measure_export(connection: Connection, tables: Tables, newest: Hour, days: int) -> None:
    """Rows a second of an export of everything, as JSON lines."""
    span = Span(newest.end - timedelta(days=days), newest.end)
    began, size, lines = time.perf_counter(), 0, 0
    for data in export(connection, Selection(tables, EVERYTHING, span)):
        size += len(data)
        lines += data.count(b"\n")
    seconds = time.perf_counter() - began
    out.print(
        f"export of {lines - 1:,} rows: {(lines - 1) / seconds:,.0f} rows/s, {size / seconds / 1e6:,.0f} MB/s"
    )


def explain(connection: Connection, tables: Tables, newest: Hour) -> None:
    """The plans of a few compiled queries over a day."""
    for text in (
        "level:error",
        "status:failed",
        '"connection refused"',
        "worker:x",
        "duration:>500",
    ):
        ask = sql.SQL(
            "EXPLAIN (ANALYZE, BUFFERS, COSTS off, TIMING off) SELECT timestamp, row_uid, data::text FROM {} "
            "WHERE timestamp >= {} AND timestamp < {} AND {} ORDER BY timestamp DESC, row_uid DESC LIMIT 100"
        ).format(
            tables.events,
            sql.Literal(newest.end - timedelta(days=1)),
            sql.Literal(newest.end),
            condition(parse(text)),
        )
        out.print(text, style="bold")
        for (line,) in connection.execute(ask):
            out.print(f"    {line}", highlight=False, markup=False)


if __name__ == "__main__":
    main()
