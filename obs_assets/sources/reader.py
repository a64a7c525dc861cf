"""Bytes into events. Every byte is an event's, a dead letter's or a separator.

Two lanes. The native one takes what nearly all files hold: one JSON object a line. What it refuses goes through the
careful one: objects over many lines, several on one line, arrays of events, torn ends, damage. Commas and brackets
between events are separators, which is all that an array of events needs.

No event text leaves this module except as an event or as the bytes of a dead letter.
"""

import json
import math
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

_SEPARATORS = b" \t\r\n,[]"
_BOM = b"\xef\xbb\xbf"

# What DuckDB's parser takes and strict JSON does not: NaN, Infinity, a comma before a closing bracket; numbers that
# overflow a double elsewhere; and a carriage return, which some readers of the event take for the end of its line.
# Inside strings all of these are harmless: the careful lane tells.
_SUSPICIOUS = r"(?:(?i:nan|inf|inity)|\d[eE](?:\+?\d{3,}|-\d{5,})|,)\s*[,}\]]|\d{200}|\r"

MAX_NESTING = 256
"""Brackets within brackets; a deeper event is a dead letter, before it exhausts the stack of whoever reads it next."""

_BRACKETS = "strlen(text) - strlen(replace(replace(text, '{', ''), '[', ''))"

# Trimming is slow, so lines that need none, or only lose their newline, are told apart first.
_JUDGE = f"""
SELECT text, CASE
    WHEN text = '' THEN 'separator'
    WHEN text[1] = '{{' AND octet_length(raw) <= $max_bytes AND json_valid(text)
        AND NOT regexp_matches(text, '{_SUSPICIOUS}')
        AND (octet_length(raw) <= {2 * MAX_NESTING} OR {_BRACKETS} <= {MAX_NESTING})
        THEN 'event'
    ELSE 'unclear' END AS verdict
FROM (
    SELECT raw, CASE
        WHEN starts_with(line, '{{') AND ends_with(line, e'}}\n') THEN left(line, -1)
        ELSE rtrim(ltrim(line, e' \t\r\n,['), e' \t\r\n,]') END AS text
    FROM (SELECT raw, try(decode(raw)) AS line FROM batch_lines)
)
"""

_ROWS_A_TASK = 8192
"""DuckDB works through an Arrow table one chunk a thread."""

_FIRST_WINDOW = 2048

_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\.", re.DOTALL
)
_STRING_OR_SPACE = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+")|\s+')
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
    """

    file: int
    offset: int
    data: bytes
    at_end: bool = True
    sealed: bool = False
    within_line: bool = False


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
        lines: events: file (INT), file_offset (BIGINT), length (BIGINT, bytes it took), line (VARCHAR).
        dead: what is no event, neighbours with the same reason joined.
        consumed: how many bytes of each segment are done with; the rest must be read again, with more bytes after it
            unless the file has none. A segment longer than ``max_event_bytes`` always gets on.
        within_line: for each segment, whether what comes next belongs to a line that was too long.
    """

    lines: pa.Table
    dead: list[DeadLetter]
    consumed: list[int]
    within_line: list[bool]


@dataclass(frozen=True)
class _Found:
    """What begins at a position: an event (``text``) or a dead letter (``reason``), and where it ends.

    line_goes_on: it ends where the bytes do, in the middle of a line that is too long.
    """

    end: int
    text: str | None = None
    reason: str | None = None
    line_goes_on: bool = False


