"""Compares the present configuration with another over landed hours; nothing is changed.

The frames of both trials are in a private folder, which is removed at the end. No destination is
called: its rows and bytes are counted before delivery.
"""

import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

import duckdb

from obs_assets.delivery.kinds import Size, kind_of
from obs_assets.errors import HourBusyError, ReceiptError
from obs_assets.events import Frame, count_by
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets.hourly.stage_rows import STAGES, Stage
from obs_assets.hours import Hour
from obs_assets.receipts import Receipt
from obs_assets.storage.disk import make_private_dir
from obs_assets.storage.engine import connect

EXAMPLES = 5
"""Paths of a redacted type, and types of events, that are named at most."""

_PATHS = """unnest(from_json(
    json_extract(event, '$._redaction.fields'), '[{"field": "VARCHAR", "type": "VARCHAR"}]'))"""
"""SQL: the redacted fields of an event, a row each, as ``{field: path, type: type}``."""


@dataclass
class Side:
    """The results of one configuration over all hours.

    Attributes:
        kept: number of events in the sampled frames.
        dropped: reason → number of dropped events.
        redacted: type → number of redacted values.
        paths: type → path → number of redacted values.
        destinations: asset name → number of rows and bytes.
    """

    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    redacted: Counter[str] = field(default_factory=Counter)
    paths: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    destinations: dict[str, Size] = field(default_factory=dict)

    def examples(self, type_: str) -> list[str]:
        """The paths at which a type was redacted most often, at most `EXAMPLES`."""
        return [path for path, _ in self.paths[type_].most_common(EXAMPLES)]


@dataclass
class Diff:
    """Two configurations over the same hours.

    Attributes:
        hours: the landed hours that were compared.
        absent: number of hours of the range without landed events.
        landed: number of landed events in the hours.
        changed: stages whose frames would change.
        older: stages of which a compared frame was built by an older version of the code.
        now: results of the present configuration.
        then: results of the other configuration.
        newly_dropped: ``event_type`` → number of events that only the present configuration keeps.
        newly_kept: ``event_type`` → number of events that only the other configuration keeps.
    """

    hours: list[Hour] = field(default_factory=list)
    absent: int = 0
    landed: int = 0
    changed: list[Stage] = field(default_factory=list)
    older: list[Stage] = field(default_factory=list)
    now: Side = field(default_factory=Side)
    then: Side = field(default_factory=Side)
    newly_dropped: Counter[str] = field(default_factory=Counter)
    newly_kept: Counter[str] = field(default_factory=Counter)


def diff(
    hourly: HourlyPipeline,
    other: PipelineConfig,
    hours: Iterable[Hour],
) -> Diff:
    """Compare the pipeline as it is with another configuration.

    Frames that an older version of the code has built count for the pipeline as it is, and are built again for the
    other configuration. So a comparison with the same file shows the effect of an upgrade of the package.

    Args:
        hourly: the pipeline. Its present frames are used if their events and their configuration are up to date.
        other: the other configuration. Its source block has no effect: events are not landed again.
        hours: the range to compare; hours without landed events are counted and left out.

    Raises:
        HourBusyError: another comparison of this pipeline is under way.
        ObsError: an hour cannot be built.
    """
    changed: list[Stage] = [
        stage for stage in STAGES if hourly.config.version(stage) != other.version(stage)
    ]
    found = Diff(changed=changed)
    landed = hourly.landed()
    with _scratch(hourly) as folder:
        # Hour by hour, so that the disk holds the frames of one hour, however long the range is.
        for hour in hours:
            if hour.key not in landed.hours:
                found.absent += 1
                continue
            now = _trial(hourly, hourly.config, folder / "now")
            then = _trial(hourly, other, folder / "then")
            found.hours.append(hour)
            found.landed += landed.hour(hour).rows
            before = _receipts(now, hourly, hour, any_code=True)
            after = _receipts(then, hourly, hour, any_code=False)
            found.older = [
                stage
                for stage in STAGES
                if stage in found.older or _is_of_older_code(stage, before[stage], hourly, hour)
            ]
            with connect(now.store.temp_dir) as connection:
                _add(found.now, now, before, hour, connection)
                _add(found.then, then, after, hour, connection)
                _add_changed_events(found, now, then, hour, connection)
            shutil.rmtree(now.store.root)
            shutil.rmtree(then.store.root)
    return found


def _trial(
    hourly: HourlyPipeline,
    config: PipelineConfig,
    folder: Path,
) -> HourlyPipeline:
    """The pipeline with another configuration, whose frames are in a folder of the trial."""
    scratch = make_private_dir(folder)
    return HourlyPipeline(config, hourly.settings, hourly.name, scratch=scratch)


