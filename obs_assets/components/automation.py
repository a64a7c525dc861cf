"""Hours that build themselves: new files are landed, closed hours are built, stale hours are built again.

What is asked for is decided from what has landed and from the ledgers of the destinations. Cursors, tags and run keys
only spare work: losing them costs nothing.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from obs_assets.components.keys import Naming
from obs_assets.components.runs import (
    LAUNCHED_WITHIN,
    PARTITION_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    UNDER_WAY,
    hours_of,
    hours_under_way,
    report_held_hours,
    tags_of,
)
from obs_assets.errors import ConfigurationError, TransientError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hourly.staleness import Staleness
from obs_assets.hours import Hour, first_open_hour

HOURS_A_TICK = 24
"""The most hours that a tick asks for, and the most of one run."""

EVENTS_A_RANGE = 500_000
"""Landed events from which on no further hour joins a range: large hours run side by side, each in its own process."""

VERSION_TAG = "obs/version"
"""What had landed for the run's hour, `InputVersion.landing`; of a range of its hours in their order, by commas."""

SEEN_TAG = "obs/seen"
ATTEMPT_TAG = "obs/attempt"
CLOSING_TAG = "obs/closing"

LEFT_TO_THE_SCHEDULE = timedelta(minutes=15)
"""For so long after its closing an hour is the schedule's."""

LOOK_AGAIN = timedelta(minutes=5)
"""Pause between two questions to the destinations, unless a landing pass has ended since."""

FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=5), timedelta(hours=6)
"""Between attempts at one hour: doubled with each."""

FAILURES = 3
"""So many failures in a row mean that something is down: then one hour a tick finds out when it is up again."""

HOURS_LOOKED_AT = 500
LONG_AGO = datetime.min.replace(tzinfo=UTC)


def new_files_sensor(
    hourly: HourlyPipeline, naming: Naming, job: dg.JobDefinition
) -> dg.SensorDefinition:
    """``event_file_sensor``: asks for a landing pass when files are new or grown, or when it would close an hour."""

    @dg.sensor(
        name=naming.job("event_file_sensor"),
        job=job,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sees new and grown event files and starts land_event_files. Closes hours in which none has grown.",
    )
    def event_file_sensor(
        context: dg.SensorEvaluationContext,
    ) -> dg.SensorResult | dg.SkipReason:
        began_at = datetime.now(UTC)
        try:
            listing = hourly.listing()
        except (ConfigurationError, TransientError) as error:
            return dg.SkipReason(str(error))
        # No cursor: what a finished pass has seen is what counts, so that a run that failed or was lost is repeated
        news = hourly.pending_files(listing)
        closes = (
            first_open_hour(began_at, hourly.config.allowed_lateness) > hourly.first_open_hour()
        )
        if not news and not closes:
            return dg.SkipReason(f"nothing new in {len(listing.files):,} files")
        # An hour that ends without a new byte needs no run: the listing is all that a pass would look at
        if not news and hourly.close_hours(listing, began_at):
            return dg.SkipReason(
                f"nothing new in {len(listing.files):,} files; hours before {began_at:%H:%M} close"
            )
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
        cron_schedule="* * * * *",
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
            hourly.landed().version(hour).landing,
            bool(hourly.config.refresh_open_hour_minutes),
        )
        # What was built while it was open holds every event perhaps, but nobody has judged it as a whole
        if not hourly.needs_build(hour) and not (
            refreshed and not _was_closed(context.instance, naming, hour, version)
        ):
            return dg.SkipReason(f"{hour} is built; the next hour has not closed")
        if hour in hours_under_way(context.instance, naming, datetime.now(UTC)):
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
        under_way = hours_under_way(context.instance, naming, now)
        attempts = _attempts(context.instance, naming, due)
        requests = []
        for hour in due:
            if (
                hour >= hourly.config.first_hour
                and hour not in under_way
                and hourly.needs_build(hour)
            ):
                version = landed.version(hour).landing
                requests.append(
                    _request(
                        naming, hour, version, attempts.get((hour, version), NEVER).number + 1
                    )
                )
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
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Compares what has landed with the ledgers of the destinations, after each landing pass and every five "
            f"minutes, and requests the hours that differ, oldest first, {HOURS_A_TICK} a tick: late events, failed or "
            f"lost runs, hours deleted by hand. Consecutive hours are one run. An hour whose run failed is asked for "
            f"alone, at ever longer intervals; while nothing succeeds, one hour a tick."
        ),
    )
    def stale_hour_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now, state = datetime.now(UTC), _landing_state(hourly)
        last = _Look.of(context.cursor)
        if last.landed == state and timedelta(0) <= now - last.at < LOOK_AGAIN:
            return dg.SensorResult(
                skip_reason=f"nothing has landed since {last.at:%H:%M:%S} UTC, when the destinations were asked",
                cursor=context.cursor,
            )
        staleness = hourly.staleness(now, empty=_empty_hours(context.instance, naming))
        look = _Look(state, now, len(staleness.before_start), len(staleness.elsewhere))
        if look.before_start != last.before_start:
            context.log.warning(staleness.sentence_before_start())
        if look.elsewhere != last.elsewhere:
            context.log.warning(staleness.sentence_elsewhere())
        for name, problem in staleness.unreachable.items():
            context.log.warning("%s cannot be asked what it holds: %s", name, problem)
        for asset, hour in report_held_hours(context.instance, naming, staleness.held, now):
            context.log.info(
                "%s holds %s: reported to Dagster, which did not know", asset, hour
            )
        requests = _due(context.instance, hourly, naming, staleness, now)
        if requests:
            return dg.SensorResult(run_requests=requests, cursor=look.to_json())
        waiting = "".join(f"; {problem}" for problem in staleness.unreachable.values())
        return dg.SensorResult(
            skip_reason=f"{_none_due(staleness)}{waiting}", cursor=look.to_json()
        )

    return stale_hour_sensor


