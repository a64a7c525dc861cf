"""Hours that build themselves: new files are landed, closed hours are built, stale hours are built again.

What is asked for is decided from what has landed and from the ledgers of the destinations. Cursors, tags and run keys
only spare work: losing them costs nothing.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg

from obs_assets.components.keys import Naming
from obs_assets.errors import ConfigurationError, TransientError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline import DEFAULT_PIPELINE
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hourly.staleness import Staleness
from obs_assets.hours import Hour, first_open_hour, parse_hour, parse_hours

HOURS_A_TICK = 24
PARTITION_TAG = "dagster/partition"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
VERSION_TAG = "obs/version"
SEEN_TAG = "obs/seen"
ATTEMPT_TAG = "obs/attempt"
CLOSING_TAG = "obs/closing"
PIPELINE_TAG = "obs/pipeline"

LEFT_TO_THE_SCHEDULE = timedelta(minutes=15)
"""For so long after its closing an hour is the schedule's."""

FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=5), timedelta(hours=6)
"""Between attempts at one hour: doubled with each."""

FAILURES = 3
"""So many failures in a row mean that something is down: then one hour a tick finds out when it is up again."""

LAUNCHED_WITHIN, LOST_AFTER = timedelta(minutes=15), timedelta(hours=6)
HOURS_LOOKED_AT = 500
UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


def new_files_sensor(
    hourly: HourlyPipeline, naming: Naming, job: dg.JobDefinition
) -> dg.SensorDefinition:
    """``event_file_sensor``: asks for a landing pass when files are new or grown, or when it would close an hour."""

    @dg.sensor(
        name=naming.job("event_file_sensor"),
        job=job,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sees new and grown event files and starts land_event_files; also once an hour can be closed.",
    )
    def event_file_sensor(
        context: dg.SensorEvaluationContext,
    ) -> dg.SensorResult | dg.SkipReason:
        try:
            listing = hourly.listing()
        except (ConfigurationError, TransientError) as error:
            return dg.SkipReason(str(error))
        # No cursor: what a finished pass has seen is what counts, so that a run that failed or was lost is repeated
        news = hourly.news(listing)
        closes = (
            first_open_hour(datetime.now(UTC), hourly.config.allowed_lateness)
            > hourly.first_open_hour()
        )
        if not news and not closes:
            return dg.SkipReason(f"nothing new in {len(listing.files):,} files")
        if _is_landing(context.instance, hourly, job.name):
            return dg.SkipReason("a landing pass is under way")
        seen = news or f"nothing new in {len(listing.files):,} files; an hour can close"
        context.log.info(seen)
        one_pass = {"ops": {naming.job("land"): {"config": {"max_passes": 1}}}}
        return dg.SensorResult(
            run_requests=[dg.RunRequest(run_config=one_pass, tags={SEEN_TAG: seen})]
        )

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
    def hourly_pipeline_schedule(
        context: dg.ScheduleEvaluationContext,
    ) -> dg.RunRequest | dg.SkipReason:
        hour = hourly.first_open_hour().previous
        if hour < hourly.config.first_hour:
            return dg.SkipReason("no hour has closed yet: no landing pass has finished")
        version, refreshed = (
            str(hourly.landed().hour(hour).generation),
            bool(hourly.config.refresh_open_hour_minutes),
        )
        # What was built while it was open holds every event perhaps, but nobody has judged it as a whole
        if hourly.is_current(hour) and not (
            refreshed and not _was_closed(context.instance, naming, hour, version)
        ):
            return dg.SkipReason(f"{hour} is built; the next hour has not closed")
        if hour.key in _hours_under_way(context.instance):
            return dg.SkipReason(f"{hour} is being built")
        # Once for each landing generation: the run key sees to that. The rest is for stale_hour_sensor.
        return _request(naming, hour, version, attempt=1, closes=refreshed)

    return hourly_pipeline_schedule


