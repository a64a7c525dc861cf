"""Alerts between the hours: a job that sends what is due, its schedule, and a check that says when nothing moves."""

from datetime import timedelta

import dagster as dg

from obs_assets.components.keys import Naming
from obs_assets.destinations.base import DestinationConfig
from obs_assets.errors import ObsError
from obs_assets.hourly import HourlyPipeline
from obs_assets.pipeline import asset_name

STUCK_AFTER = timedelta(hours=1)


def alert_definitions(hourly: HourlyPipeline, naming: Naming) -> dg.Definitions:
    """The job ``dispatch_alerts``, every minute, and ``dispatches_move`` on each webhook; nothing without a webhook."""
    webhooks = [block for block in hourly.config.enabled_destinations if getattr(block, "type", "") == "webhook"]
    if not webhooks:
        return dg.Definitions()
    job = dispatch_job(hourly, naming)
    schedule = dg.ScheduleDefinition(
        name=naming.job("dispatch_alerts_schedule"),
        job=job,
        cron_schedule="* * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Starts dispatch_alerts every minute.",
    )
    checks = [stuck_check(hourly, naming, block) for block in webhooks]
    return dg.Definitions(jobs=[job], schedules=[schedule], asset_checks=checks)


def dispatch_job(hourly: HourlyPipeline, naming: Naming) -> dg.JobDefinition:
    """``dispatch_alerts``: what the webhook assets left to be sent later, and hours in which nothing happened."""

    @dg.op(name=naming.job("dispatch_due_alerts"), out=dg.Out(dg.Nothing))
    def dispatch_due_alerts(context: dg.OpExecutionContext) -> None:
        try:
            for name, counts in hourly.dispatch_alerts().items():
                moved = {what: n for what, n in counts.items() if n}
                context.log.info("%s: %s", name, moved or "nothing is due")
        except ObsError as error:
            raise dg.Failure(str(error)) from None

    @dg.job(
        name=naming.job("dispatch_alerts"),
        description="Judges hours that have closed or stayed empty, and sends alerts that are due.",
        executor_def=dg.in_process_executor,
        tags={"dagster/max_runtime": 600},
    )
    def dispatch_alerts() -> None:
        dispatch_due_alerts()

    return dispatch_alerts


def stuck_check(hourly: HourlyPipeline, naming: Naming, block: DestinationConfig) -> dg.AssetChecksDefinition:
    """``dispatches_move``: warns of dispatches that were given up, or that wait for more than an hour."""
    name = asset_name(block)

    @dg.asset_check(
        asset=naming.key(name),
        name="dispatches_move",
        description="No dispatch was given up, and none waits for more than an hour.",
    )
    def dispatches_move() -> dg.AssetCheckResult:
        (outbox,) = [outbox for outbox in hourly.outboxes() if outbox.name == hourly.ledger_name(name)]
        stuck = outbox.stuck(STUCK_AFTER)
        return dg.AssetCheckResult(
            passed=stuck == 0,
            severity=dg.AssetCheckSeverity.WARN,
            description=(
                f"{stuck:,} dispatches were given up or wait for more than an hour: `obs alerts list` names them."
                if stuck
                else "No dispatch was given up, and none waits for more than an hour."
            ),
            metadata={"stuck": stuck, "see": "obs alerts list --state failed, obs alerts retry"},
        )

    return dispatches_move
