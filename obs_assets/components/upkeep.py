"""What happens by the clock, whatever hours there are: tables and frames are looked after, due alerts go out."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime

import dagster as dg

from obs_assets.components.keys import Naming
from obs_assets.errors import ObsError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline

_EACH_MINUTE = "* * * * *"
_AFTER_THE_DAY, _LATER_STILL = "40 0 * * *", "50 0 * * *"
"""Once a day, after the day's end and before the next hour closes, UTC."""


def upkeep_definitions(hourly: HourlyPipeline, naming: Naming) -> dg.Definitions:
    """The jobs of a pipeline that run by the clock, each with its schedule; only those that have something to do.

    postgres_upkeep: what ``obs postgres upkeep`` does, where there are tables.
    remove_expired_events: what ``obs expire`` does, where ``retention_days`` is set.
    dispatch_alerts: what the webhooks left to be sent later, and hours in which nothing happened.
    """

    def look_after_tables() -> Iterator[str]:
        now = datetime.now(UTC)
        for table in hourly.tables().values():
            for done in table.upkeep.run(now) or ["Nothing to do."]:
                yield f"{table.key}: {done}"

    def expire() -> list[str]:
        return hourly.expire(datetime.now(UTC)).sentences()

    def dispatch() -> Iterator[str]:
        for name, counts in hourly.dispatch_alerts().items():
            moved = {what: n for what, n in counts.items() if n}
            yield f"{name}: {moved or 'nothing is due'}"

    jobs = []
    if hourly.enabled("has_tables"):
        told = "Drops the leaves that retention_days no longer keeps and rolls old leaves up. Harmless to repeat."
        jobs.append(
            _by_clock(
                naming, "postgres_upkeep", _AFTER_THE_DAY, look_after_tables, description=told
            )
        )
    if hourly.config.retention_days:
        told = (
            "Removes landed events, dead letters, raw and enriched frames that retention_days no longer keeps, of "
            "hours that every destination holds. Harmless to repeat."
        )
        jobs.append(
            _by_clock(naming, "remove_expired_events", _LATER_STILL, expire, description=told)
        )
    if hourly.enabled("alerts"):
        told = "Judges hours that have closed or stayed empty, and sends alerts that are due."
        limit = {"dagster/max_runtime": "600"}
        jobs.append(
            _by_clock(
                naming, "dispatch_alerts", _EACH_MINUTE, dispatch, description=told, tags=limit
            )
        )
    return dg.Definitions.merge(*jobs) if jobs else dg.Definitions()


def _by_clock(
    naming: Naming,
    name: str,
    cron: str,
    work: Callable[[], Iterable[str]],
    *,
    description: str,
    tags: Mapping[str, str] | None = None,
) -> dg.Definitions:
    """A job that does some work and logs what it says of it, and the schedule that starts it, on from the start."""

    @dg.op(name=naming.job(f"do_{name}"), out=dg.Out(dg.Nothing))
    def do(context: dg.OpExecutionContext) -> None:
        try:
            for done in work():
                context.log.info(done)
        except ObsError as error:  # the next run takes up what this one has left
            raise dg.Failure(str(error), allow_retries=False) from None

    @dg.job(
        name=naming.job(name),
        description=description,
        executor_def=dg.in_process_executor,
        tags=tags,
    )
    def job() -> None:
        do()

    schedule = dg.ScheduleDefinition(
        name=naming.job(f"{name}_schedule"),
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=description,
    )
    return dg.Definitions(jobs=[job], schedules=[schedule])
