"""Where an hour's frames and receipts lie on disk, and how they get there whole or not at all.

::

    <data_dir>/pipelines/<pipeline>/
    ├── landed/               chunks, dead letters and the landing log (see obs_assets.sources)
    ├── frames/<stage>/2025120410.parquet
    └── receipts/<stage>/2025120410.json

Frames before redaction hold personal data: folders are made for their owner alone.
"""

import contextlib
import itertools
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from obs_assets.crash import crash_point
from obs_assets.errors import ConfigurationError, MissingFrameError, ObsError, ReceiptError
from obs_assets.events import Frame
from obs_assets.hours import Hour
from obs_assets.receipts import Receipt

ROW_GROUP_SIZE = 61_440
"""Rows that one thread of DuckDB takes at a time: thirty vectors."""


_NEVER_TWICE = ("event", "row_uid", "line")
"""Columns of which a dictionary would be as long as they are."""


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
    connection.execute(f"SET threads = {threads}; SET memory_limit = '{limit}'; SET enable_progress_bar = false")
    return connection


def connect_to_stream(temp_dir: Path, path: Path) -> duckdb.DuckDBPyConnection:
    """A connection that reads one Parquet file from its beginning to its end, in no more memory than that takes.

    DuckDB fills what it is given. What it needs is the largest row group less than three times, as was measured.
    """
    largest = 0
    if path.exists():
        stored = pq.read_metadata(path)
        largest = max((stored.row_group(n).total_byte_size for n in range(stored.num_row_groups)), default=0)
    return connect(temp_dir, threads=1, memory_limit=f"{max(256, 3 * largest // 2**20)}MiB")


def make_private_dir(path: Path) -> Path:
    """Make a folder, and those above it, readable by its owner alone.

    Raises:
        ConfigurationError: it cannot be made.
    """
    try:
        for folder in reversed([path, *path.parents]):
            if not folder.exists():
                folder.mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigurationError(f"cannot make the folder {path} (OBS_DATA_DIR): {error.strerror}") from None
    return path


@contextlib.contextmanager
def replacing(path: Path, *, sync_folder: bool = True) -> Iterator[Path]:
    """Write a file aside, then put it in place in one step.

    Yields a path to write to; on success the file there is flushed to disk and renamed to ``path``, on failure removed.
    A reader, or a re-run after a crash, sees the old file or the new one, never half of one.

    Args:
        path: of the file.
        sync_folder: whether the new name is on disk at the end; who puts many files there does that once for all.

    Raises:
        ObsError: the file system refused, for example because it is full.
    """
    make_private_dir(path.parent)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(descriptor)
    aside = Path(name)
    try:
        with explained(path):
            yield aside
            sync_file(aside)
            crash_point("receipt.before_rename" if path.suffix == ".json" else "frame.before_rename")
            aside.replace(path)
            if sync_folder:
                sync_file(path.parent)
            crash_point("frame.after_rename")
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the file system's refusal to write into an error that says what to look at.

    Raises:
        ObsError: it refused, for example because it is full.
    """
    try:
        yield
    except (OSError, duckdb.IOException) as error:
        if told_by_arrow(error):
            raise
        raise ObsError(f"cannot write {path}: {_reason(error)} ({_free_space(path.parent)} free there)") from None


def told_by_arrow(error: BaseException) -> bool:
    """Whether an error is DuckDB's: what goes wrong once a stream has begun Arrow tells as an error of the system."""
    return isinstance(error, OSError) and error.errno is None and _DUCKDBS.match(str(error)) is not None


_DUCKDBS = re.compile("[A-Z][A-Za-z ]* Error: ")


def _reason(error: OSError | duckdb.IOException) -> str:
    return (error.strerror or "unknown reason") if isinstance(error, OSError) else str(error).splitlines()[0]


