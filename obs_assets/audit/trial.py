"""Sends given events through a pipeline's own code, in a temporary folder, and reports their outcomes.

The files are landed as a landing pass lands them; the stages, the filters of destinations and the
alert rules are the functions of a run. No server is started, and nothing is sent.

A trial gives the same result on every machine: ids of files come from the name of the trial, the
landing host and the hash key are fixed. An event without a time gets `Given.now`.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import duckdb

from obs_assets.alerts import AlertRule
from obs_assets.alerts.backtest import Simulation
from obs_assets.delivery.kinds import asset_name, kind_of
from obs_assets.destinations.base import DestinationConfig
from obs_assets.events import PROMOTED, Frame, quote
from obs_assets.hourly.deliver import offered
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets.hourly.stages import Stages
from obs_assets.hours import Hour, parse_hours
from obs_assets.sources.landing import Origin, land
from obs_assets.sources.log import LandingLog
from obs_assets.sources.replay import open_rows
from obs_assets.storage.engine import computing, connect
from obs_assets.storage.frames import Store

if TYPE_CHECKING:
    from obs_assets.destinations.webhook import WebhookConfig

KEPT = "kept"
"""Outcome of an event that passes filter and sample."""

HASH_KEY = b"obs test"
"""Key of the tokens of ``redact: {mode: hash}`` in a trial."""

COLLECTOR: Mapping[str, Any] = {
    "hostname": "test",
    "platform": "linux",
    "arch": "x86_64",
    "process_id": 1,
    "python_version": "3",
}
"""Host and process that land the events of a trial."""


@dataclass(frozen=True)
class Given:
    """The input of a trial.

    Attributes:
        name: name of the trial; the names of trials that run together differ.
        content: bytes of an event file, or the path of a file.
        now: time of landing; None for the clock.
        hours: hours over which alert rules are judged, as ``A...B``; None for the hours with events.
        judges_alerts: judge the alert rules, which takes longer.
    """

    name: str
    content: bytes | Path
    now: datetime | None = None
    hours: str | None = None
    judges_alerts: bool = False

    @property
    def path(self) -> str:
        """Path of its file below the events folder of the trials."""
        file = "events.jsonl"
        if isinstance(self.content, Path):
            # Files whose name begins with a dot are not read.
            file = self.content.name.lstrip(".")
        return f"{_digest(self.name)[:8]}/{file}"

    @property
    def file_id(self) -> str:
        """Id of its file in every frame."""
        return _digest(self.path)


@dataclass
class Record:
    """A record of the input after the pipeline: an event or a dead letter.

    Attributes:
        outcome: `KEPT`, the reason for which a stage dropped the event, or the reason of the dead
            letter.
        event: the event after its last stage; None for a dead letter. It is redacted.
        columns: its promoted columns with a value.
        weight: number of events that a kept event stands for.
        destinations: asset names of the destinations that take it.
    """

    outcome: str
    event: dict[str, Any] | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    weight: float | None = None
    destinations: list[str] = field(default_factory=list)


@dataclass
class Result:
    """The outcome of a trial.

    Attributes:
        records: events and dead letters, in the order of the input.
        alerts: messages that alert rules would send: destination, rule, status, hour, summary and
            number of alerts.
        forwarded: rule → number of events that it would forward.
    """

    records: list[Record] = field(default_factory=list)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    forwarded: dict[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Outcome → number of records."""
        return dict(Counter(record.outcome for record in self.records))


def run(config: PipelineConfig, trials: Sequence[Given]) -> dict[str, Result]:
    """Send the events of each trial through the pipeline.

    All trials share the queries of the stages, which look at each event alone.

    Args:
        config: the pipeline.
        trials: inputs with different names.

    Returns:
        name of a trial → its result.

    Raises:
        ObsError: a file cannot be read, or a stage fails.
    """
    with tempfile.TemporaryDirectory(prefix="obs-test-") as name:
        folder = Path(name)
        logs = list(_landed(config, trials, folder))
        with connect(folder / "spill") as connection, computing("the trial", connection):
            return _Trials(config, trials, logs, folder, connection).results()


