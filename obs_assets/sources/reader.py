"""Bytes into events. Every byte is an event's, a dead letter's or a separator.

Two lanes. The native one, here, takes what nearly all files hold: one JSON object a line. What it refuses goes through
the careful one (`obs_assets.sources.careful`): objects over many lines, several on one line, arrays of events, torn
ends, damage. Commas and brackets between events are separators, which is all that an array of events needs.

No event text leaves this module except as an event or as the bytes of a dead letter.
"""

import codecs
import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obs_assets.sources import views
from obs_assets.sources.careful import CarefulLane, DeadLetter, Rules, Segment
from obs_assets.sources.keys import ANYWHERE, repeating, shape_at, untold, usual_paths
from obs_assets.sources.strict import IS_STRICT, doubtful_places

_STRICT = f"SELECT {IS_STRICT} AS is_strict FROM batch_lines"

ROWS_A_TASK = 8192
"""DuckDB works through an Arrow table one chunk a thread."""

_BLOCK = 1 << 18  # what fits a processor's cache
_MOST_SEPARATORS = 64
_BEFORE_EVENT = np.isin(np.arange(256), list(b" \t\r\n,[\0\x1e"))
_AFTER_EVENT = np.isin(np.arange(256), list(b" \t\r\n,]\0\x1e"))


@dataclass(frozen=True)
class Reading:
    """What was read from a batch of segments.

    Attributes:
        lines: events: file (INT), file_offset (BIGINT), length (BIGINT, bytes it took), line (VARCHAR, lies in the
            batch's bytes).
        dead: what is no event, neighbours with the same reason joined.
        consumed: how many bytes of each segment are done with; the rest must be read again, with more bytes after it
            unless the file has none. A segment longer than ``max_event_bytes`` always gets on.
        settled: how many of them, up to the end of the last event or dead letter; what is behind it are separators,
            or bytes that a writer has reserved and will overwrite. 0 if there is neither.
        within_line: for each segment, whether what comes next belongs to a line that was too long.
        within_object: for each segment, whether it belongs to an object that was given up, see `Segment`.
        remarks: events by what was changed in their text: ``duplicate_keys``, ``lone_surrogate``, ``nul_character``,
            ``unfolded``.
    """

    lines: pa.Table
    dead: list[DeadLetter]
    consumed: list[int]
    settled: list[int]
    within_line: list[bool]
    within_object: list[int]
    remarks: Mapping[str, int]


def read_batch(
    connection: duckdb.DuckDBPyConnection,
    data: bytes | bytearray,
    segments: list[Segment],
    rules: Rules,
) -> Reading:
    """Turn stretches of files into events and dead letters.

    Args:
        connection: used for the native lane.
        data: the bytes of all segments, one after another. The events' lines lie in them.
        segments: read together, so that ten thousand small files cost no more than a large one.
        rules: what an event may be.
    """
    view = np.frombuffer(data, np.uint8)
    starts = np.cumsum([0, *(segment.length for segment in segments)])
    bounds = _line_bounds(data, starts)
    begins, ends = bounds[:-1], bounds[1:]
    first, last = _trimmed(view, begins, ends)
    is_unclear = first < last
    begun_before = [
        start
        for start, segment in zip(starts[:-1], segments, strict=True)
        if (segment.within_line or segment.within_object) and segment.length
    ]
    is_plain = is_unclear & (last - first <= rules.max_event_bytes)
    is_plain[is_plain] &= (view[first[is_plain]] == ord("{")) & (
        view[last[is_plain] - 1] == ord("}")
    )
    is_plain[
        _lines_at(
            bounds,
            [*_undecodable(data, bounds), *_to_be_changed(data, rules.unfold), *begun_before],
        )
    ] = False
    is_unclear[_lines_at(bounds, begun_before)] = True

    rows = np.flatnonzero(is_plain)
    told = pa.table({"row": rows, "line": views.of(data, first[rows], last[rows])})
    with ThreadPoolExecutor(1) as beside:  # DuckDB does not keep all cores busy
        doubtful = beside.submit(doubtful_places, data, view, bounds, rules.max_nesting)
        paths = usual_paths(told["line"].combine_chunks())
        told = _told(connection, told, paths)
        told = _strict(connection, told, _lines_at(bounds, doubtful.result()), rules)
    told = _unique(connection, told, paths)

    careful = CarefulLane(data, starts, segments, rules)
    is_unclear[told["row"].to_numpy()] = False
    for begin in begins[is_unclear].tolist():
        careful.read_from(begin)
    told = views.filter_rows(told, ~careful.covers(begins[told["row"].to_numpy()]))

    rows = told["row"].to_numpy()
    owner = np.searchsorted(starts, begins[rows], side="right") - 1
    shift = np.array([segment.offset for segment in segments] + [0]) - starts
    columns = {
        "file": np.array([segment.file for segment in segments], dtype=np.int32)[owner],
        "file_offset": begins[rows] + shift[owner],
        "length": (last - begins)[rows],
        "line": told["line"],
    }
    lines = pa.table(columns)
    settled = np.array(careful.settled, np.int64)
    np.maximum.at(settled, owner, last[rows] - starts[owner])
    if careful.events:
        columns = dict(zip(lines.column_names, zip(*careful.events, strict=True), strict=True))
        lines = pa.concat_tables([lines, pa.table(columns, lines.schema)])
    return Reading(
        lines,
        careful.dead_letters(),
        careful.consumed,
        settled.tolist(),
        careful.within_line,
        careful.within_object,
        careful.remarks,
    )