def read_batch(connection: duckdb.DuckDBPyConnection, segments: list[Segment], max_event_bytes: int) -> Reading:
    """Turn stretches of files into events and dead letters.

    Args:
        connection: used for the native lane.
        segments: read together, so that ten thousand small files cost no more than a large one.
        max_event_bytes: a longer event is a dead letter.
    """
    data = b"".join(segment.data for segment in segments)
    starts = np.cumsum([0, *(len(segment.data) for segment in segments)])
    bounds = _line_bounds(data, starts)
    begins, ends = bounds[:-1], bounds[1:]
    raw = pa.Array.from_buffers(pa.large_binary(), len(begins), [None, pa.py_buffer(bounds), pa.py_buffer(data)])
    tasks = pa.table({"raw": raw}).to_batches(max_chunksize=_ROWS_A_TASK)
    connection.register("batch_lines", pa.Table.from_batches(tasks, schema=pa.schema({"raw": raw.type})))
    judged = connection.sql(_JUDGE, params={"max_bytes": max_event_bytes}).to_arrow_table()
    connection.unregister("batch_lines")
    verdicts = judged["verdict"].to_numpy()
    is_event, is_unclear = verdicts == "event", verdicts == "unclear"
    rests = [
        start for start, segment in zip(starts[:-1], segments, strict=True) if segment.within_line and segment.data
    ]
    is_unclear[np.searchsorted(begins, rests)] = True

    careful = _CarefulLane(data, starts, segments, max_event_bytes)
    for begin in begins[is_unclear].tolist():
        careful.read_from(begin)
    is_event &= ~careful.covers(begins)

    owner = np.searchsorted(starts, begins, side="right") - 1
    shift = np.array([segment.offset for segment in segments] + [0]) - starts
    native = pa.table(
        {
            "file": np.array([segment.file for segment in segments], dtype=np.int32)[owner],
            "file_offset": begins + shift[owner],
            "length": ends - begins,
            "line": judged["text"],
        }
    )
    if not is_event.all():
        native = native.filter(pa.array(is_event))
    lines = pa.concat_tables([native, careful.events_table()]) if careful.events else native
    return Reading(lines, careful.dead_letters(), careful.consumed, careful.within_line)


