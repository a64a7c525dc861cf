#!/usr/bin/env python3
"""Measure what Dagster and we add to a tiny hour: all our assets against as many empty ones, interleaved.

python bench/overhead.py
"""

import os
import statistics
import time
from collections.abc import Callable
from functools import partial

from place import DATA, HOUR, environment, events_of, fresh_data_dir, out

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
DEPENDS_ON = {
    "enriched_events": "raw_events",
    "redacted_events": "enriched_events",
    "sampled_events": "redacted_events",
    "postgres_events": "sampled_events",
    "s3_archive": "sampled_events",
    "webhook_alerts": "redacted_events",
}


def main() -> None:
    """A tiny hour through all seven assets against seven empty assets, interleaved in one process."""
    import dagster as dg

    from obs_assets import embedded, pipeline, pipeline_definitions, settings
    from obs_assets.hourly import HourlyPipeline

    os.environ.update(environment(100))
    events_of(100, files=1)
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
    names = ("raw_events", *DEPENDS_ON)

    def make(name: str) -> object:
        deps = [DEPENDS_ON[name]] if name in DEPENDS_ON else []

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
