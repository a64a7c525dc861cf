"""Hours that build themselves: new files are landed, closed hours are built, stale hours are built again.

What is asked for is decided from what has landed and from receipts. Cursors only spare work: losing one costs nothing.
"""

import hashlib
from datetime import UTC, datetime

import dagster as dg

from obs_assets.components.keys import Naming
from obs_assets.errors import ConfigurationError
from obs_assets.hourly import HourlyPipeline
from obs_assets.hours import Hour, first_open_hour, parse_hour

HOURS_A_TICK = 24
PARTITION_TAG = "dagster/partition"
VERSION_TAG = "obs/version"
UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


def new_files_sensor(hourly: HourlyPipeline, naming: Naming, job: dg.JobDefinition) -> dg.SensorDefinition:
    """``event_file_sensor``: asks for a landing pass when files are new or grown, or when it would close an hour."""

    @dg.sensor(
        name=naming.job("event_file_sensor"),
        job=job,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sees new and grown event files and starts land_event_files; also once an hour can be closed.",
    )
    def event_file_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            listing = hourly.listing()
        except ConfigurationError as error:
            return dg.SkipReason(str(error))
        seen = hashlib.sha256(repr([(f.path, f.size, f.mtime_ns) for f in listing.files]).encode()).hexdigest()
        closes = first_open_hour(datetime.now(UTC), hourly.config.allowed_lateness) > hourly.first_open_hour()
        if seen == context.cursor and not closes:
            return dg.SkipReason(f"nothing new in {len(listing.files):,} files")
        if _under_way(context.instance, job.name):
            return dg.SkipReason("a landing pass is under way")
        return dg.SensorResult(run_requests=[dg.RunRequest()], cursor=seen)

    return event_file_sensor


def hourly_schedule(
    hourly: HourlyPipeline, naming: Naming, job: "dg.UnresolvedAssetJobDefinition"
) -> dg.ScheduleDefinition:
    """``hourly_pipeline_schedule``: builds the hour that closed last, as soon as a landing pass has closed it."""

    @dg.schedule(
        name=naming.job("hourly_pipeline_schedule"),
        job=job,
        cron_schedule="*/5 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Builds each hour shortly after it closes. Waits for the landing pass that closes it.",
    )
    def hourly_pipeline_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        hour = hourly.first_open_hour().previous
        if hour < hourly.config.first_hour:
            return dg.SkipReason("no hour has closed yet: no landing pass has finished")
        if hourly.is_current(hour):
            return dg.SkipReason(f"{hour} is built; the next hour has not closed")
        if _under_way(context.instance, job.name, hour):
            return dg.SkipReason(f"{hour} is being built")
        return _request(hourly, hour, attempt=1)

    return hourly_pipeline_schedule


def stale_hours_sensor(
    hourly: HourlyPipeline, naming: Naming, job: "dg.UnresolvedAssetJobDefinition"
) -> dg.SensorDefinition:
    """``stale_hour_sensor``: asks for closed hours whose destinations do not hold what has landed."""

    @dg.sensor(
        name=naming.job("stale_hour_sensor"),
        job=job,
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Requests the hours that late events, failed or lost runs left stale, {HOURS_A_TICK} a tick.",
    )
    def stale_hour_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        stale = hourly.stale_hours()
        requests: list[dg.RunRequest] = []
        for hour in stale:
            if len(requests) == HOURS_A_TICK:
                break
            if not _under_way(context.instance, job.name, hour):
                requests.append(_request(hourly, hour, attempt=1 + _attempts(context.instance, hourly, hour)))
        if not requests:
            return dg.SkipReason(
                f"{len(stale):,} hours are stale, all of them being built" if stale else "no hour is stale"
            )
        return dg.SensorResult(run_requests=requests)

    return stale_hour_sensor


def _request(hourly: HourlyPipeline, hour: Hour, attempt: int) -> dg.RunRequest:
    version = str(hourly.landed().hour(hour).generation)
    return dg.RunRequest(
        run_key=f"{hour}:{version}:{attempt}", partition_key=parse_hour(hour.key).key, tags={VERSION_TAG: version}
    )


def _under_way(instance: dg.DagsterInstance, job_name: str, hour: Hour | None = None) -> bool:
    tags = {PARTITION_TAG: hour.key} if hour else {}
    filters = dg.RunsFilter(job_name=job_name, statuses=UNDER_WAY, tags=tags)
    return bool(instance.get_run_records(filters, limit=1))


def _attempts(instance: dg.DagsterInstance, hourly: HourlyPipeline, hour: Hour) -> int:
    tags = {PARTITION_TAG: hour.key, VERSION_TAG: str(hourly.landed().hour(hour).generation)}
    return instance.get_runs_count(dg.RunsFilter(tags=tags))
