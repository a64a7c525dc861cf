"""A frame as the bytes of objects: the same frame and options, the same bytes, streamed.

A line is the event with one more field at its end::

    {…,"_obs":{"row_uid":"…","weight":10.0,"hour":"2025-12-04-10:00"}}

Lines are deflated in blocks of one size, each on its own, on all cores, and put together into one gzip member as
``pigz`` does: any reader of gzip reads it, and neither threads nor batches show in the bytes. zlib-ng is used because
its output depends on the level alone, not on the processor (ISA-L's does), and because it has zlib's levels.
"""

import hashlib
import os
import tempfile
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from zlib_ng import zlib_ng

from obs_assets.destinations.base import Column, Page
from obs_assets.destinations.s3.config import MIB, S3Config
from obs_assets.events import LINEAGE, MEANINGS, PROMOTED, Frame, append_fields, quote
from obs_assets.hours import Hour

BATCH_ROWS = 2048
LONGEST_LINE = 32 * MIB
BLOCK = MIB
THREADS = min(os.cpu_count() or 1, 4)

_SUFFIX = r"""'(,?"_obs":\{"row_uid":"([^"]*)","weight":[^,{}]*,"hour":"[^"]*"\})\}$', ['suffix', 'row_uid']"""
_LONGEST_SUFFIX = 200

_GZIP_HEADER = bytes.fromhex("1f8b0800000000000003")  # neither time nor file name
SMALLEST = 8  # of zlib-ng's levels: its 9 makes JSON lines larger than its 6
_LAST_BLOCK = bytes.fromhex("0300")  # deflate's shortest: empty and final


# -- lines -------------------------------------------------------------------------------------------------------------


def archived_event(event: str) -> str:
    """SQL for an event as a line holds it: a field ``_obs`` of its own is called ``_obs_original``.

    An event has such a field when it was read from an archive of this product. Two fields ``_obs`` in
    one line would make readers count with the wrong weight.
    """
    # An escape such as \\u005f may write the key in another way.
    may_have = f"""(contains({event}, '"_obs"') OR contains({event}, '\\u00'))"""
    patched = (
        f"""(json_merge_patch({event}, '{{"_obs": null, "_obs_original": null}}')::VARCHAR)"""
    )
    own = f"""concat(',"_obs_original":', json_extract({event}, '$._obs'))"""
    moved = append_fields(patched, own)
    return (
        f"CASE WHEN {may_have} AND json_exists({event}, '$._obs') THEN {moved} ELSE {event} END"
    )


def line_of(frame: Frame, hour: Hour) -> Frame:
    """A column ``line``: each event with ``_obs``, and a line feed."""
    added = f"""concat(',"_obs":{{"row_uid":"', row_uid, '","weight":', weight, ',"hour":"{hour}"}}') AS added"""
    return frame.project(f"event, {added}").project(
        f"concat({append_fields('event', 'added')}, chr(10)) AS line"
    )


def lines_of(connection: duckdb.DuckDBPyConnection, path: Path) -> Frame:
    """A column ``line`` of the lines of a file; NULL for one that is not JSON."""
    options = f"maximum_object_size={LONGEST_LINE}, ignore_errors=true"
    return connection.sql(
        f"SELECT json::VARCHAR AS line FROM read_ndjson_objects({quote(str(path))}, {options})"
    )


def event_of(lines: Frame) -> Frame:
    """The reverse of `line_of`, on the text: ``row_uid`` (NULL without ``_obs``), ``event``, and ``line`` as it was."""
    found = lines.project(
        f"line, regexp_extract(right(line, {_LONGEST_SUFFIX}), {_SUFFIX}) AS found"
    )
    return found.project(
        "nullif(found.row_uid, '') AS row_uid, CASE WHEN found.suffix = '' THEN line "
        "ELSE left(line, length(line) - length(found.suffix) - 1) || '}' END AS event, line"
    )


def rows_of(connection: duckdb.DuckDBPyConnection, path: Path) -> Frame:
    """The rows of an object in a file, in its order: ``row_uid``, ``event`` and ``length``, bytes that it took there.

    A row that is no event of ours has no row_uid; one that is no JSON has no event either.
    """
    if path.suffix == ".parquet":
        return connection.read_parquet(str(path)).project(
            "row_uid, event, strlen(event) AS length"
        )
    return event_of(lines_of(connection, path)).project(
        "row_uid, event, strlen(line) + 1 AS length"
    )


