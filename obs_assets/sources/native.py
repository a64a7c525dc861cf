"""The native lane: reads the usual case, one JSON object per line, with NumPy, Arrow and DuckDB.

It leaves all other lines to the careful lane (`obs_assets.sources.careful`).
"""

import codecs
import contextlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obs_assets.sources import views
from obs_assets.sources.careful import FRAMES, CarefulLane, Rules, Segment
from obs_assets.sources.formats import Format, Text, Unnamed
from obs_assets.sources.keys import (
    ANYWHERE,
    examples_of,
    repeating,
    shape_at,
    untold,
    usual_paths,
)
from obs_assets.sources.reading import Reading
from obs_assets.sources.strict import IS_STRICT, doubtful_places

_STRICT = f"SELECT {IS_STRICT} AS is_strict FROM batch_lines"

ROWS_A_TASK = 8192
"""Rows of an Arrow chunk: DuckDB reads each chunk of an Arrow table with one thread."""

_BLOCK = 1 << 18
"""Bytes of a block that fits a processor's cache."""
_MOST_SEPARATORS = 64
"""Separators before or behind an event that the native lane skips."""
_BEFORE_EVENT = np.isin(np.arange(256), list(b" \t\r\n,[" + FRAMES))
_AFTER_EVENT = np.isin(np.arange(256), list(b" \t\r\n,]" + FRAMES))


@dataclass(frozen=True)
class Places:
    """Position and format of each event of a reading.

    Attributes:
        positions: position of the first bracket of the event in the batch.
        formats: place in ``rules.formats``, from 1; 0: no format fits; -1: several formats fit.
    """

    positions: npt.NDArray[np.int64]
    formats: npt.NDArray[np.int64]


def read_objects(
    connection: duckdb.DuckDBPyConnection,
    data: bytes | bytearray,
    segments: list[Segment],
    rules: Rules,
) -> tuple[Reading, Places]:
    """Read a batch of JSON objects of any format. The arguments are those of `reader.read_batch`."""
    batch = _Lines.of(data, segments)
    is_unclear = batch.first < batch.last
    is_plain = _is_plain(data, batch, rules)
    # The rest of a line or object from the segment before must be read even if it looks empty
    begun = batch.at(_begun_before(batch.starts, segments))
    is_unclear[begun], is_plain[begun] = True, False

    rows = np.flatnonzero(is_plain)
    texts = views.of(data, batch.first[rows], batch.last[rows])
    told = pa.table({"row": rows, "line": texts})
    with ThreadPoolExecutor(1) as beside:  # DuckDB alone does not use all cores
        doubtful = beside.submit(
            doubtful_places, data, batch.view, batch.bounds, rules.max_nesting
        )
        paths = usual_paths(told["line"].combine_chunks())
        told = _told(connection, told, paths)
        told = _strict(connection, told, batch.at(doubtful.result()), rules)
    told = _unique(connection, told, paths)

    careful = CarefulLane(data, batch.starts, segments, rules)
    # The careful lane reads all lines that the native lane did not accept
    is_unclear[told["row"].to_numpy()] = False
    begins = batch.bounds[:-1]
    for begin in begins[is_unclear].tolist():
        careful.read_from(begin)
    # An object of the careful lane may reach over lines that the native lane has accepted
    told = views.filter_rows(told, ~careful.covers(begins[told["row"].to_numpy()]))

    rows = told["row"].to_numpy()
    owner = np.searchsorted(batch.starts, begins[rows], side="right") - 1
    shift = np.array([segment.offset for segment in segments] + [0]) - batch.starts
    columns = {
        "file": np.array([segment.file for segment in segments], dtype=np.int32)[owner],
        "file_offset": begins[rows] + shift[owner],
        "length": (batch.last - begins)[rows],
        "line": told["line"],
    }
    lines = pa.table(columns)
    settled = np.array(careful.settled, np.int64)
    np.maximum.at(settled, owner, batch.last[rows] - batch.starts[owner])
    positions = batch.first[rows]
    formats = _formats_by_shape(told["line"], told["shape"], rules.formats)
    if careful.events:
        *values, careful_positions = zip(*careful.events, strict=True)
        columns = dict(zip(lines.column_names, values, strict=True))
        lines = pa.concat_tables([lines, pa.table(columns, lines.schema)])
        positions = np.concatenate([positions, careful_positions])
        careful_formats = [_format_of(text, rules.formats) for text in columns["line"]]
        formats = np.concatenate([formats, careful_formats])
    reading = Reading(
        lines=lines,
        dead=careful.dead_letters(),
        consumed=careful.consumed,
        settled=settled.tolist(),
        within_line=careful.within_line,
        within_object=careful.within_object,
        remarks=careful.remarks,
        begins_envelope=careful.begins_envelope,
    )
    return reading, Places(positions, formats.astype(np.int64))


