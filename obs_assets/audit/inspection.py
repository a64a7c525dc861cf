"""Tries the pipeline on event files: lands them in a temporary folder and reports the result."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from obs_assets.errors import ConfigurationError
from obs_assets.events import ALIASES, TIME_FIELDS, Frame, count_by, with_columns
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.sources.files import Content, EventFile, list_files
from obs_assets.sources.json_text import decode_unique
from obs_assets.sources.landing import LandingReport, land
from obs_assets.sources.log import LandingLog
from obs_assets.sources.replay import open_rows
from obs_assets.sources.times import time_field, value_at
from obs_assets.sources.unpack import is_encoding
from obs_assets.storage.engine import connect
from obs_assets.transforms.filter import apply_filter
from obs_assets.transforms.redact import redact, redacted_by_type

SAMPLE = 50_000
"""Events of a file on which redaction and filter are tried."""

NAMED = 200
"""Events of a file whose fields with time, type and id are named, from its begin to its end at equal distances."""

_FIRST_BYTES = 64 << 10
"""Bytes of a file that are read to find the separators of its events."""

_FRAMINGS = ((b"\x1e{", "0x1E before each (RFC 7464)"), (b"}\0{", "NUL after each"))
"""Bytes between events, and the name of that framing."""


@dataclass(frozen=True)
class Inspection:
    """The result of the trial for a file.

    Attributes:
        file: path of the file, as the caller gave it.
        compression: compression by the first bytes of the file; ``none`` for a plain file.
        encoding: encoding of the text by its first bytes, such as ``utf-8``.
        framing: separation of the events, such as ``NUL after each``.
        formats: format → number of events; ``json`` for objects in no other format.
        events: number of events that would land.
        dead_letters: reason → number of records that could not be read; neighbours count once.
        dead_lines: reason → number of lines in these records.
        remarks: remark → number of events that would land with a change or an assumption.
        warnings: reason → number of files that are not read to their end.
        first: time of the earliest event.
        last: time of the latest event.
        time_from: field with the time → number of events, among at most `NAMED`;
            ``landed_at`` for events without such a field.
        type_from: field with the type → number of events, among at most `NAMED`; ``none``
            for events without a type.
        id_from: the same for the event's id, by which `obs search` finds an event as ``id:…``.
        levels: level → number of events; ``none`` for events without a level.
        redacted: type → number of values that redaction would hide in the first `SAMPLE` events.
        dropped: reason → number of these events that the filter would drop.
    """

    file: str
    compression: str = "none"
    encoding: str = "utf-8"
    framing: str = ""
    formats: Mapping[str, int] = field(default_factory=dict)
    events: int = 0
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    dead_lines: Mapping[str, int] = field(default_factory=dict)
    remarks: Mapping[str, int] = field(default_factory=dict)
    warnings: Mapping[str, int] = field(default_factory=dict)
    first: datetime | None = None
    last: datetime | None = None
    time_from: Mapping[str, int] = field(default_factory=dict)
    type_from: Mapping[str, int] = field(default_factory=dict)
    id_from: Mapping[str, int] = field(default_factory=dict)
    levels: Mapping[str, int] = field(default_factory=dict)
    redacted: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def share_dead(self) -> float:
        """Share of lines without an event among lines of dead letters and events, 0 to 1."""
        dead = sum(self.dead_lines.values())
        return dead / (dead + self.events) if dead else 0.0


def inspect_file(hourly: HourlyPipeline, path: Path) -> Inspection:
    """Read an event file as the pipeline would; nothing lands.

    Raises:
        ConfigurationError: the path is no file.
        ObsError: the trial failed, for example because the disk is full.
    """
    if not path.is_file():
        raise ConfigurationError(f"{path} is no file")
    with tempfile.TemporaryDirectory(prefix="obs-inspect-") as folder_name:
        folder = Path(folder_name)
        events_dir = folder / "events"
        events_dir.mkdir()
        # Files whose name begins with a dot are not read.
        _put(path, events_dir / path.name.lstrip("."))
        options = {
            "events_dir": events_dir,
            "include": ("*",),
            "exclude": (),
            "event_types": ("all",),
        }
        source = hourly.source.model_copy(update=options)
        log = LandingLog(folder / "landed")
        report = land(source, log, first_hour=hourly.config.first_hour)
        (file,) = list_files(source).files
        found = _of_report(Inspection(str(path), dead_lines=_dead_lines(log)), file, report)
        with connect(folder / "spill") as connection:
            return _of_events(found, connection, hourly, log)


def _put(path: Path, target: Path) -> None:
    try:
        os.link(path.resolve(), target)
    except OSError:  # the file is on another file system, or of another owner
        shutil.copyfile(path, target)


def _dead_lines(log: LandingLog) -> dict[str, int]:
    """Reason → number of lines with text in dead letters."""
    lines: Counter[str] = Counter()
    for _, row in open_rows(log, ["file_id", "file_offset", "reason", "raw"]):
        lines[row["reason"]] += sum(bool(line.strip()) for line in row["raw"].splitlines()) or 1
    return dict(lines.most_common())


def _of_report(
    found: Inspection,
    file: EventFile,
    report: LandingReport,
) -> Inspection:
    events = sum(report.hours.values())
    # Landing counts each format but plain JSON among its remarks, as `format_NAME`.
    formats: dict[str, int] = {}
    remarks: dict[str, int] = {}
    for name, count in report.remarks.items():
        if name.startswith("format_") and name != "format_ambiguous":
            formats[name.removeprefix("format_")] = count
        else:
            remarks[name] = count
    others = events - sum(formats.values())
    if others > 0:
        formats["json"] = others
    compressions = [kind for kind in file.packing if not is_encoding(kind)]
    # A file in two compressions is `gzip in zstd`: the inner compression first.
    compressions.reverse()
    return replace(
        found,
        compression=" in ".join(compressions) or "none",
        encoding=next(filter(is_encoding, file.packing), "utf-8"),
        framing=_framing(file),
        formats=formats,
        events=events,
        dead_letters=report.dead_letters,
        remarks=remarks,
        warnings=report.warnings,
    )


def _framing(file: EventFile) -> str:
    with Content(file) as content:
        data = content.read(_FIRST_BYTES)
    for sign, framing in _FRAMINGS:
        if sign in data:
            return framing
    if data.lstrip(b" \t\r\n\xef\xbb\xbf").startswith(b"["):
        return "a list"
    lines = [line for line in data.splitlines() if line.strip()]
    # The last line can be cut by the limit of bytes.
    whole_lines = lines[:-1]
    is_line_each = all(line.rstrip().endswith(b"}") for line in whole_lines)
    return "one a line" if is_line_each else "over many lines, or text"


def _of_events(
    found: Inspection,
    connection: duckdb.DuckDBPyConnection,
    hourly: HourlyPipeline,
    log: LandingLog,
) -> Inspection:
    chunks: list[str] = []
    for hour in log.load().hours.values():
        chunks += map(str, log.chunk_paths(hour))
    if not chunks:
        return found
    landed = connection.read_parquet(chunks)
    first, last = landed.aggregate("min(event_time), max(event_time)").fetchall()[0]
    event = "row_uid, event_time, file_id, file_offset, landed_at, line AS event"
    lines = landed.project(event)
    frame = with_columns(lines)
    # The limit stands below the columns: above them it takes a gigabyte, however few the events are.
    redacted_values, dropped = _judged(connection, with_columns(lines.limit(SAMPLE)), hourly)
    numbered = landed.project("line, row_number() OVER () AS number")
    # A file can hold events of several programs, one behind the other.
    distance = max(1, found.events // NAMED)
    named = numbered.filter(f"number % {distance} = 0").limit(NAMED)
    events = [decode_unique(line) for (line,) in named.project("line").fetchall()]
    return replace(
        found,
        first=first.astimezone(UTC),
        last=last.astimezone(UTC),
        time_from=_time_fields(events, hourly.source.time_path),
        type_from=_fields(events, "event_type"),
        id_from=_fields(events, "event_id"),
        levels=count_by(frame, "coalesce(event_level, 'none')"),
        redacted=redacted_values,
        dropped=dropped,
    )


def _judged(
    connection: duckdb.DuckDBPyConnection, frame: Frame, hourly: HourlyPipeline
) -> tuple[dict[str, int], dict[str, int]]:
    """Type → number of values that redaction would hide, and reason → number of events that the filter would drop."""
    key = hourly.settings.hash_key
    secret = None
    if key:
        secret = key.get_secret_value().encode()
    redacted = redact(connection, frame, hourly.config.redact, secret)
    events = redacted.project("* EXCLUDE (redactions)")
    judged = apply_filter(connection, events, hourly.config.filter)
    # A constant instead of a column: all events count as one group.
    values_by_type = redacted_by_type(redacted, "''").get("", {})
    return values_by_type, count_by(judged, "dropped_by")


def _time_fields(events: list[dict[str, Any]], time_path: str | None) -> dict[str, int]:
    """Field with the time → number of events."""
    paths = [time_path, *TIME_FIELDS] if time_path else TIME_FIELDS
    counts: Counter[str] = Counter()
    for event in events:
        present = (path for path in paths if value_at(event, path) is not None)
        counts[next(present, "") or time_field(event) or "landed_at"] += 1
    return dict(counts.most_common())


def _fields(events: list[dict[str, Any]], column: str) -> dict[str, int]:
    """Field that fills a column → number of events. Its values may be personal data: they are not shown."""
    counts: Counter[str] = Counter()
    for event in events:
        present = (
            alias
            for alias in ALIASES[column]
            if event.get(alias) is not None or value_at(event, alias) is not None
        )
        counts[next(present, "none")] += 1
    return dict(counts.most_common())
