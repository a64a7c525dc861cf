"""Event files of a receiver: requests are appended, flushed to disk together, and only then answered.

A file is never changed where landing may have read it. After a failed write, or a kill, only the
bytes behind the last line end are cut off, and the next request goes into a new file. A file that
has rested is left as it is: landing reads an unfinished last line after ``seal_after_minutes``, and
then takes a file that became shorter for a new file with the same events.
"""

import contextlib
import fcntl
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from obs_assets.crash import crash_point
from obs_assets.errors import ConfigurationError
from obs_assets.storage.disk import make_private_dir, sync_file

FILE_MODE = 0o600

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,60}")
"""Names of receivers: they are folders and parts of file names."""

_BLOCK = 1 << 16
"""Bytes that are read at a time to find the last line end of a file."""

_RESTED_S = 30.0
"""Seconds without a change after which landing may have read the unfinished last line of a file."""

_LOOK_S = 1.0
"""Seconds after which the writer looks at the age of its file, if no request comes."""

_log = logging.getLogger(__name__)


class BusyError(Exception):
    """More bytes wait for the disk than `Rotation.waiting_bytes`: the client should try again."""


@dataclass(frozen=True)
class Rotation:
    """When a file is finished, and how much may wait for the disk.

    Attributes:
        size_bytes: size from which on the next request begins a new file.
        age_s: seconds after which a file is finished, even if no request comes.
        waiting_bytes: bytes of requests that may wait for the disk.
    """

    size_bytes: int = 64 << 20
    age_s: float = 300.0
    waiting_bytes: int = 16 << 20


@dataclass
class _File:
    path: Path
    descriptor: int
    began_at: float
    size: int = 0


class _Item(NamedTuple):
    lines: bytes
    key: str
    written: "Future[None]"


