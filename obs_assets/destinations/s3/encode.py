"""A frame as the bytes of objects. The same frame and options give the same bytes.

A line is the event with another field at its end::

    {…,"_obs":{"row_uid":"…","weight":10.0,"hour":"2025-12-04-10:00"}}

Under a mapping, a line is the mapped fields, then the event in ``data``, then this field with the name of the
mapping.

Lines are compressed in blocks of equal size, in parallel, and joined into a single gzip member, as
``pigz`` does. So each reader of gzip reads the objects, and their bytes depend neither on the number
of threads nor on batches. The output of zlib-ng depends on the level alone; the output of ISA-L
depends on the processor too.
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
from obs_assets.destinations.mapping import (
    WHOLE,
    MappingName,
    fields_of,
    line_sql,
    of_frame,
)
from obs_assets.destinations.s3.config import MIB, S3Config
from obs_assets.events import LINEAGE, MEANINGS, PROMOTED, Frame, append_fields, quote
from obs_assets.hours import Hour

BATCH_ROWS = 2048
"""Rows that are read from the frame at a time."""

LONGEST_LINE = 32 * MIB
"""Longest line of an archive that can be read back, in bytes."""

BLOCK = MIB
"""Bytes of lines that are compressed at a time."""

THREADS = min(os.cpu_count() or 1, 4)
"""Threads that compress blocks."""

# The added field at the end of a line, and the row's identity in it.
_SUFFIX = r"""'(,?"_obs":\{"row_uid":"([^"]*)","weight":([^,{}]*),"hour":"[^"]*"(?:,"mapping":"([a-z_]*)")?\})\}$',
    ['suffix', 'row_uid', 'weight', 'mapping']"""
_LONGEST_SUFFIX = 200
"""Characters at the end of a line in which that field is searched for."""

_GZIP_HEADER = bytes.fromhex("1f8b0800000000000003")
"""Header of a gzip member, without time and file name."""

SMALLEST = 8
"""The level of zlib-ng with the smallest output: with 9, JSON lines are larger than with 6."""

_LAST_BLOCK = bytes.fromhex("0300")
"""The shortest last block of deflate, which is empty."""


# -- lines -----------------------------------------------------------------------------------------


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
    has = f"{may_have} AND json_exists({event}, '$._obs')"
    return f"CASE WHEN {has} THEN {moved} ELSE {event} END"


def line_of(frame: Frame, hour: Hour, mapping: MappingName) -> Frame:
    """A column ``line``: each event with the field ``_obs``, and a line feed at the end."""
    # Without a mapping, the bytes are those of releases that had none.
    named = "" if mapping == "none" else f',"mapping":"{mapping}"'
    row = """',"_obs":{"row_uid":"', row_uid, '","weight":', weight"""
    added = f"""concat({row}, ',"hour":"{hour}"{named}}}') AS added"""
    line = f"concat({append_fields('event', 'added')}, chr(10)) AS line"
    text = f"{line_sql(mapping)} AS event"
    return frame.project(f"{text}, {added}").project(line)


def lines_of(connection: duckdb.DuckDBPyConnection, path: Path) -> Frame:
    """A column ``line`` with the lines of a file; NULL for a line that is not JSON."""
    options = f"maximum_object_size={LONGEST_LINE}, ignore_errors=true"
    return connection.sql(
        f"SELECT json::VARCHAR AS line FROM read_ndjson_objects({quote(str(path))}, {options})"
    )


def event_of(lines: Frame) -> Frame:
    """The reverse of `line_of`.

    The text is cut, not parsed, so that numbers keep their digits.

    Returns:
        ``row_uid`` and ``weight`` (NULL without ``_obs``), ``event``, and the unchanged ``line``.
    """
    found = lines.project(
        f"line, regexp_extract(right(line, {_LONGEST_SUFFIX}), {_SUFFIX}) AS found"
    )
    # No text of a mapped field can hold this key: in it, a quote has a backslash before it.
    key = quote(f',"{WHOLE}":')
    event = (
        "CASE WHEN found.suffix = '' THEN line "
        "WHEN found.mapping = '' THEN left(line, length(line) - length(found.suffix) - 1) || '}' "
        f"ELSE substr(line, strpos(line, {key}) + length({key}), "
        f"length(line) - length(found.suffix) - strpos(line, {key}) - length({key})) END"
    )
    return found.project(
        "nullif(found.row_uid, '') AS row_uid, try_cast(found.weight AS DOUBLE) AS weight, "
        f"{event} AS event, line"
    )


def rows_of(connection: duckdb.DuckDBPyConnection, path: Path) -> Frame:
    """The rows of an object in a file, in their order: ``row_uid``, ``weight``, ``event``, and ``length`` in bytes.

    A line that this package did not write has no ``row_uid``; a line that is not JSON has no
    ``event`` either.
    """
    if path.suffix == ".parquet":
        rows = connection.read_parquet(str(path))
        # An archive of frames from before sampling has no weights.
        weight = "weight"
        if weight not in rows.columns:
            weight = "NULL::DOUBLE AS weight"
        return rows.project(f"row_uid, {weight}, event, strlen(event) AS length")
    rows = event_of(lines_of(connection, path))
    # A line feed belongs to each line.
    return rows.project("row_uid, weight, event, strlen(line) + 1 AS length")


# -- objects ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Packed:
    """An object before its upload.

    Attributes:
        file: the object's bytes, at their begin; closing the file deletes it.
        rows: number of rows in the object.
        size_bytes: size of the object.
        uncompressed_bytes: size before compression.
        sha256: SHA-256 of the bytes, 64 hexadecimal digits.
    """

    file: IO[bytes]
    rows: int
    size_bytes: int
    uncompressed_bytes: int
    sha256: str


def pack(
    frame: Frame,
    hour: Hour,
    config: S3Config,
    *,
    batch_rows: int = BATCH_ROWS,
) -> Generator[Packed, None, None]:
    """Pack an hour into objects, in order. The caller closes the file of each object.

    The bytes do not depend on ``batch_rows``, the rows that are read from the frame at a time.
    """
    if config.format == "parquet":
        yield from _pack_parquet(frame, config, batch_rows)
    else:
        yield from _pack_lines(line_of(frame, hour, config.mapping), config, batch_rows)


def packed_size(frame: Frame, hour: Hour, config: S3Config) -> int:
    """Total bytes of the objects of an hour; nothing is stored."""
    size = 0
    with closing(pack(frame, hour, config)) as objects:
        for packed in objects:
            with packed.file:
                size += packed.size_bytes
    return size


def archive_page(config: S3Config) -> Page:
    """Fields of a line of the archive, for the catalogue; a Parquet file names its columns itself."""
    if config.format != "jsonl":
        return Page()
    own = [Column("…", "any", "the event's own fields, redacted, as they were written")]
    if config.mapping != "none":
        own = [
            Column(".".join(path), value.kind, value.meaning)
            for path, value in fields_of(config.mapping)
        ]
        own.append(Column(WHOLE, "object", "the whole event, redacted, as it was written"))
    uid = Column("_obs.row_uid", "string", MEANINGS["row_uid"])
    weight = Column("_obs.weight", "float", MEANINGS["weight"])
    of_hour = Column("_obs.hour", "string", "the event's hour, as Dagster's partition key")
    return Page(columns=(*own, uid, weight, of_hour))


_IN_MEMORY_BYTES = 16 * MIB
"""Size up to which an object is kept in memory."""


class _Sink:
    """A temporary file that computes the SHA-256 of its bytes. A small file stays in memory."""

    def __init__(self) -> None:
        # `Packed` takes the open file over.
        self.file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115
        self._sha256 = hashlib.sha256()
        self.closed = False

    def write(self, stored: Any) -> int:
        self._sha256.update(stored)
        self.file.write(stored)
        return len(stored)

    def tell(self) -> int:
        return self.file.tell()

    def flush(self) -> None:
        """Do nothing: Parquet's writer calls it, and no byte is buffered here."""

    def packed(self, rows: int, uncompressed_bytes: int) -> Packed:
        size = self.file.tell()
        self.file.seek(0)
        return Packed(
            self.file,
            rows,
            size,
            uncompressed_bytes,
            self._sha256.hexdigest(),
        )


