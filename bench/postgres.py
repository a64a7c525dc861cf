#!/usr/bin/env python3
"""Measure ways to load an hour into PostgreSQL, on one server in one run, interleaved.

python bench/postgres.py [--events 250000] [--rounds 3]
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import duckdb
from place import DATA, HOUR, events_of, fresh_data_dir, out
from rich.table import Table

from obs_assets import embedded, events
from obs_assets.destinations.base import Offer
from obs_assets.destinations.postgres import PostgresConfig, PostgresDestination
from obs_assets.destinations.postgres.rows import copy_data, row_of
from obs_assets.destinations.postgres.table import COLUMNS, INDEXES
from obs_assets.hours import Hour, parse_hour
from obs_assets.receipts import InputVersion
from obs_assets.settings import PostgresSettings, Settings
from obs_assets.storage import engine
from obs_assets.storage import frames as store
from obs_assets.storage.postgres import Connection, connect
from obs_assets.transforms.enrich import EnrichConfig, enrich

ORIGINAL = """
CREATE TABLE original (
    id BIGSERIAL PRIMARY KEY, event_id VARCHAR(255), event_type VARCHAR(100), event_level VARCHAR(50),
    timestamp TIMESTAMPTZ NOT NULL, source_name VARCHAR(255), master_type VARCHAR(100), worker_type VARCHAR(100),
    data JSONB NOT NULL, error TEXT, duration_ms INTEGER, cost_usd NUMERIC(12, 8),
    created_at TIMESTAMPTZ NOT NULL DEFAULT NOW());
CREATE INDEX ON original (timestamp DESC); CREATE INDEX ON original (event_type);
CREATE INDEX ON original (event_level); CREATE INDEX ON original (error) WHERE error IS NOT NULL;
CREATE INDEX ON original USING gin (data)"""

ORIGINAL_COLUMNS = (
    *(
        "event_id",
        "event_type",
        "event_level",
        "timestamp",
        "source_name",
        "master_type",
        "worker_type",
    ),
    *("data", "error", "duration_ms", "cost_usd"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=250_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    fresh_data_dir()
    server = embedded.resolve(Settings(data_dir=DATA / "obs")).postgres
    assert server
    try:
        with (
            engine.connect(DATA / "obs" / "tmp") as duck,
            connect(server, autocommit=True) as connection,
        ):
            compare(server, connection, offer_of(duck, args.events), args.rounds)
    finally:
        embedded.stop(DATA / "obs")


def offer_of(duck: duckdb.DuckDBPyConnection, count: int, *, enriched: bool = False) -> Offer:
    """The benchmark's events as a frame in Parquet, which is how a destination gets them."""
    path = DATA / f"frame-{count}{'-enriched' * enriched}.parquet"
    if not path.exists():
        files = str(events_of(count) / "*.jsonl")
        lines = duck.read_csv(
            files, columns={"line": "VARCHAR"}, delimiter="\x01", quotechar="", header=False
        )
        landed = lines.project(
            "*, md5('bench') AS file_id, row_number() OVER () AS file_offset, "
            "printf('%032x', file_offset) AS row_uid, now() AS landed_at, 1.0::DOUBLE AS weight"
        ).project("*, (line->>'timestamp')::TIMESTAMPTZ AS event_time, line AS event")
        frame = events.with_columns(landed, "weight")
        if enriched:
            whence = """'bench' AS event_file, '{"hostname": "bench", "process_id": 1}' AS collector"""
            frame = enrich(duck, frame.project(f"*, {whence}"), EnrichConfig()).project(
                "*, 1.0::DOUBLE AS weight"
            )
        store.write_parquet(frame.order("event_time, row_uid"), path)
    frame = duck.read_parquet(str(path))
    rows, content = frame.aggregate(f"count(*), {events.CONTENT_HASH}").fetchall()[0]
    return Offer(frame, parse_hour(HOUR), InputVersion(1, "bench", "bench"), rows, content)