# -- objects -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Packed:
    """An object before its upload; ``file`` stands at its beginning and is gone once closed."""

    file: IO[bytes]
    rows: int
    size_bytes: int
    uncompressed_bytes: int
    sha256: str


def pack(frame: Frame, hour: Hour, config: S3Config) -> Generator[Packed, None, None]:
    """Pack an hour into objects, one after the other; whoever takes one closes it."""
    if config.format == "parquet":
        yield from _pack_parquet(frame, config)
    else:
        yield from _pack_lines(line_of(frame, hour), config)


def packed_size(frame: Frame, hour: Hour, config: S3Config) -> int:
    """Bytes of the objects that an hour would be packed into."""
    size = 0
    with closing(pack(frame, hour, config)) as objects:
        for packed in objects:
            with packed.file:
                size += packed.size_bytes
    return size


def archive_page(config: S3Config) -> Page:
    """Fields of a line of the archive, for the catalogue; a Parquet object says its columns itself."""
    if config.format != "jsonl":
        return Page()
    own = Column("…", "any", "the event's own fields, redacted, as they were written")
    uid = Column("_obs.row_uid", "string", MEANINGS["row_uid"])
    weight = Column("_obs.weight", "float", MEANINGS["weight"])
    of_hour = Column("_obs.hour", "string", "its hour, as Dagster's partition key")
    return Page(columns=(own, uid, weight, of_hour))


class _Sink:
    """A temporary file, in memory while it is small, that hashes what is written."""

    def __init__(self) -> None:
        self.file = tempfile.SpooledTemporaryFile(max_size=16 * MIB)  # noqa: SIM115 - handed on open, in `Packed`
        self._sha256 = hashlib.sha256()
        self.closed = False

    def write(self, stored: Any) -> int:
        self._sha256.update(stored)
        self.file.write(stored)
        return len(stored)

    def tell(self) -> int:
        return self.file.tell()

    def flush(self) -> None:
        """Nothing is held back."""

    def packed(self, rows: int, uncompressed_bytes: int) -> Packed:
        size = self.file.tell()
        self.file.seek(0)
        return Packed(self.file, rows, size, uncompressed_bytes, self._sha256.hexdigest())


class Gzip:
    """Blocks as one gzip member, deflated by a pool, written in order.

    Args:
        level: zlib's, 1 to 9.
        write: takes the bytes.
        pool: deflates.
    """

    def __init__(
        self, level: int, write: Callable[[bytes], Any], pool: ThreadPoolExecutor
    ) -> None:
        self._level = level
        self._write = write
        self._pool = pool
        self._waiting: deque[Future[tuple[bytes, int, int]]] = deque()
        self._crc = self._size = 0
        write(_GZIP_HEADER)

    def add(self, block: bytes) -> None:
        """Take a block; waits while too many are on their way."""
        self._waiting.append(self._pool.submit(_deflate, block, self._level))
        while len(self._waiting) > 2 * THREADS:
            self._store()

    def finish(self) -> None:
        """Write what is left, and the trailer."""
        while self._waiting:
            self._store()
        trailer = self._crc.to_bytes(4, "little") + (self._size % 2**32).to_bytes(4, "little")
        self._write(_LAST_BLOCK + trailer)

    def _store(self) -> None:
        deflated, crc, size = self._waiting.popleft().result()
        self._crc = zlib_ng.crc32_combine(self._crc, crc, size)
        self._size += size
        self._write(deflated)


def _deflate(block: bytes, level: int) -> tuple[bytes, int, int]:
    """A block as raw deflate that ends on a byte and is not the last; its CRC and its size."""
    compressor = zlib_ng.compressobj(min(level, SMALLEST), zlib_ng.DEFLATED, -15)
    deflated = compressor.compress(block) + compressor.flush(zlib_ng.Z_SYNC_FLUSH)
    return deflated, zlib_ng.crc32(block), len(block)


class _LinesPacker:
    """One object of lines."""

    def __init__(self, config: S3Config, pool: ThreadPoolExecutor) -> None:
        self._sink = _Sink()
        self._gzip = (
            Gzip(config.compression_level, self._sink.write, pool)
            if config.compression
            else None
        )
        self._add = self._gzip.add if self._gzip else self._sink.write
        self._pending = bytearray()
        self._rows = 0
        self.uncompressed_bytes = 0

    def write(self, text: memoryview, rows: int) -> None:
        self._rows += rows
        self.uncompressed_bytes += len(text)
        self._pending += text
        whole = len(self._pending) // BLOCK * BLOCK
        with memoryview(self._pending) as pending:
            for start in range(0, whole, BLOCK):
                self._add(bytes(pending[start : start + BLOCK]))
        del self._pending[:whole]

    def finish(self) -> Packed:
        if self._pending:
            self._add(bytes(self._pending))
        if self._gzip:
            self._gzip.finish()
        return self._sink.packed(self._rows, self.uncompressed_bytes)