def _line_bounds(data: bytes, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
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
        self, data: bytes, starts: npt.NDArray[np.int64], segments: list[Segment], max_event_bytes: int
    ) -> None:
        self._data = data
        self._starts = starts
        self._segments = segments
        self._max = max_event_bytes
        self._covered: list[tuple[int, int]] = []
        self._dead: list[tuple[int, int, int, str]] = []
        self.events: list[tuple[int, int, int, str]] = []
        self.consumed = [len(segment.data) for segment in segments]
        self.within_line = [False] * len(segments)

    def covers(self, begins: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of the lines that begin there this lane has read."""
        if not self._covered:
            return np.zeros(len(begins), dtype=np.bool_)
        covered = np.array(self._covered)
        number = np.searchsorted(covered[:, 0], begins, side="right") - 1
        inside: npt.NDArray[np.bool_] = (number >= 0) & (begins < covered[number, 1])
        return inside

    def events_table(self) -> pa.Table:
        """The events found, in the form of `Reading.lines`."""
        types = {"file": pa.int32(), "file_offset": pa.int64(), "length": pa.int64(), "line": pa.string()}
        columns = zip(*self.events, strict=True)
        return pa.table([pa.array(c, t) for c, t in zip(columns, types.values(), strict=True)], names=list(types))

    def dead_letters(self) -> list[DeadLetter]:
        """The dead letters found, with their bytes."""
        return [
            DeadLetter(
                self._segments[number].file, self._offset(number, begin), end - begin, reason, self._data[begin:end]
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
        if segment.within_line and begin == self._starts[number]:
            self._add_dead(number, begin, line_end, "too_long")
            self.within_line[number] = self._data[line_end - 1] != ord("\n")
            position = line_end
        elif segment.offset == 0 and begin == self._starts[number] and self._data.startswith(_BOM, begin):
            position += len(_BOM)
        done = position
        while (position := self._skip_separators(done, line_end)) < line_end:
            found = _read_one(self._data, position, limit, self._max, sealed=segment.at_end and segment.sealed)
            if found is None:
                self.consumed[number] = done - int(self._starts[number])
                line_end = limit
                break
            if found.text is not None:
                self.events.append((segment.file, self._offset(number, position), found.end - position, found.text))
            elif found.reason:
                self._add_dead(number, position, found.end, found.reason)
                self.within_line[number] = found.line_goes_on
            done = found.end
            if done > line_end:
                line_end = self._line_end(done - 1, limit)
        self._covered.append((begin, line_end))

    def _offset(self, number: int, position: int) -> int:
        return self._segments[number].offset + position - int(self._starts[number])

    def _add_dead(self, number: int, begin: int, end: int, reason: str) -> None:
        if self._dead and (self._dead[-1][0], *self._dead[-1][2:]) == (number, begin, reason):
            begin = self._dead.pop()[1]
        self._dead.append((number, begin, end, reason))

    def _line_end(self, position: int, limit: int) -> int:
        return (self._data.find(b"\n", position, limit) + 1) or limit

    def _skip_separators(self, position: int, end: int) -> int:
        while position < end and self._data[position] in _SEPARATORS:
            position += 1
        return position


def _read_one(data: bytes, begin: int, limit: int, max_bytes: int, *, sealed: bool) -> _Found | None:
    """Read what begins at ``begin``; None if more bytes must come before it can be told what that is."""
    if data[begin] == 0:  # a hole in the file: a crash of its host, or truncated under a writer
        nuls = _NULS.match(data, begin, limit)
        return _Found(nuls.end() if nuls else limit, reason="nul_bytes")
    damage = _Damage(data, begin, limit, max_bytes, sealed)
    if data[begin] != ord("{"):
        return damage.to_line_end("not_an_object")
    return _read_object(damage)


def _read_object(damage: "_Damage") -> _Found | None:
    """Read an object; the window grows, so that a short event in a large file costs little."""
    data, begin, limit, max_bytes = damage.data, damage.begin, damage.limit, damage.max_bytes
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
        return _judge_object(text[:length], begin, reason)
    if limit - begin > max_bytes:
        return damage.of_object("too_long", begin + max_bytes)
    return damage.of_object("unfinished", limit) if damage.sealed else None


def _decode(text: str) -> tuple[int, str | None]:
    """Where the value at the start of the text ends, and what is wrong with its numbers."""
    try:
        return _DECODER.raw_decode(text)[1], None
    except _NotFiniteError:
        return _LENIENT_DECODER.raw_decode(text)[1], "number_not_finite"


def _judge_object(source: str, begin: int, reason: str | None) -> _Found:
    raw = _encode(source)
    end = begin + len(raw)
    if not reason and raw.count(b"{") + raw.count(b"[") > MAX_NESTING:
        reason = "too_deep" if max(depth for _, depth in _brackets(raw, 0, len(raw))) > MAX_NESTING else None
    if not reason:
        try:
            source.encode("utf-8")
        except UnicodeEncodeError:
            reason = "invalid_utf8"
    return _Found(end, reason=reason) if reason else _Found(end, text=_one_line(source))


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


def _brackets(data: bytes, begin: int, end: int) -> Iterator[tuple[int, int]]:
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

    data: bytes
    begin: int
    limit: int
    max_bytes: int
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
        return self._up_to(self._closing(neighbour or self.limit) or neighbour, reason)

    def _closing(self, reach: int) -> int:
        brackets = _brackets(self.data, self.begin, reach)
        return next((position for position, depth in brackets if depth == 0), 0)

    def _up_to(self, end: int, reason: str) -> _Found | None:
        if end:
            return _Found(end, reason=reason)
        if self.limit - self.begin > self.max_bytes:
            ends_line = self.data[self.limit - 1] == ord("\n")
            return _Found(self.limit, reason=reason, line_goes_on=not ends_line)
        return _Found(self.limit, reason=reason) if self.sealed else None


def _one_line(source: str) -> str:
    """The same JSON on one line, digits and escapes as they were; half a surrogate pair becomes U+FFFD."""
    if "\\u" in source:
        source = _ESCAPE.sub(lambda m: "\\ufffd" if len(m[0]) == len("\\ud800") and m[0][2] in "dD" else m[0], source)
    if "\n" in source or "\r" in source:
        source = _STRING_OR_SPACE.sub(lambda m: m[1] or "", source)
    return source


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
