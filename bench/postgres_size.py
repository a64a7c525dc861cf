#!/usr/bin/env python3
"""Measure PostgreSQL at size: do loads slow down as the table grows, how long do questions take, what do readers feel.

Loads 90 days of hours through the destination's own code, as the schedule would, then asks. What is there already is
not loaded again, so that ``--plans`` may be asked for afterwards.

    python bench/postgres_size.py [--rows 10000000] [--days 90] [--plans]
    python bench/postgres_size.py --one-hour 5000000     # how long a large hour takes, and how much memory
"""

import argparse
import re
import statistics
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import psycopg
from place import DATA, HERE, HOUR, out
from postgres import offer_of
from rich.progress import track
from rich.table import Table

from obs_assets import embedded, events
from obs_assets.destinations.base import Offer
from obs_assets.destinations.postgres import PostgresConfig, PostgresDestination
from obs_assets.hours import Hour, parse_hour
from obs_assets.receipts import InputVersion
from obs_assets.settings import PostgresSettings, Settings
from obs_assets.storage import engine
from obs_assets.storage import frames as store
from obs_assets.storage.postgres import Connection, connect

SIZE = DATA / "size"
SOURCE_ROWS = 250_000
ASKED = 9

QUESTIONS = {
    "errors of a day (example 1)": (
        "SELECT * FROM {table} WHERE event_level = 'error' AND {day} ORDER BY timestamp DESC"
    ),
    "cost by master of a day (example 2)": (
        "SELECT master_type, SUM(cost_usd) AS total_cost FROM {table} WHERE cost_usd IS NOT NULL AND {day} "
        "GROUP BY master_type"
    ),
    "data @> status failed, a day (example 3)": (
        """SELECT * FROM {table} WHERE data @> '{{"status": "failed"}}' AND {day}"""
    ),
    "newest 100 of a type and level, a week": (
        "SELECT * FROM {table} WHERE event_type = 'llm_call' AND event_level = 'info' AND {week} "
        "ORDER BY timestamp DESC LIMIT 100"
    ),
    "newest 100 of a master and worker, a week": (
        "SELECT * FROM {table} WHERE master_type = 'security' AND worker_type = 'review' AND {week} "
        "ORDER BY timestamp DESC LIMIT 100"
    ),
    "newest 100 with an error, a week": (
        "SELECT * FROM {table} WHERE error IS NOT NULL AND {week} ORDER BY timestamp DESC LIMIT 100"
    ),
    "one trace, a week": "SELECT * FROM {table} WHERE trace_id = '{trace}' AND {week} ORDER BY timestamp",
    "one trace by data @>, a week": (
        """SELECT * FROM {table} WHERE data @> '{{"trace_id": "{trace}"}}' AND {week} ORDER BY timestamp"""
    ),
    "text in message or error, a day": (
        "SELECT * FROM {table} WHERE (data->>'message' ILIKE '%connection refused%' OR error ILIKE '%connection "
        "refused%') AND {day} ORDER BY timestamp DESC LIMIT 100"
    ),
    "events of a month by type (events_hourly)": (
        "SELECT event_type, sum(events), sum(errors) FROM {table}_hourly WHERE hour >= {now} - interval '30 days' "
        "GROUP BY event_type"
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument(
        "--plans", action="store_true", help="print EXPLAIN (ANALYZE, BUFFERS) of each question"
    )
    parser.add_argument(
        "--one-hour",
        type=int,
        metavar="ROWS",
        help="load one hour of so many rows, and nothing else",
    )
    args = parser.parse_args()
    SIZE.mkdir(parents=True, exist_ok=True)
    server = embedded.resolve(Settings(data_dir=SIZE)).postgres
    assert server
    if args.one_hour:
        one_hour(server, args.one_hour)
        return
    newest = Hour.of(
        datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    )
    try:
        with (
            engine.connect(SIZE / "tmp") as duck,
            connect(server, autocommit=True) as connection,
        ):
            hours = Hours(duck, server)
            if not hours.held("size"):
                growth(hours, newest)
            hours.destination("size").init()
            fill(hours, newest, args.rows, args.days)
            newest = max(hours.held("size"))
            connection.execute("VACUUM ANALYZE public.size")
            ask(connection, newest, plans=args.plans)
            readers(hours, newest)
    finally:
        embedded.stop(SIZE)


def one_hour(server: PostgresSettings, rows: int) -> None:
    """Load a large hour in this process, its frame written beforehand by another."""
    path = DATA / f"frame-{rows}.parquet"
    if not path.exists():
        subprocess.run(
            [sys.executable, "-c", f"import postgres_size as s; s.write_large({rows})"],
            cwd=HERE,
            check=True,
        )
    with engine.connect(SIZE / "tmp") as duck, connect(server, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS large")
        connection.execute("DELETE FROM obs.hour_loads WHERE destination = 'public.large'")
        frame = duck.read_parquet(str(path))
        offer = Offer(
            frame, parse_hour(HOUR), InputVersion(1, "bench", "bench"), rows, "not compared"
        )
        began = time.perf_counter()
        PostgresDestination(PostgresConfig(table_name="large"), server).deliver(offer)
        seconds = time.perf_counter() - began
        connection.execute("DROP TABLE large")
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak
    out.print(
        f"one hour of {rows:,} rows: {seconds:.0f} s, {rows / seconds:,.0f} rows/s, peak {int(peak[1]) / 1024:,.0f} MiB"
    )


def write_large(rows: int) -> None:
    """The benchmark's events over and over, as a frame of one hour."""
    with engine.connect(SIZE / "tmp") as duck:
        source = offer_of(duck, SOURCE_ROWS, enriched=True).frame
        copies = duck.sql(f"SELECT * FROM range({-(-rows // SOURCE_ROWS)}) AS copies (n)")
        named = "* EXCLUDE (n) REPLACE (left(sha256(row_uid || n), 32) AS row_uid)"
        frame = copies.join(source, "true", "inner").project(named).limit(rows)
        store.write_parquet(frame, DATA / f"frame-{rows}.parquet")


class Hours:
    """The benchmark's events as any number of different hours."""

    def __init__(self, duck: duckdb.DuckDBPyConnection, server: PostgresSettings) -> None:
        offer = offer_of(duck, SOURCE_ROWS, enriched=True)
        self.server, self._duck, self._version, self._taken = server, duck, offer.version, 0
        offer.frame.project("*, row_number() OVER () - 1 AS n").create("source")

    def destination(self, table: str) -> PostgresDestination:
        return PostgresDestination(PostgresConfig(table_name=table), self.server)

    def held(self, table: str) -> set[Hour]:
        return set(self.destination(table).holdings())

    def offer(self, hour: Hour, rows: int) -> Offer:
        """The next events of the source, spread evenly over the hour."""
        first = self._taken
        self._taken = (first + rows) % (SOURCE_ROWS - rows)
        moved = f"TIMESTAMPTZ '{hour.start.isoformat()}' + (n - {first}) * INTERVAL {3_600_000_000 // rows} MICROSECOND"
        frame = (
            self._duck.table("source")
            .filter(f"n >= {first} AND n < {first + rows}")
            .project(
                f"* REPLACE ({moved} AS event_time, left(sha256(row_uid || '{hour.stamp}'), 32) AS row_uid)"
            )
        )
        count, content = frame.aggregate(f"count(*), {events.CONTENT_HASH}").fetchall()[0]
        return Offer(frame, hour, self._version, count, content)

    def load(self, table: str, hour: Hour, rows: int) -> float:
        """Seconds that an hour's load takes."""
        offer = self.offer(hour, rows)
        began = time.perf_counter()
        self.destination(table).deliver(offer)
        return time.perf_counter() - began


def growth(hours: Hours, newest: Hour, count: int = 100, rows: int = 10_000) -> None:
    """A hundred hours one after the other, the oldest first, into a table of their own."""
    first = newest.start - timedelta(hours=count - 1)
    seconds = [
        hours.load("growth", Hour(first + timedelta(hours=n)), rows)
        for n in track(range(count), "growing")
    ]
    table = Table(
        "hours",
        "seconds, median",
        "× hours 6 to 15",
        title=f"loads of {rows:,} rows each as the table grows",
    )
    base = statistics.median(seconds[5:15])
    for start in (5, 25, 45, 65, 90):
        median = statistics.median(seconds[start : start + 10])
        table.add_row(f"{start + 1} to {start + 10}", f"{median:.3f}", f"{median / base:.2f}")
    out.print(table)


def fill(hours: Hours, newest: Hour, rows: int, days: int) -> None:
    """So many rows over so many days up to the newest hour, what is held already left out."""
    held, each = hours.held("size"), rows // (days * 24)
    newest = max(held, default=newest)
    wanted = [Hour(newest.start - timedelta(hours=n)) for n in reversed(range(days * 24))]
    missing = [hour for hour in wanted if hour not in held]
    for hour in track(missing, f"loading {len(missing):,} hours of {each:,} rows"):
        hours.load("size", hour, each)


def ask(connection: Connection, newest: Hour, *, plans: bool) -> None:
    """Each question until its pages are warm, then some more; medians."""
    trace = connection.execute(
        "SELECT trace_id FROM size WHERE timestamp >= %s LIMIT 1", [newest.start]
    ).fetchone()
    assert trace
    until = f"timestamp < '{newest.end.isoformat()}'"
    words = {
        "table": "size",
        "trace": trace[0],
        "now": f"'{newest.end.isoformat()}'::timestamptz",
        "day": f"timestamp >= '{(newest.end - timedelta(days=1)).isoformat()}' AND {until}",
        "week": f"timestamp >= '{(newest.end - timedelta(days=7)).isoformat()}' AND {until}",
    }
    (count,) = connection.execute(
        "SELECT sum(rows)::bigint FROM obs.hour_loads WHERE destination = 'public.size'"
    ).fetchone() or (0,)
    table = Table("question", "rows", "ms, median", title=f"of {count:,} rows, warm")
    for title, question in QUESTIONS.items():
        query = question.format(**words)
        times = []
        for _ in range(ASKED + 2):
            began = time.perf_counter()
            found = connection.execute(
                query.encode()
            ).rowcount  # all rows are here; none is made a Python object
            times.append(time.perf_counter() - began)
        table.add_row(title, f"{found:,}", f"{statistics.median(times[2:]) * 1000:.1f}")
        if plans:
            out.print(title, style="bold")
            for (line,) in connection.execute(
                b"EXPLAIN (ANALYZE, BUFFERS, COSTS off, TIMING off, SUMMARY on) "
                + query.encode()
            ):
                out.print(f"    {line}", highlight=False)
    out.print(table)


def readers(hours: Hours, newest: Hour, count: int = 15, seconds: float = 30) -> None:
    """Readers of a week, all at once, while hours are loaded and loaded again; none may fail or wait long."""
    until = time.monotonic() + seconds
    asked, failures = [], []
    week = f"timestamp >= '{(newest.end - timedelta(days=7)).isoformat()}' AND timestamp < '{newest.end.isoformat()}'"
    query = f"SELECT * FROM size WHERE event_type = 'llm_call' AND {week} ORDER BY timestamp DESC LIMIT 100".encode()

    def read() -> None:
        try:
            with connect(hours.server, autocommit=True) as connection:
                while time.monotonic() < until:
                    began = time.perf_counter()
                    connection.execute(query).fetchall()
                    asked.append(time.perf_counter() - began)
        except psycopg.Error as error:
            failures.append(error)

    def watch() -> None:
        waiting = b"SELECT coalesce(extract(epoch FROM max(clock_timestamp() - waitstart)), 0)::float8 FROM pg_locks"
        with connect(hours.server, autocommit=True) as connection:
            while time.monotonic() < until:
                waits.append((connection.execute(waiting).fetchone() or (0.0,))[0])
                time.sleep(0.01)

    waits: list[float] = [0.0]
    threads = [threading.Thread(target=read) for _ in range(count)] + [
        threading.Thread(target=watch)
    ]
    for thread in threads:
        thread.start()
    loads, hour = 0, newest
    while time.monotonic() < until:
        hour = (
            hour.next if loads % 2 == 0 else hour
        )  # a new hour, then the same hour with other rows
        hours.load("size", hour, 5_000)
        loads += 1
    for thread in threads:
        thread.join()
    asked.sort()
    out.print(
        f"{count} readers of a week during {loads} loads: {len(asked):,} questions, {len(failures)} failed, median "
        f"{statistics.median(asked) * 1000:.0f} ms, 99 % within {asked[len(asked) * 99 // 100] * 1000:.0f} ms, longest "
        f"{asked[-1] * 1000:.0f} ms; longest wait for a lock {max(waits) * 1000:.0f} ms"
    )


if __name__ == "__main__":
    main()
