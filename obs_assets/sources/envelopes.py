"""Opens envelopes: finds their records, and the fields around them.

There are two passes over the text: the first finds the offsets of the records, the second reads them. The fields around
the records (the outer text) are complete only after the first pass, since the order of an object's fields is free.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from obs_assets.sources.formats import Envelope, Format, Unnamed
from obs_assets.sources.formats.base import Event, as_it_is
from obs_assets.sources.formats.records import whole_head
from obs_assets.sources.json_text import loaded, written

OUTER_BYTES = 64 << 10
"""Bytes of an envelope's other fields that are kept on each record."""

Buffer: TypeAlias = Any
"""bytes, bytearray or a memory-mapped file."""

ALONE = -1

_BETWEEN = re.compile(rb"[\s,:]*")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SCALAR = re.compile(rb"[^\s,:{}\[\]\"]+")
_TO_BRACKET = re.compile(
    rb'[^"{}\[\]]*(?:"[^"\\]*(?:\\.[^"\\]*)*"[^"{}\[\]]*)*([{}\[\]])', re.DOTALL
)
_OPENING = b"{["


class NoEnvelopeError(Exception):
    """An object looks like an envelope but is not: it is not JSON, or its list holds values other than objects.

    Attributes:
        holds_records: whether a record was found before the fault.
    """

    def __init__(self, *, holds_records: bool = False) -> None:
        super().__init__("no envelope")
        self.holds_records = holds_records


@dataclass(frozen=True)
class Span:
    """Position of a record.

    Attributes:
        begin, end: position of its first byte, and position after its last byte.
        places: its index in its list, preceded by the indexes of the objects around it in their lists, outermost first.
            `ALONE` for an object in place of a list.
    """

    begin: int
    end: int
    places: tuple[int, ...]


@dataclass
class Opened:
    """An envelope whose records were found.

    Attributes:
        row: its format.
        spans: the records, in order.
        outer: the envelope without its records: 0 stands for each record.
        begin, end: position of its first bracket, and position after its last bracket.
    """

    row: Envelope
    spans: list[Span]
    outer: Event
    begin: int
    end: int
    _cache: dict[tuple[int, ...], tuple[Event, ...]] = field(default_factory=dict)

    @property
    def tail(self) -> int:
        """Number of bytes behind the last record; 0 if there is no record."""
        return self.end - self.spans[-1].end if self.spans else 0

    @property
    def outside(self) -> int:
        """Number of bytes outside the records."""
        return self.end - self.begin - sum(span.end - span.begin for span in self.spans)

    def behind(self, position: int) -> "Opened":
        """The rest of the envelope from a position on, which no record includes."""
        spans = [span for span in self.spans if span.begin >= position]
        return replace(self, spans=spans, begin=max(self.begin, position))

    def around(self, span: Span) -> tuple[Event, ...]:
        """The objects around a record, the outermost first, without the lists that lead to the record."""
        key = span.places[:-1]
        if key not in self._cache:
            objects = [self.outer]
            for name, place in zip(self.row.path, key, strict=False):
                inner = objects[-1][name]
                objects.append(inner if place == ALONE else inner[place])
            lists = zip(objects, self.row.path, strict=True)
            self._cache[key] = tuple(
                {k: v for k, v in one.items() if k != name} for one, name in lists
            )
        return self._cache[key]


HEAD_BYTES = 1 << 20
"""First bytes of an envelope in which the list of its records is searched."""


def of_head(head: bytes, rows: Sequence[Format]) -> Envelope | None:
    """Row of an envelope by the records in its first bytes; None if there are none.

    Args:
        head: the first bytes of an object, at most `HEAD_BYTES`.
        rows: the formats to try.
    """
    unnamed = next((row for row in rows if isinstance(row, Unnamed)), None)
    if unnamed is None:
        return None
    try:
        return unnamed.row_of(whole_head(head))
    except (ValueError, RecursionError):
        return None


def open_any(data: Buffer, rows: Sequence[Format]) -> Opened:
    """Open the envelope at the first byte, in the format that fits.

    Raises:
        NoEnvelopeError: no format fits, or the envelope does not end in ``data``.
    """
    named = [row for row in rows if isinstance(row, Envelope) and row.path]
    try:
        return _open_one(data, named)
    except NoEnvelopeError as fault:
        row = None if fault.holds_records else of_head(bytes(data[:HEAD_BYTES]), rows)
        if row is None:
            raise
    return _open_one(data, [row])


