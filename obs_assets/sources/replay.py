"""Dead letters once more: what can be read by now, after a fix or with other limits, is landed.

A replay is a landing pass whose input are the bytes of dead letters. Its folder says which letters it took, so that it
appears together with the events or not at all; what is still unreadable beside a new event is a new, smaller letter.
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

_TAKEN_SCHEMA = pa.schema(
    {"pass": pa.int64(), "file_id": pa.string(), "file_offset": pa.int64()}
)


@dataclass(frozen=True)
class Letter:
    """A dead letter that no replay has taken.

    Attributes:
        landing_pass, file_id, file_offset: which one it is.
        event_file: the file's path when it was landed.
        length: bytes that it took in the file; those of ``raw`` or a few more.
        reason: why it is no event.
        first_seen: when it was landed.
        raw: its bytes. They may be personal.
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
        """Names it on the command line."""
        return f"{self.landing_pass}-{self.file_id[:8]}-{self.file_offset}"


def open_letters(log: LandingLog) -> Iterator[Letter]:
    """The dead letters that no replay has taken, in the order of landing, file and offset; one pass in memory."""
    for number, row in open_rows(log, DEAD_LETTER_SCHEMA.names):
        first_seen = row.pop("landed_at")
        yield Letter(landing_pass=number, first_seen=first_seen, **row)


def open_rows(log: LandingLog, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Those letters with their pass, and of each these columns, ``file_id`` and ``file_offset`` among them."""
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
    """Open dead letters by file and reason: letters, bytes, first seen; most letters first."""
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
    """Land those dead letters that can be read now; the others stay as they are.

    Args:
        config: today's limits.
        log: what has landed.
        first_hour: events before it stay dead letters.
        reason, event_file: only these.
        now: the landing time of what is landed; the clock by default. An event without a time of its own gets it.

    Raises:
        HourBusyError: a landing pass is under way.
        ObsError: it cannot be landed where it should be, for example because the disk is full.
    """
    with log.lock():
        landed = log.load()
        letters = [
            letter
            for letter in open_letters(log)
            if letter.file_id in landed.files  # else it has expired and is about to be removed
            and reason in {None, letter.reason}
            and event_file in {None, letter.event_file}
        ]
        writer = PassWriter(
            config,
            log,
            landed,
            first_hour=first_hour,
            began_at=(now or datetime.now(UTC)).astimezone(UTC),
            # Where no event came out of a letter, the letter stays as it is and no new one is written
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
    """Neighbouring letters while they are read; as a file that begins with them and ends there."""

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
    return stretch


def _batches(stretches: Iterable[_Stretch]) -> Iterator[Batch]:
    for group in _groups(stretches):
        data = [b"".join(letter.raw for letter in stretch.letters) for stretch in group]
        batch = Batch(bytearray().join(data))
        for stretch, piece in zip(group, data, strict=True):
            batch.add(stretch, len(piece))
        yield batch


def _publish(writer: PassWriter, folder: Path, stretches: Iterable[_Stretch]) -> None:
    """Put the pass in place together with the list of the letters that it took."""
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
    """Those that are read together."""
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
    """Letters that lie side by side in a file, as the pieces of a line that was too long do, together."""
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
    """What becomes of bytes accounted for before: dead ones turn into events, separators, smaller letters."""
    known = stretches[0].known
    event_bytes = sum(stretch.event_bytes for stretch in stretches)
    dead_bytes = sum(stretch.dead_bytes - stretch.length for stretch in stretches)
    envelope_bytes = sum(stretch.envelope_bytes for stretch in stretches)
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
