"""Reads dead letters again, and lands those that can be read now, after a fix or with other limits.

A replay is a landing pass whose input is the bytes of dead letters. Its folder names the letters that it took. So the
list and the events appear in the same step, or not at all. If only a part of a letter can be read, the unreadable rest
becomes a new, smaller letter.
"""

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from obs_assets.hours import Hour
from obs_assets.sources.files import EventFile, SourceConfig
from obs_assets.sources.landing import (
    DEAD_LETTER_SCHEMA,
    Batch,
    LandingReport,
    PassWriter,
    Progress,
)
from obs_assets.sources.log import FileReceipt, Landed, LandingLog
from obs_assets.storage.disk import sync_file

BATCH_BYTES = 32 << 20
"""Bytes of dead letters that are read together."""

_TAKEN_SCHEMA = pa.schema(
    {"pass": pa.int64(), "file_id": pa.string(), "file_offset": pa.int64()}
)


@dataclass(frozen=True)
class Letter:
    """An open dead letter: no replay has taken it yet.

    Attributes:
        landing_pass, file_id, file_offset: identity of the letter.
        event_file: path of the file when it was landed.
        length: number of bytes in the file; ``raw`` may be a few bytes shorter.
        reason: reason why the bytes are not an event.
        first_seen: time of landing.
        raw: the bytes. They may hold personal data.
    """

    landing_pass: int
    file_id: str
    event_file: str
    file_offset: int
    length: int
    reason: str
    first_seen: datetime
    raw: bytes

    @property
    def id(self) -> str:
        """Name of the letter on the command line."""
        return f"{self.landing_pass}-{self.file_id[:8]}-{self.file_offset}"


def open_letters(log: LandingLog) -> Iterator[Letter]:
    """The open dead letters, in the order of landing, file and offset. Only a single pass is in memory at a time."""
    for number, row in open_rows(log, DEAD_LETTER_SCHEMA.names):
        first_seen = row.pop("landed_at")
        yield Letter(landing_pass=number, first_seen=first_seen, **row)


