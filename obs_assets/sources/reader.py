"""Bytes into events. Every byte is an event's, a dead letter's or a separator.

Two lanes. The native one takes what nearly all files hold: one JSON object a line. What it refuses goes through the
careful one: objects over many lines, several on one line, arrays of events, torn ends, damage. Commas and brackets
between events are separators, which is all that an array of events needs.

No event text leaves this module except as an event or as the bytes of a dead letter.
"""

import codecs
import contextlib
import json
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obs_assets.sources.times import TIME_PATHS, time_text, time_values

_BOM = b"\xef\xbb\xbf"

# What DuckDB's parser takes and strict JSON does not: NaN, Infinity, a comma before a closing bracket; numbers that
# overflow a double elsewhere; and a carriage return, which some readers of the event take for the end of its line.
# Inside strings all of these are harmless: the careful lane tells. As the expression costs more than parsing, it looks
# only at lines with one of `_doubtful_places`.
_SUSPICIOUS = r"(?:(?i:nan|inf|inity)|\d[eE](?:\+?\d{3,}|-\d{5,})|,)\s*[,}\]]|\d{200}|\r"
_SAMPLE = 16

MAX_NESTING = 256
"""Brackets within brackets; a deeper event is a dead letter, before it exhausts the stack of whoever reads it next."""

_STRICT = f"""
SELECT NOT regexp_matches(line, '{_SUSPICIOUS}')
    AND strlen(line) - strlen(replace(replace(line, '{{', ''), '[', '')) <= $max_nesting AS is_strict FROM batch_lines
"""

# A shape is all keys of an event in their order: events of one shape repeat a key, or none of them does. The list
# around the event makes the event's own keys part of it.
_SHAPE = "hash(json_keys(concat('[', line, ']'), '$..*')) AS shape"

ROWS_A_TASK = 8192
"""DuckDB works through an Arrow table one chunk a thread."""

_FIRST_WINDOW = 2048
_BLOCK = 1 << 19  # what fits a processor's cache
_FEWEST_DIGITS, _EXPONENT_DIGITS = 3, 21  # of an exponent: fewer are harmless, more are suspicious as they are
_MOST_BLANKS = 4
_TEN = 10
_MOST_SEPARATORS = 64
_ENDS_ODDLY = np.isin(np.arange(256), [*range(ord(" ") + 1), *b",nNfFyY"])
_BEFORE_EVENT = np.isin(np.arange(256), list(b" \t\r\n,["))
_AFTER_EVENT = np.isin(np.arange(256), list(b" \t\r\n,]"))

_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|(\\u0000)|\\.",
    re.DOTALL,
)
_STRING_OR_SPACE = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+")|\s+')
_SEPARATOR_RUN = re.compile(rb"[ \t\r\n,\[\]]*+")
_NULS = re.compile(rb"\0+")
# A string may end where the bytes do: what follows is not known yet
_STRING_OR_BRACKET = re.compile(rb'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+(?:"|\\?\Z)|([{\[])|([}\]])')
_CUT_SHORT = ("true", "false", "null", "NaN", "Infinity", "-Infinity", ".", "e+", "e-", "E+", "E-")


@dataclass(frozen=True)
class Segment:
    """A stretch of one file within a batch.

    Attributes:
        file: index of the file in the pass.
        offset: where in the decompressed file it begins.
        data: its bytes; may end anywhere.
        at_end: the file has no more bytes for now.
        sealed: an unfinished event at the end is given up.
        within_line: it begins inside a line that was too long; what is left of that line is dead.
        within_object: it begins inside an object over many lines that was given up: the column of its bracket, plus 1.
    """

    file: int
    offset: int
    data: bytes | bytearray
    at_end: bool = True
    sealed: bool = False
    within_line: bool = False
    within_object: int = 0


@dataclass(frozen=True)
class DeadLetter:
    """Bytes that are no event; ``length`` is what they took in the file."""

    file: int
    file_offset: int
    length: int
    reason: str
    raw: bytes


