"""systemd's Journal Export Format: ``journalctl -o export``.

A record consists of lines ``FIELD=text``. For other bytes it has ``FIELD``, a newline, eight bytes of length, the bytes
and a newline. An empty line ends the record. A field that comes twice becomes a list. Pieces of a container's line are
marked as in `journald`.
https://systemd.io/JOURNAL_EXPORT_FORMATS/
"""

import re
from collections.abc import Iterator

from obs_assets.sources.formats.base import Event, Record, Text
from obs_assets.sources.formats.journald import MARKS, PARTIAL

_LENGTH_BYTES = 8
"""Bytes of the length before a field of other bytes; little-endian."""


def _records(data: bytes) -> Iterator[Record]:
    position = 0
    while position < len(data):
        end, event = _record(data, position)
        if event:
            stream, is_whole = _piece(event)
            yield Record(position, end, event, is_whole, stream)
        elif event is None:
            yield Record(position, end, None)
        position = end


def _piece(event: Event) -> tuple[str, bool]:
    """Stream of a record, and whether its line ends with the record."""
    is_last = event.get(f"{PARTIAL}LAST", "")
    is_piece = event.get(f"{PARTIAL}MESSAGE") == "true"
    is_whole = is_last == "true" or (not is_last and not is_piece)
    names = (f"{PARTIAL}ID", "CONTAINER_ID_FULL", "CONTAINER_ID", "PRIORITY")
    return next((str(event[name]) for name in names if name in event), ""), is_whole


def _record(data: bytes, begin: int) -> tuple[int, Event | None]:
    """Position after the record that begins here and its empty line, and its event; None if it is not an event."""
    event: Event = {}
    position = begin
    while position < len(data):
        end = data.find(b"\n", position) + 1 or len(data)
        line = data[position:end].rstrip(b"\n")
        position = end
        if not line:
            return end, event
        name, equals, value = line.partition(b"=")
        if not _FIELD.fullmatch(name):
            return _next_empty_line(data, position), None
        if not equals:
            size = int.from_bytes(data[position : position + _LENGTH_BYTES], "little")
            value = data[position + _LENGTH_BYTES : position + _LENGTH_BYTES + size]
            position += _LENGTH_BYTES + size + 1
            if position > len(data):
                return len(data), None
        _add(event, name.decode(), value.decode("utf-8", "replace"))
    return position, event


def _add(event: Event, name: str, value: str) -> None:
    if name not in event:
        event[name] = value
    elif isinstance(event[name], list):
        event[name].append(value)
    else:
        event[name] = [event[name], value]


def _next_empty_line(data: bytes, position: int) -> int:
    end = data.find(b"\n\n", position - 1)
    return end + 2 if end >= 0 else len(data)


def _ends(data: bytes) -> int:
    """Position where the last complete record ends. An empty line within a field of other bytes ends no record."""
    position = whole = 0
    while position < len(data):
        position, _ = _record(data, position)
        if data[:position].endswith(b"\n\n"):
            whole = position
    return whole


_FIELD = re.compile(rb"_{0,2}[A-Z][A-Z0-9_]*")

FORMAT = Text(
    "journald_export",
    looks_like=re.compile(r"__CURSOR=|__REALTIME_TIMESTAMP="),
    records=_records,
    ends=_ends,
    text="MESSAGE",
    marks_of_pieces=MARKS,
)