def open_hour_sensor(
    hourly: HourlyPipeline, naming: Naming, job: "dg.UnresolvedAssetJobDefinition"
) -> list[dg.SensorDefinition]:
    """``open_hour_sensor``, where ``refresh_open_hour_minutes`` is set: asks for open hours that have new events."""
    minutes = hourly.config.refresh_open_hour_minutes
    if minutes is None:
        return []

    @dg.sensor(
        name=naming.job("open_hour_sensor"),
        job=job,
        minimum_interval_seconds=60 * minutes,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Builds the open hour while its events arrive. hourly_pipeline_schedule builds it when it closes.",
    )
    def open_hour_sensor(
        context: dg.SensorEvaluationContext,
    ) -> dg.SensorResult | dg.SkipReason:
        now, landed = datetime.now(UTC), hourly.landed()
        present = [Hour.of(now).previous, Hour.of(now)]
        # Open by the clock: while files wait, hours long past have not closed either
        due = [
            hour
            for hour in present
            if hour.end + hourly.config.allowed_lateness > now and hour.key in landed.hours
        ]
        under_way = set(_hours_under_way(context.instance))
        requests = []
        for hour in due:
            if hour.key not in under_way and not hourly.is_current(hour):
                version = str(landed.hour(hour).generation)
                attempt, _ = _last_attempt(context.instance, naming, hour, version)
                requests.append(_request(naming, hour, version, attempt + 1))
        if requests:
            return dg.SensorResult(run_requests=requests)
        return dg.SkipReason("no open hour has new events, or it is being built")

    return [open_hour_sensor]


def stale_hours_sensor(
    hourly: HourlyPipeline, naming: Naming, job: "dg.UnresolvedAssetJobDefinition"
) -> dg.SensorDefinition:
    """``stale_hour_sensor``: asks for closed hours whose destinations do not hold what has landed."""

    @dg.sensor(
        name=naming.job("stale_hour_sensor"),
        job=job,
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Compares what has landed with the ledgers of the destinations and requests the hours that differ, oldest "
            f"first, {HOURS_A_TICK} a tick: late events, failed or lost runs, hours deleted by hand. An hour that "
            f"keeps failing is asked for at ever longer intervals; while nothing succeeds, one hour a tick."
        ),
    )
    def stale_hour_sensor(
        context: dg.SensorEvaluationContext,
    ) -> dg.SensorResult | dg.SkipReason:
        staleness = hourly.staleness(
            datetime.now(UTC), empty=_empty_hours(context.instance, naming)
        )
        for name, problem in staleness.unreachable.items():
            context.log.warning("%s cannot be asked what it holds: %s", name, problem)
        waiting = "".join(f"; {problem}" for problem in staleness.unreachable.values())
        if not staleness.missing:
            return dg.SkipReason(f"no hour is stale{waiting}")
        requests = _due(context.instance, hourly, naming, staleness, datetime.now(UTC))
        if requests:
            return dg.SensorResult(run_requests=requests)
        return dg.SkipReason(
            f"{len(staleness.missing):,} hours are stale: being built, just closed, or failed a short time ago{waiting}"
        )

    return stale_hour_sensor


def _hours_under_way(instance: dg.DagsterInstance) -> Iterator[str]:
    """Hours of all runs that wait or run; a run that never got further than its row is lost after a while."""
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNDER_WAY)):
        run = record.dagster_run
        age = datetime.now(UTC) - record.create_timestamp.astimezone(UTC)
        if run.status != dg.DagsterRunStatus.QUEUED and age > LOST_AFTER:
            continue  # what is still at work holds the hour's lock, so that asking again harms nothing
        if run.status == dg.DagsterRunStatus.NOT_STARTED and age > LAUNCHED_WITHIN:
            continue
        first, last = run.tags.get(RANGE_START_TAG), run.tags.get(RANGE_END_TAG)
        if first and last:
            yield from (hour.key for hour in parse_hours(f"{first}...{last}"))
        elif PARTITION_TAG in run.tags:
            yield run.tags[PARTITION_TAG]


