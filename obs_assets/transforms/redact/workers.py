"""Redaction by several processes: Python lets only one thread of a process at the rules at a time.

A worker is a program, `main`. It is given vectors of events on its standard input and answers on its standard output
with the outcomes of those in which a trigger fires. Events come as a stream of Arrow record batches, the configuration
and the key in its head, seen by nobody else. Outcomes go back pickled: making arrays of them has Arrow import pandas.
A worker ends with its input, so that none outlives who has started it.
"""

import contextlib
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
"""Events for which it pays to start workers."""

MOST = 8
"""Workers: more could not be fed by one process."""

_EVENTS = pa.schema([("event", pa.string())])


class Workers:
    """Processes that redact by one configuration.

    Args:
        config: what, where and how.
        hash_key: the key of ``hash`` tokens.
        count: how many processes; each takes 0.6 seconds of a core until it is warm, and 150 MB.
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
        """As `Redactor.redact_all`, by the next idle worker.

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
    """A worker for each thread of a connection, `MOST` at most, if they are needed and there are threads, or None."""
    threads = 1
    if needed and config.enabled:  # a question that a small hour does not have to pay for
        ((threads,),) = connection.sql("SELECT current_setting('threads')").fetchall()
    if threads == 1:
        yield None
    else:
        with Workers(config, hash_key, min(threads, MOST)) as workers:
            yield workers


class _Worker:
    """One process, and the streams to it and from it."""

    def __init__(self, schema: pa.Schema) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - this very module
            # -P: no file in the present folder stands in for a module
            [sys.executable, "-P", "-c", f"from {__name__} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pipesize=1 << 20,  # a vector of events in a few pieces; a tenth less time
            start_new_session=True,  # who interrupts a run does not have to hear of it from each of its processes
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
            return cast("dict[int, Outcome]", pickle.load(self._from))  # noqa: S301 - from a process of our own
        except (OSError, EOFError, pickle.UnpicklingError):
            self._process.kill()
            status = self._process.wait()
        raise TransientError(
            f"a process that redacts has ended (status {status}; -9 is what the system does when memory is short): "
            "materialize the hour again"
        )

    def close(self) -> None:
        for stream in (self._to, self._from):
            with contextlib.suppress(OSError):  # what a worker that has ended did not read
                stream.close()
        self._process.wait()


def main() -> None:
    """Redact what comes in until there is no more of it."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a user's validator prints is no answer
    # Who started it may end within a request or an answer
    with (
        contextlib.suppress(pa.ArrowInvalid, BrokenPipeError),
        pa.ipc.open_stream(sys.stdin.buffer) as requests,
    ):
        told = requests.schema.metadata
        redactor = redactor_of(
            RedactConfig.model_validate_json(told[b"config"]), told[b"hash_key"] or None
        )
        for batch in requests:
            pickle.dump(redactor.redact_all(batch.column(0)), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
