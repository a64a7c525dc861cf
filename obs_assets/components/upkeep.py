"""The tables of events look after themselves: once a day what has expired goes, and what is old is rolled up."""

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
