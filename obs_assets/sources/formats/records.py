"""Envelopes that have no name here: an answer of an API, an export, a batch of a shipper.

The list of records is found by its records: **an object without a time, a type and a level of its own, in which exactly
one list holds records, is an envelope of these records.** A record is an object with a time, or a pair of a time and a
text, as Loki writes it; a list holds records if most of its values are records. The list may lie in other objects and
lists, if these have no time, type or level either.
"""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from obs_assets.events import ALIASES, MESSAGES
from obs_assets.sources.formats.base import Envelope, Event
from obs_assets.sources.json_text import loaded, written
from obs_assets.sources.times import has_time, is_possible, time_field

_MOST_NESTED = 6
"""Names on the way to the list of records."""
_LOOKED_AT = 100
"""Records of a list that are looked at."""

_OWN = (*ALIASES["event_type"], *ALIASES["event_level"])
"""Fields of an event that an envelope does not have."""

_ABOUT_THE_ENVELOPE = frozenset(
    itertools.chain.from_iterable(
        ALIASES[column] for column in ("event_id", "status", "error", "duration_ms", "cost_usd")
    )
).union(MESSAGES)
"""Fields of an envelope that say something about the answer, and nothing about its records."""

_LISTS = re.compile(r"\[\s*[\[{]")


@dataclass(frozen=True)
class Unnamed:
    """The kind of row for envelopes whose list is found by its records.

    Attributes:
        singles: rows of single records, to which the records are converted.
        time_path: field in which the pipeline first looks for the time of an event.
        name: name of the row.
    """

    singles: tuple[Envelope, ...] = ()
    time_path: str | None = None
    name: str = "records"

    @property
    def markers(self) -> tuple[str, ...]:
        """Texts that all occur in every object of this format."""
        return ("[",)

    def fits(self, event: Event) -> bool:
        """Whether an object may be an envelope, by its keys. It is called for a single object of each shape."""
        return not any(name in event for name in _OWN) and not has_time(event, self.time_path)

    def row_of(self, text: str) -> Envelope | None:
        """The row of an envelope; None if the object is an event itself.

        Args:
            text: JSON of the object.
        """
        if not _LISTS.search(text):
            return None
        found = set(self._lists(json.loads(text), ()))
        if len(found) != 1:
            return None
        ((path, has_pairs),) = found
        return Envelope(
            self.name,
            path=path,
            keys=frozenset(path[:1]),
            event=self._entry if has_pairs else self._record,
            pair=_object_of_pair if has_pairs else None,
        )

    def _lists(
        self, event: Event, path: tuple[str, ...]
    ) -> Iterator[tuple[tuple[str, ...], bool]]:
        """Path of each list of records in an object without a time, and whether the records are pairs."""
        if len(path) == _MOST_NESTED or not self._is_bare(event):
            return
        for name, value in event.items():
            here = (*path, name)
            match value:
                case dict():
                    yield from self._lists(value, here)
                case [dict(), *_]:
                    objects = value[:_LOOKED_AT]
                    if self._are_records(objects):
                        yield here, False
                    else:
                        for one in objects:
                            if isinstance(one, dict):
                                yield from self._lists(one, here)
                case [list(), *_]:
                    if all(map(_is_pair, value[:_LOOKED_AT])):
                        yield here, True

    def _is_bare(self, event: Event) -> bool:
        named = (event.get(name) for name in _OWN)
        return not any(isinstance(value, str | int) for value in named) and not has_time(
            event, self.time_path
        )

    def _are_records(self, objects: Sequence[Any]) -> bool:
        """Whether most values of a list are objects with a time."""
        timed = sum(isinstance(one, dict) and self._is_record(one) for one in objects)
        return 2 * timed > len(objects)

    def _is_record(self, record: Event) -> bool:
        event = self._converted(record)
        return has_time(event, self.time_path) or bool(time_field(event))

    def _converted(self, record: Event) -> Event:
        """The record as the event of its own format, if it has one."""
        row = next((row for row in self.singles if row.fits(record)), None)
        return row.event(record, ()) if row and row.event else record

    def _record(self, record: Event, outer: Sequence[Event]) -> Event:
        return _with_fields_around(self._converted(record), outer)

    def _entry(self, record: Event, outer: Sequence[Event]) -> Event:
        """A pair's event. The labels beside its list, as Loki has them, become its own fields."""
        labels = [value for value in outer[-1].values() if isinstance(value, dict)]
        for fields in labels:
            record = {**fields, **record}
        beside = {k: v for k, v in outer[-1].items() if not isinstance(v, dict)}
        return _with_fields_around(record, (*outer[:-1], beside))


def _with_fields_around(record: Event, outer: Sequence[Event]) -> Event:
    """The record with those fields of the envelope that it lacks and that may belong to it."""
    event = dict(record)
    for fields in reversed(outer):
        for name, value in fields.items():
            if name not in _ABOUT_THE_ENVELOPE:
                event.setdefault(name, value)
    return event


def _is_pair(value: Any) -> bool:
    match value:
        case [str() | int() | float() as time, str(), *_]:
            return is_possible(time)
    return False


def _object_of_pair(raw: bytes) -> bytes:
    """JSON of the event that a pair becomes; behind its text there may be an object with more fields.

    Bytes that are no such pair are returned unchanged.
    """
    match loaded(raw.decode("utf-8", "surrogateescape")):
        case [time, str() as message, *others]:
            more = others[0] if others and isinstance(others[0], dict) else {}
            event = {"timestamp": time, "message": message, **more}
            return written(event).encode("utf-8", "surrogateescape")
    return raw


def whole_head(data: bytes) -> str:
    """JSON of the object at the beginning of the data; if its rest is not there, of the values complete in it.

    >>> whole_head(b'{"a": [{"n": 1}, {"n": 2')
    '{"a": [{"n": 1}]}'
    """
    opened: list[bytes] = []
    cut, closing = 0, b""
    for match in _STRING_OR_BRACKET.finditer(data):
        bracket = match[1]
        if bracket in (b"{", b"["):
            opened.append(b"}" if bracket == b"{" else b"]")
        elif bracket and opened:
            opened.pop()
            cut, closing = match.end(), b"".join(reversed(opened))
            if not opened:
                break
    return (data[:cut] + closing).decode("utf-8", "replace")


_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|([{}\[\]])', re.DOTALL)
