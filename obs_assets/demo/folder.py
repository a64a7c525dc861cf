"""The demonstration's data folder: cleared at each start, but never of files that others made."""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

from obs_assets import embedded
from obs_assets.demo.samples import FILES
from obs_assets.errors import ConfigurationError
from obs_assets.storage.disk import make_private_dir

EVENTS = "events"
"""Folder of the sample event files."""

LOGS = "logs"
"""Folder of the logs of the demonstration's commands."""

MARK = "made-by-make-demo.txt"
"""File that marks a data folder as the demonstration's own."""

LOCK = "demo.lock"
"""File that a running demonstration locks."""

OWN = ("dagster", EVENTS, LOGS, "pipelines", "servers")
"""Folders that the demonstration makes, and removes when it runs again."""


@contextlib.contextmanager
def fresh(data_dir: Path) -> Iterator[None]:
    """Lock the folder, and remove the data of an earlier demonstration.

    Raises:
        ConfigurationError: the folder holds other data, another demonstration runs in it, or it cannot
            be written to.
    """
    with contextlib.ExitStack() as held:
        try:
            _refuse_other_data(data_dir)
            make_private_dir(data_dir)
            # The mark comes first: after a crash the next demonstration may clear the folder.
            (data_dir / MARK).write_text(
                f"`make demo` made this folder. Run again, it removes {', '.join(OWN)}.\n"
            )
            lock = held.enter_context((data_dir / LOCK).open("w"))
            _lock(lock.fileno(), data_dir)
            # Servers of an earlier demonstration hold files of the folders that are removed.
            embedded.stop(data_dir)
            for name in _names(data_dir).intersection(OWN):
                shutil.rmtree(data_dir / name)
        except OSError as error:
            where = error.filename or data_dir
            raise ConfigurationError(
                f"cannot use {where} (OBS_DATA_DIR): {error.strerror or error}"
            ) from None
        yield


def _refuse_other_data(data_dir: Path) -> None:
    if _names(data_dir) and not (data_dir / MARK).exists():
        raise ConfigurationError(
            f"{data_dir} holds data that the demo did not make: set OBS_DATA_DIR to an empty folder"
        )
    others = _names(data_dir / EVENTS) - set(FILES)
    if others:
        raise ConfigurationError(
            f"{data_dir / EVENTS} holds {min(others)}, which the demo did not write "
            "and would remove: move it elsewhere"
        )


def _names(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    return {path.name for path in folder.iterdir()}


def _lock(file: int, data_dir: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigurationError(
            f"another demo is running in {data_dir}: wait for it"
        ) from None
