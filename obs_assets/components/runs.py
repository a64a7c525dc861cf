"""The runs of a pipeline in Dagster's instance, and the hours that they build.

Other code locations share the instance. Their runs can have the same job names and similar partitions.
"""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

import dagster as dg

from obs_assets.components.keys import Naming
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.pipeline import DEFAULT_PIPELINE
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hours import Hour, parse_hours

PARTITION_TAG = "dagster/partition"
"""Dagster's tag of a run of a single hour: the key of the hour."""

RANGE_START_TAG = "dagster/asset_partition_range_start"
"""Dagster's tag of a run of a range: the key of the first hour."""

RANGE_END_TAG = "dagster/asset_partition_range_end"
"""Dagster's tag of a run of a range: the key of the last hour."""

PIPELINE_TAG = "obs/pipeline"
"""Tag of a run that a sensor or schedule has requested: the name of the pipeline."""

HOURLY_JOB = "hourly_pipeline"
"""The job of stages and destinations, without the pipeline's prefix."""

ALL_ASSETS_JOB = "__ASSET_JOB"
"""Dagster's own job for selected assets and for backfills."""

REPORTS_A_TICK = 240
"""Largest number of hours that a tick reports. Each takes some milliseconds, and a tick has a time limit."""

LAUNCHED_WITHIN = timedelta(minutes=15)
"""Age from which a run that was created and never started counts as lost."""

LOST_AFTER = timedelta(hours=6)
"""Age from which a started run counts as lost."""

UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]
"""States of a run that has not ended."""


def tags_of(naming: Naming) -> dict[str, str]:
    """The tag of each run that a sensor or schedule of this pipeline has requested."""
    return {PIPELINE_TAG: naming.prefix or DEFAULT_PIPELINE}


def hours_under_way(instance: dg.DagsterInstance, naming: Naming, now: datetime) -> set[Hour]:
    """Hours of this pipeline's runs that wait or run: of sensors, of the schedule, and started by hand.

    A run counts as lost after `LAUNCHED_WITHIN` or `LOST_AFTER`, since a killed process leaves its row
    behind.
    """
    found: set[Hour] = set()
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNDER_WAY)):
        run = record.dagster_run
        age = now - record.create_timestamp.astimezone(now.tzinfo)
        # If the run works in spite of its age, it holds the lock of its hour. A second run then fails and
        # does no harm.
        if run.status != dg.DagsterRunStatus.QUEUED and age > LOST_AFTER:
            continue
        if run.status == dg.DagsterRunStatus.NOT_STARTED and age > LAUNCHED_WITHIN:
            continue
        hours = hours_of(run)
        if hours and is_ours(instance, naming, run):
            found.update(hours)
    return found


def hours_of(run: dg.DagsterRun) -> list[Hour]:
    """The hours that a run builds, in order; empty if its partitions are not hours."""
    first = run.tags.get(RANGE_START_TAG)
    last = run.tags.get(RANGE_END_TAG)
    key = run.tags.get(PARTITION_TAG, "")
    if first and last:
        key = f"{first}...{last}"
    try:
        return parse_hours(key)
    except ConfigurationError:
        return []


def report_held_hours(
    instance: dg.DagsterInstance,
    naming: Naming,
    held: Mapping[str, Collection[Hour]],
    now: datetime,
) -> list[tuple[str, Hour]]:
    """Report hours to Dagster that a destination's ledger holds without a materialization.

    A run that was killed between its write and its report leaves such hours. Hours that a run is
    building are left to that run.

    Args:
        instance: Dagster's instance.
        naming: names of the pipeline.
        held: name of an asset → the hours that the destination holds.
        now: the time, UTC.

    Returns:
        asset name and hour of each report, at most `REPORTS_A_TICK`.
    """
    under_way = hours_under_way(instance, naming, now)
    reported: list[tuple[str, Hour]] = []
    metadata = {
        "reported": "found in the destination's ledger; the run that wrote it did not end"
    }
    for name, hours in held.items():
        known = instance.get_materialized_partitions(naming.key(name))
        unknown = [
            hour
            for hour in sorted(hours)
            if hour >= naming.first_partition
            and hour not in under_way
            and hour.key not in known
        ]
        for hour in unknown[: REPORTS_A_TICK - len(reported)]:
            event = dg.AssetMaterialization(
                naming.key(name),
                partition=hour.key,
                metadata=metadata,
            )
            instance.report_runless_asset_event(event)
            reported.append((name, hour))
    return reported


def is_ours(instance: dg.DagsterInstance, naming: Naming, run: dg.DagsterRun) -> bool:
    """Whether a run materializes assets of this pipeline, by its tag, its selected assets or the steps of its job."""
    if run.tags.get(PIPELINE_TAG) == tags_of(naming)[PIPELINE_TAG]:
        return True
    stages = {naming.key(stage) for stage in STAGES}
    destinations = {naming.key(name) for name in naming.destination_names}
    if run.asset_selection:
        return not run.asset_selection.isdisjoint(stages | destinations)
    if run.job_name not in {naming.job(HOURLY_JOB), ALL_ASSETS_JOB}:
        return False
    # Another code location can have a job of the same name. Its steps have other names.
    snapshot = run.job_snapshot_id and instance.get_job_snapshot(run.job_snapshot_id)
    if not snapshot:
        return True
    steps = {step.name for step in snapshot.node_defs_snapshot.op_def_snaps}
    return {key.to_python_identifier() for key in stages} <= steps