@dataclass(frozen=True)
class Reading:
    """What was read from a batch of segments.

    Attributes:
        lines: events: file (INT), file_offset (BIGINT), length (BIGINT, bytes it took), line (VARCHAR), line_hash
            (UBIGINT, DuckDB's hash of it), time_text (VARCHAR, the text at the first of ``time_paths`` that is there).
        dead: what is no event, neighbours with the same reason joined.
        consumed: how many bytes of each segment are done with; the rest must be read again, with more bytes after it
            unless the file has none. A segment longer than ``max_event_bytes`` always gets on.
        within_line: for each segment, whether what comes next belongs to a line that was too long.
        within_object: for each segment, whether it belongs to an object that was given up, see `Segment`.
        remarks: events by what was changed in their text: ``duplicate_keys``, ``lone_surrogate``, ``nul_character``,
            ``unfolded``.
    """

    lines: pa.Table
    dead: list[DeadLetter]
    consumed: list[int]
    within_line: list[bool]
    within_object: list[int]
    remarks: Mapping[str, int]


@dataclass(frozen=True)
class _Found:
    """What begins at a position: an event (``text``) or a dead letter (``reason``), and where it ends.

    line_goes_on: it ends where the bytes do, in the middle of a line that is too long.
    object_goes_on: it ends where the bytes do, within an object over many lines: its bracket's column, plus 1.
    remarks: what was changed in the text.
    """

    end: int
    text: str | None = None
    reason: str | None = None
    line_goes_on: bool = False
    object_goes_on: int = 0
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rules:
    """What an event may be, and what is made of it.

    Attributes:
        max_event_bytes: a longer event is a dead letter.
        max_nesting: so is one with more brackets within brackets.
        unfold: names of fields in which a string that holds a JSON object or array is replaced by it.
        time_paths: where the time of an event may be, in DuckDB's form.
    """

    max_event_bytes: int
    max_nesting: int = MAX_NESTING
    unfold: tuple[str, ...] = ()
    time_paths: tuple[str, ...] = TIME_PATHS


def read_batch(connection: duckdb.DuckDBPyConnection, segments: list[Segment], rules: Rules) -> Reading:
    """Turn stretches of files into events and dead letters.

    Args:
        connection: used for the native lane.
        segments: read together, so that ten thousand small files cost no more than a large one.
        rules: what an event may be.
    """
    data = segments[0].data if len(segments) == 1 else b"".join(segment.data for segment in segments)
    view = np.frombuffer(data, np.uint8)
    starts = np.cumsum([0, *(len(segment.data) for segment in segments)])
    bounds = _line_bounds(data, starts)
    begins, ends = bounds[:-1], bounds[1:]
    first, last = _trimmed(view, begins, ends)
    is_unclear = first < last
    begun_before = [
        start
        for start, segment in zip(starts[:-1], segments, strict=True)
        if (segment.within_line or segment.within_object) and segment.data
    ]
    is_plain = is_unclear & (last - first <= rules.max_event_bytes)
    is_plain[is_plain] &= (view[first[is_plain]] == ord("{")) & (view[last[is_plain] - 1] == ord("}"))
    is_plain[_lines_at(bounds, [*_undecodable(data), *_to_be_changed(data, rules.unfold), *begun_before])] = False
    is_unclear[_lines_at(bounds, begun_before)] = True

    is_doubtful = np.zeros(len(begins), np.bool_)
    is_doubtful[_lines_at(bounds, _doubtful_places(data, view, bounds, rules.max_nesting))] = True
    is_doubtful &= is_plain
    if is_doubtful.any():
        is_plain[is_doubtful] = _are_strict(connection, _texts(data, first, last, is_doubtful), rules)
    told, is_told = _told(connection, _texts(data, first, last, is_plain), rules)
    is_event = is_plain.copy()
    is_event[is_plain] = is_told

    careful = _CarefulLane(data, starts, segments, rules)
    for begin in begins[is_unclear & ~is_event].tolist():
        careful.read_from(begin)
    is_left = ~careful.covers(begins)
    if not is_left[is_event].all():
        told, is_event = told.filter(pa.array(is_left[is_event])), is_event & is_left

    owner = np.searchsorted(starts, begins[is_event], side="right") - 1
    shift = np.array([segment.offset for segment in segments] + [0]) - starts
    columns = {
        "file": np.array([segment.file for segment in segments], dtype=np.int32)[owner],
        "file_offset": begins[is_event] + shift[owner],
        "length": (ends - begins)[is_event],
    }
    lines = pa.table({**columns, **{name: told[name] for name in told.column_names}})
    if careful.events:
        lines = pa.concat_tables([lines, careful.events_table(connection)])
    return Reading(
        lines, careful.dead_letters(), careful.consumed, careful.within_line, careful.within_object, careful.remarks
    )