class Gzip:
    """A gzip member whose blocks are compressed in parallel and written in order.

    Args:
        level: compression level, 1 to 9.
        write: writes bytes of the member.
        pool: threads that compress blocks.
    """

    def __init__(
        self,
        level: int,
        write: Callable[[bytes], Any],
        pool: ThreadPoolExecutor,
    ) -> None:
        self._level = level
        self._write = write
        self._pool = pool
        self._waiting: deque[Future[tuple[bytes, int, int]]] = deque()
        self._crc = self._size = 0
        write(_GZIP_HEADER)

    def add(self, block: bytes) -> None:
        """Compress a block; waits while the pool has many blocks, so that memory stays limited."""
        self._waiting.append(
            self._pool.submit(
                _deflate,
                block,
                self._level,
            )
        )
        while len(self._waiting) > 2 * THREADS:
            self._store()

    def finish(self) -> None:
        """Write the last blocks, and the trailer with checksum and size."""
        while self._waiting:
            self._store()
        crc = self._crc.to_bytes(4, "little")
        size = (self._size % 2**32).to_bytes(4, "little")
        self._write(_LAST_BLOCK + crc + size)

    def _store(self) -> None:
        deflated, crc, size = self._waiting.popleft().result()
        self._crc = zlib_ng.crc32_combine(self._crc, crc, size)
        self._size += size
        self._write(deflated)


