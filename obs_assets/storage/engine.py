"""DuckDB, the engine that computes frames: connections with bounded memory, and its errors as ours.

An error of DuckDB can quote events, so `computing` drops its text. A failure of a user's function
passes through DuckDB as a name: `wrap_failure` makes the error to raise inside DuckDB, and
`unwrap_failure` finds the failure outside.
"""

import contextlib
import itertools
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from obs_assets.errors import ObsError, PermanentError, TransientError
from obs_assets.storage.disk import make_private_dir

MOST_THREADS = 8
"""Threads of a connection. Each holds data of its own beside the memory limit."""


def threads_on(cores: int) -> int:
    """Threads of a connection on a machine with so many cores: one for each, `MOST_THREADS` at most."""
    return min(cores, MOST_THREADS)


def memory_for(threads: int) -> str:
    """Memory limit of DuckDB for a number of threads: 256 MB each, 1,000 MB at least.

    Eight threads that share 1 GB cannot sort an hour of a million events.
    """
    return f"{max(1000, 256 * threads)}MB"


def connect(
    temp_dir: Path, *, memory_limit: str | None = None, threads: int | None = None
) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with bounded memory that never uses the network.

    Args:
        temp_dir: folder for data beyond the memory limit. It is private, because data before
            redaction can be in it.
        memory_limit: memory that DuckDB may use, for example ``512MB``; by default `memory_for` its
            threads.
        threads: number of threads; by default `threads_on` this machine.
    """
    options: dict[str, str | bool | int | float | list[str]] = {
        "temp_directory": str(make_private_dir(temp_dir)),
        "autoinstall_known_extensions": False,
        "preserve_insertion_order": True,
        "TimeZone": "UTC",
    }
    connection = duckdb.connect(config=options)
    if threads is None:
        ((cores,),) = connection.sql("SELECT current_setting('threads')").fetchall()
        threads = threads_on(cores)
    limit = memory_limit or memory_for(threads)
    # The progress bar would be written between the lines of a command's output.
    connection.execute(
        f"SET threads = {threads}; SET memory_limit = '{limit}'; SET enable_progress_bar = false"
    )
    return connection


def connect_to_stream(temp_dir: Path, path: Path) -> duckdb.DuckDBPyConnection:
    """A connection that streams a Parquet file in as little memory as possible.

    DuckDB uses all the memory that it may use. Measured, it needs less than three times the largest
    row group.
    """
    largest = 0
    if path.exists():
        stored = pq.read_metadata(path)
        groups = map(stored.row_group, range(stored.num_row_groups))
        largest = max((group.total_byte_size for group in groups), default=0)
    limit_mib = max(256, 3 * largest // 2**20)
    return connect(temp_dir, threads=1, memory_limit=f"{limit_mib}MiB")


_at_work: set[duckdb.DuckDBPyConnection] = set()
"""Connections within `computing`, of all threads."""


def interrupt_queries() -> None:
    """Interrupt the queries of all threads within `computing`; each raises an error of ours."""
    # A copy, because other threads change the set at the same time.
    for connection in list(_at_work):
        connection.interrupt()


@contextlib.contextmanager
def computing(work: str, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Within the block, turn errors of DuckDB into errors of ours, without their text.

    Args:
        work: name of the work for the message, for example ``raw_events 2025-12-04-10:00``.
        connection: runs the queries of the block; `interrupt_queries` interrupts it.

    Raises:
        ObsError: a user's function failed: the failure that was passed to `wrap_failure`.
        TransientError: a file cannot be read or written, or memory is short.
        PermanentError: DuckDB refused the data.
        KeyboardInterrupt: a signal cancelled the run during a query.
    """
    _at_work.add(connection)
    try:
        with interruptible():
            yield
    except (duckdb.Error, UnicodeDecodeError, OSError) as error:
        # A UnicodeDecodeError comes from DuckDB too: it can cut a quoted text within a character.
        if isinstance(error, OSError) and not is_duckdb_error(error):
            raise
        failure = unwrap_failure(error)
        if failure is not None:
            raise failure from None
        first_line = f"{error}\n".splitlines()[0]
        if first_line.startswith(("IO Error: ", "Out of Memory Error: ")):
            raise TransientError(f"{work}: {first_line}") from None
        kind = type(error).__name__
        if isinstance(error, OSError):
            # Arrow turns every error into the same exception; the text begins with DuckDB's kind.
            kind = first_line.partition(":")[0]
        raise PermanentError(f"{work}: DuckDB refused the hour ({kind})") from None
    finally:
        _at_work.discard(connection)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within the block, an interrupt during a query stays an interrupt.

    DuckDB swallows the exception of a signal's handler and raises a `RuntimeError` of its own, which would count as a
    failure of the run instead of its cancellation.

    Raises:
        KeyboardInterrupt: a signal arrived during a query.
    """
    try:
        yield
    except RuntimeError as error:
        if str(error) != _INTERRUPTED:
            raise
        raise KeyboardInterrupt from None


_INTERRUPTED = "Query interrupted"
"""DuckDB's text for an exception of a signal's handler."""


def is_duckdb_error(error: BaseException) -> bool:
    """Whether Arrow made this error from an error of DuckDB, while it read a stream.

    An error of the operating system has a number; an error that Arrow makes of DuckDB's text has none.
    """
    return isinstance(error, OSError) and error.errno is None


MOST_FAILURES = 100
"""Largest number of failures that wait for `unwrap_failure`. A query on several threads can wrap several failures,
and only the first is unwrapped. The oldest are removed."""

_failures: dict[str, ObsError] = {}
_failures_lock = threading.Lock()
_numbers = itertools.count()
_FAILURE = re.compile(r"function-failure-\d+")
"""Name of a failure. DuckDB turns an exception into text, so only the name comes through."""


def wrap_failure(failure: ObsError) -> RuntimeError:
    """An error to raise inside DuckDB, from which `unwrap_failure` finds the failure outside."""
    name = f"function-failure-{next(_numbers)}"
    with _failures_lock:
        _failures[name] = failure
        while len(_failures) > MOST_FAILURES:
            del _failures[next(iter(_failures))]
    return RuntimeError(name)


def unwrap_failure(error: BaseException) -> ObsError | None:
    """The failure that was wrapped in an error of DuckDB; None for other errors."""
    found = _FAILURE.search(str(error))
    if found is None:
        return None
    with _failures_lock:
        return _failures.pop(found[0], None)