def _are_strict(
    connection: duckdb.DuckDBPyConnection, texts: pa.LargeStringArray, rules: Rules
) -> npt.NDArray[np.bool_]:
    """Which of the texts hold only what strict JSON allows, if they are JSON, and are not too deep."""
    answer = _ask(connection, _STRICT, texts, max_nesting=rules.max_nesting)
    is_strict: npt.NDArray[np.bool_] = answer["is_strict"].to_numpy()
    return is_strict


def _told(
    connection: duckdb.DuckDBPyConnection, texts: pa.LargeStringArray, rules: Rules
) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
    """The columns of `Reading.lines` that an event's text tells, and which texts are events as they are."""
    is_event = np.ones(len(texts), np.bool_)
    query = _query(rules, _SHAPE)
    try:
        told = _ask(connection, query, texts)
    except duckdb.InvalidInputException:  # rare enough to be asked about only then
        is_event = _ask(connection, "SELECT json_valid(line) AS is_event FROM batch_lines", texts)[
            "is_event"
        ].to_numpy()
        texts = texts.filter(pa.array(is_event))
        told = _ask(connection, query, texts)
    _, examples, shape_of = np.unique(told["shape"].to_numpy(), return_index=True, return_inverse=True)
    is_repeating = np.array([_has_duplicates(texts[example].as_py()) for example in examples.tolist()], np.bool_)
    told = told.drop_columns(["shape"]).add_column(0, "line", texts)
    if is_repeating.any():
        is_unique = ~is_repeating[shape_of]
        told = told.filter(pa.array(is_unique))
        is_event = is_event.copy()
        is_event[is_event] = is_unique
    return told, is_event


def _query(rules: Rules, *more: str) -> str:
    """SQL for the columns that an event's text tells."""
    columns = ", ".join(["hash(line) AS line_hash", f"{time_text(rules.time_paths)} AS time_text", *more])
    return f"SELECT {columns} FROM (SELECT line, {time_values(rules.time_paths)} AS times FROM batch_lines)"


def _ask(
    connection: duckdb.DuckDBPyConnection, query: str, texts: pa.LargeStringArray, **parameters: object
) -> pa.Table:
    tasks = pa.table({"line": texts}).to_batches(max_chunksize=ROWS_A_TASK)
    connection.register("batch_lines", pa.Table.from_batches(tasks, pa.schema({"line": pa.large_string()})))
    try:
        return connection.sql(query, params=parameters or None).to_arrow_table()
    except UnicodeDecodeError:  # what DuckDB quotes of a text that is no JSON may end within a letter
        raise duckdb.InvalidInputException("not JSON") from None
    finally:
        connection.unregister("batch_lines")


def _texts(
    data: bytes | bytearray, first: npt.NDArray[np.int64], last: npt.NDArray[np.int64], wanted: npt.NDArray[np.bool_]
) -> pa.LargeStringArray:
    """The wanted stretches of the data: of the stretches and the gaps between them, as one array, every second one."""
    bounds = np.stack([first[wanted], last[wanted]], axis=1).ravel()
    if not len(bounds):
        return pa.array([], pa.large_string())
    pieces = pa.Array.from_buffers(pa.large_string(), len(bounds) - 1, [None, pa.py_buffer(bounds), pa.py_buffer(data)])
    return pieces.take(pa.array(np.arange(0, len(bounds), 2)))