def compare(
    server: PostgresSettings, connection: Connection, offer: Offer, rounds: int
) -> None:
    """Every way in turn, so many rounds; medians."""
    began = time.perf_counter()
    text = b"".join(copy_data(offer.frame, offer.hour))
    building = time.perf_counter() - began
    rows = offer.frame.project(_original_projection(offer.hour)).fetchall()
    old, new = Hour(offer.hour.start - timedelta(hours=3)), offer.hour

    def ours(name: str, now: datetime) -> PostgresDestination:
        return PostgresDestination(PostgresConfig(table_name=name), server, clock=lambda: now)

    a_row = "row_number() OVER (ORDER BY event_time, row_uid) = 1"
    late = replace(
        offer,
        frame=offer.frame.project(
            f"* REPLACE (CASE WHEN {a_row} THEN reverse(row_uid) ELSE row_uid END AS row_uid)"
        ),
        version=replace(offer.version, generation=2),
    )
    changed = replace(
        offer, version=replace(offer.version, generation=3, code_version="another")
    )
    ways: dict[str, Callable[[], object]] = {
        "original: INSERT of 100 rows": lambda: insert_hundreds(connection, rows),
        "hand-written COPY, same indexes": lambda: copy_by_hand(connection, text, offer.hour),
        "ours, first load of an hour": lambda: ours("fresh", new.end).deliver(offer),
        "ours, a late event in it": lambda: ours("fresh", new.end).deliver(late),
        "ours, all its rows replaced": lambda: ours("fresh", new.end).deliver(changed),
        "ours, into a leaf that is there": lambda: ours("shared", new.end).deliver(offer),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    wal: dict[str, list[int]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name in ("original", "by_hand", "fresh", "fresh_hourly", "shared", "shared_hourly"):
            connection.execute(f"DROP TABLE IF EXISTS {name}")
        connection.execute("DROP SCHEMA IF EXISTS obs CASCADE")
        # A leaf of the day, which an hour of few rows has made: nobody measures that
        few = offer.frame.limit(100).project(
            "* REPLACE (event_time - INTERVAL 3 HOUR AS event_time)"
        )
        ours("shared", new.end).deliver(replace(offer, frame=few, hour=old, rows=100))
        for name, work in ways.items():
            connection.execute("CHECKPOINT")
            before = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
            began = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - began)
            (written,) = connection.execute(
                "SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", before
            ).fetchone()
            wal[name].append(int(written))
    table = Table(
        "way",
        "seconds",
        "rows/s",
        "× original",
        "× by hand",
        "WAL MB",
        title=f"{offer.rows:,} rows",
    )
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    first, by_hand, *_ = medians.values()
    for name, median in medians.items():
        table.add_row(
            name,
            f"{median:.2f}",
            f"{offer.rows / median:,.0f}",
            f"{first / median:.2f}",
            f"{by_hand / median:.2f}",
            f"{statistics.median(wal[name]) / 1e6:,.0f}",
        )
    out.print(table)
    out.print(
        f"building COPY data alone: {building:.2f} s, {offer.rows / building:,.0f} rows/s, {len(text) / 1e6:,.0f} MB"
    )


def _original_projection(hour: Hour) -> str:
    row = row_of(hour)
    return ", ".join(f'{row[name]} AS "{name}"' for name in ORIGINAL_COLUMNS)


def insert_hundreds(connection: Connection, rows: list[tuple[object, ...]]) -> None:
    """The original's way: one INSERT for a hundred rows, each its own transaction."""
    connection.execute("DROP TABLE IF EXISTS original")
    connection.execute(ORIGINAL)
    row = f"({', '.join(['%s'] * len(ORIGINAL_COLUMNS))})"
    for chunk in _hundreds(rows):
        values = ", ".join([row] * len(chunk))
        connection.execute(
            f"INSERT INTO original ({', '.join(ORIGINAL_COLUMNS)}) VALUES {values}",  # type: ignore[arg-type]
            [value for told in chunk for value in told],
        )


def _hundreds(rows: list[tuple[object, ...]]) -> Iterator[list[tuple[object, ...]]]:
    for start in range(0, len(rows), 100):
        yield rows[start : start + 100]


def copy_by_hand(connection: Connection, text: bytes, hour: Hour) -> None:
    """What somebody who knows PostgreSQL would write: one COPY of ready-made text into an indexed table."""
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    connection.execute("DROP TABLE IF EXISTS by_hand")
    connection.execute(f"CREATE TABLE by_hand ({columns})")  # type: ignore[arg-type]
    for definition in INDEXES.values():
        connection.execute(f"CREATE INDEX ON by_hand {definition}")
    with (
        connection.cursor() as cursor,
        cursor.copy(
            f"COPY by_hand ({', '.join(row_of(hour))}) FROM STDIN (FORMAT csv)"
        ) as copy,
    ):  # type: ignore[arg-type]
        copy.write(text)


if __name__ == "__main__":
    main()
