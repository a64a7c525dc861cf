"""Reads the stored events of an hour and looks for personal data that redaction missed.

The rules are in `obs_assets.audit.leftovers`; this module reads the events. The result holds counts
and paths, never a value of an event.
"""

import heapq
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from obs_assets.audit.leftovers import TYPES, VALIDATORS, CustomRule, Leftover, Scanner, Scope
from obs_assets.delivery import kinds
from obs_assets.delivery.kinds import Kind, asset_name, kind_of
from obs_assets.errors import ConfigurationError, ObsError
from obs_assets.events import Frame
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import REDACTED
from obs_assets.hours import Hour

TEXT_COLUMNS = (
    "event_id",
    "event_type",
    "event_level",
    "source_name",
    "master_type",
    "worker_type",
    "worker_id",
    "trace_id",
    "session_id",
    "status",
    "error",
)
"""Columns of a frame that hold text of its event."""

SCAN_ROWS = 2_000
"""Events that are read at a time."""

MOST_PATHS = 1_000
"""Pairs of type and path that are listed, so that events with random keys do not make the result endless."""

OTHER_PATHS = "(other paths)"
"""Stands for all paths that are not listed."""


@dataclass(frozen=True)
class Leaks:
    """Personal data that a store of an hour still holds.

    Attributes:
        store: asset name of the stage or destination.
        events: number of scanned events.
        leftovers: type and path → number of values.
        unreadable: number of events that are no JSON or are nested too deeply to be scanned.
        problem: a sentence, if the store could not be read; empty otherwise.
    """

    store: str
    events: int = 0
    leftovers: Mapping[Leftover, int] = field(default_factory=dict)
    unreadable: int = 0
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether every event was scanned and nothing was found."""
        return not (self.leftovers or self.unreadable or self.problem)

    @property
    def by_type(self) -> dict[str, int]:
        """Type → number of values, the largest number first."""
        counts = Counter[str]()
        for leftover, count in self.leftovers.items():
            counts[leftover.type] += count
        return dict(counts.most_common())

    def __str__(self) -> str:
        if self.problem:
            return self.problem
        found = [f"{count:,} {type_}" for type_, count in self.by_type.items()]
        if self.unreadable:
            found.append(f"{self.unreadable:,} events that cannot be searched")
        if not found:
            return f"{self.events:,} events, nothing left"
        return f"{self.events:,} events, left: {', '.join(found)}"


def scan(
    hourly: HourlyPipeline,
    hour: Hour,
    places: Iterable[str] = (),
    sample: int | None = None,
) -> Iterator[Leaks]:
    """Scan an hour in its stores, in the order in which events pass through them.

    Args:
        hourly: the pipeline; its redact block names the types of data and the fields to scan.
        hour: the hour to scan.
        places: ``parquet``, types of destinations such as ``postgres``, or asset names; by default
            all stores.
        sample: number of events to scan, the same events in every store and at every scan; by
            default all events.

    Raises:
        ConfigurationError: a place is unknown, or redaction is off.
    """
    if not hourly.config.redact.enabled:
        raise ConfigurationError(
            "redaction is off (redact: enabled: false): the events hold all their personal data"
        )
    scanner = Scanner(scope(hourly))
    for store in stores(hourly, places):
        with hourly.database.cursor() as connection:
            try:
                frame = _read(hourly, hour, store, connection)
                yield _leaks_of(store, scanner, frame, sample)
            except ObsError as error:
                yield Leaks(store, problem=str(error))
            except (duckdb.Error, pa.ArrowException) as error:
                # The text of the error can quote an event, so only its kind is shown
                problem = f"its events cannot be read ({type(error).__name__})"
                yield Leaks(store, problem=problem)


def stores(hourly: HourlyPipeline, places: Iterable[str] = ()) -> list[str]:
    """The asset names that some places stand for; all stores without a place.

    Raises:
        ConfigurationError: a place is unknown.
    """
    # Frames before redaction hold personal data by design: they are no place to scan.
    groups: dict[str, tuple[str, ...]] = {"parquet": REDACTED}
    for kind in kinds.KINDS:
        if kind.keeps_events:
            groups[kind.name] = _destinations(hourly, kind)
    known = [*itertools.chain.from_iterable(groups.values())]
    wanted: set[str] = set()
    for place in places:
        if place not in groups and place not in known:
            names = ", ".join([*groups, *known])
            raise ConfigurationError(f"{place!r} is no place to scan; there are {names}")
        wanted.update(groups.get(place, (place,)))
    return [store for store in known if store in wanted or not wanted]


def _destinations(hourly: HourlyPipeline, kind: Kind) -> tuple[str, ...]:
    configs = hourly.config.enabled_destinations
    return tuple(asset_name(config) for config in configs if kind_of(config) is kind)


def scope(hourly: HourlyPipeline) -> Scope:
    """The types and fields to scan, as the ``redact`` block defines them.

    Types with the mode ``keep`` are not scanned.
    """
    redact = hourly.config.redact
    types = frozenset(type_ for type_ in TYPES if redact.detects(type_))
    custom = []
    for pattern in redact.patterns:
        if redact.modes.get(pattern.name) == "keep":
            continue
        # ``g`` (all matches) and ``u`` (Unicode) hold for every rule
        flags = pattern.flags.replace("g", "").replace("u", "")
        regex = f"(?{flags}:{pattern.regex})" if flags else pattern.regex
        # A validator of the user's own code exists once; the built-in validators are written twice.
        is_valid = VALIDATORS.get(pattern.validator or "") or pattern.is_valid()
        custom.append(CustomRule(pattern.name, regex, is_valid))
    return Scope(
        types,
        tuple(custom),
        redact.fields_to_scan,
        redact.fields_to_skip,
    )


def _read(
    hourly: HourlyPipeline, hour: Hour, store: str, connection: duckdb.DuckDBPyConnection
) -> Frame:
    """``row_uid`` and ``event``, and of a stage's frame also the text columns."""
    if store in REDACTED:
        frame = hourly.store.read_frame(connection, store, hour)
        return frame.project(f"row_uid, event, {', '.join(TEXT_COLUMNS)}")
    return hourly.destination(hourly.holder(store, hour)).read_back(connection, hour)


