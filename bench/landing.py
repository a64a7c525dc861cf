#!/usr/bin/env python3
"""Measure landing, beside the least that DuckDB needs for lines → timestamp → Parquet split by hour.

Both read the same events, in turn, each time in a process of its own; medians are compared. The bare form does not
judge what it reads, gives no identity, counts nothing and is not repeatable: it is the floor, not a rival.

    python bench/landing.py [--events N] [--rounds N] [--small-files N] [--repeat N]
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from place import DATA, events_of, out
from rich.table import Table

BARE = """
COPY (SELECT line, json_extract_string(line, '$.timestamp')::TIMESTAMPTZ AS event_time,
    strftime(event_time, '%Y%m%d%H') AS hour
FROM read_csv('{files}', columns = {{'line': 'VARCHAR'}}, delim = '\\x01', quote = '', escape = '', header = false,
    auto_detect = false, max_line_size = 16777216))
TO '{target}' (FORMAT parquet, COMPRESSION lz4_raw, PARTITION_BY (hour))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small-files", type=int, default=10_000)
    parser.add_argument(
        "--repeat",
        type=int,
        default=0,
        help="also land one file with all the events so many times",
    )
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(json.dumps(measure_here(args.step, args.folder)))
    else:
        compare(args.events, args.rounds, args.small_files, args.repeat)


def compare(events: int, rounds: int, small_files: int, repeat: int) -> None:
    """Landing and the bare form in turn, then many small files, then a large one."""
    folder = events_of(events)
    results = [{step: child(step, folder) for step in STEPS} for _ in range(rounds)]
    table = Table(
        "what",
        "seconds",
        "events/s",
        "peak memory",
        title=f"{events:,} events, {rounds} rounds, medians",
    )
    medians = medians_of(results, "seconds")
    processor = medians_of(results, "processor_s")
    for step in STEPS:
        add_row(
            table, step, medians[step], events, max(one[step]["peak_mb"] for one in results)
        )
    if small_files:
        result = child("land", small(small_files))
        add_row(
            table,
            f"{small_files:,} files of 100",
            result["seconds"],
            100 * small_files,
            result["peak_mb"],
        )
    if repeat:
        result = child("land", large(events, repeat))
        add_row(
            table,
            f"one file of {events * repeat:,}",
            result["seconds"],
            events * repeat,
            result["peak_mb"],
        )
    out.print(table)
    out.print(
        f"landing is {medians['bare'] / medians['land']:.2f} times as fast as the bare form; "
        f"by processor seconds {processor['bare'] / processor['land']:.2f} times "
        f"({processor['bare']:.2f} s and {processor['land']:.2f} s)"
    )


def medians_of(results: list[dict[str, dict[str, float]]], figure: str) -> dict[str, float]:
    """Median of a figure of each step over all rounds."""
    return {step: statistics.median(one[step][figure] for one in results) for step in STEPS}


def add_row(table: Table, name: str, seconds: float, events: int, peak_mb: float) -> None:
    table.add_row(name, f"{seconds:.2f}", f"{events / seconds:,.0f}", f"{peak_mb:,.0f} MB")


def small(files: int) -> Path:
    """A folder with so many files of a hundred events."""
    folder = DATA / f"files-{files}"
    if not folder.exists():
        folder.mkdir(parents=True)
        lines = [
            line
            for path in events_of(100 * files).iterdir()
            for line in path.read_bytes().splitlines(True)
        ]
        for number in range(files):
            (folder / f"{number:06d}.jsonl").write_bytes(
                b"".join(lines[100 * number : 100 * number + 100])
            )
    return folder


def large(events: int, repeat: int) -> Path:
    """A folder with one file that holds the events so many times."""
    folder = DATA / f"large-{events}-{repeat}"
    if not folder.exists():
        folder.mkdir(parents=True)
        with (folder / "large.jsonl").open("wb") as whole:
            for path in sorted(events_of(events).iterdir()) * repeat:
                with path.open("rb") as part:
                    shutil.copyfileobj(part, whole)
    return folder


def child(step: str, folder: Path) -> dict[str, float]:
    """One step in a fresh process, with its peak memory."""
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
    return json.loads(
        subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True
        ).stdout.splitlines()[-1]
    )


def measure_here(step: str, folder: Path) -> dict[str, float]:
    """Land a folder, or give it to DuckDB, in this process."""
    target = DATA / "landing"
    shutil.rmtree(target, ignore_errors=True)
    before = time.process_time()
    seconds = STEPS[step](folder, target)
    processor_s = time.process_time() - before
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    shutil.rmtree(target)
    return {"seconds": seconds, "processor_s": processor_s, "peak_mb": peak_mb}


def land(folder: Path, target: Path) -> float:
    import pandas  # noqa: F401 (Arrow imports it when first asked for an array: a second that is no landing)

    from obs_assets.hours import parse_hour
    from obs_assets.sources import landing
    from obs_assets.sources.files import SourceConfig
    from obs_assets.sources.log import LandingLog

    config = SourceConfig(events_dir=folder, max_bytes_per_pass=1 << 40)
    began = time.perf_counter()
    report = landing.land(config, LandingLog(target), first_hour=parse_hour("2025-01-01-00:00"))
    seconds = time.perf_counter() - began
    if report.dead_letters or not report.hours:
        raise SystemExit(f"unexpected: {report}")
    return seconds


def bare(folder: Path, target: Path) -> float:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        began = time.perf_counter()
        connection.execute(BARE.format(files=folder / "*.jsonl", target=target))
        return time.perf_counter() - began


STEPS = {"land": land, "bare": bare}

if __name__ == "__main__":
    main()