def open_rows(log: LandingLog, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The open dead letters with their pass and these columns, which must include ``file_id`` and ``file_offset``."""
    taken: defaultdict[int, set[tuple[str, int]]] = defaultdict(set)
    for path in sorted(log.passes_dir.glob("[0-9]*/replayed.parquet")):
        for row in pq.read_table(path).to_pylist():
            taken[row["pass"]].add((row["file_id"], row["file_offset"]))
    for path in sorted(log.passes_dir.glob("[0-9]*/dead_letters.parquet")):
        number = int(path.parent.name)
        rows = pq.read_table(path, columns=list(columns)).to_pylist()
        for row in sorted(rows, key=lambda row: (row["file_id"], row["file_offset"])):
            if (row["file_id"], row["file_offset"]) not in taken[number]:
                yield number, row


def count_letters(log: LandingLog) -> list[tuple[str, str, int, int, datetime]]:
    """Open dead letters by file and reason: number, bytes, time first seen. The largest number comes first."""
    counts: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], datetime] = {}
    for _, row in open_rows(log, [name for name in DEAD_LETTER_SCHEMA.names if name != "raw"]):
        key = row["event_file"], row["reason"]
        counts[key] += 1
        sizes[key] += row["length"]
        first[key] = min(first.get(key, row["landed_at"]), row["landed_at"])
    return sorted(
        ((*key, n, sizes[key], first[key]) for key, n in counts.items()),
        key=lambda row: (-row[2], row[:2]),
    )


def replay(
    config: SourceConfig,
    log: LandingLog,
    *,
    first_hour: Hour,
    reason: str | None = None,
    event_file: str | None = None,
    now: datetime | None = None,
) -> LandingReport:
    """Land the dead letters that can be read now; the others stay as they are.

    Args:
        config: the present limits.
        log: the landing log.
        first_hour: events before this hour stay dead letters.
        reason, event_file: replay only letters with this reason, or of this file.
        now: landing time of the events; default: the clock. An event without a time of its own gets this time.

    Raises:
        HourBusyError: a landing pass is running.
        ObsError: the events cannot be written, for example because the disk is full.
    """
    with log.lock():
        landed = log.load()
        # A missing file has expired, and its letter will be removed soon
        letters = [
            letter
            for letter in open_letters(log)
            if letter.file_id in landed.files
            and reason in {None, letter.reason}
            and event_file in {None, letter.event_file}
        ]
        writer = PassWriter(
            config,
            log,
            landed,
            first_hour=first_hour,
            began_at=(now or datetime.now(UTC)).astimezone(UTC),
            # A letter without any event stays as it is; no new letter is written for it
            keeps_letters_of=lambda stretch: stretch.events > 0,
        )
        stretches = [
            _stretch(landed, index, group) for index, group in enumerate(_neighbours(letters))
        ]
        if stretches:
            folder = writer.write(list(stretches), _batches(stretches))
            _publish(writer, folder, stretches)
    with_events = [stretch for stretch in stretches if stretch.events]
    return LandingReport(
        number=writer.number if with_events else None,
        hours=dict(sorted(writer.rows.items())),
        dead_letters={reason: n for reason, n in writer.dead_letters.items() if n},
        files_read=len({stretch.known.file_id for stretch in with_events}),
        files_listed=len({letter.file_id for letter in letters}),
        bytes_read=sum(stretch.length for stretch in stretches),
    )


@dataclass
class _Stretch(Progress):
    """Neighbouring letters while they are read, in the form of a file that holds only them."""

    letters: tuple[Letter, ...] = ()

    @property
    def length(self) -> int:
        return sum(letter.length for letter in self.letters)


def _stretch(landed: Landed, index: int, letters: tuple[Letter, ...]) -> _Stretch:
    first = letters[0]
    known = landed.files[first.file_id]
    file = EventFile(first.event_file, known.size, known.mtime_ns, known.node, open=_never)
    stretch = _Stretch(index, file, known, sealed=True, at_end=True, letters=letters)
    stretch.takes_envelopes = False
    stretch.position, stretch.within_line, stretch.within_object = first.file_offset, False, 0
    stretch.landed_to = 0
    return stretch


def _batches(stretches: Iterable[_Stretch]) -> Iterator[Batch]:
    for group in _groups(stretches):
        data = [b"".join(letter.raw for letter in stretch.letters) for stretch in group]
        batch = Batch(bytearray().join(data))
        for stretch, piece in zip(group, data, strict=True):
            batch.add(stretch, len(piece))
        yield batch


def _publish(writer: PassWriter, folder: Path, stretches: Iterable[_Stretch]) -> None:
    """Put the pass in place, together with the list of its letters."""
    with_events = [stretch for stretch in stretches if stretch.events]
    if not with_events:
        shutil.rmtree(folder)
        return
    letters = [letter for stretch in with_events for letter in stretch.letters]
    columns = {
        "pass": [letter.landing_pass for letter in letters],
        "file_id": [letter.file_id for letter in letters],
        "file_offset": [letter.file_offset for letter in letters],
    }
    pq.write_table(pa.table(columns, schema=_TAKEN_SCHEMA), folder / "replayed.parquet")
    sync_file(folder / "replayed.parquet")
    writer.dead_letters.subtract(Counter(letter.reason for letter in letters))
    of_file: defaultdict[str, list[_Stretch]] = defaultdict(list)
    for stretch in with_events:
        of_file[stretch.known.file_id].append(stretch)
    writer.publish(folder, map(_receipt, of_file.values()))


def _never() -> Any:
    raise FileNotFoundError


def _groups(stretches: Iterable[_Stretch]) -> Iterator[list[_Stretch]]:
    """Groups of letters that are read together."""
    group: list[_Stretch] = []
    size = 0
    for stretch in stretches:
        group.append(stretch)
        size += sum(len(letter.raw) for letter in stretch.letters)
        if size >= BATCH_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _neighbours(letters: list[Letter]) -> Iterator[tuple[Letter, ...]]:
    """Groups of letters that are neighbours in a file, such as the pieces of a line that was too long."""
    group: list[Letter] = []
    for letter in letters:
        if group:
            last = group[-1]
            continues = (
                last.landing_pass,
                last.file_id,
                last.file_offset + len(last.raw),
                last.length,
                last.reason,
            )
            if continues != (
                letter.landing_pass,
                letter.file_id,
                letter.file_offset,
                len(last.raw),
                letter.reason,
            ):
                yield tuple(group)
                group = []
        group.append(letter)
    if group:
        yield tuple(group)


def _receipt(stretches: list[_Stretch]) -> FileReceipt:
    """Receipt of a replay: bytes of dead letters become events, separators, or smaller dead letters."""
    known = stretches[0].known
    event_bytes = sum(stretch.event_bytes for stretch in stretches)
    dead_bytes = sum(stretch.dead_bytes - stretch.length for stretch in stretches)
    envelope_bytes = sum(
        stretch.envelope_bytes + stretch.passed_tails + stretch.tail_bytes
        for stretch in stretches
    )
    return FileReceipt(
        file=known,
        start=known.offset,
        end=known.offset,
        events=sum(stretch.events for stretch in stretches),
        event_bytes=event_bytes,
        dead_letters=sum(stretch.dead_letters - len(stretch.letters) for stretch in stretches),
        dead_bytes=dead_bytes,
        separator_bytes=-event_bytes - dead_bytes - envelope_bytes,
        envelope_bytes=envelope_bytes,
    )
