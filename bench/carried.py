#!/usr/bin/env python3
"""Measure what the frames of an hour cost that only carry its events, beside the stages that work on them.

A frame is read, put into batches, encoded and written; raw events are sorted besides. That alone bounds how fast stages
with a frame each can be: what is left is parsing, adding, redacting, counting. Processor seconds of this process and
its workers; every figure is the median of several runs, carried and built in turn.

    python bench/carried.py [--events N] [--runs N]
"""

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable

from place import DATA, HOUR, environment, events_of, fresh_data_dir, out
from rich.table import Table

EIGHTH = "file_offset % 8 = 0"
"""About what the default pipeline's sample keeps."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    events_of(args.events)
    os.environ.update(environment(args.events))
    fresh_data_dir()
    table = Table(
        "stage",
        "carried: processor s",
        "s",
        "built: processor s",
        "s",
        title=f"{args.events:,} events",
    )
    total = [0.0] * 4
    for stage, carry, build in stages():
        build()  # what the next one reads, and the first run of everything
        runs = [(*measured(carry), *measured(build)) for _ in range(args.runs)]
        figures = [statistics.median(column) for column in zip(*runs, strict=True)]
        total = [sum(pair) for pair in zip(total, figures, strict=True)]
        table.add_row(stage, *(f"{figure:.2f}" for figure in figures))
    table.add_row("all", *(f"{figure:.2f}" for figure in total))
    out.print(table)


def stages() -> list[tuple[str, Callable[[], object], Callable[[], object]]]:
    """Each stage with what carries its events, and what builds it."""
    from obs_assets import settings
    from obs_assets.hourly import pipeline, pipeline_files
    from obs_assets.hourly.hourly_pipeline import HourlyPipeline
    from obs_assets.hourly.stage_rows import STAGES
    from obs_assets.hours import parse_hour
    from obs_assets.storage.frames import write_parquet

    hourly = HourlyPipeline(pipeline.load(pipeline_files.find().path), settings.load())
    hour = parse_hour(HOUR)
    hourly.land()

    def carry(stage: str) -> None:
        given = hourly.stages.given(stage, hour)  # type: ignore[arg-type]
        with hourly.database.cursor() as connection:
            frame = connection.read_parquet([str(path) for path in given.paths])
            if stage == STAGES[0]:
                frame = frame.order("event_time, row_uid")
            copy = DATA / "carried.parquet"
            write_parquet(frame.filter(EIGHTH) if stage == STAGES[-1] else frame, copy)
            copy.unlink()

    return [
        (stage, lambda stage=stage: carry(stage), lambda stage=stage: hourly.build(stage, hour))
        for stage in STAGES
    ]


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Its seconds on processors, and by the clock."""
    began, busy = time.perf_counter(), processor_seconds()
    work()
    return processor_seconds() - busy, time.perf_counter() - began


def processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
