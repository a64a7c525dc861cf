"""What another configuration would do to hours that have landed: both are tried, and nothing is changed.

Frames of a trial lie in a folder of its own, for its owner alone, and are gone with it. No destination is asked or told
anything: what it would get is counted before it.
"""

import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
"""Paths of a redacted type, and types of events, that are named."""

_PATHS = """unnest(from_json(
    json_extract(event, '$._redaction.fields'), '[{"field": "VARCHAR", "type": "VARCHAR"}]'))"""


@dataclass
class Side:
    """What one configuration makes of the hours.

    Attributes:
        kept: events that the sampled frame holds.
        dropped: reason → events.
        redacted: type → values.
        paths: type → path → values, of the redacted ones.
        destinations: name → rows and bytes.
    """

    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    redacted: Counter[str] = field(default_factory=Counter)
    paths: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    destinations: dict[str, Size] = field(default_factory=dict)

    def examples(self, type_: str) -> list[str]:
        """The paths at which a type was redacted most often."""
        return [path for path, _ in self.paths[type_].most_common(EXAMPLES)]


@dataclass
class Diff:
    """Two configurations over the same hours.

    Attributes:
        hours: that have landed and were compared.
        absent: hours of the range in which nothing has landed.
        landed: events of the hours.
        now, then: what the present configuration and the other one make of them.
        changed: stages that would make other frames.
        newly_dropped, newly_kept: events that one keeps and the other does not, by ``event_type``.
    """

    hours: list[Hour] = field(default_factory=list)
    absent: int = 0
    landed: int = 0
    changed: list[Stage] = field(default_factory=list)
    now: Side = field(default_factory=Side)
    then: Side = field(default_factory=Side)
    newly_dropped: Counter[str] = field(default_factory=Counter)
    newly_kept: Counter[str] = field(default_factory=Counter)


def diff(hourly: HourlyPipeline, other: PipelineConfig, hours: Iterable[Hour]) -> Diff:
    """Compare the pipeline as it is with another configuration.

    Args:
        hourly: the pipeline. Its frames are used where they are what its configuration makes.
        other: what it is compared with. How files are read is not part of it: events stay as they have landed.
        hours: those in which nothing has landed are counted and left out.

    Raises:
        HourBusyError: another comparison of this pipeline is under way.
        ObsError: an hour cannot be built.
    """
    found = Diff(
        changed=[
            stage
            for stage in STAGES
            if hourly.config.version(stage, 0) != other.version(stage, 0)
        ]
    )
    landed = hourly.landed()
    with _scratch(hourly) as folder:
        for hour in hours:
            if hour.key not in landed.hours:
                found.absent += 1
                continue
            now, then = (
                HourlyPipeline(
                    config,
                    hourly.settings,
                    hourly.name,
                    scratch=make_private_dir(folder / side),
                )
                for side, config in (("now", hourly.config), ("then", other))
            )
            found.hours.append(hour)
            found.landed += landed.hour(hour).rows
            with connect(now.store.temp_dir) as connection:
                _add(found.now, now, hourly, hour, connection)
                _add(found.then, then, hourly, hour, connection)
                _add_fates(found, now, then, hour, connection)
            for trial in (now, then):
                shutil.rmtree(trial.store.root)
    return found


@contextmanager
def _scratch(hourly: HourlyPipeline) -> Iterator[Path]:
    """A folder for trials, cleared of what a killed one has left."""
    folder = make_private_dir(hourly.store.root / "trial")
    with (folder / "lock").open("w") as handle:
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
    real: HourlyPipeline,
    hour: Hour,
    connection: duckdb.DuckDBPyConnection,
) -> None:
    receipts = {stage: _receipt(trial, real, stage, hour) for stage in STAGES}
    side.kept += receipts["sampled_events"].kept
    for receipt in receipts.values():
        side.dropped.update(receipt.other)
    side.redacted.update(
        {
            type_: int(n)
            for type_, n in receipts["redacted_events"].details["redacted values"].items()
        }
    )
    for type_, path, n in _redacted_paths(
        trial.store.read_frame(connection, "redacted_events", hour)
    ):
        side.paths[type_][path] += n
    for name in trial.destination_names:
        config = trial.destination_config(name)
        rows, size = kind_of(config).size(config, trial.offer(connection, name, hour))
        before = side.destinations.get(name, (0, 0))
        side.destinations[name] = (before[0] + rows, before[1] + size)


def _receipt(trial: HourlyPipeline, real: HourlyPipeline, stage: Stage, hour: Hour) -> Receipt:
    """The receipt of a stage in a trial: a frame that is there and is what the trial would make needs no building."""
    try:
        there = real.store.find_receipt(stage, hour)
    except ReceiptError:
        there = None
    version = trial.config.version(stage, real.landed().hour(hour).generation)
    if there and there.version == version:
        for path, to in (
            (real.store.frame_path(stage, hour), trial.store.frame_path(stage, hour)),
            (real.store.receipt_path(stage, hour), trial.store.receipt_path(stage, hour)),
        ):
            make_private_dir(to.parent)
            os.link(path, to)
        return there
    return trial.build(stage, hour)