def sync_file(path: Path) -> None:
    """Flush a file, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free_space(folder: Path) -> str:
    numbers = os.statvfs(folder)
    return f"{numbers.f_bavail * numbers.f_frsize:,} bytes"


@dataclass(frozen=True)
class Store:
    """The frames and receipts of one pipeline.

    Attributes:
        root: ``<data_dir>/pipelines/<pipeline>``.
    """

    root: Path

    @property
    def landed_dir(self) -> Path:
        """Chunks, dead letters and the landing log."""
        return self.root / "landed"

    @property
    def temp_dir(self) -> Path:
        """Where DuckDB spills."""
        return self.root / "tmp"

    def frame_path(self, stage: str, hour: Hour) -> Path:
        """The Parquet file of a stage's hour."""
        return self.root / "frames" / stage / f"{hour.stamp}.parquet"

    def receipt_path(self, stage: str, hour: Hour) -> Path:
        """The receipt beside it."""
        return self.receipt_dir(stage) / f"{hour.stamp}.json"

    def receipt_dir(self, stage: str) -> Path:
        """A stage's receipts."""
        return self.root / "receipts" / stage

    def read_frame(self, connection: duckdb.DuckDBPyConnection, stage: str, hour: Hour) -> Frame:
        """The frame of a stage's hour, lazily.

        Raises:
            MissingFrameError: the stage has not built the hour.
        """
        return connection.read_parquet(str(self.built_frame(stage, hour)))

    def built_frame(self, stage: str, hour: Hour) -> Path:
        """The Parquet file of a stage's hour, which is there.

        Raises:
            MissingFrameError: the stage has not built the hour.
        """
        path = self.frame_path(stage, hour)
        if not path.exists():
            raise MissingFrameError(f"{stage} has no hour {hour}: materialize {stage} for it first")
        return path

    def write_frames(
        self, frames: Iterable[tuple[Hour, Sequence[Frame]]], stage: str, rows: int | None = None
    ) -> dict[Hour, Path]:
        """Compute frames of a stage and put each in place atomically; returns their paths. All are on disk then.

        Args:
            frames: of each hour the frame, or what it is made of, one after the other.
            stage: of which.
            rows: of a row group, as for `write_parquet`.
        """
        paths = {}
        for hour, (first, *more) in frames:
            paths[hour] = self.frame_path(stage, hour)
            with replacing(paths[hour], sync_folder=False) as aside:
                write_parquet(first, aside, *more, rows=rows)
        for folder in {path.parent for path in paths.values()}:
            sync_file(folder)
        return paths

    def read_receipt(self, stage: str, hour: Hour) -> Receipt:
        """The receipt of a stage's hour.

        Raises:
            MissingFrameError: there is none.
            ReceiptError: it is damaged.
        """
        try:
            return Receipt.from_json(self.receipt_path(stage, hour).read_text())
        except FileNotFoundError:
            raise MissingFrameError(f"{stage} has no receipt for {hour}: materialize {stage} for it first") from None
        except (ValueError, KeyError, TypeError):
            raise ReceiptError(f"{stage}'s receipt of {hour} is damaged: materialize {stage} for it again") from None

    def find_receipt(self, stage: str, hour: Hour) -> Receipt | None:
        """The receipt of a stage's hour, or None."""
        return self.read_receipt(stage, hour) if self.receipt_path(stage, hour).exists() else None

    def forget_receipt(self, stage: str, hour: Hour) -> None:
        """Make an hour count as not built, for the time that it is being built."""
        self.receipt_path(stage, hour).unlink(missing_ok=True)

    def write_receipt(self, receipt: Receipt, hour: Hour) -> Receipt:
        """Put a receipt in place atomically, after its frame; returns it."""
        return self.write_receipts({hour: receipt})[hour]

    def write_receipts(self, receipts: Mapping[Hour, Receipt]) -> Mapping[Hour, Receipt]:
        """Put receipts in place, each atomically, after their frames; returns them. All are on disk then."""
        paths = {self.receipt_path(receipt.stage, hour): receipt for hour, receipt in receipts.items()}
        for path, receipt in paths.items():
            with replacing(path, sync_folder=False) as aside:
                aside.write_text(receipt.to_json())
        for folder in {path.parent for path in paths}:
            sync_file(folder)
        return receipts


def write_parquet(frame: Frame, path: Path, *more: Frame, rows: int | None = None) -> None:
    """Compute frames into one Parquet file, one after the other, rows in their order, a row group at a time.

    A row group, of ``rows`` and `ROW_GROUP_SIZE` at most, is in memory when it is written and when it is read.

    DuckDB works ahead on all cores while Arrow encodes. DuckDB's own COPY would collect what its threads make until the
    memory limit stops them: with two threads and frames larger than that it is slower than with one.

    Snappy: of the codecs it takes the least time to write an hour (an eighth less than LZ4, a third less than
    Zstandard), for a file a tenth larger than LZ4's; these files are read back within minutes.
    """
    readers = (part.to_arrow_reader(min(rows or ROW_GROUP_SIZE, ROW_GROUP_SIZE)) for part in (frame, *more))
    batches = next(readers)
    repeated = [name for name in batches.schema.names if name not in _NEVER_TWICE]
    options: dict[str, Any] = {"compression": "snappy", "use_dictionary": repeated, "store_schema": False}
    with pq.ParquetWriter(path, batches.schema, write_statistics=["event_time"], **options) as file:
        for batch in itertools.chain(batches, itertools.chain.from_iterable(readers)):
            file.write_batch(batch)
