"""Finds closed hours that destinations lack or hold in an older version, by their own ledgers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from obs_assets.delivery.kinds import asset_name
from obs_assets.destinations.base import DestinationConfig, Holding
from obs_assets.errors import ObsError
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets.hours import Hour, parse_hour
from obs_assets.receipts import InputVersion, short_id
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
        log_id: identity of this data folder's landing log.
        elsewhere: hour, oldest first → asset name → identity of the landing log of another data
            folder from which that destination holds the hour. Such an hour is in ``missing`` for no
            destination: it is left alone until `obs_assets.hourly.adoption` takes it over.
        resting: asset name → since when and why the breaker of the destination is not closed.
        probed: the destinations of ``resting`` that may be asked for a single hour, as a probe.
        covered: the destinations of ``resting`` whose hours a secondary takes.
        lent: asset name → the hours that its secondary holds.
    """

    missing: Mapping[Hour, tuple[str, ...]]
    unreachable: Mapping[str, str]
    before_start: tuple[Hour, ...] = ()
    held: Mapping[str, frozenset[Hour]] = field(default_factory=dict)
    log_id: str = ""
    elsewhere: Mapping[Hour, Mapping[str, str]] = field(default_factory=dict)
    resting: Mapping[str, str] = field(default_factory=dict)
    probed: frozenset[str] = frozenset()
    covered: frozenset[str] = frozenset()
    lent: Mapping[str, frozenset[Hour]] = field(default_factory=dict)

    @property
    def hours(self) -> list[Hour]:
        """The hours, oldest first."""
        return list(self.missing)

    @property
    def left_out(self) -> frozenset[str]:
        """Asset names of the destinations that no hour is asked of: no answer, or an open breaker."""
        return frozenset({*self.unreachable, *self.resting}) - self.probed - self.covered

    @property
    def due(self) -> list[Hour]:
        """The hours that lack at a destination which can be asked, oldest first."""
        return [
            hour for hour, names in self.missing.items() if not self.left_out.issuperset(names)
        ]

    @property
    def is_probe(self) -> bool:
        """Whether a single hour is to test a destination that failed."""
        lacking = set[str]().union(*self.missing.values())
        return not self.probed.isdisjoint(lacking)

    def sentence_elsewhere(self) -> str:
        """Which hours were loaded from another data folder, and the command that takes them over."""
        if not self.elsewhere:
            return "no landed hour is held from another data folder"
        hours = list(self.elsewhere)
        span = str(hours[0])
        if len(hours) > 1:
            span = f"{hours[0]}...{hours[-1]}"
        held: set[tuple[str, str]] = set()
        for logs in self.elsewhere.values():
            held.update(logs.items())
        names = sorted({name for name, _ in held})
        others = sorted({short_id(log) for _, log in held})
        return (
            f"{len(hours):,} landed hours in {span} were loaded into {', '.join(names)} "
            f"from another data folder (landing log {', '.join(others)}; "
            f"this folder's is {short_id(self.log_id)}) and are left alone: "
            f"`obs adopt {span}` makes them this folder's hours, and with --dry-run shows what that would change"
        )

    def sentence_before_start(self) -> str:
        """The number of hours before the start, and their treatment."""
        if not self.before_start:
            return "no landed hour lies before the pipeline's start any more"
        first, last = self.before_start[0], self.before_start[-1]
        return (
            f"{len(self.before_start):,} landed hours, {first} to {last}, lie "
            "before the pipeline's start and are left alone: the destinations keep their rows, "
            "and retention_days removes the rest. Move `start` back to build them"
        )


State = Literal["current", "stale", "elsewhere"]
"""Whether a destination holds an hour as it has landed, or does not, or holds it from another data folder."""


def state_of(
    config: PipelineConfig,
    block: DestinationConfig,
    held: Holding | None,
    landed: InputVersion,
) -> State:
    """How a destination holds an hour.

    Args:
        config: configuration of the pipeline; with ``on_config_change: rebuild`` the hour must also
            be built with this configuration.
        block: block of the destination.
        held: the ledger's row of the hour; None if the destination does not hold it.
        landed: version of the hour's landed events.
    """
    if held is None:
        return "stale"
    standing = held.version.standing(landed)
    if standing == "other log":
        return "elsewhere"
    if standing == "older":
        return "stale"
    if config.on_config_change == "mark":
        return "current"
    is_rebuilt = held.version.recipe == config.version(block.stage).recipe
    return "current" if is_rebuilt else "stale"


def find_staleness(
    config: PipelineConfig,
    landed: Landed,
    holdings: Callable[[str], Mapping[Hour, Holding]],
    *,
    open_hour: Hour,
    now: datetime,
    empty: Iterable[Hour] = (),
) -> Staleness:
    """Compare the landed hours with each destination's ledger, in a few requests.

    An hour that a destination removed because of its age is not missing; while the destination
    holds the hour, it is kept current. An hour whose landed events have expired cannot be built
    again and is left out. An hour that a destination holds from another data folder is not missing.

    Args:
        config: configuration of the pipeline.
        landed: the hours that have landed.
        holdings: returns the ledger of the destination with an asset name.
        open_hour: the first hour that is not closed.
        now: the time, UTC; it decides which hours a destination can have removed.
        empty: hours without events that destinations hold nevertheless.
    """
    hours = {parse_hour(key): hour for key, hour in landed.hours.items()}
    expired = {hour for hour, found in hours.items() if found.expired}
    first = config.first_hour
    buildable = {*empty, *hours} - expired
    closed = sorted(hour for hour in buildable if first <= hour < open_hour)
    before_start = sorted(hour for hour in hours if hour < first and hour not in expired)
    held_by: dict[str, frozenset[Hour]] = {}
    missing: dict[Hour, list[str]] = {}
    elsewhere: dict[Hour, dict[str, str]] = {}
    unreachable: dict[str, str] = {}
    for block in config.enabled_destinations:
        name = asset_name(block)
        try:
            # The whole ledger in few requests: a request for each hour would take minutes.
            held = holdings(name)
        except ObsError as error:
            # The other destinations are still compared.
            unreachable[name] = str(error)
            continue
        held_by[name] = frozenset(held)
        for hour in closed:
            was_removed = hour not in held and block.has_expired(hour, now)
            state = state_of(
                config,
                block,
                held.get(hour),
                landed.version(hour),
            )
            if state == "stale" and not was_removed:
                missing.setdefault(hour, []).append(name)
            if state == "elsewhere":
                elsewhere.setdefault(hour, {})[name] = held[hour].version.log_id
    # A build delivers to all destinations, so an hour of another folder anywhere is not built.
    alone = [hour for hour in sorted(missing) if hour not in elsewhere]
    return Staleness(
        missing={hour: tuple(missing[hour]) for hour in alone},
        unreachable=unreachable,
        before_start=tuple(before_start),
        held=held_by,
        log_id=landed.log_id,
        elsewhere={hour: elsewhere[hour] for hour in sorted(elsewhere)},
    )
