"""What the pipeline would make of event files: read as landing reads them, into a folder that is removed again."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from obs_assets.errors import ConfigurationError
from obs_assets.events import TIME_FIELDS, Frame, count_by, with_columns
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.sources.files import Content, EventFile, list_files
from obs_assets.sources.json_text import decode_unique
from obs_assets.sources.landing import LandingReport, land
from obs_assets.sources.log import LandingLog
from obs_assets.sources.times import value_at
from obs_assets.sources.unpack import is_encoding
from obs_assets.storage.engine import connect
from obs_assets.transforms.filter import judge
from obs_assets.transforms.redact import redact, redacted_by_type

SAMPLE = 50_000
"""Events of a file that redaction and filter are tried on."""

_LOOKED_AT = 200  # events of a file, to name the fields of their times
_FIRST_BYTES = 64 << 10

_FRAMINGS = ((b"\x1e{", "0x1E before each (RFC 7464)"), (b"}\0{", "NUL after each"))


@dataclass(frozen=True)
class Inspection:
    """What was found in a file.

    Attributes:
        file: its path as it was given.
        compression, encoding: by its first bytes; ``none`` and ``utf-8`` where it is plain.
        framing: how one event is told from the next.
        formats: format → events; ``json``: objects in no other format.
        events: that would land.
        dead_letters: reason → count.
        remarks: events landed with something changed or assumed: remark → count.
        warnings: why the file, or its rest, is not read.
        first, last: moment of the earliest and of the latest event.
        time_from: field that holds the time → events of the first ones; ``landed_at``: none does.
        levels: level → events; ``none`` for events without.
        redacted: type → values that redaction would hide in the first `SAMPLE` events.
        dropped: reason → events of those that the filter would drop.
    """

    file: str
    compression: str = "none"
    encoding: str = "utf-8"
    framing: str = ""
    formats: Mapping[str, int] = field(default_factory=dict)
    events: int = 0
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    remarks: Mapping[str, int] = field(default_factory=dict)
    warnings: Mapping[str, int] = field(default_factory=dict)
    first: datetime | None = None
    last: datetime | None = None
    time_from: Mapping[str, int] = field(default_factory=dict)
    levels: Mapping[str, int] = field(default_factory=dict)
    redacted: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def share_dead(self) -> float:
        """Dead letters among all that was read, 0 to 1."""
        dead = sum(self.dead_letters.values())
        return dead / (dead + self.events) if dead else 0.0


def inspect_file(hourly: HourlyPipeline, path: Path) -> Inspection:
    """Read an event file as the pipeline would; nothing lands.

    Raises:
        ConfigurationError: there is no such file.
        ObsError: it cannot be read, for example because the disk is full.
    """
    if not path.is_file():
        raise ConfigurationError(f"{path} is no file")
    with tempfile.TemporaryDirectory(prefix="obs-inspect-") as folder:
        place = Path(folder)
        (place / "events").mkdir()
        _put(path, place / "events" / path.name.lstrip("."))
        options = {"events_dir": place / "events", "include": ("*",), "exclude": ()}
        source = hourly.source.model_copy(update={**options, "event_types": ("all",)})
        log = LandingLog(place / "landed")
        report = land(source, log, first_hour=hourly.config.first_hour)
        (file,) = list_files(source).files
        found = _of_report(Inspection(str(path)), file, report)
        with connect(place / "spill") as connection:
            return _of_events(found, connection, hourly, log)


def _put(path: Path, target: Path) -> None:
    try:
        os.link(path.resolve(), target)
    except OSError:  # on another file system, or not ours
        shutil.copyfile(path, target)


def _of_report(found: Inspection, file: EventFile, report: LandingReport) -> Inspection:
    events = sum(report.hours.values())
    formats = {
        name.removeprefix("format_"): count
        for name, count in report.remarks.items()
        if name.startswith("format_") and name != "format_ambiguous"
    }
    others = events - sum(formats.values())
    compressions = [kind for kind in file.packing if not is_encoding(kind)]
    return replace(
        found,
        compression=" in ".join(reversed(compressions)) or "none",
        encoding=next(filter(is_encoding, file.packing), "utf-8"),
        framing=_framing(file),
        formats={**formats, **({"json": others} if others > 0 else {})},
        events=events,
        dead_letters=report.dead_letters,
        remarks={
            name: count
            for name, count in report.remarks.items()
            if name.removeprefix("format_") not in formats
        },
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
    is_one_a_line = all(line.rstrip().endswith(b"}") for line in lines[:-1])
    return "one a line" if is_one_a_line else "over many lines, or text"


def _of_events(
    found: Inspection,
    connection: duckdb.DuckDBPyConnection,
    hourly: HourlyPipeline,
    log: LandingLog,
) -> Inspection:
    hours = log.load().hours.values()
    chunks = [str(path) for hour in hours for path in log.chunk_paths(hour)]
    if not chunks:
        return found
    landed = connection.read_parquet(chunks)
    first, last = landed.aggregate("min(event_time), max(event_time)").fetchall()[0]
    event = "row_uid, event_time, file_id, file_offset, landed_at, line AS event"
    frame = with_columns(landed.project(event))
    redacted_values, dropped = _judged(connection, frame.limit(SAMPLE), hourly)
    return replace(
        found,
        first=first.astimezone(UTC),
        last=last.astimezone(UTC),
        time_from=_time_fields(landed, hourly.source.time_path),
        levels=count_by(frame, "coalesce(event_level, 'none')"),
        redacted=redacted_values,
        dropped=dropped,
    )


def _judged(
    connection: duckdb.DuckDBPyConnection, frame: Frame, hourly: HourlyPipeline
) -> tuple[dict[str, int], dict[str, int]]:
    """Values that redaction would hide by type, and events that the filter would drop by reason."""
    key = hourly.settings.hash_key
    secret = key.get_secret_value().encode() if key else None
    redacted = redact(connection, frame, hourly.config.redact, secret)
    dropped = judge(
        connection, redacted.project("* EXCLUDE (redactions)"), hourly.config.filter
    )
    return redacted_by_type(redacted, "''").get("", {}), count_by(dropped, "dropped_by")


def _time_fields(landed: Frame, time_path: str | None) -> dict[str, int]:
    """The field that holds the time of each of the first events."""
    paths = [*([time_path] if time_path else []), *TIME_FIELDS]
    counts: Counter[str] = Counter()
    for (line,) in landed.limit(_LOOKED_AT).project("line").fetchall():
        event = decode_unique(line)
        counts[next((p for p in paths if value_at(event, p) is not None), "landed_at")] += 1
    return dict(counts.most_common())
