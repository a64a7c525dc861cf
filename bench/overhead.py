#!/usr/bin/env python3
"""Measure what we add to Dagster: a tiny hour against seven empty assets, and a backfill against its own events.

python bench/overhead.py [HOURS] [sqlite | postgres]: the hours of the backfill, 720 by default, and where Dagster keeps
its events: SQLite by default; PostgreSQL is the embedded one, as in `make dev`.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

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

    from obs_assets import embedded, pipeline_definitions, settings
    from obs_assets.hourly import pipeline, pipeline_files
    from obs_assets.hourly.hourly_pipeline import HourlyPipeline

    os.environ.update(environment(100))
    events_of(100, files=1)
    fresh_data_dir()
    machine = embedded.resolve(settings.load())
    config = pipeline.load(pipeline_files.find().path)
    HourlyPipeline(config, machine).land()
    definitions = pipeline_definitions(config, machine=machine)
    ours = [a for a in definitions.assets or [] if isinstance(a, dg.AssetsDefinition)]
    checks = {
        asset.key.to_user_string(): [spec.name for spec in asset.check_specs] for asset in ours
    }
    kinds = {"ours": ours, "bare": empty_assets({}), "checked": empty_assets(checks)}
    times: dict[str, list[float]] = {name: [] for name in kinds}
    with dg.DagsterInstance.local_temp(str(DATA / "obs")) as instance:
        for _ in range(6):
            for name, assets in kinds.items():
                given = definitions.resources if name == "ours" else None
                options = {
                    "partition_key": HOUR,
                    "instance": instance,
                    "run_config": QUIET,
                    "resources": given,
                }
                times[name].append(timed(partial(dg.materialize, assets, **options)))
    first = times["ours"][0]
    again, bare, checked = (statistics.median(times[name][1:]) for name in kinds)
    out.print(
        f"a tiny hour (100 events) through all assets: first {first:.2f} s, again {again:.2f} s; seven empty assets "
        f"{bare:.2f} s, with as many checks {checked:.2f} s; ratio {again / bare:.2f} × and {again / checked:.2f} ×"
    )
    backfill(int(sys.argv[1]) if len(sys.argv) > 1 else 720, *sys.argv[2:3])
    embedded.stop(DATA / "obs")


def backfill(hours: int, storage: str = "sqlite") -> None:
    """Small hours as one range run, twice, and between the two a run that only records the same events."""
    import dagster as dg

    from obs_assets import embedded, pipeline_definitions, settings
    from obs_assets.embedded.dagster_home import dagster_home
    from obs_assets.hourly import pipeline, pipeline_files
    from obs_assets.hourly.hourly_pipeline import HourlyPipeline
    from obs_assets.hours import Hour

    first = Hour(datetime(2025, 6, 1, tzinfo=UTC))
    os.environ["OBS_EVENTS_DIR"] = str(small_hours(DATA / f"hours-{hours}", first, hours))
    fresh_data_dir()
    machine = embedded.resolve(settings.load())
    config = pipeline.load(pipeline_files.find().path)
    HourlyPipeline(config, machine).land()
    definitions = pipeline_definitions(config, machine=machine)
    ours = [a for a in definitions.assets or [] if isinstance(a, dg.AssetsDefinition)]
    last = Hour(first.start + timedelta(hours=hours - 1))
    tags = {
        "dagster/asset_partition_range_start": first.key,
        "dagster/asset_partition_range_end": last.key,
    }
    if storage == "postgres":
        os.environ.update(dagster_home(DATA / "obs"))
    with (
        dg.DagsterInstance.get()
        if storage == "postgres"
        else dg.DagsterInstance.local_temp(str(DATA)) as instance
    ):
        options = {"instance": instance, "run_config": QUIET, "tags": tags}
        run = partial(dg.materialize, ours, resources=definitions.resources, **options)
        result, first_s, first_cpu_s = measured(run)
        record = partial(dg.materialize, recorded(result), **options)
        _, recording, recording_cpu = measured(record)
        _, again_s, again_cpu_s = measured(run)
    out.print(
        f"{hours} small hours as one range run, events in {storage}: {first_s:.1f} s, again {again_s:.1f} s; Dagster "
        f"alone, recording the same events: {recording:.1f} s; ratio {first_s / recording:.2f} × and "
        f"{again_s / recording:.2f} × (processor time of the process {first_cpu_s:.1f}, {again_cpu_s:.1f}, "
        f"{recording_cpu:.1f} s; {len(result.all_events):,} events)"
    )


def small_hours(folder: Path, first: Any, hours: int) -> Path:
    """A file of ten events an hour."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "events.jsonl").open("w") as file:
        for number in range(10 * hours):
            moment = first.start + timedelta(minutes=6 * number)
            event = {
                "timestamp": moment.isoformat(),
                "type": "task_failed",
                "level": "error",
                "n": number,
            }
            file.write(json.dumps(event) + "\n")
    return folder