# -- landing ---------------------------------------------------------------------------------------


def _landed(
    config: PipelineConfig, trials: Sequence[Given], folder: Path
) -> Iterator[LandingLog]:
    """The landing logs of the trials: a log for each landing time, and for each given file."""
    groups: dict[object, list[Given]] = {}
    for given in trials:
        key: object = given.now
        if isinstance(given.content, Path):
            # Two trials can read the same file, and a pass lands a copy of a file only once.
            key = given.name
        # A landing pass has a single time, so that trials with the same time can share a pass.
        groups.setdefault(key, []).append(given)
    for number, group in enumerate(groups.values()):
        events_dir = folder / f"events-{number}"
        for place, given in enumerate(group):
            _put(given, place, events_dir / given.path)
        source = config.source.model_copy(
            update={
                "events_dir": events_dir,
                "include": ("*",),
                "exclude": (),
                "event_types": ("all",),
            }
        )
        # A log for each group: its passes have times of their own.
        log = LandingLog(folder / f"landed-{number}")
        origin = Origin(_digest, COLLECTOR)
        land(source, log, first_hour=config.first_hour, now=group[0].now, origin=origin)
        yield log


def _put(given: Given, place: int, path: Path) -> None:
    path.parent.mkdir(parents=True)
    if isinstance(given.content, Path):
        shutil.copyfile(given.content, path)
    else:
        # Empty lines make the files of a pass differ, even if the events of two trials are equal.
        path.write_bytes(b"\n" * place + given.content.lstrip(b"\n"))
    # A file that has not changed for long is finished: its last line does not wait for a rest.
    os.utime(path, (0, 0))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# -- stages ----------------------------------------------------------------------------------------


