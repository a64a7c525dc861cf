"""Finds closed hours that destinations lack or hold in an older version, by their own ledgers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from obs_assets.delivery.kinds import asset_name
from obs_assets.destinations.base import Destination, DestinationConfig, Holding
from obs_assets.errors import ObsError
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets.hours import Hour, parse_hour
from obs_assets.sources.log import Landed


@dataclass(frozen=True)
class Staleness:
    """Closed hours that destinations lack or hold in an older version.

    Attributes:
        missing: hour, oldest first → asset names of the destinations that lack it.
        unreachable: asset name → the error of a destination that does not answer; nothing is known
            about its hours.
        before_start: hours that landed before ``start`` was moved later. They are not built, and
            expire like other hours.
        held: asset name → the hours that the destination holds, in any version.
    """

    missing: Mapping[Hour, tuple[str, ...]]
    unreachable: Mapping[str, str]
    before_start: tuple[Hour, ...] = ()
    held: Mapping[str, frozenset[Hour]] = field(default_factory=dict)

    @property
    def hours(self) -> list[Hour]:
        """The hours, oldest first."""
        return list(self.missing)

    def sentence_before_start(self) -> str:
        """The number of hours before the start, and their treatment."""
        if not self.before_start:
            return "no landed hour lies before the pipeline's start any more"
        return (
            f"{len(self.before_start):,} landed hours, {self.before_start[0]} to {self.before_start[-1]}, lie "
            "before the pipeline's start and are left alone: what destinations hold of them stays, retention_days "
            "removes the rest. Move `start` back to build them"
        )


def is_current(
    config: PipelineConfig, block: DestinationConfig, held: Holding | None, generation: int
) -> bool:
    """Whether a destination holds all landed events of an hour.

    Args:
        config: with ``on_config_change: rebuild``, the hour must also be built with this
            configuration.
        block: block of the destination.
        held: row of the hour in the ledger; None without such a row.
        generation: landing generation of the hour.
    """
    if held is None or held.version.generation < generation:
        return False
    if config.on_config_change == "mark":
        return True
    return replace(held.version, generation=0) == config.version(block.stage, 0)


def find_staleness(
    config: PipelineConfig,
    landed: Landed,
    destination: Callable[[str], Destination],
    *,
    open_hour: Hour,
    now: datetime,
    empty: Iterable[Hour] = (),
) -> Staleness:
    """Compare the landed hours with each destination's ledger, in a few requests.

    An hour that a destination removed because of its age is not missing; while the destination
    holds the hour, it is kept current. An hour whose landed events have expired cannot be built
    again and is left out.

    Args:
        config: configuration of the pipeline.
        landed: the hours that have landed.
        destination: returns the destination of an asset name.
        open_hour: the first hour that is not closed.
        now: the time, UTC; it decides which hours a destination can have removed.
        empty: hours without events that destinations hold nevertheless.
    """
    hours = {parse_hour(key): hour for key, hour in landed.hours.items()}
    wanted = dict.fromkeys(empty, 0)
    wanted |= {hour: found.generation for hour, found in hours.items() if not found.expired}
    expired = {hour for hour, found in hours.items() if found.expired}
    first = config.first_hour
    closed = {
        hour: n
        for hour, n in wanted.items()
        if first <= hour < open_hour and hour not in expired
    }
    before_start = tuple(sorted(hour for hour in hours if hour < first and hour not in expired))
    held_by: dict[str, frozenset[Hour]] = {}
    missing: dict[Hour, list[str]] = {}
    unreachable: dict[str, str] = {}
    for block in config.enabled_destinations:
        name = asset_name(block)
        try:
            held = destination(name).holdings()
        except ObsError as error:
            unreachable[name] = str(error)
            continue
        held_by[name] = frozenset(held)
        for hour, generation in closed.items():
            was_removed = hour not in held and block.has_expired(hour, now)
            if not was_removed and not is_current(config, block, held.get(hour), generation):
                missing.setdefault(hour, []).append(name)
    ordered = {hour: tuple(missing[hour]) for hour in sorted(missing)}
    return Staleness(ordered, unreachable, before_start, held_by)