@dataclass(frozen=True)
class _Lines:
    """The lines of a batch, as positions in its bytes.

    Attributes:
        view: the bytes.
        starts: begin of each segment, and the end of the last.
        bounds: begin of each line, and the end of the last.
        first, last: begin and end of the text between the separators of each line.
    """

    view: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    bounds: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]

    @classmethod
    def of(cls, data: bytes | bytearray, segments: list[Segment]) -> "_Lines":
        """The lines of the segments."""
        view = np.frombuffer(data, np.uint8)
        starts = np.cumsum([0, *(segment.length for segment in segments)])
        bounds = _line_bounds(data, starts)
        return cls(view, starts, bounds, *_trimmed(view, bounds[:-1], bounds[1:]))

    def at(self, positions: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Numbers of the lines that hold the bytes at these positions."""
        places = np.asarray(positions, np.int64)
        return np.searchsorted(self.bounds, places, side="right") - 1


def _is_plain(data: bytes | bytearray, batch: _Lines, rules: Rules) -> npt.NDArray[np.bool_]:
    """Whether a line looks like a single object, is not too long, and its text may stay as it is."""
    first, last = batch.first, batch.last
    is_plain = (first < last) & (last - first <= rules.max_event_bytes)
    is_plain[is_plain] &= batch.view[first[is_plain]] == ord("{")
    is_plain[is_plain] &= batch.view[last[is_plain] - 1] == ord("}")
    others = [*_undecodable(data, batch.bounds), *_to_be_changed(data, rules.unfold)]
    is_plain[batch.at(others)] = False
    return is_plain


def _begun_before(starts: npt.NDArray[np.int64], segments: list[Segment]) -> list[np.int64]:
    """Begins of the segments that begin within a line or object of the segment before."""
    return [
        start
        for start, segment in zip(starts[:-1], segments, strict=True)
        if (segment.within_line or segment.within_object) and segment.length
    ]


def _formats_by_shape(
    texts: pa.ChunkedArray, shapes: pa.ChunkedArray, formats: tuple[Format, ...]
) -> npt.NDArray[np.int64]:
    """Number of the format of each event.

    All events of a shape have the same keys, so only a single event of each shape is parsed.
    """
    if not formats or not len(texts):
        return np.zeros(len(texts), np.int64)
    examples, shape_of = examples_of(shapes)
    numbers = [_format_of(texts[row].as_py(), formats) for row in examples.tolist()]
    of_row: npt.NDArray[np.int64] = np.array(numbers, np.int64)[shape_of]
    return of_row


def _format_of(text: str, formats: tuple[Format, ...]) -> int:
    """Number of the format of an event, see `Places`."""
    likely = [
        (number, row)
        for number, row in enumerate(formats, start=1)
        if not isinstance(row, Text) and all(marker in text for marker in row.markers)
    ]
    if not likely:
        return 0
    event = json.loads(text)
    fitting = [(number, row) for number, row in likely if row.fits(event)]
    named = [(number, row) for number, row in fitting if not isinstance(row, Unnamed)]
    if len({row.name for _, row in named}) > 1:
        return -1
    return next((number for number, _ in named or fitting), 0)


def _told(
    connection: duckdb.DuckDBPyConnection, lines: pa.Table, paths: tuple[str, ...]
) -> pa.Table:
    """The lines that DuckDB can parse as JSON, with their ``shape`` at these paths."""
    query = f"SELECT {shape_at(paths)} AS shape FROM batch_lines"
    try:
        told = ask(connection, query, lines)
    except duckdb.InvalidInputException:  # rare, so the lines are checked only after a failure
        valid = ask(connection, "SELECT json_valid(line) AS is_json FROM batch_lines", lines)
        lines = views.filter_rows(lines, valid["is_json"].to_numpy())
        told = ask(connection, query, lines)
    return pa.table([*lines.columns, *told.columns], [*lines.column_names, *told.column_names])


def _strict(
    connection: duckdb.DuckDBPyConnection,
    told: pa.Table,
    doubtful: npt.NDArray[np.int64],
    rules: Rules,
) -> pa.Table:
    """The lines without those doubtful lines that are not strict JSON."""
    suspects = np.flatnonzero(np.isin(told["row"].to_numpy(), doubtful))
    if not len(suspects):
        return told
    lines = views.take_rows(told.select(["line"]), suspects)
    asked = ask(connection, _STRICT, lines, max_nesting=rules.max_nesting)
    is_strict = np.ones(len(told), np.bool_)
    is_strict[suspects] = asked["is_strict"].to_numpy()
    return views.filter_rows(told, is_strict)


def _unique(
    connection: duckdb.DuckDBPyConnection, told: pa.Table, paths: tuple[str, ...]
) -> pa.Table:
    """The events without those that hold a key twice."""
    if not paths:
        return views.filter_rows(told, ~repeating(told["line"], told["shape"]))
    is_repeating = untold(told["line"], told["shape"], paths)
    rows = np.flatnonzero(is_repeating)
    if len(rows):
        lines = views.take_rows(told.select(["line"]), rows)
        asked = ask(connection, f"SELECT {ANYWHERE} AS shape FROM batch_lines", lines)
        is_repeating[rows] = repeating(lines["line"], asked["shape"])
    return views.filter_rows(told, ~is_repeating)


def ask(
    connection: duckdb.DuckDBPyConnection, query: str, lines: pa.Table, **parameters: object
) -> pa.Table:
    """Result of a query over the table ``batch_lines``, which has a single column ``line``."""
    lines = lines.select(["line"])
    tasks = pa.Table.from_batches(lines.to_batches(max_chunksize=ROWS_A_TASK), lines.schema)
    connection.register("batch_lines", tasks)
    try:
        return connection.sql(query, params=parameters or None).to_arrow_table()
    # DuckDB quotes text that is not JSON, and may cut it within a UTF-8 character
    except UnicodeDecodeError:
        raise duckdb.InvalidInputException("not JSON") from None
    finally:
        connection.unregister("batch_lines")


def _trimmed(
    view: npt.NDArray[np.uint8], begins: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Begin and end of the text between the separators of each line.

    After `_MOST_SEPARATORS` separators the search stops; such a line is left to the careful lane.
    """
    first, last = begins.copy(), ends.copy()
    for edge, step, where, separators in (
        (last, -1, -1, _AFTER_EVENT),
        (first, 1, 0, _BEFORE_EVENT),
    ):
        rows = np.flatnonzero(first < last)
        for _ in range(_MOST_SEPARATORS):
            rows = rows[separators[view[edge[rows] + where]]]
            edge[rows] += step
            rows = rows[first[rows] < last[rows]]
            if not len(rows):
                break
    return first, last


def _undecodable(data: bytes | bytearray, bounds: npt.NDArray[np.int64]) -> Iterator[int]:
    """Position of the first byte that is not UTF-8 in each line with such a byte."""
    position, rest = 0, memoryview(data)
    ends = pa.py_buffer(np.array([0, len(data)]))
    whole = pa.Array.from_buffers(pa.large_string(), 1, [None, ends, pa.py_buffer(data)])
    with contextlib.suppress(pa.ArrowInvalid):
        whole.validate(full=True)
        return
    while position < len(data):
        try:
            codecs.utf_8_decode(rest[position:], "strict", True)
        except UnicodeDecodeError as error:
            wrong = position + error.start
            yield wrong
            position = int(bounds[np.searchsorted(bounds, wrong, side="right")])
        else:
            return


def _to_be_changed(data: bytes | bytearray, unfold: tuple[str, ...]) -> Iterator[int]:
    """Positions of text that must be changed (``\\u0000``), or that is to be unfolded."""
    # The search for a single byte is fast
    position = data.find(b"\\u0000", data.find(b"\\")) if b"\\" in data else -1
    while position >= 0:
        yield position
        position = data.find(b"\\u0000", position + 1)
    for name in unfold:
        key = re.escape(json.dumps(name).encode())
        for match in re.finditer(key + rb"\s*:\s*\"\s*[\[{]", data):
            yield match.start()


def _line_bounds(
    data: bytes | bytearray, starts: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Positions where lines begin, and at last the end of the data. Each segment begins a new line."""
    view = np.frombuffer(data, np.uint8)
    blocks = range(0, len(view), _BLOCK)
    found = [np.array([], np.int64)]
    for start in blocks:
        block = view[start : start + _BLOCK]
        found.append(np.flatnonzero(block == ord("\n")) + (start + 1))
    newlines = np.concatenate(found)
    # NUL ends a line too, but nearly no file has any. A run of NULs belongs to the next line
    if b"\0" in data:
        nuls = view == 0
        nuls[1:] &= view[:-1] != 0
        newlines = np.union1d(newlines, np.flatnonzero(nuls) + 1)
    places = np.searchsorted(newlines, starts)
    is_new = np.append(newlines, -1)[places] != starts
    # An empty segment begins where the next segment begins
    is_new[1:] &= starts[1:] != starts[:-1]
    return np.insert(newlines, places[is_new], starts[is_new])
