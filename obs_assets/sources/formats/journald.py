"""systemd's journal as JSON: ``journalctl -o json`` and ``-o json-seq``.

A field with a byte that cannot be printed, such as a line end, is a list of its bytes: ``[104, 105, 13]``. It is
converted to text, so that redaction can read it. https://systemd.io/JOURNAL_EXPORT_FORMATS/

Docker's log driver ``journald`` marks the pieces of a line: ``CONTAINER_PARTIAL_MESSAGE``, and in newer versions
``CONTAINER_PARTIAL_ID``, ``CONTAINER_PARTIAL_ORDINAL`` and ``CONTAINER_PARTIAL_LAST``.
"""

from collections.abc import Sequence
from typing import Any

from obs_assets.sources.formats.base import (
    Envelope,
    Event,
    Pieces,
    field_text,
    is_last_piece,
)
from obs_assets.sources.json_text import is_number

_BYTE_VALUES = frozenset(map(str, range(256)))


def _event(record: Event, outer: Sequence[Event]) -> Event:
    del outer
    return {name: _text_of(value) for name, value in record.items()}


def _text_of(value: Any) -> Any:
    """Text of a list of bytes, also for each list in a list of fields; other values unchanged."""
    if not isinstance(value, list) or not value:
        return value
    if all(is_number(item) and item in _BYTE_VALUES for item in value):
        text = bytes(map(int, value)).decode("utf-8", "replace")
        return text.replace("\0", "\ufffd")  # no database accepts NUL
    return [_text_of(item) for item in value]


PARTIAL = "CONTAINER_PARTIAL_"
"""Begin of the names of the fields that mark a piece."""
MARKS = tuple(PARTIAL + name for name in ("MESSAGE", "ID", "ORDINAL", "LAST"))

_OF_A_CONTAINER = Pieces(
    "journald",
    text="MESSAGE",
    stream=field_text(f"{PARTIAL}ID", "CONTAINER_ID_FULL", "CONTAINER_ID")
    + " || "
    + field_text("PRIORITY"),
    is_whole=is_last_piece(f"{PARTIAL}MESSAGE", f"{PARTIAL}LAST"),
    keys=frozenset({"__REALTIME_TIMESTAMP", "MESSAGE"}),
    marks=frozenset({"CONTAINER_ID", "CONTAINER_ID_FULL", f"{PARTIAL}MESSAGE"}),
    event=_event,
    marks_of_pieces=MARKS,
)

FORMATS = (
    _OF_A_CONTAINER,
    Envelope(
        "journald", path=(), keys=frozenset({"__REALTIME_TIMESTAMP"}), event=_event, changes="["
    ),
)
