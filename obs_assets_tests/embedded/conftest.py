"""Servers that a test may kill, in a data folder of their own."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from obs_assets import embedded
from obs_assets.embedded.process import is_gone


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