@dataclass
class Spool:
    """Writes the event files of a receiver; one thread writes, any thread may call `write`.

    Attributes:
        folder: folder of the files; it is made if it does not exist.
        name: name of the receiver, the beginning of its files' names.
        rotation: when a file is finished.
        on_sealed: called in the writer's thread with each finished file.
        note_keys: called in the writer's thread with the keys of requests that are on disk, before
            they are answered.
        committed: bytes that were flushed to disk.
        failed: requests that could not be written.
    """

    folder: Path
    name: str
    rotation: Rotation = Rotation()
    on_sealed: Callable[[Path], None] = lambda _: None
    note_keys: Callable[[Sequence[str]], None] = lambda _: None
    committed: int = 0
    failed: int = 0
    _queue: "queue.SimpleQueue[_Item]" = field(default_factory=queue.SimpleQueue)
    _waiting: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _file: _File | None = None
    _ends: bool = False

    def __post_init__(self) -> None:
        """Take the folder, finish the files of an earlier process, and start the writer.

        Raises:
            ConfigurationError: the name is no name, or another receiver uses it.
            ObsError: the folder cannot be made.
        """
        if not _NAME.fullmatch(self.name) or self.name.startswith("."):
            raise ConfigurationError(
                f"--name {self.name!r}: a receiver's name has letters, digits, _, . and -"
            )
        make_private_dir(self.folder, setting="OBS_EVENTS_DIR")
        self._guard = (self.folder / ".lock").open("w")
        try:
            fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._guard.close()
            raise ConfigurationError(
                f"another `obs receive` writes into {self.folder}: choose another --name"
            ) from None
        left = self.files()
        # First the cut: a file that is handed on may be uploaded and removed at once.
        if left and time.time() - left[-1].stat().st_mtime < _RESTED_S:
            cut_unfinished(left[-1])
        for path in left:
            self.on_sealed(path)
        self._sequence = _sequence_of(left)
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    def files(self) -> list[Path]:
        """The files of this receiver, the oldest first."""
        return sorted(self.folder.glob("*.jsonl"))

    @property
    def current(self) -> Path | None:
        """The file that is being written; None if the next request begins a new file."""
        file = self._file
        return file.path if file else None

    def write(self, lines: bytes, key: str = "") -> "Future[None]":
        """Append whole lines; they stay together in a file.

        Args:
            lines: JSON lines; the last byte is a line end.
            key: key of the request for `note_keys`; empty for a request without a key.

        Returns:
            A future that is done when the lines are flushed to disk. Its error is an OSError if the
            file system refused them: then they may be lost, or be in a file in part.

        Raises:
            BusyError: too many bytes wait.
        """
        with self._lock:
            if self._ends or self._waiting + len(lines) > self.rotation.waiting_bytes:
                raise BusyError
            self._waiting += len(lines)
        written: Future[None] = Future()
        self._queue.put(_Item(lines, key, written))
        return written

    def reopened(self, folder: Path) -> "Spool":
        """Call it after `close`: a new spool of the same receiver, in this folder or another one.

        Raises:
            ConfigurationError, ObsError: see `Spool`.
        """
        return Spool(
            folder,
            self.name,
            self.rotation,
            self.on_sealed,
            self.note_keys,
            self.committed,
            self.failed,
        )

    def close(self) -> None:
        """Write all requests that wait, and finish the file."""
        with self._lock:
            self._ends = True
        self._thread.join()
        self._guard.close()

    # -- the writer's thread -----------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            batch = self._take()
            if batch:
                self._commit(batch)
            file = self._file
            if file is None:
                if self._ends and not batch:
                    return
                continue
            is_old = time.monotonic() - file.began_at >= self.rotation.age_s
            is_last = self._ends and not batch
            if is_old or is_last or file.size >= self.rotation.size_bytes:
                self._seal()

    def _take(self) -> list[_Item]:
        """The requests that wait. All of them share one flush."""
        batch: list[_Item] = []
        with contextlib.suppress(queue.Empty):
            wait_s = min(_LOOK_S, self.rotation.age_s)
            if self._ends:
                wait_s = 0.01
            batch.append(self._queue.get(timeout=wait_s))
            while True:
                batch.append(self._queue.get_nowait())
        return batch

    def _commit(self, batch: Sequence[_Item]) -> None:
        lines = b"".join(item.lines for item in batch)
        fault: OSError | None = None
        try:
            self._append(lines)
            keys = [item.key for item in batch if item.key]
            if keys:
                self.note_keys(keys)
        except OSError as error:
            fault = error
            self.failed += len(batch)
            _log.error("cannot write into %s: %s", self.folder, error.strerror)
            self._abandon()
        with self._lock:
            self._waiting -= len(lines)
        for item in batch:
            written = item.written
            # A client that went away has cancelled its future.
            if not written.set_running_or_notify_cancel():
                continue
            if fault is None:
                written.set_result(None)
            else:
                written.set_exception(fault)

    def _append(self, lines: bytes) -> None:
        if self._file is None:
            self._file = self._begin()
        rest = memoryview(lines)
        while rest:
            rest = rest[os.write(self._file.descriptor, rest) :]
        crash_point("receive.before_sync")
        os.fsync(self._file.descriptor)
        crash_point("receive.after_sync")
        self._file.size += len(lines)
        self.committed += len(lines)

    def _begin(self) -> _File:
        self._sequence += 1
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        # The number comes first, so that the names are in the order of writing.
        path = self.folder / f"{self.name}-{self._sequence:010d}-{moment}.jsonl"
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, FILE_MODE
        )
        file = _File(path, descriptor, time.monotonic())
        try:
            sync_file(self.folder)
        except BaseException:
            os.close(descriptor)
            raise
        return file

    def _seal(self) -> None:
        file, self._file = self._file, None
        if file:
            os.close(file.descriptor)
            self.on_sealed(file.path)

    def _abandon(self) -> None:
        """Give up the file after a failed write."""
        file = self._file
        self._seal()
        if file:
            with contextlib.suppress(OSError):
                cut_unfinished(file.path)


def _sequence_of(files: Sequence[Path]) -> int:
    """The highest number of a file; 0 without a file."""
    numbers = [int(found[1]) for path in files if (found := _NUMBERED.search(path.name))]
    return max(numbers, default=0)


_NUMBERED = re.compile(r"-(\d{10})-\d{8}T\d{6}\.jsonl$")


def cut_unfinished(path: Path) -> None:
    """Cut off the bytes behind the last line end of a file: no client was told that they are stored.

    Landing has not read them, since it reads a line when it is finished.
    """
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        position = end
        while position > 0:
            begin = max(0, position - _BLOCK)
            file.seek(begin)
            found = file.read(position - begin).rfind(b"\n")
            if found >= 0:
                position = begin + found + 1
                break
            position = begin
        if position < end:
            file.truncate(position)
            os.fsync(file.fileno())