def _trimmed(
    view: npt.NDArray[np.uint8], begins: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where what lies between separators begins and ends; more than `_MOST_SEPARATORS` are the careful lane's."""
    first, last = begins.copy(), ends.copy()
    for edge, step, where, separators in ((last, -1, -1, _AFTER_EVENT), (first, 1, 0, _BEFORE_EVENT)):
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


def _undecodable(data: bytes | bytearray) -> Iterator[int]:
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
            position = (data.find(b"\n", position + error.start) + 1) or len(data)
        else:
            return


def _to_be_changed(data: bytes | bytearray, unfold: tuple[str, ...]) -> Iterator[int]:
    """Places of what may not stay as it is, or is to be unfolded."""
    position = data.find(b"\\u0000")
    while position >= 0:
        yield position
        position = data.find(b"\\u0000", position + 1)
    for field in unfold:
        for match in re.finditer(re.escape(json.dumps(field).encode()) + rb"\s*:\s*\"\s*[\[{]", data):
            yield match.start()


def _doubtful_places(
    data: bytes | bytearray, view: npt.NDArray[np.uint8], bounds: npt.NDArray[np.int64], max_nesting: int
) -> npt.NDArray[np.int64]:
    """Where `_STRICT` might refuse what DuckDB takes: never too few places, and few enough.

    A value ends before a comma or a closing bracket, so that only the bytes before those are looked at.
    """
    blocks = [_ends(view, start) for start in range(0, len(view), _BLOCK)]
    found = [_suspicious_ends(view, ends) for ends in blocks]
    closing = np.concatenate([ends[view[ends] != ord(",")] for ends in blocks]) if blocks else np.array([], np.int64)
    longest = int(np.diff(bounds).max(initial=0))
    found.append(closing[:-max_nesting][closing[max_nesting:] - closing[:-max_nesting] < longest])
    samples = _is_digit(view[::_SAMPLE])
    for distance in (1, 2, 4, 4):  # two, four, eight and at last twelve samples in a row
        samples = samples[:-distance] & samples[distance:]
    found.append(np.flatnonzero(samples) * _SAMPLE)
    if b"\r" in data:
        found.append(np.flatnonzero((view[:-1] == ord("\r")) & (view[1:] != ord("\n"))))
    return np.concatenate(found)


def _ends(view: npt.NDArray[np.uint8], start: int) -> npt.NDArray[np.int64]:
    """The commas and closing brackets of a block."""
    block = view[start : start + _BLOCK]
    ends = np.flatnonzero(((block | 0x20) == ord("}")) | (block == ord(","))) + start
    return ends[np.searchsorted(ends, len('{"":')) :]  # before any value: nothing that looks back looks further


def _suspicious_ends(view: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Those behind a comma, a number that is not finite, or many blanks."""
    values = _without_blanks(view, ends)
    last = view[values]
    is_odd = _ENDS_ODDLY[last]
    odd, few, is_comma = values[is_odd], last[is_odd] | 0x20, last[is_odd] == ord(",")
    is_word = (few == ord("n")) & (_letter(view, odd, 1) == ord("a")) & (_letter(view, odd, 2) == ord("n"))
    is_word |= (few == ord("f")) & (_letter(view, odd, 1) == ord("n")) & (_letter(view, odd, 2) == ord("i"))
    is_word |= (few == ord("y")) & (_letter(view, odd, 1) == ord("t")) & (_letter(view, odd, 2) == ord("i"))
    is_blank = view[odd] <= ord(" ")
    return np.concatenate([odd[is_word | is_blank | is_comma], _large_exponents(view, values[_is_digit(last)])])


def _without_blanks(view: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where the values before these ends end themselves; still at a blank after `_MOST_BLANKS`."""
    values = ends - 1
    blank = np.flatnonzero(view[values] <= ord(" "))
    for _ in range(_MOST_BLANKS):
        values[blank] -= 1
        blank = blank[view[values[blank]] <= ord(" ")]
    return values


def _large_exponents(view: npt.NDArray[np.uint8], places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which of these last digits of numbers have so many before them that they may belong to a large exponent."""
    found = []
    for number in range(1, _EXPONENT_DIGITS):
        before = view[places - number]
        if number >= _FEWEST_DIGITS:
            signed = places[(before == ord("-")) | (before == ord("+"))]
            found += [places[(before | 0x20) == ord("e")], signed[_letter(view, signed, number + 1) == ord("e")]]
        places = places[_is_digit(before)]
    return np.concatenate([*found, places])


def _letter(view: npt.NDArray[np.uint8], places: npt.NDArray[np.int64], back: int) -> npt.NDArray[np.uint8]:
    return view[places - back] | np.uint8(0x20)


def _is_digit(characters: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    return (characters - np.uint8(ord("0"))) < _TEN  # below 0 it wraps around


def _line_bounds(data: bytes | bytearray, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where lines begin, and at last where they end; a segment's begin starts a line too."""
    # bytes.find is memchr: ten times as fast as comparing a NumPy array
    found = array("q")
    find, append = data.find, found.append
    position = find(b"\n")
    while position >= 0:
        append(position + 1)
        position = find(b"\n", position + 1)
    newlines = np.frombuffer(found, dtype=np.int64)
    places = np.searchsorted(newlines, starts)
    is_new = np.append(newlines, -1)[places] != starts
    is_new[1:] &= starts[1:] != starts[:-1]  # empty segments begin where the next one does
    return np.insert(newlines, places[is_new], starts[is_new])


class _CarefulLane:
    """Reads, one event at a time, what the native lane could not."""

    def __init__(
        self, data: bytes | bytearray, starts: npt.NDArray[np.int64], segments: list[Segment], rules: Rules
    ) -> None:
        self._data = data
        self._starts = starts
        self._segments = segments
        self._rules = rules
        self._covered: list[tuple[int, int]] = []
        self._dead: list[tuple[int, int, int, str]] = []
        self.events: list[tuple[int, int, int, str]] = []
        self.consumed = [len(segment.data) for segment in segments]
        self.within_line = [False] * len(segments)
        self.within_object = [0] * len(segments)
        self.remarks: Counter[str] = Counter()

    def covers(self, begins: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of the lines that begin there this lane has read."""
        if not self._covered:
            return np.zeros(len(begins), dtype=np.bool_)
        covered = np.array(self._covered)
        number = np.searchsorted(covered[:, 0], begins, side="right") - 1
        inside: npt.NDArray[np.bool_] = (number >= 0) & (begins < covered[number, 1])
        return inside

    def events_table(self, connection: duckdb.DuckDBPyConnection) -> pa.Table:
        """The events found, in the form of `Reading.lines`."""
        types = {"file": pa.int32(), "file_offset": pa.int64(), "length": pa.int64(), "line": pa.large_string()}
        columns = zip(*self.events, strict=True)
        table = pa.table([pa.array(c, t) for c, t in zip(columns, types.values(), strict=True)], names=list(types))
        texts = table["line"].combine_chunks()
        told = _ask(connection, _query(self._rules), texts)
        for name in told.column_names:
            table = table.append_column(name, told[name])
        return table

    def dead_letters(self) -> list[DeadLetter]:
        """The dead letters found, with their bytes."""
        return [
            DeadLetter(
                self._segments[number].file,
                self._offset(number, begin),
                end - begin,
                reason,
                bytes(self._data[begin:end]),
            )
            for number, begin, end, reason in self._dead
        ]

    def read_from(self, begin: int) -> None:
        """Read the events that begin on the line at ``begin``, unless an earlier one reached over it."""
        if self._covered and begin < self._covered[-1][1]:
            return
        number = int(np.searchsorted(self._starts, begin, side="right")) - 1
        segment, limit = self._segments[number], int(self._starts[number + 1])
        position = begin
        line_end = self._line_end(begin, limit)
        if segment.within_object and begin == self._starts[number]:
            end, self.within_object[number] = _end_of_given_up(self._data, segment, begin, limit)
            self._add_dead(number, begin, end, "too_long")
            self.within_line[number] = end == limit and self._data[end - 1] != ord("\n")
            position, line_end = end, self._line_end(end - 1, limit)
        elif segment.within_line and begin == self._starts[number]:
            self._add_dead(number, begin, line_end, "too_long")
            self.within_line[number] = self._data[line_end - 1] != ord("\n")
            position = line_end
        elif segment.offset == 0 and begin == self._starts[number] and self._data.startswith(_BOM, begin):
            position += len(_BOM)
        done = position
        while (position := self._skip_separators(done, line_end)) < line_end:
            found = _read_one(self._data, position, limit, self._rules, sealed=segment.at_end and segment.sealed)
            if found is None:
                self.consumed[number] = done - int(self._starts[number])
                line_end = limit
                break
            if found.text is not None:
                self.events.append((segment.file, self._offset(number, position), found.end - position, found.text))
                self.remarks.update(found.remarks)
            elif found.reason:
                self._add_dead(number, position, found.end, found.reason)
                self.within_line[number] = found.line_goes_on
                self.within_object[number] = found.object_goes_on
            done = found.end
            if done > line_end:
                line_end = self._line_end(done - 1, limit)
        self._covered.append((begin, line_end))

    def _offset(self, number: int, position: int) -> int:
        return self._segments[number].offset + position - int(self._starts[number])

    def _add_dead(self, number: int, begin: int, end: int, reason: str) -> None:
        if begin == end:
            return
        if self._dead and (self._dead[-1][0], *self._dead[-1][2:]) == (number, begin, reason):
            begin = self._dead.pop()[1]
        self._dead.append((number, begin, end, reason))

    def _line_end(self, position: int, limit: int) -> int:
        return (self._data.find(b"\n", position, limit) + 1) or limit

    def _skip_separators(self, position: int, end: int) -> int:
        separators = _SEPARATOR_RUN.match(self._data, position, end)
        return separators.end() if separators else position


def _end_of_given_up(data: bytes | bytearray, segment: Segment, begin: int, limit: int) -> tuple[int, int]:
    """Where an object over many lines ends that was given up before, and the state after it.

    By its indentation, since nobody knows any more how many brackets are open: at a bracket that closes in the column
    where it began, or before a line that begins an object there or further out.
    """
    column = segment.within_object - 1
    found = re.compile(rb"^(?:[ \t]{%d}[{}]|\{)" % column, re.MULTILINE)
    start = (data.find(b"\n", begin, limit) + 1 or limit) if segment.within_line else begin
    # ^ matches at the beginning of the data and after a newline, never at an offset given to search
    if start == begin and (match := re.compile(rb"[ \t]{%d}[{}]|\{" % column).match(data, begin, limit)):
        pass
    else:
        match = found.search(data, max(begin, start - 1), limit)
    if not match:
        return limit, segment.within_object
    return (match.end(), 0) if match[0].endswith(b"}") else (match.end() - 1, 0)


def _read_one(data: bytes | bytearray, begin: int, limit: int, rules: Rules, *, sealed: bool) -> _Found | None:
    """Read what begins at ``begin``; None if more bytes must come before it can be told what that is."""
    if data[begin] == 0:  # a hole in the file: a crash of its host, or truncated under a writer
        nuls = _NULS.match(data, begin, limit)
        return _Found(nuls.end() if nuls else limit, reason="nul_bytes")
    damage = _Damage(data, begin, limit, rules, sealed)
    if data[begin] != ord("{"):
        return damage.to_line_end("not_an_object")
    return _read_object(damage)


def _read_object(damage: "_Damage") -> _Found | None:
    """Read an object; the window grows, so that a short event in a large file costs little."""
    data, begin, limit, max_bytes = damage.data, damage.begin, damage.limit, damage.rules.max_event_bytes
    stop = begin
    window = _FIRST_WINDOW
    while stop < min(limit, begin + max_bytes):
        stop = min(begin + window, limit, begin + max_bytes)
        text = data[begin:stop].decode("utf-8", "surrogateescape")
        try:
            length, reason = _decode(text)
        except json.JSONDecodeError as error:
            if _is_unfinished(error, text):
                window *= 16
                continue
            return damage.of_object("not_json", begin + len(_encode(text[: error.pos])))
        except RecursionError:
            return damage.of_object("too_deep", stop)
        return _judge_object(text[:length], begin, reason, damage.rules)
    if limit - begin > max_bytes:
        return damage.of_object("too_long", begin + max_bytes)
    return damage.of_object("unfinished", limit) if damage.sealed else None


def _decode(text: str) -> tuple[int, str | None]:
    """Where the value at the start of the text ends, and what is wrong with its numbers."""
    try:
        return _DECODER.raw_decode(text)[1], None
    except _NotFiniteError:
        return _LENIENT_DECODER.raw_decode(text)[1], "number_not_finite"


def _judge_object(source: str, begin: int, reason: str | None, rules: Rules) -> _Found:
    raw = _encode(source)
    end = begin + len(raw)
    if not reason and _is_too_deep(raw, rules.max_nesting):
        reason = "too_deep"
    if not reason:
        try:
            source.encode("utf-8")
        except UnicodeEncodeError:
            reason = "invalid_utf8"
    if reason:
        return _Found(end, reason=reason)
    text, remarks = _cleaned(source, rules)
    return _Found(end, text=text, remarks=remarks)


def _is_too_deep(raw: bytes, most: int) -> bool:
    return raw.count(b"{") + raw.count(b"[") > most and max(depth for _, depth in _brackets(raw, 0, len(raw))) > most


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _is_unfinished(error: json.JSONDecodeError, text: str) -> bool:
    """Whether the text may only have been cut: at its very end, or within a string, a word, a number or an escape."""
    rest = text[error.pos :]
    return (
        error.msg.startswith("Unterminated string")
        or (error.msg.startswith("Invalid \\u") and len(rest) <= len("\\u1234"))
        or any(word.startswith(rest) for word in _CUT_SHORT)
    )


def _brackets(data: bytes | bytearray, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The brackets outside strings: where each one ends, and how many are open then."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(data, begin, end):
        if match.lastindex:
            depth += 1 if match.lastindex == 1 else -1
            yield match.end(), depth


@dataclass(frozen=True)
class _Damage:
    """How far something that is no event reaches: never over a later line that begins an object, if it can be told.

    Without this, the lines of a damaged object that was printed over many lines would be taken for events.
    """

    data: bytes | bytearray
    begin: int
    limit: int
    rules: Rules
    sealed: bool

    def to_line_end(self, reason: str) -> _Found | None:
        """It costs its line."""
        return self._up_to(self.data.find(b"\n", self.begin, self.limit) + 1, reason)

    def of_object(self, reason: str, error_at: int) -> _Found | None:
        """It costs what its outer brackets hold; or else its line, if that is where the error is; or else all lines
        before one that begins with a bracket."""
        line_end = self.data.find(b"\n", self.begin, self.limit) + 1
        if error_at < line_end:
            return self._up_to(self._closing(line_end) or line_end, reason)
        neighbour = self.data.find(b"\n{", self.begin, self.limit) + 1
        return self._up_to(self._closing(neighbour or self.limit) or neighbour, reason, self._column() + 1)

    def _closing(self, reach: int) -> int:
        brackets = _brackets(self.data, self.begin, reach)
        return next((position for position, depth in brackets if depth == 0), 0)

    def _column(self) -> int:
        """How far its bracket is indented."""
        line_begin = self.data.rfind(b"\n", 0, self.begin) + 1
        return 0 if self.data[line_begin : self.begin].strip() else self.begin - line_begin

    def _up_to(self, end: int, reason: str, object_goes_on: int = 0) -> _Found | None:
        if end:
            return _Found(end, reason=reason)
        if self.limit - self.begin > self.rules.max_event_bytes:
            ends_line = self.data[self.limit - 1] == ord("\n")
            is_over_lines = self.data.find(b"\n", self.begin, self.limit) >= 0
            goes_on = object_goes_on if is_over_lines else 0
            return _Found(self.limit, reason=reason, line_goes_on=not ends_line, object_goes_on=goes_on)
        return _Found(self.limit, reason=reason) if self.sealed else None


def _cleaned(source: str, rules: Rules) -> tuple[str, tuple[str, ...]]:
    """The same JSON on one line, digits and escapes as they were, and what had to be changed.

    Half a surrogate pair and ``\\u0000`` become ``\\ufffd``: no database takes them. Of equal keys the last one stays,
    in the first one's place, as `json`, orjson and ``jsonb`` have it; only then are strings written anew.
    """
    remarks = []
    if "\\u" in source:
        kinds = set()

        def replaced(match: re.Match[str]) -> str:
            if match.lastindex is None:
                return match[0]
            kinds.add(("lone_surrogate", "nul_character")[match.lastindex - 1])
            return "\\ufffd"

        source = _ESCAPE.sub(replaced, source)
        remarks += sorted(kinds)
    if "\n" in source or "\r" in source:
        source = _STRING_OR_SPACE.sub(lambda m: m[1] or "", source)
    if _has_duplicates(source):
        source = _written(_LAST_WINS_DECODER.decode(source))
        remarks.append("duplicate_keys")
    unfolded = source
    for field in rules.unfold:
        unfolded = _unfolded(unfolded, field, rules)
    if unfolded != source and not _is_too_deep(unfolded.encode(), rules.max_nesting):
        source = unfolded
        remarks.append("unfolded")
    return source, tuple(remarks)


def _has_duplicates(text: str) -> bool:
    try:
        _UNIQUE_DECODER.decode(text)
    except _DuplicateKeyError:
        return True
    return False


def _unfolded(source: str, field: str, rules: Rules) -> str:
    """The event with the JSON document in place of the string that holds it, wherever a field has this name."""

    def unfold(match: re.Match[str]) -> str:
        inner = json.loads(match[2]).strip()
        try:
            length, reason = _decode(inner)
        except (json.JSONDecodeError, RecursionError):
            return match[0]
        if reason or length < len(inner):
            return match[0]
        return match[1] + _cleaned(inner, replace(rules, unfold=()))[0]

    name = re.escape(json.dumps(field))
    return re.sub(rf'({name}\s*:\s*)("\s*[\[{{](?:[^"\\]|\\.)*")', unfold, source)


class _Digits(str):
    """A number as it is written."""

    __slots__ = ()


def _written(value: Any) -> str:
    """JSON text of a decoded value."""
    match value:
        case _Digits():
            return str(value)
        case dict():
            return "{" + ",".join(f"{_written(key)}:{_written(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ",".join(map(_written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


class _DuplicateKeyError(ValueError):
    """An object has a key twice."""


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise _DuplicateKeyError


class _NotFiniteError(ValueError):
    """A number that JSON or a double cannot hold."""


def _refuse_constant(_: str) -> Any:
    raise _NotFiniteError


# A jsonb column takes 16,383 digits after the point
_VANISHING = re.compile(r"[eE]-\d{5,}$")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value) or _VANISHING.search(text):
        raise _NotFiniteError
    return value


# Python refuses to convert integers of more than 4,300 digits: as floats they are infinite, and refused by us
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, parse_int=_finite)
_LENIENT_DECODER = json.JSONDecoder(parse_int=float)
_UNIQUE_DECODER = json.JSONDecoder(object_pairs_hook=_refuse_duplicates, parse_int=str, parse_float=str)
_LAST_WINS_DECODER = json.JSONDecoder(parse_int=_Digits, parse_float=_Digits)