@dataclass
class _Trials:
    config: PipelineConfig
    trials: Sequence[Given]
    logs: Sequence[LandingLog]
    folder: Path
    connection: duckdb.DuckDBPyConnection

    def results(self) -> dict[str, Result]:
        """Name of a trial → its result."""
        judged = self._held("redacted", self._redacted())
        # Held once: two more frames and every destination read it.
        passed = judged.filter("dropped_by IS NULL").project("* EXCLUDE (dropped_by)")
        redacted = self._held("passed", passed)
        sampled = self._held("sampled", self._sampled(redacted))
        kept = sampled.filter("dropped_by IS NULL").project("* EXCLUDE (dropped_by)")
        records = self._dead_letters()
        # Each frame replaces the records of the frame before, under the same place in the input.
        records |= _records(judged.project("*, NULL::DOUBLE AS weight"))
        for place, record in _records(sampled).items():
            if record.outcome != KEPT:
                # A dropped event carries marks of the sampler that no destination gets.
                record.event = records[place].event
            records[place] = record
        results = {given.name: Result() for given in self.trials}
        frames = {"redacted": redacted, "sampled": kept}
        for block in self.config.enabled_destinations:
            self._offer(block, frames[block.from_], records, results)
        # The file tells the trials apart in frames that they share.
        names = {given.file_id: given.name for given in self.trials}
        # The offset in the file is the order of the input.
        for (file_id, _), record in sorted(records.items()):
            results[names[file_id]].records.append(record)
        return results

    def _redacted(self) -> Frame:
        chunks: list[str] = []
        for log in self.logs:
            for hour in log.load().hours.values():
                chunks += map(str, log.chunk_paths(hour))
        stages = self._stages
        raw = stages.raw(self.connection, chunks)
        enriched = stages.after(self.connection, "enriched_events", raw)
        return stages.after(self.connection, "redacted_events", enriched)

    def _sampled(self, redacted: Frame) -> Frame:
        """The events with ``dropped_by`` of filter and sample."""
        if self._stages.takes_many("sampled_events"):
            return self._stages.after(self.connection, "sampled_events", redacted)
        # The sampler compares the events of an hour: those of other trials must not count.
        parts = redacted.project("file_id, date_trunc('hour', event_time) AS hour").distinct()
        frames: list[Frame] = []
        for number, (file_id, hour) in enumerate(parts.order("ALL").fetchall()):
            condition = f"file_id = {quote(file_id)} AND {_within(Hour(hour))}"
            part = redacted.filter(condition)
            frame = self._stages.after(self.connection, "sampled_events", part)
            frames.append(self._held(f"part_{number}", frame))
        if not frames:
            return self._stages.after(self.connection, "sampled_events", redacted)
        whole = frames[0]
        for frame in frames[1:]:
            whole = whole.union(frame)
        return whole

    @property
    def _stages(self) -> Stages:
        # Store and log are those of hours; a trial writes none.
        return Stages(self.config, Store(self.folder), self.logs[0], HASH_KEY)

    def _held(self, name: str, frame: Frame) -> Frame:
        """The frame, computed now."""
        self.connection.execute(f"CREATE TEMP TABLE {name} AS {frame.sql_query()}")
        return self.connection.table(name)

    def _dead_letters(self) -> dict[tuple[str, int], Record]:
        found = {}
        for log in self.logs:
            for _, row in open_rows(log, ["file_id", "file_offset", "reason"]):
                found[row["file_id"], row["file_offset"]] = Record(row["reason"])
        return found

    # -- destinations ------------------------------------------------------------------------------

    def _offer(
        self,
        block: DestinationConfig,
        frame: Frame,
        records: Mapping[tuple[str, int], Record],
        results: Mapping[str, Result],
    ) -> None:
        """Note which records a destination takes, and the alerts that it would send."""
        # The second frame is there only for a destination that itself drops events.
        taken, judged = offered(self.connection, block, frame)
        if judged is not None:
            taken = judged.filter("dropped_by IS NULL").project("* EXCLUDE (dropped_by)")
        name = asset_name(block)
        for place in taken.project("file_id, file_offset").fetchall():
            records[place].destinations.append(name)
        if not kind_of(block).alerts:
            return
        for given in self.trials:
            if given.judges_alerts:
                mine = taken.filter(f"file_id = {quote(given.file_id)}")
                self._alert(cast("WebhookConfig", block), given, mine, results[given.name])

    def _alert(
        self,
        block: "WebhookConfig",
        given: Given,
        frame: Frame,
        result: Result,
    ) -> None:
        each = block.receiver == "pagerduty"
        rules: Sequence[AlertRule] = block.rules
        simulation = Simulation(rules, block.batch_size, each)
        for hour in _hours(given, frame):
            simulation.take(hour, frame.filter(_within(hour)))
        name = asset_name(block)
        for outcome in simulation.outcomes(name):
            if outcome.forwarded:
                before = result.forwarded.get(outcome.rule, 0)
                result.forwarded[outcome.rule] = before + outcome.forwarded
            for dispatch in outcome.dispatches:
                alert = {
                    "destination": name,
                    "rule": outcome.rule,
                    "status": dispatch.status,
                    "hour": dispatch.hour.key,
                    "summary": dispatch.summary,
                    "alerts": dispatch.alerts,
                }
                result.alerts.append(alert)


def _hours(given: Given, frame: Frame) -> list[Hour]:
    if given.hours:
        return parse_hours(given.hours)
    starts = frame.project("date_trunc('hour', event_time) AS hour").distinct().order("hour")
    return [Hour(start) for (start,) in starts.fetchall()]


def _records(frame: Frame) -> dict[tuple[str, int], Record]:
    """File id and offset → the record, of a frame with ``dropped_by`` and ``weight``."""
    columns = ", ".join(("file_id", "file_offset", "dropped_by", "weight", "event", *PROMOTED))
    found = {}
    for file_id, offset, dropped_by, weight, event, *values in frame.project(
        columns
    ).fetchall():
        promoted = {}
        for name, value in zip(PROMOTED, values, strict=True):
            if value is not None:
                promoted[name] = value
        if "cost_usd" in promoted:
            promoted["cost_usd"] = float(promoted["cost_usd"])
        record = Record(dropped_by or KEPT, json.loads(event), promoted)
        if dropped_by is None:
            record.weight = weight
        found[file_id, offset] = record
    return found


def _within(hour: Hour) -> str:
    start, end = hour.start.isoformat(), hour.end.isoformat()
    return f"event_time >= '{start}' AND event_time < '{end}'"