def _leaks_of(
    store: str,
    scanner: Scanner,
    frame: Frame,
    sample: int | None,
) -> Leaks:
    if sample is not None:
        # By a hash of the identity, each store and each scan has the same events in its sample.
        frame = frame.order("md5(row_uid)").limit(sample)
    found = Counter[Leftover]()
    events = unreadable = 0
    with frame.to_arrow_reader(SCAN_ROWS) as batches:
        for row in itertools.chain.from_iterable(map(pa.RecordBatch.to_pylist, batches)):
            events += 1
            try:
                found.update(scanner.event(row["event"]))
            except ValueError:
                unreadable += 1
            found.update(_in_columns(scanner, row))
    return Leaks(store, events, _bounded(found), unreadable)


def _in_columns(scanner: Scanner, row: Mapping[str, str | None]) -> Iterator[Leftover]:
    """Leftovers in columns whose value is not in the event; the event is scanned by itself."""
    event = row["event"] or ""
    for name in TEXT_COLUMNS:
        value = row.get(name)
        if not value:
            continue
        # Most columns are copied from the event, where the same text is scanned already.
        written = json.dumps(value, ensure_ascii=False)[1:-1]
        if written in event:
            continue
        for leftover in scanner.text(value, name):
            yield Leftover(leftover.type, f"column {name}")


def _bounded(found: Counter[Leftover]) -> dict[Leftover, int]:
    """The `MOST_PATHS` most frequent leftovers; all others of a type count at `OTHER_PATHS`."""
    ranked = heapq.nlargest(
        MOST_PATHS,
        found.items(),
        key=lambda item: (item[1], item[0]),
    )
    kept = dict(ranked)
    bounded = Counter(kept)
    for leftover, count in found.items() - kept.items():
        bounded[Leftover(leftover.type, OTHER_PATHS)] += count
    return dict(bounded)
