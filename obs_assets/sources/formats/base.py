"""The kinds of rows in the table of formats."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Event: TypeAlias = dict[str, Any]


def as_it_is(record: Event, outer: Sequence[Event]) -> Event:
    """A record, plus those fields of the envelope around it that the record does not have.

    Args:
        record: the record.
        outer: the objects around it, the outermost first, without the lists that lead to it.
    """
    event = dict(record)
    for fields in reversed(outer):
        event.update((name, value) for name, value in fields.items() if name not in event)
    return event


def always(_: Event) -> bool:
    """True for each envelope."""
    return True


@dataclass(frozen=True)
class Envelope:
    """An object that holds a list of records; each record is an event.

    Attributes:
        name: name of the row.
        path: names of the lists from the outside to the records: ``("resourceLogs", "scopeLogs", "logRecords")``. In
            between are lists of objects. Empty: the object is a record itself.
        keys: top-level keys that such an object must have.
        others: further top-level keys that it may have; None: any keys.
        event: makes an event from a record and the objects around it, the outermost first. If it is None and there is
            nothing around the records, they stay unchanged.
        holds_events: whether an envelope with these outer fields holds events at all; without a path, whether the
            object is an event.
        pair: for records that are lists: makes the JSON of an object from the JSON of such a list.
        changes: a text that occurs in every record that ``event`` changes.
    """

    name: str
    path: tuple[str, ...]
    keys: frozenset[str]
    others: frozenset[str] | None = None
    event: Callable[[Event, Sequence[Event]], Event] | None = None
    holds_events: Callable[[Event], bool] = always
    changes: str = ""
    pair: Callable[[bytes], bytes] | None = None

    @property
    def markers(self) -> tuple[str, ...]:
        """Texts that all occur in every object of this format."""
        return tuple(f'"{key}"' for key in sorted(self.keys))

    def fits(self, event: Event) -> bool:
        """Whether an object may have this format, by its keys. It is called for a single object of each shape.

        Opening the envelope shows later if its list holds objects.
        """
        if not self.keys <= event.keys():
            return False
        return self.others is None or event.keys() <= self.keys | self.others


@dataclass(frozen=True)
class Pieces:
    """An event that its carrier may have cut. The pieces are joined by file and by stream.

    Attributes:
        name: name of the row.
        text: name of the field with the text.
        stream: SQL over ``line`` for the stream of a piece.
        is_whole: SQL over ``line`` for whether the line ends with the piece.
        keys: top-level keys that such an object must have.
        marks: keys of which it must have one; empty: none is needed.
        others: further top-level keys that it may have; None: any keys.
        event: changes the object before its pieces are joined, as in `Envelope`.
        marks_of_pieces: fields that say something about a piece, and nothing about the joined event.
    """

    name: str
    text: str
    stream: str
    is_whole: str
    keys: frozenset[str]
    marks: frozenset[str] = frozenset()
    others: frozenset[str] | None = None
    event: Callable[[Event, Sequence[Event]], Event] | None = None
    marks_of_pieces: tuple[str, ...] = ()

    @property
    def markers(self) -> tuple[str, ...]:
        """Texts that all occur in every object of this format."""
        return tuple(f'"{key}"' for key in sorted(self.keys))

    def fits(self, event: Event) -> bool:
        """Whether an object may have this format, by its keys. Its field ``text`` may still hold another type."""
        if not self.keys <= event.keys() or (self.marks and self.marks.isdisjoint(event)):
            return False
        return self.others is None or event.keys() <= self.keys | self.others


def field_text(*names: str) -> str:
    """SQL: text of the first of these fields of ``line`` that is not null; an empty text without any.

    >>> field_text("a", "b")
    "coalesce(json_extract_string(line, '$.\"a\"'), json_extract_string(line, '$.\"b\"'), '')"
    """
    found = "".join(f"json_extract_string(line, '$.\"{name}\"'), " for name in names)
    return f"coalesce({found}'')"


def is_last_piece(message: str, last: str) -> str:
    """SQL: whether a line ends with a piece, by the fields with which Docker's log drivers mark pieces.

    Newer versions of Docker write on each piece whether it is the last; older versions mark all pieces but the last.

    Args:
        message: field that is true on a piece.
        last: field that is true on the last piece.
    """
    return f"{field_text(last)} = 'true' OR ({field_text(last)} = '' AND {field_text(message)} <> 'true')"


@dataclass(frozen=True)
class Record:
    """An event read from a text.

    Attributes:
        begin, end: byte positions in the text.
        event: the event; None: the bytes are not an event.
        is_whole: False for a piece that continues in the next record of its stream.
        stream: stream of a piece.
    """

    begin: int
    end: int
    event: Event | None
    is_whole: bool = True
    stream: str = ""


@dataclass(frozen=True)
class Text:
    """A format that is not JSON.

    Attributes:
        name: name of the row; ``source.format`` must be set to it.
        looks_like: pattern of the beginning of a line that probably has this format.
        records: the records of a text that ends where a record ends.
        ends: position where the last complete record of a text ends, in bytes.
        text: name of the field in which pieces are joined.
        marks_of_pieces: as in `Pieces`.
    """

    name: str
    looks_like: re.Pattern[str]
    records: Callable[[bytes], Iterator[Record]]
    ends: Callable[[bytes], int]
    text: str = "message"
    marks_of_pieces: tuple[str, ...] = ()


def lines_of(data: bytes, event_of: Callable[[str], Event | None]) -> Iterator[Record]:
    """Records of a line each, which ends with a newline or a NUL; a line that is not UTF-8 is not an event."""
    begin = 0
    while begin < len(data):
        newline = data.find(b"\n", begin) + 1 or len(data)
        end = data.find(b"\0", begin, newline) + 1 or newline
        # Blanks stay: a carrier may cut a line after a blank
        raw = data[begin:end].strip(b"\r\n\0")
        if raw.strip():
            try:
                event = event_of(raw.decode())
            except UnicodeDecodeError:
                event = None
            yield Record(begin, end, event)
        begin = end


def last_line_end(data: bytes) -> int:
    """Position where the last complete line ends. Zeros at the end may still be overwritten."""
    return max(data.rfind(b"\n"), data.rstrip(b"\0").rfind(b"\0")) + 1