@dataclass(frozen=True)
class _Look:
    """The sensor's cursor: it spares questions and repeated warnings; without it both come once more.

    Attributes:
        landed: how far landing was, see `_landing_state`.
        at: when the destinations were asked.
        before_start: hours before the pipeline's start that were named.
        elsewhere: hours of another data folder that were named.
    """

    landed: str = ""
    at: datetime = LONG_AGO
    before_start: int = 0
    elsewhere: int = 0

    @classmethod
    def of(cls, cursor: str | None) -> "_Look":
        """Read a cursor; one of another version counts as none."""
        try:
            values = json.loads(cursor or "")
            return cls(
                str(values["landed"]),
                datetime.fromisoformat(values["at"]),
                int(values["before_start"]),
                int(values["elsewhere"]),
            )
        except (ValueError, KeyError, TypeError):
            return cls()

    def to_json(self) -> str:
        """The cursor."""
        return json.dumps(
            {
                "landed": self.landed,
                "at": self.at.isoformat(),
                "before_start": self.before_start,
                "elsewhere": self.elsewhere,
            }
        )


def _landing_state(hourly: HourlyPipeline) -> str:
    """Changes with each pass that lands something and with each hour that closes."""
    return f"{hourly.landed().last_pass} {hourly.first_open_hour()}"


def _none_due(staleness: Staleness) -> str:
    if not staleness.missing:
        return "no hour is stale"
    return f"{len(staleness.missing):,} hours are stale: being built, just closed, or failed a short time ago"


@dataclass(frozen=True)
class _Attempt:
    """The last run that was asked for an hour and landing generation.

    Attributes:
        number: from 1; 0 when there was none.
        heard_of: when its row changed last.
        failed: whether it ended in failure.
    """

    number: int = 0
    heard_of: datetime = LONG_AGO
    failed: bool = False

    def allows_another(self, now: datetime) -> bool:
        """Whether the pause after it is over: twice as long after each attempt."""
        pause = min(FIRST_PAUSE * 2 ** min(max(self.number - 1, 0), 12), LONGEST_PAUSE)
        return self.number == 0 or now - self.heard_of >= pause


NEVER = _Attempt()


@dataclass(frozen=True)
class _Wanted:
    """An hour to ask for; ``alone`` after a failure, so that it cannot hold its neighbours."""

    hour: Hour
    version: str
    attempt: int
    alone: bool
    events: int


def _due(
    instance: dg.DagsterInstance,
    hourly: HourlyPipeline,
    naming: Naming,
    staleness: Staleness,
    now: datetime,
) -> list[dg.RunRequest]:
    """The requests of a tick: one hour only while everything fails, to learn whether that has changed."""
    if not staleness.missing:
        return []
    landed = hourly.landed()
    under_way = hours_under_way(instance, naming, now)
    closed_by = now - hourly.config.allowed_lateness - LEFT_TO_THE_SCHEDULE
    waiting = [
        hour for hour in staleness.missing if hour not in under_way and hour.end <= closed_by
    ]
    attempts = _attempts(instance, naming, waiting[:HOURS_LOOKED_AT])
    wanted = []
    for hour in waiting[:HOURS_LOOKED_AT]:
        version, events = landed.version(hour).landing, landed.hour(hour).rows
        last = attempts.get((hour, version), NEVER)
        if last.allows_another(now):
            wanted.append(_Wanted(hour, version, last.number + 1, last.failed, events))
    cap = 1 if _everything_fails(instance, naming) else HOURS_A_TICK
    reachable = [name for name in hourly.destination_names if name not in staleness.unreachable]
    selection = (
        [naming.key(name) for name in (*STAGES, *reachable)] if staleness.unreachable else None
    )
    return [_request_range(naming, group, selection) for group in _grouped(wanted[:cap])]


