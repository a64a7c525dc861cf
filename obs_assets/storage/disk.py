"""Files on disk: private folders, files that are replaced atomically, and locks."""

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path
from typing import Literal, TextIO

import duckdb

from obs_assets.crash import crash_point
from obs_assets.errors import ConfigurationError, ObsError

POLL_S = 0.05
"""Seconds between two attempts to get a lock that another process holds."""


def make_private_dir(path: Path, *, setting: str = "OBS_DATA_DIR") -> Path:
    """Make a folder and its missing parents, readable by the owner alone; returns the folder.

    Args:
        path: path of the folder.
        setting: setting that named the folder, for the message.

    Raises:
        ConfigurationError: the folder cannot be made.
    """
    try:
        for folder in reversed([path, *path.parents]):
            # `mkdir(parents=True)` would give the mode to the last folder only.
            if not folder.exists():
                folder.mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigurationError(
            f"cannot make the folder {path} ({setting}): {error.strerror}"
        ) from None
    return path


@contextlib.contextmanager
def replacing(
    path: Path,
    *,
    sync_folder: bool = True,
    setting: str = "OBS_DATA_DIR",
    crash: Literal["frame", "receipt"] | None = None,
) -> Iterator[Path]:
    """Replace a file atomically.

    Yields a temporary path to write to. On success the temporary file is flushed to disk and renamed
    to ``path``; on failure it is removed. A reader, or a new run after a crash, sees the whole old
    file or the whole new file.

    Args:
        path: path of the file.
        sync_folder: flush the folder too, so that the new name is on disk at the end. A caller that
            writes many files into a folder does this once, with `sync_file`.
        setting: setting that named the folder, for the message.
        crash: kind of file, which names its crash points; None for files without crash points.

    Raises:
        ObsError: the file system refused the write, for example because it is full.
    """
    make_private_dir(path.parent, setting=setting)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(descriptor)
    tmp_path = Path(name)
    try:
        with explained(path):
            yield tmp_path
            sync_file(tmp_path)
            if crash == "receipt":
                crash_point("receipt.before_rename")
            elif crash == "frame":
                crash_point("frame.before_rename")
            tmp_path.replace(path)
            if sync_folder:
                sync_file(path.parent)
            if crash:
                crash_point("frame.after_rename")
    finally:
        tmp_path.unlink(missing_ok=True)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn a refused write into an error with the path, the reason and the free space.

    Raises:
        ObsError: the file system refused the write, for example because it is full.
    """
    try:
        yield
    except (OSError, duckdb.IOException) as error:
        # An error of the file system always has a number; this is an error of DuckDB, through Arrow.
        if isinstance(error, OSError) and error.errno is None:
            raise
        raise ObsError(
            f"cannot write {path}: {_reason(error)} ({_free_space(path.parent)} free there)"
        ) from None


def _reason(error: OSError | duckdb.IOException) -> str:
    if isinstance(error, OSError):
        return error.strerror or "unknown reason"
    return str(error).splitlines()[0]


def sync_file(path: Path) -> None:
    """Flush a file, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free_space(folder: Path) -> str:
    numbers = os.statvfs(folder)
    return f"{numbers.f_bavail * numbers.f_frsize:,} bytes"


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, wait_s: float = 0) -> Iterator[None]:
    """Hold the lock of a file; the system releases it when the process ends.

    Args:
        path: path of the file, which is made if it is missing; its folder must exist.
        shared: share the lock with other readers; otherwise the lock is exclusive.
        wait_s: seconds to wait for other holders.

    Raises:
        BlockingIOError: another process still holds the lock.
    """
    with path.open("w") as file:
        operation = LOCK_EX
        if shared:
            operation = LOCK_SH
        _wait_for_lock(file, operation, wait_s)
        yield


_waits: set[threading.Event] = set()
"""An event for each thread that waits for a lock; setting it ends the wait."""


def _wait_for_lock(file: TextIO, operation: int, wait_s: float) -> None:
    """Lock a file; raises BlockingIOError when the time is over or `interrupt_waits` was called."""
    ends = time.monotonic() + wait_s
    interrupted = threading.Event()
    _waits.add(interrupted)
    try:
        while True:
            try:
                return flock(file, operation | LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= ends or interrupted.wait(POLL_S):
                    raise
    finally:
        _waits.discard(interrupted)


def interrupt_waits() -> None:
    """End the waits of other threads for locks: each ends as if its time were over."""
    for interrupted in list(_waits):
        interrupted.set()
