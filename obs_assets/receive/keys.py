"""Keys of requests (``Idempotency-Key``): a request that is sent again is not stored again.

The hash of a key is flushed to disk after the events of its request and before the answer. A process
that is killed between the two flushes stores the events of a repeated request a second time.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from obs_assets.receive.spool import FILE_MODE

KEPT_S = 48 * 3600
"""Seconds for which a key is known at least."""

_MOST = 500_000
"""Keys in memory; each takes about 100 bytes."""


class Keys:
    """The keys of stored requests.

    Args:
        folder: folder of the receiver; files of keys are called ``.keys-<day>``.
        now: the time, seconds since 1970.
    """

    def __init__(self, folder: Path, now: float) -> None:
        self._folder = folder
        self._known: dict[bytes, None] = {}
        self._open: dict[bytes, asyncio.Future[None]] = {}
        for path in sorted(folder.glob(".keys-*")):
            if path.stat().st_mtime < now - KEPT_S:
                path.unlink()
                continue
            self._known.update(dict.fromkeys(path.read_bytes().split()))

    def find(self, key: str) -> "asyncio.Future[None] | None":
        """A future that is done when the request with this key is on disk; None for a new key."""
        digest = _digest(key)
        if digest in self._open:
            return self._open[digest]
        if digest not in self._known:
            return None
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def begin(self, key: str, written: "asyncio.Future[None]") -> None:
        """Note a request that is being written; a failed request is forgotten."""
        digest = _digest(key)
        self._open[digest] = written

        def end(future: "asyncio.Future[None]") -> None:
            del self._open[digest]
            if not future.cancelled() and future.exception() is None:
                self._known[digest] = None
                while len(self._known) > _MOST:
                    del self._known[next(iter(self._known))]

        written.add_done_callback(end)

    def move(self, folder: Path) -> None:
        """Go on in another folder, which gets the files of keys of this folder.

        Raises:
            OSError: the file system refused it.
        """
        for path in self._folder.glob(".keys-*"):
            _append(folder / path.name, path.read_bytes())
        self._folder = folder

    def store(self, keys: Sequence[str]) -> None:
        """Flush keys to disk; called in the thread that writes.

        Raises:
            OSError: the file system refused it.
        """
        day = time.strftime("%Y%m%d", time.gmtime())
        lines = b"".join(_digest(key) + b"\n" for key in keys)
        _append(self._folder / f".keys-{day}", lines)


def _append(path: Path, lines: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE)
    try:
        os.write(descriptor, lines)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:32].encode()
