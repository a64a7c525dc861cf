"""Sensors and the schedule: they request runs that land new files, build closed hours and rebuild stale hours.

Each request follows from the landing log and the ledgers of the destinations. Cursors, tags and run keys only
save work: if they are lost, an hour is perhaps built twice, with the same result.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from logging import Logger
from typing import TypeAlias

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
from obs_assets.sources.notifications import Notifications

HOURS_A_TICK = 24
"""Largest number of hours that a tick requests. It is also the largest number of hours of a run."""

EVENTS_A_RANGE = 500_000
"""Largest number of landed events of a range. Larger hours run in parallel, each in its own process."""

VERSION_TAG = "obs/version"
"""Tag of a run: `InputVersion.landing` of its hour; for a range, of each hour in order, separated by commas."""

SEEN_TAG = "obs/seen"
"""Tag of a landing run: the numbers of new and changed files that the sensor saw."""

ATTEMPT_TAG = "obs/attempt"
"""Tag of a run: the number of the attempt at its hour and landing generation, from 1."""

CLOSING_TAG = "obs/closing"
"""Tag of the run that builds an hour when it closes, although the hour was built while it was open."""

LEFT_TO_THE_SCHEDULE = timedelta(minutes=15)
"""Time after an hour closes in which only the schedule requests it."""

LOOK_AGAIN = timedelta(minutes=5)
"""Pause between two questions to the destinations, unless a landing pass has ended in between."""

FIRST_PAUSE = timedelta(minutes=5)
"""Pause after the first attempt at an hour. It doubles with each attempt."""

LONGEST_PAUSE = timedelta(hours=6)
"""Longest pause between two attempts at an hour."""

MOST_DOUBLINGS = 12
"""Doublings of `FIRST_PAUSE` after which the pause is longer than `LONGEST_PAUSE` anyway."""

FAILURES = 3
"""Failed runs in a row that mean an outage. During an outage, a tick requests a single hour, as a test."""

HOURS_LOOKED_AT = 500
"""Largest number of stale hours, or of runs without events, that a tick reads from Dagster."""

Following: TypeAlias = Callable[[], HourlyPipeline]
"""Gives the pipeline as its file says now. A tick calls it once."""

LONG_AGO = datetime.min.replace(tzinfo=UTC)
"""Before any run and any tick."""


def new_files_sensor(
    present: Following,
    naming: Naming,
    job: dg.JobDefinition,
) -> dg.SensorDefinition:
    """``event_file_sensor``: requests a landing pass when files are new or changed, or an hour can close."""
    # Its state is lost with the process: then the bucket is listed once more.
    notifications = Notifications()

    @dg.sensor(
        name=naming.job("event_file_sensor"),
        job=job,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Sees new and grown event files and starts land_event_files. "
            "Closes hours in which none has grown."
        ),
    )
    def event_file_sensor(
        context: dg.SensorEvaluationContext,
    ) -> dg.SensorResult | dg.SkipReason:
        hourly = present()
        began_at = hourly.clock()
        opens_next = first_open_hour(began_at, hourly.config.allowed_lateness)
        closes = opens_next > hourly.first_open_hour()
        # The messages are taken in any case, so that they do not pile up.
        if notifications.can_skip_listing(hourly.source, began_at) and not closes:
            return dg.SkipReason("no object is new: the bucket has sent no notification")
        try:
            listing = hourly.listing()
        except (ConfigurationError, TransientError) as error:
            return dg.SkipReason(str(error))
        # The listing is compared with the last finished pass, not with a cursor. So a run that
        # failed or was lost is requested again.
        pending = hourly.pending_files(listing)
        if not pending:
            notifications.note_nothing_new(began_at)
        unchanged = f"nothing new in {len(listing.files):,} files"
        if not pending and not closes:
            return dg.SkipReason(unchanged)
        # Without new bytes a pass would only list the files, and the sensor has done that.
        if not pending and hourly.close_hours(listing, began_at):
            return dg.SkipReason(f"{unchanged}; hours before {began_at:%H:%M} close")
        if _is_landing(context.instance, hourly, job.name):
            return dg.SkipReason("a landing pass is under way")
        seen = pending or f"{unchanged}; an hour can close"
        context.log.info(seen)
        config = {"ops": {naming.job("land"): {"config": {"max_passes": 1}}}}
        request = dg.RunRequest(run_config=config, tags={SEEN_TAG: seen})
        return dg.SensorResult(run_requests=[request])

    return event_file_sensor


def hourly_schedule(
    present: Following,
    naming: Naming,
    job: "dg.UnresolvedAssetJobDefinition",
) -> dg.ScheduleDefinition:
    """``hourly_pipeline_schedule``: requests the hour that closed last, once a landing pass has closed it."""

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
        hourly = present()
        hour = hourly.first_open_hour().previous
        if hour < hourly.config.first_hour:
            return dg.SkipReason("no hour has closed yet: no landing pass has finished")
        version = hourly.landed().version(hour).landing
        refreshed = bool(hourly.config.refresh_open_hour_minutes)
        # Alert rules and checks have not judged the whole hour if it was built only while it was open.
        is_complete = not refreshed or _was_closed(context.instance, naming, hour, version)
        if is_complete and not hourly.needs_build(hour):
            return dg.SkipReason(f"{hour} is built; the next hour has not closed")
        if hour in hours_under_way(context.instance, naming, hourly.clock()):
            return dg.SkipReason(f"{hour} is being built")
        # The run key allows a single request for each landing generation. If that run fails,
        # stale_hour_sensor requests the hour again.
        return _request(naming, hour, version, attempt=1, closes=refreshed)

    return hourly_pipeline_schedule


def open_hour_sensor(
    present: Following,
    naming: Naming,
    job: "dg.UnresolvedAssetJobDefinition",
) -> list[dg.SensorDefinition]:
    """``open_hour_sensor``: requests open hours that have new events.

    The list is empty if ``refresh_open_hour_minutes`` is not set.
    """
    minutes = present().config.refresh_open_hour_minutes
    if minutes is None:
        return []

    @dg.sensor(
        name=naming.job("open_hour_sensor"),
        job=job,
        minimum_interval_seconds=60 * minutes,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Builds the open hour while its events arrive. "
            "hourly_pipeline_schedule builds it when it closes."
        ),
    )
    def open_hour_sensor(
        context: dg.SensorEvaluationContext,
    ) -> dg.SensorResult | dg.SkipReason:
        hourly = present()
        now = hourly.clock()
        requests = _open_hour_requests(context.instance, hourly, naming, now)
        if requests:
            return dg.SensorResult(run_requests=requests)
        return dg.SkipReason("no open hour has new events, or it is being built")

    return [open_hour_sensor]


def _open_hour_requests(
    instance: dg.DagsterInstance,
    hourly: HourlyPipeline,
    naming: Naming,
    now: datetime,
) -> list[dg.RunRequest]:
    landed = hourly.landed()
    # By the clock, not by the landing log: while files wait, hours long past have not closed either.
    open_hours = [
        hour
        for hour in (Hour.of(now).previous, Hour.of(now))
        if hour.end + hourly.config.allowed_lateness > now and hour.key in landed.hours
    ]
    under_way = hours_under_way(instance, naming, now)
    attempts = _attempts(instance, naming, open_hours)
    requests: list[dg.RunRequest] = []
    for hour in open_hours:
        if hour < hourly.config.first_hour or hour in under_way:
            continue
        if hourly.needs_build(hour):
            version = landed.version(hour).landing
            last = attempts.get((hour, version), NEVER)
            requests.append(_request(naming, hour, version, last.number + 1))
    return requests


def stale_hours_sensor(
    present: Following,
    naming: Naming,
    job: "dg.UnresolvedAssetJobDefinition",
) -> dg.SensorDefinition:
    """``stale_hour_sensor``: requests closed hours that a destination lacks or holds in an older version."""

    @dg.sensor(
        name=naming.job("stale_hour_sensor"),
        job=job,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Compares the landed hours with the ledgers of the destinations, after each landing "
            "pass and every five minutes. Requests the hours that differ, oldest first, "
            f"{HOURS_A_TICK} in each tick: hours with late events, of failed or lost runs, or "
            "deleted by hand. Consecutive hours are a single run. An hour whose run failed is "
            "requested alone, at longer and longer intervals; while every run fails, a tick "
            "requests a single hour."
        ),
    )
    def stale_hour_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        hourly = present()
        now = hourly.clock()
        state = _landing_state(hourly)
        last = _Cursor.of(context.cursor)
        # A clock that was set back must not stop the sensor: a negative age counts as old.
        if last.landed == state and timedelta(0) <= now - last.at < LOOK_AGAIN:
            asked_at = f"{last.at:%H:%M:%S} UTC"
            return dg.SensorResult(
                skip_reason=f"nothing has landed since {asked_at}, when the destinations were asked",
                cursor=context.cursor,
            )
        staleness = hourly.staleness(now, empty=_empty_hours(context.instance, naming))
        cursor = _Cursor(
            state,
            now,
            before_start=len(staleness.before_start),
            elsewhere=len(staleness.elsewhere),
        )
        _log_findings(context.log, staleness, cursor, last)
        for asset, hour in report_held_hours(context.instance, naming, staleness.held, now):
            context.log.info(
                "%s holds %s: reported to Dagster, which did not know",
                asset,
                hour,
            )
        requests = _due(context.instance, hourly, naming, staleness, now)
        if requests:
            return dg.SensorResult(run_requests=requests, cursor=cursor.to_json())
        resting = [
            f"the breaker of {name} is {reason}" for name, reason in staleness.resting.items()
        ]
        reasons = [_none_due(staleness), *staleness.unreachable.values(), *resting]
        return dg.SensorResult(skip_reason="; ".join(reasons), cursor=cursor.to_json())

    return stale_hour_sensor


def _log_findings(
    log: Logger,
    staleness: Staleness,
    cursor: "_Cursor",
    last: "_Cursor",
) -> None:
    """Warn of hours that are left alone, if their number has changed, and of unreachable destinations."""
    if cursor.before_start != last.before_start:
        log.warning(staleness.sentence_before_start())
    if cursor.elsewhere != last.elsewhere:
        log.warning(staleness.sentence_elsewhere())
    for name, problem in staleness.unreachable.items():
        log.warning("%s cannot be asked for its hours: %s", name, problem)
    for name, reason in staleness.resting.items():
        log.warning("the breaker of %s is %s", name, reason)


@dataclass(frozen=True)
class _Cursor:
    """The cursor of ``stale_hour_sensor``.

    It saves questions to the destinations and repeated warnings. Without it, both come once more.

    Attributes:
        landed: state of landing, see `_landing_state`.
        at: time of the last question to the destinations.
        before_start: number of hours before the pipeline's start that a warning has named.
        elsewhere: number of hours of another data folder that a warning has named.
    """

    landed: str = ""
    at: datetime = LONG_AGO
    before_start: int = 0
    elsewhere: int = 0

    @classmethod
    def of(cls, cursor: str | None) -> "_Cursor":
        """Read a cursor. A cursor of another version of this code counts as missing."""
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
    """A text that changes with each pass that lands events and with each hour that closes."""
    return f"{hourly.landed().last_pass} {hourly.first_open_hour()}"


def _none_due(staleness: Staleness) -> str:
    if not staleness.missing:
        return "no hour is stale"
    reasons = "being built, just closed, or failed a short time ago"
    if len(staleness.missing) == 1:
        return f"1 hour is stale: {reasons}"
    return f"{len(staleness.missing):,} hours are stale: {reasons}"


@dataclass(frozen=True)
class _Attempt:
    """The last run that was requested for an hour and landing generation.

    Attributes:
        number: number of the attempt, from 1; 0 before the first.
        heard_of: time at which Dagster's row of the run changed last.
        failed: whether the run ended in failure.
    """

    number: int = 0
    heard_of: datetime = LONG_AGO
    failed: bool = False

    def allows_another(self, now: datetime) -> bool:
        """Whether the pause after the attempt is over. The pause doubles with each attempt."""
        if self.number == 0:
            return True
        doublings = min(self.number - 1, MOST_DOUBLINGS)
        pause: timedelta = min(FIRST_PAUSE * 2**doublings, LONGEST_PAUSE)
        return now - self.heard_of >= pause


NEVER = _Attempt()
"""The last attempt at an hour that no run was requested for."""


@dataclass(frozen=True)
class _Candidate:
    """An hour to request.

    Attributes:
        hour: the hour.
        version: its `InputVersion.landing`.
        attempt: number of the attempt, from 1.
        alone: whether the hour needs a run of its own: after a failure, so that it cannot stop its
            neighbours.
        events: number of landed events.
    """

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
    """The requests of a tick. While every run fails, a single hour tests whether the outage is over."""
    if not staleness.due:
        return []
    landed = hourly.landed()
    under_way = hours_under_way(instance, naming, now)
    closed_by = now - hourly.config.allowed_lateness - LEFT_TO_THE_SCHEDULE
    waiting = [
        hour for hour in staleness.due if hour not in under_way and hour.end <= closed_by
    ]
    attempts = _attempts(instance, naming, waiting[:HOURS_LOOKED_AT])
    candidates: list[_Candidate] = []
    for hour in waiting[:HOURS_LOOKED_AT]:
        version = landed.version(hour).landing
        events = landed.hour(hour).rows
        last = attempts.get((hour, version), NEVER)
        if last.allows_another(now):
            candidates.append(_Candidate(hour, version, last.number + 1, last.failed, events))
    cap = HOURS_A_TICK
    if staleness.is_probe or _everything_fails(instance, naming):
        cap = 1
    selection = None
    if staleness.left_out:
        # The run leaves such destinations out, so that it can succeed.
        names = [*STAGES, *hourly.destination_names]
        selection = [naming.key(name) for name in names if name not in staleness.left_out]
    return [_request_range(naming, group, selection) for group in _grouped(candidates[:cap])]


def _grouped(candidates: Sequence[_Candidate]) -> list[list[_Candidate]]:
    """Group consecutive hours that can be built in the same run; see `_may_join`."""
    groups: list[list[_Candidate]] = []
    for candidate in candidates:
        if groups and _may_join(groups[-1], candidate):
            groups[-1].append(candidate)
        else:
            groups.append([candidate])
    return groups


def _may_join(group: Sequence[_Candidate], candidate: _Candidate) -> bool:
    """Whether an hour follows those of a group, at the same attempt, and all together are small."""
    last = group[-1]
    if last.alone or candidate.alone:
        return False
    follows = last.hour.next == candidate.hour and last.attempt == candidate.attempt
    events = sum(member.events for member in group) + candidate.events
    return follows and events <= EVENTS_A_RANGE


def _empty_hours(instance: dg.DagsterInstance, naming: Naming) -> Iterator[Hour]:
    """Hours of the latest runs that were requested without a landed event; the landing log does not have them."""
    without_events = dg.RunsFilter(tags={**tags_of(naming), VERSION_TAG: "0"})
    for record in instance.get_run_records(without_events, limit=HOURS_LOOKED_AT):
        yield from hours_of(record.dagster_run)


def _attempts(
    instance: dg.DagsterInstance,
    naming: Naming,
    hours: Sequence[Hour],
) -> Mapping[tuple[Hour, str], _Attempt]:
    """The last attempt at each of these hours and landing generations, alone or in a range."""
    found: dict[tuple[Hour, str], _Attempt] = {}
    if not hours:
        return found
    filters = [
        dg.RunsFilter(tags={**tags_of(naming), PARTITION_TAG: [hour.key for hour in hours]}),
        dg.RunsFilter(tags={**tags_of(naming), RANGE_START_TAG: _possible_starts(hours)}),
    ]
    records: list[dg.RunRecord] = []
    for runs in filters:
        records += instance.get_run_records(runs)
    # The newest run comes first: `setdefault` keeps its attempt.
    for record in sorted(records, key=lambda record: record.storage_id, reverse=True):
        run = record.dagster_run
        heard_of = record.update_timestamp.astimezone(UTC)
        failed = run.status == dg.DagsterRunStatus.FAILURE
        attempt = _Attempt(int(run.tags.get(ATTEMPT_TAG, "1")), heard_of, failed)
        versions = run.tags.get(VERSION_TAG, "").split(",")
        for hour, version in zip(hours_of(run), versions, strict=False):
            found.setdefault((hour, version), attempt)
    return found


def _possible_starts(hours: Sequence[Hour]) -> list[str]:
    """First hours of all ranges that can contain any of these hours, as keys."""
    starts: set[str] = set()
    for hour in hours:
        starts |= {Hour(hour.start - timedelta(hours=n)).key for n in range(HOURS_A_TICK)}
    return sorted(starts)


def _everything_fails(instance: dg.DagsterInstance, naming: Naming) -> bool:
    """Whether the last runs, `FAILURES` of them, all failed."""
    ended = dg.RunsFilter(
        tags=tags_of(naming),
        statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE],
    )
    records = instance.get_run_records(ended, limit=FAILURES)
    succeeded = any(record.dagster_run.is_success for record in records)
    return len(records) == FAILURES and not succeeded


def _request_range(
    naming: Naming,
    group: Sequence[_Candidate],
    selection: list[dg.AssetKey] | None,
) -> dg.RunRequest:
    """A run of consecutive hours; ``selection`` names the assets, None means all."""
    first = group[0]
    last = group[-1]
    if len(group) == 1:
        return _request(naming, first.hour, first.version, first.attempt, selection)
    versions = ",".join(candidate.version for candidate in group)
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
    """A run of an hour.

    Dagster never runs a run key twice, failed runs included. So each attempt has its own key.

    Args:
        naming: names of the pipeline.
        hour: the hour.
        version: its `InputVersion.landing`.
        attempt: number of the attempt, from 1.
        selection: the assets to build; None means all.
        closes: whether the run builds the hour as it closes, see `CLOSING_TAG`.
    """
    tags = {VERSION_TAG: version, ATTEMPT_TAG: str(attempt), **tags_of(naming)}
    occasion = str(attempt)
    if closes:
        tags[CLOSING_TAG] = "true"
        occasion = "closing"
    partition_key: str | None = hour.key
    if hour < naming.first_partition:
        # This process was loaded before the hour's events landed, so Dagster refuses the partition
        # key here. The process of the run loads the partitions anew and knows it.
        partition_key = None
        tags[PARTITION_TAG] = hour.key
    return dg.RunRequest(
        run_key=f"{hour}:{version}:{occasion}",
        partition_key=partition_key,
        asset_selection=selection,
        tags=tags,
    )


def _was_closed(instance: dg.DagsterInstance, naming: Naming, hour: Hour, version: str) -> bool:
    """Whether the run that builds an hour as it closes was requested, see `CLOSING_TAG`."""
    tags = {
        **tags_of(naming),
        PARTITION_TAG: hour.key,
        VERSION_TAG: version,
        CLOSING_TAG: "true",
    }
    return bool(instance.get_run_records(dg.RunsFilter(tags=tags), limit=1))


def _is_landing(instance: dg.DagsterInstance, hourly: HourlyPipeline, job_name: str) -> bool:
    """Whether a landing run is queued or runs. A started run without the landing lock is soon lost."""
    pending = dg.RunsFilter(job_name=job_name, statuses=UNDER_WAY)
    for record in instance.get_run_records(pending):
        if record.dagster_run.status == dg.DagsterRunStatus.QUEUED:
            return True
        age = hourly.clock() - record.create_timestamp.astimezone(UTC)
        if age <= LAUNCHED_WITHIN or hourly.log.is_held():
            return True
    return False
