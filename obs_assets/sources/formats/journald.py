"""systemd's journal as JSON: ``journalctl -o json`` and ``-o json-seq``.

A field with a byte that cannot be printed, be it a line end, is a list of its bytes: ``[104, 105, 13]``. It becomes the
text that it stands for, so that redaction sees it. https://systemd.io/JOURNAL_EXPORT_FORMATS/
"""

from collections.abc import Sequence
from typing import Any

from obs_assets.sources.formats.base import Envelope, Event
from obs_assets.sources.json_text import is_number

_BYTE_VALUES = frozenset(map(str, range(256)))


def _event(record: Event, outer: Sequence[Event]) -> Event:
    del outer
    return {name: _text_of(value) for name, value in record.items()}


def _text_of(value: Any) -> Any:
    """The text that a list of bytes stands for, and of each list in a list of fields; other values as they are."""
    if not isinstance(value, list) or not value:
        return value
    if all(is_number(item) and item in _BYTE_VALUES for item in value):
        text = bytes(map(int, value)).decode("utf-8", "replace")
        return text.replace("\0", "\ufffd")  # no database takes NUL
    return [_text_of(item) for item in value]


FORMAT = Envelope(
    "journald", path=(), keys=frozenset({"__REALTIME_TIMESTAMP"}), event=_event, changes="["
)
