"""A check of each webhook that warns of dispatches that do not leave."""

from datetime import timedelta

import dagster as dg

from obs_assets.components.keys import Naming
from obs_assets.delivery.kinds import asset_name
from obs_assets.destinations.base import DestinationConfig
from obs_assets.hourly.hourly_pipeline import HourlyPipeline

STUCK_AFTER = timedelta(hours=1)
"""Age from which a waiting dispatch is a warning."""

_PROMISE = "No dispatch was given up, and none waits for more than an hour."


def stuck_check(
    hourly: HourlyPipeline,
    naming: Naming,
    block: DestinationConfig,
) -> dg.AssetChecksDefinition:
    """``dispatches_move``: warns of dispatches that were given up or wait for more than an hour."""
    name = asset_name(block)

    @dg.asset_check(
        asset=naming.key(name),
        name="dispatches_move",
        description=_PROMISE,
    )
    def dispatches_move() -> dg.AssetCheckResult:
        stuck = hourly.outboxes()[name].stuck(STUCK_AFTER)
        sentence = _PROMISE
        if stuck:
            sentence = (
                f"{stuck:,} dispatches were given up or wait for more than an hour: "
                f"`obs alerts list` names them."
            )
        return dg.AssetCheckResult(
            passed=stuck == 0,
            # Not an error: the hour is delivered, and the dispatch can still be sent.
            severity=dg.AssetCheckSeverity.WARN,
            description=sentence,
            metadata={
                "stuck": stuck,
                "see": "obs alerts list --state failed, obs alerts retry",
            },
        )

    return dispatches_move
