"""The careful lane: it reads events one by one, in any layout.

It reads the lines that the native lane (`obs_assets.sources.native`) leaves: objects over several lines, several
objects on one line, arrays of events, incomplete ends, damage, and events whose text must be changed. It decides
which bytes are a dead letter.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from obs_assets.events import MAX_NESTING
from obs_assets.sources.envelopes import HEAD_BYTES, of_head
from obs_assets.sources.formats import Envelope, Format, likely
from obs_assets.sources.json_text import (
    are_values,
    brackets,
    cleaned,
    decode,
    is_too_deep,
    open_object,
)

FRAMES = b"\0\x02\x03\x04\x0b\x1a\x1c\x1d\x1e\x1f"
"""Control characters that frame messages; JSON allows them nowhere.

NUL (GELF), STX and ETX, EOT, VT and FS (MLLP), SUB (the end of a file of DOS), GS, RS (RFC 7464), US.
"""

SEPARATORS = b" \t\r\n,[]" + FRAMES
"""Bytes that may stand between events: blanks, the punctuation of lists, and control characters."""

_SEPARATOR_CHARACTERS = SEPARATORS.decode()

LINE_ENDS = b"\n\0"
"""Bytes that end a line. JSON allows neither of them inside a string."""

TOO_LONG = "too_long"
"""Reason of dead letters longer than the longest allowed event."""

RECORD_SEPARATOR = b"\x1e"
"""Begins each record of RFC 7464. JSON allows it nowhere, so no object reaches over it."""

_BOM = b"\xef\xbb\xbf"
_FIRST_WINDOW = 2048
"""Bytes that are decoded first: most events are shorter."""
_LOOKED_AT = 256
"""Bytes of a text that are searched for its format."""
_UTF16_WINDOW = 72
"""Bytes that `_UTF16` needs at most."""
_BLANKS = b"[" + re.escape(SEPARATORS) + b"]*"
_SEPARATOR_RUN = re.compile(_BLANKS + b"(?:" + _BOM + _BLANKS + b")*")
# Four ASCII characters of two bytes each, at once or soon: a piece may begin within other characters
_UTF16 = re.compile(
    rb"(?:\{\0|[^{\n][^\n]{0,63}?)(?:(?:[\t\n\r -~]\0){3}|(?:\0[\t\n\r -~]){4})"
)
_NULS = re.compile(rb"\0*+")
_UTF8_AGAIN = re.compile(rb"\n\0?(?=\{[^\0])")  # behind a line end in UTF-8 or UTF-16
_CUT_SHORT = (
    "true",
    "false",
    "null",
    "NaN",
    "Infinity",
    "-Infinity",
    ".",
    "e+",
    "e-",
    "E+",
    "E-",
)


@dataclass(frozen=True)
class Segment:
    """A range of bytes of one file within a batch.

    Attributes:
        file: index of the file in the pass.
        offset: begin of the segment, in bytes of the decompressed file.
        length: length in bytes; the segment may end anywhere, also within an event.
        at_end: the file has no more bytes for now.
        sealed: an incomplete event at the end is given up.
        within_line: the segment begins inside a line that was too long; the rest of that line is a dead letter.
        within_object: 0, or the column of the first bracket of an object over several lines, plus 1. The segment begins
            inside that object, which was given up.
        encoding: encoding of the file; the bytes of the segment are UTF-8 in any case.
        takes_envelopes: an envelope longer than the longest allowed event is left, see `CarefulLane.begins_envelope`.
        refused_at: offset in the file of an object that looks like an envelope but could not be opened; -1: none.
        refused_as: reason of the dead letters of that object.
        landed_to: bytes before this offset in the file have landed; more than ``offset`` if an envelope is read again.
    """

    file: int
    offset: int
    length: int
    at_end: bool = True
    sealed: bool = False
    within_line: bool = False
    within_object: int = 0
    encoding: str = ""
    takes_envelopes: bool = False
    refused_at: int = -1
    refused_as: str = TOO_LONG
    landed_to: int = 0


@dataclass(frozen=True)
class DeadLetter:
    """Bytes that are not an event.

    Attributes:
        file: index of the file in the pass.
        file_offset: begin of the bytes in the decompressed file.
        length: number of bytes in the file.
        reason: reason why they are not an event, for example ``not_json``.
        raw: the bytes.
    """

    file: int
    file_offset: int
    length: int
    reason: str
    raw: bytes

    def behind(self, offset: int) -> "DeadLetter | None":
        """The part of the letter from an offset in the file on; None if nothing is left."""
        before = max(0, offset - self.file_offset)
        if before >= self.length:
            return None
        return replace(
            self,
            file_offset=self.file_offset + before,
            length=self.length - before,
            raw=self.raw[before:],
        )


@dataclass(frozen=True)
class _Found:
    """An event (``text``) or a dead letter (``reason``) at a position, and where it ends.

    Attributes:
        end: position behind it.
        text: the event as JSON.
        reason: reason of the dead letter.
        line_goes_on: the bytes end in the middle of a line that is too long.
        object_goes_on: 0, or the bytes end within an object over several lines: the column of its bracket, plus 1.
        remarks: changes of the text.
        is_envelope: an envelope longer than the longest allowed event begins at the position.
    """

    end: int
    text: str | None = None
    reason: str | None = None
    line_goes_on: bool = False
    object_goes_on: int = 0
    remarks: tuple[str, ...] = ()
    is_envelope: bool = False


@dataclass(frozen=True)
class Rules:
    """Limits of an event, and changes to be made to its text.

    Attributes:
        max_event_bytes: a longer event is a dead letter.
        max_nesting: an event with more brackets within brackets is a dead letter.
        unfold: names of fields. Where such a field holds a JSON object or array as a string, that JSON replaces the
            string.
        formats: the formats to try, see `obs_assets.sources.formats`.
    """

    max_event_bytes: int
    max_nesting: int = MAX_NESTING
    unfold: tuple[str, ...] = ()
    formats: tuple[Format, ...] = ()


class CarefulLane:
    """Reads the lines that the native lane could not read, event by event.

    Attributes:
        events: file, offset, length, text, and position in ``data`` of each event found.
        consumed, settled, within_line, within_object, remarks: as in `obs_assets.sources.reading.Reading`.
        begins_envelope: for each segment, whether an envelope longer than the longest allowed event begins where
            ``consumed`` ends.
    """

    def __init__(
        self,
        data: bytes | bytearray,
        starts: npt.NDArray[np.int64],
        segments: list[Segment],
        rules: Rules,
    ) -> None:
        self._data = data
        self._starts = starts
        self._segments = segments
        self._rules = rules
        self._separator = (
            -1
        )  # position of a 0x1E; there is none between the lines read last and this position
        self._covered: list[tuple[int, int]] = []
        self._dead: list[tuple[int, int, int, str]] = []
        self.events: list[tuple[int, int, int, str, int]] = []
        self.consumed = [segment.length for segment in segments]
        self.settled = [0] * len(segments)
        self.begins_envelope = [False] * len(segments)
        self.within_line = [False] * len(segments)
        self.within_object = [0] * len(segments)
        self.remarks: Counter[str] = Counter()

    def covers(self, begins: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """For each line that begins at one of these positions, whether this lane has read it."""
        if not self._covered:
            return np.zeros(len(begins), dtype=np.bool_)
        covered = np.array(self._covered)
        number = np.searchsorted(covered[:, 0], begins, side="right") - 1
        inside: npt.NDArray[np.bool_] = (number >= 0) & (begins < covered[number, 1])
        return inside

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
        """Read the events that begin on the line at ``begin``, unless an earlier event already included this line."""
        if self._covered and begin < self._covered[-1][1]:
            return
        number = int(np.searchsorted(self._starts, begin, side="right")) - 1
        segment, limit = self._segments[number], self._limit(number)
        if begin >= limit:
            self._covered.append((begin, int(self._starts[number + 1])))
            return
        position = begin
        line_end = self._line_end(begin, limit)
        if segment.within_object and begin == self._starts[number]:
            end, self.within_object[number] = _end_of_given_up(
                self._data, segment, begin, limit
            )
            self._add_dead(number, begin, end, segment.refused_as)
            self.within_line[number] = end == limit and self._data[end - 1] not in LINE_ENDS
            position, line_end = end, self._line_end(max(begin, end - 1), limit)
        elif segment.within_line and begin == self._starts[number]:
            position = min(line_end, self._next_separator(begin, limit))
            self._add_dead(number, begin, position, segment.refused_as)
            is_over = position < line_end or self._data[line_end - 1] in LINE_ENDS
            self.within_line[number] = not is_over
        done = position
        while (position := self._skip_separators(done, line_end)) < line_end:
            offset = self._offset(number, position)
            separator = self._next_separator(position, limit)
            is_over = separator < limit
            is_framed = RECORD_SEPARATOR in self._data[done:position]
            is_short = separator - position <= self._rules.max_event_bytes
            damage = _Damage(
                *(self._data, position, separator, self._rules),
                sealed=is_over or (segment.at_end and segment.sealed),
                offset=offset,
                is_over=is_over,
                is_framed=is_framed and (is_over or is_short),
            )
            found = _read_one(damage, segment)
            if found is None:
                self.consumed[number] = done - int(self._starts[number])
                line_end = limit
                break
            if found.is_envelope:
                self.consumed[number] = position - int(self._starts[number])
                self.begins_envelope[number] = True
                line_end = limit
                break
            if found.text is not None:
                length = found.end - position
                self.events.append((segment.file, offset, length, found.text, position))
                self._settle(number, found.end)
                self.remarks.update(found.remarks)
            elif found.reason:
                self._add_dead(number, position, found.end, found.reason)
                self.within_line[number] = found.line_goes_on
                self.within_object[number] = found.object_goes_on
            done = found.end
            if done > line_end:
                line_end = self._line_end(done - 1, limit)
        self._covered.append((begin, line_end))

    def _next_separator(self, position: int, limit: int) -> int:
        """Position of the next 0x1E; ``limit`` if there is none before it. Each byte is searched only once."""
        if self._separator < position:
            found = self._data.find(RECORD_SEPARATOR, position)
            self._separator = found if found >= 0 else len(self._data)
        return min(self._separator, limit)

    def _limit(self, number: int) -> int:
        """Position where the bytes of a segment end, without the zeros at its end if they may still be overwritten.

        Such zeros may also lie within an incomplete event.
        """
        segment, limit = self._segments[number], int(self._starts[number + 1])
        is_final = segment.sealed or not segment.at_end
        if is_final or not segment.length or self._data[limit - 1] != 0:
            return limit
        begin = int(self._starts[number])
        backwards = np.frombuffer(self._data, np.uint8)[begin:limit][::-1]
        zeros = int((backwards != 0).argmax()) if backwards.any() else len(backwards)
        return limit - zeros

    def _offset(self, number: int, position: int) -> int:
        return self._segments[number].offset + position - int(self._starts[number])

    def _add_dead(self, number: int, begin: int, end: int, reason: str) -> None:
        if begin == end:
            return
        self._settle(number, end)
        text = self._data[begin : begin + _LOOKED_AT].decode("utf-8", "replace")
        if reason == "not_json" and (name := likely(text)):
            self.remarks[f"looks_like_{name}"] += 1
        if self._dead and (self._dead[-1][0], *self._dead[-1][2:]) == (number, begin, reason):
            begin = self._dead.pop()[1]
        self._dead.append((number, begin, end, reason))

    def _settle(self, number: int, end: int) -> None:
        self.settled[number] = max(self.settled[number], end - int(self._starts[number]))

    def _line_end(self, position: int, limit: int) -> int:
        return _line_end(self._data, position, limit) or limit

    def _skip_separators(self, position: int, end: int) -> int:
        separators = _SEPARATOR_RUN.match(self._data, position, end)
        return separators.end() if separators else position


def _end_of_given_up(
    data: bytes | bytearray, segment: Segment, begin: int, limit: int
) -> tuple[int, int]:
    """Position where an object over several lines ends that was given up before, and the state after it.

    The number of open brackets is no longer known, so the indentation decides. The object ends at a closing bracket in
    the column where the object began, or before a line that begins an object in that column or further left, or before
    a 0x1E.
    """
    column = segment.within_object - 1
    found = re.compile(rb"^(?:[ \t]{%d}[{}]|\{)|\x1e" % column, re.MULTILINE)
    start = (data.find(b"\n", begin, limit) + 1 or limit) if segment.within_line else begin
    # ^ matches at the beginning of the data and after a newline, never at an offset given to search
    if start == begin and (
        match := re.compile(rb"[ \t]{%d}[{}]|\{" % column).match(data, begin, limit)
    ):
        pass
    else:
        match = found.search(data, max(begin, start - 1), limit)
    if not match:
        return limit, segment.within_object
    return (match.end(), 0) if match[0].endswith(b"}") else (match.end() - 1, 0)


def _line_end(data: bytes | bytearray, begin: int, limit: int) -> int:
    """Position after the line that begins at ``begin``; 0 if the line does not end before ``limit``."""
    nuls = _NULS.match(data, begin, limit)  # they separate this line from the line before
    text = nuls.end() if nuls else begin
    newline = data.find(b"\n", text, limit) + 1
    return data.find(b"\0", text, newline or limit) + 1 or newline


def _read_one(damage: "_Damage", segment: Segment) -> _Found | None:
    """Read the event or dead letter at a position. Returns None if more bytes are needed to decide.

    Args:
        damage: the position, and the rules for the length of a dead letter there.
        segment: the segment that holds the position.
    """
    data, begin, limit = damage.data, damage.begin, damage.limit
    window_end = min(begin + _UTF16_WINDOW, limit)
    if data.find(b"\0", begin, window_end) >= 0 and _UTF16.match(data, begin, limit):
        return damage.of_utf16(at_end=segment.at_end)
    if data[begin] == ord("{"):
        return _read_object(damage, segment)
    if _is_utf8_in(data, begin, limit, segment.encoding):
        return damage.of_text("utf8_in_utf16")
    return damage.of_text(_reason_of_text(data, begin, limit))


def _reason_of_text(data: bytes | bytearray, begin: int, limit: int) -> str:
    """``not_an_object`` for a line of JSON values other than objects, ``not_json`` for any other line."""
    line_end = _line_end(data, begin, limit) or limit
    text = data[begin:line_end].decode("utf-8", "replace")
    return "not_an_object" if are_values(text, _SEPARATOR_CHARACTERS) else "not_json"


def _is_utf8_in(data: bytes | bytearray, begin: int, limit: int, encoding: str) -> bool:
    """Whether bytes of a UTF-16 file are UTF-8 text: read as UTF-16, each character stands for two ASCII letters."""
    if not encoding.startswith("utf-16"):
        return False
    text = data[begin : min(begin + _FIRST_WINDOW, limit)].decode("utf-8", "ignore")
    return text.encode(encoding, "ignore")[:8].isascii() and not text[:4].isascii()


def _read_object(damage: "_Damage", segment: Segment) -> _Found | None:
    """Read the object at a position."""
    begin, limit, rules = damage.begin, damage.limit, damage.rules
    decoded = _decode(damage.data, begin, limit, rules.max_event_bytes)
    match decoded.fault:
        case "":
            return _judge_object(decoded.text, begin, decoded.reason, rules)
        case "unfinished" if limit - begin > rules.max_event_bytes:
            if damage.offset == segment.refused_at:
                return damage.of_object(segment.refused_as, decoded.error_at)
            if segment.takes_envelopes and _may_be_envelope(damage.data, begin, limit, rules):
                return _Found(begin, is_envelope=True)
            return damage.of_object(TOO_LONG, decoded.error_at)
        case "unfinished":
            return damage.of_object("unfinished", limit) if damage.sealed else None
    return damage.of_object(decoded.fault, decoded.error_at)


def _may_be_envelope(data: bytes | bytearray, begin: int, limit: int, rules: Rules) -> bool:
    """Whether the first bytes of an object that is too long hold the name of a list of an envelope, or its records."""
    rows = [row for row in rules.formats if isinstance(row, Envelope) and row.path]
    reach = begin + rules.max_event_bytes
    if any(data.find(f'"{row.path[0]}"'.encode(), begin, reach) >= 0 for row in rows):
        return True
    head = bytes(data[begin : min(limit, begin + HEAD_BYTES)])
    return of_head(head, rules.formats) is not None


@dataclass(frozen=True)
class _Decoded:
    """The JSON value at a position, or the reason why there is none.

    Attributes:
        text: the value.
        reason: reason to refuse the value: a number in it is not finite.
        fault: ``not_json``, ``too_deep``, or ``unfinished`` if the bytes end within the value.
        error_at: position of the fault.
    """

    text: str = ""
    reason: str | None = None
    fault: str = ""
    error_at: int = 0


def _decode(data: bytes | bytearray, begin: int, limit: int, max_bytes: int) -> _Decoded:
    """Decode the value at ``begin``. The window starts small and grows: a short event in a large file costs little."""
    stop = begin
    window = _FIRST_WINDOW
    while stop < min(limit, begin + max_bytes):
        stop = min(begin + window, limit, begin + max_bytes)
        text = data[begin:stop].decode("utf-8", "surrogateescape")
        try:
            length, reason = decode(text)
        except json.JSONDecodeError as error:
            if _is_unfinished(error, text):
                window *= 16
                continue
            return _Decoded(fault="not_json", error_at=begin + len(_encode(text[: error.pos])))
        except RecursionError:
            return _Decoded(fault="too_deep", error_at=stop)
        return _Decoded(text[:length], reason)
    # Python's decoder gives up at 1,000 levels, from 3.14 on at many more: the limit here is our own.
    if is_too_deep(bytes(data[begin:stop]), MAX_NESTING):
        return _Decoded(fault="too_deep", error_at=stop)
    return _Decoded(fault="unfinished", error_at=stop)


def _judge_object(source: str, begin: int, reason: str | None, rules: Rules) -> _Found:
    raw = _encode(source)
    end = begin + len(raw)
    if not reason and is_too_deep(raw, rules.max_nesting):
        reason = "too_deep"
    if not reason:
        try:
            source.encode("utf-8")
        except UnicodeEncodeError:
            reason = "invalid_utf8"
    if reason:
        return _Found(end, reason=reason)
    text, remarks = cleaned(source, rules.unfold, rules.max_nesting)
    return _Found(end, text=text, remarks=remarks)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _is_unfinished(error: json.JSONDecodeError, text: str) -> bool:
    """Whether the text may only be cut off: at its very end, or within a string, a word, a number or an escape."""
    rest = text[error.pos :]
    return (
        error.msg.startswith("Unterminated string")
        or (error.msg.startswith("Invalid \\u") and len(rest) <= len("\\u1234"))
        or any(word.startswith(rest) for word in _CUT_SHORT)
    )


@dataclass(frozen=True)
class _Damage:
    """Decides how many bytes a dead letter includes: if possible, never a later line that begins an object.

    Without this rule, the lines of a damaged object over several lines would be read as events.

    Attributes:
        data: the bytes of the batch.
        begin: position of the dead letter.
        limit: end of the bytes of its segment.
        rules: limits of an event.
        sealed: no more bytes will come, so an incomplete end is given up.
        offset: offset of ``begin`` in the file.
        is_over: a 0x1E follows at ``limit``.
        is_framed: a 0x1E is before it: a record of RFC 7464, whose inner lines are no events. It ends at the next 0x1E,
            or at the end of a file that has not more bytes left than an event may have.
    """

    data: bytes | bytearray
    begin: int
    limit: int
    rules: Rules
    sealed: bool
    offset: int
    is_over: bool = False
    is_framed: bool = False

    def of_text(self, reason: str) -> _Found | None:
        """Include the line, and an object that the line leaves open: `INFO {` and the lines after it up to `}`."""
        line_end = _line_end(self.data, self.begin, self.limit)
        opened = open_object(self.data, self.begin, line_end) if line_end else -1
        if opened < 0:
            return self._up_to(line_end, reason)
        decoded = _decode(self.data, opened, self.limit, self.rules.max_event_bytes)
        if not decoded.fault:
            return _Found(opened + len(_encode(decoded.text)), reason=reason)
        if (
            decoded.fault == "unfinished"
            and not self.sealed
            and self.limit - self.begin <= self.rules.max_event_bytes
        ):
            return None
        return self._up_to(self._reach(opened), reason, self._column() + 1)

    def of_utf16(self, *, at_end: bool) -> _Found | None:
        """Include all bytes before the next line that begins an object in UTF-8.

        In a file that is still being written, include only complete lines.
        """
        again = _UTF8_AGAIN.search(self.data, self.begin, self.limit)
        if again:
            return _Found(again.end(), reason="utf16_in_utf8")
        if self.sealed or not at_end:
            return _Found(self.limit, reason="utf16_in_utf8")
        return self._up_to(self.data.rfind(b"\n", self.begin, self.limit) + 1, "utf16_in_utf8")

    def of_object(self, reason: str, error_at: int) -> _Found | None:
        """Include everything within the outer brackets, if they close before a line that begins an object.

        Otherwise include the line, if the error is on this line, or else all lines before a line that begins an object.
        """
        line_end = _line_end(self.data, self.begin, self.limit)
        if error_at >= line_end:
            return self._up_to(self._reach(self.begin), reason, self._column() + 1)
        closed = self._closing(self.begin, line_end)
        if self.is_framed:
            return self._up_to(closed or self._reach(self.begin), reason)
        neighbour = self.data.find(b"\n{", self.begin, self.limit) + 1
        closed = closed or self._closing(self.begin, neighbour or self.limit)
        size = self.limit - self.begin
        if closed or neighbour or self.sealed or size > self.rules.max_event_bytes:
            return self._up_to(closed or line_end, reason)
        return None

    def _reach(self, opened: int) -> int:
        """Position after the bracket that closes the bracket at ``opened``, if no line begins an object before it.

        Otherwise the begin of that line; 0 if neither is found. A record of RFC 7464 reaches to its end.
        """
        if self.is_framed:
            end = self.limit if self.sealed else 0
            return self._closing(opened, self.limit) or end
        neighbour = self.data.find(b"\n{", opened, self.limit) + 1
        return self._closing(opened, neighbour or self.limit) or neighbour

    def _closing(self, opened: int, reach: int) -> int:
        found = brackets(self.data, opened, reach)
        return next((position for position, depth in found if depth == 0), 0)

    def _column(self) -> int:
        """Column of the first bracket of the object."""
        line_begin = self.data.rfind(b"\n", 0, self.begin) + 1
        return 0 if self.data[line_begin : self.begin].strip() else self.begin - line_begin

    def _up_to(self, end: int, reason: str, object_goes_on: int = 0) -> _Found | None:
        if end or self.is_over:
            return _Found(end or self.limit, reason=reason)
        if self.limit - self.begin > self.rules.max_event_bytes:
            ends_line = self.data[self.limit - 1] in LINE_ENDS
            is_over_lines = self.data.find(b"\n", self.begin, self.limit) >= 0
            goes_on = object_goes_on if is_over_lines else 0
            return _Found(
                self.limit, reason=reason, line_goes_on=not ends_line, object_goes_on=goes_on
            )
        return _Found(self.limit, reason=reason) if self.sealed else None
