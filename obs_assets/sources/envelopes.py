"""Envelopes taken apart: where their records lie, and the fields around them.

Two passes over the text: the first finds the offsets of the records, the second reads them. What is around the records,
the outer text, is known only then, since the order of an object's fields is free.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from obs_assets.sources.formats import Envelope
from obs_assets.sources.formats.base import Event, as_it_is
from obs_assets.sources.json_text import loaded, written

OUTER_BYTES = 64 << 10
"""So much of an envelope's other fields is kept on each record."""

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
    """An object that looks like an envelope is none: it is no JSON, or its list holds other values than objects.

    Attributes:
        holds_records: whether a record was found before the fault.
    """

    def __init__(self, *, holds_records: bool = False) -> None:
        super().__init__("no envelope")
        self.holds_records = holds_records


@dataclass(frozen=True)
class Span:
    """Where a record lies.

    Attributes:
        begin, end: positions of its first byte and behind its last one.
        places: its place, and those of the objects around it, in their lists; the outermost first. `ALONE` for an
            object in place of a list.
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
        outer: the envelope without its records: 0 stands for each.
        begin, end: positions of the envelope's first bracket and behind its last one.
    """

    row: Envelope
    spans: list[Span]
    outer: Event
    begin: int
    end: int
    _cache: dict[tuple[int, ...], tuple[Event, ...]] = field(default_factory=dict)

    def around(self, span: Span) -> tuple[Event, ...]:
        """The objects around a record, the outermost first, without the lists that lead to it."""
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


def open_any(data: Buffer, rows: Sequence[Envelope]) -> Opened:
    """Open the envelope that begins with the first byte, in the one of these formats that it has.

    Raises:
        NoEnvelopeError: it is none of them, or goes on behind the last byte.
    """
    found: list[Opened] = []
    holds_records = False
    for row in rows:
        if not row.path:
            continue
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
        data: holds the envelope, whole.
        begin: position of its first bracket.
        row: its format; with a path.

    Raises:
        NoEnvelopeError: it cannot be taken apart.
    """
    scan = _Scan(data, row.path)
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
    """The first pass: only what leads to the records is looked at, the rest is skipped bracket by bracket."""

    def __init__(self, data: Buffer, path: Sequence[str]) -> None:
        self._data = data
        self._path = path
        self.spans: list[Span] = []
        self.lists = 0  # of records

    def object(self, begin: int, level: int, places: tuple[int, ...]) -> int:
        """Scan the object at ``begin``; returns the position behind it."""
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
            if self._byte(position) != b"{":
                raise NoEnvelopeError
            here = (*places, place)
            if level + 1 < len(self._path):
                position = self.object(position, level + 1, here)
            else:
                end = self._value(position)
                self.spans.append(Span(position, end, here))
                position = end
            place += 1
        return position + 1

    def _value(self, begin: int) -> int:
        """The position behind the value at ``begin``."""
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
    """The text of the event that a record becomes, and whether fields around it were left out.

    Args:
        line: the record's text.
        row: its format.
        around: as `Opened.around` gives it.
    """
    if row.changes not in line or (row.event is None and not any(around)):
        return line, False
    kept = _limited(around)
    event = (row.event or as_it_is)(loaded(line), kept)
    return written(event), kept != tuple(around)


def _limited(around: Sequence[Event]) -> tuple[Event, ...]:
    """The first of these fields, as many as fit in `OUTER_BYTES`."""
    left = OUTER_BYTES
    kept: list[Event] = []
    for fields in around:
        kept.append({})
        for name, value in fields.items():
            left -= len(name) + len(written(value))
            if left >= 0:
                kept[-1][name] = value
    return tuple(kept)
