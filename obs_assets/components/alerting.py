"""A check on each webhook that says when nothing moves."""

from datetime import timedelta

import dagster as dg

from obs_assets.components.keys import Naming
from obs_assets.delivery.kinds import asset_name
from obs_assets.destinations.base import DestinationConfig
from obs_assets.hourly.hourly_pipeline import HourlyPipeline

STUCK_AFTER = timedelta(hours=1)


def stuck_check(
    hourly: HourlyPipeline, naming: Naming, block: DestinationConfig
) -> dg.AssetChecksDefinition:
    """``dispatches_move``: warns of dispatches that were given up, or that wait for more than an hour."""
    name = asset_name(block)

    @dg.asset_check(
        asset=naming.key(name),
        name="dispatches_move",
        description="No dispatch was given up, and none waits for more than an hour.",
    )
    def dispatches_move() -> dg.AssetCheckResult:
        stuck = hourly.outboxes()[name].stuck(STUCK_AFTER)
        return dg.AssetCheckResult(
            passed=stuck == 0,
            severity=dg.AssetCheckSeverity.WARN,
            description=(
                f"{stuck:,} dispatches were given up or wait for more than an hour: `obs alerts list` names them."
                if stuck
                else "No dispatch was given up, and none waits for more than an hour."
            ),
            metadata={
                "stuck": stuck,
                "see": "obs alerts list --state failed, obs alerts retry",
            },
        )

    return dispatches_move
