"""DuckDB, the engine that computes frames: connections with bounded memory, and its errors as ours.

An error of DuckDB may quote events, so its text goes no further than `computing`. A failure of a
user's function travels through DuckDB as a name: `wrap_failure` raises it inside, `unwrap_failure`
finds it outside.
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
"""Of a connection: each holds a part of what is read and sorted, whatever the memory limit."""


def memory_for(threads: int) -> str:
    """What DuckDB may hold with so many threads: eight that share 1 GB cannot sort an hour of a million events."""
    return f"{max(1000, 256 * threads)}MB"


def connect(
    temp_dir: Path, *, memory_limit: str | None = None, threads: int | None = None
) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with bounded memory that never reaches out to the network.

    Args:
        temp_dir: where it spills what exceeds ``memory_limit``. Protected: frames before redaction pass through it.
        memory_limit: what DuckDB may hold; by default `memory_for` its threads.
        threads: all cores by default, `MOST_THREADS` at most.
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
        threads = min(cores, MOST_THREADS)
    limit = memory_limit or memory_for(threads)
    connection.execute(
        f"SET threads = {threads}; SET memory_limit = '{limit}'; SET enable_progress_bar = false"
    )
    return connection


def connect_to_stream(temp_dir: Path, path: Path) -> duckdb.DuckDBPyConnection:
    """A connection that reads one Parquet file from its beginning to its end, in no more memory than that takes.

    DuckDB fills what it is given. What it needs is the largest row group less than three times, as was measured.
    """
    largest = 0
    if path.exists():
        stored = pq.read_metadata(path)
        largest = max(
            (stored.row_group(n).total_byte_size for n in range(stored.num_row_groups)),
            default=0,
        )
    return connect(temp_dir, threads=1, memory_limit=f"{max(256, 3 * largest // 2**20)}MiB")


_at_work: set[duckdb.DuckDBPyConnection] = set()


def interrupt_queries() -> None:
    """End the queries that other threads are at, within `computing`: each ends in an error of ours."""
    for connection in list(_at_work):
        connection.interrupt()


@contextlib.contextmanager
def computing(work: str, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Within the block, turn what DuckDB raises into errors of ours, without its text.

    Args:
        work: named in the message, for example ``raw_events 2025-12-04-10:00``.
        connection: runs the queries of the block.

    Raises:
        ObsError: a user's function failed; the error that `wrap_failure` was given.
        TransientError: a file cannot be read or written, or memory is short.
        PermanentError: DuckDB refused the data.
    """
    _at_work.add(connection)
    try:
        yield
    except (duckdb.Error, UnicodeDecodeError, OSError) as error:
        # A text that DuckDB quotes may be cut within a letter: hence UnicodeDecodeError
        if isinstance(error, OSError) and not is_duckdb_error(error):
            raise
        failure = unwrap_failure(error)
        if failure is not None:
            raise failure from None
        words = f"{error}\n".splitlines()[0]
        if words.startswith(("IO Error: ", "Out of Memory Error: ")):
            raise TransientError(f"{work}: {words}") from None
        kind = words.partition(":")[0] if isinstance(error, OSError) else type(error).__name__
        raise PermanentError(f"{work}: DuckDB refused the hour ({kind})") from None
    finally:
        _at_work.discard(connection)


def is_duckdb_error(error: BaseException) -> bool:
    """Whether an error of the system is DuckDB's, which Arrow raises once a stream has begun.

    An error of the operating system has a number; the one that Arrow makes of DuckDB's text has none.
    """
    return isinstance(error, OSError) and error.errno is None


MOST_FAILURES = 100
"""Failures that wait for `unwrap_failure`: of a query on several threads only one is asked for."""

_failures: dict[str, ObsError] = {}
_failures_lock = threading.Lock()
_numbers = itertools.count()
_FAILURE = re.compile(r"function-failure-\d+")
"""DuckDB makes text of an exception: the error itself waits under the name in that text."""


def wrap_failure(failure: ObsError) -> RuntimeError:
    """An error to raise inside of DuckDB, so that `unwrap_failure` finds the failure outside."""
    name = f"function-failure-{next(_numbers)}"
    with _failures_lock:
        _failures[name] = failure
        while len(_failures) > MOST_FAILURES:
            del _failures[next(iter(_failures))]
    return RuntimeError(name)


def unwrap_failure(error: BaseException) -> ObsError | None:
    """The failure that an error of DuckDB is about; None if it is about something else."""
    found = _FAILURE.search(str(error))
    if found is None:
        return None
    with _failures_lock:
        return _failures.pop(found[0], None)