def _open_one(data: Buffer, rows: Sequence[Envelope]) -> Opened:
    found: list[Opened] = []
    holds_records = False
    for row in rows:
        try:
            opened = open_envelope(data, 0, row)
        except NoEnvelopeError as fault:
            holds_records = holds_records or fault.holds_records
        else:
            if row.fits(opened.outer):
                found.append(opened)
    if len(found) != 1:
        raise NoEnvelopeError(holds_records=holds_records)
    return found[0]


def open_envelope(data: Buffer, begin: int, row: Envelope) -> Opened:
    """Find the records of an envelope.

    Args:
        data: bytes that hold the whole envelope.
        begin: position of its first bracket.
        row: its format, which has a path.

    Raises:
        NoEnvelopeError: the object is not an envelope of this format.
    """
    scan = _Scan(data, row.path, b"[" if row.pair else b"{")
    try:
        end = scan.object(begin, 0, ())
    except NoEnvelopeError:
        raise NoEnvelopeError(holds_records=bool(scan.spans)) from None
    if not scan.lists:
        raise NoEnvelopeError
    position, parts = begin, []
    for span in scan.spans:
        parts += [data[position : span.begin], b"0"]
        position = span.end
    parts.append(data[position:end])
    try:
        outer = loaded(b"".join(parts).decode())
    except (ValueError, RecursionError):
        raise NoEnvelopeError from None
    return Opened(row, scan.spans, outer, begin, end)


class _Scan:
    """The first pass: it reads only the lists and objects that lead to the records, and skips all other values."""

    def __init__(self, data: Buffer, path: Sequence[str], bracket: bytes) -> None:
        self._data = data
        self._path = path
        self._bracket = bracket  # first byte of a record
        self.spans: list[Span] = []
        self.lists = 0  # lists of records

    def object(self, begin: int, level: int, places: tuple[int, ...]) -> int:
        """Scan the object at ``begin``. Returns the position after it."""
        position = begin + 1
        while (position := self._skip(position)) and self._byte(position) != b"}":
            key = self._match(_STRING, position)
            value = self._skip(key.end())
            first = self._byte(value)
            if first not in (b"[", b"{") or _name(key[0]) != self._path[level]:
                position = self._value(value)
            elif first == b"[":
                position = self._list(value, level, places)
            elif level + 1 < len(self._path):
                position = self.object(value, level + 1, (*places, ALONE))
            else:
                raise NoEnvelopeError
        return position + 1

    def _list(self, begin: int, level: int, places: tuple[int, ...]) -> int:
        position, place = begin + 1, 0
        self.lists += level + 1 == len(self._path)
        while (position := self._skip(position)) and self._byte(position) != b"]":
            is_inner = level + 1 < len(self._path)
            if self._byte(position) != (b"{" if is_inner else self._bracket):
                raise NoEnvelopeError
            here = (*places, place)
            if is_inner:
                position = self.object(position, level + 1, here)
            else:
                end = self._value(position)
                self.spans.append(Span(position, end, here))
                position = end
            place += 1
        return position + 1

    def _value(self, begin: int) -> int:
        """Position after the value at ``begin``."""
        first = self._byte(begin)
        if first == b'"':
            return self._match(_STRING, begin).end()
        if first not in (b"{", b"["):
            return self._match(_SCALAR, begin).end()
        position, depth = begin, 0
        while True:
            match = self._match(_TO_BRACKET, position)
            position = match.end()
            depth += 1 if match[1] in _OPENING else -1
            if not depth:
                return position

    def _skip(self, position: int) -> int:
        return self._match(_BETWEEN, position).end()

    def _byte(self, position: int) -> bytes:
        return bytes(self._data[position : position + 1])

    def _match(self, pattern: re.Pattern[bytes], position: int) -> re.Match[bytes]:
        match = pattern.match(self._data, position)
        if match is None or match.end() > len(self._data):
            raise NoEnvelopeError
        return match


def _name(key: bytes) -> str:
    try:
        return str(json.loads(key))
    except ValueError:
        raise NoEnvelopeError from None


def event_of(line: str, row: Envelope, around: Sequence[Event]) -> tuple[str, bool]:
    """Text of the event that a record becomes, and whether fields around the record were left out.

    Args:
        line: text of the record.
        row: its format.
        around: result of `Opened.around`.
    """
    if row.changes not in line or (row.event is None and not any(around)):
        return line, False
    kept = _limited(around)
    event = (row.event or as_it_is)(loaded(line), kept)
    return written(event), kept != tuple(around)


def _limited(around: Sequence[Event]) -> tuple[Event, ...]:
    """The first of these fields, up to `OUTER_BYTES` together."""
    left = OUTER_BYTES
    kept: list[Event] = []
    for fields in around:
        kept.append({})
        for name, value in fields.items():
            left -= len(name) + len(written(value))
            if left >= 0:
                kept[-1][name] = value
    return tuple(kept)
