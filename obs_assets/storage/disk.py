"""Files on disk: folders for their owner alone, files that appear whole or not at all, and locks."""

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
"""Seconds between two looks at a lock that another process holds."""


def make_private_dir(path: Path, *, setting: str = "OBS_DATA_DIR") -> Path:
    """Make a folder, and those above it, readable by its owner alone; returns it.

    Args:
        path: of the folder.
        setting: that named the folder, for the message.

    Raises:
        ConfigurationError: it cannot be made.
    """
    try:
        for folder in reversed([path, *path.parents]):
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
    """Write a file aside, then put it in place in one step.

    Yields a path to write to; on success the file there is flushed to disk and renamed to ``path``, on failure removed.
    A reader, or a re-run after a crash, sees the old file or the new one, never half of one.

    Args:
        path: of the file.
        sync_folder: whether the new name is on disk at the end; who puts many files there does that once for all.
        setting: that named the folder, for the message.
        crash: the crash points that are passed: those of a frame or of a receipt; None for other files.

    Raises:
        ObsError: the file system refused, for example because it is full.
    """
    make_private_dir(path.parent, setting=setting)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(descriptor)
    aside = Path(name)
    try:
        with explained(path):
            yield aside
            sync_file(aside)
            if crash == "receipt":
                crash_point("receipt.before_rename")
            elif crash == "frame":
                crash_point("frame.before_rename")
            aside.replace(path)
            if sync_folder:
                sync_file(path.parent)
            if crash:
                crash_point("frame.after_rename")
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the file system's refusal to write into an error that says what to look at.

    Raises:
        ObsError: it refused, for example because it is full.
    """
    try:
        yield
    except (OSError, duckdb.IOException) as error:
        if isinstance(error, OSError) and error.errno is None:
            raise  # DuckDB's, through Arrow: the file system always gives a number
        raise ObsError(
            f"cannot write {path}: {_reason(error)} ({_free_space(path.parent)} free there)"
        ) from None


def _reason(error: OSError | duckdb.IOException) -> str:
    return (
        (error.strerror or "unknown reason")
        if isinstance(error, OSError)
        else str(error).splitlines()[0]
    )


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
    """Hold the lock of a file, which is made if it is missing; the system frees it when a process ends.

    Args:
        path: of the file, in a folder that is there.
        shared: together with others that share it, instead of alone.
        wait_s: seconds to wait for others that hold it.

    Raises:
        BlockingIOError: others held it for longer.
    """
    with path.open("w") as file:
        _wait_for_lock(file, LOCK_SH if shared else LOCK_EX, wait_s)
        yield


_waits: set[threading.Event] = set()


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
