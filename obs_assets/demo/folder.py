"""The demonstration's data folder: made anew each time, and nothing removed that the demonstration did not make."""

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
LOGS = "logs"
MARK = "made-by-make-demo.txt"
LOCK = "demo.lock"
OWN = ("dagster", EVENTS, LOGS, "pipelines", "servers")
"""Folders that the demonstration makes, and removes when it runs again."""


@contextlib.contextmanager
def fresh(data_dir: Path) -> Iterator[None]:
    """Have the folder for oneself, without what an earlier demonstration left.

    Raises:
        ConfigurationError: it holds other data, or another demonstration runs in it, or it cannot be written to.
    """
    with contextlib.ExitStack() as held:
        try:
            _refuse_other_data(data_dir)
            make_private_dir(data_dir)
            (data_dir / MARK).write_text(
                f"`make demo` made this folder. Run again, it removes {', '.join(OWN)}.\n"
            )
            _take(held.enter_context((data_dir / LOCK).open("w")).fileno(), data_dir)
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
            f"{data_dir / EVENTS} holds {min(others)}, which the demo did not write and would remove: move it elsewhere"
        )


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _take(lock: int, data_dir: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigurationError(
            f"another demo is running in {data_dir}: wait for it"
        ) from None
