"""Redaction in several processes: within a process, Python runs only a single thread at a time.

A worker is a process that runs `main`. It reads vectors of events from its standard input, and writes to its standard
output the outcomes of the events in which a trigger fires. Events arrive as a stream of Arrow record batches. The
schema of the stream holds the configuration and the key, so that no other process sees them. Outcomes are pickled,
since Arrow would import pandas to make arrays of them. A worker ends at the end of its input, so that it does not
outlive the process that started it.
"""

import contextlib
import gc
import os
import pickle
import queue
import subprocess
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Self, cast

import duckdb
import pyarrow as pa

from obs_assets.errors import TransientError
from obs_assets.transforms.redact.config import RedactConfig
from obs_assets.transforms.redact.in_place import Outcome
from obs_assets.transforms.redact.redactor import redactor_of

MANY = 200_000
"""Events of an hour from which starting workers saves time."""

MOST = 8
"""The largest number of workers: a single process cannot send events to more workers fast enough."""

_EVENTS = pa.schema([("event", pa.string())])


class Workers:
    """Processes that redact with the same configuration.

    Args:
        config: the ``redact`` block of the pipeline.
        hash_key: the key of ``hash`` tokens; needed only for the mode ``hash``.
        count: number of processes. Each needs 150 MB, and 0.6 seconds of a core before it runs at full speed.
    """

    def __init__(self, config: RedactConfig, hash_key: bytes | None, count: int) -> None:
        told = {
            b"config": config.model_dump_json(round_trip=True).encode(),
            b"hash_key": hash_key or b"",
        }
        self._all = [_Worker(_EVENTS.with_metadata(told)) for _ in range(count)]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._all:
            self._idle.put(worker)

    def redact_all(self, events: pa.StringArray) -> dict[int, Outcome]:
        """Do the same as `Redactor.redact_all` in the next idle worker.

        Raises:
            TransientError: the worker has ended.
        """
        worker = self._idle.get()
        try:
            return worker.redact_all(events)
        finally:
            self._idle.put(worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for worker in self._all:
            worker.close()


@contextlib.contextmanager
def workers_for(
    connection: duckdb.DuckDBPyConnection,
    config: RedactConfig,
    hash_key: bytes | None,
    *,
    needed: bool,
) -> Iterator[Workers | None]:
    """A worker for each thread of a connection, at most `MOST`; None without need, or with a single thread.

    Args:
        connection: its setting ``threads`` is read.
        config: the ``redact`` block of the pipeline.
        hash_key: the key of ``hash`` tokens.
        needed: whether the hour is large enough for workers.
    """
    threads = 1
    if needed and config.enabled:  # a small hour saves the time of this query
        ((threads,),) = connection.sql("SELECT current_setting('threads')").fetchall()
    if threads == 1:
        yield None
    else:
        with Workers(config, hash_key, min(threads, MOST)) as workers:
            yield workers


class _Worker:
    """A process, and the streams to it and from it."""

    def __init__(self, schema: pa.Schema) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - this very module
            # -P: a file in the current folder must not replace a module
            [sys.executable, "-P", "-c", f"from {__name__} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Bytes: a vector of events passes in a few pieces, which takes a tenth less time
            pipesize=1 << 20,
            # Ctrl-C must not reach the workers: each of them would print an error
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self._to, self._from = (
            cast("IO[bytes]", self._process.stdin),
            cast("IO[bytes]", self._process.stdout),
        )
        self._requests = pa.ipc.new_stream(self._to, schema)

    def redact_all(self, events: pa.StringArray) -> dict[int, Outcome]:
        try:
            self._requests.write_batch(pa.record_batch([events], schema=_EVENTS))
            self._to.flush()
            return cast("dict[int, Outcome]", pickle.load(self._from))  # noqa: S301 - from our own process
        except (OSError, EOFError, pickle.UnpicklingError):
            self._process.kill()
            status = self._process.wait()
        raise TransientError(
            f"a process that redacts has ended (status {status}; -9 is what the system does when memory is short): "
            "materialize the hour again"
        )

    def close(self) -> None:
        for stream in (self._to, self._from):
            # A worker that has ended did not read all bytes
            with contextlib.suppress(OSError):
                stream.close()
        self._process.wait()


def main() -> None:
    """Redact the events from standard input until its end."""
    answers = os.fdopen(os.dup(1), "wb")
    # A user's validator may print: its text must not get between the answers
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    # The process that started this worker may end in the middle of a request or an answer
    with (
        contextlib.suppress(pa.ArrowInvalid, BrokenPipeError),
        pa.ipc.open_stream(sys.stdin.buffer) as requests,
    ):
        told = requests.schema.metadata
        redactor = redactor_of(
            RedactConfig.model_validate_json(told[b"config"]), told[b"hash_key"] or None
        )
        # All that exists by now stays: without this, Python searches it for garbage again and again
        gc.freeze()
        for batch in requests:
            pickle.dump(redactor.redact_all(batch.column(0)), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
