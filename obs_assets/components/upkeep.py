"""Work beside the hours: tables and frames are looked after, due alerts are sent. A sensor asks for it when it is due.

A look costs some queries and no run, so that Dagster's history of an idle day holds the runs of its hours alone.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dagster as dg

from obs_assets.components.automation import LEFT_TO_THE_SCHEDULE
from obs_assets.components.cancel import in_process
from obs_assets.components.keys import Naming
from obs_assets.components.runs import UNDER_WAY
from obs_assets.errors import ObsError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline

EACH_MINUTE, SOME_TIMES_A_DAY = 60, 6 * 3600
"""Seconds between two looks; also between two runs for the same reason, should the first not have removed it."""

LOST_AFTER = timedelta(minutes=30)
"""A run that has not ended for so long keeps no other from being asked for."""


@dataclass(frozen=True)
class _Chore:
    """Some work and how to see whether it is due.

    Attributes:
        name: of the job; the sensor's ends in ``_sensor``.
        description: of the job.
        due: why a run is needed now, in a few words; empty if none is.
        work: does it, and says in sentences what was done. Harmless to repeat.
        look_every_s: seconds between two looks of the sensor.
        tags: of the job.
    """

    name: str
    description: str
    due: Callable[[], str]
    work: Callable[[], Iterable[str]]
    look_every_s: int
    tags: dict[str, str] = field(default_factory=dict)


def upkeep_definitions(hourly: HourlyPipeline, naming: Naming) -> dg.Definitions:
    """The jobs of a pipeline beside its hours, each with its sensor; only those that may have something to do.

    postgres_upkeep: what ``obs postgres upkeep`` does, where there are tables.
    remove_expired_events: what ``obs expire`` does, where ``retention_days`` is set.
    dispatch_alerts: what the webhooks left to be sent later, and hours in which nothing happened.
    """
    chores = []
    if hourly.enabled("has_tables"):
        chores.append(_look_after_tables(hourly))
    if hourly.config.retention_days:
        chores.append(_remove_expired_events(hourly))
    if hourly.enabled("alerts"):
        chores.append(_dispatch_alerts(hourly))
    return dg.Definitions.merge(
        dg.Definitions(), *(_definitions(naming, chore) for chore in chores)
    )


def _look_after_tables(hourly: HourlyPipeline) -> _Chore:
    def due() -> str:
        now = datetime.now(UTC)
        leaves = [leaf for table in hourly.tables().values() for leaf in table.upkeep.due(now)]
        return f"{len(leaves):,} leaves have expired or are to be rolled up" if leaves else ""

    def work() -> Iterator[str]:
        now = datetime.now(UTC)
        for table in hourly.tables().values():
            for done in table.upkeep.run(now) or ["Nothing to do."]:
                yield f"{table.key}: {done}"

    return _Chore(
        "postgres_upkeep",
        "Drops the leaves that retention_days no longer keeps and rolls old leaves up. Harmless to repeat.",
        due,
        work,
        SOME_TIMES_A_DAY,
    )


def _remove_expired_events(hourly: HourlyPipeline) -> _Chore:
    return _Chore(
        "remove_expired_events",
        "Removes landed events, dead letters, raw and enriched frames that retention_days no longer keeps, of hours "
        "that every destination holds. Harmless to repeat.",
        lambda: hourly.expiry_due(datetime.now(UTC)),
        lambda: hourly.expire(datetime.now(UTC)).sentences(),
        SOME_TIMES_A_DAY,
    )


def _dispatch_alerts(hourly: HourlyPipeline) -> _Chore:
    def work() -> Iterator[str]:
        for name, counts in hourly.dispatch_alerts().items():
            moved = {count: n for count, n in counts.items() if n}
            yield f"{name}: {moved or 'nothing is due'}"

    return _Chore(
        "dispatch_alerts",
        "Judges hours that have closed or stayed empty, and sends alerts that are due.",
        # An hour that has just closed is about to be built, and judged by that run
        lambda: hourly.dispatch_due(datetime.now(UTC) - LEFT_TO_THE_SCHEDULE),
        work,
        EACH_MINUTE,
        tags={"dagster/max_runtime": "600"},
    )


def _definitions(naming: Naming, chore: _Chore) -> dg.Definitions:
    """A job that does the work and logs what was done, and the sensor that asks for it, enabled by default."""

    @dg.op(name=naming.job(f"do_{chore.name}"), out=dg.Out(dg.Nothing))
    def do(context: dg.OpExecutionContext) -> None:
        try:
            for done in chore.work():
                context.log.info(done)
        except ObsError as error:  # the next run takes up what this one has left
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
        description=f"Asks for {chore.name} when there is something to do.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        try:
            reason = chore.due()
        except ObsError as error:
            return dg.SkipReason(str(error))
        if not reason:
            return dg.SkipReason("nothing is due")
        since = datetime.now(UTC) - LOST_AFTER
        under_way = dg.RunsFilter(job_name=job.name, statuses=UNDER_WAY, created_after=since)
        if context.instance.get_run_records(under_way, limit=1):
            return dg.SkipReason(f"{reason}; a run is under way")
        context.log.info(reason)
        return dg.RunRequest(tags={"obs/due": reason})

    return dg.Definitions(jobs=[job], sensors=[sensor])
