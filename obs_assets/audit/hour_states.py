"""What is stored of each hour of a range, and why a range has fewer events than were sent.

The ledger and the receipts beside the table say what was loaded; the landing log of this data folder
says what has landed. On a machine without that folder, the ledger alone answers.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from obs_assets.delivery.kinds import asset_name, kind_of
from obs_assets.errors import ConfigurationError, ObsError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import ONE_HOUR, Hour, first_open_hour
from obs_assets.receipts import InputVersion
from obs_assets.search.histogram import Histogram, count
from obs_assets.search.questions import Span, snapshot
from obs_assets.search.selection import Selection
from obs_assets.sources.log import Landed, LandedHour
from obs_assets.sources.replay import open_rows
from obs_assets.storage.postgres import VERSION, Connection

State: TypeAlias = Literal["settled", "open", "stale", "missing", "expired", "empty"]
"""settled: the table has what has landed. open: events may still come. stale: events came since it was
loaded, and it will be replaced. missing: it has landed and is not loaded. expired: retention dropped it.
empty: no event has landed."""

MOST_HOURS = 24 * 400
"""Hours of an answer, at most."""


@dataclass(frozen=True)
class StageCounts:
    """A stage's counts of an hour.

    Attributes:
        stage: name of the stage, for example ``sampled_events``.
        taken: events of its input.
        kept: events that it passed on.
        dropped: reason, for example ``filtered:low_value`` → events.
    """

    stage: str
    taken: int
    kept: int
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class HourState:
    """An hour as it is stored.

    Attributes:
        hour: the hour; its key names the partition in Dagster.
        state: see `State`.
        landed: events that have landed, by the landing log, or by the first receipt without a log.
        rows: rows in the table; None if the table does not hold the hour.
        generation: landing generation that the table holds.
        content_hash: hash of the stored rows.
        loaded_at: time of the last load.
        is_replaced: whether the hour was loaded before, with other contents or another configuration.
        stages: counts of each stage, from the receipts that were stored with the hour.
        is_archived: whether the archive holds an expired hour; None where that is not known.
    """

    hour: Hour
    state: State
    landed: int
    rows: int | None
    generation: int | None
    content_hash: str | None
    loaded_at: datetime | None
    is_replaced: bool
    stages: tuple[StageCounts, ...]
    is_archived: bool | None


@dataclass(frozen=True)
class WhyEmpty:
    """Where the events of a range are, from receipts.

    Attributes:
        states: state of an hour → number of hours.
        landed: events that have landed.
        dropped: reason → events that a stage dropped, the largest number first.
        waiting: events of hours that are missing or open.
        dead_letters: reason → records that could not be read, of files that landed within the range.
        stored: rows in the table, of whole hours.
        matching: rows and events of the range that match the query.
    """

    states: Mapping[State, int]
    landed: int
    dropped: Mapping[str, int]
    waiting: int
    dead_letters: Mapping[str, int]
    stored: int
    matching: Histogram

    @property
    def sentence(self) -> str:
        """The counts in words."""
        hours = sum(self.states.values())
        parts = [f"{number:,} {reason}" for reason, number in self.dropped.items()]
        parts += [
            f"{number:,} dead letters ({reason})"
            for reason, number in self.dead_letters.items()
        ]
        if self.waiting:
            parts.append(f"{self.waiting:,} not loaded yet")
        parts += [f"{self.stored:,} stored", f"{self.matching.rows:,} match"]
        if not self.matching.is_complete:
            parts[-1] += f" since {self.matching.searched.start:%Y-%m-%d %H:%M:%S}"
        return f"in these {hours:,} hours {self.landed:,} events landed: {', '.join(parts)}"


def hour_states(hourly: HourlyPipeline, connection: Connection, span: Span) -> list[HourState]:
    """Each hour that overlaps a range, the oldest first.

    Args:
        hourly: the pipeline, whose first table is asked about.
        connection: to the table's server, in autocommit mode; may read ``obs``.
        span: the range.

    Raises:
        ConfigurationError: the range has more than `MOST_HOURS` hours.
    """
    hours = hours_of(span)
    with snapshot(connection):
        held = _ledger(hourly, connection, hours)
        stages = _stages(hourly, connection, hours)
    judge = _Judge(hourly, hourly.landed(), hourly.log.looked_at(), hourly.clock())
    states = [
        judge.state_of(hour, held.get(hour, _NOT_LOADED), stages.get(hour, []))
        for hour in hours
    ]
    return _with_archive(hourly, states)


def why_empty(
    hourly: HourlyPipeline,
    connection: Connection,
    selection: Selection,
    *,
    deadline_s: float = 10.0,
) -> WhyEmpty:
    """Where the events of a range are that a search does not find. Counts are of whole hours.

    Args:
        hourly: the pipeline, whose first table is asked about.
        connection: to the table's server, in autocommit mode; may read ``obs``.
        selection: the range and the query that found too little.
        deadline_s: seconds for the count of the events that match.
    """
    states = hour_states(hourly, connection, selection.span)
    dropped: Counter[str] = Counter()
    for hour in states:
        for stage in hour.stages:
            dropped.update(stage.dropped)
    return WhyEmpty(
        states=Counter(hour.state for hour in states),
        landed=sum(hour.landed for hour in states),
        dropped=dict(dropped.most_common()),
        waiting=sum(
            hour.landed for hour in states if hour.rows is None and hour.state != "expired"
        ),
        dead_letters=_dead_letters(hourly, selection.span),
        stored=sum(hour.rows or 0 for hour in states),
        matching=count(connection, selection, deadline_s=deadline_s),
    )


# -- parts of an answer ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Loaded:
    """An hour's row in the ledger."""

    version: InputVersion | None = None
    rows: int | None = None
    content_hash: str | None = None
    loaded_at: datetime | None = None
    is_replaced: bool = False

    @property
    def generation(self) -> int | None:
        """The landing generation that the table holds."""
        return self.version.generation if self.version else None


