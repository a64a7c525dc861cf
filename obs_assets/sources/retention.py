"""Removes data that is not redacted after some days: landed events, dead letters, and the log's records of old files.

An hour expires a number of days after its end or its first landing, whichever is later, and never before every
destination holds it. First the log records this in a pass of its own, in a single step; then the bytes are removed. If
a run is killed in between, the bytes of the expired hour remain, and the next run removes them.
"""

import contextlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq

from obs_assets.crash import crash_point
from obs_assets.hours import Hour, parse_hour
from obs_assets.sources.landing import collector
from obs_assets.sources.log import Landed, LandedHour, LandingLog, LandingPass
from obs_assets.sources.replay import open_rows

FORGET_AFTER = timedelta(days=2)
"""Time from the expiry of a file's events until the file is forgotten: an event may be a day ahead of its landing."""


@dataclass(frozen=True)
class Expiry:
    """Result of a run of retention.

    Attributes:
        hours: hours that have expired in this run.
        waiting: hours that are due, but whose landed version is not yet in every destination.
        files_forgotten: number of files that are gone and of which no data is kept.
        letters_removed: number of dead letters that were removed.
        removed_bytes: bytes on disk that were removed.
    """

    hours: tuple[Hour, ...] = ()
    waiting: tuple[Hour, ...] = ()
    files_forgotten: int = 0
    letters_removed: int = 0
    removed_bytes: int = 0

    def sentences(self) -> list[str]:
        """Sentences for the operator."""
        told = [
            f"{len(self.hours):,} hours have expired: they cannot be built again, what the destinations hold stays",
            f"{self.removed_bytes:,} bytes removed, {self.letters_removed:,} dead letters among them; "
            f"{self.files_forgotten:,} files forgotten",
        ]
        if self.waiting:
            told.append(
                f"{len(self.waiting):,} more hours are due, the oldest {self.waiting[0]}, but are not closed, or not "
                "held by every destination as they have landed"
            )
        return told


def due(landed: Landed, *, days: int, now: datetime) -> dict[Hour, LandedHour]:
    """Hours that are due at ``now`` and that have not expired yet, oldest first."""
    found = {
        parse_hour(key): hour for key, hour in sorted(landed.hours.items()) if not hour.expired
    }
    age = timedelta(days=days)
    return {
        hour: held
        for hour, held in found.items()
        if max(hour.end, datetime.fromisoformat(held.since)) + age <= now
    }


def forgettable(
    landed: Landed, listed: Collection[str], *, days: int, now: datetime
) -> tuple[str, ...]:
    """Ids of files that are gone, and of which no landed event can still be kept.

    If such a file comes back, it is read again. Its events belong to expired hours, and become dead letters.
    """
    age = timedelta(days=days) + FORGET_AFTER
    return tuple(
        sorted(
            file.file_id
            for file in landed.files.values()
            if file.path not in listed
            and file.node not in listed
            and _is_old(file.landed_at, now - age)
        )
    )


def _is_old(moment: str, limit: datetime) -> bool:
    return bool(moment) and datetime.fromisoformat(moment) <= limit


def note_expiry(
    log: LandingLog,
    hours: Iterable[tuple[Hour, LandedHour]],
    files: tuple[str, ...],
    *,
    days: int,
    now: datetime,
) -> list[Hour]:
    """Record the expiry of hours that have not changed since the decision, and forget files.

    The caller holds the lock of the log.
    """
    landed = log.load()
    expired = [hour for hour, seen in hours if landed.hour(hour) == seen]
    letters = _letters_kept(log, days=days, now=now)
    if not expired and not files and letters == landed.letters:
        return []
    number, moment = landed.last_pass + 1, now.isoformat()
    landing = LandingPass(
        number=number,
        began_at=moment,
        finished_at=moment,
        collector=collector(),
        files=(),
        hours={},
        dead_letters={},
        expired=tuple(hour.key for hour in expired),
        forgotten=files,
        letters=letters,
    )
    log.publish(log.begin(number), landing, landed)
    crash_point("retention.after_commit")
    return expired


def _letters_kept(log: LandingLog, *, days: int, now: datetime) -> dict[str, tuple[int, str]]:
    """The open dead letters that stay: reason → number, and first time seen."""
    letters: dict[str, tuple[int, str]] = {}
    for _, row in open_rows(log, ("file_id", "file_offset", "reason", "landed_at")):
        if row["landed_at"] + timedelta(days=days) > now:
            count, since = letters.get(row["reason"], (0, row["landed_at"].isoformat()))
            letters[row["reason"]] = count + 1, since
    return letters


def remove_chunks(log: LandingLog) -> int:
    """Remove the chunks that no hour refers to. Returns their bytes. The caller holds the lock."""
    kept = {path for hour in log.load().hours.values() for path in log.chunk_paths(hour)}
    return sum(
        _remove(path)
        for path in log.passes_dir.glob("[0-9]*/[0-9]*-*.parquet")
        if path not in kept
    )


def letters_due(log: LandingLog, *, days: int, now: datetime) -> int:
    """Number of dead letters that `remove_letters` would remove."""
    return sum(
        rows
        for _, first_seen, rows in _dead_letters(log)
        if first_seen + timedelta(days=days) <= now
    )


def remove_letters(log: LandingLog, *, days: int, now: datetime) -> tuple[int, int]:
    """Remove dead letters that were first seen ``days`` ago or earlier. Returns their number and bytes.

    The caller holds the lock.
    """
    letters = size = 0
    for path, first_seen, rows in _dead_letters(log):
        if first_seen + timedelta(days=days) <= now:
            letters += rows
            size += _remove(path)
    for path in log.passes_dir.glob("[0-9]*/replayed.parquet"):
        passes = pq.read_table(path, columns=["pass"])["pass"].unique().to_pylist()
        if not any(
            (log.pass_dir(number) / "dead_letters.parquet").exists() for number in passes
        ):
            size += _remove(path)
    return letters, size


def _dead_letters(log: LandingLog) -> Iterator[tuple[Path, datetime, int]]:
    for path in sorted(log.passes_dir.glob("[0-9]*/dead_letters.parquet")):
        moments = pq.read_table(path, columns=["landed_at"])["landed_at"]
        if len(moments):
            yield path, moments[0].as_py(), len(moments)


def _remove(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        size = path.stat().st_size
        path.unlink()
        return size
    return 0
