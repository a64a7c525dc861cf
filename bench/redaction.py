#!/usr/bin/env python3
"""Measure redaction where a fifth and where nearly half of the events hold something personal, hardly any value twice.

Prints the stage ``redacted_events``, the chain from raw to sampled frames, and ``obs redact FILE``: each in a process
of its own, which remembers no value, the median of several runs.

    python bench/redaction.py [--events N] [--runs N]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from place import DATA, HERE, HOUR, environment, fresh_data_dir, out
from rich.table import Table

SHARES = {"22 %": 0.18, "45 %": 0.421}
"""Events with a hit: those with a value in their message, and one in twenty of the others."""

CHAIN = ["raw_events", "enriched_events", "redacted_events", "sampled_events"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.steps:
        print(json.dumps(seconds_of(args.steps.split(","))))
        return
    table = Table(
        "events with a hit",
        "what",
        "seconds",
        "events/s",
        title=f"redaction of {args.events:,} events",
    )
    for share in SHARES:
        events_dir = events_of(args.events, share)
        env = {**environment(args.events), "OBS_EVENTS_DIR": str(events_dir)}
        fresh_data_dir()
        steps(["land", *CHAIN], env)
        for what, run in {
            "redacted_events": lambda env=env: steps(["redacted_events"], env),
            "raw to sampled": lambda env=env: steps(CHAIN, env),
            "obs redact FILE": lambda env=env, events_dir=events_dir: redact_files(
                events_dir, env
            ),
        }.items():
            seconds = statistics.median(run() for _ in range(args.runs))
            table.add_row(share, what, f"{seconds:.2f}", f"{args.events / seconds:,.0f}")
    out.print(table)


def events_of(events: int, share: str) -> Path:
    """A folder with so many events of one hour, of which this share has a hit."""
    events_dir = DATA / f"events-{events}-{share[:2]}"
    if not events_dir.exists():
        command = [
            sys.executable,
            HERE / "make_events.py",
            events_dir,
            "--events",
            str(events),
            "--unrepeated",
        ]
        subprocess.run(
            [*command, "--personal", str(SHARES[share])], check=True, stdout=subprocess.DEVNULL
        )
    return events_dir


def steps(names: list[str], env: dict[str, str]) -> float:
    """Seconds that stages of the hour take in a fresh process, start-up left out."""
    command = [sys.executable, __file__, "--steps", ",".join(names)]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env)
    return json.loads(run.stdout.splitlines()[-1])


def seconds_of(names: list[str]) -> float:
    """Run stages of the hour in this process."""
    from obs_assets import settings
    from obs_assets.hourly import pipeline, pipeline_files
    from obs_assets.hourly.hourly_pipeline import HourlyPipeline
    from obs_assets.hours import parse_hour

    hourly = HourlyPipeline(pipeline.load(pipeline_files.find().path), settings.load())
    began = time.perf_counter()
    for name in names:
        if name == "land":
            hourly.land()
        else:
            hourly.build(name, parse_hour(HOUR))  # type: ignore[arg-type]
    return time.perf_counter() - began


def redact_files(events_dir: Path, env: dict[str, str]) -> float:
    """Seconds that ``obs redact`` takes for all files at once, start-up left in."""
    obs = Path(sys.executable).parent / "obs"
    lines = b"".join(path.read_bytes() for path in sorted(events_dir.iterdir()))
    began = time.perf_counter()
    subprocess.run(
        [obs, "redact", "-"],
        input=lines,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=env,
    )
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
