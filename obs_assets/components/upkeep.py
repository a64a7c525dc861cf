"""Jobs that maintain tables, remove expired events and send due alerts. A sensor requests each job when it is due.

The sensor's question costs some queries and no run. So on an idle day, Dagster's history contains only
the runs of the hours.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import dagster as dg

from obs_assets.components.automation import LEFT_TO_THE_SCHEDULE, Following
from obs_assets.components.cancel import in_process
from obs_assets.components.keys import Naming
from obs_assets.components.runs import UNDER_WAY
from obs_assets.errors import ObsError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline

EACH_MINUTE = 60
"""Seconds between two ticks of a sensor of urgent work."""

SOME_TIMES_A_DAY = 6 * 3600
"""Seconds between two ticks of the other sensors. If a run does not remove its cause, the next run is as far."""

LOST_AFTER = timedelta(minutes=30)
"""Age from which a run that has not ended counts as lost, and no longer prevents the next run."""


@dataclass(frozen=True)
class _Chore:
    """A job, and the question whether it is due.

    Attributes:
        name: name of the job; the name of its sensor adds ``_sensor``.
        description: description of the job.
        due: returns the reason for a run now, in a few words; empty if no run is needed.
        work: does the work, and yields sentences for the log. Harmless to repeat.
        look_every_s: seconds between two ticks of the sensor.
        tags: tags of the job's runs.
    """

    name: str
    description: str
    due: Callable[[HourlyPipeline], str]
    work: Callable[[HourlyPipeline], Iterable[str]]
    look_every_s: int
    tags: dict[str, str] = field(default_factory=dict)


def upkeep_definitions(
    hourly: HourlyPipeline, naming: Naming, present: Following
) -> dg.Definitions:
    """The maintenance jobs that a pipeline needs, each with its sensor.

    - ``postgres_upkeep``: the same as ``obs postgres upkeep``, for pipelines with tables.
    - ``remove_expired_events``: the same as ``obs expire``, if ``retention_days`` is set.
    - ``dispatch_alerts``: sends waiting dispatches and evaluates hours without events, for pipelines
      with webhooks.

    Args:
        hourly: the pipeline, for the jobs.
        naming: names of the pipeline.
        present: gives the pipeline to the sensors.
    """
    chores: list[_Chore] = []
    if hourly.enabled("has_tables"):
        chores.append(_LOOK_AFTER_TABLES)
    if hourly.config.retention_days:
        chores.append(_REMOVE_EXPIRED_EVENTS)
    if hourly.enabled("alerts"):
        chores.append(_DISPATCH_ALERTS)
    definitions = [_definitions(hourly, naming, present, chore) for chore in chores]
    # `merge` needs at least an empty value.
    return dg.Definitions.merge(dg.Definitions(), *definitions)


def _tables_due(hourly: HourlyPipeline) -> str:
    now = hourly.clock()
    leaves = sum(len(table.upkeep.due(now)) for table in hourly.tables().values())
    if not leaves:
        return ""
    return f"{leaves:,} leaves have expired or are to be rolled up"


def _look_after_tables(hourly: HourlyPipeline) -> Iterator[str]:
    now = hourly.clock()
    for table in hourly.tables().values():
        for done in table.upkeep.run(now) or ["Nothing to do."]:
            yield f"{table.key}: {done}"


def _dispatch_alerts(hourly: HourlyPipeline) -> Iterator[str]:
    for name, counts in hourly.dispatch_alerts().items():
        moved = {count: n for count, n in counts.items() if n}
        yield f"{name}: {moved or 'nothing is due'}"


_LOOK_AFTER_TABLES = _Chore(
    "postgres_upkeep",
    "Drops leaves that are older than retention_days, and rolls old leaves up. "
    "Harmless to repeat.",
    _tables_due,
    _look_after_tables,
    SOME_TIMES_A_DAY,
)

_REMOVE_EXPIRED_EVENTS = _Chore(
    "remove_expired_events",
    "Removes landed events, dead letters, raw and enriched frames that are older than "
    "retention_days, of hours that every destination holds. Harmless to repeat.",
    lambda hourly: hourly.expiry_due(hourly.clock()),
    lambda hourly: hourly.expire(hourly.clock()).sentences(),
    SOME_TIMES_A_DAY,
)

_DISPATCH_ALERTS = _Chore(
    "dispatch_alerts",
    "Evaluates the rules on hours that have closed or stayed empty, and sends alerts that are due.",
    # An hour that has just closed is about to be built, and that run evaluates it.
    lambda hourly: hourly.dispatch_due(hourly.clock() - LEFT_TO_THE_SCHEDULE),
    _dispatch_alerts,
    EACH_MINUTE,
    tags={"dagster/max_runtime": "600"},
)


def _definitions(
    hourly: HourlyPipeline, naming: Naming, present: Following, chore: _Chore
) -> dg.Definitions:
    """The job that does and logs the work, and its sensor, which is enabled by default."""

    @dg.op(name=naming.job(f"do_{chore.name}"), out=dg.Out(dg.Nothing))
    def do(context: dg.OpExecutionContext) -> None:
        try:
            for sentence in chore.work(hourly):
                context.log.info(sentence)
        except ObsError as error:
            # No retry: the sensor requests the next run, which does the rest.
            raise dg.Failure(str(error), allow_retries=False) from None

    @dg.job(
        name=naming.job(chore.name),
        description=chore.description,
        executor_def=in_process,
        tags=chore.tags,
    )
    def job() -> None:
        do()

    @dg.sensor(
        name=naming.job(f"{chore.name}_sensor"),
        job=job,
        minimum_interval_seconds=chore.look_every_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Starts {chore.name} when it is due.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        now = present()
        try:
            reason = chore.due(now)
        except ObsError as error:
            return dg.SkipReason(str(error))
        if not reason:
            return dg.SkipReason("nothing is due")
        since = now.clock() - LOST_AFTER
        under_way = dg.RunsFilter(job_name=job.name, statuses=UNDER_WAY, created_after=since)
        if context.instance.get_run_records(under_way, limit=1):
            return dg.SkipReason(f"{reason}; a run is under way")
        context.log.info(reason)
        return dg.RunRequest(tags={"obs/due": reason})

    return dg.Definitions(jobs=[job], sensors=[sensor])
