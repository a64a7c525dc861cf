"""What a row of the table of formats may be."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Event: TypeAlias = dict[str, Any]


def as_it_is(record: Event, outer: Sequence[Event]) -> Event:
    """A record with the fields of the envelope around it that it has not itself.

    Args:
        record: the record.
        outer: the objects around it, the outermost first, without the lists that lead to it.
    """
    event = dict(record)
    for fields in reversed(outer):
        event.update((name, value) for name, value in fields.items() if name not in event)
    return event


@dataclass(frozen=True)
class Envelope:
    """An object that holds a list of records, each of which is an event.

    Attributes:
        name: of the row.
        path: names of the lists from the outside to the records: ``("resourceLogs", "scopeLogs", "logRecords")``. In
            between are lists of objects. Empty: the object is a record itself.
        keys: top-level keys that such an object has.
        others: further top-level keys that it may have; None: any.
        event: makes an event of a record and of the objects around it, the outermost first. Where it is None and
            nothing is around the records, they stay as they are.
        holds_events: whether an envelope with these outer fields holds events at all.
        changes: a text that is in every record that ``event`` changes.
    """

    name: str
    path: tuple[str, ...]
    keys: frozenset[str]
    others: frozenset[str] | None = None
    event: Callable[[Event, Sequence[Event]], Event] | None = None
    holds_events: Callable[[Event], bool] = lambda _: True
    changes: str = ""

    @property
    def markers(self) -> tuple[str, ...]:
        """Texts of which each is in every object that fits."""
        return tuple(f'"{key}"' for key in sorted(self.keys))

    def fits(self, event: Event) -> bool:
        """Whether an object may be in this format, by its keys: of those of one shape a single object is asked about.

        Whether its list holds objects is seen when it is taken apart.
        """
        if not self.keys <= event.keys():
            return False
        return self.others is None or event.keys() <= self.keys | self.others


@dataclass(frozen=True)
class Pieces:
    """An event whose carrier may have cut it: joined by file and by stream.

    Attributes:
        name: of the row.
        text, stream: names of the fields with the text and with the stream that it belongs to.
        keys: top-level keys that such an object has.
        others: further top-level keys that it may have.
    """

    name: str
    text: str
    stream: str
    keys: frozenset[str]
    others: frozenset[str]

    @property
    def markers(self) -> tuple[str, ...]:
        """Texts of which each is in every object that fits."""
        return tuple(f'"{key}"' for key in sorted(self.keys))

    def fits(self, event: Event) -> bool:
        """Whether an object may be in this format, by its keys; its text may still be no text."""
        return self.keys <= event.keys() <= self.keys | self.others


@dataclass(frozen=True)
class Record:
    """An event read from a text.

    Attributes:
        begin, end: byte positions in the text.
        event: the event; None: the bytes are no event.
        is_whole: False for a piece that the next record of its stream goes on.
        stream: that a piece belongs to.
    """

    begin: int
    end: int
    event: Event | None
    is_whole: bool = True
    stream: str = ""


@dataclass(frozen=True)
class Text:
    """A format that is no JSON.

    Attributes:
        name: of the row; ``source.format`` has to name it.
        looks_like: the beginning of a line that is likely in this format.
        records: the records of a text that ends where a record ends.
        ends: where the last whole record of a text ends, in bytes.
        text: name of the field that pieces are joined in.
    """

    name: str
    looks_like: re.Pattern[str]
    records: Callable[[bytes], Iterator[Record]]
    ends: Callable[[bytes], int]
    text: str = "message"


Format: TypeAlias = Envelope | Pieces | Text

Options: TypeAlias = Mapping[str, Any]


def lines_of(data: bytes, event_of: Callable[[str], Event | None]) -> Iterator[Record]:
    """Records of one line each; a line that is not UTF-8 is no event."""
    begin = 0
    while begin < len(data):
        end = data.find(b"\n", begin) + 1 or len(data)
        raw = data[begin:end].strip(b"\r\n\0")  # blanks at its end may stand within a cut word
        if raw.strip():
            try:
                event = event_of(raw.decode())
            except UnicodeDecodeError:
                event = None
            yield Record(begin, end, event)
        begin = end


def last_line_end(data: bytes) -> int:
    """Where the last whole line ends."""
    return data.rfind(b"\n") + 1
