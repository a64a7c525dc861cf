"""What is kept for a time only: once a day what has expired goes, and what is old is rolled up."""

from datetime import UTC, datetime

import dagster as dg

from obs_assets.components.keys import Naming
from obs_assets.errors import ObsError
from obs_assets.hourly import HourlyPipeline


def upkeep_job(hourly: HourlyPipeline, naming: Naming) -> dg.JobDefinition:
    """The job ``postgres_upkeep``: what ``obs postgres upkeep`` does."""

    @dg.op(name=naming.job("keep_tables"), out=dg.Out(dg.Nothing))
    def keep_tables(context: dg.OpExecutionContext) -> None:
        now = datetime.now(UTC)
        try:
            for table in hourly.tables():
                for done in table.upkeep.run(now) or ["Nothing to do."]:
                    context.log.info("%s: %s", table.key, done)
        except ObsError as error:  # the next day's run takes up what this one has left
            raise dg.Failure(str(error), allow_retries=False) from None

    @dg.job(
        name=naming.job("postgres_upkeep"),
        description="Drops the leaves that retention_days no longer keeps and rolls old leaves up. Harmless to repeat.",
        executor_def=dg.in_process_executor,
    )
    def postgres_upkeep() -> None:
        keep_tables()

    return postgres_upkeep


def upkeep_schedule(naming: Naming, job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """``postgres_upkeep_schedule``: once a day, after the day's end and before the next hour closes."""
    return dg.ScheduleDefinition(
        name=naming.job("postgres_upkeep_schedule"),
        job=job,
        cron_schedule="40 0 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Drops expired leaves and rolls up old ones, each day at 00:40 UTC.",
    )


def retention_job(hourly: HourlyPipeline, naming: Naming) -> dg.JobDefinition:
    """The job ``remove_expired_events``: what ``obs expire`` does."""

    @dg.op(name=naming.job("expire"), out=dg.Out(dg.Nothing))
    def expire(context: dg.OpExecutionContext) -> None:
        try:
            done = hourly.expire(datetime.now(UTC))
        except ObsError as error:  # the next day's run takes up what this one has left
            raise dg.Failure(str(error), allow_retries=False) from None
        for line in done.sentences():
            context.log.info(line)

    @dg.job(
        name=naming.job("remove_expired_events"),
        description=(
            "Removes landed events, dead letters, raw and enriched frames that retention_days no longer keeps, of "
            "hours that every destination holds. Harmless to repeat."
        ),
        executor_def=dg.in_process_executor,
    )
    def remove_expired_events() -> None:
        expire()

    return remove_expired_events


def retention_schedule(naming: Naming, job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """``remove_expired_events_schedule``: once a day."""
    return dg.ScheduleDefinition(
        name=naming.job("remove_expired_events_schedule"),
        job=job,
        cron_schedule="50 0 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Removes what retention_days no longer keeps, each day at 00:50 UTC.",
    )
