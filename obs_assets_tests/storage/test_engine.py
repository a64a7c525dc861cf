"""DuckDB's errors as ours."""

import signal
import threading
from pathlib import Path

import pytest

from obs_assets.storage.engine import computing, connect, interruptible


def test_an_interrupt_during_a_query_stays_an_interrupt(tmp_path: Path) -> None:
    """Ctrl-C cancels a run also while DuckDB computes; a run that failed would be repeated."""
    connection = connect(tmp_path, threads=1)
    # A process of a test run that is spread over several ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.1, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt), computing("an hour", connection):
        connection.sql(
            "SELECT sum(a.range * b.range) FROM range(10_000_000) a, range(1000) b"
        ).fetchall()
    timer.join()
    signal.signal(signal.SIGINT, before)
    connection.close()


def test_other_errors_are_not_taken_for_an_interrupt() -> None:
    """A `RuntimeError` of another cause stays what it is."""
    with pytest.raises(RuntimeError, match="other"), interruptible():
        raise RuntimeError("other")