def _pack_lines(lines: Frame, config: S3Config) -> Generator[Packed, None, None]:
    target = config.part_size_mb * MIB
    packer: _LinesPacker | None = None
    with ThreadPoolExecutor(THREADS, "deflate") as pool:
        for batch in lines.to_arrow_reader(BATCH_ROWS):
            text, ends = _text(batch.column(0))
            start = first = 0
            while first < len(ends):
                packer = packer or _LinesPacker(config, pool)
                stop = _reaching(ends, start + target - packer.uncompressed_bytes)
                end = int(ends[stop - 1])
                packer.write(text[start:end], stop - first)
                start, first = end, stop
                if packer.uncompressed_bytes >= target:
                    yield packer.finish()
                    packer = None
        if packer:
            yield packer.finish()


def _text(column: Any) -> tuple[memoryview, npt.NDArray[np.int64]]:
    """A column of strings as one text, and where each ends in it: Arrow's own buffers, nothing is copied."""
    column = column.cast(pa.large_string())
    _, offsets_buffer, data = column.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[
        column.offset : column.offset + len(column) + 1
    ]
    return memoryview(data)[offsets[0] : offsets[-1]], offsets[1:] - offsets[0]


def _reaching(ends: npt.NDArray[np.int64], size: int) -> int:
    """How many strings it takes to reach a size, all of them if they do not."""
    return min(int(np.searchsorted(ends, size)) + 1, len(ends))


# -- Parquet -----------------------------------------------------------------------------------------------------------

GROUP_ROWS = 16_384
GROUP_BYTES = 8 * MIB
PARQUET_COLUMNS = (*LINEAGE, *PROMOTED, "weight", "event")


class _ParquetPacker:
    """One Parquet file, whose row groups end after so many rows or bytes of ``event``."""

    def __init__(self, config: S3Config, schema: Any) -> None:
        self._sink = _Sink()
        compression: dict[str, Any] = (
            {"compression": "zstd", "compression_level": config.compression_level}
            if config.compression
            else {"compression": "none"}
        )
        dictionaries = [
            name
            for name in schema.names
            if name not in {"row_uid", "event", "error", "trace_id"}
        ]
        self._writer = pq.ParquetWriter(
            self._sink, schema, use_dictionary=dictionaries, **compression
        )
        self._group: list[Any] = []
        self._group_rows = self._group_bytes = self._rows = 0
        self.uncompressed_bytes = 0

    @property
    def room(self) -> tuple[int, int]:
        """Rows and bytes that still go into the row group."""
        return GROUP_ROWS - self._group_rows, GROUP_BYTES - self._group_bytes

    def write(self, batch: Any, size: int) -> None:
        self._group.append(batch)
        self._group_rows += len(batch)
        self._group_bytes += size
        self._rows += len(batch)
        self.uncompressed_bytes += size
        if min(self.room) <= 0:
            self._end_group()

    def finish(self) -> Packed:
        self._end_group()
        self._writer.close()
        return self._sink.packed(self._rows, self.uncompressed_bytes)

    def _end_group(self) -> None:
        if self._group:
            self._writer.write_table(
                pa.Table.from_batches(self._group), row_group_size=GROUP_ROWS
            )
        self._group, self._group_rows, self._group_bytes = [], 0, 0


def _pack_parquet(frame: Frame, config: S3Config) -> Generator[Packed, None, None]:
    target = config.part_size_mb * MIB
    packer: _ParquetPacker | None = None
    for batch in frame.project(", ".join(PARQUET_COLUMNS)).to_arrow_reader(BATCH_ROWS):
        _, ends = _text(batch.column(len(PARQUET_COLUMNS) - 1))
        start = first = 0
        while first < len(ends):
            packer = packer or _ParquetPacker(config, batch.schema)
            rows, size = packer.room
            stop = _reaching(ends, start + min(size, target - packer.uncompressed_bytes))
            stop = min(stop, first + rows)
            end = int(ends[stop - 1])
            packer.write(batch.slice(first, stop - first), end - start)
            start, first = end, stop
            if packer.uncompressed_bytes >= target:
                yield packer.finish()
                packer = None
    if packer:
        yield packer.finish()