def _told(
    connection: duckdb.DuckDBPyConnection, lines: pa.Table, paths: tuple[str, ...]
) -> pa.Table:
    """Those lines that are JSON for DuckDB, with their ``shape`` at these paths."""
    query = f"SELECT {shape_at(paths)} AS shape FROM batch_lines"
    try:
        told = _ask(connection, query, lines)
    except duckdb.InvalidInputException:  # rare enough to be asked about only then
        is_json = _ask(
            connection, "SELECT json_valid(line) AS is_json FROM batch_lines", lines
        )["is_json"]
        lines = views.filter_rows(lines, is_json.to_numpy())
        told = _ask(connection, query, lines)
    return pa.table([*lines.columns, *told.columns], [*lines.column_names, *told.column_names])


def _strict(
    connection: duckdb.DuckDBPyConnection,
    told: pa.Table,
    doubtful: npt.NDArray[np.int64],
    rules: Rules,
) -> pa.Table:
    """Without the doubtful lines that are no strict JSON."""
    suspects = np.flatnonzero(np.isin(told["row"].to_numpy(), doubtful))
    if not len(suspects):
        return told
    lines = views.take_rows(told.select(["line"]), suspects)
    is_strict = np.ones(len(told), np.bool_)
    is_strict[suspects] = _ask(connection, _STRICT, lines, max_nesting=rules.max_nesting)[
        "is_strict"
    ].to_numpy()
    return views.filter_rows(told, is_strict)


def _unique(
    connection: duckdb.DuckDBPyConnection, told: pa.Table, paths: tuple[str, ...]
) -> pa.Table:
    """Without the events that have a key twice."""
    if not paths:
        return views.filter_rows(told, ~repeating(told["line"], told["shape"]))
    is_repeating = untold(told["line"], told["shape"], paths)
    rows = np.flatnonzero(is_repeating)
    if len(rows):
        lines = views.take_rows(told.select(["line"]), rows)
        shapes = _ask(connection, f"SELECT {ANYWHERE} AS shape FROM batch_lines", lines)[
            "shape"
        ]
        is_repeating[rows] = repeating(lines["line"], shapes)
    return views.filter_rows(told, ~is_repeating)


def _ask(
    connection: duckdb.DuckDBPyConnection, query: str, lines: pa.Table, **parameters: object
) -> pa.Table:
    """The answer to a query over ``batch_lines``, which has one column, ``line``."""
    lines = lines.select(["line"])
    tasks = pa.Table.from_batches(lines.to_batches(max_chunksize=ROWS_A_TASK), lines.schema)
    connection.register("batch_lines", tasks)
    try:
        return connection.sql(query, params=parameters or None).to_arrow_table()
    except (
        UnicodeDecodeError
    ):  # what DuckDB quotes of a text that is no JSON may end within a letter
        raise duckdb.InvalidInputException("not JSON") from None
    finally:
        connection.unregister("batch_lines")


def _trimmed(
    view: npt.NDArray[np.uint8], begins: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where what lies between separators begins and ends; more than `_MOST_SEPARATORS` are the careful lane's."""
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


def _lines_at(bounds: npt.NDArray[np.int64], positions: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The lines that hold these bytes."""
    return np.searchsorted(bounds, np.asarray(positions, np.int64), side="right") - 1


def _undecodable(data: bytes | bytearray, bounds: npt.NDArray[np.int64]) -> Iterator[int]:
    """A byte in each line that is not UTF-8."""
    position, rest = 0, memoryview(data)
    whole = pa.Array.from_buffers(
        pa.large_string(), 1, [None, pa.py_buffer(np.array([0, len(data)])), pa.py_buffer(data)]
    )
    with contextlib.suppress(pa.ArrowInvalid):
        whole.validate(full=True)
        return
    while position < len(data):
        try:
            codecs.utf_8_decode(rest[position:], "strict", True)
        except UnicodeDecodeError as error:
            yield position + error.start
            position = int(
                bounds[np.searchsorted(bounds, position + error.start, side="right")]
            )
        else:
            return


def _to_be_changed(data: bytes | bytearray, unfold: tuple[str, ...]) -> Iterator[int]:
    """Places of what may not stay as it is, or is to be unfolded."""
    position = (
        data.find(b"\\u0000", data.find(b"\\")) if b"\\" in data else -1
    )  # a single byte is found at once
    while position >= 0:
        yield position
        position = data.find(b"\\u0000", position + 1)
    for field in unfold:
        for match in re.finditer(
            re.escape(json.dumps(field).encode()) + rb"\s*:\s*\"\s*[\[{]", data
        ):
            yield match.start()


def _line_bounds(
    data: bytes | bytearray, starts: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Where lines begin, and at last where they end; a segment's begin starts a line too."""
    view = np.frombuffer(data, np.uint8)
    blocks = range(0, len(view), _BLOCK)
    found = [
        np.flatnonzero(view[start : start + _BLOCK] == ord("\n")) + (start + 1)
        for start in blocks
    ]
    newlines = np.concatenate(found) if found else np.array([], np.int64)
    if (
        b"\0" in data
    ):  # ends lines, too; nearly no file has any. A run of them begins the next line
        nuls = view == 0
        nuls[1:] &= view[:-1] != 0
        newlines = np.union1d(newlines, np.flatnonzero(nuls) + 1)
    places = np.searchsorted(newlines, starts)
    is_new = np.append(newlines, -1)[places] != starts
    is_new[1:] &= starts[1:] != starts[:-1]  # empty segments begin where the next one does
    return np.insert(newlines, places[is_new], starts[is_new])
