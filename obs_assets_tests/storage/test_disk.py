"""Locks of files."""

import threading
import time
from pathlib import Path

import pytest

from obs_assets.storage.disk import interrupt_waits, locked


def test_a_wait_for_a_lock_can_be_interrupted(tmp_path: Path) -> None:
    """It ends as if its time were over; the next wait is not touched by that."""
    path = tmp_path / "lock"
    ended, deadline = threading.Event(), time.monotonic() + 30

    def wait() -> None:
        with pytest.raises(BlockingIOError), locked(path, wait_s=60):
            pass
        ended.set()

    with locked(path):
        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        while not ended.wait(0.02):
            assert time.monotonic() < deadline
            interrupt_waits()
    with locked(path, wait_s=60):
        pass
