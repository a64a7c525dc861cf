"""The log of a server. It is written beside the work of the server: a program that stops reading it stops nothing."""

import logging
import os
import queue
import sys
import threading

MOST_LINES = 10_000
"""Lines that wait for a program that reads the log; further lines are counted and left out."""

LAST_LINES_S = 1.0
"""Seconds in which the last lines are written when the process ends."""


def write_log() -> None:
    """Write records from INFO on to standard error, from now on."""
    form = "%(asctime)s %(levelname)s %(message)s"
    writer = _Writer(sys.stderr.fileno())
    logging.basicConfig(level=logging.INFO, format=form, handlers=[writer])


class _Writer(logging.Handler):
    """Writes lines in a thread: a write into a full pipe waits, and the event loop must not.

    Args:
        file: descriptor of the file that takes the lines.
    """

    def __init__(self, file: int) -> None:
        super().__init__()
        self._file = file
        self._lines: queue.Queue[str] = queue.Queue(MOST_LINES)
        self._left_out = 0
        threading.Thread(target=self._write_on, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._left_out += 1

    def flush(self) -> None:
        """Wait for a moment until the lines are written; Python calls it when the process ends."""
        with self._lines.all_tasks_done:
            self._lines.all_tasks_done.wait_for(
                lambda: not self._lines.unfinished_tasks, LAST_LINES_S
            )

    def _write_on(self) -> None:
        while True:
            line = self._lines.get()
            left_out, self._left_out = self._left_out, 0
            if left_out:
                self._write(f"{left_out:,} lines are left out: the log was not read in time")
            self._write(line)
            self._lines.task_done()

    def _write(self, line: str) -> None:
        # Not by `sys.stderr`: Python ends only when no thread waits in it.
        rest = f"{line}\n".encode(errors="backslashreplace")
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            # The program that read the log has ended: the server goes on without a log.
            return
