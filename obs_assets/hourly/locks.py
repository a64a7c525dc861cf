"""The lock of an hour's frames: held alone to build the hour, shared to read it."""

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
        folder: holds a file for each hour that was locked once.
    """

    folder: Path

    @contextmanager
    def hold(self, hour: Hour, *, alone: bool, wait: bool = True) -> Iterator[None]:
        """Hold an hour; the system frees it when the process ends.

        Args:
            hour: to be held.
            alone: to build it; otherwise together with others that read it.
            wait: for `BUSY_AFTER_S` seconds, where others hold it.

        Raises:
            HourBusyError: others held it for longer.
        """
        path = make_private_dir(self.folder) / f"{hour.stamp}.lock"
        wait_s = BUSY_AFTER_S if wait else 0
        with ExitStack() as held:
            try:
                held.enter_context(locked(path, shared=not alone, wait_s=wait_s))
            except BlockingIOError:
                raise HourBusyError(
                    f"another run is at work on {hour}: let it finish, then try again"
                ) from None
            yield