@contextmanager
def _scratch(hourly: HourlyPipeline) -> Iterator[Path]:
    """A folder for trials; files of a killed trial are removed first."""
    folder = make_private_dir(hourly.store.root / "trial")
    with (folder / "lock").open("w") as handle:
        # Both trials use fixed names: two comparisons at a time would mix their frames.
        try:
            flock(handle, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise HourBusyError(
                "another comparison is under way: let it finish, then try again"
            ) from None
        for left in ("now", "then"):
            shutil.rmtree(folder / left, ignore_errors=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _add(
    side: Side,
    trial: HourlyPipeline,
    receipts: dict[Stage, Receipt],
    hour: Hour,
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """Add the results of an hour to a side of the comparison."""
    # The frame of the last stage is what an unfiltered destination gets.
    side.kept += receipts["sampled_events"].kept
    for receipt in receipts.values():
        side.dropped.update(receipt.other)
    values_by_type = receipts["redacted_events"].details["redacted values"]
    for type_, number in values_by_type.items():
        side.redacted[type_] += int(number)
    frame = trial.store.read_frame(connection, "redacted_events", hour)
    for type_, path, number in _redacted_paths(frame):
        side.paths[type_][path] += number
    for name in trial.destination_names:
        config = trial.destination_config(name)
        offer = trial.offer(connection, name, hour)
        rows, size = kind_of(config).size(config, offer)
        rows_before, size_before = side.destinations.get(name, (0, 0))
        side.destinations[name] = (
            rows_before + rows,
            size_before + size,
        )


def _receipts(
    trial: HourlyPipeline, real: HourlyPipeline, hour: Hour, *, any_code: bool
) -> dict[Stage, Receipt]:
    """The receipts of all stages in a trial, see `_receipt`."""
    return {stage: _receipt(trial, real, stage, hour, any_code=any_code) for stage in STAGES}


def _is_of_older_code(stage: Stage, receipt: Receipt, real: HourlyPipeline, hour: Hour) -> bool:
    """Whether the frame of a receipt was built by another version of the code than that which runs."""
    version = real.config.version(stage, real.landed().version(hour))
    return receipt.version.code_version != version.code_version


def _receipt(
    trial: HourlyPipeline,
    real: HourlyPipeline,
    stage: Stage,
    hour: Hour,
    *,
    any_code: bool,
) -> Receipt:
    """The receipt of a stage in a trial.

    If the pipeline's frame has the version that the trial would build, it is linked, not built again. With
    ``any_code``, also a frame that another version of the code has built is linked.
    """
    try:
        present = real.store.find_receipt(stage, hour)
    except ReceiptError:
        # A damaged receipt says nothing about its frame: the trial builds the stage itself.
        present = None
    version = trial.config.version(stage, real.landed().version(hour))
    if present is None:
        return trial.build(stage, hour)
    wanted = (
        replace(version, code_version=present.version.code_version) if any_code else version
    )
    if present.version != wanted:
        return trial.build(stage, hour)
    # A hard link takes no space, and removing the trial's folder leaves the pipeline's file.
    frame = real.store.frame_path(stage, hour)
    _link(frame, trial.store.frame_path(stage, hour))
    stored_receipt = real.store.receipt_path(stage, hour)
    _link(stored_receipt, trial.store.receipt_path(stage, hour))
    return present


def _link(path: Path, link: Path) -> None:
    make_private_dir(link.parent)
    os.link(path, link)


def _redacted_paths(frame: Frame) -> list[tuple[str, str, int]]:
    """Type, path and number of the redacted values of a frame, most values first."""
    # Parsing JSON is the costly part, and most events have no redacted value.
    redacted = frame.filter("len(redactions) > 0")
    fields = redacted.project(f"{_PATHS} AS f").project("f.type AS type, f.field AS path")
    counted = fields.aggregate("type, path, count(*) AS n")
    return counted.order("n DESC, type, path").fetchall()


def _add_changed_events(
    found: Diff,
    now: HourlyPipeline,
    then: HourlyPipeline,
    hour: Hour,
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """Count the events of an hour that only one of the configurations keeps."""
    kept_now = now.store.read_frame(
        connection,
        "sampled_events",
        hour,
    ).set_alias("a")
    kept_then = then.store.read_frame(
        connection,
        "sampled_events",
        hour,
    ).set_alias("b")
    only_now = kept_now.join(kept_then, "row_uid", how="anti")
    only_then = kept_then.join(kept_now, "row_uid", how="anti")
    event_type = "coalesce(event_type, 'unknown')"
    found.newly_dropped.update(count_by(only_now, event_type))
    found.newly_kept.update(count_by(only_then, event_type))


def as_json(found: Diff) -> dict[str, object]:
    """The comparison as values for a JSON document."""
    return {
        "hours": [hour.key for hour in found.hours],
        "hours_without_events": found.absent,
        "landed": found.landed,
        "now": _plain(found.now),
        "with": _plain(found.then),
        "newly_dropped": dict(found.newly_dropped.most_common()),
        "newly_kept": dict(found.newly_kept.most_common()),
        "stages_changed": found.changed,
        "stages_of_older_code": found.older,
    }


def _plain(side: Side) -> dict[str, object]:
    redacted = {}
    for type_, number in side.redacted.most_common():
        redacted[type_] = {"values": number, "paths": side.examples(type_)}
    destinations = {}
    for name, (rows, size) in side.destinations.items():
        destinations[name] = {"rows": rows, "bytes": size}
    return {
        "kept": side.kept,
        "dropped": dict(side.dropped.most_common()),
        "redacted": redacted,
        "destinations": destinations,
    }


def as_markdown(found: Diff, name: str) -> str:
    """The comparison in Markdown: a table of all figures, then remarks with examples.

    Args:
        found: the comparison.
        name: name of the other configuration, the title of its column.
    """
    span = "none"
    if found.hours:
        span = f"{found.hours[0]} to {found.hours[-1]}"
    lines = [
        f"{len(found.hours):,} hours ({span}), {found.landed:,} events; "
        f"{found.absent:,} hours had no events.",
        "",
        f"| | now | {name} | change |",
        "|:--|--:|--:|--:|",
        *(_row(title, *figures) for title, figures in _figures(found)),
        "",
        *_remarks(found),
    ]
    return "\n".join(lines)


def _figures(found: Diff) -> Iterator[tuple[str, tuple[int, int]]]:
    now = found.now
    then = found.then
    yield "kept", (now.kept, then.kept)
    for reason in _in_order(now.dropped, then.dropped):
        yield f"dropped: {reason}", (now.dropped[reason], then.dropped[reason])
    for type_ in _in_order(now.redacted, then.redacted):
        yield f"redacted: {type_}", (now.redacted[type_], then.redacted[type_])
    for name in dict.fromkeys((*now.destinations, *then.destinations)):
        rows_now, size_now = now.destinations.get(name, (0, 0))
        rows_then, size_then = then.destinations.get(name, (0, 0))
        yield f"{name}: rows", (rows_now, rows_then)
        yield f"{name}: bytes", (size_now, size_then)


def _in_order(now: Mapping[str, int], then: Mapping[str, int]) -> list[str]:
    """The names of both sides; the largest number of either side first."""

    def largest_first(name: str) -> tuple[int, str]:
        largest = max(
            now.get(name, 0),
            then.get(name, 0),
        )
        return -largest, name

    return sorted({*now, *then}, key=largest_first)


def _row(
    title: str,
    now: int,
    then: int,
) -> str:
    change = ""
    if now != then:
        change = f"{then - now:+,}"
    if now and now != then:
        change += f" ({(then - now) / now:+.1%})"
    return f"| {title} | {now:,} | {then:,} | {change} |"


def _remarks(found: Diff) -> Iterator[str]:
    if found.newly_dropped:
        yield f"- Newly dropped: {_by_event_type(found.newly_dropped)}"
    if found.newly_kept:
        yield f"- Newly kept: {_by_event_type(found.newly_kept)}"
    now, then = found.now, found.then
    for type_ in _in_order(now.redacted, then.redacted):
        # The same number of values can stand at other paths.
        if now.paths[type_] == then.paths[type_]:
            continue
        side, change = then, "redacted"
        if then.redacted[type_] < now.redacted[type_]:
            side, change = now, "no longer redacted everywhere"
        paths = ", ".join(f"`{path}`" for path in side.examples(type_))
        yield f"- {type_}, {change}: {paths}"
    if found.changed:
        yield f"- Stages that would make other frames: {', '.join(found.changed)}"
    if found.older:
        yield (
            "- Built by another version of the package, and shown in the column `now` as they are: "
            f"{', '.join(found.older)}"
        )


def _by_event_type(counter: Counter[str]) -> str:
    """For example ``12 events: task.completed 9, api.request 3``."""
    most = counter.most_common(EXAMPLES)
    types = ", ".join(f"{type_} {number:,}" for type_, number in most)
    more = " …" if len(counter) > EXAMPLES else ""
    return f"{counter.total():,} events: {types}{more}"
