#!/usr/bin/env python3
"""Measure every stage on one hour of a million events: ``make bench``.

Prints events per second, seconds and peak memory of each stage, each in a process of its own, then the whole hour in
one process, then what Dagster adds to a tiny hour. Absolute figures vary from machine to machine and from run to run;
compare within one run. Data and servers live below ``bench/.data`` and are made when they are missing.

    python bench/run.py [--events N] [--overhead-only]
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
DATA = HERE / ".data"
HOUR = "2025-12-04-10:00"
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
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
out = Console()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--overhead-only", action="store_true", help="only what Dagster adds to a tiny hour")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(json.dumps(measure_here(args.step.split(","), args.events)))
    elif args.overhead_only:
        overhead()
    else:
        stages(args.events)
        overhead()


def stages(events: int) -> None:
    """Each stage in a process of its own, then all of them in one."""
    events_dir = DATA / f"events-{events}"
    if not events_dir.exists():
        out.print(f"writing {events:,} events to {events_dir} …")
        subprocess.run(
            [sys.executable, HERE / "make_events.py", events_dir, "--events", str(events)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    size = sum(path.stat().st_size for path in events_dir.iterdir())
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


def environment(events: int) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("POSTGRES_", "AWS_", "WEBHOOK_", "OBS_"))
    }
    return {**kept, "OBS_DATA_DIR": str(DATA / "obs"), "OBS_EVENTS_DIR": str(DATA / f"events-{events}")}


def fresh_data_dir() -> None:
    """Forget what has landed and been loaded; the servers' programs and folders are made anew with it."""
    from obs_assets import embedded

    embedded.stop(DATA / "obs")
    shutil.rmtree(DATA / "obs", ignore_errors=True)
    (DATA / "obs").mkdir(parents=True)


def measure_here(steps: list[str], events: int) -> dict[str, float | str]:
    """Run steps in this process; servers are started before the clock."""
    from obs_assets import embedded, pipeline, settings
    from obs_assets.hourly import HourlyPipeline
    from obs_assets.hours import parse_hour

    machine = embedded.resolve(settings.load())
    hourly = HourlyPipeline(pipeline.load(pipeline.file_of("pipeline")), machine)
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
    return {"name": steps[-1], "seconds": seconds, "events": events, "kept": kept, "peak_mb": peak_mb}


def overhead() -> None:
    """A tiny hour through all seven assets against seven empty assets, interleaved in one process."""
    import dagster as dg

    from obs_assets import embedded, pipeline, pipeline_definitions, settings
    from obs_assets.hourly import HourlyPipeline

    os.environ.update(environment(100))
    events_dir = DATA / "events-100"
    if not events_dir.exists():
        subprocess.run(
            [sys.executable, HERE / "make_events.py", events_dir, "--events", "100", "--files", "1"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    fresh_data_dir()
    machine = embedded.resolve(settings.load())
    config = pipeline.load(pipeline.file_of("pipeline"))
    HourlyPipeline(config, machine).land()
    ours = [a for a in pipeline_definitions(config, machine=machine).assets or [] if isinstance(a, dg.AssetsDefinition)]
    empty = empty_assets()
    times: dict[str, list[float]] = {"ours": [], "empty": []}
    with dg.DagsterInstance.local_temp(str(DATA / "obs")) as instance:
        for _ in range(6):
            for name, assets in (("ours", ours), ("empty", empty)):
                run = partial(dg.materialize, assets, partition_key=HOUR, instance=instance, run_config=QUIET)
                times[name].append(timed(run))
    first, empty_median = times["ours"][0], statistics.median(times["empty"][1:])
    again = statistics.median(times["ours"][1:])
    out.print(
        f"a tiny hour (100 events) through all assets: first {first:.2f} s, again {again:.2f} s; "
        f"seven empty assets {empty_median:.2f} s; ratio {again / empty_median:.2f} ×"
    )
    embedded.stop(DATA / "obs")


def empty_assets() -> list[object]:
    """The same graph with nothing in it."""
    import dagster as dg

    hours = dg.HourlyPartitionsDefinition(start_date="2025-01-01-00:00", fmt="%Y-%m-%d-%H:00", end_offset=1)
    names = STEPS[1:]
    upstream = {
        "enriched_events": "raw_events",
        "redacted_events": "enriched_events",
        "sampled_events": "redacted_events",
    }
    upstream |= {
        "postgres_events": "sampled_events",
        "s3_archive": "sampled_events",
        "webhook_alerts": "redacted_events",
    }

    def make(name: str) -> object:
        deps = [upstream[name]] if name in upstream else []

        @dg.asset(name=name, deps=deps, partitions_def=hours)
        def nothing() -> None: ...

        return nothing

    return [make(name) for name in names]


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
