"""Runs as Dagster's instance keeps them: which are this pipeline's, and which hours they build.

An instance is shared: other code locations have partitions, tags and jobs of their own, which say nothing of ours.
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
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
PIPELINE_TAG = "obs/pipeline"

HOURLY_JOB = "hourly_pipeline"
ALL_ASSETS_JOB = "__ASSET_JOB"
"""Dagster's own job, in which a run of chosen assets or a backfill is."""

REPORTS_A_TICK = 240
"""Hours of a new Dagster instance are reported over several ticks: each takes some milliseconds."""

LAUNCHED_WITHIN, LOST_AFTER = timedelta(minutes=15), timedelta(hours=6)

UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


def tags_of(naming: Naming) -> dict[str, str]:
    """The tag of each run that a sensor or schedule of this pipeline has asked for."""
    return {PIPELINE_TAG: naming.prefix or DEFAULT_PIPELINE}


def hours_under_way(instance: dg.DagsterInstance, naming: Naming, now: datetime) -> set[Hour]:
    """Hours of this pipeline's runs that wait or run, whoever started them.

    A run that never got further than its row counts as lost after a while.
    """
    found: set[Hour] = set()
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNDER_WAY)):
        run = record.dagster_run
        age = now - record.create_timestamp.astimezone(now.tzinfo)
        if run.status != dg.DagsterRunStatus.QUEUED and age > LOST_AFTER:
            continue  # what is still at work holds the hour's lock, so that asking again harms nothing
        if run.status == dg.DagsterRunStatus.NOT_STARTED and age > LAUNCHED_WITHIN:
            continue
        hours = hours_of(run)
        if hours and is_ours(instance, naming, run):
            found.update(hours)
    return found


def hours_of(run: dg.DagsterRun) -> list[Hour]:
    """The hours that a run is of, in order; none if its partitions are no hours."""
    first, last = run.tags.get(RANGE_START_TAG), run.tags.get(RANGE_END_TAG)
    key = f"{first}...{last}" if first and last else run.tags.get(PARTITION_TAG, "")
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
    """Tell Dagster of hours that a destination's ledger holds and no materialization is known of.

    A run that was killed has told of none. Hours that a run has in hand are that run's to report.

    Args:
        instance: where materializations are kept.
        naming: of the pipeline.
        held: asset's name → the hours that the destination holds.
        now: the time.

    Returns:
        asset's name and hour of each that was reported, `REPORTS_A_TICK` at most.
    """
    under_way = hours_under_way(instance, naming, now)
    reported: list[tuple[str, Hour]] = []
    for name, hours in held.items():
        known = instance.get_materialized_partitions(naming.key(name))
        candidates = [
            hour for hour in hours if hour >= naming.first_partition and hour not in under_way
        ]
        for hour in sorted(hour for hour in candidates if hour.key not in known):
            if len(reported) == REPORTS_A_TICK:
                return reported
            seen = {
                "reported": "found in the destination's ledger; the run that wrote it did not end"
            }
            event = dg.AssetMaterialization(naming.key(name), partition=hour.key, metadata=seen)
            instance.report_runless_asset_event(event)
            reported.append((name, hour))
    return reported


def is_ours(instance: dg.DagsterInstance, naming: Naming, run: dg.DagsterRun) -> bool:
    """Whether a run materializes assets of this pipeline: by its tag, its selection of assets, or its job's steps."""
    if run.tags.get(PIPELINE_TAG) == tags_of(naming)[PIPELINE_TAG]:
        return True
    stages = {naming.key(stage) for stage in STAGES}
    destinations = {naming.key(name) for name in naming.destination_names}
    if run.asset_selection:
        return not run.asset_selection.isdisjoint(stages | destinations)
    if run.job_name not in {naming.job(HOURLY_JOB), ALL_ASSETS_JOB}:
        return False
    # Another code location may call a job as we do; its steps have other names
    snapshot = run.job_snapshot_id and instance.get_job_snapshot(run.job_snapshot_id)
    if not snapshot:
        return True
    steps = {step.name for step in snapshot.node_defs_snapshot.op_def_snaps}
    return {key.to_python_identifier() for key in stages} <= steps