def _redacted_paths(frame: Frame) -> list[tuple[str, str, int]]:
    fields = frame.filter("len(redactions) > 0").project(f"{_PATHS} AS f")
    counted = fields.project("f.type AS type, f.field AS path").aggregate(
        "type, path, count(*) AS n"
    )
    return counted.order("n DESC, type, path").fetchall()


def _add_fates(
    found: Diff,
    now: HourlyPipeline,
    then: HourlyPipeline,
    hour: Hour,
    connection: duckdb.DuckDBPyConnection,
) -> None:
    kept = [
        trial.store.read_frame(connection, "sampled_events", hour).set_alias(name)
        for trial, name in ((now, "a"), (then, "b"))
    ]
    for one, other, counter in (
        (kept[0], kept[1], found.newly_dropped),
        (kept[1], kept[0], found.newly_kept),
    ):
        gone = one.join(other, "row_uid", how="anti")
        counter.update(count_by(gone, "coalesce(event_type, 'unknown')"))


def as_json(found: Diff) -> dict[str, object]:
    """For scripts."""
    sides = {"now": found.now, "with": found.then}
    return {
        "hours": [hour.key for hour in found.hours],
        "hours_without_events": found.absent,
        "landed": found.landed,
        **{name: _plain(side) for name, side in sides.items()},
        "newly_dropped": dict(found.newly_dropped.most_common()),
        "newly_kept": dict(found.newly_kept.most_common()),
        "stages_changed": found.changed,
    }


def _plain(side: Side) -> dict[str, object]:
    return {
        "kept": side.kept,
        "dropped": dict(side.dropped.most_common()),
        "redacted": {
            type_: {"values": n, "paths": side.examples(type_)}
            for type_, n in side.redacted.most_common()
        },
        "destinations": {
            name: {"rows": load[0], "bytes": load[1]}
            for name, load in side.destinations.items()
        },
    }


def as_markdown(found: Diff, name: str) -> str:
    """A table of all figures, then what is behind them.

    Args:
        found: the comparison.
        name: of the other configuration, as its column is called.
    """
    span = f"{found.hours[0]} to {found.hours[-1]}" if found.hours else "none"
    lines = [
        f"{len(found.hours):,} hours ({span}), {found.landed:,} events; {found.absent:,} hours had no events.",
        "",
        f"| | now | {name} | change |",
        "|:--|--:|--:|--:|",
        *(_row(title, *figures) for title, figures in _figures(found)),
        "",
        *_remarks(found),
    ]
    return "\n".join(lines)


def _figures(found: Diff) -> Iterator[tuple[str, tuple[int, int]]]:
    now, then = found.now, found.then
    yield "kept", (now.kept, then.kept)
    for reason in _in_order(now.dropped, then.dropped):
        yield f"dropped: {reason}", (now.dropped[reason], then.dropped[reason])
    for type_ in _in_order(now.redacted, then.redacted):
        yield f"redacted: {type_}", (now.redacted[type_], then.redacted[type_])
    for name in dict.fromkeys((*now.destinations, *then.destinations)):
        loads = now.destinations.get(name, (0, 0)), then.destinations.get(name, (0, 0))
        yield f"{name}: rows", (loads[0][0], loads[1][0])
        yield f"{name}: bytes", (loads[0][1], loads[1][1])


def _in_order(one: Mapping[str, int], other: Mapping[str, int]) -> list[str]:
    return sorted(
        {*one, *other}, key=lambda name: (-max(one.get(name, 0), other.get(name, 0)), name)
    )


def _row(title: str, now: int, then: int) -> str:
    change = (
        ""
        if now == then
        else f"{then - now:+,}" + (f" ({(then - now) / now:+.1%})" if now else "")
    )
    return f"| {title} | {now:,} | {then:,} | {change} |"


def _remarks(found: Diff) -> Iterator[str]:
    for title, counter in (
        ("Newly dropped", found.newly_dropped),
        ("Newly kept", found.newly_kept),
    ):
        if counter:
            types = ", ".join(f"{type_} {n:,}" for type_, n in counter.most_common(EXAMPLES))
            yield f"- {title}: {counter.total():,} events: {types}{' …' if len(counter) > EXAMPLES else ''}"
    for type_ in _in_order(found.now.redacted, found.then.redacted):
        if found.now.paths[type_] != found.then.paths[type_]:
            more = (
                found.then
                if found.then.redacted[type_] >= found.now.redacted[type_]
                else found.now
            )
            where = "redacted" if more is found.then else "no longer redacted everywhere"
            yield f"- {type_}, {where}: {', '.join(f'`{path}`' for path in more.examples(type_))}"
    if found.changed:
        yield f"- Stages that would make other frames: {', '.join(found.changed)}"
