"""Reads back what is kept of an hour and looks for what redaction should have left nowhere.

The rules are in `obs_assets.audit.leftovers`; here is where the events come from. Counts and paths come out, never a
value.
"""

import heapq
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
    *(
        "event_id",
        "event_type",
        "event_level",
        "source_name",
        "master_type",
        "worker_type",
        "worker_id",
    ),
    *("trace_id", "session_id", "status", "error"),
)
"""Columns of a frame that hold text of its event."""

BATCH_ROWS = 2_000
MOST_PATHS = 1_000
OTHER_PATHS = "(other paths)"
"""Keys are anybody's text: what is said of an hour stays readable and bounded."""


@dataclass(frozen=True)
class Findings:
    """What is left in one store of an hour.

    Attributes:
        store: the asset's name.
        events: looked at.
        leftovers: of each type and path, how many.
        unreadable: events that are no JSON, or nested too deeply to be looked at.
        problem: a sentence, where the store could not be read.
    """

    store: str
    events: int = 0
    leftovers: Mapping[Leftover, int] = field(default_factory=dict)
    unreadable: int = 0
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether all was looked at and nothing found."""
        return not (self.leftovers or self.unreadable or self.problem)

    @property
    def by_type(self) -> dict[str, int]:
        """How many of each type, most first."""
        counts = Counter[str]()
        for leftover, count in self.leftovers.items():
            counts[leftover.type] += count
        return dict(counts.most_common())

    def __str__(self) -> str:
        if self.problem:
            return self.problem
        found = [f"{count:,} {type_}" for type_, count in self.by_type.items()]
        found += (
            [f"{self.unreadable:,} events that cannot be looked into"]
            if self.unreadable
            else []
        )
        return f"{self.events:,} events, {'left: ' + ', '.join(found) if found else 'nothing left'}"


def scan(
    hourly: HourlyPipeline, hour: Hour, places: Iterable[str] = (), sample: int | None = None
) -> Iterator[Findings]:
    """Scan an hour in each of some places, in the order of the flow.

    Args:
        hourly: the pipeline; its redact block says what should not be left, and where nothing was redacted.
        hour: of which.
        places: ``parquet``, a type of destination such as ``postgres``, or assets by name; all of them by default.
        sample: look at so many events only, the same ones in every place and at every scan.

    Raises:
        ConfigurationError: there is no such place, or redaction is off.
    """
    if not hourly.config.redact.enabled:
        raise ConfigurationError(
            "redaction is off (redact: enabled: false): all that the events hold is left"
        )
    scanner = Scanner(scope(hourly))
    for store in stores(hourly, places):
        with hourly.database.cursor() as connection:
            try:
                yield _findings(store, scanner, _read(hourly, hour, store, connection), sample)
            except ObsError as error:
                yield Findings(store, problem=str(error))
            except (
                duckdb.Error,
                pa.ArrowException,
            ) as error:  # its text may quote what it could not read
                yield Findings(
                    store, problem=f"what it holds cannot be read ({type(error).__name__})"
                )


def stores(hourly: HourlyPipeline, places: Iterable[str] = ()) -> list[str]:
    """The assets that some places mean.

    Raises:
        ConfigurationError: there is no such place.
    """
    groups: dict[str, tuple[str, ...]] = {"parquet": REDACTED}
    groups |= {
        kind.name: _destinations(hourly, kind) for kind in kinds.KINDS if kind.keeps_events
    }
    known = [store for group in groups.values() for store in group]
    wanted: set[str] = set()
    for place in places:
        if place not in groups and place not in known:
            raise ConfigurationError(
                f"{place!r} is no place to scan; there are {', '.join([*groups, *known])}"
            )
        wanted.update(groups.get(place, (place,)))
    return [store for store in known if store in wanted or not wanted]


def _destinations(hourly: HourlyPipeline, kind: Kind) -> tuple[str, ...]:
    configs = hourly.config.enabled_destinations
    return tuple(asset_name(config) for config in configs if kind_of(config) is kind)


def scope(hourly: HourlyPipeline) -> Scope:
    """Of what the events should be free: as the redact block says, types in the mode ``keep`` left out."""
    redact = hourly.config.redact
    custom = tuple(
        CustomRule(
            pattern.name,
            f"(?{flags}:{pattern.regex})"
            if (flags := pattern.flags.replace("g", "").replace("u", ""))
            else pattern.regex,
            VALIDATORS.get(pattern.validator or "") or pattern.is_valid(),
        )
        for pattern in redact.patterns
        if redact.modes.get(pattern.name) != "keep"
    )
    types = frozenset(type_ for type_ in TYPES if redact.detects(type_))
    return Scope(types, custom, redact.fields_to_scan, redact.fields_to_skip)


def _read(
    hourly: HourlyPipeline, hour: Hour, store: str, connection: duckdb.DuckDBPyConnection
) -> Frame:
    """``row_uid`` and ``event``, from a frame its text columns too."""
    if store in REDACTED:
        return hourly.store.read_frame(connection, store, hour).project(
            f"row_uid, event, {', '.join(TEXT_COLUMNS)}"
        )
    return hourly.destination(store).read_back(connection, hour)


def _findings(store: str, scanner: Scanner, frame: Frame, sample: int | None) -> Findings:
    if sample is not None:
        frame = frame.order("md5(row_uid)").limit(sample)
    found = Counter[Leftover]()
    events = unreadable = 0
    for batch in frame.to_arrow_reader(BATCH_ROWS):
        for row in batch.to_pylist():
            events += 1
            try:
                found.update(scanner.event(row["event"]))
            except ValueError:
                unreadable += 1
            found.update(_in_columns(scanner, row))
    return Findings(store, events, _bounded(found), unreadable)


def _in_columns(scanner: Scanner, row: Mapping[str, str | None]) -> Iterator[Leftover]:
    """What stands in a column and not in the event: the event itself is looked at on its own."""
    for name in TEXT_COLUMNS:
        value = row.get(name)
        if value and json.dumps(value, ensure_ascii=False)[1:-1] not in (row["event"] or ""):
            for leftover in scanner.text(value, name):
                yield Leftover(leftover.type, f"column {name}")


def _bounded(found: Counter[Leftover]) -> dict[Leftover, int]:
    kept = heapq.nlargest(MOST_PATHS, found.items(), key=lambda item: (item[1], item[0]))
    bounded = Counter(dict(kept))
    for leftover, count in found.items() - dict(kept).items():
        bounded[Leftover(leftover.type, OTHER_PATHS)] += count
    return dict(bounded)
