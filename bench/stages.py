#!/usr/bin/env python3
"""Measure every stage on one hour of a million events.

Prints events per second, seconds and peak memory of each stage, each in a process of its own, then the whole hour in
one process. Absolute figures vary from machine to machine and from run to run; compare within one run.

    python bench/stages.py [--events N]
"""

import argparse
import json
import resource
import subprocess
import sys
import time

from place import HOUR, environment, events_of, fresh_data_dir, out
from rich.table import Table

STEPS = (
    "land",
    "raw_events",
    "enriched_events",
    "redacted_events",
    "sampled_events",
    "postgres_events",
    "s3_archive",
    "webhook_alerts",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(json.dumps(measure_here(args.step.split(","), args.events)))
    else:
        stages(args.events)


def stages(events: int) -> None:
    """Each stage in a process of its own, then all of them in one."""
    size = sum(path.stat().st_size for path in events_of(events).iterdir())
    table = Table(
        "stage",
        "seconds",
        "events/s",
        "rows kept",
        "peak memory",
        title=f"one hour, {events:,} events, {size / 1e6:,.0f} MB",
    )
    fresh_data_dir()
    for step in STEPS:
        add_row(table, child(step, events))
    fresh_data_dir()
    add_row(table, child(",".join(STEPS), events), "whole hour, one process")
    out.print(table)


def add_row(table: Table, result: dict[str, float], name: str = "") -> None:
    table.add_row(
        name or str(result["name"]),
        f"{result['seconds']:.2f}",
        f"{result['events'] / result['seconds']:,.0f}",
        f"{result['kept']:,}",
        f"{result['peak_mb']:,.0f} MB",
    )


def child(step: str, events: int) -> dict[str, float]:
    """One step in a fresh process, with its peak memory."""
    run = subprocess.run(
        [sys.executable, __file__, "--step", step, "--events", str(events)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(events),
    )
    return json.loads(run.stdout.splitlines()[-1])


def measure_here(steps: list[str], events: int) -> dict[str, float | str]:
    """Run steps in this process; servers are started before the clock."""
    from obs_assets import embedded, settings
    from obs_assets.hourly import pipeline, pipeline_files
    from obs_assets.hourly.hourly_pipeline import HourlyPipeline
    from obs_assets.hours import parse_hour

    machine = embedded.resolve(settings.load())
    hourly = HourlyPipeline(pipeline.load(pipeline_files.find().path), machine)
    hour, kept = parse_hour(HOUR), 0
    began = time.perf_counter()
    for step in steps:
        if step == "land":
            kept = sum(hourly.land().hours.values())
        elif step in hourly.destination_names:
            kept = hourly.deliver(step, hour).kept
        else:
            kept = hourly.build(step, hour).kept  # type: ignore[arg-type]
    seconds = time.perf_counter() - began
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "name": steps[-1],
        "seconds": seconds,
        "events": events,
        "kept": kept,
        "peak_mb": peak_mb,
    }


if __name__ == "__main__":
    main()
