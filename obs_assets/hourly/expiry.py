"""Removes old events from before redaction: landed events, dead letters, raw and enriched frames."""

from datetime import datetime

from obs_assets.errors import HourBusyError
from obs_assets.hourly.locks import HourLocks
from obs_assets.hourly.stage_rows import UNREDACTED
from obs_assets.hourly.staleness import Staleness
from obs_assets.hours import Hour, parse_hour
from obs_assets.sources.files import Listing
from obs_assets.sources.log import LandedHour, LandingLog
from obs_assets.sources.retention import (
    Expiry,
    due,
    forgettable,
    letters_due,
    note_expiry,
    remove_chunks,
    remove_letters,
)
from obs_assets.storage.frames import Store


def expire(
    log: LandingLog,
    store: Store,
    locks: HourLocks,
    *,
    days: int,
    now: datetime,
    staleness: Staleness,
    open_hour: Hour,
    listing: Listing,
) -> Expiry:
    """Remove hours that are older than ``days`` and that every destination holds.

    Args:
        log: the landing log.
        store: the frames.
        locks: the locks of the hours.
        days: days for which an hour is kept.
        now: the time, UTC.
        staleness: the hours that destinations lack; these hours are kept.
        open_hour: the first hour that is not closed; it and later hours are kept.
        listing: the present event files; the log keeps its records of these files.

    Raises:
        HourBusyError: a landing pass is under way.
    """
    ready, waiting = _expiring(
        log, days=days, now=now, staleness=staleness, open_hour=open_hour
    )
    listed = _names(listing)
    with log.lock():
        # A forgotten file that comes back is read again: its hours must have expired by then.
        files = () if waiting else forgettable(log.load(), listed, days=days, now=now)
        expired = note_expiry(log, ready, files, days=days, now=now)
        letters, size = remove_letters(log, days=days, now=now)
        size += remove_chunks(log)
        log.remove_folded()
    # Not only the hours of this call: a frame that a run was reading is left for the next call.
    for key, hour in log.load().hours.items():
        if hour.expired:
            size += _remove_unredacted(store, locks, parse_hour(key))
    return Expiry(tuple(expired), waiting, len(files), letters, size)


def why_due(
    log: LandingLog,
    *,
    days: int,
    now: datetime,
    staleness: Staleness,
    open_hour: Hour,
    listing: Listing,
) -> str:
    """The reason to call `expire` now, for example ``2 hours have expired``; empty without a reason.

    Nothing is changed. The arguments are those of `expire`.
    """
    ready, waiting = _expiring(
        log, days=days, now=now, staleness=staleness, open_hour=open_hour
    )
    if ready:
        return f"{len(ready):,} hours have expired"
    letters = letters_due(log, days=days, now=now)
    if letters:
        return f"{letters:,} dead letters have expired"
    if waiting:
        return ""
    files = forgettable(
        log.load(),
        _names(listing),
        days=days,
        now=now,
    )
    if files:
        return f"{len(files):,} files can be forgotten"
    return ""


def _expiring(
    log: LandingLog,
    *,
    days: int,
    now: datetime,
    staleness: Staleness,
    open_hour: Hour,
) -> tuple[list[tuple[Hour, LandedHour]], tuple[Hour, ...]]:
    """The old hours that can be removed now, and the old hours that wait for a destination or are open."""
    hours = due(log.load(), days=days, now=now)
    held_back = {*staleness.missing, *staleness.elsewhere}
    if staleness.unreachable:
        # A destination that does not answer may lack every hour.
        held_back = set(hours)
    waiting = tuple(hour for hour in hours if hour in held_back or hour >= open_hour)
    ready = [(hour, landed) for hour, landed in hours.items() if hour not in waiting]
    return ready, waiting


def _names(listing: Listing) -> set[str]:
    """Paths and nodes of the event files: a renamed file keeps its node."""
    names: set[str] = set()
    for file in listing.files:
        names |= {file.path, file.node}
    return names


def _remove_unredacted(store: Store, locks: HourLocks, hour: Hour) -> int:
    """Remove the frames of an hour from before redaction; returns the number of bytes."""
    all_paths = [store.frame_path(stage, hour) for stage in UNREDACTED]
    paths = [path for path in all_paths if path.exists()]
    if not paths:
        return 0
    try:
        with locks.hold(hour, alone=True):
            size = sum(path.stat().st_size for path in paths)
            for path in paths:
                path.unlink()
            return size
    except HourBusyError:
        return 0  # another run reads the frames: the next run of retention removes them