def _grouped(wanted: Sequence[_Wanted]) -> list[list[_Wanted]]:
    """Consecutive hours together, as long as each is at the same attempt and they are small."""
    groups: list[list[_Wanted]] = []
    for one in wanted:
        last = groups[-1] if groups else []
        follows = (
            bool(last) and last[-1].hour.next == one.hour and last[-1].attempt == one.attempt
        )
        fits = sum(other.events for other in last) + one.events <= EVENTS_A_RANGE
        if follows and fits and not one.alone and not last[-1].alone:
            last.append(one)
        else:
            groups.append([one])
    return groups


def _empty_hours(instance: dg.DagsterInstance, naming: Naming) -> Iterator[Hour]:
    """Hours that were asked for when nothing had landed for them: no landing log knows of these. The latest ones."""
    asked = dg.RunsFilter(tags={**tags_of(naming), VERSION_TAG: "0"})
    for record in instance.get_run_records(asked, limit=HOURS_LOOKED_AT):
        yield from hours_of(record.dagster_run)


def _attempts(
    instance: dg.DagsterInstance, naming: Naming, hours: Sequence[Hour]
) -> Mapping[tuple[Hour, str], _Attempt]:
    """The last attempt at each of these hours and landing generations, alone or in a range."""
    found: dict[tuple[Hour, str], _Attempt] = {}
    if not hours:
        return found
    starts = {
        Hour(hour.start - timedelta(hours=back)).key
        for hour in hours
        for back in range(HOURS_A_TICK)
    }
    keys = {PARTITION_TAG: [hour.key for hour in hours], RANGE_START_TAG: sorted(starts)}
    filters = [
        dg.RunsFilter(tags={**tags_of(naming), tag: values}) for tag, values in keys.items()
    ]
    records = [record for asked in filters for record in instance.get_run_records(asked)]
    for record in sorted(records, key=lambda record: record.storage_id, reverse=True):
        run, heard_of = record.dagster_run, record.update_timestamp.astimezone(UTC)
        failed = run.status == dg.DagsterRunStatus.FAILURE
        attempt = _Attempt(int(run.tags.get(ATTEMPT_TAG, "1")), heard_of, failed)
        versions = run.tags.get(VERSION_TAG, "").split(",")
        for hour, version in zip(hours_of(run), versions, strict=False):
            found.setdefault((hour, version), attempt)
    return found


def _everything_fails(instance: dg.DagsterInstance, naming: Naming) -> bool:
    ended = dg.RunsFilter(
        tags=tags_of(naming),
        statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE],
    )
    last = [
        record.dagster_run.is_success
        for record in instance.get_run_records(ended, limit=FAILURES)
    ]
    return len(last) == FAILURES and not any(last)


def _request_range(
    naming: Naming, wanted: Sequence[_Wanted], selection: list[dg.AssetKey] | None
) -> dg.RunRequest:
    """A run of consecutive hours."""
    first, last = wanted[0], wanted[-1]
    if len(wanted) == 1:
        return _request(naming, first.hour, first.version, first.attempt, selection)
    versions = ",".join(one.version for one in wanted)
    return dg.RunRequest(
        run_key=f"{first.hour}...{last.hour}:{versions}:{first.attempt}",
        asset_selection=selection,
        tags={
            RANGE_START_TAG: first.hour.key,
            RANGE_END_TAG: last.hour.key,
            VERSION_TAG: versions,
            ATTEMPT_TAG: str(first.attempt),
            **tags_of(naming),
        },
    )


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
    tags = {VERSION_TAG: version, ATTEMPT_TAG: str(attempt), **tags_of(naming)}
    # An hour before those that this process has loaded: Dagster refuses its key here, the run's own process knows it
    is_known = hour >= naming.first_partition
    return dg.RunRequest(
        run_key=f"{hour}:{version}:{'closing' if closes else attempt}",
        partition_key=hour.key if is_known else None,
        asset_selection=selection,
        tags=tags
        | ({CLOSING_TAG: "true"} if closes else {})
        | ({} if is_known else {PARTITION_TAG: hour.key}),
    )


def _was_closed(instance: dg.DagsterInstance, naming: Naming, hour: Hour, version: str) -> bool:
    """Whether the run that builds an hour as it closes was asked for: of an hour that was built while it was open."""
    tags = {
        **tags_of(naming),
        PARTITION_TAG: hour.key,
        VERSION_TAG: version,
        CLOSING_TAG: "true",
    }
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
