"""Servers that a test may kill, in a data folder of their own."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from obs_assets import embedded


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """An empty data folder with a space in its path, whose servers are killed afterwards: that is faster."""
    path = tmp_path / "a data folder"
    yield path
    for status in embedded.status(path):
        if status.pid:
            kill(status.pid)
    embedded.stop(path)
    shutil.rmtree(path, ignore_errors=True)


def pid_of(data_dir: Path, name: str) -> int:
    """The process of a server that runs."""
    (status,) = [status for status in embedded.status(data_dir) if status.name == name]
    assert status.running
    assert status.pid
    return status.pid


def kill(pid: int) -> None:
    """``kill -9``, and wait until the system has carried it out."""
    os.kill(pid, signal.SIGKILL)
    while not is_gone(pid):
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Whether a process has ended, though perhaps nobody has reaped it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
