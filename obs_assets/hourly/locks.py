"""The lock of an hour's frames: exclusive to build the hour, shared to read it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from obs_assets.errors import HourBusyError
from obs_assets.hours import Hour
from obs_assets.storage.disk import locked, make_private_dir

BUSY_AFTER_S = 30
"""Seconds to wait for another run that works on the same hour."""


@dataclass(frozen=True)
class HourLocks:
    """The locks of one pipeline.

    Attributes:
        folder: folder of the lock files, a file for each hour that was ever locked.
    """

    folder: Path

    @contextmanager
    def hold(
        self,
        hour: Hour,
        *,
        alone: bool,
        wait: bool = True,
    ) -> Iterator[None]:
        """Hold the lock of an hour; the system releases it when the process ends.

        Args:
            hour: the hour to lock.
            alone: exclusive, to build the hour; false shares the lock with other readers.
            wait: wait up to `BUSY_AFTER_S` seconds for other runs; false does not wait.

        Raises:
            HourBusyError: another run still holds the lock.
        """
        # The file stays: removing it would let two runs lock two files of the same name.
        path = make_private_dir(self.folder) / f"{hour.stamp}.lock"
        wait_s = BUSY_AFTER_S if wait else 0
        # An exit stack, so that a `BlockingIOError` of the caller's own work is not taken for this lock's.
        with ExitStack() as held:
            try:
                held.enter_context(locked(path, shared=not alone, wait_s=wait_s))
            except BlockingIOError:
                raise HourBusyError(
                    f"another run is at work on {hour}: let it finish, then try again"
                ) from None
            yield
