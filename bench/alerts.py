"""Speed of alert rules over one hour, in events per second of all rules together.

    python bench/alerts.py [--events 1000000]

The frame is what ``redacted_events`` holds: promoted columns, ``weight`` and the event's text. Simple rules match
columns and never read the text; patterns and paths do.
"""

import argparse
import statistics
import time
from pathlib import Path

import duckdb
from place import DATA, out
from rich.table import Table

from obs_assets.alerts import AlertRule
from obs_assets.alerts.evaluate import evaluate

RUNS = 3
TYPES = ("task_failed", "task_completed", "worker_started", "llm_call", "tool_call")
MEASURES = ("count", "weighted_count", "error_ratio", "cost_usd", "rate_per_minute")


def simple() -> list[AlertRule]:
    """Fifty: levels and types, five measures, half of them for each worker type."""
    return [
        AlertRule(
            name=f"rule {number}",
            levels=("error",) if number % 2 else (),
            types=(TYPES[number % 5],) if number % 3 else (),
            measure=MEASURES[number % 5],
            above=number,
            by=("worker_type",) if number % 2 else (),
        )
        for number in range(50)
    ]


def windows() -> list[AlertRule]:
    """Ten: the worst quarter of an hour of each worker type."""
    return [rule.model_copy(update={"window_minutes": 15}) for rule in simple()[1:21:2]]


def quantiles() -> list[AlertRule]:
    """Ten: p95 of the duration for each worker type, by a sketch."""
    return [
        AlertRule(
            name=f"p95 {n}",
            measure="p95_duration_ms",
            above=n,
            types=(TYPES[n % 5],),
            by=("worker_type",),
        )
        for n in range(10)
    ]


def paths() -> list[AlertRule]:
    """Ten: a comparison on a field that only the event's text holds."""
    return [
        AlertRule(name=f"path {n}", where=(f"data.status == s{n}",), above=n) for n in range(10)
    ]


def patterns() -> list[AlertRule]:
    """Ten: an RE2 pattern over the event's text."""
    return [
        AlertRule(name=f"text {n}", text=(f"time.?out.{{0,9}}{n}",), above=n) for n in range(10)
    ]


KINDS = (simple, windows, quantiles, paths, patterns)


def frame_file(events: int) -> Path:
    """Synthetic columns are enough: simple rules never read the text, which is there all the same."""
    path = DATA / f"alerts-2-{events}.parquet"
    if not path.exists():
        DATA.mkdir(parents=True, exist_ok=True)
        types = ", ".join(f"'{name}'" for name in TYPES)
        duckdb.sql(
            f"""SELECT md5(i::VARCHAR) AS row_uid,
            TIMESTAMPTZ '2025-12-04 10:00:00Z' + to_microseconds(i * 3600) AS event_time,
            ['error', 'info', 'warning', 'debug'][1 + i % 4] AS event_level, [{types}][1 + i % 5] AS event_type,
            'worker' || i % 20 AS worker_type, CASE WHEN i % 4 = 0 THEN 'no answer' END AS error,
            (i * 7919 % 60000)::BIGINT AS duration_ms, (i % 100 / 1000)::DECIMAL(28, 12) AS cost_usd,
            1.0::DOUBLE AS weight,
            '{{"data": {{"status": "s' || i % 100 || '"}}, "filler": "' || repeat(md5(i::VARCHAR), 12) || '"}}' AS event
            FROM range({events}) AS t(i)"""
        ).write_parquet(str(path), compression="lz4_raw", row_group_size=61_440)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    events = parser.parse_args().events
    path = frame_file(events)
    table = Table(
        "rules",
        "of",
        "seconds",
        "events/s in all",
        title=f"alert rules over one hour, {events:,} events",
    )
    with duckdb.connect() as connection:
        for kind in KINDS:
            some, seconds = kind(), []
            for _ in range(RUNS):
                began = time.perf_counter()
                found = evaluate(connection.read_parquet(str(path)), some)
                seconds.append(time.perf_counter() - began)
            assert len(found) == len(some)
            median = statistics.median(seconds)
            what = (kind.__doc__ or "").partition(": ")[2].rstrip(".")
            table.add_row(str(len(some)), what, f"{median:.2f}", f"{events / median:,.0f}")
    out.print(table)


if __name__ == "__main__":
    main()