_NOT_LOADED = _Loaded()


def hours_of(span: Span) -> list[Hour]:
    """The hours that overlap a range, the oldest first.

    Raises:
        ConfigurationError: the range has more than `MOST_HOURS` hours.
    """
    number = (span.end - span.start) / ONE_HOUR
    if number > MOST_HOURS:
        raise ConfigurationError(
            f"the range has {number:,.0f} hours: choose a range of at most {MOST_HOURS:,} hours"
        )
    hours = [Hour.of(span.start)]
    while hours[-1].end < span.end:
        hours.append(hours[-1].next)
    return hours


def _ledger(
    hourly: HourlyPipeline, connection: Connection, hours: list[Hour]
) -> dict[Hour, _Loaded]:
    rows = connection.execute(
        f"""
        SELECT hour, {VERSION}, rows, content_hash, loaded_at,
            coalesce((to_jsonb(load) ->> 'first_loaded_at')::timestamptz < loaded_at, false)
        FROM obs.hour_loads AS load WHERE destination = %s AND hour >= %s AND hour < %s""",
        [hourly.searched_table().key, hours[0].start, hours[-1].end],
    ).fetchall()
    return {
        Hour.of(hour): _Loaded(
            InputVersion(*row[:4]), row[4], row[5], row[6].astimezone(UTC), row[7]
        )
        for hour, *row in rows
    }


def _stages(
    hourly: HourlyPipeline, connection: Connection, hours: list[Hour]
) -> dict[Hour, list[StageCounts]]:
    rows = connection.execute(
        """
        SELECT hour, stage, taken, kept, set_aside FROM obs.receipts
        WHERE destination = %s AND hour >= %s AND hour < %s ORDER BY hour, position""",
        [hourly.searched_table().key, hours[0].start, hours[-1].end],
    ).fetchall()
    stages: dict[Hour, list[StageCounts]] = defaultdict(list)
    for hour, *counts in rows:
        stages[Hour.of(hour)].append(StageCounts(*counts))
    return stages


@dataclass(frozen=True)
class _Judge:
    """Compares the ledger with the landing log.

    Attributes:
        hourly: the pipeline.
        landed: the hours that have landed in this data folder.
        looked_at: begin of the last landing pass; None if none ran in this data folder.
        now: the present time, UTC.
    """

    hourly: HourlyPipeline
    landed: Landed
    looked_at: datetime | None
    now: datetime

    def state_of(self, hour: Hour, loaded: _Loaded, stages: list[StageCounts]) -> HourState:
        """An hour, with what the ledger and the receipts say of it."""
        landed = self.landed.hour(hour).rows
        if not landed and stages:
            landed = stages[0].taken
        return HourState(
            hour,
            self._state(hour, loaded),
            landed,
            rows=loaded.rows,
            generation=loaded.generation,
            content_hash=loaded.content_hash,
            loaded_at=loaded.loaded_at,
            is_replaced=loaded.is_replaced,
            stages=tuple(stages),
            is_archived=None,
        )

    def _state(self, hour: Hour, loaded: _Loaded) -> State:
        # A machine without the landing log knows only the time.
        watermark = self.looked_at or self.now
        if hour >= first_open_hour(watermark, self.hourly.config.allowed_lateness):
            return "open"
        landed = self.landed.hour(hour)
        if loaded.version is None:
            return self._state_without_rows(hour, landed)
        # Without a log, nothing is known that the table does not have.
        version = self.landed.version(hour)
        if landed.generation and loaded.version.standing(version) == "older":
            return "stale"
        return "settled"

    def _state_without_rows(self, hour: Hour, landed: LandedHour) -> State:
        is_old = self.hourly.searched_table().config.has_expired(hour, self.now)
        may_have_landed = landed.generation > 0 or self.looked_at is None
        if landed.expired or (is_old and may_have_landed):
            return "expired"
        return "missing" if landed.rows else "empty"


def _with_archive(hourly: HourlyPipeline, states: list[HourState]) -> list[HourState]:
    """The hours, with the answer of the archive about those that have expired."""
    if not any(hour.state == "expired" for hour in states):
        return states
    archived = _archived(hourly)
    if archived is None:
        return states
    expired = {hour.hour for hour in states if hour.state == "expired"}
    kept = {hour.hour: hour for hour in states}
    for hour in expired:
        kept[hour] = replace(kept[hour], is_archived=hour in archived)
    return list(kept.values())


def _archived(hourly: HourlyPipeline) -> frozenset[Hour] | None:
    """The hours that archives hold; None if an archive does not answer, or there is none."""
    blocks = [
        block for block in hourly.config.enabled_destinations if kind_of(block).is_archive
    ]
    found: set[Hour] = set()
    for block in blocks:
        try:
            found.update(hourly.holdings(asset_name(block)))
        except ObsError:
            return None
    return frozenset(found) if blocks else None


def _dead_letters(hourly: HourlyPipeline, span: Span) -> dict[str, int]:
    """Reason → records that could not be read and landed within a range: they have no time of their own."""
    columns = ("file_id", "file_offset", "landed_at", "reason")
    letters = Counter(
        row["reason"]
        for _, row in open_rows(hourly.log, columns)
        if span.start <= row["landed_at"] < span.end
    )
    return dict(letters.most_common())