def _deflate(block: bytes, level: int) -> tuple[bytes, int, int]:
    """A block as raw deflate, its CRC-32 and its size in bytes.

    The output ends at a full byte and is not marked as the last block, so that others can follow.
    """
    compressor = zlib_ng.compressobj(
        min(level, SMALLEST),
        zlib_ng.DEFLATED,
        -15,
    )
    deflated = compressor.compress(block) + compressor.flush(zlib_ng.Z_SYNC_FLUSH)
    return deflated, zlib_ng.crc32(block), len(block)


class _LinesPacker:
    """An object of JSON lines."""

    def __init__(self, config: S3Config, pool: ThreadPoolExecutor) -> None:
        self._sink = _Sink()
        self._gzip: Gzip | None = None
        self._add: Callable[[bytes], Any] = self._sink.write
        if config.compression:
            self._gzip = Gzip(config.compression_level, self._sink.write, pool)
            self._add = self._gzip.add
        self._pending = bytearray()
        self._rows = 0
        self.uncompressed_bytes = 0

    def write(self, text: memoryview, rows: int) -> None:
        self._rows += rows
        self.uncompressed_bytes += len(text)
        self._pending += text
        # Blocks do not depend on the sizes of the texts, so the bytes do not depend on batches.
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


def _pack_lines(
    lines: Frame, config: S3Config, batch_rows: int
) -> Generator[Packed, None, None]:
    """Objects of lines; an object ends after the line that reaches ``part_size_mb``."""
    target = config.part_size_mb * MIB
    packer: _LinesPacker | None = None
    with ThreadPoolExecutor(THREADS, "deflate") as pool:
        for batch in lines.to_arrow_reader(batch_rows):
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
    """The text of a column of strings, and the end of each string in it, in bytes.

    Both are Arrow's own buffers, without a copy.
    """
    column = column.cast(pa.large_string())
    _, offsets_buffer, data = column.buffers()
    # A batch can be a part of larger buffers.
    first, last = column.offset, column.offset + len(column)
    offsets = np.frombuffer(offsets_buffer, np.int64)[first : last + 1]
    return memoryview(data)[offsets[0] : offsets[-1]], offsets[1:] - offsets[0]


def _reaching(ends: npt.NDArray[np.int64], size: int) -> int:
    """Number of strings whose text reaches a size in bytes; all strings if the text is shorter."""
    return min(int(np.searchsorted(ends, size)) + 1, len(ends))


# -- Parquet ---------------------------------------------------------------------------------------

GROUP_ROWS = 16_384
"""Rows after which a row group ends."""

GROUP_BYTES = 8 * MIB
"""Bytes of ``event`` after which a row group ends."""

PARQUET_COLUMNS = (*LINEAGE, *PROMOTED, "weight", "event")


class _ParquetPacker:
    """A Parquet file. Its row groups end after `GROUP_ROWS` or `GROUP_BYTES`."""

    def __init__(self, config: S3Config, schema: Any) -> None:
        self._sink = _Sink()
        compression: dict[str, Any] = {"compression": "none"}
        if config.compression:
            level = config.compression_level
            compression = {"compression": "zstd", "compression_level": level}
        # A dictionary saves no bytes in columns whose values rarely repeat.
        varied = {"row_uid", "event", "error", "trace_id"}
        dictionaries = [name for name in schema.names if name not in varied]
        self._writer = pq.ParquetWriter(
            self._sink, schema, use_dictionary=dictionaries, **compression
        )
        self._group: list[Any] = []
        self._group_rows = self._group_bytes = self._rows = 0
        self.uncompressed_bytes = 0

    @property
    def room(self) -> tuple[int, int]:
        """Number of rows, and bytes, that fit into the present row group."""
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


def _parquet_columns(mapping: MappingName) -> str:
    """SQL of the columns of a file: ``row_uid``, ``weight`` and ``event`` have these names under every mapping."""
    if mapping == "none":
        return ", ".join(PARQUET_COLUMNS)
    named = [
        f'{of_frame(value.sql)} AS "{".".join(path)}"' for path, value in fields_of(mapping)
    ]
    return ", ".join([*LINEAGE, *named, "weight", "event"])


def _pack_parquet(
    frame: Frame, config: S3Config, batch_rows: int
) -> Generator[Packed, None, None]:
    """Parquet files; a file ends after the row that reaches ``part_size_mb`` of ``event``."""
    target = config.part_size_mb * MIB
    packer: _ParquetPacker | None = None
    for batch in frame.project(_parquet_columns(config.mapping)).to_arrow_reader(batch_rows):
        _, ends = _text(batch.column(batch.num_columns - 1))
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