def _due(
    instance: dg.DagsterInstance,
    hourly: HourlyPipeline,
    naming: Naming,
    staleness: Staleness,
    now: datetime,
) -> list[dg.RunRequest]:
    """The requests of a tick: one hour only while everything fails, to learn whether that has changed."""
    landed = hourly.landed()
    under_way = set(_hours_under_way(instance))
    closed_by = now - hourly.config.allowed_lateness - LEFT_TO_THE_SCHEDULE
    waiting = [
        hour
        for hour in staleness.missing
        if hour.key not in under_way and hour.end <= closed_by
    ]
    reachable = [name for name in hourly.destination_names if name not in staleness.unreachable]
    selection = (
        [naming.key(name) for name in (*STAGES, *reachable)] if staleness.unreachable else None
    )
    cap = 1 if _everything_fails(instance, naming) else HOURS_A_TICK
    requests: list[dg.RunRequest] = []
    for hour in waiting[:HOURS_LOOKED_AT]:
        version = str(landed.hour(hour).generation)
        attempt, at = _last_attempt(instance, naming, hour, version)
        if attempt == 0 or now - at >= min(
            FIRST_PAUSE * 2 ** min(attempt - 1, 12), LONGEST_PAUSE
        ):
            requests.append(_request(naming, hour, version, attempt + 1, selection))
        if len(requests) == cap:
            break
    return requests


def _empty_hours(instance: dg.DagsterInstance, naming: Naming) -> Iterator[Hour]:
    """Hours that were asked for when nothing had landed for them: no landing log knows of these. The latest ones."""
    asked = dg.RunsFilter(tags={**_of(naming), VERSION_TAG: "0"})
    for record in instance.get_run_records(asked, limit=HOURS_LOOKED_AT):
        yield parse_hour(record.dagster_run.tags[PARTITION_TAG])


def _last_attempt(
    instance: dg.DagsterInstance, naming: Naming, hour: Hour, version: str
) -> tuple[int, datetime]:
    """The number of the last run that was asked for this hour and landing generation, and when it was last heard of."""
    tags = {**_of(naming), PARTITION_TAG: hour.key, VERSION_TAG: version}
    for record in instance.get_run_records(dg.RunsFilter(tags=tags), limit=1):
        return int(
            record.dagster_run.tags.get(ATTEMPT_TAG, "1")
        ), record.update_timestamp.astimezone(UTC)
    return 0, datetime.fromtimestamp(0, UTC)


def _everything_fails(instance: dg.DagsterInstance, naming: Naming) -> bool:
    ended = dg.RunsFilter(
        tags=_of(naming), statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
    )
    last = [
        record.dagster_run.is_success
        for record in instance.get_run_records(ended, limit=FAILURES)
    ]
    return len(last) == FAILURES and not any(last)


def _of(naming: Naming) -> dict[str, str]:
    return {PIPELINE_TAG: naming.prefix or DEFAULT_PIPELINE}


def _request(
    naming: Naming,
    hour: Hour,
    version: str,
    attempt: int,
    selection: list[dg.AssetKey] | None = None,
    *,
    closes: bool = False,
) -> dg.RunRequest:
    """A run of an hour. Dagster remembers a run key for ever, failed runs included: each attempt has its own."""
    closing = {CLOSING_TAG: "true"} if closes else {}
    return dg.RunRequest(
        run_key=f"{hour}:{version}:{'closing' if closes else attempt}",
        partition_key=hour.key,
        asset_selection=selection,
        tags={VERSION_TAG: version, ATTEMPT_TAG: str(attempt), **closing, **_of(naming)},
    )


def _was_closed(instance: dg.DagsterInstance, naming: Naming, hour: Hour, version: str) -> bool:
    """Whether the run that builds an hour as it closes was asked for: of an hour that was built while it was open."""
    tags = {**_of(naming), PARTITION_TAG: hour.key, VERSION_TAG: version, CLOSING_TAG: "true"}
    return bool(instance.get_run_records(dg.RunsFilter(tags=tags), limit=1))


def _is_landing(instance: dg.DagsterInstance, hourly: HourlyPipeline, job_name: str) -> bool:
    """Whether a landing pass waits or runs; a run of which nobody holds the lock is lost after a while."""
    for record in instance.get_run_records(
        dg.RunsFilter(job_name=job_name, statuses=UNDER_WAY)
    ):
        age = datetime.now(UTC) - record.create_timestamp.astimezone(UTC)
        if (
            record.dagster_run.status == dg.DagsterRunStatus.QUEUED
            or age <= LAUNCHED_WITHIN
            or hourly.log.is_held()
        ):
            return True
    return False