def recorded(result: Any) -> list[Any]:
    """Assets that do nothing but report what a run of ours reported: materializations, metadata, checks."""
    import dagster as dg

    said: dict[str, dict[str, Mapping[str, Any]]] = {}
    for event in result.all_events:
        if event.is_step_materialization:
            materialization = event.step_materialization_data.materialization
            said.setdefault(event.asset_key.to_user_string(), {})[event.partition] = (
                materialization.metadata
            )
    found: dict[str, list[Any]] = {}
    for evaluation in result.get_asset_check_evaluations():
        found.setdefault(evaluation.asset_key.to_user_string(), []).append(evaluation)

    def make(name: str) -> Any:
        @asset_like(
            name, list(dict.fromkeys(evaluation.check_name for evaluation in found[name]))
        )
        def report(context: dg.AssetExecutionContext) -> Iterator[Any]:
            for key, metadata in said[name].items():
                context.add_asset_metadata(dict(metadata), partition_key=key)
            for evaluation in found[name]:
                yield dg.AssetCheckEvaluation(
                    asset_key=evaluation.asset_key,
                    check_name=evaluation.check_name,
                    passed=evaluation.passed,
                    metadata=evaluation.metadata,
                    severity=evaluation.severity,
                    description=evaluation.description,
                    partition=evaluation.partition,
                )
            yield dg.MaterializeResult()
            for output in context.assets_def.check_specs_by_output_name:
                yield dg.Output(None, output_name=output)

        return report

    return [make(name) for name in ("raw_events", *DEPENDS_ON)]


def empty_assets(checks: Mapping[str, list[str]]) -> list[Any]:
    """The same graph with nothing in it; with checks that pass, where there are any."""
    import dagster as dg

    def make(name: str) -> Any:
        @asset_like(name, checks.get(name, []))
        def nothing() -> Iterator[Any]:
            results = [
                dg.AssetCheckResult(passed=True, check_name=check)
                for check in checks.get(name, [])
            ]
            yield dg.MaterializeResult(check_results=results)

        return nothing

    return [make(name) for name in ("raw_events", *DEPENDS_ON)]


def asset_like(name: str, checks: list[str]) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: an hourly asset where ours of that name is, with so many checks."""
    import dagster as dg

    hours = dg.HourlyPartitionsDefinition(
        start_date="2025-01-01-00:00", fmt="%Y-%m-%d-%H:00", end_offset=1
    )
    return dg.asset(
        name=name,
        deps=[DEPENDS_ON[name]] if name in DEPENDS_ON else [],
        partitions_def=hours,
        check_specs=[
            dg.AssetCheckSpec(check, asset=name, partitions_def=hours) for check in checks
        ],
        backfill_policy=dg.BackfillPolicy.single_run(),
    )


def measured(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it returns, its seconds and those of this process on a processor."""
    began, busy = time.perf_counter(), sum(os.times()[:2])
    result = work()
    assert result.success
    return result, time.perf_counter() - began, sum(os.times()[:2]) - busy


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
